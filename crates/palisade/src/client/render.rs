//! A turn's events as a person likes to read them: text as it comes, thinking apart, a tool call as one line with
//! its output beneath and how it ended.
//!
//! Pure: events and their times in, text out. Everything from the wire passes through [`text`]; meaning is in words
//! and signs, colour only repeats it.

use std::collections::HashMap;

use serde_json::Value;

use super::live_output::{LiveOutput, OutputStyle, framed};
use super::text;
use super::tool_label;

/// What a model is told of a command that printed nothing; a person sees it anyway.
const NO_OUTPUT: &str = "(no output)";
/// Lines shown of a failure that was not streamed.
const FAILURE_LINES_MAX: usize = 8;
/// Calls remembered at once; a model's answer has at most 64.
const CALLS_MAX: usize = 256;

/// How to render.
#[derive(Debug, Clone, Copy)]
pub(super) struct Style {
    /// Colours.
    pub colour: bool,
    /// Lines may be redrawn in place.
    pub live: bool,
    /// Show what the model thinks.
    pub thinking: bool,
    /// Times are those of the turn; not so when old events are read again.
    pub times: bool,
    /// Columns of a line that must not wrap.
    pub columns: usize,
}

/// What the lines above belong to; a blank line stands between two kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    Nothing,
    Text,
    Thinking,
    Tools,
    Note,
}

#[derive(Debug)]
struct Call {
    name: String,
    label: String,
    started_ms: u64,
    output: LiveOutput,
}

/// Turns events into text.
#[derive(Debug)]
pub(super) struct Renderer {
    style: Style,
    block: Block,
    /// Whether the cursor stands behind something on its line.
    mid_line: bool,
    /// Line breaks of a text that are held back until something follows them.
    breaks_pending: usize,
    /// The call whose line is the last one, if nothing came after it.
    open_call: Option<String>,
    calls: HashMap<String, Call>,
}

impl Renderer {
    pub(super) fn new(style: Style) -> Self {
        Self {
            style,
            block: Block::Nothing,
            mid_line: false,
            breaks_pending: 0,
            open_call: None,
            calls: HashMap::new(),
        }
    }

    /// What to write for the next event, `at_ms` after the start. Unknown events say nothing.
    pub(super) fn event(&mut self, at_ms: u64, kind: &str, data: &Value) -> String {
        let field = |name: &str| data.get(name).and_then(Value::as_str).unwrap_or("");
        match kind {
            "text.start" => self.begin(Block::Text),
            "text.delta" => self.flow(Block::Text, field("content")),
            "thinking.delta" if self.style.thinking => self.flow(Block::Thinking, field("content")),
            "text.stop" | "thinking.stop" => self.end_line(),
            "tool_use.start" => self.announce(field("name")),
            "tool_use.executing" => self.executing(at_ms, field("id"), field("name"), &data["input"]),
            "tool_use.output_delta" => self.output(field("id"), field("content")),
            "tool_result" => {
                let is_error = data.get("is_error").and_then(Value::as_bool).unwrap_or(false);
                self.result(at_ms, field("id"), field("content"), is_error)
            }
            "tool_call.requested" => self.client_tool(at_ms, data),
            "turn.attempt" => {
                self.calls.clear();
                self.note("↻", "the server was restarted; the turn goes on")
            }
            "context.compacted" => {
                let number = |name: &str| text::count(data.get(name).and_then(Value::as_u64).unwrap_or(0));
                let (before, after) = (number("tokens_before"), number("tokens_after"));
                self.note("·", &format!("the conversation was shortened from {before} to {after} tokens"))
            }
            "message.completed" => self.usage(at_ms, &data["usage"]),
            "message.cancelled" => self.note("■", "cancelled"),
            "message.error" => self.end_line(),
            _ => String::new(),
        }
    }

    /// Ends the line that was begun, so that something else can be written.
    pub(super) fn end_line(&mut self) -> String {
        self.breaks_pending = 0;
        self.open_call = None;
        if std::mem::take(&mut self.mid_line) { "\n".into() } else { String::new() }
    }

