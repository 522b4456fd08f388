//! `palisade run`: one message from start to end, and what came out of it on the local disk.
//!
//! Cleans up only what it made, and never a session whose turn may still be running.

use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::api::Api;
use super::connection::Connection;
use super::error::ClientError;
use super::files;
use super::made::{self, Fetched};
use super::printer::{PrintOptions, Printer, write_err};
use super::remote_path::RemotePath;
use super::stream::{Step, TurnStream};
use super::text;

/// A message's limit on the wire, in bytes.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Where agents put what a person asked for.
const OUTPUT_FOLDER: &str = "output";
/// What shells expect of a command that Ctrl-C ended.
const EXIT_INTERRUPTED: u8 = 130;

const EXAMPLES: &str = "\
Examples:
  palisade run \"Build a deck on tidal power\"
  palisade run \"What changed between these two?\" --upload old.xlsx --upload new.xlsx
  palisade run \"Make a one-page summary\" --upload report.pdf:input/report.pdf --out results
  palisade run \"Now add a chart\" --session sess_a86118c06688
  palisade run \"Tidy up\" --read shared --write projects/mine
  git log | palisade run - --json

Exit status: 0 done, 1 failed, 130 cancelled.
Ctrl-C cancels the turn; a second Ctrl-C leaves at once.";

/// Send a message, watch the agent work, and get the files it made.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Run {
    /// What the agent should do; - reads it from stdin.
    message: String,
    /// Continue in a session that exists.
    #[arg(long, value_name = "ID", conflicts_with_all = ["persistent", "read", "write", "model"])]
    session: Option<String>,
    /// Make a session that lives on after the answer.
    #[arg(long)]
    persistent: bool,
    /// Let the agent read only this folder of the workspace, and others so named (repeatable).
    #[arg(long, value_name = "PATH")]
    read: Vec<String>,
    /// Let the agent read and change only this folder, and others so named (repeatable).
    #[arg(long, value_name = "PATH")]
    write: Vec<String>,
    /// The catalog model to run on, where the tenant lets clients choose.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Put a local file into the workspace first, as DEST or under its own name, and tell the agent so (repeatable).
    #[arg(long, value_name = "FILE[:DEST]")]
    upload: Vec<OsString>,
    /// Where to save the files that the turn makes or changes under output/. Nothing is overwritten.
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// Keep the session that was made for this message.
    #[arg(long)]
    keep: bool,
    /// Do not show what the model thinks.
    #[arg(long)]
    quiet_thinking: bool,
    /// One JSON object a line: every event, then {"session", "files"}.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// How a turn ended for its reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Completed,
    Failed,
    Cancelled,
    /// The person left; the turn may go on.
    Left,
}

pub(super) async fn run(args: Run) -> Result<ExitCode, ClientError> {
    let message = read_message(&args.message)?;
    let uploads = args.upload.iter().map(Upload::parse).collect::<Result<Vec<_>, _>>()?;
    let api = args.connection.open()?;
    let mut interrupts = signal(SignalKind::interrupt())
        .map_err(|source| ClientError::Process { action: "listen for Ctrl-C", source })?;
    let mut printer =
        Printer::new(PrintOptions { json: args.json, quiet_thinking: args.quiet_thinking, times: true });

    let session = match &args.session {
        Some(id) => id.clone(),
        None => api.create_session(&draft(&args)).await?.id,
    };
    write_err(&format!("session {}\n", text::one_line(&session, 80)));
    let mut turn = Turn { api: &api, session: &session, may_run: false };
    let result = turn.converse(&args, &message, &uploads, &mut printer, &mut interrupts).await;
    let end = result.as_ref().copied().unwrap_or(End::Failed);
    if args.session.is_none() {
        let kept = args.keep || args.persistent || turn.may_run;
        close(&api, &session, kept, turn.may_run, &mut printer).await?;
    }
    result?;
    Ok(match end {
        End::Completed => ExitCode::SUCCESS,
        End::Failed => ExitCode::FAILURE,
        End::Cancelled | End::Left => ExitCode::from(EXIT_INTERRUPTED),
    })
}

struct Turn<'run> {
    api: &'run Api,
    session: &'run str,
    /// Whether the server may be working on it while nobody reads.
    may_run: bool,
}

