//! The stream of one answer as a state machine over bytes: fed in pieces cut anywhere, it yields the same
//! events. It does no I/O and knows no clock, and it never calls an answer whole that was not declared so.

use std::collections::VecDeque;

use palisade_protocol::{
    Usage,
    limits::{MODEL_ANSWER_BYTES_MAX, UPSTREAM_EVENT_BYTES_MAX, UPSTREAM_STREAM_BYTES_MAX},
};
use serde_json::Value;

use super::{
    calls::{CallFault, CallTable},
    wire,
};
use crate::{
    CallIds, FinishReason, InferenceError, ModelEvent, TransportError,
    error::presentable,
    sse::{EventTooLong, SseDecoder, SseEvent},
};

/// What the parser yields: events, and at most one error, which is the last.
pub type Yield = Vec<Result<ModelEvent, InferenceError>>;

/// One answer being read.
#[derive(Debug)]
pub struct ChatStream {
    upstream: String,
    sse: SseDecoder,
    calls: CallTable,
    usage: Option<Usage>,
    finish: Option<FinishReason>,
    first_byte: Option<u8>,
    stream_bytes: u64,
    answer_bytes: usize,
    has_events: bool,
    has_ended: bool,
}

impl ChatStream {
    /// A parser for one answer of this upstream; its name is for errors.
    pub fn new(upstream: impl Into<String>, ids: CallIds) -> Self {
        Self {
            upstream: upstream.into(),
            sse: SseDecoder::new(UPSTREAM_EVENT_BYTES_MAX),
            calls: CallTable::new(ids),
            usage: None,
            finish: None,
            first_byte: None,
            stream_bytes: 0,
            answer_bytes: 0,
            has_events: false,
            has_ended: false,
        }
    }

    /// Takes in the next piece of the body.
    pub fn feed(&mut self, bytes: &[u8]) -> Yield {
        self.run(|parser, out| {
            parser.admit(bytes)?;
            let events = parser.sse.feed(bytes).map_err(|EventTooLong| parser.event_too_long())?;
            for event in events {
                parser.read_event(&event, out)?;
            }
            Ok(())
        })
    }

    /// The body has ended as bodies should.
    pub fn finish(&mut self) -> Yield {
        self.run(|parser, out| {
            let last = parser.sse.finish().map_err(|EventTooLong| parser.event_too_long())?;
            if let Some(event) = last {
                // Without its blank line an event may be cut short; one that does not parse is no fault then.
                if event.data.trim() == "[DONE]" || serde_json::from_str::<Value>(&event.data).is_ok() {
                    parser.read_event(&event, out)?;
                }
            }
            match parser.finish {
                _ if parser.has_ended => Ok(()),
                // Some servers send no [DONE]; a finish reason is a declared end as well.
                Some(_) => parser.end(out),
                None if !parser.has_events && parser.first_byte == Some(b'{') => {
                    Err(parser.bad_answer("answered a JSON document in place of a stream"))
                }
                None => Err(InferenceError::Truncated { upstream: parser.upstream.clone(), source: None }),
            }
        })
    }

    /// The connection broke. An answer that was declared finished and counted is whole all the same.
    pub fn broken(&mut self, source: TransportError) -> Yield {
        self.run(|parser, out| match (parser.finish, parser.usage) {
            (Some(_), Some(_)) => parser.end(out),
            _ => Err(InferenceError::Truncated { upstream: parser.upstream.clone(), source: Some(source) }),
        })
    }

    /// What the upstream has counted so far, once: for an answer that broke off, which yields no count itself.
    pub fn take_usage(&mut self) -> Option<Usage> {
        self.usage.take()
    }

    /// Whether a finish reason has come, after which only the count and the end are still due.
    pub fn is_declared_finished(&self) -> bool {
        self.finish.is_some()
    }

    /// Whether the last event or an error was yielded; whatever is fed now is ignored.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// One error ends the stream, and nothing follows the end.
    fn run(
        &mut self,
        step: impl FnOnce(&mut Self, &mut VecDeque<ModelEvent>) -> Result<(), InferenceError>,
    ) -> Yield {
        if self.has_ended {
            return Vec::new();
        }
        let mut out = VecDeque::new();
        let outcome = step(self, &mut out);
        let mut yielded: Yield = out.into_iter().map(Ok).collect();
        if let Err(error) = outcome {
            self.has_ended = true;
            yielded.push(Err(error));
        }
        yielded
    }

    fn admit(&mut self, bytes: &[u8]) -> Result<(), InferenceError> {
        self.stream_bytes = self.stream_bytes.saturating_add(bytes.len() as u64);
        if self.stream_bytes > UPSTREAM_STREAM_BYTES_MAX {
            return Err(self.over_limit("a stream", UPSTREAM_STREAM_BYTES_MAX));
        }
        if self.first_byte.is_none() {
            self.first_byte = bytes.iter().copied().find(|byte| !byte.is_ascii_whitespace());
        }
        // No event stream begins so, and waiting for its end would call a web page a cut stream.
        if self.first_byte == Some(b'<') {
            return Err(self.bad_answer("answered a web page in place of a stream; is its base_url right?"));
        }
        Ok(())
    }

