//! A request as the planner sees it: the system prompt, the user's words, and what this turn did so far. All
//! state of the planner is derived from here.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;

use crate::ChatRequest;

/// A request taken apart.
#[derive(Debug)]
pub(crate) struct Conversation {
    /// The system prompt.
    pub(crate) system: String,
    /// What the user asks in this turn; for "continue", what was asked before.
    pub(crate) request: String,
    /// The calls of this turn, oldest first.
    pub(crate) turn: Vec<Done>,
    /// The calls of earlier turns, oldest first.
    pub(crate) earlier: Vec<Done>,
    /// Tools on offer.
    pub(crate) tools: Vec<String>,
    /// Differs between requests of a conversation.
    pub(crate) fingerprint: u64,
}

/// A call that was made, and what came of it.
#[derive(Debug, Clone)]
pub(crate) struct Done {
    pub(crate) name: String,
    pub(crate) arguments: Value,
    pub(crate) result: String,
}

impl Done {
    /// A string argument; empty when absent.
    pub(crate) fn argument(&self, name: &str) -> &str {
        self.arguments.get(name).and_then(Value::as_str).unwrap_or_default()
    }
}

impl Conversation {
    pub(crate) fn of(request: &ChatRequest) -> Self {
        let mut conversation = Self {
            system: String::new(),
            request: String::new(),
            turn: Vec::new(),
            earlier: Vec::new(),
            tools: request.tools.iter().flatten().map(|tool| tool.function.name.clone()).collect(),
            fingerprint: 0,
        };
        let mut hasher = DefaultHasher::new();
        // Ids in the order of their calls, so that a result finds its call.
        let mut ids: Vec<&str> = Vec::new();
        for message in &request.messages {
            let text = message.text();
            (&message.role, &text).hash(&mut hasher);
            match message.role.as_str() {
                "system" | "developer" => conversation.system.push_str(&text),
                "user" => {
                    conversation.earlier.append(&mut conversation.turn);
                    if conversation.request.is_empty() || !means_continue(&text) {
                        conversation.request = text;
                    }
                }
                "assistant" => {
                    for call in message.tool_calls.iter().flatten() {
                        call.id.hash(&mut hasher);
                        ids.push(&call.id);
                        conversation.turn.push(Done {
                            name: call.function.name.clone(),
                            arguments: serde_json::from_str(&call.function.arguments).unwrap_or(Value::Null),
                            result: String::new(),
                        });
                    }
                }
                "tool" => {
                    let id = message.tool_call_id.as_deref().unwrap_or_default();
                    // The latest call of that id: some clients use ids again.
                    if let Some(at) = ids.iter().rposition(|known| *known == id) {
                        let before = conversation.earlier.len();
                        let done = if at < before {
                            conversation.earlier.get_mut(at)
                        } else {
                            conversation.turn.get_mut(at - before)
                        };
                        if let Some(done) = done {
                            done.result = text;
                        }
                    }
                }
                _ => {}
            }
        }
        conversation.fingerprint = hasher.finish();
        conversation
    }

    /// Whether a tool is on offer.
    pub(crate) fn has_tool(&self, name: &str) -> bool {
        self.tools.iter().any(|tool| tool == name)
    }

    /// Every call of the conversation, latest first.
    pub(crate) fn latest_first(&self) -> impl Iterator<Item = &Done> {
        self.turn.iter().rev().chain(self.earlier.iter().rev())
    }
}

fn means_continue(text: &str) -> bool {
    let words = text.trim().trim_end_matches(['.', '!']).to_lowercase();
    matches!(words.as_str(), "continue" | "go on" | "please continue" | "try again" | "retry" | "again")
}
