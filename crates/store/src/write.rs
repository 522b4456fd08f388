//! What can be written, and how each write becomes rows. Each function runs inside a savepoint of the group's
//! transaction, so that one refusal undoes only itself.

use palisade_protocol::event::RenderedEvent;
use palisade_protocol::item::TurnOutcome;
use palisade_protocol::{Item, Session, SessionId, TenantName, TurnId};
use serde_json::Value;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use crate::StoreError;

/// Rows in one multi-row INSERT: SQLite allows 32,766 parameters, we use four a row.
const ROWS_PER_INSERT_MAX: usize = 1000;

/// Turns looked at in one sweep.
const TURNS_PER_SWEEP_MAX: i64 = 64;

/// A session to be created.
#[derive(Debug, Clone)]
pub struct NewSession {
    /// Whose it is.
    pub tenant: TenantName,
    /// Its record.
    pub session: Session,
    /// What it keeps from its creation, in the runtime's own form.
    pub context: Value,
    /// How many sessions its tenant may have, this one included.
    pub sessions_max: u64,
}

/// A turn to be started.
#[derive(Debug, Clone)]
pub struct NewTurn {
    /// Its id.
    pub id: TurnId,
    /// Whose session, so that nobody can start a turn in another tenant's.
    pub tenant: TenantName,
    /// Which session.
    pub session: SessionId,
    /// Unix seconds.
    pub now: f64,
    /// The first events: `message.created`.
    pub events: Vec<RenderedEvent>,
    /// The first items: the user's message.
    pub items: Vec<Item>,
    /// Taken with the turn, or not at all.
    pub key: Option<IdempotencyKey>,
}

/// What a client calls a request, so that it can be repeated without being done twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// The client's text; unique within its tenant.
    pub key: String,
    /// Tells the same request from another one under the same key.
    pub body_hash: String,
}

/// One durable step of a running turn: events and items stand or fall together.
#[derive(Debug, Clone)]
pub struct Commit {
    /// Which session.
    pub session: SessionId,
    /// Which turn.
    pub turn: TurnId,
    /// The fence: the attempt that writes. A commit of an attempt that no longer owns the turn changes nothing.
    pub generation: i64,
    /// For the readers, numbered on from what was appended before.
    pub events: Vec<RenderedEvent>,
    /// For the agent.
    pub items: Vec<Item>,
    /// Ends the turn: how, and when (Unix seconds). The session is free from this commit on.
    pub end: Option<(TurnOutcome, f64)>,
}

/// What a client answered to a call of one of its tools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientAnswer {
    /// Which call.
    pub call_id: String,
    /// For the model.
    pub content: String,
    /// Whether it failed.
    pub is_error: bool,
}

/// Everything the writer can be asked for.
#[derive(Debug)]
pub(crate) enum Write {
    CreateSession(Box<NewSession>),
    StartTurn(NewTurn),
    Commit(Commit),
    AnswerCalls {
        turn: TurnId,
        answers: Vec<ClientAnswer>,
    },
    Release {
        turn: TurnId,
        generation: i64,
    },
    RequestCancel {
        turn: TurnId,
    },
    TakeOver {
        turn: TurnId,
        generation: i64,
    },
    SweepKeys {
        created_before: f64,
    },
    SetMetadata {
        session: SessionId,
        key: String,
        value: Value,
    },
    DeleteSession {
        tenant: TenantName,
        session: SessionId,
    },
    DeleteIdleSession {
        tenant: TenantName,
        session: SessionId,
        inactive_since: f64,
        used_only: bool,
    },
    SweepEvents {
        ended_before: f64,
        rows_max: i64,
    },
    /// The last write there is.
    Close,
}

impl Write {
    /// Whether it changes rows with one statement only, so that a refusal leaves nothing behind even without a
    /// savepoint: the deltas of a stream, which are most of all writes.
    pub(crate) fn is_one_statement(&self) -> bool {
        let deltas = |commit: &Commit| commit.items.is_empty() && commit.end.is_none();
        matches!(self, Self::Commit(commit) if deltas(commit) && commit.events.len() <= ROWS_PER_INSERT_MAX)
    }
}

