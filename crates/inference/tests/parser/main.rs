//! The chat-completions parser against hand-written quirks, recorded streams and every way of cutting them.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a helper that fails fails the test"
)]

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use palisade_inference::{
    CallIds, FinishReason, InferenceError, ModelEvent,
    openai_chat::{ChatStream, Yield},
};
use palisade_protocol::Usage;

mod fixtures;
mod quirks;
mod recut;

/// One answer as a reader would put it together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Heard {
    text: String,
    reasoning: String,
    /// Id, name, arguments.
    calls: Vec<(String, String, String)>,
    usage: Option<Usage>,
    finish: Option<FinishReason>,
    /// The code and sentence of the error that ended it.
    error: Option<(&'static str, String)>,
}

impl Heard {
    fn code(&self) -> Option<&'static str> {
        self.error.as_ref().map(|(code, _)| *code)
    }

    fn calls(&self) -> Vec<(&str, &str, &str)> {
        self.calls
            .iter()
            .map(|(id, name, arguments)| (id.as_str(), name.as_str(), arguments.as_str()))
            .collect()
    }
}

/// A parser whose own ids are `ours-1`, `ours-2`, ….
fn parser() -> ChatStream {
    let count = Arc::new(AtomicUsize::new(0));
    ChatStream::new(
        "up",
        CallIds::minted_by(move || format!("ours-{}", count.fetch_add(1, Ordering::Relaxed) + 1)),
    )
}

/// Feeds the pieces, ends the body, and checks on the way what every answer promises.
fn hear<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Heard {
    let mut parser = parser();
    let mut heard = Heard::default();
    for piece in pieces {
        listen(&mut heard, parser.feed(piece));
    }
    listen(&mut heard, parser.finish());
    assert!(
        parser.has_ended() && parser.feed(b"data: {\"choices\":[]}\n\n").is_empty(),
        "the end is the end"
    );
    assert_ne!(heard.finish.is_some(), heard.error.is_some(), "either whole or an error: {heard:?}");
    heard
}

fn listen(heard: &mut Heard, yielded: Yield) {
    for event in yielded {
        assert!(heard.finish.is_none() && heard.error.is_none(), "{event:?} after the end");
        match event {
            Err(error) => heard.error = Some(coded(&error)),
            Ok(event) => {
                assert!(
                    heard.usage.is_none() || matches!(event, ModelEvent::Done { .. }),
                    "usage is next to last"
                );
                add(heard, event);
            }
        }
    }
}

fn coded(error: &InferenceError) -> (&'static str, String) {
    (error.code(), error.to_string())
}

fn add(heard: &mut Heard, event: ModelEvent) {
    match event {
        ModelEvent::TextDelta(text) => heard.text.push_str(&not_empty(text)),
        ModelEvent::ReasoningDelta(text) => heard.reasoning.push_str(&not_empty(text)),
        ModelEvent::CallStart { index, id, name } => {
            assert_eq!(index, heard.calls.len(), "calls are counted from 0");
            assert!(heard.calls.iter().all(|(earlier, ..)| *earlier != id), "{id:?} is there twice");
            heard.calls.push((not_empty(id), not_empty(name), String::new()));
        }
        ModelEvent::CallDelta { index, arguments } => {
            let call = heard.calls.get_mut(index).expect("a call begins before its arguments");
            call.2.push_str(&not_empty(arguments));
        }
        ModelEvent::Usage(usage) => heard.usage = Some(usage),
        ModelEvent::Done { finish } => heard.finish = Some(finish),
    }
}

fn not_empty(text: String) -> String {
    assert!(!text.is_empty(), "no event is empty");
    text
}

/// A stream of these chunks, each an event, without an end of its own.
fn open_stream(chunks: &[&str]) -> Vec<u8> {
    chunks.iter().map(|chunk| format!("data: {chunk}\n\n")).collect::<String>().into_bytes()
}

/// The same with `[DONE]`.
fn stream(chunks: &[&str]) -> Vec<u8> {
    [open_stream(chunks), b"data: [DONE]\n\n".to_vec()].concat()
}
