//! Every query that only reads.

use palisade_protocol::event::RenderedEvent;
use palisade_protocol::session::SessionStatus;
use palisade_protocol::{Item, Session, SessionId, TenantName, TurnId};
use serde::de::DeserializeOwned;
use serde_json::Value;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

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

const SESSION: &str = "SELECT session.*,
        EXISTS (SELECT 1 FROM turn WHERE turn.session_id = session.id AND turn.state = 'running') AS busy,
        (SELECT turn.id FROM turn WHERE turn.session_id = session.id ORDER BY started_at DESC LIMIT 1) AS last_turn
     FROM session WHERE tenant = $1 AND ";

impl Store {
    /// The record of a tenant's session; another tenant's does not exist.
    pub async fn session(&self, tenant: &TenantName, id: &SessionId) -> Result<Option<Session>, StoreError> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!("{SESSION} id = $2")))
            .bind(tenant.as_str())
            .bind(id.as_str())
            .fetch_optional(&self.readers)
            .await
            .map_err(reading("a session"))?;
        row.as_ref().map(session_of).transpose()
    }

    /// A tenant's sessions, oldest first, at most `limit`.
    pub async fn sessions(&self, tenant: &TenantName, limit: usize) -> Result<Vec<Session>, StoreError> {
        let rows =
            sqlx::query(sqlx::AssertSqlSafe(format!("{SESSION} TRUE ORDER BY created_at, id LIMIT $2")))
                .bind(tenant.as_str())
                .bind(limit as i64)
                .fetch_all(&self.readers)
                .await
                .map_err(reading("sessions"))?;
        rows.iter().map(session_of).collect()
    }

    /// What the session keeps from its creation.
    pub async fn session_context(&self, id: &SessionId) -> Result<Option<Value>, StoreError> {
        let text: Option<String> = sqlx::query_scalar("SELECT context FROM session WHERE id = $1")
            .bind(id.as_str())
            .fetch_optional(&self.readers)
            .await
            .map_err(reading("a session's context"))?;
        text.map(|text| from_json("a session's context", &text)).transpose()
    }

    /// The conversation, oldest first.
    pub async fn items(&self, session: &SessionId) -> Result<Vec<Item>, StoreError> {
        let bodies: Vec<String> =
            sqlx::query_scalar("SELECT body FROM item WHERE session_id = $1 ORDER BY idx")
                .bind(session.as_str())
                .fetch_all(&self.readers)
                .await
                .map_err(reading("items"))?;
        bodies.iter().map(|body| from_json("an item", body)).collect()
    }

    /// A turn, by its id alone: ask for its session before showing it to anybody.
    pub async fn turn(&self, id: &TurnId) -> Result<Option<Turn>, StoreError> {
        let row = sqlx::query(
            "SELECT id, session_id, state, generation, started_at, cancel_requested, crashes, released, step_seq FROM turn WHERE id = $1",
        )
        .bind(id.as_str())
        .fetch_optional(&self.readers)
        .await
        .map_err(reading("a turn"))?;
        row.as_ref().map(turn_of).transpose()
    }

    /// Turns that say they are running, with their tenants.
    pub async fn running_turns(&self) -> Result<Vec<(TenantName, Turn)>, StoreError> {
        let rows = sqlx::query(
            "SELECT turn.id, turn.session_id, turn.state, turn.generation, turn.started_at, turn.cancel_requested, turn.crashes, turn.released, turn.step_seq, session.tenant
             FROM turn JOIN session ON session.id = turn.session_id WHERE turn.state = 'running'",
        )
        .fetch_all(&self.readers)
        .await
        .map_err(reading("turns"))?;
        rows.iter()
            .map(|row| {
                let tenant: String = row.try_get("tenant").map_err(reading("a turn"))?;
                let tenant = TenantName::parse(&tenant).map_err(corrupt("a tenant's name"))?;
                Ok((tenant, turn_of(row)?))
            })
            .collect()
    }

    /// At most `limit` events of a turn, from number `from`.
    pub async fn events(
        &self,
        turn: &TurnId,
        from: u64,
        limit: i64,
    ) -> Result<Vec<RenderedEvent>, StoreError> {
        let rows: Vec<(i64, String, String)> = sqlx::query_as(
            "SELECT seq, kind, data FROM event WHERE turn_id = $1 AND seq >= $2 ORDER BY seq LIMIT $3",
        )
        .bind(turn.as_str())
        .bind(from as i64)
        .bind(limit)
        .fetch_all(&self.readers)
        .await
        .map_err(reading("events"))?;
        Ok(rows.into_iter().map(|(seq, kind, data)| RenderedEvent { seq: seq as u64, kind, data }).collect())
    }

    /// The numbers of a turn's first and last event that are kept; `None` when there are none (any more).
    pub async fn kept_events(&self, turn: &TurnId) -> Result<Option<(u64, u64)>, StoreError> {
        let (first, last): (Option<i64>, Option<i64>) = sqlx::query_as(
            // Two looks at the ends of the index; MIN and MAX together would read all of it.
            "SELECT (SELECT seq FROM event WHERE turn_id = $1 ORDER BY seq LIMIT 1),
                    (SELECT seq FROM event WHERE turn_id = $1 ORDER BY seq DESC LIMIT 1)",
        )
        .bind(turn.as_str())
        .fetch_one(&self.readers)
        .await
        .map_err(reading("events"))?;
        Ok(first.zip(last).map(|(first, last)| (first as u64, last as u64)))
    }

    /// The number of a turn's last event; `None` when it has none (any more).
    pub async fn last_seq(&self, turn: &TurnId) -> Result<Option<u64>, StoreError> {
        Ok(self.kept_events(turn).await?.map(|(_, last)| last))
    }

    /// The latest event of a turn that opens or closes something: what a reader sees as open.
    pub async fn last_boundary(&self, turn: &TurnId) -> Result<Option<RenderedEvent>, StoreError> {
        let row: Option<(i64, String, String)> = sqlx::query_as(
            "SELECT seq, kind, data FROM event WHERE turn_id = $1
               AND kind IN ('text.start', 'text.stop', 'thinking.start', 'thinking.stop', 'tool_use.start', 'tool_use.stop')
             ORDER BY seq DESC LIMIT 1",
        )
        .bind(turn.as_str())
        .fetch_optional(&self.readers)
        .await
        .map_err(reading("events"))?;
        Ok(row.map(|(seq, kind, data)| RenderedEvent { seq: seq as u64, kind, data }))
    }

    /// The texts of a turn in their order, with the events between which one answer's text stands.
    pub async fn texts_and_marks(&self, turn: &TurnId) -> Result<Vec<RenderedEvent>, StoreError> {
        let rows: Vec<(i64, String, String)> = sqlx::query_as(
            "SELECT seq, kind, data FROM event WHERE turn_id = $1
               AND kind IN ('text.delta', 'tool_use.start', 'tool_result', 'turn.attempt')
             ORDER BY seq",
        )
        .bind(turn.as_str())
        .fetch_all(&self.readers)
        .await
        .map_err(reading("events"))?;
        Ok(rows.into_iter().map(|(seq, kind, data)| RenderedEvent { seq: seq as u64, kind, data }).collect())
    }

    /// What the client has answered to calls of this turn.
    pub async fn client_answers(&self, turn: &TurnId) -> Result<Vec<crate::ClientAnswer>, StoreError> {
        let rows: Vec<(String, String, bool)> =
            sqlx::query_as("SELECT call_id, content, is_error FROM client_result WHERE turn_id = $1")
                .bind(turn.as_str())
                .fetch_all(&self.readers)
                .await
                .map_err(reading("a client's answers"))?;
        let answer = |(call_id, content, is_error)| crate::ClientAnswer { call_id, content, is_error };
        Ok(rows.into_iter().map(answer).collect())
    }

    /// What a tenant's idempotency key was used for.
    pub async fn key_use(&self, tenant: &TenantName, key: &str) -> Result<Option<KeyUse>, StoreError> {
        let row: Option<(String, String, String)> = sqlx::query_as(
            "SELECT session_id, body_hash, turn_id FROM idempotency_key WHERE tenant = $1 AND key = $2",
        )
        .bind(tenant.as_str())
        .bind(key)
        .fetch_optional(&self.readers)
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
        sqlx::query("SELECT 1").execute(&self.readers).await.map(drop).map_err(reading("anything"))
    }
}

