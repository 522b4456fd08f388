//! A scripted upstream: a real HTTP server on loopback that speaks the chat-completions stream as told, well
//! or badly. It must never talk to anything but loopback, and it never guesses: with no script left it says so.
//!
//! Answers come from a queue, and when the queue is empty from a closure over the request (for load tests and
//! agents), and when there is none from a 500 whose message is "script is empty".

use std::{
    collections::VecDeque,
    fmt, io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::timeout,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

pub use answer::{Answer, Call, Gate, Step};

use answer::ReachOnDrop;

mod answer;

/// A request body beyond this is refused; prompts of tests are far smaller.
const REQUEST_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Requests remembered; a longer test should use a closure and count for itself.
const REQUESTS_MAX: usize = 10_000;
/// Connections held open at a time.
const CONNECTIONS_MAX: usize = 1_024;
/// How long [`ScriptedUpstream::wait_for_requests`] waits before it fails the test.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// One request as it arrived.
#[derive(Debug, Clone)]
pub struct RecordedRequest {
    /// `POST` for every model call.
    pub method: Method,
    /// The path, such as `/v1/chat/completions`.
    pub path: String,
    /// Every header, `authorization` included.
    pub headers: HeaderMap,
    /// The body; `Null` when it is not JSON.
    pub json: Value,
}

impl RecordedRequest {
    /// One header as text; empty when absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

type Responder = dyn Fn(&RecordedRequest) -> Answer + Send + Sync;

/// The server. Dropping it ends the listener and every connection.
pub struct ScriptedUpstream {
    address: SocketAddr,
    state: Arc<State>,
    _stop: DropGuard,
}

struct State {
    script: Mutex<Script>,
    requests: Mutex<Vec<RecordedRequest>>,
    seen: watch::Sender<usize>,
}

#[derive(Default)]
struct Script {
    queue: VecDeque<Answer>,
    responder: Option<Arc<Responder>>,
}

impl fmt::Debug for ScriptedUpstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedUpstream").field("address", &self.address).finish_non_exhaustive()
    }
}

