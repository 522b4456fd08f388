//! The chat-completions wire: requests as clients send them, answers whole or as a stream of frames. The two
//! forms of an answer always say the same.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{Answer, PlannerError, server::MODEL_NAME};

/// A request. Fields that the planner has no use for are ignored.
#[derive(Debug, Clone, Deserialize)]
pub struct ChatRequest {
    /// The conversation, oldest first.
    pub messages: Vec<Message>,
    /// What may be called.
    #[serde(default)]
    pub tools: Option<Vec<Tool>>,
    /// Whether the answer is wanted as a stream.
    #[serde(default)]
    pub stream: Option<bool>,
    /// What else the stream carries.
    #[serde(default)]
    pub stream_options: Option<StreamOptions>,
    /// The size of the body, for the count of tokens.
    #[serde(skip)]
    pub body_bytes: usize,
}

/// One message.
#[derive(Debug, Clone, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant`, `tool`, …
    pub role: String,
    /// Text, parts, or nothing.
    #[serde(default)]
    pub content: Option<Content>,
    /// What an assistant called.
    #[serde(default)]
    pub tool_calls: Option<Vec<ToolCall>>,
    /// What a tool message answers.
    #[serde(default)]
    pub tool_call_id: Option<String>,
}

/// The content of a message.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Content {
    /// Plain.
    Text(String),
    /// In parts; those without text are ignored.
    Parts(Vec<Part>),
}

/// A part of a message.
#[derive(Debug, Clone, Deserialize)]
pub struct Part {
    /// Its text, if it is a text part.
    #[serde(default)]
    pub text: Option<String>,
}

/// A call that an earlier answer made.
#[derive(Debug, Clone, Deserialize)]
pub struct ToolCall {
    /// Its id.
    pub id: String,
    /// What was called.
    pub function: FunctionCall,
}

/// Name and arguments of a call.
#[derive(Debug, Clone, Deserialize)]
pub struct FunctionCall {
    /// The tool.
    pub name: String,
    /// JSON text.
    #[serde(default)]
    pub arguments: String,
}

/// A tool on offer.
#[derive(Debug, Clone, Deserialize)]
pub struct Tool {
    /// Its definition; only the name matters here.
    pub function: FunctionName,
}

/// The name of a tool on offer.
#[derive(Debug, Clone, Deserialize)]
pub struct FunctionName {
    /// The name.
    pub name: String,
}

/// Options of a stream.
#[derive(Debug, Clone, Deserialize)]
pub struct StreamOptions {
    /// Whether a last chunk carries the usage.
    #[serde(default)]
    pub include_usage: Option<bool>,
}

impl ChatRequest {
    /// Reads a body.
    pub fn from_json(body: &[u8]) -> Result<Self, PlannerError> {
        let mut request: Self = serde_json::from_slice(body).map_err(PlannerError::BadRequest)?;
        request.body_bytes = body.len();
        Ok(request)
    }
}

impl Message {
    /// Its text, parts put together.
    pub(crate) fn text(&self) -> String {
        match &self.content {
            None => String::new(),
            Some(Content::Text(text)) => text.clone(),
            Some(Content::Parts(parts)) => {
                parts.iter().filter_map(|part| part.text.as_deref()).collect::<Vec<_>>().join("\n")
            }
        }
    }
}

/// Tokens are estimated: a stand-in has no tokenizer, and four bytes a token is the usual rule of thumb.
const BYTES_PER_TOKEN: usize = 4;
/// Text of one delta, in bytes: about a word or two.
const TEXT_DELTA_BYTES: usize = 12;
/// Arguments of one delta, in bytes: small enough that a long Write is seen growing.
const ARGUMENTS_DELTA_BYTES: usize = 256;

/// The answer as one `chat.completion` object.
pub fn completion(request: &ChatRequest, answer: &Answer) -> Value {
    let calls: Vec<Value> = answer
        .calls
        .iter()
        .map(|call| {
            json!({"id": call.id, "type": "function",
                   "function": {"name": call.name, "arguments": call.arguments.to_string()}})
        })
        .collect();
    let mut message = json!({"role": "assistant", "content": answer.text});
    if !calls.is_empty() {
        message["tool_calls"] = calls.into();
    }
    let mut object = envelope("chat.completion");
    object["choices"] = json!([{"index": 0, "message": message, "finish_reason": finish_reason(answer)}]);
    object["usage"] = usage(request, answer);
    object
}