    fn begin(&mut self, block: Block) -> String {
        let mut now = self.end_line();
        if self.block != Block::Nothing && (self.block, block) != (Block::Tools, Block::Tools) {
            now.push('\n');
        }
        self.block = block;
        now
    }

    /// Running text. Line breaks wait for what follows them, so that a block's end has none too many.
    fn flow(&mut self, block: Block, content: &str) -> String {
        let mut now = if self.block == block { String::new() } else { self.begin(block) };
        let indent = if block == Block::Thinking { "  " } else { "" };
        let mut fresh = String::new();
        for piece in content.replace('\r', "").split_inclusive('\n') {
            let line = piece.trim_end_matches('\n');
            if !line.is_empty() {
                if self.mid_line {
                    fresh.push_str(&"\n".repeat(self.breaks_pending.min(2)));
                }
                if !self.mid_line || self.breaks_pending > 0 {
                    fresh.push_str(if block == Block::Thinking && !self.mid_line { "· " } else { indent });
                }
                fresh.push_str(&text::visible(line));
                (self.mid_line, self.breaks_pending) = (true, 0);
            }
            self.breaks_pending += piece.len() - line.len();
        }
        if block == Block::Thinking && !fresh.is_empty() {
            fresh = self.paint("2", &fresh);
        }
        now.push_str(&fresh);
        now
    }

    /// A call whose input is still being written: only where the line can be replaced later.
    fn announce(&mut self, name: &str) -> String {
        if !self.style.live {
            return String::new();
        }
        let mut now = self.begin(Block::Tools);
        now.push_str(&self.paint("2", &format!("▸ {} …", text::one_line(name, 64))));
        self.mid_line = true;
        now
    }

    fn executing(&mut self, at_ms: u64, id: &str, name: &str, input: &Value) -> String {
        let mut now =
            if self.style.live && self.block == Block::Tools && self.mid_line && self.open_call.is_none() {
                "\r\x1b[2K".to_owned()
            } else {
                self.begin(Block::Tools)
            };
        let shown_name = text::one_line(name, 64);
        let label =
            tool_label::label(name, input, self.style.columns.saturating_sub(shown_name.len() + 20).max(20));
        now.push_str(&format!("{} {}", self.paint("36", "▸"), self.paint("1", &shown_name)));
        if !label.is_empty() {
            now.push_str(&format!("  {label}"));
        }
        self.mid_line = true;
        self.open_call = Some(id.to_owned());
        if self.calls.len() < CALLS_MAX {
            let call =
                Call { name: name.to_owned(), label, started_ms: at_ms, output: LiveOutput::default() };
            self.calls.insert(id.to_owned(), call);
        }
        now
    }

    fn output(&mut self, id: &str, content: &str) -> String {
        let style = self.output_style();
        let is_open = self.open_call.as_deref() == Some(id);
        let Some(call) = self.calls.get_mut(id) else { return String::new() };
        if !is_open {
            // Something was written since; a redraw from here would erase it.
            call.output.detach();
        }
        let shown = call.output.push(content, style);
        let again = format!("{}  {} (goes on)", call.name, call.label);
        if shown.is_empty() {
            return shown;
        }
        let mut now = String::new();
        if !is_open {
            now.push_str(&self.begin(Block::Tools));
            now.push_str(&format!(
                "{} {}\n",
                self.paint("36", "▸"),
                text::one_line(&again, self.style.columns)
            ));
            self.open_call = Some(id.to_owned());
        } else if std::mem::take(&mut self.mid_line) {
            now.push('\n');
        }
        now + &shown
    }

