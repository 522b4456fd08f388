//! What one session has used of what it may use. Counters only: who asks decides what follows.

use std::{
    collections::HashSet,
    sync::{
        Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use palisade_protocol::limits::{
    EGRESS_SESSION_BYTES_MAX, EGRESS_SESSION_CONNECTIONS_MAX, EGRESS_WILDCARD_NAMES_PER_MINUTE_MAX,
};

use crate::{HostName, Reason};

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

/// One connection's place; free again when it is dropped.
#[derive(Debug)]
pub(super) struct Place(std::sync::Arc<Usage>);

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

    pub(super) fn take_place(usage: &std::sync::Arc<Self>) -> Result<Place, Reason> {
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
