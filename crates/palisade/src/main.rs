//! The palisade binary: the server and the commands that talk to one.
//!
//! This is the whole life of the process in order; what each command does stands in its own module. The only
//! reader of configuration.

mod admin;
mod audit;
mod client;
mod config;
mod doctor;
mod egress;
mod serve;
mod vault;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "palisade",
    version,
    about = "A self-hosted, per-tenant runtime for long-running AI agents",
    after_help = "Examples:\n  palisade serve                     start on defaults, data in ./palisade-data\n  palisade serve --config palisade.toml\n  palisade run \"Build a deck on our Q3 numbers\" --upload q3.csv",
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start the server
    Serve(serve::ServeArgs),
    /// Start the egress proxy as a process of its own
    Egress(egress::EgressArgs),
    /// Look at every precondition of sandboxes: exit 0 good, 2 weaker than it should be, 1 cannot run
    Doctor(doctor::DoctorArgs),
    Admin(admin::Admin),
    Audit(audit::AuditArgs),
    Vault(vault::Vault),
    #[command(flatten)]
    Client(client::ClientCommand),
}

fn main() -> ExitCode {
    // No thread may be started before the server has given up root: uids belong to threads.
    match Cli::parse().command {
        Command::Serve(args) => told(serve::serve(args)),
        Command::Egress(args) => told(egress::egress(args)),
        Command::Doctor(args) => doctor::doctor(&args),
        Command::Admin(args) => told(admin::admin(args)),
        Command::Audit(args) => told(admin::unless_unread(audit::audit(args))),
        Command::Vault(args) => told(vault::vault(args)),
        Command::Client(command) => client::run_blocking(command),
    }
}

/// What failed, why, and what to do about it, on standard error.
fn told(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else {
        serve::logging::say_last("");
        return ExitCode::SUCCESS;
    };
    let causes = error.chain().skip(1).map(|cause| format!("  because: {cause}\n"));
    serve::logging::say_last(&format!("error: {error}\n{}", causes.collect::<String>()));
    ExitCode::FAILURE
}
