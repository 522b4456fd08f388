//! What a model is asked: made by `agent`, translated by `inference` into an upstream's dialect.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ToolCall;

/// One model call, in no dialect.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    /// The system prompt.
    pub system: String,
    /// The conversation, oldest first. Every tool call is answered before the next user or assistant message.
    pub messages: Vec<PromptMessage>,
    /// What the model may call.
    pub tools: Vec<ToolDefinition>,
    /// A bound on the answer, in tokens; `None` leaves it to the upstream.
    pub output_tokens_max: Option<u32>,
}

/// One message of a prompt.
#[derive(Debug, Clone, PartialEq)]
pub enum PromptMessage {
    /// The client's words.
    User(String),
    /// An earlier answer of the model.
    Assistant {
        /// What it said.
        text: String,
        /// What it thought; sent back only by dialects that want it.
        reasoning: String,
        /// What it called.
        calls: Vec<ToolCall>,
    },
    /// The answer to one call.
    ToolResult {
        /// Which call.
        call_id: String,
        /// What came of it.
        content: String,
        /// Whether it failed.
        is_error: bool,
    },
}

/// A tool as models are told of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolDefinition {
    /// `[A-Za-z0-9_-]{1,64}`.
    pub name: String,
    /// What it does and when to use it.
    pub description: String,
    /// JSON Schema of the arguments.
    pub parameters: Value,
}
