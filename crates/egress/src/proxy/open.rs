//! The one way out: judge by name → limits → record → resolve → judge the addresses → dial → TLS, where the destination has it.
//! Whatever is opened here is in the list that a new policy is held against, and leaves exactly one record at its end.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use palisade_protocol::limits::EGRESS_ADDRESSES_TRIED_MAX;
use rustls::pki_types::{IpAddr as NameIp, ServerName};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::{DoorState, Shared};
use crate::{
    Destination, Grant, Host, Kind, Policy, Principal, Reason, Record, Scheme, Stream, tls::TlsFault,
};

/// How long a connection to an upstream is kept for a client's next request: less than servers keep theirs.
const KEPT: Duration = Duration::from_secs(4);

/// What is open, so that a new policy can be held against it.
#[derive(Default)]
pub(super) struct OpenConnections {
    by_number: Mutex<HashMap<u64, Held>>,
    next: AtomicU64,
}

struct Held {
    principal: Principal,
    destination: Destination,
    not_allowed: CancellationToken,
}

/// A connection to an upstream, and what its record will say.
pub(super) struct Opened {
    pub(super) upstream: Stream,
    pub(super) address: IpAddr,
    pub(super) way: Way,
}

/// A connection from its judgement to its record.
pub(super) struct Way {
    shared: Arc<Shared>,
    pub(super) door: Arc<DoorState>,
    number: u64,
    not_allowed: CancellationToken,
    pub(super) grant: Grant,
    pub(super) destination: Destination,
    pub(super) traffic: Traffic,
    began: Instant,
    record: Record,
}

/// Bytes that passed.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    pub(super) up: AtomicU64,
    pub(super) down: AtomicU64,
}

/// What is asked for, as far as records name it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'r> {
    pub(super) destination: &'r Destination,
    pub(super) method: &'r str,
    pub(super) path: &'r str,
}

/// A connection to an upstream whose request is over, and which can take another to the same destination.
pub(super) struct Kept {
    pub(super) upstream: Stream,
    pub(super) address: IpAddr,
    pub(super) destination: Destination,
    pub(super) since: Instant,
}

/// Opens a connection, or goes on with one that was kept. `check` is what the request itself has to say to the policy's grant; the name
/// of a credential comes of it. A refusal has its record by the time it is returned.
pub(super) async fn open(
    shared: &Arc<Shared>,
    door: &Arc<DoorState>,
    request: Request<'_>,
    kept: Option<Kept>,
    check: impl FnOnce(&Grant) -> Result<Option<String>, Reason>,
) -> Result<Opened, Reason> {
    let admitted = admit(shared, door, request.destination).and_then(|grant| Ok((check(&grant)?, grant)));
    let (credential, grant) = match admitted {
        Ok(admitted) => admitted,
        Err(reason) => {
            let record = Record::new(Kind::Refused, shared.connection_id(), Some(&door.principal));
            let record = record.to(request.destination).asked(request.method, request.path);
            return Err(shared.record_refusal(record, reason).await);
        }
    };
    let mut way = Way::new(shared, door, grant, request);
    way.record.cred_id = credential;
    // From here on a new policy finds it; one that came while it was judged is asked once more.
    if let Err(reason) = shared.policy.load().judge(&door.principal, request.destination) {
        way.record.kind = Kind::Refused;
        return Err(way.refuse(reason).await);
    }
    let mut opening = way.record.clone();
    opening.kind = Kind::Open;
    shared.audit.append(opening).await?;
    let ended = way.ended();
    let connected = tokio::select! {
        connected = way.connect(kept) => connected,
        reason = ended => Err(reason),
    };
    match connected {
        Ok((address, upstream)) => Ok(Opened { upstream, address, way }),
        Err(reason) => Err(way.refuse(reason).await),
    }
}

/// By name and by what the session has left; nothing leaves the process for this.
fn admit(shared: &Shared, door: &DoorState, destination: &Destination) -> Result<Grant, Reason> {
    let grant = shared.policy.load().judge(&door.principal, destination)?;
    if !door.usage.has_bytes_left() {
        return Err(Reason::SessionBytes);
    }
    if let (true, Host::Name(name)) = (grant.wildcard, &destination.host) {
        door.usage.count_name(name)?;
    }
    Ok(grant)
}

impl Shared {
    /// Writes why; what cannot be recorded is refused for that.
    pub(super) async fn record_refusal(&self, mut record: Record, reason: Reason) -> Reason {
        record.decision = "refuse";
        record.ended_by(reason);
        record.status = Some(reason.status());
        match self.audit.append(record).await {
            Ok(()) => reason,
            Err(unavailable) => unavailable,
        }
    }
}

impl Way {
    fn new(shared: &Arc<Shared>, door: &Arc<DoorState>, grant: Grant, request: Request<'_>) -> Self {
        let mut record = Record::new(Kind::Close, shared.connection_id(), Some(&door.principal))
            .to(request.destination)
            .asked(request.method, request.path);
        record.rule_id = Some(grant.rule.to_string());
        let not_allowed = CancellationToken::new();
        let held = Held {
            principal: door.principal.clone(),
            destination: request.destination.clone(),
            not_allowed: not_allowed.clone(),
        };
        Self {
            shared: shared.clone(),
            door: door.clone(),
            number: shared.open.hold(held),
            not_allowed,
            grant,
            destination: request.destination.clone(),
            traffic: Traffic::default(),
            began: Instant::now(),
            record,
        }
    }

