//! The listener: takes connections, serves them, and lets the running ones end when told to stop. It must never let a
//! client that says nothing hold a connection that others need, nor all clients together more than the process can open.

mod connection;
mod metrics;
mod socket;
mod state;
mod table;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use palisade_protocol::limits;
use palisade_runtime::{Metrics, Runtime};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::Admission;
use connection::{Shared, serve_connection};
use metrics::ConnectionMetrics;
pub(crate) use state::Connection;
use state::Times;
pub(crate) use table::Neighbourhood;
use table::{Slots, Table};

/// How long connections may take to end after the stop.
const GRACE: Duration = Duration::from_secs(10);
/// How long nothing is accepted after the system had no descriptor left, in milliseconds.
const ACCEPT_PAUSE_MS: u64 = 500;
/// Collectors are few, and come again every minute or so.
const METRICS_CONNECTIONS_MAX: usize = 32;
const METRICS_IDLE: Duration = Duration::from_secs(120);
/// Connections that were told to make room and have not closed yet are at most one for so many slots.
const CLOSING_SHARE: usize = 8;

/// What an operator says about clients' connections.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// How long a connection may be open without a request. It has to be longer than what a load balancer in front keeps its
    /// own idle connections, or a request may meet a connection that is just being closed.
    pub idle: Duration,
    /// Load balancers and the like, whose connections are those of many clients.
    pub trusted_peers: Vec<IpNet>,
    /// The web pages of other origins that a browser lets call, exactly as browsers name them.
    pub origins: Vec<String>,
}

/// Serves until `stop` completes, then for at most ten seconds more.
pub async fn serve(
    listener: TcpListener,
    runtime: Runtime,
    config: HttpConfig,
    stop: impl Future<Output = ()> + Send + 'static,
) {
    let slots = connections_max();
    let admission = Admission::new(slots, runtime.tenant_count(), runtime.metrics());
    let times = Times { head: Duration::from_secs(limits::REQUEST_HEAD_MAX_S), idle: config.idle };
    let table = Table::new(
        Slots {
            all: slots,
            unknown_per_neighbourhood: (slots / limits::CONNECTIONS_PER_ADDRESS_SHARE).max(1),
            trusted_peers: config.trusted_peers,
        },
        ConnectionMetrics::register(runtime.metrics()),
    );
    let stopping = CancellationToken::new();
    let shared = Shared { router: crate::router(runtime, &config.origins), admission, times, stopping };
    serve_within(listener, shared, table, stop).await;
}

/// Answers `/metrics` at an address of its own in the same way; what happens there is counted nowhere.
pub async fn serve_metrics(
    listener: TcpListener,
    runtime: Runtime,
    stop: impl Future<Output = ()> + Send + 'static,
) {
    let uncounted = Metrics::default();
    let slots = Slots {
        all: METRICS_CONNECTIONS_MAX,
        unknown_per_neighbourhood: METRICS_CONNECTIONS_MAX,
        trusted_peers: Vec::new(),
    };
    let shared = Shared {
        router: crate::metrics_router(runtime),
        admission: Admission::new(METRICS_CONNECTIONS_MAX, 1, &uncounted),
        times: Times { head: Duration::from_secs(limits::REQUEST_HEAD_MAX_S), idle: METRICS_IDLE },
        stopping: CancellationToken::new(),
    };
    serve_within(listener, shared, Table::new(slots, ConnectionMetrics::default()), stop).await;
}

/// The written limit, or half of what the process may open: files and sandboxes need descriptors too.
fn connections_max() -> usize {
    let open_files_max = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let half = open_files_max.and_then(|max| usize::try_from(max / 2).ok()).unwrap_or(usize::MAX);
    limits::CONNECTIONS_MAX.min(half).max(1)
}

