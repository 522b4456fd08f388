//! Items: the conversation, as the agent's step function reads it (decision 2).
//!
//! Items are only appended. They hold what was said, what was about to be done (`ToolStarted`, the intent) and
//! what came of it (`ToolFinished`, the outcome). They live with the session; events are only the wire's view.

use serde::{Deserialize, Serialize};

use crate::Usage;

/// One durable step of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Item {
    /// What the client said. Opens a turn.
    UserMessage {
        /// The text as sent.
        text: String,
    },
    /// One whole answer of the model.
    AssistantMessage {
        /// What it said.
        text: String,
        /// What it thought, where the upstream shows it.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        reasoning: String,
        /// The tools it asked for, in its order. Empty: the turn is done.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        calls: Vec<ToolCall>,
        /// What this call cost.
        usage: Usage,
    },
    /// An intent: the call is about to run. Durable before its first effect.
    ToolStarted {
        /// Which call.
        call_id: String,
    },
    /// The client was asked to run a tool of its own.
    ToolRequested {
        /// Which call.
        call_id: String,
        /// When, Unix seconds: the time to answer counts from here, restarts included.
        at: f64,
    },
    /// An outcome.
    ToolFinished {
        /// Which call.
        call_id: String,
        /// What the model is told.
        output: ToolOutput,
    },
    /// Closes a turn, however it went.
    TurnEnded {
        /// How.
        outcome: TurnOutcome,
    },
}

/// How a turn ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TurnOutcome {
    /// The model had nothing more to do.
    Completed,
    /// Somebody cancelled it.
    Cancelled,
    /// It could not go on; the event log says why.
    Failed,
}

/// A tool that the model asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// Unique within the session; ours when the upstream's was missing or repeated.
    pub id: String,
    /// The tool.
    pub name: String,
    /// The arguments as the model wrote them: JSON text, or what was meant to be.
    pub arguments: String,
}

/// What a tool call came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolOutput {
    /// For the model, cut at a written limit.
    pub content: String,
    /// The model is told that the call failed; the turn goes on.
    pub is_error: bool,
    /// A stable code for machines where there is one (`tool.timeout`, `tool.unknown`, …).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

impl ToolOutput {
    /// A success.
    pub fn ok(content: impl Into<String>) -> Self {
        Self { content: content.into(), is_error: false, code: None }
    }

    /// A failure that the model should see.
    pub fn error(code: &str, content: impl Into<String>) -> Self {
        Self { content: content.into(), is_error: true, code: Some(code.to_owned()) }
    }
}
