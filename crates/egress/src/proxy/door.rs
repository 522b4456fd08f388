//! Doors: a connection that comes through one is its principal's. A session's door has the session's limits and its certificate
//! authority; a door to a proxy in another process passes on what comes, with a pass in front.

use std::sync::Arc;

use tokio::net::{TcpListener, UnixStream};
use tokio_util::sync::CancellationToken;

use super::{
    Shared,
    remote::RemoteDoor,
    threads::Arrived,
    usage::{DoorLimits, Usage},
};
use crate::{EgressError, Principal, tls::Authority};

/// A way in for one principal: whoever connects here is that principal.
#[derive(Clone)]
pub struct Door(Kind);

#[derive(Clone)]
enum Kind {
    Here { shared: Arc<Shared>, state: Arc<DoorState> },
    There(Arc<RemoteDoor>),
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door").finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub(super) struct DoorState {
    pub(super) principal: Principal,
    pub(super) usage: Arc<Usage>,
    /// None where the proxy opens nobody's TLS.
    pub(super) authority: Option<Authority>,
    /// What the authority was made for.
    intercepted: Vec<String>,
    pub(super) closed: CancellationToken,
}

impl DoorState {
    pub(super) fn new(
        shared: &Shared,
        principal: Principal,
        limits: DoorLimits,
    ) -> Result<Self, EgressError> {
        Self::with(shared, principal, Arc::new(Usage::new(limits)))
    }

    /// The same principal's, with what it has used already.
    pub(super) fn again(&self, shared: &Shared) -> Result<Self, EgressError> {
        Self::with(shared, self.principal.clone(), self.usage.clone())
    }

    fn with(shared: &Shared, principal: Principal, usage: Arc<Usage>) -> Result<Self, EgressError> {
        let intercepted = shared.policy.load().intercepted(&principal).to_vec();
        let authority = (!intercepted.is_empty()).then(|| Authority::new(&intercepted)).transpose()?;
        Ok(Self { principal, usage, authority, intercepted, closed: CancellationToken::new() })
    }

    pub(super) fn is_current(&self, shared: &Shared) -> bool {
        self.intercepted == shared.policy.load().intercepted(&self.principal)
            && self.authority.as_ref().is_none_or(|authority| !authority.is_old())
    }

    pub(super) fn trust_anchor(&self) -> Option<&str> {
        self.authority.as_ref().map(Authority::pem)
    }
}

impl Door {
    pub(super) fn here(shared: Arc<Shared>, state: Arc<DoorState>) -> Self {
        Self(Kind::Here { shared, state })
    }

    pub(super) fn there(remote: RemoteDoor) -> Self {
        Self(Kind::There(Arc::new(remote)))
    }

    /// Serves one connection.
    pub fn accept(&self, stream: UnixStream) {
        match &self.0 {
            // One that cannot be moved is gone, as its other end sees.
            Kind::Here { shared, state } => {
                drop(stream.try_into().map(|it| shared.take_in(state.clone(), it)))
            }
            Kind::There(remote) => remote.pass_on(stream),
        }
    }

    /// Serves whoever connects here, until the door is closed or the proxy stops.
    pub fn listen(&self, listener: TcpListener) {
        match &self.0 {
            Kind::Here { shared, state } => {
                let served = state.clone();
                let take_in =
                    move |shared: &Arc<Shared>, stream: Arrived, _| shared.take_in(served.clone(), stream);
                shared.listen(listener, state.closed.clone(), take_in);
            }
            Kind::There(remote) => remote.listen(listener),
        }
    }

    /// The certificate authority that the principal's programs have to trust, as PEM; none where the proxy opens nobody's TLS.
    pub fn trust_anchor(&self) -> Option<&str> {
        match &self.0 {
            Kind::Here { state, .. } => state.trust_anchor(),
            Kind::There(remote) => remote.trust_anchor(),
        }
    }

    /// Whether the authority is still the right one: the policy has the same hosts, and it will not end soon. Otherwise
    /// [`Self::again`] makes a door with a new one.
    pub async fn is_current(&self) -> bool {
        match &self.0 {
            Kind::Here { shared, state } => state.is_current(shared),
            Kind::There(remote) => remote.is_current().await,
        }
    }

    /// Another door for the same principal, with what it has used already. This one stays until it is closed.
    pub async fn again(&self) -> Result<Self, EgressError> {
        match &self.0 {
            Kind::Here { shared, state } => Ok(Self::here(shared.clone(), Arc::new(state.again(shared)?))),
            Kind::There(remote) => Ok(Self::there(remote.again().await?)),
        }
    }

    /// Ends everything that came through this door.
    pub fn close(&self) {
        match &self.0 {
            Kind::Here { state, .. } => state.closed.cancel(),
            Kind::There(remote) => remote.close(),
        }
    }

    /// Connections that came through this door and are still there.
    pub fn connections(&self) -> usize {
        match &self.0 {
            Kind::Here { state, .. } => state.usage.connections(),
            Kind::There(remote) => remote.connections(),
        }
    }
}
