//! Which connections there are, and which one ends when there are too many. A connection is protected while a request of
//! somebody with a key is in flight on it; any other one may have to make room for a newcomer, so that newcomers are always
//! served. It must never let who has no key outlast who has one.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use palisade_protocol::TenantName;

use super::metrics::{ConnectionMetrics, Reason};
use super::state::Connection;

/// Whose address it is: of IPv6 the network of 64 bits, which is what one customer gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Neighbourhood(IpAddr);

impl Neighbourhood {
    pub(crate) fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
            v4 => v4,
        })
    }
}

/// How many connections there may be.
pub(crate) struct Slots {
    /// In all.
    pub(crate) all: usize,
    /// Of one neighbourhood, without a key.
    pub(crate) unknown_per_neighbourhood: usize,
    /// Peers that carry the connections of many, so that they have no bound of their own.
    pub(crate) trusted_peers: Vec<IpNet>,
}

/// All connections.
pub(crate) struct Table {
    slots: Slots,
    rows: Mutex<Rows>,
    pub(super) metrics: ConnectionMetrics,
}

#[derive(Default)]
struct Rows {
    next_id: u64,
    /// On which no key has been shown; those of a neighbourhood stand together.
    unknown: BTreeMap<(Option<Neighbourhood>, u64), Arc<Connection>>,
    per_neighbourhood: HashMap<Neighbourhood, usize>,
    known: BTreeMap<u64, (TenantName, Arc<Connection>)>,
}

impl Table {
    pub(crate) fn new(slots: Slots, metrics: ConnectionMetrics) -> Arc<Self> {
        Arc::new(Self { slots, rows: Mutex::default(), metrics })
    }

    /// How many connections there may be.
    pub(super) fn slots(&self) -> usize {
        self.slots.all
    }

    /// Enters a newcomer; another connection may have to end for it. `None` where every one is protected.
    pub(super) fn admit(self: &Arc<Self>, peer: IpAddr) -> Option<Arc<Connection>> {
        let peer = peer.to_canonical();
        let is_trusted = self.slots.trusted_peers.iter().any(|net| net.contains(&peer));
        let neighbourhood = (!is_trusted).then(|| Neighbourhood::of(peer));
        let mut rows = self.lock();
        if let Some(of) = neighbourhood
            && rows.per_neighbourhood.get(&of).copied().unwrap_or(0) >= self.slots.unknown_per_neighbourhood
        {
            let oldest =
                oldest(rows.unknown.range((neighbourhood, 0)..=(neighbourhood, u64::MAX)).map(|(_, it)| it));
            self.end(&mut rows, oldest, Reason::Neighbourhood);
        }
        if rows.unknown.len() + rows.known.len() >= self.slots.all {
            let victim = oldest(rows.unknown.values()).or_else(|| rows.idle_of_the_largest());
            if victim.is_none() {
                self.metrics.ended(Reason::Full);
                self.metrics.tell(Reason::Full, peer);
                return None;
            }
            self.end(&mut rows, victim, Reason::Full);
        }
        let id = rows.next_id;
        rows.next_id += 1;
        let connection = Arc::new(Connection::new(id, peer, neighbourhood, Arc::clone(self)));
        rows.unknown.insert((neighbourhood, id), Arc::clone(&connection));
        if let Some(of) = neighbourhood {
            *rows.per_neighbourhood.entry(of).or_default() += 1;
        }
        self.show(&rows);
        Some(connection)
    }

    fn end(&self, rows: &mut Rows, connection: Option<Arc<Connection>>, reason: Reason) {
        let Some(connection) = connection else { return };
        rows.remove(&connection);
        connection.end();
        self.metrics.ended(reason);
        self.metrics.tell(reason, connection.peer);
    }

    /// A key has been shown on it.
    pub(super) fn know(&self, connection: &Arc<Connection>, tenant: &TenantName) {
        let mut rows = self.lock();
        // One that has to make room at this moment is not entered again.
        if rows.remove(connection) {
            rows.known.insert(connection.id, (tenant.clone(), Arc::clone(connection)));
        }
        self.show(&rows);
    }

    /// Its socket is closed.
    pub(super) fn remove(&self, connection: &Connection) {
        let mut rows = self.lock();
        rows.remove(connection);
        self.show(&rows);
    }

    fn show(&self, rows: &Rows) {
        self.metrics.open(rows.unknown.len(), rows.known.len());
    }

