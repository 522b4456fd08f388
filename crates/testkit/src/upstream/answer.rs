//! What a scripted upstream answers: a head and a list of steps, with builders for the usual streams. The
//! builders write the wire by hand, so that a parser under test is never checked against its own serialiser.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::watch;

/// Text deltas of the builders are at most this long, so that even short answers stream.
const DELTA_CHARS_MAX: usize = 12;

/// One thing an answer's body does.
#[derive(Debug, Clone)]
pub enum Step {
    /// Sends these bytes as a write of their own.
    Chunk(Bytes),
    /// Waits this long.
    Delay(Duration),
    /// Waits until the test opens the gate.
    Wait(Gate),
    /// From here on, the gate is reached when the body is dropped: the client has gone, or all was sent.
    OnClose(Gate),
    /// Never goes on.
    Stall,
    /// Closes the connection without ending the body.
    Close,
    /// Resets the connection (RST).
    Reset,
    /// Sends these bytes for ever.
    Repeat {
        /// What is sent.
        chunk: Bytes,
        /// The pause before each; zero for as fast as the reader takes it.
        every: Duration,
    },
}

/// A place where an answer waits for the test, and the test for the answer.
#[derive(Debug, Clone)]
pub struct Gate {
    is_reached: Arc<watch::Sender<bool>>,
    is_open: Arc<watch::Sender<bool>>,
}

impl Default for Gate {
    fn default() -> Self {
        Self { is_reached: Arc::new(watch::Sender::new(false)), is_open: Arc::new(watch::Sender::new(false)) }
    }
}

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets the answer go on.
    pub fn open(&self) {
        self.is_open.send_replace(true);
    }

    /// Waits until the answer stands before the gate: everything before it was written.
    pub async fn reached(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.is_reached.subscribe().wait_for(|reached| *reached).await;
    }

    fn reach(&self) {
        self.is_reached.send_replace(true);
    }

    pub(super) async fn opened(&self) {
        self.reach();
        let _ = self.is_open.subscribe().wait_for(|open| *open).await;
    }
}

/// Reaches its gate when dropped.
#[derive(Debug)]
pub(super) struct ReachOnDrop(pub(super) Gate);

impl Drop for ReachOnDrop {
    fn drop(&mut self) {
        self.0.reach();
    }
}

/// A tool call for the builders.
#[derive(Debug, Clone)]
pub struct Call {
    /// The upstream's id for it.
    pub id: String,
    /// The tool.
    pub name: String,
    /// The arguments' exact text.
    pub arguments: String,
}

impl Call {
    /// A call with an id of its own.
    pub fn new(name: impl Into<String>, arguments: Value) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = format!("call_{:024x}", NEXT.fetch_add(1, Ordering::Relaxed));
        Self { id, name: name.into(), arguments: arguments.to_string() }
    }

    /// The same call under another id.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<String>) -> Self {
        self.id = id.into();
        self
    }

    /// The same call with these arguments, which need not be JSON.
    #[must_use]
    pub fn with_raw_arguments(mut self, arguments: impl Into<String>) -> Self {
        self.arguments = arguments.into();
        self
    }
}

/// One answer: a head and what the body does. The builders below add steps in order and end with
/// [`Answer::done`] (or with a stall, a reset, a close).
#[derive(Debug, Clone)]
pub struct Answer {
    pub(super) status: StatusCode,
    pub(super) content_type: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) head_delay: Duration,
    pub(super) stalls_at_once: bool,
    pub(super) steps: Vec<Step>,
    calls: usize,
    usage: Value,
}

impl Answer {
    /// A whole answer that says this.
    pub fn text(text: &str) -> Self {
        Self::stream().say(text).done()
    }

    /// A whole answer that thinks, then speaks.
    pub fn reasoned(reasoning: &str, text: &str) -> Self {
        Self::stream().think(reasoning).say(text).done()
    }

    /// A whole answer that calls one tool.
    pub fn tool_call(name: &str, arguments: Value) -> Self {
        Self::calls([Call::new(name, arguments)])
    }

    /// A whole answer that calls several tools.
    pub fn calls(calls: impl IntoIterator<Item = Call>) -> Self {
        calls.into_iter().fold(Self::stream(), |answer, call| answer.call(&call)).done()
    }

    /// An error before any stream: OpenAI's error object around the message.
    pub fn http_error(status: StatusCode, message: &str) -> Self {
        let body = json!({"error": {"message": message, "type": "scripted", "code": null}}).to_string();
        Self::raw(status, "application/json", body)
    }

    /// What a wrong `base_url` answers.
    pub fn html() -> Self {
        let page =
            "<!doctype html>\n<html><head><title>Welcome</title></head><body>It works!</body></html>\n";
        Self::raw(StatusCode::OK, "text/html; charset=utf-8", page)
    }

    /// Any body under any head.
    pub fn raw(status: StatusCode, content_type: &str, body: impl Into<Bytes>) -> Self {
        let mut answer = Self::stream();
        answer.status = status;
        answer.content_type = content_type.to_owned();
        answer.steps.push(Step::Chunk(body.into()));
        answer
    }

    /// Takes the request and never answers.
    pub fn never() -> Self {
        Self { stalls_at_once: true, ..Self::stream() }
    }

    /// Resets the connection before a head is sent.
    pub fn reset_at_once() -> Self {
        Self::stream().reset()
    }

