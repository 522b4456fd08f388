//! What the planner says and which tools it calls, before either becomes wire.

use serde_json::{Value, json};

/// One answer. An answer without calls ends the turn.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Answer {
    /// What it says.
    pub text: String,
    /// What it calls, in order.
    pub calls: Vec<Call>,
}

/// One tool call.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Unique within the conversation.
    pub id: String,
    /// The tool.
    pub name: String,
    /// Its arguments, an object.
    pub arguments: Value,
}

impl Answer {
    pub(crate) fn say(text: impl Into<String>) -> Self {
        Self { text: text.into(), calls: Vec::new() }
    }

    pub(crate) fn call(mut self, name: &str, arguments: Value) -> Self {
        self.calls.push(Call { id: String::new(), name: name.into(), arguments });
        self
    }

    pub(crate) fn bash(self, command: impl Into<String>) -> Self {
        self.call("Bash", json!({"command": command.into()}))
    }

    /// Ids come from the request, so that the same request has the same ids and a later one has others.
    pub(crate) fn number_calls(&mut self, fingerprint: u64) {
        for (index, call) in self.calls.iter_mut().enumerate() {
            call.id = format!("call_{fingerprint:016x}{index:08x}");
        }
    }
}