    fn read_event(&mut self, event: &SseEvent, out: &mut VecDeque<ModelEvent>) -> Result<(), InferenceError> {
        if self.has_ended {
            return Ok(());
        }
        self.has_events = true;
        let data = event.data.trim();
        match data {
            "" => return Ok(()),
            "[DONE]" => return self.end(out),
            _ => {}
        }
        let chunk: Value = match serde_json::from_str(data) {
            Ok(chunk @ Value::Object(_)) => chunk,
            _ if event.name == "error" => Value::from(data),
            _ => return Err(self.bad_answer("sent an event that is not a JSON object")),
        };
        self.check_for_error(&event.name, &chunk)?;
        if let Some(usage) = wire::usage(&chunk) {
            // Servers that count on every chunk count from the start each time: the last one stands.
            self.usage = Some(usage);
        }
        match wire::first_choice(&chunk) {
            Some(choice) => self.read_choice(choice, out),
            None => Ok(()),
        }
    }

    fn check_for_error(&self, event_name: &str, chunk: &Value) -> Result<(), InferenceError> {
        let said = wire::error(chunk).or_else(|| {
            let message = chunk.as_str().map(str::to_owned).or_else(|| wire::error_message(chunk));
            (event_name == "error").then(|| (message.unwrap_or_default(), None))
        });
        match said {
            None => Ok(()),
            Some((message, status)) => Err(self.upstream_error(&message, status)),
        }
    }

    fn read_choice(&mut self, choice: &Value, out: &mut VecDeque<ModelEvent>) -> Result<(), InferenceError> {
        let delta = wire::delta(choice);
        let (reasoning, content) = (wire::reasoning(delta), wire::content(delta));
        self.count(reasoning.len() + content.len())?;
        if !reasoning.is_empty() {
            out.push_back(ModelEvent::ReasoningDelta(reasoning));
        }
        if !content.is_empty() {
            out.push_back(ModelEvent::TextDelta(content));
        }
        for piece in delta["tool_calls"].as_array().into_iter().flatten() {
            let events = self.calls.add(piece).map_err(|fault| self.call_fault(&fault))?;
            for event in events {
                if let ModelEvent::CallDelta { arguments, .. } = &event {
                    self.count(arguments.len())?;
                }
                out.push_back(event);
            }
        }
        match wire::text(choice, "finish_reason") {
            "" => {}
            // A failure within an answer that some routers report as a reason to stop.
            "error" => return Err(self.upstream_error("the answer was broken off", None)),
            reason => self.finish = Some(finish_reason(reason)),
        }
        Ok(())
    }

    fn count(&mut self, bytes: usize) -> Result<(), InferenceError> {
        self.answer_bytes = self.answer_bytes.saturating_add(bytes);
        if self.answer_bytes > MODEL_ANSWER_BYTES_MAX {
            return Err(self.over_limit("an answer", MODEL_ANSWER_BYTES_MAX as u64));
        }
        Ok(())
    }

    fn end(&mut self, out: &mut VecDeque<ModelEvent>) -> Result<(), InferenceError> {
        let bare = self.calls.finish().map_err(|fault| self.call_fault(&fault))?;
        let has_calls = !self.calls.is_empty();
        let finish = match self.finish {
            // Some servers send no reason, and some say "stop" after calls.
            None | Some(FinishReason::Stop | FinishReason::ToolCalls) if has_calls => FinishReason::ToolCalls,
            None | Some(FinishReason::Stop | FinishReason::ToolCalls) => FinishReason::Stop,
            Some(reason @ (FinishReason::Length | FinishReason::ContentFilter)) => reason,
        };
        if finish == FinishReason::ToolCalls {
            out.extend(bare);
        }
        out.extend(self.usage.map(ModelEvent::Usage));
        out.push_back(ModelEvent::Done { finish });
        self.has_ended = true;
        Ok(())
    }

    fn upstream_error(&self, message: &str, status: Option<u16>) -> InferenceError {
        let upstream = self.upstream.clone();
        match status {
            Some(status @ (401 | 403)) => InferenceError::Refused { upstream, status },
            Some(429) => InferenceError::RateLimited { upstream, retry_after_s: None },
            _ => InferenceError::Upstream { upstream, status, message: presentable(message) },
        }
    }

    fn bad_answer(&self, what: &str) -> InferenceError {
        InferenceError::BadAnswer { upstream: self.upstream.clone(), what: what.to_owned() }
    }

    fn over_limit(&self, what: &'static str, max: u64) -> InferenceError {
        InferenceError::OverLimit { upstream: self.upstream.clone(), what, max }
    }

    fn event_too_long(&self) -> InferenceError {
        self.over_limit("an event", UPSTREAM_EVENT_BYTES_MAX as u64)
    }

    fn call_fault(&self, fault: &CallFault) -> InferenceError {
        match fault {
            CallFault::TooMany => {
                self.over_limit("tool calls", palisade_protocol::limits::CALLS_PER_ANSWER_MAX as u64)
            }
            CallFault::Stray => self.bad_answer("sent arguments that belong to no tool call"),
            CallFault::Nameless => self.bad_answer("sent a tool call without a name"),
        }
    }
}

fn finish_reason(reason: &str) -> FinishReason {
    match reason {
        "tool_calls" | "function_call" | "tool_use" => FinishReason::ToolCalls,
        "length" | "max_tokens" | "model_length" => FinishReason::Length,
        "content_filter" => FinishReason::ContentFilter,
        // "stop" by any other name: servers have words of their own for a plain end.
        _ => FinishReason::Stop,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_ends_at_its_limit_however_little_it_says() {
        let mut parser = ChatStream::new("up", CallIds::beside(&[]));
        let comment = b": keep-alive\n\n";
        parser.stream_bytes = UPSTREAM_STREAM_BYTES_MAX - comment.len() as u64;
        assert!(parser.feed(comment).is_empty(), "exactly the limit");
        let yielded = parser.feed(b":");
        assert!(
            matches!(&yielded[..], [Err(InferenceError::OverLimit { what: "a stream", .. })]),
            "{yielded:?}"
        );
    }
}