async fn serve_within(
    listener: TcpListener,
    shared: Shared,
    table: Arc<Table>,
    stop: impl Future<Output = ()>,
) {
    let sockets = Arc::new(Semaphore::new(table.slots() + table.slots().div_ceil(CLOSING_SHARE)));
    let (connections, stopping) = (TaskTracker::new(), shared.stopping.clone());
    let mut stop = pin!(stop);
    loop {
        let accepted = async {
            // Who was told to make room does so at once, so that this is no wait for any client.
            let socket = Arc::clone(&sockets).acquire_owned().await;
            (listener.accept().await, socket)
        };
        let (accepted, socket) = tokio::select! {
            () = &mut stop => break,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let Some(connection) = table.admit(peer.ip()) else {
                    // As much as the system takes at once, and then it is closed.
                    let _ = stream.try_write(&socket::answer_to_the_unread(state::busy()));
                    continue;
                };
                let serving = serve_connection(stream, Arc::clone(&connection), shared.clone());
                let table = Arc::clone(&table);
                connections.spawn(async move {
                    serving.await;
                    table.remove(&connection);
                    drop(socket);
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

#[cfg(test)]
mod tests {
    use axum::Router;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::sync::Notify;
    use tokio::task::JoinSet;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const REQUEST: &[u8] = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n";

    /// What clients may take.
    struct Allowance {
        head: Duration,
        idle: Duration,
        connections: usize,
    }

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
        let Allowance { head, idle, connections } = allowance;
        let slots =
            Slots { all: connections, unknown_per_neighbourhood: connections, trusted_peers: Vec::new() };
        let admission = Admission::new(connections, 1, &palisade_runtime::Metrics::default());
        let stopping = CancellationToken::new();
        let shared = Shared { router, admission, times: Times { head, idle }, stopping };
        let table = Table::new(slots, ConnectionMetrics::default());
        serving.spawn(serve_within(listener, shared, table, stop.cancelled_owned()));
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
        let allowance = Allowance { head: Duration::from_millis(200), idle: LONG, connections: 10 };
        let (address, _serving) = started(allowance, Arc::default(), CancellationToken::new()).await;
        let mut waiting = Vec::new();
        for said in ["", "GET /hea", "GET /health HTTP/1.1\r\nHost: x\r\n", "PRI * HTTP/2.0\r\n"] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(said.as_bytes()).await.unwrap();
            waiting.push((said, stream));
        }
        for (said, stream) in &mut waiting {
            let told = to_its_end(stream).await;
            assert_eq!(told.contains("HTTP/1.1 408 Request Timeout"), !said.is_empty(), "{said:?}: {told}");
        }
        // A second request has no more time than the first, from its first byte on.
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(REQUEST).await.unwrap();
        stream.read_exact(&mut [0; 15]).await.unwrap();
        stream.write_all(b"GET /hea").await.unwrap();
        let rest = to_its_end(&mut stream).await;
        assert!(rest.contains("408") && rest.contains("request.head_timeout"), "{rest}");
    }

    #[tokio::test]
    async fn a_connection_without_a_request_ends_after_its_idle_time_and_not_before_an_answer() {
        let (idle, go) = (Duration::from_millis(300), Arc::new(Notify::new()));
        let allowance = Allowance { head: LONG, idle, connections: 10 };
        let (address, _serving) = started(allowance, Arc::clone(&go), CancellationToken::new()).await;
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        for _ in 0..2 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(REQUEST).await.unwrap();
            let answer = to_its_end(&mut stream).await;
            assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("well"), "{answer}");
        }
        go.notify_one();
        assert!(to_its_end(&mut slow).await.ends_with("slow"));
    }

    #[tokio::test]
    async fn an_answer_may_take_longer_than_a_head() {
        let (head, go) = (Duration::from_millis(50), Arc::new(Notify::new()));
        let allowance = Allowance { head, idle: LONG, connections: 10 };
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
    async fn a_newcomer_takes_the_place_of_the_oldest_without_a_key() {
        let allowance = Allowance { head: LONG, idle: LONG, connections: 3 };
        let (address, _serving) = started(allowance, Arc::default(), CancellationToken::new()).await;
        let mut held = Vec::new();
        for said in ["GET /hea", "", "PRI * HT"] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(said.as_bytes()).await.unwrap();
            held.push(stream);
        }
        let mut newcomer = TcpStream::connect(address).await.unwrap();
        newcomer.write_all(REQUEST).await.unwrap();
        newcomer.read_exact(&mut [0; 15]).await.unwrap();
        let told = to_its_end(&mut held[0]).await;
        assert!(told.is_empty() || told.starts_with("HTTP/1.1 503 "), "{told}");
        held[1].write_all(REQUEST).await.unwrap();
        held[1].read_exact(&mut [0; 15]).await.unwrap();
    }

    #[tokio::test]
    async fn a_stop_lets_what_runs_end_and_ends_what_is_idle() {
        let (go, stop) = (Arc::new(Notify::new()), CancellationToken::new());
        let allowance = Allowance { head: LONG, idle: LONG, connections: 10 };
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
