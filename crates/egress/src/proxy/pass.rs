//! The way in for a server in another process: a connection begins with one line that says whose it is, signed with a key that only the
//! two know. Behind the line it is like any other. Passes are short-lived, so that one that was seen is soon worth nothing.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use aws_lc_rs::hmac;
use palisade_protocol::id::{SessionId, TenantName};
use secrecy::{ExposeSecret, SecretString};
use tokio::net::{TcpListener, UnixListener};

use super::{ACCEPT_PAUSE, DoorState, Shared, connection, lend, threads::Arrived, usage::DoorLimits};
use crate::{EgressError, Kind, Principal, Reason, Record, Stream};

/// What the line begins with; the version is part of what is signed.
const GREETING: &str = "PALISADE/1";
/// Asks for the session's certificate authority instead of a connection.
pub(super) const TRUST_ANCHOR: &str = "trust-anchor";
/// The line, in bytes.
const LINE_BYTES_MAX: usize = 512;
/// How long a pass is good for. Clocks of one site differ by less.
const PASS_LIFE: Duration = Duration::from_secs(60);
/// The shortest key, in bytes.
const KEY_BYTES_MIN: usize = 32;
/// Wrong passes of one peer in a minute that are answered in the usual way.
const WRONG_PER_MINUTE_MAX: u32 = 20;
/// Peers whose wrong passes are counted; beyond it all are forgotten.
const PEERS_MAX: usize = 1_024;
/// A door that nobody has come through for so long is forgotten, and with it what its session has used.
const DOOR_KEPT: Duration = Duration::from_secs(24 * 3600);
/// Doors that are kept; over: the oldest idle ones go.
const DOORS_MAX: usize = 10_000;

/// What signs passes.
#[derive(Clone)]
pub struct PassKey(Arc<hmac::Key>);

impl std::fmt::Debug for PassKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("PassKey").finish_non_exhaustive()
    }
}

impl PassKey {
    /// A key of at least 32 bytes.
    pub fn new(secret: &SecretString) -> Result<Self, EgressError> {
        let bytes = secret.expose_secret().as_bytes();
        if bytes.len() < KEY_BYTES_MIN {
            return Err(EgressError::PassKey { bytes_min: KEY_BYTES_MIN });
        }
        Ok(Self(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, bytes))))
    }

    /// The line that a connection of this principal's begins with.
    pub(super) fn line(&self, principal: &Principal, asked: &str) -> String {
        let (kind, tenant, session) = match principal {
            Principal::Router => ("router", "-", "-"),
            Principal::Service => ("service", "-", "-"),
            Principal::Session { tenant, session } => ("session", tenant.as_str(), session.as_str()),
        };
        let until = jiff::Timestamp::now().as_second() + PASS_LIFE.as_secs().cast_signed();
        let said = format!("{GREETING} {kind} {tenant} {session} {until} {asked}");
        let signature = hmac::sign(&self.0, said.as_bytes());
        let signature = signature.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        format!("{said} {signature}\r\n")
    }

    /// Whose line it is, and what it asks for.
    fn check<'l>(&self, line: &'l str) -> Option<(Principal, &'l str)> {
        let (said, signature) = line.rsplit_once(' ')?;
        let signature = from_hex(signature)?;
        hmac::verify(&self.0, said.as_bytes(), &signature).ok()?;
        let words: Vec<&str> = said.split(' ').collect();
        let [GREETING, kind, tenant, session, until, asked] = words.as_slice() else { return None };
        let now = jiff::Timestamp::now().as_second();
        let until: i64 = until.parse().ok()?;
        if until < now || until > now + 2 * PASS_LIFE.as_secs().cast_signed() {
            return None;
        }
        let principal = match *kind {
            "router" => Principal::Router,
            "service" => Principal::Service,
            "session" => Principal::Session {
                tenant: TenantName::parse(tenant).ok()?,
                session: SessionId::parse(session).ok()?,
            },
            _ => return None,
        };
        Some((principal, asked))
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
        u8::from_str_radix(pair, 16).ok()
    });
    digits.collect()
}

/// A way in that tells principals apart by their passes.
#[derive(Clone)]
pub struct PassDoor {
    shared: Arc<Shared>,
    guard: Arc<Guard>,
}

struct Guard {
    key: PassKey,
    limits: DoorLimits,
    /// Where servers put their vault. None: the proxy has one.
    lent: Option<lend::LentVault>,
    doors: Mutex<HashMap<Principal, (Arc<DoorState>, Instant)>>,
    wrong: Mutex<HashMap<IpAddr, (Instant, u32)>>,
}

impl PassDoor {
    pub(super) fn new(
        shared: Arc<Shared>,
        key: PassKey,
        limits: DoorLimits,
        lent: Option<lend::LentVault>,
    ) -> Self {
        let (doors, wrong) = (Mutex::default(), Mutex::default());
        Self { shared, guard: Arc::new(Guard { key, limits, lent, doors, wrong }) }
    }

    /// Serves whoever connects here until the proxy stops.
    pub fn listen(&self, listener: TcpListener) {
        let guard = self.guard.clone();
        let take_in = move |shared: &Arc<Shared>, stream: Arrived, peer: SocketAddr| {
            take_in(shared, &guard, stream, Some(peer.ip()));
        };
        self.shared.listen(listener, self.shared.stopping.clone(), take_in);
    }

    /// The same at a socket of the file system, whose rights are the operator's to set.
    pub fn listen_at(&self, path: &Path) -> std::io::Result<()> {
        // One that a killed process left behind would refuse every connection.
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path)?;
        let (shared, guard) = (self.shared.clone(), self.guard.clone());
        self.shared.tasks.spawn(async move {
            loop {
                tokio::select! {
                    accepted = listener.accept() => match accepted.and_then(|(stream, _)| stream.try_into()) {
                        Ok(stream) => take_in(&shared, &guard, stream, None),
                        Err(error) => {
                            tracing::warn!(%error, "the egress proxy could not accept a connection");
                            tokio::time::sleep(ACCEPT_PAUSE).await;
                        }
                    },
                    () = shared.stopping.cancelled() => return,
                }
            }
        });
        Ok(())
    }
}

