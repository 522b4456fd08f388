//! From a model's name to a stream of its words: the upstreams in their order, retries, fallbacks, deadlines.
//! Nothing is tried again once an event was handed out: the reader has it, and a second answer would differ.

use std::{
    collections::VecDeque,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use http::{
    HeaderMap, HeaderValue,
    header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE},
};
use palisade_protocol::{
    Prompt,
    limits::{UPSTREAM_RETRIES_MAX, UPSTREAM_RETRY_AFTER_MAX_S},
};
use tokio::time::{sleep, timeout};

use crate::{
    CallIds, Catalog, Dialect, InferenceError, Model, ModelEvent, Transport, TransportFault, Tried, Upstream,
    UpstreamCall, UpstreamResponse, WaitedFor,
    call_id::random_u64,
    head::accepted,
    openai_chat::{self, ChatStream},
};

/// How long the router waits, and for what.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// From sending a call to the head of its answer.
    pub head: Duration,
    /// Between two pieces of a stream; keep-alive comments count as pieces.
    pub idle: Duration,
    /// For `[DONE]` after a finish reason: some upstreams never send it, nor close.
    pub after_finish: Duration,
    /// For everything together, retries included: what keep-alive comments cannot prolong.
    pub whole: Duration,
    /// The pause before the first retry; it doubles, and a random part of up to half is taken off.
    pub backoff: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(60),
            idle: Duration::from_secs(120),
            after_finish: Duration::from_secs(5),
            whole: Duration::from_secs(20 * 60),
            backoff: Duration::from_millis(250),
        }
    }
}

/// One answer as it comes. An error is the last item; without one, [`ModelEvent::Done`] is. Dropping the stream
/// cancels the call.
pub type ModelStream = BoxStream<'static, Result<ModelEvent, InferenceError>>;

/// Turns model names into streams. Cheap to clone.
#[derive(Clone)]
pub struct Router {
    catalog: Arc<Catalog>,
    transport: Arc<dyn Transport>,
    timeouts: Timeouts,
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router").field("catalog", &self.catalog).finish_non_exhaustive()
    }
}

impl Router {
    /// A router over these models.
    pub fn new(catalog: Catalog, transport: Arc<dyn Transport>, timeouts: Timeouts) -> Self {
        Self { catalog: Arc::new(catalog), transport, timeouts }
    }

    /// The models it knows.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Asks a model; its calls get their ids from `call_ids`. Nothing is sent before the stream is first polled.
    pub fn stream(&self, model: &str, prompt: &Prompt, call_ids: CallIds) -> ModelStream {
        let Some(model) = self.catalog.model(model) else {
            let unknown = InferenceError::UnknownModel { model: model.to_owned() };
            return stream::iter([Err(unknown)]).boxed();
        };
        let ask = Ask {
            transport: Arc::clone(&self.transport),
            timeouts: self.timeouts,
            body: openai_chat::request_body(&model.upstream_model, prompt).to_string().into(),
            call_ids,
            model: Arc::clone(model),
        };
        stream::unfold(Phase::Asking(Box::new(ask)), next_event).boxed()
    }
}

/// One question to a model, as often as it takes.
struct Ask {
    transport: Arc<dyn Transport>,
    timeouts: Timeouts,
    model: Arc<Model>,
    body: Bytes,
    call_ids: CallIds,
}

/// An answer that has begun.
struct Answer {
    response: UpstreamResponse,
    parser: ChatStream,
    pending: VecDeque<Result<ModelEvent, InferenceError>>,
    upstream: String,
    timeouts: Timeouts,
    deadline: Instant,
}

enum Phase {
    Asking(Box<Ask>),
    Answering(Box<Answer>),
    Ended,
}

async fn next_event(phase: Phase) -> Option<(Result<ModelEvent, InferenceError>, Phase)> {
    let mut answer = match phase {
        Phase::Ended => return None,
        Phase::Answering(answer) => answer,
        Phase::Asking(ask) => match ask.first_answer().await {
            Ok(answer) => Box::new(answer),
            Err(error) => return Some((Err(error), Phase::Ended)),
        },
    };
    let event = answer.next().await?;
    let is_last = matches!(event, Err(_) | Ok(ModelEvent::Done { .. }));
    Some((event, if is_last { Phase::Ended } else { Phase::Answering(answer) }))
}