/// Applies one write; the number is of rows deleted, where that is what was asked.
pub(crate) async fn apply(db: &mut SqliteConnection, write: &Write) -> Result<u64, StoreError> {
    match write {
        Write::CreateSession(new) => create_session(db, new).await,
        Write::StartTurn(new) => start_turn(db, new).await,
        Write::Commit(commit) => apply_commit(db, commit).await,
        Write::AnswerCalls { turn, answers } => answer_calls(db, turn, answers).await,
        Write::Release { turn, generation } => release(db, turn, *generation).await,
        Write::RequestCancel { turn } => request_cancel(db, turn).await,
        Write::TakeOver { turn, generation } => take_over(db, turn, *generation).await,
        Write::SweepKeys { created_before } => sweep_keys(db, *created_before).await,
        Write::SetMetadata { session, key, value } => set_metadata(db, session, key, value).await,
        Write::DeleteSession { tenant, session } => delete_session(db, tenant, session).await,
        Write::DeleteIdleSession { tenant, session, inactive_since, used_only } => {
            crate::lifetimes::delete_idle_session(db, tenant, session, *inactive_since, *used_only).await
        }
        Write::SweepEvents { ended_before, rows_max } => sweep_events(db, *ended_before, *rows_max).await,
        Write::Close => Ok(0),
    }
}

async fn create_session(db: &mut SqliteConnection, new: &NewSession) -> Result<u64, StoreError> {
    let session = &new.session;
    crate::lifetimes::check_session_count(db, &new.tenant, new.sessions_max).await?;
    let file_access = to_json("file_access", &session.file_access)?;
    let metadata = to_json("metadata", &session.metadata)?;
    sqlx::query(
        "INSERT INTO session (id, tenant, created_at, last_activity, persistent, ttl, metadata, file_access, model, context)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(session.id.as_str())
    .bind(new.tenant.as_str())
    .bind(session.created_at)
    .bind(session.last_activity)
    .bind(session.persistent)
    .bind(i64::try_from(session.ttl).unwrap_or(i64::MAX))
    .bind(metadata)
    .bind(file_access)
    .bind(&session.model)
    .bind(new.context.to_string())
    .execute(db)
    .await
    .map_err(writing("a session"))?;
    Ok(0)
}

async fn start_turn(db: &mut SqliteConnection, new: &NewTurn) -> Result<u64, StoreError> {
    // A session over its ttl is gone, whether or not it has been taken away yet.
    let touched = sqlx::query(
        "UPDATE session SET last_activity = $1 WHERE id = $2 AND tenant = $3 AND created_at + ttl > $1",
    )
    .bind(new.now)
    .bind(new.session.as_str())
    .bind(new.tenant.as_str())
    .execute(&mut *db)
    .await
    .map_err(writing("a session"))?;
    if touched.rows_affected() == 0 {
        return Err(StoreError::NoSuchSession(new.session.clone()));
    }
    // Before the turn: a retry while the first is running is a replay and no conflict.
    if let Some(key) = &new.key {
        take_key(db, new, key).await?;
    }
    sqlx::query(
        "INSERT INTO turn (id, session_id, state, generation, started_at) VALUES ($1, $2, 'running', 1, $3)",
    )
    .bind(new.id.as_str())
    .bind(new.session.as_str())
    .bind(new.now)
    .execute(&mut *db)
    .await
    .map_err(|source| match source.as_database_error() {
        Some(e) if e.is_unique_violation() => StoreError::Busy(new.session.clone()),
        _ => StoreError::Write { what: "a turn", source },
    })?;
    append_events(db, &new.id, &new.events).await?;
    append_items(db, &new.session, &new.id, &new.items).await?;
    Ok(0)
}

async fn take_key(db: &mut SqliteConnection, new: &NewTurn, key: &IdempotencyKey) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO idempotency_key (tenant, key, session_id, body_hash, turn_id, created_at)
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(new.tenant.as_str())
    .bind(&key.key)
    .bind(new.session.as_str())
    .bind(&key.body_hash)
    .bind(new.id.as_str())
    .bind(new.now)
    .execute(db)
    .await
    .map(drop)
    .map_err(|source| match source.as_database_error() {
        Some(e) if e.is_unique_violation() => StoreError::KeyTaken,
        _ => StoreError::Write { what: "an idempotency key", source },
    })
}

