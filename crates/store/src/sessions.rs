//! Sessions come, change their metadata, and go.

use palisade_protocol::item::TurnOutcome;
use palisade_protocol::{SessionId, TenantName, TurnId};
use serde_json::Value;

use crate::engine::{Connection, query, query_built};
use crate::error::Fault;
use crate::lifetimes::check_session_count;
use crate::read::corrupt;
use crate::write::{Write, to_json, writing};
use crate::{NewSession, Store, StoreError, metering};

impl Store {
    /// Creates a session; durable when this returns.
    pub async fn create_session(&self, new: NewSession) -> Result<(), StoreError> {
        self.writer.write(Write::CreateSession(Box::new(new))).await.map(drop)
    }

    /// Sets one key of a session's metadata; a value that would push it over its limit is dropped.
    pub async fn set_metadata(
        &self,
        session: &SessionId,
        key: String,
        value: Value,
    ) -> Result<(), StoreError> {
        self.writer.write(Write::SetMetadata { session: session.clone(), key, value }).await.map(drop)
    }

    /// Deletes a session with its turns and items, at `now` (Unix seconds).
    pub async fn delete_session(
        &self,
        tenant: &TenantName,
        session: &SessionId,
        now: f64,
    ) -> Result<(), StoreError> {
        let (tenant, session) = (tenant.clone(), session.clone());
        self.writer.write(Write::DeleteSession { tenant, session, now }).await.map(drop)
    }

    /// Deletes a session that runs no turn and was not active after `inactive_since` (Unix seconds), with
    /// `used_only` one that had a turn; [`StoreError::NoSuchSession`] when it is not so any more.
    pub async fn delete_idle_session(
        &self,
        tenant: &TenantName,
        session: &SessionId,
        inactive_since: f64,
        used_only: bool,
    ) -> Result<(), StoreError> {
        let (tenant, session) = (tenant.clone(), session.clone());
        let write = Write::DeleteIdleSession { tenant, session, inactive_since, used_only };
        self.writer.write(write).await.map(drop)
    }
}

pub(crate) async fn create(db: &mut Connection, new: &NewSession) -> Result<u64, StoreError> {
    let session = &new.session;
    check_session_count(db, &new.tenant, new.sessions_max).await?;
    query(
        "INSERT INTO session (id, tenant, created_at, last_activity, persistent, ttl, metadata, file_access, model, context, snapshots)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(session.id.as_str())
    .bind(new.tenant.as_str())
    .bind(session.created_at)
    .bind(session.last_activity)
    .bind(session.persistent)
    .bind(i64::try_from(session.ttl).unwrap_or(i64::MAX))
    .bind(&to_json("metadata", &session.metadata)?)
    .bind(&to_json("file_access", &session.file_access)?)
    .bind(&session.model)
    .bind(&new.context)
    .bind(&to_json("snapshots", &new.snapshots)?)
    .execute(db)
    .await
    .map_err(writing("a session"))
}

pub(crate) async fn set_metadata(
    db: &mut Connection,
    session: &SessionId,
    key: &str,
    value: &Value,
) -> Result<u64, StoreError> {
    let find = format!("SELECT metadata FROM session WHERE id = $1{}", db.for_update());
    let stored = query_built(find).bind(session.as_str()).optional::<(String,)>(&mut *db);
    let (stored,) = stored
        .await
        .map_err(writing("metadata"))?
        .ok_or_else(|| StoreError::NoSuchSession(session.clone()))?;
    let mut metadata: serde_json::Map<String, Value> = crate::read::from_json("metadata", &stored)?;
    metadata.insert(key.to_owned(), value.clone());
    let text = to_json("metadata", &metadata)?;
    // A hint that would not fit is dropped: it is a hint.
    if text.len() > palisade_protocol::limits::METADATA_BYTES_MAX {
        return Ok(0);
    }
    let set = query("UPDATE session SET metadata = $1 WHERE id = $2").bind(&text).bind(session.as_str());
    set.execute(db).await.map_err(writing("metadata"))
}

/// A turn that goes with its session was cancelled: nobody pays for it, and nothing stays set aside. An account that does
/// not add up keeps no session from going.
async fn settle_running(db: &mut Connection, session: &SessionId, now: f64) -> Result<(), StoreError> {
    let running =
        format!("SELECT id FROM turn WHERE session_id = $1 AND state = 'running'{}", db.for_update());
    let running = query_built(running).bind(session.as_str()).all::<(String,)>(&mut *db).await;
    for (turn,) in running.map_err(writing("a session"))? {
        let turn = TurnId::parse(&turn).map_err(corrupt("a turn's id"))?;
        db.run("SAVEPOINT settling").await.map_err(writing("a session"))?;
        match metering::settle(db, &turn, TurnOutcome::Cancelled, now).await {
            Err(error) if error.fault() == Fault::Refused => {
                let why = palisade_protocol::chain(&error).to_string();
                db.run("ROLLBACK TO settling").await.map_err(writing("a session"))?;
                metering::leave_unsettled(db, &turn, now, &why).await?;
            }
            settled => settled?,
        }
        db.run("RELEASE settling").await.map_err(writing("a session"))?;
    }
    Ok(())
}

/// Deletes the session and its turns. Its events and items are orphans from then on, which no reader can name, and the
/// sweep takes them in small bites.
pub(crate) async fn delete(
    db: &mut Connection,
    tenant: &TenantName,
    session: &SessionId,
    now: f64,
) -> Result<u64, StoreError> {
    // The session before its turns, as whoever ends one takes them.
    let found = format!("SELECT id FROM session WHERE id = $1 AND tenant = $2{}", db.for_update());
    let found = query_built(found).bind(session.as_str()).bind(tenant.as_str());
    if found.optional::<(String,)>(&mut *db).await.map_err(writing("a session"))?.is_none() {
        return Err(StoreError::NoSuchSession(session.clone()));
    }
    settle_running(db, session, now).await?;
    let deleted = query("DELETE FROM session WHERE id = $1 AND tenant = $2")
        .bind(session.as_str())
        .bind(tenant.as_str())
        .execute(&mut *db)
        .await
        .map_err(writing("a session"))?;
    for statement in [
        // Those that ended are listed already, and their readers have the usual time to read the end.
        "INSERT INTO evictable_turn (turn_id, since)
         SELECT id, started_at FROM turn WHERE session_id = $1 AND state = 'running'
         ON CONFLICT (turn_id) DO NOTHING",
        "DELETE FROM client_result WHERE turn_id IN (SELECT id FROM turn WHERE session_id = $1)",
        "DELETE FROM turn WHERE session_id = $1",
        "INSERT INTO evictable_session (session_id) VALUES ($1) ON CONFLICT (session_id) DO NOTHING",
    ] {
        let statement = query(statement).bind(session.as_str());
        statement.execute(&mut *db).await.map_err(writing("a session"))?;
    }
    Ok(deleted)
}
