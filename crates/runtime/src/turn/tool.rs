//! One tool call: intent, effect, outcome. Its failure is a result that the model sees, never the turn's end.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use palisade_agent::output::cut_middle;
use palisade_agent::screen::Screen;
use palisade_agent::tools::{Action, Bash, action};
use palisade_protocol::limits::{TOOL_OUTPUT_BYTES_MAX, TOOL_STREAM_BYTES_MAX};
use palisade_protocol::{Event, Item, ToolCall, ToolOutput};
use palisade_sandbox::{FileOp, RunRequest, Sandbox, SandboxError};
use serde_json::Value;
use tokio::sync::Notify;

use super::{Driver, TurnEnd, told};
use crate::hands::NotStarted;

impl Driver {
    /// Runs a call, after showing its start and its input to readers who have not seen them.
    pub(super) async fn run_tool(&mut self, call: ToolCall) -> Result<(), TurnEnd> {
        let mut events = self.opening(&call);
        self.rooms.metrics.tool_called(&call.name);
        let action = match action(&call) {
            Action::Answered(output) => {
                // One commit: a block that a take-over finds open is then always of a step that is finished.
                events.push(Event::ToolStop {});
                return self.tool_finished(&call, output, events).await;
            }
            action => action,
        };
        let input = serde_json::from_str(&call.arguments).unwrap_or(Value::Object(serde_json::Map::new()));
        events.push(Event::ToolExecuting { name: call.name.clone(), id: call.id.clone(), input });
        // The intent is durable before the first effect.
        self.append(events, vec![Item::ToolStarted { call_id: call.id.clone() }]).await?;
        let output = self.perform(&call, action).await?;
        self.close_call(&call, output).await
    }

    /// What readers have not seen yet of a call's start and input.
    pub(super) fn opening(&mut self, call: &ToolCall) -> Vec<Event> {
        if self.open_call.take().as_ref() == Some(&call.id) {
            return Vec::new();
        }
        vec![
            Event::ToolStart { name: call.name.clone(), id: call.id.clone() },
            Event::ToolInputDelta { content: call.arguments.clone() },
        ]
    }

    /// The end of a call that ran here.
    pub(super) async fn close_call(&mut self, call: &ToolCall, output: ToolOutput) -> Result<(), TurnEnd> {
        self.tool_finished(call, output, vec![Event::ToolStop {}]).await
    }

    /// The outcome, for readers and for the model, in one commit, after `events`.
    pub(super) async fn tool_finished(
        &mut self,
        call: &ToolCall,
        mut output: ToolOutput,
        mut events: Vec<Event>,
    ) -> Result<(), TurnEnd> {
        output.content = cut_middle(&output.content, TOOL_OUTPUT_BYTES_MAX);
        events.push(Event::ToolResult {
            id: call.id.clone(),
            content: output.content.clone(),
            is_error: output.is_error,
            code: output.code.clone(),
        });
        let skill = self.skill_use(call, &output);
        let item = Item::ToolFinished { call_id: call.id.clone(), output };
        self.log.append_skill(events, vec![item.clone()], skill).await?;
        self.items.push(item);
        Ok(())
    }

    async fn perform(&mut self, call: &ToolCall, action: Action) -> Result<ToolOutput, TurnEnd> {
        match action {
            Action::Answered(output) => Ok(output),
            Action::Skill { name } => Ok(self.show_skill(&name).await),
            Action::File(operation) => {
                let is_writing = matches!(operation, FileOp::Write(_) | FileOp::Edit(_));
                if is_writing && self.is_full().await? {
                    return Ok(self.job.storage.full("Nothing was written"));
                }
                let sandbox = match self.sandbox().await? {
                    Ok(sandbox) => sandbox,
                    Err(error) => return Ok(not_started(&error)),
                };
                let stops = self.job.storage.stops();
                let done = self.or_interrupted(sandbox.file(operation)).await?;
                let output = done.unwrap_or_else(|error| match stops.has_changed() {
                    Ok(true) => self.job.storage.full("The call was ended"),
                    _ => sandbox_failed(&error),
                });
                Ok(told::with_lines(output, told::notes(&sandbox.take_notes())))
            }
            Action::Bash(_) if self.is_full().await? && self.job.storage.takes_no_commands() => {
                Ok(self.job.storage.full("Nothing was run"))
            }
            Action::Bash(bash) => {
                let sandbox = match self.sandbox().await? {
                    Ok(sandbox) => sandbox,
                    Err(error) => return Ok(not_started(&error)),
                };
                self.run_command(call, &sandbox, bash).await
            }
        }
    }

