//! Which sessions have reached the end of their time, and which will be next. The answer comes from rows alone: a
//! reader, a file request or a look at a session never makes it live longer.

use palisade_protocol::{SessionId, TenantName};

use crate::engine::{Connection, query, query_built};
use crate::read::{corrupt, reading};
use crate::sessions;
use crate::write::writing;
use crate::{Store, StoreError};

/// A session whose time is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueSession {
    /// Whose.
    pub tenant: TenantName,
    /// Which.
    pub id: SessionId,
    /// Over its `ttl`, busy or not; otherwise it was idle too long.
    pub expired: bool,
}

/// It had a turn, and none is running; then `last_activity` is when the last one ended.
const USED_AND_FREE: &str = "EXISTS (SELECT 1 FROM turn WHERE turn.session_id = session.id)
     AND NOT EXISTS (SELECT 1 FROM turn WHERE turn.session_id = session.id AND turn.state = 'running')";
/// None is running, whether or not it ever had one.
const FREE: &str =
    "NOT EXISTS (SELECT 1 FROM turn WHERE turn.session_id = session.id AND turn.state = 'running')";

impl Store {
    /// At most `limit` sessions whose time is over at `now`, but for those whose turn another server drives: that one
    /// ends it, and then the session.
    pub async fn due_sessions(
        &self,
        now: f64,
        idle_s: f64,
        limit: i64,
    ) -> Result<Vec<DueSession>, StoreError> {
        let rows = query_built(format!(
            "SELECT tenant, id, TRUE AS expired FROM session
             WHERE created_at + ttl <= $1 AND NOT EXISTS (
               SELECT 1 FROM turn JOIN server ON server.id = turn.owner
               WHERE turn.session_id = session.id AND turn.state = 'running' AND turn.owner <> $4)
             UNION ALL
             SELECT tenant, id, FALSE AS expired FROM session
             WHERE NOT persistent AND last_activity <= $2 AND created_at + ttl > $1 AND {USED_AND_FREE}
             LIMIT $3"
        ))
        .bind(now)
        .bind(now - idle_s)
        .bind(limit)
        .bind(&self.server())
        .all::<(String, String, bool)>(&self.readers)
        .await
        .map_err(reading("due sessions"))?;
        rows.into_iter()
            .map(|(tenant, id, expired)| {
                Ok(DueSession {
                    tenant: TenantName::parse(&tenant).map_err(corrupt("a tenant's name"))?,
                    id: SessionId::parse(&id).map_err(corrupt("a session's id"))?,
                    expired,
                })
            })
            .collect()
    }

    /// When any session was last used, Unix seconds: the latest time that is known not to lie ahead.
    pub async fn last_activity(&self) -> Result<Option<f64>, StoreError> {
        let latest = query("SELECT MAX(last_activity) FROM session");
        let (at,) =
            latest.one::<(Option<f64>,)>(&self.readers).await.map_err(reading("the last activity"))?;
        Ok(at)
    }

    /// When the next session falls due, one of `tenant`'s or any, as things stand: a turn may still postpone it.
    pub async fn next_due(
        &self,
        tenant: Option<&TenantName>,
        idle_s: f64,
    ) -> Result<Option<f64>, StoreError> {
        let (expiry, last_end) = query_built(format!(
            "SELECT
               (SELECT created_at + ttl FROM session WHERE $1 IS NULL OR tenant = $1
                ORDER BY created_at + ttl LIMIT 1),
               (SELECT last_activity FROM session
                WHERE NOT persistent AND ($1 IS NULL OR tenant = $1) AND {USED_AND_FREE}
                ORDER BY last_activity LIMIT 1)"
        ))
        .bind(tenant.map(TenantName::as_str))
        .one::<(Option<f64>, Option<f64>)>(&self.readers)
        .await
        .map_err(reading("what falls due next"))?;
        let idle_end = last_end.map(|ended_at| ended_at + idle_s);
        Ok(expiry.into_iter().chain(idle_end).min_by(f64::total_cmp))
    }
}

/// Deletes the session, unless it has become busy or was used again after `inactive_since`.
pub(crate) async fn delete_idle_session(
    db: &mut Connection,
    tenant: &TenantName,
    session: &SessionId,
    inactive_since: f64,
    used_only: bool,
) -> Result<u64, StoreError> {
    let condition = if used_only { USED_AND_FREE } else { FREE };
    // The row is held before its turns are looked at: a turn that starts touches it first.
    let lock = db.for_update();
    let find = query_built(format!("SELECT id FROM session WHERE id = $1 AND last_activity <= $2{lock}"));
    let found = find.bind(session.as_str()).bind(inactive_since).optional::<(String,)>(&mut *db);
    let found = found.await.map_err(writing("an idle session"))?.is_some();
    let free = query_built(format!("SELECT id FROM session WHERE id = $1 AND {condition}"));
    let free = free.bind(session.as_str()).optional::<(String,)>(&mut *db);
    if !found || free.await.map_err(writing("an idle session"))?.is_none() {
        return Err(StoreError::NoSuchSession(session.clone()));
    }
    // None runs a turn, so that nothing is dated by this.
    sessions::delete(db, tenant, session, inactive_since).await
}

/// Refuses one session more than the tenant may have.
pub(crate) async fn check_session_count(
    db: &mut Connection,
    tenant: &TenantName,
    sessions_max: u64,
) -> Result<(), StoreError> {
    // One server at a time counts, or two would take the same last place.
    let hold = query(
        "INSERT INTO tenant_lock (tenant) VALUES ($1) ON CONFLICT (tenant) DO UPDATE SET tenant = excluded.tenant",
    );
    hold.bind(tenant.as_str()).execute(&mut *db).await.map_err(writing("a session"))?;
    let count = query("SELECT COUNT(*) FROM session WHERE tenant = $1").bind(tenant.as_str());
    let (count,) = count.one::<(i64,)>(db).await.map_err(writing("a session"))?;
    if count.unsigned_abs() < sessions_max {
        return Ok(());
    }
    Err(StoreError::TooManySessions { tenant: tenant.clone(), sessions_max })
}
