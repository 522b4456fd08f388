//! Every query that only reads.

use palisade_protocol::event::RenderedEvent;
use palisade_protocol::limits::IDEMPOTENCY_KEY_KEPT_S;
use palisade_protocol::session::{SessionCursor, SessionOrder, SessionStatus};
use palisade_protocol::{Item, Session, SessionId, TenantName, TurnId};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::engine::{Query, query, query_built};
use crate::{Store, StoreError};

/// A turn's row.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    /// Its id.
    pub id: TurnId,
    /// Whose.
    pub session: SessionId,
    /// Where it is.
    pub state: TurnState,
    /// The attempt that owns it.
    pub generation: i64,
    /// The server that drives it, or did.
    pub owner: String,
    /// When it was started, Unix seconds.
    pub started_at: f64,
    /// Somebody was told that it will be cancelled.
    pub cancel_requested: bool,
    /// How often the server died under it.
    pub crashes: i64,
    /// The server that drove it let it go in good order.
    pub released: bool,
    /// The last event of its latest finished step; what comes after it may be said again by the next attempt.
    pub step_seq: u64,
}

/// What an idempotency key was used for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyUse {
    /// In which session.
    pub session: SessionId,
    /// With which request.
    pub body_hash: String,
    /// The turn it started.
    pub turn: TurnId,
}

/// Where a turn is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnState {
    /// Somebody works on it, or must take it over.
    Running,
    /// It has its terminal event.
    Ended,
}

const SESSION: &str = "SELECT session.id, created_at, last_activity, persistent, ttl, metadata, file_access, model,
        EXISTS (SELECT 1 FROM turn WHERE turn.session_id = session.id AND turn.state = 'running') AS busy,
        (SELECT turn.id FROM turn WHERE turn.session_id = session.id ORDER BY started_at DESC LIMIT 1) AS last_turn
     FROM session WHERE tenant = $1 AND ";

const TURN: &str =
    "SELECT id, session_id, state, generation, owner, started_at, cancel_requested, crashes, released, step_seq
     FROM turn WHERE id = $1";

/// Turns that say they are running.
pub(crate) const RUNNING: &str =
    "SELECT session.tenant, turn.id, turn.session_id, turn.state, turn.generation, turn.owner, turn.started_at,
        turn.cancel_requested, turn.crashes, turn.released, turn.step_seq
     FROM turn JOIN session ON session.id = turn.session_id WHERE turn.state = 'running'";

/// Columns of an event.
pub(crate) type EventRow = (i64, String, String);

pub(crate) fn events_from(turn: &TurnId, from: u64, limit: i64) -> Query<'_> {
    let rows =
        query("SELECT seq, kind, data FROM event WHERE turn_id = $1 AND seq >= $2 ORDER BY seq LIMIT $3");
    rows.bind(turn.as_str()).bind(i64::try_from(from).unwrap_or(i64::MAX)).bind(limit)
}

impl Store {
    /// The record of a tenant's session; another tenant's does not exist.
    pub async fn session(&self, tenant: &TenantName, id: &SessionId) -> Result<Option<Session>, StoreError> {
        let row = query_built(format!("{SESSION} session.id = $2")).bind(tenant.as_str()).bind(id.as_str());
        let row = row.optional::<SessionRow>(&self.readers).await.map_err(reading("a session"))?;
        row.map(SessionRow::into_session).transpose()
    }