    /// Whether files may not grow now. A look may measure the whole workspace, which a cancel does not wait for.
    async fn is_full(&self) -> Result<bool, TurnEnd> {
        self.or_interrupted(self.job.storage.is_full()).await
    }

    async fn sandbox(&self) -> Result<Result<Arc<Sandbox>, NotStarted>, TurnEnd> {
        self.or_interrupted(self.rooms.hands.get(&self.rooms, &self.job)).await
    }

    /// Output goes to the readers while the command runs, at the log's own pace; the model gets head and tail of
    /// it. Dropping the run, as an interruption does, kills the command.
    async fn run_command(
        &mut self,
        call: &ToolCall,
        sandbox: &Sandbox,
        bash: Bash,
    ) -> Result<ToolOutput, TurnEnd> {
        let shown = Mutex::new(Shown::default());
        let arrived = Notify::new();
        let storage = self.job.storage.clone();
        let mut stops = storage.stops();
        let command = match self.is_full().await? {
            // A limit that no program inside can take back: what exists can be looked at, moved and deleted. The signal
            // would kill the shell; without it the write fails with a reason.
            true => format!("trap '' XFSZ; ulimit -f 0; {}", bash.command),
            false => bash.command,
        };
        let request = RunRequest { command, timeout_ms: bash.timeout_ms, background: bash.background };
        let mut running = std::pin::pin!(sandbox.run(request, |bytes| {
            lock(&shown).take(bytes);
            arrived.notify_one();
        }));
        let mut grace = std::pin::pin!(self.drain_grace());
        let exit = loop {
            let step = async {
                tokio::select! {
                    // First, for the sandbox ends with it.
                    biased;
                    Ok(()) = stops.changed() => Ok(Some(Err(Ended::Full))),
                    exit = &mut running => Ok(Some(exit.map_err(Ended::Sandbox))),
                    () = arrived.notified() => Ok(None),
                    () = &mut grace => Err(TurnEnd::Stopped),
                }
            };
            let exit = self.or_ended(step).await??;
            let content = lock(&shown).pending();
            if !content.is_empty() {
                self.append(vec![Event::ToolOutputDelta { id: call.id.clone(), content }], Vec::new())
                    .await?;
            }
            if let Some(exit) = exit {
                break exit;
            }
        };
        let (text, changes) = std::mem::take(&mut *lock(&shown)).kept.into_text();
        let output = match exit {
            Ok(exit) => told::outcome(text, exit, bash.timeout_ms),
            Err(Ended::Full) => {
                let said = storage.full("[The command was ended");
                ToolOutput { content: format!("{text}\n{}]", said.content), ..said }
            }
            Err(Ended::Sandbox(error)) => return Ok(sandbox_failed(&error)),
        };
        let hints = told::hints(&output, &self.job.keep.agent.network);
        let notes = told::notes(&sandbox.take_notes());
        Ok(told::with_lines(output, changes.into_iter().chain(hints).chain(notes)))
    }

    async fn show_skill(&self, name: &str) -> ToolOutput {
        let Some((_, dir)) = self.job.keep.skill_dirs.iter().find(|(known, _)| known == name) else {
            let names: Vec<&str> = self.job.keep.skill_dirs.iter().map(|(known, _)| known.as_str()).collect();
            let message = format!("There is no skill named {name:?}; there are: {}.", names.join(", "));
            return ToolOutput::error("skill.not_found", message);
        };
        let dir = dir.clone();
        match self.job.share.disk.run(move || crate::skills::text(&dir)).await {
            Ok(Ok(text)) => {
                let body = palisade_agent::skill::parse(&text).map_or(text.as_str(), |skill| skill.body);
                ToolOutput::ok(format!("The skill's folder is /skills/{name} (read-only).\n\n{body}"))
            }
            Ok(Err(error)) => {
                ToolOutput::error("skill.unreadable", format!("The skill {name:?} cannot be read: {error}."))
            }
            Err(error) => ToolOutput::error("skill.unreadable", error.message),
        }
    }
}

/// What is said of a command beside its output, in bytes.
const SAID_BYTES: usize = 4 * 1024;

