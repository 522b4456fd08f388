//! Where a turn's events go: to a person through the renderer, or to a machine as one JSON line each.
//!
//! Data goes to stdout, everything about the command itself to stderr. Nothing here decides what is shown, only
//! where and with which abilities of the terminal.

use std::io::{IsTerminal as _, Write as _};
use std::time::Instant;

use serde_json::{Value, json};

use super::error::ClientError;
use super::render::{Renderer, Style};
use super::stream::TurnEvent;
use super::text;

/// Columns where nobody says how many there are.
const COLUMNS_DEFAULT: usize = 100;

/// Writes a turn to stdout.
#[derive(Debug)]
pub(super) struct Printer {
    form: Form,
    started: Instant,
}

#[derive(Debug)]
enum Form {
    Human(Box<Renderer>),
    Json,
}

/// What a person chose about the form.
#[derive(Debug, Clone, Copy)]
pub(super) struct PrintOptions {
    pub json: bool,
    pub quiet_thinking: bool,
    /// Whether events come as they happen.
    pub times: bool,
}

impl Printer {
    pub(super) fn new(options: PrintOptions) -> Self {
        let form = if options.json {
            Form::Json
        } else {
            let rich = stdout_is_rich();
            Form::Human(Box::new(Renderer::new(Style {
                colour: rich,
                live: rich,
                thinking: !options.quiet_thinking,
                times: options.times,
                columns: columns(),
            })))
        };
        Self { form, started: Instant::now() }
    }

    /// Writes one event.
    pub(super) fn event(&mut self, event: &TurnEvent) -> Result<(), ClientError> {
        let shown = match &mut self.form {
            Form::Human(renderer) => {
                let at_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
                renderer.event(at_ms, &event.kind, &event.data)
            }
            Form::Json => json_line(event),
        };
        write_out(&shown)
    }

    /// A remark about the command itself, on stderr, on a line of its own.
    pub(super) fn note(&mut self, note: &str) -> Result<(), ClientError> {
        if let Form::Human(renderer) = &mut self.form {
            write_out(&renderer.end_line())?;
        }
        write_err(&format!("{note}\n"));
        Ok(())
    }

    /// The files that were fetched; a machine gets its last line here, even without any.
    pub(super) fn files(&mut self, session: &str, files: &[SavedFile]) -> Result<(), ClientError> {
        match &self.form {
            Form::Json => {
                write_out(&text::json_line(&json!({"session": session, "files": files}).to_string()))
            }
            Form::Human(_) => {
                let lines = files.iter().map(|file| {
                    let saved = text::one_line(&file.saved, 400);
                    let made_as = match file.made_as.as_deref() {
                        Some(name) => format!(", in the workspace {}", text::one_line(name, 400)),
                        None => String::new(),
                    };
                    format!("→ {saved} ({}{made_as})\n", text::size(file.size))
                });
                write_out(&lines.collect::<String>())
            }
        }
    }
}

/// A file that was made by the turn and is here now.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(super) struct SavedFile {
    /// Its path in the workspace, percent-encoded.
    pub path: String,
    /// Where it was saved.
    pub saved: String,
    /// In bytes.
    pub size: u64,
    /// Its path in the workspace in words, where the name here had to be another one.
    #[serde(skip)]
    pub made_as: Option<String>,
}

fn json_line(event: &TurnEvent) -> String {
    let data = if event.raw.contains('\n') { event.data.to_string() } else { event.raw.clone() };
    let kind = Value::from(event.kind.as_str());
    text::json_line(&format!("{{\"id\":{},\"event\":{kind},\"data\":{data}}}", event.seq))
}

/// Colours and redrawing: only on a terminal that can, and only if the person did not opt out.
fn stdout_is_rich() -> bool {
    let opted_out = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    std::io::stdout().is_terminal() && !opted_out && !is_dumb
}

fn columns() -> usize {
    match rustix::termios::tcgetwinsize(std::io::stdout()) {
        Ok(size) if size.ws_col >= 20 => usize::from(size.ws_col),
        _ => COLUMNS_DEFAULT,
    }
}

/// Writes to stdout and flushes: a person waits for every word.
pub(super) fn write_out(text: &str) -> Result<(), ClientError> {
    if text.is_empty() {
        return Ok(());
    }
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|source| ClientError::Process { action: "write to stdout", source })
}

/// Writes to stderr; nobody can be told when that fails.
pub(super) fn write_err(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_json_line_keeps_the_data_as_it_came_and_steers_no_terminal() {
        let event = |raw: &str| TurnEvent {
            seq: 3,
            kind: "text.delta".into(),
            raw: raw.into(),
            data: serde_json::from_str(raw).unwrap(),
        };
        assert_eq!(
            json_line(&event("{\"content\":\"é\", \"n\":1.50}")),
            "{\"id\":3,\"event\":\"text.delta\",\"data\":{\"content\":\"é\", \"n\":1.50}}\n"
        );
        assert_eq!(json_line(&event("{\n}")), "{\"id\":3,\"event\":\"text.delta\",\"data\":{}}\n");
        let hostile = json_line(&event("{\"content\":\"\u{9b}2J\"}"));
        assert!(hostile.contains("\\u009b2J"), "{hostile}");
    }
}
