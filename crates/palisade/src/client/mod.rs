//! The client commands: `run`, `sessions`, `files`, `tail`.
//!
//! A client of the public HTTP API and of nothing else: they know no other room, and work against any server of
//! the contract. Data goes to stdout, errors and remarks to stderr.

mod api;
mod connection;
mod download;
mod error;
mod files;
mod live_output;
mod made;
mod printer;
mod remote_path;
mod render;
mod run;
mod sessions;
mod sse;
mod stream;
pub(crate) mod table;
mod tail;
mod text;
mod tool_label;

use std::error::Error as _;
use std::process::ExitCode;

use error::ClientError;
pub(crate) use text::{json_line, one_line};

/// What a person or a script does with a server.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ClientCommand {
    Run(run::Run),
    Sessions(sessions::Sessions),
    Files(files::Files),
    Tail(tail::Tail),
}

/// [`run`] for a caller without an async runtime: one thread is enough for one person.
pub(crate) fn run_blocking(command: ClientCommand) -> ExitCode {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(run(command)),
        Err(source) => {
            let error = ClientError::Process { action: "start the async runtime", source };
            printer::write_err(&report(&error));
            ExitCode::FAILURE
        }
    }
}

/// Carries a command out; what went wrong is already on stderr.
async fn run(command: ClientCommand) -> ExitCode {
    let result = match command {
        ClientCommand::Run(args) => run::run(args).await,
        ClientCommand::Sessions(args) => sessions::sessions(args).await,
        ClientCommand::Files(args) => files::files(args).await,
        ClientCommand::Tail(args) => tail::tail(args).await,
    };
    match result {
        Ok(code) => code,
        Err(error) if error.is_closed_pipe() => ExitCode::SUCCESS,
        Err(ClientError::Interrupted) => ExitCode::from(130),
        Err(error) => {
            printer::write_err(&report(&error));
            ExitCode::FAILURE
        }
    }
}

/// The error and what caused it, a blank line, and what to do about it.
fn report(error: &ClientError) -> String {
    let mut report = format!("error: {error}\n");
    let mut cause = error.source();
    while let Some(inner) = cause {
        report.push_str(&format!("  caused by: {}\n", text::one_line(&inner.to_string(), 300)));
        cause = inner.source();
    }
    if let Some(hint) = error.hint() {
        report.push_str(&format!("\nhint: {hint}\n"));
    }
    report
}
