//! Recorded streams of real servers, each compared with a plain fold of its chunks. The recordings lie beside
//! the workspace and belong to others; without them these tests say that they did not run.

use std::{
    fs,
    path::{Path, PathBuf},
};

use palisade_inference::FinishReason;
use serde::Deserialize;
use serde_json::Value;

use crate::{Heard, hear};

/// What the recordings hold at least; fewer would mean that the reader below lost some.
const STREAMS_MIN: usize = 30;

#[derive(Deserialize)]
struct Cassette {
    interactions: Vec<Interaction>,
}

#[derive(Deserialize)]
struct Interaction {
    response: Response,
}

#[derive(Deserialize)]
struct Response {
    body: Option<Body>,
}

#[derive(Deserialize)]
struct Body {
    string: Option<String>,
}

/// Name and bytes of every recorded stream of this dialect; `None` without the recordings.
fn recorded_streams() -> Option<Vec<(String, Vec<u8>)>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/fixtures");
    if !root.is_dir() {
        eprintln!("skipped: no recorded streams at {}", root.display());
        return None;
    }
    let mut streams = Vec::new();
    for path in files_beneath(&root) {
        let name = path.strip_prefix(&root).expect("beneath").display().to_string();
        if let Some(text) = stream_texts(&path) {
            let ours = text.into_iter().enumerate().filter(|(_, text)| is_of_this_dialect(text));
            streams.extend(ours.map(|(place, text)| (format!("{name}#{place}"), text.into_bytes())));
        }
    }
    Some(streams)
}

