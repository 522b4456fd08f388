//! Sessions end by themselves: after their `ttl`, whatever they do, and when idle for too long after a response.
//! When is read from the store and never from traffic, so that neither a reader nor a restart moves it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use palisade_protocol::{Error, ErrorKind, Session, SessionId, TenantName, limits};
use palisade_store::{DueSession, StoreError, TurnState};
use tokio::sync::watch;

use crate::Rooms;
use crate::clock::{JUMP_GRACE, now};
use crate::tenant::Tenant;

/// The longest pause between two looks; shorter than any session can live, so that none falls due unseen.
const LOOK: Duration = Duration::from_secs(1);
/// The shortest one: what is due now may take a moment.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// The pause after a failure: a full disk is not helped by haste.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(5);
/// Sessions taken from the store in one look.
const BATCH_MAX: i64 = 64;
/// After a longer pause, in seconds, only the wall clock says how long it was.
const BELIEVED_DOWNTIME_S: f64 = 3600.0;
/// Sessions that are destroyed at the same time.
const AT_ONCE_MAX: usize = 8;
/// How long a client waits for a session's end, and the other sessions that are due; it goes on all the same.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// How long another server may take to end a turn, and between two looks whether it has.
const ELSEWHERE_MAX: Duration = Duration::from_secs(3);
const ELSEWHERE_LOOK: Duration = Duration::from_millis(50);
/// After each try to remove a session's folder.
const REMOVAL_PAUSES: [Duration; 3] = [Duration::from_millis(20), Duration::from_millis(200), Duration::ZERO];
/// When a client should ask again whether a session that takes long is gone, in seconds.
const ENDING_RETRY_AFTER_S: u64 = 5;

/// Why a session is destroyed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Cause {
    /// A client said so.
    Deleted,
    /// A client said so of all that run no turn and were not active after this moment (Unix seconds).
    DeletedIfIdle { inactive_since: f64 },
    /// Its `ttl` is over.
    Expired,
    /// It was not used after its last response.
    Idle,
}

impl Cause {
    /// Whether the session stays if it has been used in the meantime.
    fn has_condition(self) -> bool {
        matches!(self, Self::Idle | Self::DeletedIfIdle { .. })
    }
}

