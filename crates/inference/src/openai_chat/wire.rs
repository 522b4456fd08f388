//! One chunk of the stream, read field by field. A field of an unexpected type counts as absent: servers add
//! fields and change types, and a chunk is only as strange as the part that is needed from it.

use palisade_protocol::Usage;
use palisade_protocol::limits::TOKENS_PER_CALL_MAX;
use serde_json::Value;

/// The text of a field; empty when it is absent, null or something else.
pub(super) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// The first choice. Some servers leave its index out; others than the first were never asked for.
pub(super) fn first_choice(chunk: &Value) -> Option<&Value> {
    chunk["choices"].as_array()?.iter().find(|choice| choice["index"].as_u64().unwrap_or(0) == 0)
}

/// What a choice adds. Some servers send a last whole `message` in place of a `delta`.
pub(super) fn delta(choice: &Value) -> &Value {
    if choice["delta"].is_object() { &choice["delta"] } else { &choice["message"] }
}

/// Reasoning goes by several names; one that sends it under two sends the same twice.
pub(super) fn reasoning(delta: &Value) -> String {
    let named = ["reasoning_content", "reasoning"].map(|field| text(delta, field));
    if let Some(reasoning) = named.into_iter().find(|reasoning| !reasoning.is_empty()) {
        return reasoning.to_owned();
    }
    parts(delta)
        .filter(|part| text(part, "type") == "thinking")
        .flat_map(|part| part["thinking"].as_array().into_iter().flatten())
        .map(|part| text(part, "text"))
        .collect()
}

/// The answer's text: a string, a list of parts, or a refusal.
pub(super) fn content(delta: &Value) -> String {
    let plain = [text(delta, "content"), text(delta, "refusal")].concat();
    if !plain.is_empty() {
        return plain;
    }
    parts(delta).filter(|part| text(part, "type") == "text").map(|part| text(part, "text")).collect()
}

fn parts(delta: &Value) -> impl Iterator<Item = &Value> {
    delta["content"].as_array().into_iter().flatten()
}

/// Usage stands on a chunk without choices, on the last one with, or in places of a server's own.
pub(super) fn usage(chunk: &Value) -> Option<Usage> {
    let choice = first_choice(chunk).unwrap_or(&Value::Null);
    let counts = [&chunk["usage"], &choice["usage"], &chunk["x_groq"]["usage"]];
    let counts = counts.into_iter().find(|counts| counts.is_object())?;
    let count = |value: &Value| value.as_u64().unwrap_or(0).min(TOKENS_PER_CALL_MAX);
    let (input, output) = (count(&counts["prompt_tokens"]), count(&counts["completion_tokens"]));
    let cached = &counts["prompt_tokens_details"]["cached_tokens"];
    let cached = if cached.is_u64() { count(cached) } else { count(&counts["prompt_cache_hit_tokens"]) };
    let reasoning = count(&counts["completion_tokens_details"]["reasoning_tokens"]);
    // Some servers count reasoning beside the completion; only their total tells.
    let is_beside = reasoning > 0 && counts["total_tokens"].as_u64() == Some(input + output + reasoning);
    let output = if is_beside { (output + reasoning).min(TOKENS_PER_CALL_MAX) } else { output };
    Some(Usage::new(input, cached.min(input), output, reasoning.min(output)))
}

/// What an error object says, in any of the forms that servers use, with the status it names if it names one.
/// `None` when this is no error.
pub(super) fn error(value: &Value) -> Option<(String, Option<u16>)> {
    let error = match &value["error"] {
        Value::Null if text(value, "object") == "error" => value,
        Value::Null => return None,
        error => error,
    };
    let message = error.as_str().map_or_else(|| error_message(error).unwrap_or_default(), str::to_owned);
    let statuses = [&error["status_code"], &error["code"], &error["status"], &value["status_code"]];
    let status = statuses.into_iter().find_map(status_in);
    Some((message, status))
}

fn status_in(value: &Value) -> Option<u16> {
    let number = value.as_u64().or_else(|| value.as_str()?.parse().ok())?;
    u16::try_from(number).ok().filter(|status| (400..600).contains(status))
}

/// The sentence within an error body.
pub(crate) fn error_message(body: &Value) -> Option<String> {
    let candidates = [&body["error"]["message"], &body["error"], &body["message"], &body["detail"]];
    let message = candidates.into_iter().find_map(Value::as_str)?;
    (!message.is_empty()).then(|| message.to_owned())
}