    fn lock(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of those without a key: who waits for an answer stays before who does not.
fn oldest<'c>(connections: impl Iterator<Item = &'c Arc<Connection>>) -> Option<Arc<Connection>> {
    connections.min_by_key(|it| (it.is_busy(), it.last_of_use())).cloned()
}

impl Rows {
    /// Whether it was there.
    fn remove(&mut self, connection: &Connection) -> bool {
        if self.unknown.remove(&(connection.neighbourhood, connection.id)).is_none() {
            return self.known.remove(&connection.id).is_some();
        }
        if let Some(of) = connection.neighbourhood
            && let Some(count) = self.per_neighbourhood.get_mut(&of)
        {
            *count -= 1;
            if *count == 0 {
                self.per_neighbourhood.remove(&of);
            }
        }
        true
    }

    /// The longest idle one of the tenant that has most of them.
    fn idle_of_the_largest(&self) -> Option<Arc<Connection>> {
        let mut idle: HashMap<&TenantName, Vec<&Arc<Connection>>> = HashMap::new();
        for (tenant, connection) in self.known.values() {
            if !connection.is_protected() {
                idle.entry(tenant).or_default().push(connection);
            }
        }
        oldest(idle.into_values().max_by_key(Vec::len)?.into_iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(all: usize, per_neighbourhood: usize, trusted: &[&str]) -> Arc<Table> {
        let trusted_peers = trusted.iter().map(|net| net.parse().unwrap()).collect();
        let slots = Slots { all, unknown_per_neighbourhood: per_neighbourhood, trusted_peers };
        Table::new(slots, ConnectionMetrics::default())
    }

    fn from(table: &Arc<Table>, peer: &str) -> Arc<Connection> {
        table.admit(peer.parse().unwrap()).unwrap()
    }

    fn has_ended(connection: &Connection) -> bool {
        connection.has_ended()
    }

    #[test]
    fn who_has_too_many_loses_its_own_oldest_and_nobody_elses() {
        let table = table(100, 2, &["10.0.0.0/8"]);
        let other = from(&table, "192.0.2.9");
        for (first, second, third) in [
            ("192.0.2.1", "192.0.2.1", "::ffff:192.0.2.1"),
            ("2001:db8:0:1::1", "2001:db8:0:1::2", "2001:db8:0:1:ffff::3"),
        ] {
            let held = [from(&table, first), from(&table, second), from(&table, third)];
            assert_eq!(held.each_ref().map(|it| has_ended(it)), [true, false, false], "{first}");
        }
        let elsewhere = from(&table, "2001:db8:0:2::1");
        let trusted: Vec<_> = (0..10).map(|_| from(&table, "10.1.2.3")).collect();
        assert!(!has_ended(&other) && !has_ended(&elsewhere) && !trusted.iter().any(|it| has_ended(it)));
    }

    #[test]
    fn a_newcomer_takes_the_place_of_who_has_no_key_before_who_has_one() {
        let (acme, other) = (TenantName::parse("acme").unwrap(), TenantName::parse("other").unwrap());
        let table = table(5, 100, &[]);
        let open: Vec<_> = (0..5).map(|n| from(&table, &format!("192.0.2.{n}"))).collect();
        for (connection, tenant) in open[..4].iter().zip([&acme, &acme, &acme, &other]) {
            connection.request_begins(false);
            connection.request_is_of(tenant);
        }
        let newcomer = from(&table, "192.0.2.50");
        assert!(has_ended(&open[4]) && open[..4].iter().all(|it| !has_ended(it)));
        newcomer.request_begins(false);
        newcomer.request_is_of(&other);
        assert!(
            table.admit("192.0.2.51".parse().unwrap()).is_none(),
            "every request is somebody's with a key"
        );
        for connection in [&open[0], &open[1], &open[3]] {
            connection.request_ends(true);
        }
        let _late = from(&table, "192.0.2.52");
        let ended: Vec<bool> = open[..4].iter().map(|it| has_ended(it)).collect();
        assert_eq!(ended.iter().filter(|ended| **ended).count(), 1, "{ended:?}");
        assert!(ended[0] || ended[1], "the tenant with most idle ones gives one: {ended:?}");
    }

    #[test]
    fn what_has_ended_is_not_kept() {
        let table = table(10, 10, &[]);
        let connection = from(&table, "192.0.2.1");
        connection.request_begins(true);
        connection.request_is_of(&TenantName::parse("acme").unwrap());
        let unknown = from(&table, "192.0.2.1");
        table.remove(&unknown);
        table.remove(&connection);
        table.remove(&connection);
        let rows = table.lock();
        assert!(rows.unknown.is_empty() && rows.known.is_empty() && rows.per_neighbourhood.is_empty());
    }
}
