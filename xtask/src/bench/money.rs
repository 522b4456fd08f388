//! What money costs: metering in a commit of the store, and `GET /v1/usage` over a ledger with many rows.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use http::Method;
use palisade_testkit::Server;
use palisade_testkit::upstream::ScriptedUpstream;
use serde_json::Value;

use super::row::Row;
use crate::build;

/// A commit with an answer is the floor of the same with its metering.
pub(super) fn metering(calls: usize) -> Result<([Row; 2], Row)> {
    let output = example(&["measure", &calls.to_string()])?;
    let samples: Value = serde_json::from_str(&output).context("reading the samples of the store")?;
    let row = |what: &str, name: &str| {
        let nanos = samples[name].as_array().into_iter().flatten().filter_map(Value::as_u64);
        Row::times(what, nanos.map(Duration::from_nanos).collect())
    };
    let plain = row("a commit with an answer", "plain_ns");
    let metered = row("the same, metered", "metered_ns").above(&[&plain]);
    Ok(([metered, row("setting credits aside", "reserve_ns").above(&[&plain])], plain))
}

/// Asked once the ledger has so many rows, and the caller used something in every minute of the day.
pub(super) async fn usage(
    palisade: &str,
    upstream: &ScriptedUpstream,
    rows: usize,
    round_trips: usize,
    health: &Row,
) -> Result<Row> {
    // What is added stands in the table of the tenant `other`.
    let mut server = Server::start(palisade, upstream, "ledger = \"acme\"").await;
    ensure!(server.terminate().await.success(), "a server did not stop well");
    let database = server.folder.path().join("data/palisade.db");
    example(&["fill", database.to_str().context("a path is not UTF-8")?, &rows.to_string()])?;
    server.restart().await;
    let mut samples = Vec::with_capacity(round_trips);
    for _ in 0..round_trips {
        let began = Instant::now();
        let answer = server.json(server.as_other(Method::GET, "/v1/usage")).await;
        samples.push(began.elapsed());
        let day = &answer["rate_limit"]["buckets"]["session_turn"]["windows"][1];
        ensure!(day["turns"].as_u64().is_some_and(|turns| turns > 1400), "no day's worth of usage: {answer}");
    }
    Ok(Row::times(&format!("GET /v1/usage with {rows} ledger rows"), samples).goal(5.0).above(&[health]))
}

fn example(args: &[&str]) -> Result<String> {
    let package = ["run", "--quiet", "--release", "--package", "palisade-store", "--example", "metering"];
    let mut command = build::cargo(&package);
    command.arg("--target-dir").arg(build::root().join("target")).arg("--").args(args);
    let output = command.output().context("running the example `metering` of the store")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the example `metering` failed: {said}");
    String::from_utf8(output.stdout).context("reading the example's output")
}
