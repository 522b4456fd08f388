//! The listener: takes connections, serves them, and lets the running ones end when told to stop. It must never let a
//! client that says nothing hold a connection, nor all clients together more of them than the process can open.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::service::Service as _;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use palisade_protocol::limits;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A reader that takes nothing for so long is gone (decision 33), in milliseconds.
const STALLED_READER_MS: u32 = 120_000;
/// What a connection may hold of a request's head, and of an answer that its reader does not take.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// How long connections may take to end after the stop.
const GRACE: Duration = Duration::from_secs(10);
/// How long nothing is accepted after the system had no descriptor left, in milliseconds.
const ACCEPT_PAUSE_MS: u64 = 500;

/// What clients may take of this listener.
#[derive(Clone, Copy)]
struct Allowance {
    /// How long a request's head may take, from the connection or from the request before.
    head: Duration,
    /// Connections at a time; further ones wait in the system's queue.
    connections: usize,
}

/// Serves until `stop` completes, then for at most ten seconds more.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let allowance =
        Allowance { head: Duration::from_secs(limits::REQUEST_HEAD_MAX_S), connections: connections_max() };
    serve_within(listener, router, stop, allowance).await;
    Ok(())
}

/// The written limit, or half of what the process may open: files and sandboxes need descriptors too.
fn connections_max() -> usize {
    let open_files_max = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let half = open_files_max.and_then(|max| usize::try_from(max / 2).ok()).unwrap_or(usize::MAX);
    limits::CONNECTIONS_MAX.min(half).max(1)
}

async fn serve_within(
    listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()>,
    allowance: Allowance,
) {
    let slots = Arc::new(Semaphore::new(allowance.connections));
    let (connections, stopping) = (TaskTracker::new(), CancellationToken::new());
    let mut stop = pin!(stop);
    loop {
        let accepted = async {
            // Before accepting, so that a connection that cannot be served is not begun.
            let slot = Arc::clone(&slots).acquire_owned().await;
            (listener.accept().await, slot)
        };
        let (accepted, slot) = tokio::select! {
            () = &mut stop => break,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let serving = serve_connection(stream, router.clone(), stopping.clone(), allowance.head);
                connections.spawn(async move {
                    serving.await;
                    drop(slot);
                });
            }
            Err(error) if is_of_the_client(&error) => {}
            Err(error) => {
                tracing::error!(%error, "no connection could be accepted");
                tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
            }
        }
    }
    // Closed first: who connects from here on is refused, and not left to wait.
    drop(listener);
    stopping.cancel();
    connections.close();
    if tokio::time::timeout(GRACE, connections.wait()).await.is_err() {
        tracing::warn!(connections = connections.len(), "connections did not end in time and are cut");
    }
}

