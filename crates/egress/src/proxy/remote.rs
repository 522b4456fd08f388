//! The proxy from a server in another process: connections are passed on as they are, with a pass in front. Nothing is decided here,
//! and where the proxy cannot be reached nothing leaves.

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixStream},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    ACCEPT_PAUSE, Door, DoorLimits, Proxy,
    lend::Lending,
    pass::{PassKey, TRUST_ANCHOR},
};
use crate::{EgressError, Principal};

/// For the proxy to take a connection, and to say what the authority is.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);
/// A certificate, in bytes of PEM: a name constraint for each of some hundred hosts fits.
const ANCHOR_BYTES_MAX: u64 = 64 * 1024;
/// Connections that one door passes on at a time; the proxy has limits of its own, this one bounds what waits for it.
const CONNECTIONS_MAX: usize = 512;

/// Where a proxy listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxyAddress {
    /// Over the network.
    Tcp(SocketAddr),
    /// On this machine.
    Unix(PathBuf),
}

impl std::fmt::Display for ProxyAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A proxy in another process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RemoteProxy {
    address: ProxyAddress,
    key: PassKey,
    pub(super) tasks: TaskTracker,
    pub(super) lending: Arc<Lending>,
}

impl RemoteProxy {
    /// The proxy there, which has the same key.
    pub fn new(address: ProxyAddress, key: PassKey) -> Self {
        Self { address, key, tasks: TaskTracker::new(), lending: Arc::default() }
    }

    /// A way in for this principal.
    pub async fn door(&self, principal: Principal) -> Result<Door, EgressError> {
        Ok(Door::there(RemoteDoor::open(self.clone(), principal).await?))
    }

    /// Where it is.
    pub fn address(&self) -> &ProxyAddress {
        &self.address
    }

    async fn connect(&self, principal: &Principal, asked: &str) -> io::Result<Box<dyn Duplex>> {
        let connecting = async {
            if matches!(principal, Principal::Session { .. }) {
                self.lending.settled().await;
            }
            self.connect_at_once(principal, asked).await
        };
        tokio::time::timeout(TIMEOUT, connecting)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    pub(super) async fn connect_at_once(
        &self,
        principal: &Principal,
        asked: &str,
    ) -> io::Result<Box<dyn Duplex>> {
        let mut stream: Box<dyn Duplex> = match &self.address {
            ProxyAddress::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            ProxyAddress::Unix(path) => Box::new(UnixStream::connect(path).await?),
        };
        stream.write_all(self.key.line(principal, asked).as_bytes()).await?;
        Ok(stream)
    }

    pub(super) fn unreachable(&self, source: io::Error) -> EgressError {
        EgressError::Unreachable { proxy: self.address.to_string(), source }
    }
}

/// The way out as a server has it: a proxy in its own process, or in another.
#[derive(Debug, Clone)]
pub enum WayOut {
    /// In this process.
    Here(Proxy),
    /// In another, which has the policy, the log and the keys.
    There(RemoteProxy),
}

impl WayOut {
    /// A way in for this principal. A proxy in another process has limits of its own.
    pub async fn door(&self, principal: Principal, limits: DoorLimits) -> Result<Door, EgressError> {
        match self {
            Self::Here(proxy) => proxy.door(principal, limits),
            Self::There(proxy) => proxy.door(principal).await,
        }
    }

    /// Whether the proxy answers.
    pub async fn answers(&self) -> Result<(), EgressError> {
        match self {
            Self::Here(_) => Ok(()),
            Self::There(proxy) => ask_for_anchor(proxy, &Principal::Service).await.map(drop),
        }
    }
}

pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// See [`Door`].
pub(super) struct RemoteDoor {
    proxy: RemoteProxy,
    principal: Principal,
    trust_anchor: Option<String>,
    connections: Arc<AtomicUsize>,
    closed: CancellationToken,
}

impl RemoteDoor {
    async fn open(proxy: RemoteProxy, principal: Principal) -> Result<Self, EgressError> {
        let trust_anchor = match &principal {
            Principal::Session { .. } => ask_for_anchor(&proxy, &principal).await?,
            Principal::Router | Principal::Service => None,
        };
        let (connections, closed) = (Arc::default(), CancellationToken::new());
        Ok(Self { proxy, principal, trust_anchor, connections, closed })
    }

    pub(super) async fn again(&self) -> Result<Self, EgressError> {
        Self::open(self.proxy.clone(), self.principal.clone()).await
    }

    pub(super) fn trust_anchor(&self) -> Option<&str> {
        self.trust_anchor.as_deref()
    }

    /// A proxy that cannot be asked has not changed its mind.
    pub(super) async fn is_current(&self) -> bool {
        let now = ask_for_anchor(&self.proxy, &self.principal).await;
        now.map_or(true, |anchor| anchor == self.trust_anchor)
    }

    pub(super) fn close(&self) {
        self.closed.cancel();
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    pub(super) fn listen(self: &Arc<Self>, listener: TcpListener) {
        let door = self.clone();
        self.proxy.tasks.spawn(async move {
            loop {
                tokio::select! {
                    accepted = listener.accept() => match accepted {
                        Ok((stream, _)) => {
                            let _ = stream.set_nodelay(true);
                            door.pass_on(stream);
                        }
                        Err(error) => {
                            tracing::warn!(%error, "a sandbox's connection could not be accepted");
                            tokio::time::sleep(ACCEPT_PAUSE).await;
                        }
                    },
                    () = door.closed.cancelled() => return,
                }
            }
        });
    }

    /// Passes one connection on until it ends or the door is closed.
    pub(super) fn pass_on(&self, mut client: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        let place = self
            .connections
            .fetch_update(Relaxed, Relaxed, |count| (count < CONNECTIONS_MAX).then_some(count + 1));
        if place.is_err() {
            return;
        }
        let (proxy, principal, closed) = (self.proxy.clone(), self.principal.clone(), self.closed.clone());
        let connections = self.connections.clone();
        self.proxy.tasks.spawn(async move {
            let passing = async {
                let mut upstream = proxy.connect(&principal, "connect").await?;
                tokio::io::copy_bidirectional(&mut client, &mut upstream).await
            };
            tokio::select! {
                passed = passing => if let Err(error) = passed {
                    tracing::debug!(%error, proxy = %proxy.address, "a connection to the egress proxy broke");
                },
                () = closed.cancelled() => {}
            }
            connections.fetch_sub(1, Relaxed);
        });
    }
}

async fn ask_for_anchor(proxy: &RemoteProxy, principal: &Principal) -> Result<Option<String>, EgressError> {
    let unreachable = |source| proxy.unreachable(source);
    let stream = proxy.connect(principal, TRUST_ANCHOR).await.map_err(unreachable)?;
    let (mut stream, mut text) = (stream.take(ANCHOR_BYTES_MAX), String::new());
    let read = tokio::time::timeout(TIMEOUT, stream.read_to_string(&mut text));
    read.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(unreachable)?;
    match text.as_str() {
        "" => Ok(None),
        pem if pem.starts_with("-----BEGIN CERTIFICATE-----") => Ok(Some(text)),
        _ => Err(EgressError::PassRefused { proxy: proxy.address.to_string() }),
    }
}
