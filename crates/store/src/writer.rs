//! The one writer: takes whatever is waiting, applies each write in its savepoint, commits once, answers all.
//!
//! A write that was answered is on the disk. The queue is bounded; who writes faster than the disk waits.

use std::path::{Path, PathBuf};

use palisade_protocol::TurnId;
use sqlx::sqlite::SqlitePool;
use sqlx::{Connection as _, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use crate::follow::Wakers;
use crate::write::{Commit, NewSession, NewTurn, Write, apply};
use crate::{Store, StoreError, WAL_BYTES_MAX};

/// Writes that may wait; beyond it callers wait for room.
const QUEUE_MAX: usize = 1024;
/// Writes in one transaction.
const GROUP_MAX: usize = 256;

/// Groups between two looks at the size of the write-ahead log.
const GROUPS_PER_LOOK: u32 = 256;

type Reply = oneshot::Sender<Result<u64, StoreError>>;

#[derive(Clone, Debug)]
pub(crate) struct Writer {
    queue: mpsc::Sender<(Write, Reply)>,
}

/// The handle and the task behind it.
pub(crate) fn start(
    pool: SqlitePool,
    wal: PathBuf,
    wakers: Wakers,
) -> (Writer, impl Future<Output = ()> + Send) {
    let (queue, waiting) = mpsc::channel(QUEUE_MAX);
    (Writer { queue }, write_groups(pool, wal, wakers, waiting))
}

async fn write_groups(
    pool: SqlitePool,
    wal: PathBuf,
    wakers: Wakers,
    mut waiting: mpsc::Receiver<(Write, Reply)>,
) {
    let mut group = Vec::with_capacity(GROUP_MAX);
    let mut groups: u32 = 0;
    while waiting.recv_many(&mut group, GROUP_MAX).await > 0 {
        let mut answers = Vec::with_capacity(group.len());
        let closing = group.iter().any(|(write, _)| matches!(write, Write::Close));
        match write_group(&pool, &group, &mut answers).await {
            Ok(()) => {
                for ((write, reply), answer) in group.drain(..).zip(answers) {
                    if answer.is_ok() {
                        wake(&wakers, &write);
                    }
                    // Who asked may be gone; the write stands all the same.
                    let _ = reply.send(answer);
                }
            }
            Err(error) => {
                tracing::error!(
                    writes = group.len(),
                    error = &error as &dyn std::error::Error,
                    "a group was not committed"
                );
                for (_, reply) in group.drain(..) {
                    let _ = reply.send(Err(again(&error)));
                }
            }
        }
        if closing {
            break;
        }
        groups = groups.wrapping_add(1);
        if groups.is_multiple_of(GROUPS_PER_LOOK) {
            keep_wal_small(&pool, &wal).await;
        }
    }
    pool.close().await;
}

/// Waits for readers to leave the write-ahead log, and begins it anew. Of no harm when they do not: the next look
/// tries again.
async fn keep_wal_small(pool: &SqlitePool, wal: &Path) {
    let bytes = std::fs::metadata(wal).map_or(0, |found| found.len());
    if bytes <= WAL_BYTES_MAX {
        return;
    }
    if let Err(error) = sqlx::query("PRAGMA wal_checkpoint(RESTART)").execute(pool).await {
        tracing::warn!(
            bytes,
            error = &error as &dyn std::error::Error,
            "the write-ahead log was not emptied"
        );
    }
}

/// One transaction around the whole group. An `Err` means that none of it was written.
async fn write_group(
    pool: &SqlitePool,
    group: &[(Write, Reply)],
    answers: &mut Vec<Result<u64, StoreError>>,
) -> Result<(), StoreError> {
    let mut connection = pool.acquire().await.map_err(committing)?;
    let written = write_through(&mut connection, group, answers).await;
    if written.is_err() {
        // A full disk lets SQLite roll back by itself; the driver goes on counting the transaction that is no
        // more, and would refuse every other. The next group opens a connection of its own.
        let _ = connection.close().await;
    }
    written
}

async fn write_through(
    connection: &mut SqliteConnection,
    group: &[(Write, Reply)],
    answers: &mut Vec<Result<u64, StoreError>>,
) -> Result<(), StoreError> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(committing)?;
    for (write, _) in group {
        let answer = if group.len() == 1 || write.is_one_statement() {
            apply(&mut transaction, write).await
        } else {
            apply_in_savepoint(&mut transaction, write).await?
        };
        match answer {
            Err(fault) if may_have_rolled_back(&fault) => return Err(fault),
            // A group of one needs no savepoint: its refusal rolls the whole transaction back.
            Err(refused) if group.len() == 1 => {
                transaction.rollback().await.map_err(committing)?;
                answers.push(Err(refused));
                return Ok(());
            }
            answer => answers.push(answer),
        }
    }
    transaction.commit().await.map_err(committing)
}

