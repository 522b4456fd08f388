//! What an operator sees of connections: how many there are, why some were ended, and, at most every ten seconds for each
//! reason, a line in the log that names an address.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use palisade_runtime::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

/// At most one line for a reason in this time.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// Why a connection was ended by us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// A head did not come in time.
    HeadTimeout,
    /// No request for a long time.
    Idle,
    /// Its neighbourhood had too many without a key.
    Neighbourhood,
    /// All slots were used.
    Full,
}

impl Reason {
    fn name(self) -> &'static str {
        match self {
            Self::HeadTimeout => "head_timeout",
            Self::Idle => "idle",
            Self::Neighbourhood => "address",
            Self::Full => "full",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Open {
    key: &'static str,
}

/// Counts of connections.
#[derive(Clone, Default)]
pub(crate) struct ConnectionMetrics {
    open: Family<Open, Gauge>,
    ended: Family<Ended, Counter>,
    told: Arc<Mutex<Told>>,
}

/// Per reason: when it was last told, and how often it was the case since.
#[derive(Default)]
struct Told {
    neighbourhood: (Option<Instant>, u64),
    full: (Option<Instant>, u64),
}

impl ConnectionMetrics {
    /// Adds them to the runtime's registry.
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let this = Self::default();
        metrics.with_registry(|registry| {
            registry.register(
                "http_connections",
                "Connections that are open, by whether a key was shown on them",
                this.open.clone(),
            );
            registry.register(
                "http_connections_ended",
                "Connections that the server ended, by reason",
                this.ended.clone(),
            );
        });
        this
    }

    pub(super) fn open(&self, unknown: usize, known: usize) {
        for (key, count) in [("none", unknown), ("shown", known)] {
            self.open.get_or_create(&Open { key }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    pub(super) fn ended(&self, reason: Reason) {
        self.ended.get_or_create(&Ended { reason: reason.name() }).inc();
    }

    /// A line for the operator, if there was none for this reason of late.
    pub(super) fn tell(&self, reason: Reason, address: IpAddr) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, count) = if reason == Reason::Full { &mut told.full } else { &mut told.neighbourhood };
        *count += 1;
        if last.is_some_and(|last| last.elapsed() < TOLD_EVERY) {
            return;
        }
        let ended = std::mem::take(count);
        *last = Some(Instant::now());
        match reason {
            Reason::Full => tracing::warn!(
                %address, ended,
                "all connections are in use; the longest idle ones are ended to make room"
            ),
            _ => tracing::warn!(
                %address, ended,
                "an address has too many connections without a key; its longest idle ones are ended \
                 (a load balancer belongs into [http] trusted_peers)"
            ),
        }
    }
}
