//! `palisade admin`: what an operator does beside the configuration. It talks to a running server over the socket in
//! its data directory and holds nothing itself; data goes to standard output, the rest to standard error.

mod audit;
mod credits;
pub(crate) mod socket;
pub(crate) mod time;
mod usage;

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::client::json_line;
use socket::Socket;

/// Credits, usage and the audit of a server on this machine.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  palisade admin credits show
  palisade admin credits add --ledger acme --amount 500 --reason 'invoice 2026-117' --key inv-2026-117
  palisade admin credits correct --ledger acme --amount=-12.5 --reason 'refund of 3 May'
  palisade admin usage
  palisade admin audit export --format csv --since 2026-05-01 --until 2026-06-01 > may.csv

It speaks to a running server through admin.sock in the server's data directory, which only the server's own user and
root can open.")]
pub(crate) struct Admin {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    at: Server,
}

/// What the operator's commands have in common.
#[derive(Debug, clap::Args)]
pub(crate) struct Server {
    /// The data directory of the running server.
    #[arg(long, default_value = "palisade-data", global = true, value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    /// The server's JSON instead of text.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Show, add and correct credits.
    #[command(subcommand)]
    Credits(credits::Credits),
    /// What every token has used in the last hour and day.
    Usage,
    /// The usage audit: turns and skills, with tokens and credits.
    #[command(subcommand)]
    Audit(audit::Audit),
}

/// Carries the command out.
pub(crate) fn admin(args: Admin) -> Result<()> {
    carry_out(async {
        let socket = Socket::open(&args.at.data_dir)?;
        match args.action {
            Action::Credits(credits) => credits::credits(&socket, credits, args.at.json).await,
            Action::Usage => usage::usage(&socket, args.at.json).await,
            Action::Audit(audit) => audit::audit(&socket, audit).await,
        }
    })
}

/// One command, to its end.
pub(crate) fn carry_out(command: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the executor")?;
    unless_unread(runtime.block_on(command))
}

/// Whoever read standard output and has gone has had enough; that is no failure.
pub(crate) fn unless_unread(done: Result<()>) -> Result<()> {
    match done {
        Err(error) if is_closed_pipe(&error) => Ok(()),
        done => done,
    }
}

/// The answer for a machine, or what it tells a person.
pub(crate) fn shown(json: bool, answer: &Value, told: impl FnOnce(Value) -> Result<String>) -> Result<()> {
    let text = if json { json_line(&answer.to_string()) } else { told(answer.clone())? };
    write_out(text.as_bytes())
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Standard output, at once.
fn write_out(text: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    Ok(out.write_all(text).and_then(|()| out.flush())?)
}