impl ScriptedUpstream {
    /// Listens on a free loopback port with an empty script.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            script: Mutex::default(),
            requests: Mutex::default(),
            seen: watch::Sender::new(0),
        });
        let stop = CancellationToken::new();
        // Nobody waits for the tracker: the token ends the accept loop, and the loop's JoinSet its connections.
        TaskTracker::new().spawn({
            let (state, stop) = (Arc::clone(&state), stop.clone());
            async move {
                stop.run_until_cancelled_owned(accept_connections(listener, state)).await;
            }
        });
        Ok(Self { address, state, _stop: stop.drop_guard() })
    }

    /// What to configure as `base_url`: `http://127.0.0.1:<port>/v1`.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Appends an answer to the script.
    pub fn push(&self, answer: Answer) {
        locked(&self.state.script).queue.push_back(answer);
    }

    /// Appends several answers to the script.
    pub fn push_all(&self, answers: impl IntoIterator<Item = Answer>) {
        locked(&self.state.script).queue.extend(answers);
    }

    /// Answers whatever the queue does not: a small program in place of a script.
    pub fn respond_with(&self, responder: impl Fn(&RecordedRequest) -> Answer + Send + Sync + 'static) {
        locked(&self.state.script).responder = Some(Arc::new(responder));
    }

    /// Scripted answers that nobody asked for yet.
    pub fn answers_left(&self) -> usize {
        locked(&self.state.script).queue.len()
    }

    /// Everything asked so far, in order of arrival.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        locked(&self.state.requests).clone()
    }

    /// Waits until at least `count` requests arrived and returns them all.
    ///
    /// # Panics
    /// When they do not arrive in 30 s, saying how many did.
    #[expect(clippy::panic, reason = "a test tool: failing the test is its purpose")]
    pub async fn wait_for_requests(&self, count: usize) -> Vec<RecordedRequest> {
        let mut seen = self.state.seen.subscribe();
        let arrived = timeout(WAIT_MAX, seen.wait_for(|seen| *seen >= count)).await;
        if arrived.is_err() {
            panic!("waited for {count} upstream requests, saw {}", self.requests().len());
        }
        drop(arrived);
        self.requests()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A test that panicked elsewhere must not turn every later look into a second panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept_connections(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(serve_connection(stream, Arc::clone(&state)));
                }
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn serve_connection(stream: TcpStream, state: Arc<State>) {
    // A chunk is one write; Nagle would merge what the script took apart.
    let _ = stream.set_nodelay(true);
    // A second descriptor of the same socket, so that a step can set SO_LINGER while hyper owns the first.
    let Ok(stream) = stream.into_std() else { return };
    let Ok(twin) = stream.try_clone() else { return };
    let Ok(stream) = TcpStream::from_std(stream) else { return };
    let twin = Arc::new(Mutex::new(Some(twin)));
    let service = service_fn(|request| answer_request(request, Arc::clone(&state), Arc::clone(&twin)));
    let _ = hyper::server::conn::http1::Builder::new()
        .pipeline_flush(true)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

type Twin = Arc<Mutex<Option<std::net::TcpStream>>>;

async fn answer_request(
    request: Request<Incoming>,
    state: Arc<State>,
    twin: Twin,
) -> Result<Response<UnsyncBoxBody<Bytes, io::Error>>, io::Error> {
    let (parts, body) = request.into_parts();
    let body = Limited::new(body, REQUEST_BYTES_MAX).collect().await.map_err(io::Error::other)?.to_bytes();
    let request = RecordedRequest {
        method: parts.method,
        path: parts.uri.path().to_owned(),
        headers: parts.headers,
        json: serde_json::from_slice(&body).unwrap_or(Value::Null),
    };
    let answer = next_answer(&state, request);
    if answer.resets_at_once() {
        reset_socket(&twin);
        return Err(io::Error::other("reset before the head"));
    }
    if !answer.head_delay.is_zero() {
        tokio::time::sleep(answer.head_delay).await;
    }
    if answer.stalls_at_once {
        std::future::pending::<()>().await;
    }
    let mut response =
        Response::builder().status(answer.status).header(CONTENT_TYPE, answer.content_type.as_str());
    for (name, value) in &answer.headers {
        response = response.header(name, value);
    }
    response.body(play_steps(answer.steps, twin)).map_err(io::Error::other)
}

fn next_answer(state: &State, request: RecordedRequest) -> Answer {
    let (queued, responder) = {
        let mut script = locked(&state.script);
        (script.queue.pop_front(), script.responder.clone())
    };
    let answer = queued
        .or_else(|| responder.map(|respond| respond(&request)))
        .unwrap_or_else(|| Answer::http_error(StatusCode::INTERNAL_SERVER_ERROR, "script is empty"));
    let mut requests = locked(&state.requests);
    if requests.len() < REQUESTS_MAX {
        requests.push(request);
    }
    drop(requests);
    state.seen.send_modify(|seen| *seen += 1);
    answer
}

/// What is left of an answer's body.
struct Play {
    steps: VecDeque<Step>,
    twin: Twin,
    on_close: Vec<ReachOnDrop>,
}

/// The body of an answer: each step waits for its turn, so that what is written when is up to the script.
fn play_steps(steps: Vec<Step>, twin: Twin) -> UnsyncBoxBody<Bytes, io::Error> {
    let play = Play { steps: steps.into(), twin, on_close: Vec::new() };
    let frames = futures_util::stream::unfold(Some(play), async |play| {
        let mut play = play?;
        let outcome = next_write(&mut play).await?;
        let rest = outcome.is_ok().then_some(play);
        Some((outcome.map(Frame::data), rest))
    });
    BodyExt::boxed_unsync(StreamBody::new(frames))
}

/// Plays steps up to the next write, or to the end: `None` for a good one, an error for a bad one.
async fn next_write(play: &mut Play) -> Option<Result<Bytes, io::Error>> {
    loop {
        let chunk = match play.steps.pop_front()? {
            Step::Chunk(chunk) => chunk,
            Step::Repeat { chunk, every } => {
                if !every.is_zero() {
                    tokio::time::sleep(every).await;
                }
                play.steps.push_front(Step::Repeat { chunk: chunk.clone(), every });
                chunk
            }
            Step::Delay(pause) => {
                tokio::time::sleep(pause).await;
                continue;
            }
            Step::Wait(gate) => {
                // Pending once before the gate: hyper flushes what it holds, then the gate counts as reached.
                tokio::task::yield_now().await;
                gate.opened().await;
                continue;
            }
            Step::OnClose(gate) => {
                play.on_close.push(ReachOnDrop(gate));
                continue;
            }
            Step::Stall => std::future::pending().await,
            Step::Close => {
                tokio::task::yield_now().await;
                return Some(Err(io::Error::other("closed by the script")));
            }
            Step::Reset => {
                tokio::task::yield_now().await;
                reset_socket(&play.twin);
                return Some(Err(io::Error::other("reset by the script")));
            }
        };
        if !chunk.is_empty() {
            // Pending once: hyper flushes what it holds before it asks for more.
            tokio::task::yield_now().await;
            return Some(Ok(chunk));
        }
    }
}

/// Closing a socket whose linger time is zero sends RST in place of FIN.
fn reset_socket(twin: &Twin) {
    if let Some(socket) = locked(twin).take() {
        let _ = rustix::net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO));
    }
}