    /// A tenant's sessions by the time of their creation, at most `limit`, from behind `after` on. A page costs what it
    /// shows, however many there are before it.
    pub async fn sessions(
        &self,
        tenant: &TenantName,
        after: Option<&SessionCursor>,
        order: SessionOrder,
        limit: usize,
    ) -> Result<Vec<Session>, StoreError> {
        let (behind, direction) = match order {
            SessionOrder::OldestFirst => (">", ""),
            SessionOrder::NewestFirst => ("<", "DESC"),
        };
        let ordered = format!("ORDER BY created_at {direction}, session.id {direction}");
        let rows = match after {
            None => query_built(format!("{SESSION} TRUE {ordered} LIMIT $2")).bind(tenant.as_str()),
            Some(after) => query_built(format!(
                "{SESSION} (created_at, session.id) {behind} ($2, $3) {ordered} LIMIT $4"
            ))
            .bind(tenant.as_str())
            .bind(after.created_at)
            .bind(after.id.as_str()),
        };
        let rows = rows.bind(limit as i64).all::<SessionRow>(&self.readers).await;
        let rows = rows.map_err(reading("sessions"))?;
        in_slices(rows, |_| SESSION_BYTES, SessionRow::into_session).await
    }

    /// What the session keeps from its creation.
    pub async fn session_context(&self, id: &SessionId) -> Result<Option<Value>, StoreError> {
        let row = query("SELECT context FROM session WHERE id = $1").bind(id.as_str());
        let row = row.optional::<(String,)>(&self.readers).await.map_err(reading("a session's context"))?;
        row.map(|(text,)| from_json("a session's context", &text)).transpose()
    }

    /// The snapshots of skills that each of a tenant's sessions keeps; `None` for a session whose context alone says so.
    pub async fn snapshots_in_use(
        &self,
        tenant: &TenantName,
    ) -> Result<Vec<(SessionId, Option<Vec<String>>)>, StoreError> {
        let rows = query("SELECT id, snapshots FROM session WHERE tenant = $1").bind(tenant.as_str());
        let rows = rows.all::<(String, Option<String>)>(&self.readers).await;
        let row = |(id, snapshots): (String, Option<String>)| {
            let id = SessionId::parse(&id).map_err(corrupt("a session's id"))?;
            Ok((id, snapshots.map(|text| from_json("a session's snapshots", &text)).transpose()?))
        };
        rows.map_err(reading("snapshots"))?.into_iter().map(row).collect()
    }

    /// The conversation, oldest first.
    pub async fn items(&self, session: &SessionId) -> Result<Vec<Item>, StoreError> {
        let rows = query("SELECT body FROM item WHERE session_id = $1 ORDER BY idx").bind(session.as_str());
        let rows = rows.all::<(String,)>(&self.readers).await.map_err(reading("items"))?;
        in_slices(rows, |(body,)| body.len(), |(body,)| from_json("an item", &body)).await
    }

    /// What one turn has added to its session's conversation, oldest first.
    pub async fn items_of_turn(&self, session: &SessionId, turn: &TurnId) -> Result<Vec<Item>, StoreError> {
        let rows = query("SELECT body FROM item WHERE session_id = $1 AND turn_id = $2 ORDER BY idx");
        let rows = rows.bind(session.as_str()).bind(turn.as_str());
        let rows = rows.all::<(String,)>(&self.readers).await.map_err(reading("items"))?;
        in_slices(rows, |(body,)| body.len(), |(body,)| from_json("an item", &body)).await
    }

    /// A turn, by its id alone: ask for its session before showing it to anybody.
    pub async fn turn(&self, id: &TurnId) -> Result<Option<Turn>, StoreError> {
        let row = query(TURN).bind(id.as_str()).optional::<TurnRow>(&self.readers).await;
        row.map_err(reading("a turn"))?.map(TurnRow::into_turn).transpose()
    }

    /// At most `limit` events of a turn, from number `from`.
    pub async fn events(
        &self,
        turn: &TurnId,
        from: u64,
        limit: i64,
    ) -> Result<Vec<RenderedEvent>, StoreError> {
        let rows = events_from(turn, from, limit).all::<EventRow>(&self.readers).await;
        let rows = rows.map_err(reading("events"))?;
        Ok(rows.into_iter().map(event_of).collect())
    }