/// Destroys sessions as they fall due, until the server drains.
pub(crate) async fn end_due_sessions(rooms: Arc<Rooms>) {
    let mut doubted = match Doubted::at_start(&rooms).await {
        Ok(doubted) => doubted,
        Err(error) => {
            tracing::error!(error = %palisade_protocol::chain(&error), "when sessions were used last is not known");
            Doubted::default()
        }
    };
    loop {
        let pause = match look(&rooms, &mut doubted).await {
            Ok(pause) => pause,
            Err(StoreError::Stopped) => return,
            Err(error) => {
                tracing::error!(
                    error = %palisade_protocol::chain(&error),
                    "due sessions could not be looked for"
                );
                PAUSE_AFTER_FAILURE
            }
        };
        tokio::select! {
            () = rooms.draining.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Sessions whose time was over when the server started, by a wall clock that nothing else bears out: they are looked at again
/// after a grace. A clock that is wrong at the start (a bad time server) would delete them for good.
#[derive(Default)]
struct Doubted {
    sessions: HashSet<SessionId>,
    until: Option<Instant>,
}

impl Doubted {
    async fn at_start(rooms: &Rooms) -> Result<Self, StoreError> {
        let away_s = rooms.store.last_activity().await?.map_or(0.0, |last| now() - last);
        if away_s < BELIEVED_DOWNTIME_S {
            return Ok(Self::default());
        }
        let idle_s = rooms.live().session_idle_s;
        let due = rooms.store.due_sessions(now(), idle_s, limits::SESSIONS_LISTED_MAX as i64).await?;
        let sessions: HashSet<_> = due.into_iter().map(|due| due.id).collect();
        if !sessions.is_empty() {
            tracing::warn!(
                sessions = sessions.len(),
                away_s,
                grace_s = JUMP_GRACE.as_secs(),
                "the time of these sessions is over if the wall clock is right; they are looked at again after a grace"
            );
        }
        Ok(Self { sessions, until: Some(Instant::now() + JUMP_GRACE) })
    }

    fn are_there(&mut self) -> bool {
        if self.until.is_some_and(|until| Instant::now() >= until) {
            *self = Self::default();
        }
        !self.sessions.is_empty()
    }
}

/// Destroys what is due now; how long until the next look.
async fn look(rooms: &Arc<Rooms>, doubted: &mut Doubted) -> Result<Duration, StoreError> {
    let are_some_doubted = doubted.are_there();
    let batch_max = BATCH_MAX + doubted.sessions.len() as i64;
    let due = rooms.store.due_sessions(now(), rooms.live().session_idle_s, batch_max).await?;
    let due = due.into_iter().filter(|due| !doubted.sessions.contains(&due.id));
    let ended: Vec<bool> =
        stream::iter(due).map(|due| end_session(rooms, due)).buffer_unordered(AT_ONCE_MAX).collect().await;
    if ended.contains(&false) {
        return Ok(PAUSE_AFTER_FAILURE);
    }
    if are_some_doubted {
        return Ok(LOOK);
    }
    let next = rooms.store.next_due(None, rooms.live().session_idle_s).await?;
    let until_next = next.and_then(|at| Duration::try_from_secs_f64((at - now()).max(0.0)).ok());
    Ok(until_next.unwrap_or(LOOK).clamp(PAUSE_MIN, LOOK))
}

/// Whether it is gone, or need not go any more.
async fn end_session(rooms: &Arc<Rooms>, due: DueSession) -> bool {
    // It goes on by itself and holds up nobody.
    if rooms.endings.is_running(&due.id) {
        return false;
    }
    let cause = if due.expired { Cause::Expired } else { Cause::Idle };
    match destroy_session(rooms, &due.tenant, &due.id, cause).await {
        Ok(()) => true,
        // Deleted or used in the meantime.
        Err(error) if error.kind == ErrorKind::NotFound => true,
        Err(error) => {
            tracing::error!(session = %due.id, error = %palisade_protocol::chain(&error), "a due session was not destroyed");
            false
        }
    }
}

/// Destroys a session: its turn ends, its sandbox with every process in it, its record and its own folder go. The
/// workspace and `.memory/` stay. In a task of its own, so that none is left half destroyed: who waits for it does
/// so for a bounded time, and it goes on without them.
pub(crate) async fn destroy_session(
    rooms: &Arc<Rooms>,
    tenant: &TenantName,
    id: &SessionId,
    cause: Cause,
) -> Result<(), Error> {
    let by = tokio::time::Instant::now() + WAIT_MAX;
    loop {
        let (mut known, running) = begin_or_join(rooms, tenant, id, cause);
        let outcome = match tokio::time::timeout_at(by, known.wait_for(Option::is_some)).await {
            Ok(Ok(outcome)) => outcome.clone(),
            Ok(Err(_)) => return Err(Error::bug("destroying a session panicked")),
            Err(_) => return Err(not_yet(rooms, id)),
        };
        match outcome {
            // That one had a condition, and we have none.
            Some(Err(error))
                if error.kind == ErrorKind::NotFound && running.has_condition() && !cause.has_condition() => {
            }
            Some(Err(error)) => {
                return Err(Error::new(error.kind, error.code, error.message.clone()).caused_by(error));
            }
            _ => return Ok(()),
        }
    }
}

/// What is known of an ending: nothing yet, how it went, or why it has not succeeded so far.
type Known = Option<Result<(), Arc<Error>>>;

/// The sessions that are being destroyed: one task each, however many ask for it.
#[derive(Default)]
pub(crate) struct Endings {
    running: Mutex<HashMap<SessionId, (Cause, watch::Receiver<Known>)>>,
}

impl Endings {
    fn is_running(&self, id: &SessionId) -> bool {
        self.lock().contains_key(id)
    }

    // The map is whole after any panic, so a poisoned lock is still good.
    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, (Cause, watch::Receiver<Known>)>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the session off the list, however its task ends.
struct OffTheList<'a>(&'a Endings, &'a SessionId);

impl Drop for OffTheList<'_> {
    fn drop(&mut self) {
        self.0.lock().remove(self.1);
    }
}

/// The ending that runs, or a new one; and its cause.
fn begin_or_join(
    rooms: &Arc<Rooms>,
    tenant: &TenantName,
    id: &SessionId,
    cause: Cause,
) -> (watch::Receiver<Known>, Cause) {
    let mut running = rooms.endings.lock();
    if let Some((cause, known)) = running.get(id) {
        return (known.clone(), *cause);
    }
    let (tell, known) = watch::channel(None);
    running.insert(id.clone(), (cause, known.clone()));
    let (rooms, tenant, id) = (rooms.clone(), tenant.clone(), id.clone());
    rooms.tasks.clone().spawn(async move {
        let listed = OffTheList(&rooms.endings, &id);
        let outcome = destroy_in_the_end(&rooms, &tenant, &id, cause, &tell).await;
        // Off the list first: whoever hears of a failure may begin anew.
        drop(listed);
        tell.send_replace(Some(outcome.map_err(Arc::new)));
    });
    (known, cause)
}

/// What a client asked for is tried until there is room; what falls due is looked for again anyway.
async fn destroy_in_the_end(
    rooms: &Rooms,
    tenant: &TenantName,
    id: &SessionId,
    cause: Cause,
    tell: &watch::Sender<Known>,
) -> Result<(), Error> {
    loop {
        match destroy(rooms, tenant, id, cause).await {
            Err(error) if error.kind == ErrorKind::StorageFull && cause == Cause::Deleted => {
                tracing::error!(session = %id, error = %palisade_protocol::chain(&error), "a session was not destroyed; trying again");
                tell.send_replace(Some(Err(Arc::new(no_room_yet()))));
            }
            outcome => return outcome,
        }
        tokio::select! {
            () = rooms.draining.cancelled() => return Err(no_room_yet()),
            () = tokio::time::sleep(PAUSE_AFTER_FAILURE) => {}
        }
    }
}

async fn destroy(rooms: &Rooms, tenant: &TenantName, id: &SessionId, cause: Cause) -> Result<(), Error> {
    match cause {
        // Decided by the store once more: a message may have come since it was found idle.
        Cause::Idle => {
            let since = now() - rooms.live().session_idle_s;
            rooms.store_of(tenant).delete_idle_session(tenant, id, since, true).await?;
        }
        Cause::DeletedIfIdle { inactive_since } => {
            rooms.store_of(tenant).delete_idle_session(tenant, id, inactive_since, false).await?;
        }
        Cause::Expired => {
            rooms.turns.expire_session(id).await;
            rooms.store_of(tenant).delete_session(tenant, id, now()).await?;
        }
        Cause::Deleted => {
            rooms.turns.cancel_session(id).await;
            cancel_elsewhere(rooms, tenant, id).await?;
            rooms.store_of(tenant).delete_session(tenant, id, now()).await?;
        }
    }
    rooms.scopes.forget(id);
    // From here on none can start; one may have slipped in before.
    rooms.turns.cancel_session(id).await;
    rooms.hands.close(id).await;
    if rooms.store.is_shared() {
        rooms.lease.end_sandboxes_elsewhere(&rooms.store.server(), id).await;
    }
    rooms.doors.forget(id);
    // A tenant that is not configured any more has no open workspace; should it come back, its start cleans up.
    if let Some(tenant) = rooms.live().tenants.get(tenant) {
        remove_folder(tenant, id).await;
        tenant.shelf.snapshots.look();
    }
    tracing::info!(tenant = %tenant, session = %id, ?cause, "session destroyed");
    Ok(())
}

/// The session is gone already, so that a failure is nobody's to repeat: what stays is a leftover, which is looked for.
async fn remove_folder(tenant: &Tenant, id: &SessionId) {
    for pause in REMOVAL_PAUSES {
        let Err(error) = tenant.remove_session(id).await else { return };
        tracing::warn!(session = %id, error = %palisade_protocol::chain(&error), "a session's folders were not removed");
        tokio::time::sleep(pause).await;
    }
}

/// Asks the server that drives the session's turn to end it, so that its readers hear of it. Bounded, for that server
/// may be dead; then the turn goes with its session.
async fn cancel_elsewhere(rooms: &Rooms, tenant: &TenantName, id: &SessionId) -> Result<(), StoreError> {
    let session = rooms.store_of(tenant).session(tenant, id).await?.filter(|session| session.busy);
    let Some(turn) = session.and_then(|session| session.last_response_id) else { return Ok(()) };
    rooms.store_of(tenant).request_cancel(&turn).await?;
    let until = tokio::time::Instant::now() + ELSEWHERE_MAX;
    while tokio::time::Instant::now() < until
        && rooms.store_of(tenant).turn(&turn).await?.is_some_and(|turn| turn.state == TurnState::Running)
    {
        tokio::time::sleep(ELSEWHERE_LOOK).await;
    }
    Ok(())
}

/// Why a session is not gone although it was waited for.
fn not_yet(rooms: &Rooms, id: &SessionId) -> Error {
    if rooms.turns.lacks_room(id) {
        return no_room_yet();
    }
    let message =
        "the session is being destroyed and takes long; repeat the request to learn when it is gone";
    Error::new(ErrorKind::Unavailable, "session.ending", message).retry_after(ENDING_RETRY_AFTER_S)
}

fn no_room_yet() -> Error {
    let message = "the server's disk is full, so the session is not gone yet; it goes once there is room: repeat the request to learn when";
    Error::new(ErrorKind::StorageFull, "storage.full", message)
}

/// What the readers of a turn are told that its session took down with it.
pub(crate) fn expired_message(session: &Session) -> String {
    format!(
        "The session reached the end of its ttl of {} s, so this turn was stopped and the session is destroyed. The files in the workspace stay; create a session with a longer 'ttl' to go on.",
        session.ttl
    )
}

/// Until the tenant's next session ends by itself; what a client that was refused another one is told to wait.
pub(crate) async fn seconds_to_next_end(rooms: &Rooms, tenant: &TenantName) -> u64 {
    let idle_s = rooms.live().session_idle_s;
    let next = match rooms.store_of(tenant).next_due(Some(tenant), idle_s).await {
        Ok(next) => next,
        Err(error) => {
            tracing::warn!(error = %palisade_protocol::chain(&error), "what falls due next is not known");
            None
        }
    };
    let wait_s = next.map_or(limits::RETRY_AFTER_MAX_S, |at| (at - now()).ceil().max(0.0) as u64);
    wait_s.clamp(1, limits::RETRY_AFTER_MAX_S)
}
