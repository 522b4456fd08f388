//! Private memory, as the kernel counts it in /proc: of the server at rest, of sessions asleep, of sandboxes awake.
//!
//! Growth is counted from a server that has already run some turns: what it allocates once, whoever comes first,
//! is no session's own.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use palisade_testkit::Server;
use palisade_testkit::upstream::{Answer, ScriptedUpstream};
use rustix::process::Pid;
use serde_json::json;

use super::row::{Row, Unit};
use crate::process::descendants;

/// Sessions that fill what is allocated once.
const WARM_UP: usize = 50;
const ASLEEP: usize = 200;
const AWAKE: usize = 20;

pub(super) async fn measure(server: &Server, upstream: &ScriptedUpstream) -> Result<Vec<Row>> {
    let pid = server.pid().context("the server has no process")?;
    let fresh = private_kib(pid)?;
    talk(server, upstream, WARM_UP).await?;
    let before = private_kib(pid)?;
    talk(server, upstream, ASLEEP).await?;
    let asleep = private_kib(pid)?;
    work(server, upstream, AWAKE).await?;
    let hands = descendants(pid)?;
    let awake = hands.iter().map(|hand| private_kib(*hand)).sum::<Result<f64>>();
    let grown = private_kib(pid)? - asleep;

    let per_session = (asleep - before) / ASLEEP as f64;
    let mut rows = vec![
        Row::mean("server, nothing done yet", Unit::Kibibytes, fresh, 1),
        Row::mean(&format!("server, {} sessions", WARM_UP + ASLEEP), Unit::Kibibytes, asleep, 1),
        Row::mean("a session asleep, one turn behind it", Unit::Kibibytes, per_session, ASLEEP).goal(50.0),
    ];
    let row = |kib: f64| Row::mean("a session awake", Unit::Kibibytes, kib / AWAKE as f64, AWAKE);
    rows.push(match awake {
        Ok(awake) => row(awake + grown).goal(2048.0).note(format!(
            "{} processes per sandbox; {:.0} KiB of it in the server",
            hands.len() / AWAKE,
            grown / AWAKE as f64
        )),
        // Another user's processes; only root may look.
        Err(error) => row(f64::NAN).note(format!("{error:#}; other users' processes show it to root only")),
    });
    Ok(rows)
}

/// Sessions with a turn of text each, left alone.
pub(super) async fn talk(server: &Server, upstream: &ScriptedUpstream, count: usize) -> Result<()> {
    upstream.respond_with(|_| Answer::text("a few words, as an answer would have"));
    turns(server, count).await
}

/// Sessions with a turn that runs a command, whose sandboxes stay.
async fn work(server: &Server, upstream: &ScriptedUpstream, count: usize) -> Result<()> {
    upstream.respond_with(|request| {
        let messages = request.json["messages"].as_array().map_or(&[][..], Vec::as_slice);
        if messages.last().is_some_and(|last| last["role"] == "tool") {
            Answer::text("done")
        } else {
            Answer::tool_call("Bash", json!({"command": "true"}))
        }
    });
    turns(server, count).await
}

async fn turns(server: &Server, count: usize) -> Result<()> {
    for _ in 0..count {
        let session = server.session(json!({})).await;
        let events = server.send(&session, "go").await.rest().await;
        ensure!(events.last().is_some_and(|last| last.kind == "message.completed"), "a turn failed");
    }
    Ok(())
}

fn private_kib(pid: Pid) -> Result<f64> {
    let path = format!("/proc/{}/smaps_rollup", pid.as_raw_nonzero());
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    Ok(private_of(&text))
}

fn private_of(rollup: &str) -> f64 {
    let fields = rollup
        .lines()
        .filter(|line| line.starts_with("Private_Clean:") || line.starts_with("Private_Dirty:"));
    fields.filter_map(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_memory_is_the_clean_and_the_dirty() {
        let rollup = "55-7f ---p 00 00:00 0 [rollup]\nRss: 90 kB\nPss_Dirty: 7 kB\nPrivate_Clean:  12 kB\nPrivate_Dirty: 30 kB\n";
        assert_eq!(private_of(rollup), 42.0);
    }
}