/// A client that was gone again before it was accepted.
fn is_of_the_client(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// One connection to its end, HTTP/1.1 or HTTP/2, whichever the client begins with.
async fn serve_connection(
    stream: TcpStream,
    router: Router,
    stopping: CancellationToken,
    head_max: Duration,
) {
    prepare(&stream);
    let has_begun = Arc::new(AtomicBool::new(false));
    let routes = TowerToHyperService::new(router);
    let begun = Arc::clone(&has_begun);
    let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        begun.store(true, Ordering::Relaxed);
        let answer = routes.call(request);
        async move { answer.await as Result<Response, Infallible> }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(head_max).max_buf_size(BUFFER_BYTES_MAX);
    // A peer that is gone without a word is noticed by its silence.
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(head_max);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    // The first head has a clock of its own: until it is known which protocol it is, no other one runs.
    let mut first_head = pin!(tokio::time::sleep(head_max));
    let mut is_first_awaited = true;
    let mut is_running = true;
    let ended = loop {
        tokio::select! {
            ended = connection.as_mut() => break ended,
            () = stopping.cancelled(), if is_running => {
                is_running = false;
                connection.as_mut().graceful_shutdown();
            }
            () = first_head.as_mut(), if is_first_awaited => {
                is_first_awaited = false;
                if !has_begun.load(Ordering::Relaxed) {
                    return;
                }
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error, "a connection broke");
    }
}

fn prepare(stream: &TcpStream) {
    // An event is worth a packet of its own.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY was not set");
    }
    if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(stream, STALLED_READER_MS) {
        tracing::debug!(%error, "TCP_USER_TIMEOUT was not set");
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::Notify;
    use tokio::task::JoinSet;

    use super::*;

    const REQUEST: &[u8] = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n";

    /// Answers `/health` at once, and `/slow` when it is told to.
    async fn started(
        allowance: Allowance,
        go: Arc<Notify>,
        stop: CancellationToken,
    ) -> (std::net::SocketAddr, JoinSet<()>) {
        let slow = move || async move {
            go.notified().await;
            "slow"
        };
        let router = Router::new()
            .route("/health", axum::routing::get(async || "well"))
            .route("/slow", axum::routing::get(slow));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut serving = JoinSet::new();
        serving.spawn(serve_within(listener, router, stop.cancelled_owned(), allowance));
        (address, serving)
    }

    async fn to_its_end(stream: &mut TcpStream) -> String {
        let mut all = Vec::new();
        // A reset is an end, too.
        let _ = stream.read_to_end(&mut all).await;
        String::from_utf8_lossy(&all).into_owned()
    }

    #[tokio::test]
    async fn a_head_that_does_not_come_ends_the_connection() {
        let allowance = Allowance { head: Duration::from_millis(200), connections: 10 };
        let (address, _serving) = started(allowance, Arc::default(), CancellationToken::new()).await;
        let mut waiting = Vec::new();
        for said in ["", "GET /hea", "GET /health HTTP/1.1\r\nHost: x\r\n", "PRI * HTTP/2.0\r\n"] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(said.as_bytes()).await.unwrap();
            waiting.push((said, stream));
        }
        for (said, stream) in &mut waiting {
            assert!(!to_its_end(stream).await.contains("200 OK"), "{said:?}");
        }
        // A second request has no more time than the first.
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&[REQUEST, b"GET /hea"].concat()).await.unwrap();
        let answers = to_its_end(&mut stream).await;
        assert_eq!(answers.matches("200 OK").count(), 1, "{answers}");
    }

    #[tokio::test]
    async fn an_answer_may_take_longer_than_a_head() {
        let (head, go) = (Duration::from_millis(50), Arc::new(Notify::new()));
        let allowance = Allowance { head, connections: 10 };
        let (address, _serving) = started(allowance, Arc::clone(&go), CancellationToken::new()).await;
        let mut idle = TcpStream::connect(address).await.unwrap();
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        // Two connections that say nothing, one after the other: their deadlines lie behind the slow one's.
        assert_eq!(to_its_end(&mut idle).await, "");
        assert_eq!(to_its_end(&mut TcpStream::connect(address).await.unwrap()).await, "");
        go.notify_one();
        assert!(to_its_end(&mut slow).await.ends_with("slow"));
    }

    #[tokio::test]
    async fn further_connections_wait_for_their_turn() {
        let allowance = Allowance { head: Duration::from_millis(300), connections: 1 };
        let (address, _serving) = started(allowance, Arc::default(), CancellationToken::new()).await;
        let _silent = TcpStream::connect(address).await.unwrap();
        let began = std::time::Instant::now();
        let mut second = TcpStream::connect(address).await.unwrap();
        second.write_all(REQUEST).await.unwrap();
        let mut first_bytes = [0; 15];
        second.read_exact(&mut first_bytes).await.unwrap();
        assert_eq!(&first_bytes, b"HTTP/1.1 200 OK");
        assert!(began.elapsed() >= Duration::from_millis(250), "it was served beside the first one");
    }

    #[tokio::test]
    async fn a_stop_lets_what_runs_end_and_ends_what_is_idle() {
        let (go, stop) = (Arc::new(Notify::new()), CancellationToken::new());
        let allowance = Allowance { head: Duration::from_secs(60), connections: 10 };
        let (address, mut serving) = started(allowance, Arc::clone(&go), stop.clone()).await;
        let mut idle = TcpStream::connect(address).await.unwrap();
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        // Served in the order they came, so the slow one is running once this one has its answer.
        let mut other = TcpStream::connect(address).await.unwrap();
        other.write_all(REQUEST).await.unwrap();
        other.read_exact(&mut [0; 15]).await.unwrap();
        stop.cancel();
        assert_eq!(to_its_end(&mut idle).await, "");
        assert!(TcpStream::connect(address).await.is_err(), "nobody new is taken");
        go.notify_one();
        assert!(to_its_end(&mut slow).await.ends_with("slow"));
        serving.join_next().await.unwrap().unwrap();
    }
}
