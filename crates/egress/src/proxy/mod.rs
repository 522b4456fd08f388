//! The proxy: doors take connections in, each on behalf of one principal, and every request goes through the same order of steps. There
//! is no way from a client's bytes to an upstream but through [`open`], which judges, records, resolves and dials.

mod connection;
mod forward;
mod open;
mod relay;
mod tokens;
mod tunnel;
mod usage;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use open::OpenConnections;
use palisade_protocol::limits as written;
pub use tokens::TokenDoor;
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
pub use usage::DoorLimits;
use usage::Usage;

use crate::{AuditLog, EgressError, Policy, PolicySpec, Principal, Resolver, Stream, stream::Buffers};

/// How long after a failed accept the next is tried: without descriptors it would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The proxy's times and numbers.
#[derive(Debug, Clone, Copy)]
pub struct ProxySettings {
    /// For a head, from its first byte on.
    pub head_timeout: Duration,
    /// For the first byte of a request.
    pub keep_alive_timeout: Duration,
    /// For a ClientHello.
    pub hello_timeout: Duration,
    /// For one address to answer.
    pub dial_timeout: Duration,
    /// For an upstream to begin its answer.
    pub answer_timeout: Duration,
    /// For a client to go on with a body.
    pub body_timeout: Duration,
    /// For a tunnel, or an answer's body, to go on.
    pub idle_timeout: Duration,
    /// Clients' connections at a time.
    pub connections_max: usize,
}

impl Default for ProxySettings {
    fn default() -> Self {
        Self {
            head_timeout: Duration::from_millis(written::EGRESS_HEAD_TIMEOUT_MS),
            keep_alive_timeout: Duration::from_millis(written::EGRESS_KEEP_ALIVE_TIMEOUT_MS),
            hello_timeout: Duration::from_millis(written::EGRESS_HELLO_TIMEOUT_MS),
            dial_timeout: Duration::from_millis(written::EGRESS_DIAL_TIMEOUT_MS),
            answer_timeout: Duration::from_millis(written::EGRESS_ANSWER_TIMEOUT_MS),
            body_timeout: Duration::from_secs(written::REQUEST_BODY_SILENCE_MAX_S),
            idle_timeout: Duration::from_millis(written::EGRESS_IDLE_TIMEOUT_MS),
            connections_max: written::EGRESS_CONNECTIONS_MAX,
        }
    }
}

/// The proxy. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Proxy {
    shared: Arc<Shared>,
}

struct Shared {
    settings: ProxySettings,
    policy: ArcSwap<Policy>,
    resolver: Resolver,
    audit: AuditLog,
    open: OpenConnections,
    places: Arc<Semaphore>,
    buffers: Buffers,
    listeners: Mutex<Vec<SocketAddr>>,
    tasks: TaskTracker,
    /// No new connections.
    stopping: CancellationToken,
    /// No connections.
    ending: CancellationToken,
    /// Tells this start's connection ids from another's.
    start_id: u32,
    connections: AtomicU64,
}

/// A way in for one principal: whoever connects here is that principal.
#[derive(Clone)]
pub struct Door {
    shared: Arc<Shared>,
    state: Arc<DoorState>,
}

#[derive(Debug)]
struct DoorState {
    principal: Principal,
    usage: Usage,
    closed: CancellationToken,
}

/// Who connects.
#[derive(Clone)]
enum Who {
    Door(Arc<DoorState>),
    Tokens(Arc<tokens::Tokens>, SocketAddr),
}