fn session_of(row: &SqliteRow) -> Result<Session, StoreError> {
    let text = |column: &str| row.try_get::<String, _>(column).map_err(reading("a session"));
    let float = |column: &str| row.try_get::<f64, _>(column).map_err(reading("a session"));
    let flag = |column: &str| row.try_get::<bool, _>(column).map_err(reading("a session"));
    let ttl = row.try_get::<i64, _>("ttl").map_err(reading("a session"))?;
    let created_at = float("created_at")?;
    Ok(Session {
        id: SessionId::parse(&text("id")?).map_err(corrupt("a session's id"))?,
        created_at,
        last_activity: float("last_activity")?,
        busy: flag("busy")?,
        persistent: flag("persistent")?,
        ttl: ttl.unsigned_abs(),
        status: SessionStatus::Ready,
        metadata: from_json("metadata", &text("metadata")?)?,
        file_access: from_json("file_access", &text("file_access")?)?,
        model: text("model")?,
        expires_at: created_at + ttl as f64,
        last_response_id: row
            .try_get::<Option<String>, _>("last_turn")
            .map_err(reading("a session"))?
            .map(|id| TurnId::parse(&id).map_err(corrupt("a turn's id")))
            .transpose()?,
    })
}

fn turn_of(row: &SqliteRow) -> Result<Turn, StoreError> {
    let text = |column: &str| row.try_get::<String, _>(column).map_err(reading("a turn"));
    Ok(Turn {
        id: TurnId::parse(&text("id")?).map_err(corrupt("a turn's id"))?,
        session: SessionId::parse(&text("session_id")?).map_err(corrupt("a session's id"))?,
        state: if text("state")? == "running" { TurnState::Running } else { TurnState::Ended },
        generation: row.try_get("generation").map_err(reading("a turn"))?,
        started_at: row.try_get("started_at").map_err(reading("a turn"))?,
        cancel_requested: row.try_get("cancel_requested").map_err(reading("a turn"))?,
        crashes: row.try_get("crashes").map_err(reading("a turn"))?,
        released: row.try_get("released").map_err(reading("a turn"))?,
        step_seq: row.try_get::<i64, _>("step_seq").map_err(reading("a turn"))?.unsigned_abs(),
    })
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