impl Turn<'_> {
    async fn converse(
        &mut self,
        args: &Run,
        message: &str,
        uploads: &[Upload],
        printer: &mut Printer,
        interrupts: &mut Signal,
    ) -> Result<End, ClientError> {
        let (api, session) = (self.api, self.session);
        let output = RemotePath::parse(OUTPUT_FOLDER.as_ref())?;
        let before = unless_interrupted(interrupts, async {
            for upload in uploads {
                files::put_file(api, session, &upload.file, &upload.destination).await?;
            }
            made::look(api, session, &output).await
        })
        .await?;

        self.may_run = true;
        let message = told(message, uploads);
        let sent = unless_interrupted(interrupts, TurnStream::send(api, session, &message));
        let mut stream = match sent.await {
            Ok(stream) => stream,
            Err(error) => {
                self.may_run = !started_nothing(&error);
                return Err(error);
            }
        };
        let end = follow(api, session, &mut stream, printer, interrupts).await?;
        self.may_run = end == End::Left;

        let fetched = match end {
            // A turn that failed may have made something all the same.
            End::Completed | End::Failed => {
                let fetch = made::fetch(api, session, &output, &before, &args.out);
                unless_interrupted(interrupts, fetch).await?
            }
            End::Cancelled | End::Left => Fetched::default(),
        };
        printer.files(session, &fetched.saved)?;
        if let Some(first) = fetched.left.first() {
            let count = fetched.left.len();
            printer.note(&format!(
                "note: {count} hidden or surplus files stay in the workspace, such as {first}"
            ))?;
        }
        Ok(end)
    }
}

/// Whether a message that failed so cannot have become a turn.
fn started_nothing(error: &ClientError) -> bool {
    match error {
        ClientError::Connect { .. } => true,
        // What lies between may answer 502 or 504 for a server that is at work.
        ClientError::Refused { refusal } => refusal.status < 500,
        _ => false,
    }
}

/// Prints a turn to its end. The first Ctrl-C asks the server to cancel, the second leaves.
async fn follow(
    api: &Api,
    session: &str,
    stream: &mut TurnStream<'_>,
    printer: &mut Printer,
    interrupts: &mut Signal,
) -> Result<End, ClientError> {
    let mut end = End::Left;
    let mut cancelling = false;
    loop {
        let step = tokio::select! {
            step = stream.next() => step?,
            _ = interrupts.recv() => {
                if cancelling || stream.turn().is_empty() {
                    return Ok(End::Left);
                }
                cancelling = true;
                printer.note("cancelling … (Ctrl-C again leaves at once)")?;
                tokio::select! {
                    answer = api.cancel(session, stream.turn()) => if let Err(error) = answer {
                        printer.note(&format!("warning: cannot cancel: {error}"))?;
                    },
                    _ = interrupts.recv() => return Ok(End::Left),
                }
                continue;
            }
        };
        match step {
            Step::Event(event) => {
                printer.event(&event)?;
                match event.kind.as_str() {
                    "message.completed" => end = End::Completed,
                    "message.cancelled" => end = End::Cancelled,
                    "message.error" => {
                        end = End::Failed;
                        printer.note(&turn_error(&event.data))?;
                    }
                    _ => {}
                }
            }
            Step::Broken(reason) => {
                printer.note(&format!("note: {reason}; reading on from where it broke"))?
            }
            Step::Ended => return Ok(end),
        }
    }
}

/// A failed turn in the words of its last event.
pub(super) fn turn_error(data: &Value) -> String {
    let field = |name: &str| data.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let reason = text::visible(field("error").unwrap_or("the turn failed without a reason"));
    match field("code") {
        Some(code) => format!("error: {reason} ({})", text::one_line(code, 80)),
        None => format!("error: {reason}"),
    }
}

async fn unless_interrupted<T>(
    interrupts: &mut Signal,
    work: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    tokio::select! {
        done = work => done,
        _ = interrupts.recv() => Err(ClientError::Interrupted),
    }
}

async fn close(
    api: &Api,
    session: &str,
    kept: bool,
    may_run: bool,
    printer: &mut Printer,
) -> Result<(), ClientError> {
    if may_run {
        return printer.note(&format!(
            "note: session {session} is kept, because its turn may still run: palisade tail {session}"
        ));
    }
    if kept {
        return printer.note(&format!("note: go on with palisade run --session {session} \"…\""));
    }
    match api.delete_session(session).await {
        Ok(()) => Ok(()),
        Err(error) => printer.note(&format!("warning: session {session} was not deleted: {error}")),
    }
}