/// The outer error is a fault of the transaction itself, the inner one this write's own.
async fn apply_in_savepoint(
    transaction: &mut SqliteConnection,
    write: &Write,
) -> Result<Result<u64, StoreError>, StoreError> {
    let mut savepoint = transaction.begin().await.map_err(committing)?;
    let answer = apply(&mut savepoint, write).await;
    match &answer {
        Ok(_) => savepoint.commit().await.map_err(committing)?,
        // Then there may be no savepoint any more.
        Err(fault) if may_have_rolled_back(fault) => {}
        Err(_) => savepoint.rollback().await.map_err(committing)?,
    }
    Ok(answer)
}

fn committing(source: sqlx::Error) -> StoreError {
    StoreError::Commit { source }
}

/// Whether SQLite may have rolled the whole transaction back by itself: no memory (7), interrupted (9), an I/O
/// error (10), a full disk (13), each with its extended codes. What would be written next, would be outside it.
fn may_have_rolled_back(error: &StoreError) -> bool {
    let (StoreError::Write { source, .. } | StoreError::Commit { source } | StoreError::Read { source, .. }) =
        error
    else {
        return false;
    };
    let code = source.as_database_error().and_then(|e| e.code()).and_then(|code| code.parse::<i32>().ok());
    code.is_some_and(|code| matches!(code & 0xff, 7 | 9 | 10 | 13))
}

fn wake(wakers: &Wakers, write: &Write) {
    match write {
        Write::Commit(Commit { turn, events, .. }) | Write::StartTurn(NewTurn { id: turn, events, .. }) => {
            if let Some(last) = events.last() {
                wakers.wake(turn, last.seq);
            }
        }
        _ => {}
    }
}

/// One fault, told to everybody in the group.
fn again(error: &StoreError) -> StoreError {
    let source = match error {
        StoreError::Write { source, .. } | StoreError::Commit { source } => source,
        other => return StoreError::Commit { source: sqlx::Error::Protocol(other.to_string()) },
    };
    if crate::error::is_full(source) {
        return StoreError::Full;
    }
    StoreError::Commit { source: sqlx::Error::Protocol(source.to_string()) }
}

impl Store {
    /// Creates a session; durable when this returns.
    pub async fn create_session(&self, new: NewSession) -> Result<(), StoreError> {
        self.write(Write::CreateSession(Box::new(new))).await.map(drop)
    }

    /// Starts a turn, unless the session is gone ([`StoreError::NoSuchSession`]) or has one
    /// ([`StoreError::Busy`]). Durable when this returns.
    pub async fn start_turn(&self, new: NewTurn) -> Result<(), StoreError> {
        self.write(Write::StartTurn(new)).await.map(drop)
    }

    /// Appends to a running turn; durable, and visible to every reader, when this returns.
    pub async fn commit(&self, commit: Commit) -> Result<(), StoreError> {
        self.write(Write::Commit(commit)).await.map(drop)
    }