/// The answer as the `data:` frames of a stream, `[DONE]` last.
pub fn frames(request: &ChatRequest, answer: &Answer) -> Vec<String> {
    let mut deltas = vec![json!({"role": "assistant", "content": ""})];
    deltas.extend(pieces(&answer.text, TEXT_DELTA_BYTES).map(|piece| json!({"content": piece})));
    for (index, call) in answer.calls.iter().enumerate() {
        deltas.push(json!({"tool_calls": [{"index": index, "id": call.id, "type": "function",
                           "function": {"name": call.name, "arguments": ""}}]}));
        let arguments = call.arguments.to_string();
        deltas.extend(
            pieces(&arguments, ARGUMENTS_DELTA_BYTES)
                .map(|piece| json!({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})),
        );
    }
    let mut frames: Vec<String> = deltas.into_iter().map(|delta| chunk(delta, Value::Null)).collect();
    frames.push(chunk(json!({}), finish_reason(answer).into()));
    if request.stream_options.as_ref().and_then(|options| options.include_usage) == Some(true) {
        let mut last = envelope("chat.completion.chunk");
        last["choices"] = json!([]);
        last["usage"] = usage(request, answer);
        frames.push(frame(&last.to_string()));
    }
    frames.push(frame("[DONE]"));
    frames
}

fn chunk(delta: Value, finish_reason: Value) -> String {
    let mut object = envelope("chat.completion.chunk");
    object["choices"] = json!([{"index": 0, "delta": delta, "finish_reason": finish_reason}]);
    frame(&object.to_string())
}

fn frame(data: &str) -> String {
    format!("data: {data}\n\n")
}

fn envelope(object: &str) -> Value {
    // No clock and no randomness: the same request has the same bytes.
    json!({"id": "chatcmpl-demo-planner", "object": object, "created": 0, "model": MODEL_NAME})
}

fn finish_reason(answer: &Answer) -> &'static str {
    if answer.calls.is_empty() { "stop" } else { "tool_calls" }
}

fn usage(request: &ChatRequest, answer: &Answer) -> Value {
    let said: usize = answer.text.len()
        + answer.calls.iter().map(|call| call.name.len() + call.arguments.to_string().len()).sum::<usize>();
    let (input, output) = (request.body_bytes.div_ceil(BYTES_PER_TOKEN), said.div_ceil(BYTES_PER_TOKEN));
    json!({"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output})
}

/// Cuts after the first space at or beyond `bytes_min`, or at the end.
fn pieces(text: &str, bytes_min: usize) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let cut = rest
            .char_indices()
            .map(|(at, c)| (at + c.len_utf8(), c))
            .find(|(end, c)| (*end >= bytes_min && c.is_whitespace()) || *end >= 2 * bytes_min)
            .map_or(rest.len(), |(end, _)| end);
        let (piece, tail) = rest.split_at(cut);
        rest = tail;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request() -> ChatRequest {
        ChatRequest::from_json(br#"{"messages":[],"stream_options":{"include_usage":true}}"#).unwrap()
    }

    /// Puts a stream together again the way a client does.
    fn assembled(frames: &[String]) -> Value {
        let (mut content, mut calls, mut finish, mut usage) =
            (String::new(), Vec::<Value>::new(), Value::Null, Value::Null);
        for frame in frames {
            let data = frame.strip_prefix("data: ").unwrap().strip_suffix("\n\n").unwrap();
            if data == "[DONE]" {
                continue;
            }
            let chunk: Value = serde_json::from_str(data).unwrap();
            if chunk["usage"].is_object() {
                usage = chunk["usage"].clone();
                continue;
            }
            let choice = &chunk["choices"][0];
            content.push_str(choice["delta"]["content"].as_str().unwrap_or(""));
            for part in choice["delta"]["tool_calls"].as_array().into_iter().flatten() {
                let index = usize::try_from(part["index"].as_u64().unwrap()).unwrap();
                if index == calls.len() {
                    calls.push(part.clone());
                    calls[index].as_object_mut().unwrap().remove("index");
                    continue;
                }
                let longer = format!(
                    "{}{}",
                    calls[index]["function"]["arguments"].as_str().unwrap(),
                    part["function"]["arguments"].as_str().unwrap()
                );
                calls[index]["function"]["arguments"] = longer.into();
            }
            if !choice["finish_reason"].is_null() {
                finish = choice["finish_reason"].clone();
            }
        }
        let mut message = json!({"role": "assistant", "content": content});
        if !calls.is_empty() {
            message["tool_calls"] = calls.into();
        }
        json!({"choices": [{"index": 0, "message": message, "finish_reason": finish}], "usage": usage})
    }

    proptest! {
        #[test]
        fn the_stream_says_what_the_whole_answer_says(
            text in "\\PC{0,200}",
            arguments in prop::collection::vec("\\PC{0,900}", 0..3),
        ) {
            let mut answer = Answer::say(text);
            for argument in arguments {
                answer = answer.bash(argument);
            }
            answer.number_calls(7);
            let whole = completion(&request(), &answer);
            let frames = frames(&request(), &answer);
            let streamed = assembled(&frames);
            prop_assert_eq!(&streamed["choices"], &whole["choices"]);
            prop_assert_eq!(&streamed["usage"], &whole["usage"]);
            prop_assert_eq!(frames.last().map(String::as_str), Some("data: [DONE]\n\n"));
        }
    }

    #[test]
    fn a_stream_carries_usage_only_when_asked() {
        let silent = ChatRequest::from_json(br#"{"messages":[]}"#).unwrap();
        assert!(!frames(&silent, &Answer::say("x")).concat().contains("usage"));
    }
}
