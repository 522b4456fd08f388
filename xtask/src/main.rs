//! The project's own automation. `cargo xtask` lists what there is; CI calls `cargo xtask test` and nothing else.

mod bench;
mod build;
mod demo;
mod fuzz;
mod peers;
mod process;
mod scoreboard;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Palisade's own automation")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what is missing, build, start a server, and have an agent build a deck
    Demo(demo::DemoArgs),
    /// What things cost, each beside its goal and a floor
    Bench(bench::BenchArgs),
    /// Format, lints, layering and every test: what CI runs
    Test(test::TestArgs),
    /// Look for faults with libFuzzer: what `test --long` ends with
    Fuzz(fuzz::FuzzArgs),
    /// Build the server and the sandbox's static executor
    Build(build::BuildArgs),
    /// A part of `bench`, which starts it
    #[command(hide = true)]
    BenchCage(bench::cage::CageArgs),
    /// A part of `bench`, which starts it
    #[command(hide = true)]
    BenchRelay(bench::egress::bare::RelayArgs),
    /// Write docs/openapi.json anew from the code
    Openapi,
    /// Write docs/egress-scoreboard.md anew: raw probes of the egress proxy and of others
    Scoreboard,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Demo(args) => demo::demo(args),
        Command::Bench(args) => bench::bench(args),
        Command::BenchCage(args) => bench::cage::child(&args),
        Command::BenchRelay(args) => bench::egress::bare::child(&args),
        Command::Test(args) => test::test(args),
        Command::Fuzz(args) => fuzz::fuzz(&args),
        Command::Build(args) => build::build(&args).map(drop),
        Command::Openapi => test::write_openapi(),
        Command::Scoreboard => scoreboard::scoreboard(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            build::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
