//! How much of the server one tenant's requests may use: requests in flight, and memory for bodies. It must never refuse a
//! tenant that has little for what others have taken.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use palisade_protocol::{Error, ErrorKind, TenantName, limits};
use palisade_runtime::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::listen::{Connection, Neighbourhood};
use crate::shares::{Bounds, Refused, Share, Shares};

/// What may be taken, by whom.
pub(crate) struct Admission {
    requests: Arc<Shares<TenantName>>,
    bodies: Arc<Shares<TenantName>>,
    bodies_from: Arc<Shares<Neighbourhood>>,
    metrics: AdmissionMetrics,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct What {
    what: &'static str,
}

struct AdmissionMetrics {
    in_flight: Gauge,
    body_bytes: Gauge,
    refused: Family<What, Counter>,
}

impl Admission {
    /// For so many connections and tenants. Three quarters of the connections can have requests with a key, so that there is always
    /// one that can make room for a newcomer; a quarter is kept for tenants with few.
    pub(crate) fn new(connections: usize, tenants: usize, metrics: &Metrics) -> Arc<Self> {
        let reserved_each = |reserve: usize| (reserve / tenants.max(1)).max(1);
        let requests = Bounds {
            owner_max: (connections / 2).max(1),
            open_max: (connections / 2).max(1),
            all_max: (connections / 4 * 3).max(1),
            little: reserved_each(connections / 4),
        };
        let reserve = limits::BODIES_BYTES_MAX - limits::BODIES_BYTES_OPEN_MAX;
        let bodies = Bounds {
            owner_max: limits::BODIES_BYTES_PER_TENANT_MAX,
            open_max: limits::BODIES_BYTES_OPEN_MAX,
            all_max: limits::BODIES_BYTES_MAX,
            little: reserved_each(reserve),
        };
        let of_address = Bounds {
            owner_max: limits::BODIES_BYTES_PER_ADDRESS_MAX,
            open_max: usize::MAX,
            all_max: usize::MAX,
            little: 0,
        };
        Arc::new(Self {
            requests: Shares::new(requests),
            bodies: Shares::new(bodies),
            bodies_from: Shares::new(of_address),
            metrics: AdmissionMetrics::register(metrics),
        })
    }

    fn refuse(&self, what: &'static str, refused: Refused) -> Error {
        self.metrics.refused.get_or_create(&What { what }).inc();
        let (kind, whose) = match refused {
            Refused::Owner => (ErrorKind::LimitReached, "of this tenant"),
            Refused::All => (ErrorKind::Unavailable, "of all tenants"),
        };
        let (code, message) = match what {
            "requests" => {
                ("requests.too_many", format!("too many requests {whose} are in flight; wait for answers"))
            }
            _ => (
                "bodies.too_large",
                format!("unfinished bodies {whose} take all the memory there is for them; try again"),
            ),
        };
        Error::new(kind, code, message).retry_after(1)
    }
}

impl AdmissionMetrics {
    fn register(metrics: &Metrics) -> Self {
        let this =
            Self { in_flight: Gauge::default(), body_bytes: Gauge::default(), refused: Family::default() };
        metrics.with_registry(|registry| {
            registry.register(
                "http_requests_in_flight",
                "Requests with a key that are not answered whole yet",
                this.in_flight.clone(),
            );
            registry.register(
                "http_body_bytes",
                "Memory for bodies of requests that are being read",
                this.body_bytes.clone(),
            );
            registry.register(
                "http_requests_refused",
                "Requests that were refused for what others take, by what it is",
                this.refused.clone(),
            );
        });
        this
    }

    fn show(gauge: &Gauge, count: usize) {
        gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

/// One request, from its head to the last byte of its answer.
pub(crate) struct Visit {
    admission: Arc<Admission>,
    connection: Arc<Connection>,
    entered: OnceLock<(TenantName, Share<TenantName>)>,
    body: Mutex<Option<BodyMemory>>,
}

impl Visit {
    /// Its head is there.
    pub(crate) fn begin(admission: Arc<Admission>, connection: Arc<Connection>, is_http2: bool) -> Arc<Self> {
        connection.request_begins(is_http2);
        Arc::new(Self { admission, connection, entered: OnceLock::new(), body: Mutex::default() })
    }

    /// It is this tenant's, and counts as one of its requests until the answer's end.
    pub(crate) fn enter(&self, tenant: &TenantName) -> Result<(), Error> {
        let taken = self.admission.requests.take(tenant.clone(), 1);
        let share = taken.map_err(|refused| self.admission.refuse("requests", refused))?;
        if self.entered.set((tenant.clone(), share)).is_ok() {
            self.connection.request_is_of(tenant);
        }
        AdmissionMetrics::show(&self.admission.metrics.in_flight, self.admission.requests.all());
        Ok(())
    }

    /// Memory for its body, which begins with nothing. Who has shown no key has none.
    pub(crate) fn body_memory(&self) -> Option<BodyMemory> {
        let (tenant, _) = self.entered.get()?;
        let of_tenant = self.admission.bodies.nothing_of(tenant.clone());
        let of_address =
            self.connection.neighbourhood().map(|from| self.admission.bodies_from.nothing_of(from));
        Some(BodyMemory { admission: Arc::clone(&self.admission), of_tenant, of_address })
    }

    /// Keeps what its body takes until the request is done.
    pub(crate) fn keep(&self, memory: BodyMemory) {
        *self.body.lock().unwrap_or_else(PoisonError::into_inner) = Some(memory);
    }

    /// The request is done; its answer may go on for long.
    pub(crate) fn release_body(&self) {
        drop(self.body.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.connection.request_ends(self.entered.get().is_some());
    }
}

/// What a body may take, in bytes.
pub(crate) struct BodyMemory {
    admission: Arc<Admission>,
    of_tenant: Share<TenantName>,
    of_address: Option<Share<Neighbourhood>>,
}

impl BodyMemory {
    /// Takes more.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), Error> {
        if bytes == 0 {
            return Ok(());
        }
        let of_address = self.of_address.as_mut().map_or(Ok(()), |share| share.grow(bytes));
        let grown = of_address.and_then(|()| self.of_tenant.grow(bytes));
        AdmissionMetrics::show(&self.admission.metrics.body_bytes, self.admission.bodies.all());
        grown.map_err(|refused| self.admission.refuse("bodies", refused))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tenant_has_something_left_however_few_connections_there_are() {
        for (connections, tenants) in [(1, 1), (2, 3), (512, 2), (4096, 64), (512, 1000)] {
            let admission = Admission::new(connections, tenants, &Metrics::default());
            let name = |n: usize| TenantName::parse(&format!("t{n}")).unwrap();
            let mut greedy = Vec::new();
            while let Ok(share) = admission.requests.take(name(0), 1) {
                greedy.push(share);
            }
            assert!(greedy.len() <= (connections / 2).max(1), "{connections} {tenants}");
            if connections >= 4 {
                assert!(admission.requests.take(name(1), 1).is_ok(), "{connections} {tenants}");
                assert!(
                    admission.bodies.take(name(1), limits::BODY_BYTES_FREE).is_ok(),
                    "{connections} {tenants}"
                );
            }
        }
    }
}
