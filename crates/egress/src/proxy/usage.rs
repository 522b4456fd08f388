//! What one session has used of what it may use. Counters only: who asks decides what follows.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use palisade_protocol::TenantName;
use palisade_protocol::limits::{
    EGRESS_SESSION_BYTES_MAX, EGRESS_SESSION_CONNECTIONS_MAX, EGRESS_WILDCARD_NAMES_PER_MINUTE_MAX,
};

use crate::{HostName, Principal, Reason};

/// What one door may use.
#[derive(Debug, Clone, Copy)]
pub struct DoorLimits {
    /// Connections at a time.
    pub connections_max: usize,
    /// Bytes in both directions, for as long as the door is there.
    pub bytes_max: u64,
    /// Different names under wildcard rules in a minute.
    pub wildcard_names_per_minute_max: usize,
}

impl Default for DoorLimits {
    fn default() -> Self {
        Self {
            connections_max: EGRESS_SESSION_CONNECTIONS_MAX,
            bytes_max: EGRESS_SESSION_BYTES_MAX,
            wildcard_names_per_minute_max: EGRESS_WILDCARD_NAMES_PER_MINUTE_MAX,
        }
    }
}

#[derive(Debug)]
pub(super) struct Usage {
    limits: DoorLimits,
    connections: AtomicUsize,
    bytes: AtomicU64,
    names: Mutex<Names>,
}

#[derive(Debug)]
struct Names {
    since: Instant,
    seen: HashSet<HostName>,
}

/// How many connections each tenant has, over all its sessions: no tenant takes every place of the proxy.
#[derive(Debug)]
pub(super) struct Tenants {
    connections_max: usize,
    /// Only those that have one.
    connections: Mutex<HashMap<TenantName, usize>>,
}

impl Tenants {
    pub(super) fn new(connections_max: usize) -> Self {
        Self { connections_max, connections: Mutex::default() }
    }

    /// A place for one more connection of this principal. The server's own are no tenant's.
    pub(super) fn take_place(
        tenants: &Arc<Self>,
        principal: &Principal,
    ) -> Result<Option<TenantPlace>, Reason> {
        let Principal::Session { tenant, .. } = principal else { return Ok(None) };
        let mut connections = tenants.lock();
        let count = connections.entry(tenant.clone()).or_default();
        if *count >= tenants.connections_max {
            return Err(Reason::TenantConnections);
        }
        *count += 1;
        Ok(Some(TenantPlace { tenants: tenants.clone(), tenant: tenant.clone() }))
    }

    // The map is whole after any panic, so a poisoned lock is still good.
    fn lock(&self) -> MutexGuard<'_, HashMap<TenantName, usize>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's place among its tenant's; free again when it is dropped.
#[derive(Debug)]
pub(super) struct TenantPlace {
    tenants: Arc<Tenants>,
    tenant: TenantName,
}

impl Drop for TenantPlace {
    fn drop(&mut self) {
        let mut connections = self.tenants.lock();
        if let Some(count) = connections.get_mut(&self.tenant) {
            *count -= 1;
            if *count == 0 {
                connections.remove(&self.tenant);
            }
        }
    }
}

/// One connection's place; free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<Usage>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}

impl Usage {
    pub(super) fn new(limits: DoorLimits) -> Self {
        let names = Mutex::new(Names { since: Instant::now(), seen: HashSet::new() });
        Self { limits, connections: AtomicUsize::new(0), bytes: AtomicU64::new(0), names }
    }

    pub(super) fn take_place(usage: &Arc<Self>) -> Result<Place, Reason> {
        let taken = usage.connections.fetch_update(Relaxed, Relaxed, |count| {
            (count < usage.limits.connections_max).then_some(count + 1)
        });
        taken.map(|_| Place(usage.clone())).map_err(|_| Reason::SessionConnections)
    }

    /// Takes up to this many bytes; fewer when the session has no more.
    pub(super) fn take_bytes(&self, wanted: usize) -> usize {
        let mut granted = 0;
        let _ = self.bytes.fetch_update(Relaxed, Relaxed, |used| {
            granted = (wanted as u64).min(self.limits.bytes_max.saturating_sub(used));
            Some(used + granted)
        });
        usize::try_from(granted).unwrap_or(wanted)
    }

    pub(super) fn has_bytes_left(&self) -> bool {
        self.bytes.load(Relaxed) < self.limits.bytes_max
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    /// Names that the client makes up can carry data out by being looked up; a real program asks for few.
    pub(super) fn count_name(&self, name: &HostName) -> Result<(), Reason> {
        let Ok(mut names) = self.names.lock() else { return Err(Reason::NameRate) };
        if names.since.elapsed() >= Duration::from_secs(60) {
            *names = Names { since: Instant::now(), seen: HashSet::new() };
        }
        if names.seen.contains(name) {
            return Ok(());
        }
        if names.seen.len() >= self.limits.wildcard_names_per_minute_max {
            return Err(Reason::NameRate);
        }
        names.seen.insert(name.clone());
        Ok(())
    }
}