    /// Keeps a client's answers for the turn to take up; all of them or none.
    pub async fn answer_calls(
        &self,
        turn: &TurnId,
        answers: Vec<crate::ClientAnswer>,
    ) -> Result<(), StoreError> {
        self.write(Write::AnswerCalls { turn: turn.clone(), answers }).await.map(drop)
    }

    /// Lets a running turn go in good order: whoever takes it over counts no crash.
    pub async fn release(&self, turn: &TurnId, generation: i64) -> Result<(), StoreError> {
        self.write(Write::Release { turn: turn.clone(), generation }).await.map(drop)
    }

    /// Writes down that somebody wants the turn cancelled; whether it was still running.
    pub async fn request_cancel(&self, turn: &TurnId) -> Result<bool, StoreError> {
        Ok(self.write(Write::RequestCancel { turn: turn.clone() }).await? > 0)
    }

    /// Makes the attempt after `generation` the turn's owner, and returns its number. Refused as
    /// [`StoreError::Fenced`] when somebody else was quicker or the turn has ended.
    pub async fn take_over(&self, turn: &TurnId, generation: i64) -> Result<i64, StoreError> {
        self.write(Write::TakeOver { turn: turn.clone(), generation }).await?;
        Ok(generation + 1)
    }

    /// Forgets idempotency keys that were taken before (Unix seconds).
    pub async fn sweep_keys(&self, created_before: f64) -> Result<u64, StoreError> {
        self.write(Write::SweepKeys { created_before }).await
    }

    /// Sets one key of a session's metadata; a value that would push it over its limit is dropped.
    pub async fn set_metadata(
        &self,
        session: &palisade_protocol::SessionId,
        key: String,
        value: serde_json::Value,
    ) -> Result<(), StoreError> {
        self.write(Write::SetMetadata { session: session.clone(), key, value }).await.map(drop)
    }

    /// Deletes a session with its turns and items.
    pub async fn delete_session(
        &self,
        tenant: &palisade_protocol::TenantName,
        session: &palisade_protocol::SessionId,
    ) -> Result<(), StoreError> {
        self.write(Write::DeleteSession { tenant: tenant.clone(), session: session.clone() }).await.map(drop)
    }

    /// Deletes a session that runs no turn and was not active after `inactive_since` (Unix seconds), with
    /// `used_only` one that had a turn; [`StoreError::NoSuchSession`] when it is not so any more.
    pub async fn delete_idle_session(
        &self,
        tenant: &palisade_protocol::TenantName,
        session: &palisade_protocol::SessionId,
        inactive_since: f64,
        used_only: bool,
    ) -> Result<(), StoreError> {
        let (tenant, session) = (tenant.clone(), session.clone());
        self.write(Write::DeleteIdleSession { tenant, session, inactive_since, used_only }).await.map(drop)
    }

    /// Deletes at most `rows_max` events of turns that ended before `ended_before` (Unix seconds) or whose
    /// session is gone; returns how many went. Fewer than `rows_max` does not mean that none are left.
    pub async fn sweep_events(&self, ended_before: f64, rows_max: i64) -> Result<u64, StoreError> {
        self.write(Write::SweepEvents { ended_before, rows_max }).await
    }

    /// Finishes what was asked before, and ends the writer: every later write is [`StoreError::Stopped`].
    pub async fn close(&self) {
        // Stopped already is as good.
        let _ = self.write(Write::Close).await;
    }

    async fn write(&self, write: Write) -> Result<u64, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.writer.queue.send((write, reply)).await.map_err(|_| StoreError::Stopped)?;
        answer.await.map_err(|_| StoreError::Stopped)?
    }

    /// The last sequence number that a reader of `turn` could see has changed.
    pub(crate) fn subscribe(&self, turn: &TurnId) -> crate::follow::Subscription {
        self.wakers.subscribe(turn)
    }
}