/// All of them or none: a client that has to repeat its request should not wonder which were taken.
async fn answer_calls(
    db: &mut SqliteConnection,
    turn: &TurnId,
    answers: &[ClientAnswer],
) -> Result<u64, StoreError> {
    for answer in answers {
        let kept = sqlx::query(
            "INSERT INTO client_result (turn_id, call_id, content, is_error)
             SELECT id, $2, $3, $4 FROM turn WHERE id = $1 AND state = 'running'",
        )
        .bind(turn.as_str())
        .bind(&answer.call_id)
        .bind(&answer.content)
        .bind(answer.is_error)
        .execute(&mut *db)
        .await
        .map_err(|source| match source.as_database_error() {
            Some(e) if e.is_unique_violation() => StoreError::AnsweredTwice(answer.call_id.clone()),
            _ => StoreError::Write { what: "a client's answer", source },
        })?;
        if kept.rows_affected() == 0 {
            return Err(StoreError::Fenced(turn.clone()));
        }
    }
    Ok(answers.len() as u64)
}

async fn release(db: &mut SqliteConnection, turn: &TurnId, generation: i64) -> Result<u64, StoreError> {
    let released = sqlx::query(
        "UPDATE turn SET released = TRUE WHERE id = $1 AND generation = $2 AND state = 'running'",
    );
    let released = released.bind(turn.as_str()).bind(generation).execute(db).await;
    Ok(released.map_err(writing("a turn's release"))?.rows_affected())
}

async fn request_cancel(db: &mut SqliteConnection, turn: &TurnId) -> Result<u64, StoreError> {
    let asked = sqlx::query("UPDATE turn SET cancel_requested = TRUE WHERE id = $1 AND state = 'running'");
    Ok(asked.bind(turn.as_str()).execute(db).await.map_err(writing("a cancel"))?.rows_affected())
}

/// The next attempt owns the turn from here on; commits of the one before are refused.
async fn take_over(db: &mut SqliteConnection, turn: &TurnId, generation: i64) -> Result<u64, StoreError> {
    let taken = sqlx::query(
        "UPDATE turn SET generation = generation + 1, released = FALSE,
                crashes = crashes + CASE WHEN released THEN 0 ELSE 1 END
         WHERE id = $1 AND generation = $2 AND state = 'running'",
    )
    .bind(turn.as_str())
    .bind(generation)
    .execute(db)
    .await
    .map_err(writing("a turn's owner"))?
    .rows_affected();
    if taken == 0 { Err(StoreError::Fenced(turn.clone())) } else { Ok(taken) }
}

async fn sweep_keys(db: &mut SqliteConnection, created_before: f64) -> Result<u64, StoreError> {
    let swept = sqlx::query("DELETE FROM idempotency_key WHERE created_at < $1").bind(created_before);
    Ok(swept.execute(db).await.map_err(writing("old idempotency keys"))?.rows_affected())
}