/// What a failure before the first event leads to.
enum Next {
    Retry { after: Option<Duration> },
    Fallback,
    GiveUp,
}

impl Ask {
    /// Goes through the upstreams until one has yielded an event.
    async fn first_answer(&self) -> Result<Answer, InferenceError> {
        let deadline = Instant::now() + self.timeouts.whole;
        let mut tried: Vec<Tried> = Vec::new();
        for upstream in &self.model.upstreams {
            let mut attempts = 0;
            let (failure, is_final) = loop {
                attempts += 1;
                let failure = match self.attempt(upstream, deadline).await {
                    Ok(answer) => return Ok(answer),
                    Err(failure) => failure,
                };
                let backoff = jittered(self.timeouts.backoff, attempts);
                let pause = match next_after(&failure) {
                    Next::GiveUp => break (failure, true),
                    Next::Fallback => break (failure, false),
                    Next::Retry { .. } if attempts > UPSTREAM_RETRIES_MAX => break (failure, false),
                    Next::Retry { after } => after.unwrap_or_default().max(backoff),
                };
                if Instant::now() + pause >= deadline {
                    break (failure, false);
                }
                tracing::warn!(upstream = upstream.name, attempts, code = failure.code(), %failure, "retrying a model call");
                sleep(pause).await;
            };
            if is_final {
                tried.push(Tried { attempts, failure });
                break;
            }
            tracing::warn!(upstream = upstream.name, attempts, code = failure.code(), %failure, "giving up an upstream");
            tried.push(Tried { attempts, failure });
        }
        Err(self.exhausted(tried))
    }

    /// One plain failure is itself; more than one attempt is told as a list.
    fn exhausted(&self, mut tried: Vec<Tried>) -> InferenceError {
        match tried.pop() {
            Some(Tried { attempts: 1, failure }) if tried.is_empty() => failure,
            last => {
                tried.extend(last);
                InferenceError::Exhausted { model: self.model.name.clone(), tried }
            }
        }
    }

    /// One call to one upstream, up to its first event.
    async fn attempt(&self, upstream: &Upstream, deadline: Instant) -> Result<Answer, InferenceError> {
        let response = self.send(upstream, deadline).await?;
        let response = accepted(&upstream.name, response, self.timeouts.head).await?;
        let parser = match upstream.dialect {
            Dialect::OpenAiChat => ChatStream::new(upstream.name.clone(), self.call_ids.clone()),
        };
        let mut answer = Answer {
            response,
            parser,
            pending: VecDeque::new(),
            upstream: upstream.name.clone(),
            timeouts: self.timeouts,
            deadline,
        };
        answer.fill().await;
        match answer.pending.pop_front() {
            Some(Err(failure)) => Err(failure),
            Some(Ok(first)) => {
                answer.pending.push_front(Ok(first));
                Ok(answer)
            }
            None => Err(InferenceError::Truncated { upstream: upstream.name.clone(), source: None }),
        }
    }

    async fn send(&self, upstream: &Upstream, deadline: Instant) -> Result<UpstreamResponse, InferenceError> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        // A compressed stream would arrive in lumps, and nothing here unpacks one.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let call = UpstreamCall {
            upstream: upstream.name.clone(),
            url: upstream.url.clone(),
            headers,
            body: self.body.clone(),
            credential: upstream.credential.clone(),
        };
        let name = || upstream.name.clone();
        let (limit, waited_for) = sooner(self.timeouts.head, WaitedFor::Head, deadline, self.timeouts.whole);
        match timeout(limit.wait, self.transport.send(call)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(source)) => Err(match source.fault {
                TransportFault::Unsendable => InferenceError::Misconfigured { upstream: name(), source },
                TransportFault::BadAnswer => {
                    InferenceError::BadAnswer { upstream: name(), what: source.to_string() }
                }
                TransportFault::Connect | TransportFault::Broken => {
                    InferenceError::Unreachable { upstream: name(), source }
                }
            }),
            Err(_) => Err(InferenceError::Timeout { upstream: name(), waited_for, limit_ms: limit.told_ms }),
        }
    }
}

