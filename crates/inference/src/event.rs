//! What a model says, in no dialect.

use palisade_protocol::Usage;

/// One step of an answer. [`ModelEvent::Done`] comes exactly once and last; no string is ever empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelEvent {
    /// A piece of the answer.
    TextDelta(String),
    /// A piece of the reasoning.
    ReasoningDelta(String),
    /// A tool call begins.
    CallStart {
        /// Its place in the answer: 0, 1, 2, … in order of their start.
        index: usize,
        /// Unique within the answer and the conversation it continues.
        id: String,
        /// The tool.
        name: String,
    },
    /// A piece of a call's arguments. Calls may interleave.
    CallDelta {
        /// Which call.
        index: usize,
        /// Raw text; together with the call's other pieces, JSON or what was meant to be.
        arguments: String,
    },
    /// What the call cost, at most once, right before the end. Absent when the upstream does not count.
    Usage(Usage),
    /// The answer is whole.
    Done {
        /// Why the model stopped.
        finish: FinishReason,
    },
}

/// Why a model stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// It had said everything.
    Stop,
    /// It waits for the results of its calls.
    ToolCalls,
    /// It ran into a length limit; the last call's arguments may be cut.
    Length,
    /// The upstream's filter stopped it.
    ContentFilter,
}
