//! `palisade tail`: follows the turn that runs in a session, or reads the latest one again. Changes nothing.

use std::process::ExitCode;

use super::api::{SessionRecord, understood};
use super::connection::Connection;
use super::error::ClientError;
use super::printer::{PrintOptions, Printer};
use super::run::turn_error;
use super::stream::{Step, TurnStream};

const EXAMPLES: &str = "\
Examples:
  palisade tail sess_a86118c06688
  palisade tail sess_a86118c06688 --from 120 --json

Events are kept while a turn runs and for a while after its end. Leaving does not stop the turn.";

/// Follow the running turn of a session, or read the latest one again.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Tail {
    /// The session.
    session: String,
    /// Another turn than the latest.
    #[arg(long, value_name = "ID")]
    turn: Option<String>,
    /// Begin at this event.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    from: u64,
    /// Do not show what the model thinks.
    #[arg(long)]
    quiet_thinking: bool,
    /// One JSON object a line for every event.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn tail(args: Tail) -> Result<ExitCode, ClientError> {
    let api = args.connection.open()?;
    let turn = match args.turn {
        Some(turn) => turn,
        None => {
            let record: SessionRecord = understood("reading the session", api.session(&args.session).await?)?;
            record.last_response_id.ok_or(ClientError::NoTurn { session: args.session.clone() })?
        }
    };
    let mut stream = TurnStream::attach(&api, &args.session, &turn, args.from).await?;
    // Old events come at once, so their times would say nothing.
    let options = PrintOptions { json: args.json, quiet_thinking: args.quiet_thinking, times: false };
    let mut printer = Printer::new(options);
    let mut code = ExitCode::SUCCESS;
    loop {
        match stream.next().await? {
            Step::Event(event) => {
                printer.event(&event)?;
                match event.kind.as_str() {
                    "message.error" => {
                        code = ExitCode::FAILURE;
                        printer.note(&turn_error(&event.data))?;
                    }
                    "message.cancelled" => code = ExitCode::from(130),
                    _ => {}
                }
            }
            Step::Broken(reason) => {
                printer.note(&format!("note: {reason}; reading on from where it broke"))?
            }
            Step::Ended => return Ok(code),
        }
    }
}
