//! What is kept for a time only goes in small bites, so that no other write waits for long.

use palisade_protocol::TurnId;

use crate::engine::{Connection, query};
use crate::read::keys_kept_since;
use crate::write::{Write, writing};
use crate::{Store, StoreError};

/// Turns looked at in one sweep.
const TURNS_PER_SWEEP_MAX: i64 = 64;

impl Store {
    /// Forgets at most `rows_max` idempotency keys whose time is over at `now` (Unix seconds), oldest first.
    pub async fn sweep_keys(&self, now: f64, rows_max: i64) -> Result<u64, StoreError> {
        self.writer.write(Write::SweepKeys { created_by: keys_kept_since(now), rows_max }).await
    }

    /// Deletes at most `rows_max` events of turns that ended before `ended_before` (Unix seconds) or whose
    /// session is gone; returns how many went. Fewer than `rows_max` does not mean that none are left.
    pub async fn sweep_events(&self, ended_before: f64, rows_max: i64) -> Result<u64, StoreError> {
        self.writer.write(Write::SweepEvents { ended_before, rows_max }).await
    }

    /// Deletes at most `rows_max` items of sessions that are gone; returns how many went.
    pub async fn sweep_items(&self, rows_max: i64) -> Result<u64, StoreError> {
        self.writer.write(Write::SweepItems { rows_max }).await
    }
}

/// Takes the items of sessions that are gone; the number is of items. Two servers may sweep at a time: then one finds
/// less.
pub(crate) async fn items(db: &mut Connection, rows_max: i64) -> Result<u64, StoreError> {
    let sessions = query("SELECT session_id FROM evictable_session LIMIT $1").bind(TURNS_PER_SWEEP_MAX);
    let sessions = sessions.all::<(String,)>(&mut *db).await.map_err(writing("old items"))?;
    let mut swept = 0;
    for (session,) in sessions {
        let left = rows_max - swept;
        let gone = query(
            "DELETE FROM item WHERE session_id = $1
               AND idx < (SELECT COALESCE(MIN(idx), 0) FROM item WHERE session_id = $1) + $2",
        );
        let gone = gone.bind(&session).bind(left).execute(&mut *db).await.map_err(writing("old items"))?;
        swept += gone.cast_signed();
        if gone.cast_signed() == left {
            break;
        }
        let done = query("DELETE FROM evictable_session WHERE session_id = $1").bind(&session);
        done.execute(&mut *db).await.map_err(writing("old items"))?;
    }
    Ok(swept.unsigned_abs())
}

pub(crate) async fn keys(db: &mut Connection, created_by: f64, rows_max: i64) -> Result<u64, StoreError> {
    // The age is asked for again, for a key may have been taken anew by another server in between.
    let sweep = query(
        "DELETE FROM idempotency_key WHERE created_at <= $1 AND (tenant, key) IN
           (SELECT tenant, key FROM idempotency_key WHERE created_at <= $1 ORDER BY created_at LIMIT $2)",
    );
    sweep.bind(created_by).bind(rows_max).execute(db).await.map_err(writing("old idempotency keys"))
}

/// Takes the events of turns that may go, oldest first; the number is of events. Two servers may sweep at a time:
/// then one finds less.
pub(crate) async fn events(
    db: &mut Connection,
    evictable_before: f64,
    rows_max: i64,
) -> Result<u64, StoreError> {
    let turns = query("SELECT turn_id FROM evictable_turn WHERE since < $1 ORDER BY since LIMIT $2")
        .bind(evictable_before)
        .bind(TURNS_PER_SWEEP_MAX)
        .all::<(String,)>(&mut *db)
        .await
        .map_err(writing("old events"))?;
    let mut swept = 0;
    for (turn,) in turns {
        let left = rows_max - swept;
        // The lowest numbers first; the index tells where they end.
        let gone = query(
            "DELETE FROM event WHERE turn_id = $1
               AND seq < (SELECT COALESCE(MIN(seq), 0) FROM event WHERE turn_id = $1) + $2",
        )
        .bind(&turn)
        .bind(left)
        .execute(&mut *db)
        .await
        .map_err(writing("old events"))?;
        swept += gone.cast_signed();
        if gone.cast_signed() == left {
            break;
        }
        let done = query("DELETE FROM evictable_turn WHERE turn_id = $1").bind(&turn);
        done.execute(&mut *db).await.map_err(writing("old events"))?;
    }
    Ok(swept.unsigned_abs())
}

/// From here on the turn's events are kept for a while only.
pub(crate) async fn make_evictable(db: &mut Connection, turn: &TurnId, since: f64) -> Result<(), StoreError> {
    let listed =
        query("INSERT INTO evictable_turn (turn_id, since) VALUES ($1, $2) ON CONFLICT (turn_id) DO NOTHING");
    let listed = listed.bind(turn.as_str()).bind(since).execute(db).await;
    listed.map(drop).map_err(writing("a turn's end"))
}
