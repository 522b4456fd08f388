//! The proxy: doors take connections in, each on behalf of one principal, and every request goes through the same order of steps. There
//! is no way from a client's bytes to an upstream but through [`open`], which judges, records, resolves and dials.

mod connection;
mod door;
mod forward;
mod intercept;
mod lend;
mod meter;
mod open;
mod pass;
mod reach;
mod relay;
mod remote;
mod threads;
mod tunnel;
mod usage;

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
pub use door::Door;
use door::DoorState;
pub use lend::LentVault;
use open::OpenConnections;
use palisade_protocol::limits as written;
pub use pass::{PassDoor, PassKey};
pub use remote::{ProxyAddress, RemoteProxy, WayOut};
use threads::{Arrived, Threads};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
pub use usage::DoorLimits;
use usage::Tenants;

use crate::{
    AuditLog, CredentialSource, Credentials, EgressError, Policy, PolicySpec, Principal, Resolver, Stream,
    Trust, VaultRules, stream::Buffers,
};

/// How long after a failed accept the next is tried: without descriptors it would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The proxy's times and numbers.
#[derive(Debug, Clone, Copy)]
pub struct ProxySettings {
    /// For a head, from its first byte on.
    pub head_timeout: Duration,
    /// For the first byte of a request.
    pub keep_alive_timeout: Duration,
    /// For a ClientHello, and for the handshake that it begins.
    pub hello_timeout: Duration,
    /// For one address to answer, and for its handshake.
    pub dial_timeout: Duration,
    /// For an upstream to begin its answer.
    pub answer_timeout: Duration,
    /// For a client to go on with a body.
    pub body_timeout: Duration,
    /// For a tunnel, or an answer's body, to go on.
    pub idle_timeout: Duration,
    /// Clients' connections at a time.
    pub connections_max: usize,
    /// Of these, the ones that one tenant's sessions have.
    pub tenant_connections_max: usize,
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
            tenant_connections_max: written::EGRESS_TENANT_CONNECTIONS_MAX,
        }
    }
}

/// What a proxy is made of.
pub struct ProxyParts {
    /// Who may reach what, as the operator has it.
    pub policy: PolicySpec,
    /// The one resolver.
    pub resolver: Resolver,
    /// Where everything is written down.
    pub audit: Arc<AuditLog>,
    /// Whose word upstreams are believed on.
    pub trust: Trust,
    /// The upstreams' keys.
    pub credentials: Credentials,
    /// The tenants' credentials.
    pub vault: Arc<dyn CredentialSource>,
    /// Times and numbers.
    pub settings: ProxySettings,
}

/// The proxy. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Proxy {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy").finish_non_exhaustive()
    }
}

struct Shared {
    settings: ProxySettings,
    policy: ArcSwap<Policy>,
    /// What it was built of. Held while it is built anew, so that an older one never comes last.
    parts: Mutex<(PolicySpec, VaultRules)>,
    resolver: Resolver,
    audit: Arc<AuditLog>,
    trust: Trust,
    credentials: ArcSwap<Credentials>,
    vault: Arc<dyn CredentialSource>,
    open: OpenConnections,
    places: Arc<Semaphore>,
    tenants: Arc<Tenants>,
    buffers: Buffers,
    threads: Threads,
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

impl Proxy {
    /// A proxy, with its threads. It listens nowhere until a door does.
    pub fn new(parts: ProxyParts) -> Result<Self, EgressError> {
        let threads = Threads::start().map_err(|source| EgressError::Threads { source })?;
        let started = jiff::Timestamp::now().as_nanosecond().to_le_bytes();
        let start_id = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &started);
        let start_id = start_id.as_ref().first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
        Ok(Self {
            shared: Arc::new(Shared {
                policy: ArcSwap::from_pointee(Policy::build(&parts.policy)?),
                parts: Mutex::new((parts.policy, VaultRules::default())),
                resolver: parts.resolver,
                audit: parts.audit,
                trust: parts.trust,
                credentials: ArcSwap::from_pointee(parts.credentials),
                vault: parts.vault,
                open: OpenConnections::default(),
                places: Arc::new(Semaphore::new(parts.settings.connections_max)),
                tenants: Arc::new(Tenants::new(parts.settings.tenant_connections_max)),
                settings: parts.settings,
                buffers: Buffers::default(),
                threads,
                listeners: Mutex::default(),
                tasks: TaskTracker::new(),
                stopping: CancellationToken::new(),
                ending: CancellationToken::new(),
                start_id,
                connections: AtomicU64::new(0),
            }),
        })
    }