async fn apply_commit(db: &mut SqliteConnection, commit: &Commit) -> Result<u64, StoreError> {
    let owned = match commit.end {
        // The fence and the end are one statement where they can be.
        Some((outcome, now)) => sqlx::query(
            "UPDATE turn SET state = $1, ended_at = $2 WHERE id = $3 AND generation = $4 AND state = 'running'",
        )
        .bind(state_name(outcome))
        .bind(now)
        .bind(commit.turn.as_str())
        .bind(commit.generation)
        .execute(&mut *db)
        .await
        .map_err(writing("a turn's end"))?
        .rows_affected(),
        None => {
            sqlx::query_scalar::<_, i64>(
                "SELECT COUNT(*) FROM turn WHERE id = $1 AND generation = $2 AND state = 'running'",
            )
            .bind(commit.turn.as_str())
            .bind(commit.generation)
            .fetch_one(&mut *db)
            .await
            .map_err(writing("a turn's fence"))? as u64
        }
    };
    if owned == 0 {
        return Err(StoreError::Fenced(commit.turn.clone()));
    }
    append_events(db, &commit.turn, &commit.events).await?;
    append_items(db, &commit.session, &commit.turn, &commit.items).await?;
    if !commit.items.is_empty() && commit.end.is_none() {
        keep_step(db, &commit.turn).await?;
    }
    if let Some((_, now)) = commit.end {
        make_evictable(db, &commit.turn, now).await?;
        sqlx::query("DELETE FROM client_result WHERE turn_id = $1")
            .bind(commit.turn.as_str())
            .execute(&mut *db)
            .await
            .map_err(writing("a turn's end"))?;
        sqlx::query("UPDATE session SET last_activity = $1 WHERE id = $2")
            .bind(now)
            .bind(commit.session.as_str())
            .execute(db)
            .await
            .map_err(writing("a session"))?;
    }
    Ok(0)
}

/// What the readers have seen so far belongs to finished steps: a take-over will not say it again.
async fn keep_step(db: &mut SqliteConnection, turn: &TurnId) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE turn SET step_seq = COALESCE((SELECT MAX(seq) FROM event WHERE turn_id = $1), 0) WHERE id = $1",
    )
    .bind(turn.as_str())
    .execute(db)
    .await
    .map(drop)
    .map_err(writing("a turn's step"))
}

/// The state's name in the table.
pub(crate) fn state_name(outcome: TurnOutcome) -> &'static str {
    match outcome {
        TurnOutcome::Completed => "completed",
        TurnOutcome::Cancelled => "cancelled",
        TurnOutcome::Failed => "failed",
    }
}

async fn append_events(
    db: &mut SqliteConnection,
    turn: &TurnId,
    events: &[RenderedEvent],
) -> Result<(), StoreError> {
    for rows in events.chunks(ROWS_PER_INSERT_MAX) {
        let mut insert = QueryBuilder::<Sqlite>::new("INSERT INTO event (turn_id, seq, kind, data) ");
        insert.push_values(rows, |mut row, event| {
            row.push_bind(turn.as_str())
                .push_bind(event.seq as i64)
                .push_bind(&event.kind)
                .push_bind(&event.data);
        });
        insert.build().execute(&mut *db).await.map_err(writing("events"))?;
    }
    Ok(())
}

async fn append_items(
    db: &mut SqliteConnection,
    session: &SessionId,
    turn: &TurnId,
    items: &[Item],
) -> Result<(), StoreError> {
    for item in items {
        let body = to_json("an item", item)?;
        sqlx::query(
            "INSERT INTO item (session_id, idx, turn_id, body)
             SELECT $1, COALESCE(MAX(idx), -1) + 1, $2, $3 FROM item WHERE session_id = $1",
        )
        .bind(session.as_str())
        .bind(turn.as_str())
        .bind(body)
        .execute(&mut *db)
        .await
        .map_err(writing("an item"))?;
    }
    Ok(())
}