    fn result(&mut self, at_ms: u64, id: &str, content: &str, is_error: bool) -> String {
        let style = self.output_style();
        let call = self.calls.remove(id);
        let mut call = call.unwrap_or_else(|| Call {
            name: String::new(),
            label: String::new(),
            started_ms: at_ms,
            output: LiveOutput::default(),
        });
        let is_open = self.open_call.as_deref() == Some(id);
        let streamed = !call.output.is_empty();
        let mut body = String::new();
        if !is_open {
            call.output.detach();
        }
        if streamed {
            body.push_str(&call.output.finish(style));
            body.push_str(&unseen_reason(&call.output, content, is_error, style));
        } else if is_error {
            body.push_str(&last_lines(content, style));
        } else if tool_label::shows_output(&call.name) && content != NO_OUTPUT {
            body.push_str(&call.output.push(content, style));
            body.push_str(&call.output.finish(style));
        }
        let mut verdict = self.verdict(is_error, at_ms.saturating_sub(call.started_ms));
        if !is_error && tool_label::counts_lines(&call.name) {
            verdict.push_str(&format!("  {}", text::lines(content.lines().count() as u64)));
        }
        let mut now = String::new();
        if is_open && self.mid_line && body.is_empty() {
            now.push_str(&format!("  {verdict}\n"));
        } else {
            now.push_str(if std::mem::take(&mut self.mid_line) { "\n" } else { "" });
            let whose = if is_open { String::new() } else { format!("  {} {}", call.name, call.label) };
            now.push_str(&format!("{body}  {verdict}{}\n", text::one_line(&whose, self.style.columns)));
        }
        self.mid_line = false;
        self.open_call = None;
        now
    }

    fn verdict(&self, is_error: bool, time_ms: u64) -> String {
        let sign = if is_error { self.paint("31", "✗ failed") } else { self.paint("32", "✓") };
        // A tenth of a second is what a person notices.
        if self.style.times && time_ms >= 100 { format!("{sign} {}", text::seconds(time_ms)) } else { sign }
    }

    fn client_tool(&mut self, at_ms: u64, data: &Value) -> String {
        let field = |name: &str| data.get(name).and_then(Value::as_str).unwrap_or("");
        let input = serde_json::from_str(field("arguments")).unwrap_or(Value::Null);
        let asked = self.executing(at_ms, field("call_id"), field("name"), &input);
        let now = format!("{asked}\n  waiting for the client that offers this tool to answer\n");
        self.mid_line = false;
        now
    }

    fn note(&mut self, sign: &str, note: &str) -> String {
        let now = self.begin(Block::Note);
        format!("{now}{}\n", self.paint("2", &format!("{sign} {note}")))
    }

    fn usage(&mut self, at_ms: u64, usage: &Value) -> String {
        let number = |path: &str| usage.pointer(path).and_then(Value::as_u64).unwrap_or(0);
        let part = |path: &str, name: &str| match number(path) {
            0 => String::new(),
            tokens => format!(" ({} {name})", text::count(tokens)),
        };
        let time = if self.style.times { format!(" · {}", text::seconds(at_ms)) } else { String::new() };
        let line = format!(
            "{} tokens in{}, {} out{}{time}",
            text::count(number("/input_tokens")),
            part("/input_tokens_details/cached_tokens", "cached"),
            text::count(number("/output_tokens")),
            part("/output_tokens_details/reasoning_tokens", "reasoning"),
        );
        self.note("■", &format!("done · {line}"))
    }

    fn output_style(&self) -> OutputStyle {
        OutputStyle { live: self.style.live, colour: self.style.colour, columns: self.style.columns }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.style.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// The last line of a failure's result, such as an exit code, where it is not among what was streamed.
fn unseen_reason(output: &LiveOutput, content: &str, is_error: bool, style: OutputStyle) -> String {
    match content.lines().rfind(|line| !line.trim().is_empty()) {
        Some(last) if is_error && !output.ends_with(last) => framed(last, style),
        _ => String::new(),
    }
}

fn last_lines(content: &str, style: OutputStyle) -> String {
    let lines: Vec<&str> = content.lines().filter(|line| !line.trim().is_empty()).collect();
    let from = lines.len().saturating_sub(FAILURE_LINES_MAX);
    lines[from..].iter().map(|line| framed(line, style)).collect()
}

#[cfg(test)]
#[path = "render_tests.rs"]
mod tests;