    /// A way in for this principal.
    pub fn door(&self, principal: Principal, limits: DoorLimits) -> Result<Door, EgressError> {
        Ok(Door::here(self.shared.clone(), Arc::new(DoorState::new(&self.shared, principal, limits)?)))
    }

    /// A way in for whoever brings a pass that this key has signed. Where `lent` is what the proxy asks for credentials, servers on this
    /// machine put their vault behind it.
    pub fn pass_door(&self, key: PassKey, limits: DoorLimits, lent: Option<LentVault>) -> PassDoor {
        PassDoor::new(self.shared.clone(), key, limits, lent)
    }

    /// Swaps the operator's part of the policy and ends what is not allowed any more; how many connections that were comes back. A spec with
    /// anything wrong in it changes nothing.
    pub fn reload(&self, spec: PolicySpec) -> Result<usize, EgressError> {
        self.shared.build(|parts| (spec, parts.1.clone()))
    }

    /// From now on these are the upstreams' keys; one that is not named stays as it is. The names of those that are new.
    pub fn renew_keys(&self, keys: Credentials) -> Vec<String> {
        let before = self.shared.credentials.load_full();
        let names = keys.differing(&before);
        self.shared.credentials.store(Arc::new(keys.over(&before)));
        names
    }

    /// The same for the vault's part.
    pub fn manage(&self, rules: VaultRules) -> Result<usize, EgressError> {
        self.shared.build(|parts| (parts.0.clone(), rules))
    }

    /// Connections to upstreams that are open.
    pub fn open_connections(&self) -> usize {
        self.shared.open.count()
    }

    /// Stops taking connections, gives those that are open this long, and ends the rest. All is recorded when it returns.
    pub async fn shutdown(&self, grace: Duration) {
        self.shared.stopping.cancel();
        self.shared.tasks.close();
        if tokio::time::timeout(grace, self.shared.tasks.wait()).await.is_err() {
            self.shared.ending.cancel();
            self.shared.tasks.wait().await;
        }
        if self.shared.audit.flush().await.is_err() {
            tracing::error!("the last records of the egress proxy could not be written");
        }
    }
}

impl Shared {
    fn build(
        &self,
        change: impl FnOnce(&(PolicySpec, VaultRules)) -> (PolicySpec, VaultRules),
    ) -> Result<usize, EgressError> {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let new = change(&parts);
        let policy = Policy::build(&new.0.clone().with(&new.1))?;
        *parts = new;
        self.policy.store(Arc::new(policy));
        Ok(self.open.judge_again(&self.policy.load()))
    }

    fn connection_id(&self) -> String {
        format!("{:08x}-{}", self.start_id, self.connections.fetch_add(1, Relaxed))
    }

    fn own_listeners(&self) -> Vec<SocketAddr> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes connections in until told to stop.
    fn listen(
        self: &Arc<Self>,
        listener: TcpListener,
        closed: CancellationToken,
        take_in: impl Fn(&Arc<Self>, Arrived, SocketAddr) + Send + 'static,
    ) {
        let address = listener.local_addr().ok();
        let listeners = |shared: &Self, change: &dyn Fn(&mut Vec<SocketAddr>)| {
            change(&mut shared.listeners.lock().unwrap_or_else(PoisonError::into_inner));
        };
        listeners(self, &|all| all.extend(address));
        let shared = self.clone();
        self.tasks.spawn(async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = shared.stopping.cancelled() => break,
                    () = closed.cancelled() => break,
                };
                match accepted.and_then(|(stream, peer)| Ok((stream.try_into()?, peer))) {
                    Ok((stream, peer)) => take_in(&shared, stream, peer),
                    Err(error) => {
                        tracing::warn!(%error, "the egress proxy could not accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
            listeners(&shared, &|all| all.retain(|listener| Some(*listener) != address));
        });
    }

    fn take_in(self: &Arc<Self>, door: Arc<DoorState>, stream: Arrived) {
        let shared = self.clone();
        self.serve(stream, async move |stream| connection::serve(shared, door, stream).await);
    }

    /// Serves a connection on one of the proxy's threads.
    fn serve<F>(&self, stream: Arrived, serve: impl FnOnce(Stream) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send,
    {
        if self.stopping.is_cancelled() {
            return;
        }
        let Some(thread) = self.threads.next() else { return };
        let serving = async move {
            match stream.here() {
                Ok(stream) => serve(stream).await,
                Err(error) => tracing::warn!(%error, "the egress proxy could not take a connection"),
            }
        };
        self.tasks.spawn_on(serving, thread);
    }
}