    /// The numbers of a turn's first and last event that are kept; `None` when there are none (any more).
    pub async fn kept_events(&self, turn: &TurnId) -> Result<Option<(u64, u64)>, StoreError> {
        let (first, last) = query(
            // Two looks at the ends of the index; MIN and MAX together would read all of it.
            "SELECT (SELECT seq FROM event WHERE turn_id = $1 ORDER BY seq LIMIT 1),
                    (SELECT seq FROM event WHERE turn_id = $1 ORDER BY seq DESC LIMIT 1)",
        )
        .bind(turn.as_str())
        .one::<(Option<i64>, Option<i64>)>(&self.readers)
        .await
        .map_err(reading("events"))?;
        Ok(first.zip(last).map(|(first, last)| (first.unsigned_abs(), last.unsigned_abs())))
    }

    /// The number of a turn's last event; `None` when it has none (any more).
    pub async fn last_seq(&self, turn: &TurnId) -> Result<Option<u64>, StoreError> {
        Ok(self.kept_events(turn).await?.map(|(_, last)| last))
    }

    /// The latest event of a turn that opens or closes something: what a reader sees as open.
    pub async fn last_boundary(&self, turn: &TurnId) -> Result<Option<RenderedEvent>, StoreError> {
        let row = query(
            "SELECT seq, kind, data FROM event WHERE turn_id = $1
               AND kind IN ('text.start', 'text.stop', 'thinking.start', 'thinking.stop', 'tool_use.start', 'tool_use.stop')
             ORDER BY seq DESC LIMIT 1",
        );
        let row = row.bind(turn.as_str()).optional::<EventRow>(&self.readers).await;
        Ok(row.map_err(reading("events"))?.map(event_of))
    }

    /// The texts of a turn in their order, with the events between which one answer's text stands.
    pub async fn texts_and_marks(&self, turn: &TurnId) -> Result<Vec<RenderedEvent>, StoreError> {
        let rows = query(
            "SELECT seq, kind, data FROM event WHERE turn_id = $1
               AND kind IN ('text.delta', 'tool_use.start', 'tool_result', 'turn.attempt')
             ORDER BY seq",
        );
        let rows = rows.bind(turn.as_str()).all::<EventRow>(&self.readers).await;
        Ok(rows.map_err(reading("events"))?.into_iter().map(event_of).collect())
    }

    /// What the client has answered to calls of this turn.
    pub async fn client_answers(&self, turn: &TurnId) -> Result<Vec<crate::ClientAnswer>, StoreError> {
        let rows = query("SELECT call_id, content, is_error FROM client_result WHERE turn_id = $1");
        let rows = rows.bind(turn.as_str()).all::<(String, String, bool)>(&self.readers).await;
        let answer = |(call_id, content, is_error)| crate::ClientAnswer { call_id, content, is_error };
        Ok(rows.map_err(reading("a client's answers"))?.into_iter().map(answer).collect())
    }

    /// What a tenant's idempotency key was used for, unless that was too long before `now` (Unix seconds).
    pub async fn key_use(
        &self,
        tenant: &TenantName,
        key: &str,
        now: f64,
    ) -> Result<Option<KeyUse>, StoreError> {
        let row = query(
            "SELECT session_id, body_hash, turn_id FROM idempotency_key
             WHERE tenant = $1 AND key = $2 AND created_at > $3",
        )
        .bind(tenant.as_str())
        .bind(key)
        .bind(keys_kept_since(now))
        .optional::<(String, String, String)>(&self.readers)
        .await
        .map_err(reading("an idempotency key"))?;
        let Some((session, body_hash, turn)) = row else { return Ok(None) };
        Ok(Some(KeyUse {
            session: SessionId::parse(&session).map_err(corrupt("a session's id"))?,
            body_hash,
            turn: TurnId::parse(&turn).map_err(corrupt("a turn's id"))?,
        }))
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let one = query("SELECT CAST(1 AS BIGINT)").one::<(i64,)>(&self.readers).await;
        one.map(drop).map_err(reading("anything"))
    }
}

/// After so many bytes a reader of many rows lets others on.
const SLICE_BYTES: usize = 128 * 1024;
/// What reading a session's row is taken for.
const SESSION_BYTES: usize = 2 * 1024;

