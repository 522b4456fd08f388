//! The state of one connection: what it waits for, whose requests are in flight on it, and when it is at its end.

use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use palisade_protocol::{Error, ErrorKind, TenantName};
use tokio_util::sync::CancellationToken;

use super::metrics::Reason;
use super::table::{Neighbourhood, Table};

/// One connection, as its task, its requests and the table see it.
pub(crate) struct Connection {
    pub(super) id: u64,
    pub(super) peer: IpAddr,
    /// `None` for a trusted peer.
    pub(super) neighbourhood: Option<Neighbourhood>,
    table: Arc<Table>,
    began: Instant,
    /// When it was last of use, in milliseconds after `began`.
    since_ms: AtomicU64,
    /// When the first byte of the head that is awaited came, likewise; [`NO_HEAD`] while none is begun.
    head_since_ms: AtomicU64,
    in_flight: AtomicUsize,
    /// Those of them that somebody with a key asked.
    protected: AtomicUsize,
    /// Whether an answer waits for its reader.
    is_blocked: AtomicBool,
    has_begun_head: AtomicBool,
    is_http2: AtomicBool,
    is_known: AtomicBool,
    ended: CancellationToken,
    farewell: OnceLock<&'static str>,
}

const NO_HEAD: u64 = u64::MAX;

/// Why a connection that does nothing is at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    Head,
    Idle,
}

/// How long what may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// A request's head from its first byte, and the first one from the connection's beginning.
    pub(crate) head: Duration,
    /// No request in flight.
    pub(crate) idle: Duration,
}

impl Connection {
    pub(super) fn new(
        id: u64,
        peer: IpAddr,
        neighbourhood: Option<Neighbourhood>,
        table: Arc<Table>,
    ) -> Self {
        Self {
            id,
            peer,
            neighbourhood,
            table,
            began: Instant::now(),
            since_ms: AtomicU64::new(0),
            head_since_ms: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            protected: AtomicUsize::new(0),
            is_blocked: AtomicBool::new(false),
            has_begun_head: AtomicBool::new(false),
            is_http2: AtomicBool::new(false),
            is_known: AtomicBool::new(false),
            ended: CancellationToken::new(),
            farewell: OnceLock::new(),
        }
    }

    /// Tells it to make room.
    pub(super) fn end(&self) {
        let _ = self.farewell.set("server.busy");
        self.ended.cancel();
    }

    #[cfg(test)]
    pub(super) fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Whether somebody with a key waits for an answer on it.
    pub(super) fn is_protected(&self) -> bool {
        self.protected.load(Relaxed) > 0
    }

    pub(super) fn last_of_use(&self) -> Instant {
        self.began + Duration::from_millis(self.since_ms.load(Relaxed))
    }

    pub(crate) fn neighbourhood(&self) -> Option<Neighbourhood> {
        self.neighbourhood
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn is_busy(&self) -> bool {
        self.in_flight.load(Relaxed) > 0
    }

    pub(super) fn has_read(&self) {
        // HTTP/2 has frames of other kinds; a head that stays half there is ended with the idle time.
        if self.is_busy() || self.is_http2.load(Relaxed) {
            return;
        }
        self.has_begun_head.store(true, Relaxed);
        if self.head_since_ms.load(Relaxed) == NO_HEAD {
            self.head_since_ms.store(self.now_ms(), Relaxed);
        }
    }

    pub(super) fn has_written(&self, went_out: bool) {
        if self.is_blocked.swap(!went_out, Relaxed) && went_out {
            self.since_ms.store(self.now_ms(), Relaxed);
        }
    }

    /// A request's head is there.
    pub(crate) fn request_begins(&self, is_http2: bool) {
        self.in_flight.fetch_add(1, Relaxed);
        self.head_since_ms.store(NO_HEAD, Relaxed);
        self.has_begun_head.store(false, Relaxed);
        self.is_http2.store(is_http2, Relaxed);
    }

    /// It was asked by a tenant. The request is protected from here on, and the connection counts as the tenant's.
    pub(crate) fn request_is_of(self: &Arc<Self>, tenant: &TenantName) {
        self.protected.fetch_add(1, Relaxed);
        if !self.is_known.swap(true, Relaxed) {
            self.table.know(self, tenant);
        }
    }

    /// Its answer has been read.
    pub(crate) fn request_ends(&self, was_protected: bool) {
        if was_protected {
            self.protected.fetch_sub(1, Relaxed);
        }
        self.since_ms.store(self.now_ms(), Relaxed);
        self.in_flight.fetch_sub(1, Relaxed);
    }

    /// When it is at its end if nothing happens. Who is busy is looked at again.
    pub(super) fn deadline(&self, times: Times) -> Instant {
        let after = |ms: u64| self.began + Duration::from_millis(ms);
        if self.is_busy() || self.is_blocked.load(Relaxed) {
            return Instant::now() + times.idle;
        }
        match self.head_since_ms.load(Relaxed) {
            NO_HEAD => after(self.since_ms.load(Relaxed)) + times.idle,
            since => after(since) + times.head,
        }
    }

    pub(super) fn overdue(&self, times: Times) -> Option<Overdue> {
        let is_head = self.head_since_ms.load(Relaxed) != NO_HEAD;
        let why = if is_head { Overdue::Head } else { Overdue::Idle };
        (self.deadline(times) <= Instant::now()).then_some(why)
    }

    /// Begins its idle time anew.
    pub(super) fn touch(&self) {
        self.since_ms.store(self.now_ms(), Relaxed);
    }

    /// The head did not come in its time.
    pub(super) fn gives_up_head(&self) {
        self.table.metrics.ended(Reason::HeadTimeout);
        let _ = self.farewell.set("request.head_timeout");
    }

    pub(super) fn is_idle_for_too_long(&self) {
        self.table.metrics.ended(Reason::Idle);
    }

    /// Completes when it has to make room.
    pub(super) async fn makes_room(&self) {
        self.ended.cancelled().await;
    }

    /// What its client is told last, where it has begun to say something and nothing was answered.
    pub(super) fn farewell(&self) -> Option<Error> {
        let code = *self.farewell.get()?;
        let was_asked = self.has_begun_head.load(Relaxed) && !self.is_busy();
        was_asked.then(|| match code {
            "request.head_timeout" => {
                Error::new(ErrorKind::TimedOut, code, "the request's head did not come in time")
            }
            _ => busy(),
        })
    }
}

/// There is no room for a connection.
pub(super) fn busy() -> Error {
    Error::new(ErrorKind::Unavailable, "server.busy", "too many connections are waiting; try again")
        .retry_after(1)
}