/// Why a command came to no end of its own.
enum Ended {
    Sandbox(SandboxError),
    /// It, or another writer of the workspace, went over the workspace's limit.
    Full,
}

/// What a command has printed: what the model will get of it, and what readers have not been shown yet.
struct Shown {
    kept: Screen,
    unseen: Vec<u8>,
    /// Bytes that were shown or wait to be; beyond the bound readers see nothing more of this command.
    streamed: usize,
}

impl Default for Shown {
    fn default() -> Self {
        // Some room is left for how the command ended and what else there is to say.
        Self { kept: Screen::new(TOOL_OUTPUT_BYTES_MAX - SAID_BYTES), unseen: Vec::new(), streamed: 0 }
    }
}

impl Shown {
    fn take(&mut self, bytes: &[u8]) {
        self.kept.push(bytes);
        let room = TOOL_STREAM_BYTES_MAX - self.streamed;
        let taken = &bytes[..room.min(bytes.len())];
        self.unseen.extend_from_slice(taken);
        self.streamed += taken.len();
        if !taken.is_empty() && self.streamed == TOOL_STREAM_BYTES_MAX {
            self.unseen.extend_from_slice(
                b"\n[more output is not shown here; the result has its head and its tail]\n",
            );
        }
    }

    /// What can be shown now: a character whose end has not come yet waits.
    fn pending(&mut self) -> String {
        let whole = whole_characters(&self.unseen);
        let content = String::from_utf8_lossy(&self.unseen[..whole]).into_owned();
        self.unseen.drain(..whole);
        content
    }
}

// What is behind the lock is whole after any panic, so a poisoned lock is still good.
fn lock(shown: &Mutex<Shown>) -> MutexGuard<'_, Shown> {
    shown.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many bytes from the start do not end inside a character.
fn whole_characters(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Ok(_) => bytes.len(),
        // An unfinished character at the very end waits; a wrong byte is shown as one.
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        Err(_) => {
            let tail = bytes.len().saturating_sub(3);
            let unfinished = (tail..bytes.len()).find(|at| {
                std::str::from_utf8(&bytes[*at..])
                    .is_err_and(|e| e.valid_up_to() == 0 && e.error_len().is_none())
            });
            unfinished.unwrap_or(bytes.len())
        }
    }
}

fn not_started(error: &NotStarted) -> ToolOutput {
    if let NotStarted::Sandbox(error) = error {
        return sandbox_failed(error);
    }
    tracing::warn!(error = %palisade_protocol::chain(error), "a sandbox was not started");
    let message = "The sandbox could not be started. Files stay; trying again later may help.";
    ToolOutput::error("sandbox.failed", message)
}

/// What the hand says of a call that it does not start, in characters.
const REFUSAL_CHARS_MAX: usize = 300;

/// The model and the client learn what to do, not where things lie on the host; the log has the cause.
fn sandbox_failed(error: &SandboxError) -> ToolOutput {
    tracing::warn!(error = %palisade_protocol::chain(error), "a tool call failed in the sandbox");
    let message = match error {
        SandboxError::Command(what) => format!("The command was not run: {what}."),
        SandboxError::Refused(why) => {
            format!("The call was not started: {}.", why.chars().take(REFUSAL_CHARS_MAX).collect::<String>())
        }
        SandboxError::Died(_) => "The sandbox died in this call and its processes are gone; files stay. The next call gets a new one.".to_owned(),
        _ => "The sandbox could not be started. Files stay; trying again later may help.".to_owned(),
    };
    ToolOutput::error("sandbox.failed", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_cut_by_a_chunk_are_shown_whole() {
        let text = "aé😀b".as_bytes();
        for at in 0..=text.len() {
            let mut shown = Shown::default();
            shown.take(&text[..at]);
            let first = shown.pending();
            shown.take(&text[at..]);
            assert_eq!(first + &shown.pending(), "aé😀b", "cut at {at}");
        }
    }

    #[test]
    fn a_flood_falls_silent_and_says_so() {
        let mut shown = Shown::default();
        for _ in 0..100 {
            shown.take(&[b'x'; 8192]);
        }
        let seen = shown.pending();
        assert!(seen.len() < TOOL_STREAM_BYTES_MAX + 100 && seen.ends_with("its tail]\n"));
        shown.take(b"more");
        assert!(shown.pending().is_empty());
        assert!(shown.kept.into_text().0.len() <= TOOL_OUTPUT_BYTES_MAX);
    }
}