impl Answer {
    /// The next event. Before the error of an answer that had begun comes its count, if the upstream has told one: that
    /// much it charges for.
    async fn next(&mut self) -> Option<Result<ModelEvent, InferenceError>> {
        self.fill().await;
        let next = self.pending.pop_front()?;
        if next.is_err()
            && let Some(usage) = self.parser.take_usage()
        {
            self.pending.push_front(next);
            return Some(Ok(ModelEvent::Usage(usage)));
        }
        Some(next)
    }

    /// Reads until there is something to hand on, or nothing more to come.
    async fn fill(&mut self) {
        while self.pending.is_empty() && !self.parser.has_ended() {
            let is_finished = self.parser.is_declared_finished();
            let idle = if is_finished {
                self.timeouts.after_finish.min(self.timeouts.idle)
            } else {
                self.timeouts.idle
            };
            let (limit, waited_for) = sooner(idle, WaitedFor::Chunk, self.deadline, self.timeouts.whole);
            let yielded = match timeout(limit.wait, self.response.body.next()).await {
                Ok(Some(Ok(bytes))) => self.parser.feed(&bytes),
                Ok(Some(Err(source))) => self.parser.broken(source),
                Ok(None) => self.parser.finish(),
                Err(_) if is_finished => self.parser.finish(),
                Err(_) => {
                    let upstream = self.upstream.clone();
                    let late = InferenceError::Timeout { upstream, waited_for, limit_ms: limit.told_ms };
                    self.pending.push_back(Err(late));
                    return;
                }
            };
            self.pending.extend(yielded);
        }
    }
}

struct Limit {
    wait: Duration,
    told_ms: u64,
}

/// The nearer of a wait of its own and what is left of the whole; and what to say if it runs out.
fn sooner(own: Duration, own_name: WaitedFor, deadline: Instant, whole: Duration) -> (Limit, WaitedFor) {
    let left = deadline.saturating_duration_since(Instant::now());
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if own <= left {
        (Limit { wait: own, told_ms: millis(own) }, own_name)
    } else {
        (Limit { wait: left, told_ms: millis(whole) }, WaitedFor::End)
    }
}

fn next_after(failure: &InferenceError) -> Next {
    match failure {
        InferenceError::Unreachable { .. } | InferenceError::Truncated { .. } => Next::Retry { after: None },
        InferenceError::RateLimited { retry_after_s: Some(after_s), .. } => {
            if *after_s > UPSTREAM_RETRY_AFTER_MAX_S {
                return Next::Fallback;
            }
            Next::Retry { after: Some(Duration::from_secs(*after_s)) }
        }
        InferenceError::RateLimited { retry_after_s: None, .. }
        | InferenceError::Upstream { status: Some(408 | 500..), .. } => Next::Retry { after: None },
        // What one upstream does not have, another may; it was configured for that.
        InferenceError::Upstream { status: None | Some(404), .. }
        | InferenceError::Refused { .. }
        | InferenceError::Misconfigured { .. }
        | InferenceError::BadAnswer { .. }
        | InferenceError::OverLimit { .. } => Next::Fallback,
        InferenceError::Timeout { waited_for, .. } => match waited_for {
            WaitedFor::Head | WaitedFor::Chunk => Next::Fallback,
            WaitedFor::End => Next::GiveUp,
        },
        // Any other status says that the request itself is at fault.
        InferenceError::Upstream { status: Some(_), .. }
        | InferenceError::UnknownModel { .. }
        | InferenceError::Exhausted { .. } => Next::GiveUp,
    }
}

/// Doubled per attempt, less a random part of up to half, so that callers who failed together come back apart.
fn jittered(backoff: Duration, attempts: u32) -> Duration {
    let full = backoff.saturating_mul(1 << attempts.saturating_sub(1).min(8));
    let permille = 500 + u32::try_from(random_u64() % 501).unwrap_or(500);
    full.saturating_mul(permille) / 1000
}