fn files_beneath(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(files_beneath(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn stream_texts(path: &Path) -> Option<Vec<String>> {
    let text = || fs::read_to_string(path).expect("readable text");
    let name = path.file_name()?.to_str()?;
    if name.ends_with(".chunks.txt") {
        // One chunk a line, with neither framing nor end: those are put back.
        let events: String = text().lines().map(|line| format!("data: {line}\n\n")).collect();
        return Some(vec![format!("{events}data: [DONE]\n\n")]);
    }
    if name.ends_with(".sse") {
        return Some(vec![text()]);
    }
    if name.ends_with(".yaml") {
        // Compressed bodies are kept as base64; none of them is a stream.
        let options = serde_saphyr::options! { ignore_binary_tag_for_string: true };
        let cassette: Cassette = serde_saphyr::from_str_with_options(&text(), options)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let bodies = cassette.interactions.into_iter().map(|interaction| interaction.response.body);
        return Some(bodies.flatten().filter_map(|body| body.string).collect());
    }
    None
}

fn is_of_this_dialect(text: &str) -> bool {
    text.starts_with("data:") && text.contains("\"choices\"")
}

/// The chunks put together without any of the parser's code: line by line, whole values.
fn folded(bytes: &[u8]) -> Heard {
    let text = String::from_utf8_lossy(bytes);
    let chunks: Vec<Value> = text
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .filter(|data| *data != "[DONE]")
        .map(|data| serde_json::from_str(data).expect("a JSON chunk"))
        .collect();
    let mut heard = Heard::default();
    let mut call_keys: Vec<String> = Vec::new();
    for choice in chunks.iter().filter_map(|chunk| chunk["choices"].get(0)) {
        let delta = &choice["delta"];
        match &delta["content"] {
            Value::String(content) => heard.text.push_str(content),
            Value::Array(parts) => {
                for part in parts {
                    heard.text.push_str(part["text"].as_str().unwrap_or_default());
                    for thought in part["thinking"].as_array().into_iter().flatten() {
                        heard.reasoning.push_str(thought["text"].as_str().unwrap_or_default());
                    }
                }
            }
            _ => {}
        }
        let reasoning = delta["reasoning_content"].as_str().or(delta["reasoning"].as_str());
        heard.reasoning.push_str(reasoning.unwrap_or_default());
        for piece in delta["tool_calls"].as_array().into_iter().flatten() {
            let key = piece["index"].to_string();
            let place = call_keys.iter().position(|known| *known == key).unwrap_or_else(|| {
                call_keys.push(key);
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                heard.calls.push((text(&piece["id"]), text(&piece["function"]["name"]), String::new()));
                call_keys.len() - 1
            });
            heard.calls[place].2.push_str(piece["function"]["arguments"].as_str().unwrap_or_default());
        }
        heard.finish = match choice["finish_reason"].as_str() {
            Some("tool_calls") => Some(FinishReason::ToolCalls),
            Some("length") => Some(FinishReason::Length),
            Some(_) => Some(FinishReason::Stop),
            None => heard.finish,
        };
    }
    if heard.finish.is_none() {
        heard.finish =
            Some(if heard.calls.is_empty() { FinishReason::Stop } else { FinishReason::ToolCalls });
    }
    heard
}

/// Input, cached, output, reasoning and total as the last counting chunk has them, for the servers that count.
fn counted(bytes: &[u8]) -> Option<[u64; 5]> {
    let text = String::from_utf8_lossy(bytes);
    let chunks = text.lines().rev().filter_map(|line| line.strip_prefix("data: "));
    let usage = chunks
        .filter_map(|data| serde_json::from_str::<Value>(data).ok())
        .find_map(|chunk| chunk["usage"].is_object().then(|| chunk["usage"].clone()))?;
    let number = |pointer: &str| usage.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    Some([
        number("/prompt_tokens"),
        number("/prompt_tokens_details/cached_tokens"),
        number("/completion_tokens"),
        number("/completion_tokens_details/reasoning_tokens"),
        number("/total_tokens"),
    ])
}

#[test]
fn every_recorded_stream_parses_to_what_it_says() {
    let Some(streams) = recorded_streams() else { return };
    assert!(streams.len() >= STREAMS_MIN, "only {} streams were found", streams.len());
    let (mut with_calls, mut with_reasoning, mut with_usage) = (0, 0, 0);
    for (name, bytes) in &streams {
        let heard = hear([bytes.as_slice()]);
        let expected = folded(bytes);
        assert_eq!(heard.error, None, "{name}");
        assert_eq!(Heard { usage: None, ..heard.clone() }, expected, "{name}");
        let counts = heard.usage.map(|usage| {
            let (cached, reasoning) =
                (usage.input_tokens_details.cached_tokens, usage.output_tokens_details.reasoning_tokens);
            [usage.input_tokens, cached, usage.output_tokens, reasoning, usage.total_tokens]
        });
        assert_eq!(counts, counted(bytes), "{name}");
        with_calls += usize::from(!heard.calls.is_empty());
        with_reasoning += usize::from(!heard.reasoning.is_empty());
        with_usage += usize::from(heard.usage.is_some());
    }
    println!(
        "{} recorded streams: {with_calls} with calls, {with_reasoning} with reasoning, {with_usage} with usage",
        streams.len()
    );
    assert!(with_calls >= 5 && with_reasoning >= 5 && with_usage >= 20);
}

#[test]
fn every_recorded_stream_is_the_same_byte_by_byte_and_with_other_line_ends() {
    let Some(streams) = recorded_streams() else { return };
    for (name, bytes) in &streams {
        let whole = hear([bytes.as_slice()]);
        assert_eq!(hear(bytes.chunks(1)), whole, "{name}");
        assert_eq!(hear(bytes.chunks(7)), whole, "{name}");
        let text = String::from_utf8_lossy(bytes);
        for line_end in ["\r\n", "\r"] {
            assert_eq!(hear([text.replace('\n', line_end).as_bytes()]), whole, "{name}");
        }
    }
}

#[test]
fn a_recorded_stream_that_stops_anywhere_is_an_error_or_the_same_answer() {
    let Some(streams) = recorded_streams() else { return };
    for (name, bytes) in &streams {
        let whole = hear([bytes.as_slice()]);
        // Every cut of the short ones; the long ones at strides that are no multiple of an event.
        let stride = 1 + bytes.len() / 120;
        for end in (0..bytes.len()).step_by(stride) {
            let heard = hear([&bytes[..end]]);
            match heard.code() {
                Some(code) => assert_eq!(code, "upstream.truncated", "{name} cut at {end}"),
                None => assert_eq!(Heard { usage: whole.usage, ..heard }, whole, "{name} cut at {end}"),
            }
        }
    }
}