    /// A connection that was kept was judged when it was made; its principal and destination are the same.
    async fn connect(&mut self, kept: Option<Kept>) -> Result<(IpAddr, Stream), Reason> {
        let fits = |kept: &Kept| {
            kept.destination == self.destination && kept.since.elapsed() < KEPT && kept.upstream.is_quiet()
        };
        let (address, stream) = match kept.filter(fits) {
            Some(kept) => (kept.address, kept.upstream),
            None => self.dial().await?,
        };
        self.record.ip = Some(address);
        if self.destination.scheme == Scheme::Https && !stream.is_tls() {
            return Ok((address, self.start_tls(stream).await?));
        }
        Ok((address, stream))
    }

    /// The upstream proves to be the host before anything is said to it.
    async fn start_tls(&self, stream: Stream) -> Result<Stream, Reason> {
        let name = match &self.destination.host {
            Host::Name(name) => ServerName::try_from(name.to_string()).map_err(|_| Reason::HostInvalid)?,
            Host::Ip(address) => ServerName::IpAddress(NameIp::from(*address)),
        };
        let shaking = stream.into_tls_client(self.shared.trust.client.clone(), name);
        match tokio::time::timeout(self.shared.settings.dial_timeout, shaking).await {
            Err(_) => Err(Reason::DialTimeout),
            Ok(Err(TlsFault(reason))) => Err(reason),
            Ok(Ok(stream)) => Ok(stream),
        }
    }

    /// Resolves once, judges every address, and dials what was judged and nothing else.
    async fn dial(&mut self) -> Result<(IpAddr, Stream), Reason> {
        let addresses = match &self.destination.host {
            Host::Ip(address) => vec![*address],
            Host::Name(name) => {
                let found = self.shared.resolver.resolve(name).await?;
                self.record.aliases = found.aliases;
                found.addresses
            }
        };
        let own_listeners = self.shared.own_listeners();
        let mut allowed = Vec::with_capacity(addresses.len());
        let mut refusal = Reason::ResolveFailed;
        for address in addresses {
            let at = SocketAddr::new(address, self.destination.port);
            match self.grant.addresses.judge(at, &own_listeners) {
                Ok(()) => allowed.push(at),
                Err(reason) => {
                    self.record.ips_refused.push(address);
                    refusal = reason;
                }
            }
        }
        for at in allowed.into_iter().take(EGRESS_ADDRESSES_TRIED_MAX) {
            match tokio::time::timeout(self.shared.settings.dial_timeout, TcpStream::connect(at)).await {
                Ok(Ok(stream)) => return Ok((at.ip(), stream.into())),
                Ok(Err(_)) => refusal = Reason::DialFailed,
                Err(_) => refusal = Reason::DialTimeout,
            }
        }
        Err(refusal)
    }

    /// Waits until it may not go on, for a reason that lies with neither side.
    pub(super) fn ended(&self) -> impl Future<Output = Reason> + use<> {
        let (not_allowed, ending) = (self.not_allowed.clone(), self.shared.ending.clone());
        let closed = self.door.closed.clone();
        async move {
            tokio::select! {
                () = not_allowed.cancelled() => Reason::PolicyChanged,
                () = ending.cancelled() => Reason::Shutdown,
                () = closed.cancelled() => Reason::DoorClosed,
            }
        }
    }

    pub(super) fn saw_server_name(&mut self, name: String) {
        self.record.sni = Some(name);
    }

    async fn refuse(self, reason: Reason) -> Reason {
        let mut record = self.record.clone();
        record.ms = Some(elapsed_ms(self.began));
        self.shared.record_refusal(record, reason).await
    }

    /// Writes the last record; `refused` if what came after the dial was let nowhere.
    pub(super) async fn close(self, reason: Reason, status: Option<u16>) {
        let mut record = self.record.clone();
        record.ended_by(reason);
        record.status = status;
        record.bytes_up = Some(self.traffic.up.load(Relaxed));
        record.bytes_down = Some(self.traffic.down.load(Relaxed));
        record.ms = Some(elapsed_ms(self.began));
        // What was refused is recorded before anybody is told; what is over needs nobody to wait.
        let recorded = if is_refusal(reason) {
            record.decision = "refuse";
            self.shared.audit.append(record).await
        } else {
            self.shared.audit.hand_over(record).await
        };
        if recorded.is_err() {
            tracing::error!(conn = self.record.conn, "a connection's close record could not be written");
        }
    }
}

/// Whether it was ours to say no, after the dial.
fn is_refusal(reason: Reason) -> bool {
    !matches!(
        reason,
        Reason::Done
            | Reason::UpstreamBroke
            | Reason::AnswerTruncated
            | Reason::ClientBroke
            | Reason::IdleTimeout
            | Reason::Shutdown
            | Reason::DoorClosed
            | Reason::ClientTlsFailed
    )
}

impl Drop for Way {
    fn drop(&mut self) {
        self.shared.open.release(self.number);
    }
}

fn elapsed_ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

impl OpenConnections {
    fn hold(&self, held: Held) -> u64 {
        let number = self.next.fetch_add(1, Relaxed);
        if let Ok(mut open) = self.by_number.lock() {
            open.insert(number, held);
        }
        number
    }

    fn release(&self, number: u64) {
        if let Ok(mut open) = self.by_number.lock() {
            open.remove(&number);
        }
    }

    pub(super) fn count(&self) -> usize {
        self.by_number.lock().map_or(0, |open| open.len())
    }

    /// Ends what this policy does not allow; how many that are comes back.
    pub(super) fn judge_again(&self, policy: &Policy) -> usize {
        let Ok(open) = self.by_number.lock() else { return 0 };
        let refused = open.values().filter(|held| policy.judge(&held.principal, &held.destination).is_err());
        refused.map(|held| held.not_allowed.cancel()).count()
    }
}