fn draft(args: &Run) -> Value {
    let mut draft = json!({"persistent": args.persistent});
    if !(args.read.is_empty() && args.write.is_empty()) {
        draft["file_access"] = json!({"read": args.read, "write": args.write});
    }
    if let Some(model) = &args.model {
        draft["model"] = json!(model);
    }
    draft
}

fn read_message(message: &str) -> Result<String, ClientError> {
    let message = if message == "-" {
        let mut text = String::new();
        // One byte more than allowed tells too long from just right.
        let read = std::io::stdin().lock().take(MESSAGE_BYTES_MAX as u64 + 1).read_to_string(&mut text);
        read.map_err(|source| ClientError::Process { action: "read the message from stdin", source })?;
        text
    } else {
        message.to_owned()
    };
    if message.trim().is_empty() {
        return Err(ClientError::Message { problem: "the message is empty".into() });
    }
    if message.len() > MESSAGE_BYTES_MAX {
        let problem = format!("the message is longer than {}", text::size(MESSAGE_BYTES_MAX as u64));
        return Err(ClientError::Message { problem });
    }
    Ok(message)
}

/// The message with the names of what was uploaded: otherwise the agent would have to guess them.
fn told(message: &str, uploads: &[Upload]) -> String {
    if uploads.is_empty() {
        return message.to_owned();
    }
    let name = |upload: &Upload| {
        let name = upload.destination.to_string();
        // In quotes, so that it is seen where a name with blanks begins and ends.
        if name.contains([' ', ',']) { format!("\"{name}\"") } else { name }
    };
    let names: Vec<String> = uploads.iter().map(name).collect();
    format!("{message}\n\nUploaded with this message: {}", names.join(", "))
}

#[derive(Debug)]
struct Upload {
    file: PathBuf,
    destination: RemotePath,
}

impl Upload {
    /// `FILE:DEST`, unless a file of that whole name exists.
    fn parse(given: &OsString) -> Result<Self, ClientError> {
        let bytes = given.as_bytes();
        let split = bytes.iter().rposition(|byte| *byte == b':');
        let (file, destination) = match split {
            Some(at) if !Path::new(given).exists() => {
                (OsString::from_vec(bytes[..at].to_vec()), Some(OsString::from_vec(bytes[at + 1..].to_vec())))
            }
            _ => (given.clone(), None),
        };
        let file = PathBuf::from(file);
        let destination = files::destination(&file, destination.as_deref())?;
        Ok(Self { file, destination })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_goes_where_it_was_told() {
        let parse = |given: &str| {
            let upload = Upload::parse(&given.into()).unwrap();
            (upload.file.to_str().unwrap().to_owned(), upload.destination.to_string())
        };
        assert_eq!(parse("data/a b.csv"), ("data/a b.csv".into(), "a b.csv".into()));
        assert_eq!(parse("a.csv:input/b.csv"), ("a.csv".into(), "input/b.csv".into()));
        assert_eq!(parse("a.csv:input/"), ("a.csv".into(), "input/a.csv".into()));
        let folder = tempfile::tempdir().unwrap();
        let odd = folder.path().join("a:b");
        std::fs::write(&odd, "").unwrap();
        assert_eq!(parse(odd.to_str().unwrap()).1, "a:b");
        assert!(Upload::parse(&"a:../b".into()).is_err());
    }

    #[test]
    fn messages_have_bounds() {
        assert!(read_message(" \n").is_err());
        assert!(read_message(&"x".repeat(MESSAGE_BYTES_MAX)).is_ok());
        assert!(read_message(&"x".repeat(MESSAGE_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn the_agent_hears_of_uploads() {
        let uploads = [Upload::parse(&"x/a.csv".into()).unwrap()];
        assert_eq!(told("Sum it", &uploads), "Sum it\n\nUploaded with this message: a.csv");
        let uploads = [Upload::parse(&"x/Q3 numbers.csv".into()).unwrap()];
        assert_eq!(told("Sum it", &uploads), "Sum it\n\nUploaded with this message: \"Q3 numbers.csv\"");
        assert_eq!(told("Sum it", &[]), "Sum it");
    }
}