fn take_in(shared: &Arc<Shared>, guard: &Arc<Guard>, stream: Arrived, peer: Option<IpAddr>) {
    let (served, guard) = (shared.clone(), guard.clone());
    shared.serve(stream, move |stream| greet(served, guard, stream, peer));
}

/// Reads the line and serves what it asks for.
async fn greet(shared: Arc<Shared>, guard: Arc<Guard>, stream: Stream, peer: Option<IpAddr>) {
    let mut client = connection::Client::new(stream);
    let line = tokio::time::timeout(shared.settings.head_timeout, client.read_line(LINE_BYTES_MAX)).await;
    let line = line.ok().flatten().unwrap_or_default();
    // Secrets cross no network in the clear.
    let is_allowed = |(_, asked): &(Principal, &str)| *asked != lend::VAULT || peer.is_none();
    let Some((principal, asked)) = guard.key.check(&line).filter(is_allowed) else {
        let reason = guard.count_wrong(peer);
        let record = Record::new(Kind::Refused, shared.connection_id(), None);
        let reason = shared.record_refusal(record, reason).await;
        return client.answer_refusal(reason).await;
    };
    if asked == lend::VAULT {
        return borrow(&shared, &guard, client).await;
    }
    let door = match guard.door(&shared, principal, asked == TRUST_ANCHOR) {
        Ok(door) => door,
        Err(error) => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "a session's certificate authority was not made"
            );
            return client.answer_refusal(Reason::InterceptionUnavailable).await;
        }
    };
    if asked == TRUST_ANCHOR {
        let anchor = door.trust_anchor().unwrap_or_default();
        // Whoever asked may have gone.
        let _ = client.stream.write_all(anchor.as_bytes()).await;
        return client.stream.finish_writing();
    }
    connection::serve_client(shared, door, client).await;
}

/// Takes a server's vault, where there is none.
async fn borrow(shared: &Shared, guard: &Guard, mut client: connection::Client) {
    let served = match &guard.lent {
        Some(lent) => lend::serve(shared, lent, &mut client).await,
        None => lend::decline(&mut client).await,
    };
    if let Err(error) = served {
        tracing::warn!(%error, "a server's vault was lost");
    }
}

impl Guard {
    /// The principal's door; with a new authority if it is for a new sandbox and the old one is not current.
    fn door(
        &self,
        shared: &Shared,
        principal: Principal,
        renew: bool,
    ) -> Result<Arc<DoorState>, EgressError> {
        let mut doors = self.doors.lock().unwrap_or_else(PoisonError::into_inner);
        if doors.len() >= DOORS_MAX {
            doors.retain(|_, (door, used)| door.usage.connections() > 0 || used.elapsed() < DOOR_KEPT);
        }
        let door = match doors.get(&principal) {
            Some((door, _)) if !renew || door.is_current(shared) => door.clone(),
            Some((door, _)) => Arc::new(door.again(shared)?),
            None => Arc::new(DoorState::new(shared, principal.clone(), self.limits)?),
        };
        doors.insert(principal, (door.clone(), Instant::now()));
        Ok(door)
    }

    /// Right passes are never held up by a neighbour's wrong ones: one address may be many servers.
    fn count_wrong(&self, peer: Option<IpAddr>) -> Reason {
        let Some(peer) = peer else { return Reason::TokenRefused };
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        if wrong.len() >= PEERS_MAX && !wrong.contains_key(&peer) {
            wrong.clear();
        }
        let (since, count) = wrong.entry(peer).or_insert((Instant::now(), 0));
        if since.elapsed() >= Duration::from_secs(60) {
            (*since, *count) = (Instant::now(), 0);
        }
        *count += 1;
        if *count > WRONG_PER_MINUTE_MAX { Reason::TokenAttempts } else { Reason::TokenRefused }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> PassKey {
        PassKey::new(&text.repeat(KEY_BYTES_MIN).into()).expect("long enough")
    }

    fn session() -> Principal {
        Principal::Session {
            tenant: TenantName::parse("acme").expect("a name"),
            session: SessionId::parse("sess_0123456789ab").expect("an id"),
        }
    }

    /// EG-J1: what is signed is what counts, all of it, and not for long.
    #[test]
    fn a_pass_is_its_principals_and_nobody_elses() {
        let signer = key("k");
        for principal in [Principal::Router, Principal::Service, session()] {
            let line = signer.line(&principal, "connect");
            let line = line.trim_end();
            assert_eq!(signer.check(line), Some((principal, "connect")), "{line}");
            assert_eq!(key("x").check(line), None);
            for at in 0..line.len() {
                let mut changed = line.as_bytes().to_vec();
                changed[at] ^= 1;
                let changed = String::from_utf8(changed).expect("text");
                assert_eq!(signer.check(&changed), None, "{changed}");
            }
        }
        assert!(PassKey::new(&"short".to_owned().into()).is_err());
    }

    #[test]
    fn a_pass_ends() {
        let signer = key("k");
        for (until, good) in [(-1, false), (1, true), (119, true), (600, false)] {
            let until = jiff::Timestamp::now().as_second() + until;
            let said = format!("{GREETING} router - - {until} connect");
            let signature = hmac::sign(&signer.0, said.as_bytes());
            let signature = signature.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            assert_eq!(signer.check(&format!("{said} {signature}")).is_some(), good, "{until}");
        }
    }
}
