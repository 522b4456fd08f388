//! Sessions end by themselves: after their `ttl`, whatever they do, and when idle for too long after a response.
//! When is read from the store and never from traffic, so that neither a reader nor a restart moves it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use palisade_protocol::{Error, ErrorKind, Session, SessionId, TenantName, limits};
use palisade_store::{DueSession, StoreError};

use crate::Rooms;
use crate::clock::now;
use crate::sessions::blocking;

/// The longest pause between two looks; shorter than any session can live, so that none falls due unseen.
const LOOK: Duration = Duration::from_secs(1);
/// The shortest one: what is due now may take a moment.
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// The pause after a failure: a full disk is not helped by haste.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(5);
/// Sessions taken from the store in one look.
const BATCH_MAX: i64 = 64;
/// Sessions that are destroyed at the same time.
const AT_ONCE_MAX: usize = 8;
/// How long one session may hold up the others; its end goes on all the same.
const ONE_MAX: Duration = Duration::from_secs(60);

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

/// Destroys sessions as they fall due, until the server drains.
pub(crate) async fn end_due_sessions(rooms: Arc<Rooms>) {
    loop {
        let pause = match look(&rooms).await {
            Ok(pause) => pause,
            Err(StoreError::Stopped) => return,
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
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

/// Destroys what is due now; how long until the next look.
async fn look(rooms: &Arc<Rooms>) -> Result<Duration, StoreError> {
    let due = rooms.store.due_sessions(now(), rooms.session_idle_s, BATCH_MAX).await?;
    let ended: Vec<bool> =
        stream::iter(due).map(|due| end_session(rooms, due)).buffer_unordered(AT_ONCE_MAX).collect().await;
    if ended.contains(&false) {
        return Ok(PAUSE_AFTER_FAILURE);
    }
    let next = rooms.store.next_due(None, rooms.session_idle_s).await?;
    let until_next = next.and_then(|at| Duration::try_from_secs_f64((at - now()).max(0.0)).ok());
    Ok(until_next.unwrap_or(LOOK).clamp(PAUSE_MIN, LOOK))
}

/// Whether it is gone, or need not go any more. In a task of its own, so that none is left half destroyed.
async fn end_session(rooms: &Arc<Rooms>, due: DueSession) -> bool {
    let (task, id) = (rooms.clone(), due.id.clone());
    let cause = if due.expired { Cause::Expired } else { Cause::Idle };
    let ending = rooms.tasks.spawn(async move { destroy_session(&task, &due.tenant, &due.id, cause).await });
    match tokio::time::timeout(ONE_MAX, ending).await {
        Ok(Ok(Ok(()))) => true,
        // Deleted or used in the meantime.
        Ok(Ok(Err(error))) if error.kind == ErrorKind::NotFound => true,
        Ok(Ok(Err(error))) => {
            tracing::error!(session = %id, error = &error as &dyn std::error::Error, "a due session was not destroyed");
            false
        }
        Ok(Err(panicked)) => {
            tracing::error!(session = %id, error = &panicked as &dyn std::error::Error, "destroying a session panicked");
            false
        }
        Err(_) => {
            tracing::error!(session = %id, "a due session takes long to destroy");
            false
        }
    }
}

/// Destroys a session: its turn ends, its sandbox with every process in it, its record and its own folder go. The
/// workspace and `.memory/` stay.
pub(crate) async fn destroy_session(
    rooms: &Rooms,
    tenant: &TenantName,
    id: &SessionId,
    cause: Cause,
) -> Result<(), Error> {
    match cause {
        // Decided by the store once more: a message may have come since it was found idle.
        Cause::Idle => {
            rooms.store.delete_idle_session(tenant, id, now() - rooms.session_idle_s, true).await?;
        }
        Cause::DeletedIfIdle { inactive_since } => {
            rooms.store.delete_idle_session(tenant, id, inactive_since, false).await?;
        }
        Cause::Expired => {
            rooms.turns.expire_session(id).await;
            rooms.store.delete_session(tenant, id).await?;
        }
        Cause::Deleted => {
            rooms.turns.cancel_session(id).await;
            rooms.store.delete_session(tenant, id).await?;
        }
    }
    // From here on none can start; one may have slipped in before.
    rooms.turns.cancel_session(id).await;
    rooms.hands.close(id).await;
    // A tenant that is not configured any more has no open workspace; should it come back, its start cleans up.
    if let Some(tenant) = rooms.tenants.get(tenant) {
        let (workspace, session) = (tenant.workspace.clone(), id.clone());
        blocking(move || Ok(workspace.remove_session_dir(&session)?)).await?;
    }
    tracing::info!(tenant = %tenant, session = %id, ?cause, "session destroyed");
    Ok(())
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
    let next = match rooms.store.next_due(Some(tenant), rooms.session_idle_s).await {
        Ok(next) => next,
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "what falls due next is not known");
            None
        }
    };
    let wait_s = next.map_or(limits::RETRY_AFTER_MAX_S, |at| (at - now()).ceil().max(0.0) as u64);
    wait_s.clamp(1, limits::RETRY_AFTER_MAX_S)
}
