//! The events of a turn as the wire has them (contract §4), and the one function that renders a frame.
//!
//! An event is rendered once, when it is appended; what is stored is what every reader gets, live or later
//! (decision 5). Rows of older servers have no `type` in their data, and are replayed as they are.

mod bound;

use serde::Serialize;
use serde_json::Value;

use crate::limits::EVENT_DATA_BYTES_MAX;
use crate::lines::one_line;
use crate::{SessionId, TurnId, Usage};

/// Everything a turn can say. The serde form is the `data` of the wire, less `sequence_number`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type")]
#[expect(missing_docs, reason = "the contract's table is the documentation of these fields")]
pub enum Event {
    #[serde(rename = "message.created")]
    Created { id: TurnId, session_id: SessionId, status: &'static str },
    #[serde(rename = "text.start")]
    TextStart {},
    #[serde(rename = "text.delta")]
    TextDelta { content: String },
    #[serde(rename = "text.stop")]
    TextStop {},
    #[serde(rename = "thinking.start")]
    ThinkingStart {},
    #[serde(rename = "thinking.delta")]
    ThinkingDelta { content: String },
    #[serde(rename = "thinking.stop")]
    ThinkingStop {},
    #[serde(rename = "tool_use.start")]
    ToolStart { name: String, id: String },
    #[serde(rename = "tool_use.input_delta")]
    ToolInputDelta { content: String },
    #[serde(rename = "tool_use.executing")]
    ToolExecuting { name: String, id: String, input: Value },
    #[serde(rename = "tool_use.output_delta")]
    ToolOutputDelta { id: String, content: String },
    #[serde(rename = "tool_use.stop")]
    ToolStop {},
    #[serde(rename = "tool_result")]
    ToolResult {
        id: String,
        content: String,
        is_error: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<String>,
    },
    #[serde(rename = "tool_call.requested")]
    ToolRequested { call_id: String, name: String, arguments: String },
    #[serde(rename = "turn.attempt")]
    Attempt { attempt: i64, after: u64 },
    #[serde(rename = "message.completed")]
    Completed { id: TurnId, status: &'static str, usage: Usage },
    #[serde(rename = "message.cancelled")]
    Cancelled { id: TurnId, status: &'static str },
    #[serde(rename = "message.error")]
    Failed { id: TurnId, error: String, code: String },
}

/// An event with its number, ready to be stored and sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderedEvent {
    /// From 0, step 1, per turn.
    pub seq: u64,
    /// The event's type, such as `text.delta`.
    pub kind: String,
    /// The exact JSON text of the `data` line.
    pub data: String,
}

impl Event {
    /// Whether this is one of the three that end a stream.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Completed { .. } | Self::Cancelled { .. } | Self::Failed { .. })
    }

    /// Fixes the event's bytes under its number. The data is one line for every reader, and has at most
    /// [`EVENT_DATA_BYTES_MAX`] bytes: of a longer event the long fields are cut, and say so. Only
    /// `tool_call.requested` is never cut, because a client runs what it says (decision 52).
    pub fn render(&self, seq: u64) -> RenderedEvent {
        let rendered = self.render_whole(seq);
        if rendered.data.len() <= EVENT_DATA_BYTES_MAX || matches!(self, Self::ToolRequested { .. }) {
            return rendered;
        }
        bound::cut(self.clone()).render_whole(seq)
    }

    fn render_whole(&self, seq: u64) -> RenderedEvent {
        // Serialising an enum of plain structs cannot fail, and the tag stands first.
        let text = serde_json::to_string(self).unwrap_or_default();
        let (kind, fields) =
            text.strip_prefix(TAG).and_then(|text| text.split_once('"')).unwrap_or(("message.error", "}"));
        let data = one_line(format!("{TAG}{kind}\",\"sequence_number\":{seq}{fields}"));
        RenderedEvent { seq, kind: kind.to_owned(), data }
    }
}

/// How the data of every event begins.
const TAG: &str = "{\"type\":\"";

impl RenderedEvent {
    /// The event's bytes on the wire: three lines and a blank one.
    pub fn frame(&self) -> String {
        format!("id: {}\nevent: {}\ndata: {}\n\n", self.seq, self.kind, self.data)
    }

    /// Whether this is one of the three that end a stream.
    pub fn is_terminal(&self) -> bool {
        matches!(self.kind.as_str(), "message.completed" | "message.cancelled" | "message.error")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_three_lines_and_a_blank_one() {
        let event = Event::TextDelta { content: "a\nb".into() }.render(7);
        assert_eq!(
            event.frame(),
            "id: 7\nevent: text.delta\ndata: {\"type\":\"text.delta\",\"sequence_number\":7,\"content\":\"a\\nb\"}\n\n"
        );
        assert!(!event.is_terminal());
    }

    #[test]
    fn empty_events_still_carry_their_type_and_number() {
        assert_eq!(Event::TextStart {}.render(1).data, "{\"type\":\"text.start\",\"sequence_number\":1}");
    }
}