    /// The start of a 200 event stream without a word yet.
    pub fn stream() -> Self {
        Self {
            status: StatusCode::OK,
            content_type: "text/event-stream".into(),
            headers: Vec::new(),
            head_delay: Duration::ZERO,
            stalls_at_once: false,
            steps: Vec::new(),
            calls: 0,
            usage: json!({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}),
        }
    }

    /// Adds text, in several deltas.
    #[must_use]
    pub fn say(self, text: &str) -> Self {
        pieces(text).into_iter().fold(self, |answer, piece| answer.delta(&json!({"content": piece})))
    }

    /// Adds reasoning, in several deltas.
    #[must_use]
    pub fn think(self, text: &str) -> Self {
        pieces(text)
            .into_iter()
            .fold(self, |answer, piece| answer.delta(&json!({"reasoning_content": piece})))
    }

    /// Adds a tool call: its head, then its arguments in several deltas.
    #[must_use]
    pub fn call(mut self, call: &Call) -> Self {
        let index = self.calls;
        self.calls += 1;
        let head = json!({"index": index, "id": call.id, "type": "function",
            "function": {"name": call.name, "arguments": ""}});
        let answer = self.delta(&json!({"tool_calls": [head]}));
        pieces(&call.arguments).into_iter().fold(answer, |answer, piece| {
            answer.delta(&json!({"tool_calls": [{"index": index, "function": {"arguments": piece}}]}))
        })
    }

    /// Adds one chunk with this `delta`, whatever it is.
    #[must_use]
    pub fn delta(self, delta: &Value) -> Self {
        self.data(
            &chunk(&json!([{"index": 0, "delta": delta, "finish_reason": null}]), &Value::Null).to_string(),
        )
    }

    /// Adds one SSE event with this data.
    #[must_use]
    pub fn data(self, data: &str) -> Self {
        self.bytes(format!("data: {data}\n\n"))
    }

    /// Adds these bytes as a write of their own.
    #[must_use]
    pub fn bytes(self, bytes: impl Into<Bytes>) -> Self {
        self.step(Step::Chunk(bytes.into()))
    }

    /// Waits here for the test.
    #[must_use]
    pub fn wait(self, gate: &Gate) -> Self {
        self.step(Step::Wait(gate.clone()))
    }

    /// Marks the gate as reached when this body is dropped: the client has gone, or all was sent.
    #[must_use]
    pub fn on_close(self, gate: &Gate) -> Self {
        self.step(Step::OnClose(gate.clone()))
    }

    /// Waits here for this long.
    #[must_use]
    pub fn delay(self, pause: Duration) -> Self {
        self.step(Step::Delay(pause))
    }

    /// Adds any step.
    #[must_use]
    pub fn step(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// The tokens that [`Answer::done`] reports; 10 in and 5 out unless told.
    #[must_use]
    pub fn usage(mut self, input: u64, cached: u64, output: u64, reasoning: u64) -> Self {
        self.usage = json!({
            "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output,
            "prompt_tokens_details": {"cached_tokens": cached},
            "completion_tokens_details": {"reasoning_tokens": reasoning},
        });
        self
    }

    /// Ends well: the finish reason, the usage, `[DONE]`.
    #[must_use]
    pub fn done(self) -> Self {
        let reason = if self.calls > 0 { "tool_calls" } else { "stop" };
        self.done_because(reason)
    }

    /// Ends well, with this finish reason.
    #[must_use]
    pub fn done_because(self, reason: &str) -> Self {
        let finish = chunk(&json!([{"index": 0, "delta": {}, "finish_reason": reason}]), &Value::Null);
        let usage = chunk(&json!([]), &self.usage);
        self.data(&finish.to_string()).data(&usage.to_string()).data("[DONE]")
    }

    /// Ends by never going on.
    #[must_use]
    pub fn stall(self) -> Self {
        self.step(Step::Stall)
    }

    /// Ends with RST.
    #[must_use]
    pub fn reset(self) -> Self {
        self.step(Step::Reset)
    }

    /// Ends with a connection closed in mid-body.
    #[must_use]
    pub fn close(self) -> Self {
        self.step(Step::Close)
    }

    /// A header beside the content type.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Waits this long before the head.
    #[must_use]
    pub fn with_head_delay(mut self, pause: Duration) -> Self {
        self.head_delay = pause;
        self
    }

    /// Cuts the bytes of all chunks anew, at these sizes in turn; waits and ends stay where they were.
    ///
    /// # Panics
    /// When a size is zero or there is none.
    #[must_use]
    pub fn cut_at(mut self, sizes: &[usize]) -> Self {
        assert!(!sizes.is_empty() && sizes.iter().all(|size| *size > 0), "sizes must be positive");
        let mut sizes = sizes.iter().copied().cycle();
        let mut steps = Vec::new();
        for step in std::mem::take(&mut self.steps) {
            let Step::Chunk(mut chunk) = step else {
                steps.push(step);
                continue;
            };
            while !chunk.is_empty() {
                let size = sizes.next().unwrap_or(1).min(chunk.len());
                steps.push(Step::Chunk(chunk.split_to(size)));
            }
        }
        self.steps = steps;
        self
    }

    pub(super) fn resets_at_once(&self) -> bool {
        matches!(self.steps.first(), Some(Step::Reset))
    }
}

fn chunk(choices: &Value, usage: &Value) -> Value {
    json!({"id": "chatcmpl-scripted", "object": "chat.completion.chunk", "created": 0, "model": "scripted",
        "choices": choices, "usage": usage})
}

fn pieces(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    chars.chunks(DELTA_CHARS_MAX).map(|piece| piece.iter().collect()).collect()
}