async fn set_metadata(
    db: &mut SqliteConnection,
    session: &SessionId,
    key: &str,
    value: &Value,
) -> Result<u64, StoreError> {
    let stored: Option<String> = sqlx::query_scalar("SELECT metadata FROM session WHERE id = $1")
        .bind(session.as_str())
        .fetch_optional(&mut *db)
        .await
        .map_err(writing("metadata"))?;
    let stored = stored.ok_or_else(|| StoreError::NoSuchSession(session.clone()))?;
    let mut metadata: serde_json::Map<String, Value> = crate::read::from_json("metadata", &stored)?;
    metadata.insert(key.to_owned(), value.clone());
    let text = to_json("metadata", &metadata)?;
    // A hint that would not fit is dropped: it is a hint.
    if text.len() > palisade_protocol::limits::METADATA_BYTES_MAX {
        return Ok(0);
    }
    sqlx::query("UPDATE session SET metadata = $1 WHERE id = $2")
        .bind(text)
        .bind(session.as_str())
        .execute(db)
        .await
        .map_err(writing("metadata"))?;
    Ok(1)
}

/// Deletes the session, its turns and its items. Its events are orphans from then on, which no reader can name,
/// and the sweep takes them in small bites.
pub(crate) async fn delete_session(
    db: &mut SqliteConnection,
    tenant: &TenantName,
    session: &SessionId,
) -> Result<u64, StoreError> {
    let deleted = sqlx::query("DELETE FROM session WHERE id = $1 AND tenant = $2")
        .bind(session.as_str())
        .bind(tenant.as_str())
        .execute(&mut *db)
        .await
        .map_err(writing("a session"))?
        .rows_affected();
    if deleted == 0 {
        return Err(StoreError::NoSuchSession(session.clone()));
    }
    // Those that ended are listed already, and their readers have the usual time to read the end.
    sqlx::query(
        "INSERT INTO evictable_turn (turn_id, since)
         SELECT id, started_at FROM turn WHERE session_id = $1 AND state = 'running'",
    )
    .bind(session.as_str())
    .execute(&mut *db)
    .await
    .map_err(writing("a session"))?;
    for statement in ["DELETE FROM turn WHERE session_id = $1", "DELETE FROM item WHERE session_id = $1"] {
        sqlx::query(statement)
            .bind(session.as_str())
            .execute(&mut *db)
            .await
            .map_err(writing("a session"))?;
    }
    Ok(deleted)
}

/// Takes the events of turns that may go, oldest first, in one small bite; the number is of events.
async fn sweep_events(
    db: &mut SqliteConnection,
    evictable_before: f64,
    rows_max: i64,
) -> Result<u64, StoreError> {
    let turns: Vec<String> =
        sqlx::query_scalar("SELECT turn_id FROM evictable_turn WHERE since < $1 ORDER BY since LIMIT $2")
            .bind(evictable_before)
            .bind(TURNS_PER_SWEEP_MAX)
            .fetch_all(&mut *db)
            .await
            .map_err(writing("old events"))?;
    let mut swept = 0;
    for turn in turns {
        let left = rows_max - swept;
        let gone = sqlx::query(
            "DELETE FROM event WHERE rowid IN (SELECT rowid FROM event WHERE turn_id = $1 ORDER BY seq LIMIT $2)",
        )
        .bind(&turn)
        .bind(left)
        .execute(&mut *db)
        .await
        .map_err(writing("old events"))?
        .rows_affected() as i64;
        swept += gone;
        if gone == left {
            break;
        }
        sqlx::query("DELETE FROM evictable_turn WHERE turn_id = $1")
            .bind(&turn)
            .execute(&mut *db)
            .await
            .map_err(writing("old events"))?;
    }
    Ok(swept as u64)
}

/// From here on the turn's events are kept for a while only.
async fn make_evictable(db: &mut SqliteConnection, turn: &TurnId, since: f64) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO evictable_turn (turn_id, since) VALUES ($1, $2)")
        .bind(turn.as_str())
        .bind(since)
        .execute(db)
        .await
        .map(drop)
        .map_err(writing("a turn's end"))
}

fn to_json(what: &'static str, value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|e| StoreError::Corrupt { what, source: e.into() })
}

pub(crate) fn writing(what: &'static str) -> impl FnOnce(sqlx::Error) -> StoreError {
    move |source| StoreError::Write { what, source }
}
