//! `cargo xtask bench`: what Palisade costs, each figure beside its goal and beside a floor of the same run.
//!
//! It measures the release build from outside, over HTTP and /proc, with the scripted upstream in place of a
//! model. It judges nothing: a missed goal is printed and is no failure.

pub(crate) mod cage;
mod create;
pub(crate) mod egress;
mod files;
mod floor;
mod marker;
mod memory;
mod money;
mod neighbour;
mod report;
mod restart;
mod row;
mod stream;
mod tool;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use palisade_testkit::Server;
use palisade_testkit::postgres::Postgres;
use palisade_testkit::upstream::ScriptedUpstream;

use crate::build::{self, BuildArgs, say};
use report::Report;

/// Measure the release build: times, ratios to a floor, memory; each beside its goal
#[derive(Debug, clap::Args)]
pub(crate) struct BenchArgs {
    /// Small counts: a look in under half a minute
    #[arg(long)]
    quick: bool,
    /// Only files beside nginx
    #[arg(long)]
    files: bool,
    /// Only the egress proxy beside others
    #[arg(long, conflicts_with = "files")]
    egress: bool,
    /// Only what a tenant notices of a hostile one
    #[arg(long, conflicts_with_all = ["files", "egress"])]
    neighbour: bool,
    /// Also write the figures here, for machines
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// How often each thing is done.
struct Counts {
    round_trips: usize,
    large_files: usize,
    small_files: usize,
    spawns: usize,
    events_of_one: usize,
    events_of_each: usize,
    warm_calls: usize,
    idle_sandboxes: usize,
    cold_calls: usize,
    sessions_on_disk: usize,
    events_of_a_turn: usize,
    restarts: usize,
    turns_left: usize,
    metered_calls: usize,
    ledger_rows: usize,
    neighbour_rounds: usize,
    egress: egress::Counts,
}

impl Counts {
    fn of(args: &BenchArgs) -> Self {
        if args.quick {
            Self {
                round_trips: 50,
                large_files: 5,
                small_files: 2_000,
                spawns: 30,
                events_of_one: 75,
                events_of_each: 100,
                warm_calls: 30,
                idle_sandboxes: 50,
                cold_calls: 8,
                sessions_on_disk: 100,
                events_of_a_turn: 1_000,
                restarts: 3,
                turns_left: 1,
                metered_calls: 200,
                ledger_rows: 20_000,
                neighbour_rounds: 30,
                egress: egress::Counts { tunnels: 1_000, gigabytes: 0.5, requests: 1_600, idle: 1_000 },
            }
        } else {
            Self {
                round_trips: 400,
                large_files: 20,
                small_files: 40_000,
                spawns: 200,
                events_of_one: 300,
                events_of_each: 500,
                warm_calls: 200,
                idle_sandboxes: 200,
                cold_calls: 50,
                sessions_on_disk: 1_000,
                events_of_a_turn: 10_000,
                restarts: 10,
                turns_left: 2,
                metered_calls: 2_000,
                ledger_rows: 1_000_000,
                neighbour_rounds: 200,
                egress: egress::Counts { tunnels: 5_000, gigabytes: 5.0, requests: 12_800, idle: 10_000 },
            }
        }
    }
}

/// Builds, measures, prints.
pub(crate) fn bench(args: BenchArgs) -> Result<()> {
    if cfg!(debug_assertions) {
        return again_optimised();
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the executor")?;
    let counts = Counts::of(&args);
    let mut report = Report::new();
    let measured = if args.egress {
        runtime.block_on(egress::measure(&counts.egress, &mut report))
    } else {
        crate::test::require_packages("the bench")?;
        let palisade = build::build(&BuildArgs { debug: false })?.palisade;
        let palisade = palisade.to_str().context("the workspace's path is not UTF-8")?;
        match (args.files, args.neighbour) {
            (true, _) => runtime.block_on(measure_files(palisade, &counts, &mut report)),
            (_, true) => runtime.block_on(measure_neighbour(palisade, &counts, &mut report)),
            _ => runtime.block_on(measure(palisade, &counts, &mut report)),
        }
    };
    // What was measured before something failed is worth as much.
    report.print()?;
    measured?;
    args.json.map_or(Ok(()), |file| report.write_json(&file))
}

/// Clients and upstream share the cores with what they measure, so they are to be fast themselves.
fn again_optimised() -> Result<()> {
    let mut command = build::cargo(&["run", "--quiet", "--release", "--package", "xtask", "--"]);
    command
        .args(std::env::args_os().skip(1))
        .current_dir(std::env::current_dir().context("the current folder")?);
    build::run(&mut command)
}

async fn measure_files(palisade: &str, counts: &Counts, report: &mut Report) -> Result<()> {
    let upstream = ScriptedUpstream::start().await.context("starting the scripted upstream")?;
    let server = Server::start(palisade, &upstream, "").await;
    let (rows, floors) = files::measure(&server, counts.large_files, counts.small_files).await?;
    report.figures(rows);
    report.floors(floors);
    Ok(())
}

async fn measure_neighbour(palisade: &str, counts: &Counts, report: &mut Report) -> Result<()> {
    report.figures(neighbour::measure(palisade, counts.neighbour_rounds).await?);
    Ok(())
}

async fn measure(palisade: &str, counts: &Counts, report: &mut Report) -> Result<()> {
    let upstream = ScriptedUpstream::start().await.context("starting the scripted upstream")?;
    // Memory first: a server that has done nothing else.
    say("bench: memory");
    report.figures(memory::measure(&Server::start(palisade, &upstream, "").await, &upstream).await?);

    let server = Server::start(palisade, &upstream, "").await;
    say("bench: sessions");
    let create::Created { session, health, append } = create::measure(&server, counts.round_trips).await?;
    report.figures([session]);
    say("bench: streams");
    for (streams, events) in [(1, counts.events_of_one), (100, counts.events_of_each)] {
        let (row, straight) = stream::measure(&server, &upstream, "", streams, events, &append).await?;
        report.figures([row]);
        report.floors([straight]);
    }
    if let Some(postgres) = Postgres::start_durable() {
        say("bench: streams on PostgreSQL");
        let store = format!("[store]\nurl = {:?}\n", postgres.database());
        let server = Server::start(palisade, &upstream, &store).await;
        for (streams, events) in [(1, counts.events_of_one), (100, counts.events_of_each)] {
            let on = ", PostgreSQL";
            let (row, _) = stream::measure(&server, &upstream, on, streams, events, &append).await?;
            report.figures([row]);
        }
    }
    say("bench: files");
    let (rows, floors) = files::measure(&server, counts.large_files, counts.small_files).await?;
    report.figures(rows);
    report.floors(floors);
    say("bench: tool calls");
    let (spawn, cage) = (floor::spawn(counts.spawns)?, floor::cage(counts.spawns)?);
    report.figures(tool::warm(&server, &upstream, counts.warm_calls, &spawn).await?);
    report.figures(tool::cold(&server, &upstream, counts.cold_calls, &spawn, &cage).await?);
    say("bench: sandboxes");
    let hand = Path::new(palisade).with_file_name("palisade-hand");
    report.figures(cage::measure(&hand, counts.spawns, counts.idle_sandboxes, &spawn, &cage)?);
    report.floors(cage::peer(counts.spawns / 4));
    say("bench: egress");
    egress::measure(&counts.egress, report).await?;
    say("bench: money");
    let (metering, plain) = money::metering(counts.metered_calls)?;
    report.figures(metering);
    report
        .figures([money::usage(palisade, &upstream, counts.ledger_rows, counts.round_trips, &health).await?]);
    report.floors([append, health, spawn, cage, plain]);
    measure_neighbour(palisade, counts, report).await?;
    say("bench: restarts");
    let (row, empty) =
        restart::sessions(palisade, &upstream, counts.sessions_on_disk, counts.restarts).await?;
    report.figures([row]);
    report.floors([empty]);
    report.figures([restart::turn(palisade, &upstream, counts.events_of_a_turn, counts.turns_left).await?]);
    Ok(())
}
