//! Picks up the turns that nobody drives, because another process left them running or this one had to stop: each goes
//! on by itself from its last durable step. The number of attempts is bounded; what cannot go on is closed with an
//! error, so that no session stays busy.

use std::sync::Arc;
use std::time::Duration;

use palisade_protocol::TenantName;
use palisade_store::{StoreError, Turn};
use tokio_util::sync::CancellationToken;

use crate::Rooms;
use crate::skills::SessionKeep;
use crate::turn::{Ending, Listed, TurnJob, TurnStart, cancelled, failed, spawn, spawn_end};

/// Attempts at one turn, the first included.
const ATTEMPTS_MAX: i64 = 5;

/// Between two looks for turns that nobody drives, where there is one server.
const LOOK: Duration = Duration::from_secs(5);

/// Takes over every turn that nobody drives. One that fails does not keep the others waiting; the next look finds it.
pub(crate) async fn take_over_turns(rooms: &Arc<Rooms>) -> Result<(), StoreError> {
    let mut turns = rooms.store.orphaned_turns().await?;
    // A turn of this server is on its list, but for one that had to stop and could not be released, or one whose
    // take-over failed half-way.
    turns.extend(rooms.store.own_turns().await?);
    for (tenant, turn) in turns {
        match take_over_or_close(rooms, &tenant, &turn).await {
            // Another server was quicker.
            Ok(()) | Err(StoreError::Fenced(_)) => {}
            Err(error) => {
                tracing::error!(turn = %turn.id, error = %palisade_protocol::chain(&error), "a turn was not taken over; trying again");
            }
        }
    }
    Ok(())
}

/// Looks again and again, until the server drains: for a store that has no other server.
pub(crate) async fn keep_looking(rooms: Arc<Rooms>) {
    loop {
        tokio::select! {
            () = rooms.draining.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        if let Err(error) = take_over_turns(&rooms).await {
            tracing::error!(
                error = %palisade_protocol::chain(&error),
                "turns that nobody drives could not be looked for"
            );
        }
    }
}

/// From the take-over on the turn is this server's, so that whatever fails after it gives it back.
async fn take_over_or_close(rooms: &Arc<Rooms>, tenant: &TenantName, turn: &Turn) -> Result<(), StoreError> {
    // Before the turn is ours: a lease that ends in between ends this attempt.
    let lease_over = rooms.lease.over();
    let Some(listed) = rooms.turns.take_up(&turn.session, &turn.id) else { return Ok(()) };
    // Listed first, so that a drain sees it or is seen. Whoever is letting go of its turns takes none.
    if rooms.draining.is_cancelled() || lease_over.is_cancelled() {
        return Ok(());
    }
    let generation = rooms.store.take_over(&turn.session, &turn.id, turn.generation).await?;
    // A server that stands still has ended nothing of what it drove.
    rooms.lease.end_sandbox_of(&turn.owner, &turn.session).await;
    let taken = drive_or_close(rooms, tenant, turn, generation, listed, lease_over).await;
    if taken.is_err()
        && let Err(error) = rooms.store.release(&turn.id, generation).await
    {
        // The next look finds it as one of this server's that nobody drives.
        tracing::warn!(turn = %turn.id, error = %palisade_protocol::chain(&error), "a turn was not released");
    }
    taken
}

async fn drive_or_close(
    rooms: &Arc<Rooms>,
    tenant: &TenantName,
    turn: &Turn,
    generation: i64,
    listed: Listed,
    lease_over: CancellationToken,
) -> Result<(), StoreError> {
    let (session, id) = (turn.session.clone(), turn.id.clone());
    let (lease, store) = (lease_over.clone(), rooms.store_of(tenant));
    let ending = Ending { session, turn: id.clone(), generation, lease_over: lease, store };
    if turn.cancel_requested {
        spawn_end(rooms, ending, cancelled(id), listed);
        return Ok(());
    }
    // This one included, unless the turn was let go in good order.
    if turn.crashes + i64::from(!turn.released) >= ATTEMPTS_MAX {
        let message = format!(
            "The server was restarted {ATTEMPTS_MAX} times while this turn ran; it was given up. Send a message to go on."
        );
        spawn_end(rooms, ending, failed(id, "turn.too_many_attempts", message), listed);
        return Ok(());
    }
    match job(rooms, tenant, turn, generation, &listed, lease_over).await? {
        Ok(job) => {
            spawn(rooms, job, listed);
            tracing::info!(tenant = %tenant, session = %turn.session, turn = %turn.id, attempt = generation, "turn taken over");
        }
        Err(why) => {
            tracing::error!(tenant = %tenant, session = %turn.session, turn = %turn.id, why, "a turn could not go on");
            let message = "The server was restarted while this turn ran, and it could not go on. What it had done so far is kept; send a message to go on.";
            spawn_end(rooms, ending, failed(id, "turn.interrupted", message.to_owned()), listed);
        }
    }
    Ok(())
}

/// The inner error says why this turn cannot be driven here.
async fn job(
    rooms: &Rooms,
    name: &TenantName,
    turn: &Turn,
    generation: i64,
    listed: &Listed,
    lease_over: CancellationToken,
) -> Result<Result<TurnJob, String>, StoreError> {
    let Some(tenant) = rooms.live().tenants.get(name).cloned() else {
        return Ok(Err("its tenant is not configured".to_owned()));
    };
    let Some(session) = rooms.store.session(name, &turn.session).await? else {
        return Ok(Err("its session is gone".to_owned()));
    };
    let context = rooms.store.session_context(&turn.session).await?.unwrap_or_default();
    let keep: SessionKeep = match serde_json::from_value(context) {
        Ok(keep) => keep,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let next_seq = rooms.store.last_seq(&turn.id).await?.map_or(0, |last| last + 1);
    let (step_seq, started_at) = (turn.step_seq, turn.started_at);
    let start = TurnStart { turn: turn.id.clone(), generation, next_seq, step_seq, started_at };
    let job = TurnJob::new(rooms, &tenant, (session, keep), start, listed, lease_over);
    Ok(job.map_err(|error| error.message))
}
