//! The sandboxes' ways out: each sandbox that is awake has a door of the egress proxy, through which its session's connections go and
//! nobody else's. What a session has used of its limits outlives its sandboxes. Nothing is decided here: the policy is the proxy's.

use std::collections::HashMap;
use std::net::TcpListener;
use std::sync::{Mutex, MutexGuard, PoisonError};

use palisade_egress::{Door, DoorLimits, EgressError, Principal, WayOut};
use palisade_protocol::{SessionId, TenantName};

/// The doors of every session that has needed one.
pub(crate) struct Doors {
    way_out: WayOut,
    latest: Mutex<HashMap<SessionId, Door>>,
}

/// One sandbox's door; closed with it, and with it whatever went through.
pub(crate) struct SandboxDoor(Door);

impl Doors {
    pub(crate) fn new(way_out: WayOut) -> Self {
        Self { way_out, latest: Mutex::default() }
    }

    /// A door for a sandbox of this session that is about to be started.
    pub(crate) async fn open(
        &self,
        tenant: &TenantName,
        session: &SessionId,
    ) -> Result<SandboxDoor, EgressError> {
        let before = self.lock().get(session).cloned();
        let door = match before {
            Some(before) => before.again().await?,
            None => {
                let principal = Principal::Session { tenant: tenant.clone(), session: session.clone() };
                self.way_out.door(principal, DoorLimits::default()).await?
            }
        };
        self.lock().insert(session.clone(), door.clone());
        Ok(SandboxDoor(door))
    }

    /// The session is over.
    pub(crate) fn forget(&self, session: &SessionId) {
        if let Some(door) = self.lock().remove(session) {
            door.close();
        }
    }

    // The map is whole after any panic, so a poisoned lock is still good.
    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Door>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SandboxDoor {
    /// Serves what the sandbox connects to.
    pub(crate) fn serve(&self, listener: TcpListener) -> std::io::Result<()> {
        self.0.listen(tokio::net::TcpListener::from_std(listener)?);
        Ok(())
    }

    /// What its programs have to trust.
    pub(crate) fn trust_anchor(&self) -> Option<String> {
        self.0.trust_anchor().map(str::to_owned)
    }

    /// Whether what they trust is still the right thing.
    pub(crate) async fn is_current(&self) -> bool {
        self.0.is_current().await
    }
}

impl Drop for SandboxDoor {
    fn drop(&mut self) {
        self.0.close();
    }
}
