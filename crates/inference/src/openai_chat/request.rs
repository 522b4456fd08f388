//! A prompt as a chat-completions request. Written conservatively: fields that old and strict servers refuse
//! (empty `tools`, arguments that are not JSON) never leave.

use palisade_protocol::{Prompt, ToolCall, ToolDefinition, prompt::PromptMessage};
use serde_json::{Map, Value, json};

/// The body of one streaming call.
pub fn request_body(upstream_model: &str, prompt: &Prompt) -> Value {
    let mut messages = Vec::with_capacity(prompt.messages.len() + 1);
    if !prompt.system.is_empty() {
        messages.push(json!({"role": "system", "content": prompt.system}));
    }
    messages.extend(prompt.messages.iter().map(message));
    let mut body = json!({
        "model": upstream_model,
        "messages": messages,
        "stream": true,
        "stream_options": {"include_usage": true},
    });
    if !prompt.tools.is_empty() {
        body["tools"] = prompt.tools.iter().map(tool).collect();
    }
    if let Some(tokens) = prompt.output_tokens_max {
        body["max_completion_tokens"] = tokens.into();
    }
    body
}

fn message(message: &PromptMessage) -> Value {
    match message {
        PromptMessage::User(text) => json!({"role": "user", "content": text}),
        // Reasoning is not sent back: this dialect has no field for it that all servers accept.
        PromptMessage::Assistant { text, calls, .. } if calls.is_empty() => {
            json!({"role": "assistant", "content": text})
        }
        PromptMessage::Assistant { text, calls, .. } => {
            // Beside calls an absent text is null: some servers refuse "", others a missing field.
            let content = if text.is_empty() { Value::Null } else { text.as_str().into() };
            let calls: Vec<Value> = calls.iter().map(tool_call).collect();
            json!({"role": "assistant", "content": content, "tool_calls": calls})
        }
        PromptMessage::ToolResult { call_id, content, .. } => {
            json!({"role": "tool", "tool_call_id": call_id, "content": content})
        }
    }
}

fn tool_call(call: &ToolCall) -> Value {
    json!({"id": call.id, "type": "function",
        "function": {"name": call.name, "arguments": valid_arguments(&call.arguments)}})
}

/// Servers parse the arguments of earlier calls and fail the whole request over what a model once wrote wrongly.
fn valid_arguments(arguments: &str) -> String {
    if arguments.trim().is_empty() {
        return "{}".into();
    }
    match serde_json::from_str::<Map<String, Value>>(arguments) {
        Ok(_) => arguments.to_owned(),
        Err(_) => json!({"malformed_arguments": arguments}).to_string(),
    }
}

fn tool(tool: &ToolDefinition) -> Value {
    json!({"type": "function", "function": {
        "name": tool.name, "description": tool.description, "parameters": tool.parameters}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(arguments: &str) -> ToolCall {
        ToolCall { id: "call_1".into(), name: "Bash".into(), arguments: arguments.into() }
    }

    #[test]
    fn a_whole_conversation_in_the_wires_form() {
        let prompt = Prompt {
            system: "Be brief.".into(),
            messages: vec![
                PromptMessage::User("List.".into()),
                PromptMessage::Assistant {
                    text: String::new(),
                    reasoning: "hidden".into(),
                    calls: vec![call(r#"{"command":"ls"}"#), call(""), call(r#"{"comm"#), call("[1]")],
                },
                PromptMessage::ToolResult {
                    call_id: "call_1".into(),
                    content: "a.txt".into(),
                    is_error: false,
                },
                PromptMessage::Assistant {
                    text: "One file.".into(),
                    reasoning: String::new(),
                    calls: vec![],
                },
                PromptMessage::Assistant {
                    text: "More.".into(),
                    reasoning: String::new(),
                    calls: vec![call("{}")],
                },
            ],
            tools: vec![ToolDefinition {
                name: "Bash".into(),
                description: "Runs a command.".into(),
                parameters: json!({"type": "object"}),
            }],
            output_tokens_max: Some(100),
        };
        let wire_call = |arguments: &str| json!({"id": "call_1", "type": "function", "function": {"name": "Bash", "arguments": arguments}});
        let expected = json!({
            "model": "gpt-x",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "List."},
                {"role": "assistant", "content": null, "tool_calls": [
                    wire_call(r#"{"command":"ls"}"#),
                    wire_call("{}"),
                    wire_call(r#"{"malformed_arguments":"{\"comm"}"#),
                    wire_call(r#"{"malformed_arguments":"[1]"}"#),
                ]},
                {"role": "tool", "tool_call_id": "call_1", "content": "a.txt"},
                {"role": "assistant", "content": "One file."},
                {"role": "assistant", "content": "More.", "tool_calls": [wire_call("{}")]},
            ],
            "tools": [{"type": "function", "function": {
                "name": "Bash", "description": "Runs a command.", "parameters": {"type": "object"}}}],
            "stream": true,
            "stream_options": {"include_usage": true},
            "max_completion_tokens": 100,
        });
        assert_eq!(request_body("gpt-x", &prompt), expected);
    }

    #[test]
    fn what_is_not_there_is_not_sent() {
        let prompt = Prompt {
            system: String::new(),
            messages: vec![PromptMessage::User("Hi".into())],
            tools: vec![],
            output_tokens_max: None,
        };
        let body = request_body("gpt-x", &prompt);
        let mut keys: Vec<&String> = body.as_object().expect("an object").keys().collect();
        keys.sort();
        assert_eq!(keys, ["messages", "model", "stream", "stream_options"]);
        assert_eq!(body["messages"].as_array().map(Vec::len), Some(1));
    }
}