/// Understands many rows, and lets other tasks on now and then: a conversation may be long, and they have this thread
/// only.
pub(crate) async fn in_slices<R, T>(
    rows: Vec<R>,
    bytes: impl Fn(&R) -> usize,
    read: impl Fn(R) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    let (mut all, mut slice) = (Vec::with_capacity(rows.len()), 0);
    for row in rows {
        slice += bytes(&row);
        all.push(read(row)?);
        if slice >= SLICE_BYTES {
            slice = 0;
            tokio::task::yield_now().await;
        }
    }
    Ok(all)
}

/// Keys that were taken then or before are free again.
pub(crate) fn keys_kept_since(now: f64) -> f64 {
    now - IDEMPOTENCY_KEY_KEPT_S as f64
}

pub(crate) fn event_of((seq, kind, data): EventRow) -> RenderedEvent {
    RenderedEvent { seq: seq.unsigned_abs(), kind, data }
}

#[derive(sqlx::FromRow)]
struct SessionRow {
    id: String,
    created_at: f64,
    last_activity: f64,
    persistent: bool,
    ttl: i64,
    metadata: String,
    file_access: String,
    model: String,
    busy: bool,
    last_turn: Option<String>,
}

impl SessionRow {
    fn into_session(self) -> Result<Session, StoreError> {
        Ok(Session {
            id: SessionId::parse(&self.id).map_err(corrupt("a session's id"))?,
            created_at: self.created_at,
            last_activity: self.last_activity,
            busy: self.busy,
            persistent: self.persistent,
            ttl: self.ttl.unsigned_abs(),
            status: SessionStatus::Ready,
            metadata: from_json("metadata", &self.metadata)?,
            file_access: from_json("file_access", &self.file_access)?,
            // The tenant's settings say it, which the store does not know.
            locked: Vec::new(),
            model: self.model,
            expires_at: self.created_at + self.ttl as f64,
            last_response_id: self
                .last_turn
                .map(|id| TurnId::parse(&id).map_err(corrupt("a turn's id")))
                .transpose()?,
        })
    }
}

#[derive(sqlx::FromRow)]
pub(crate) struct TurnRow {
    id: String,
    session_id: String,
    state: String,
    generation: i64,
    owner: String,
    started_at: f64,
    cancel_requested: bool,
    crashes: i64,
    released: bool,
    step_seq: i64,
}

impl TurnRow {
    fn into_turn(self) -> Result<Turn, StoreError> {
        Ok(Turn {
            id: TurnId::parse(&self.id).map_err(corrupt("a turn's id"))?,
            session: SessionId::parse(&self.session_id).map_err(corrupt("a session's id"))?,
            state: if self.state == "running" { TurnState::Running } else { TurnState::Ended },
            generation: self.generation,
            owner: self.owner,
            started_at: self.started_at,
            cancel_requested: self.cancel_requested,
            crashes: self.crashes,
            released: self.released,
            step_seq: self.step_seq.unsigned_abs(),
        })
    }
}

/// A row of [`RUNNING`].
#[derive(sqlx::FromRow)]
pub(crate) struct RunningRow {
    tenant: String,
    #[sqlx(flatten)]
    turn: TurnRow,
}

impl RunningRow {
    pub(crate) fn into_turn(self) -> Result<(TenantName, Turn), StoreError> {
        let tenant = TenantName::parse(&self.tenant).map_err(corrupt("a tenant's name"))?;
        Ok((tenant, self.turn.into_turn()?))
    }
}

pub(crate) fn from_json<T: DeserializeOwned>(what: &'static str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|e| StoreError::Corrupt { what, source: e.into() })
}

pub(crate) fn reading(what: &'static str) -> impl FnOnce(sqlx::Error) -> StoreError {
    move |source| StoreError::Read { what, source }
}

pub(crate) fn corrupt<E: std::error::Error + Send + Sync + 'static>(
    what: &'static str,
) -> impl FnOnce(E) -> StoreError {
    move |source| StoreError::Corrupt { what, source: source.into() }
}