impl Proxy {
    /// A proxy with everything it needs. It listens nowhere until a door does.
    pub fn new(policy: Policy, resolver: Resolver, audit: AuditLog, settings: ProxySettings) -> Self {
        let started = jiff::Timestamp::now().as_nanosecond().to_le_bytes();
        let start_id = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &started);
        let start_id = start_id.as_ref().first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
        Self {
            shared: Arc::new(Shared {
                settings,
                policy: ArcSwap::from_pointee(policy),
                resolver,
                audit,
                open: OpenConnections::default(),
                places: Arc::new(Semaphore::new(settings.connections_max)),
                buffers: Buffers::default(),
                listeners: Mutex::default(),
                tasks: TaskTracker::new(),
                stopping: CancellationToken::new(),
                ending: CancellationToken::new(),
                start_id,
                connections: AtomicU64::new(0),
            }),
        }
    }

    /// A way in for this principal.
    pub fn door(&self, principal: Principal, limits: DoorLimits) -> Door {
        let state = DoorState { principal, usage: Usage::new(limits), closed: CancellationToken::new() };
        Door { shared: self.shared.clone(), state: Arc::new(state) }
    }

    /// A way in for whoever brings a token.
    pub fn token_door(&self) -> TokenDoor {
        TokenDoor::new(self.shared.clone())
    }

    /// Swaps the policy and ends what it does not allow any more; how many connections that were comes back. A spec with anything wrong in
    /// it changes nothing.
    pub fn reload(&self, spec: &PolicySpec) -> Result<usize, EgressError> {
        self.shared.policy.store(Arc::new(Policy::build(spec)?));
        Ok(self.shared.open.judge_again(&self.shared.policy.load()))
    }

    /// Connections to upstreams that are open.
    pub fn open_connections(&self) -> usize {
        self.shared.open.count()
    }

    /// Stops taking connections, gives those that are open this long, and ends the rest. All is recorded when it returns.
    pub async fn shutdown(self, grace: Duration) {
        self.shared.stopping.cancel();
        self.shared.tasks.close();
        if tokio::time::timeout(grace, self.shared.tasks.wait()).await.is_err() {
            self.shared.ending.cancel();
            self.shared.tasks.wait().await;
        }
    }
}

impl Shared {
    fn connection_id(&self) -> String {
        format!("{:08x}-{}", self.start_id, self.connections.fetch_add(1, Relaxed))
    }

    fn own_listeners(&self) -> Vec<SocketAddr> {
        self.listeners.lock().map(|listeners| listeners.clone()).unwrap_or_default()
    }

    /// Takes connections in until told to stop.
    fn listen(
        self: &Arc<Self>,
        listener: TcpListener,
        closed: CancellationToken,
        who: impl Fn(SocketAddr) -> Who + Send + 'static,
    ) {
        if let (Ok(address), Ok(mut listeners)) = (listener.local_addr(), self.listeners.lock()) {
            listeners.push(address);
        }
        let shared = self.clone();
        self.tasks.spawn(async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = shared.stopping.cancelled() => break,
                    () = closed.cancelled() => break,
                };
                match accepted {
                    Ok((stream, peer)) => shared.take_in(who(peer), stream.into()),
                    Err(error) => {
                        tracing::warn!(%error, "the egress proxy could not accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
            if let (Ok(address), Ok(mut listeners)) = (listener.local_addr(), shared.listeners.lock()) {
                listeners.retain(|listener| *listener != address);
            }
        });
    }

    fn take_in(self: &Arc<Self>, who: Who, stream: Stream) {
        if !self.stopping.is_cancelled() {
            self.tasks.spawn(connection::serve(self.clone(), who, stream));
        }
    }
}

impl Door {
    /// Serves one accepted connection.
    pub fn accept(&self, stream: impl Into<Stream>) {
        self.shared.take_in(Who::Door(self.state.clone()), stream.into());
    }

    /// Serves whoever connects here, until the door is closed or the proxy stops.
    pub fn listen(&self, listener: TcpListener) {
        let who = Who::Door(self.state.clone());
        self.shared.listen(listener, self.state.closed.clone(), move |_| who.clone());
    }

    /// Ends everything that came through this door.
    pub fn close(&self) {
        self.state.closed.cancel();
    }

    /// Connections that came through this door and are still there.
    pub fn connections(&self) -> usize {
        self.state.usage.connections()
    }

    /// Bytes that went through this door, both directions together.
    pub fn bytes(&self) -> u64 {
        self.state.usage.bytes()
    }
}
