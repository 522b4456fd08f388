//! What can go wrong with the store, in its own terms.

use std::path::PathBuf;

use palisade_protocol::{Error, ErrorKind, SessionId, TenantName, TurnId};

/// One variant per way to fail.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum StoreError {
    #[error("cannot open the database {file}")]
    Open { file: PathBuf, source: sqlx::Error },
    #[error("cannot migrate the database")]
    Migrate { source: sqlx::migrate::MigrateError },
    #[error("cannot read {what}")]
    Read { what: &'static str, source: sqlx::Error },
    #[error("cannot write {what}")]
    Write { what: &'static str, source: sqlx::Error },
    #[error("cannot commit")]
    Commit { source: sqlx::Error },
    #[error("{what} in the database is not readable")]
    Corrupt { what: &'static str, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("there is no session {0}")]
    NoSuchSession(SessionId),
    #[error("the call {0:?} was answered before")]
    AnsweredTwice(String),
    /// Whose turn it is, and whether the request is the same, is for the caller to see.
    #[error("the idempotency key was used before")]
    KeyTaken,
    #[error("tenant {tenant} has its {sessions_max} sessions")]
    TooManySessions { tenant: TenantName, sessions_max: u64 },
    #[error("session {0} is busy")]
    Busy(SessionId),
    /// The commit came from an attempt that no longer owns the turn; nothing of it was written.
    #[error("turn {0} is not ours any more")]
    Fenced(TurnId),
    /// The disk is full; nothing of the group was written.
    #[error("the disk is full")]
    Full,
    /// Events that the reader has not read are no longer kept.
    #[error("events of turn {0} were evicted before they were read")]
    Evicted(TurnId),
    #[error("the writer has stopped")]
    Stopped,
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::NoSuchSession(_) => Error::no_such_session(),
            StoreError::Busy(id) => Error::new(
                ErrorKind::Conflict,
                "session.busy",
                format!("session {id} is running a turn; wait for its stream to end, or cancel it"),
            ),
            StoreError::TooManySessions { sessions_max, .. } => Error::new(
                ErrorKind::LimitReached,
                "sessions.limit",
                format!(
                    "there are {sessions_max} sessions already, which is the limit; delete one, or wait for one to end"
                ),
            ),
            StoreError::Fenced(_) => {
                Error::new(ErrorKind::Conflict, "turn.ended", "the turn has already ended")
            }
            StoreError::AnsweredTwice(call) => {
                let message = format!("the call {call:?} was answered before");
                Error::new(ErrorKind::Conflict, "tool.answered", message)
            }
            StoreError::Stopped => Error::new(
                ErrorKind::Unavailable,
                "store.stopped",
                "the server is shutting down; try again shortly",
            ),
            StoreError::Full => full(error),
            StoreError::Write { source, .. } | StoreError::Commit { source } if is_full(source) => {
                full(error)
            }
            _ => Error::bug(error),
        }
    }
}

fn full(cause: StoreError) -> Error {
    let message = "the server's disk is full; nothing was written";
    Error::new(ErrorKind::StorageFull, "storage.full", message).caused_by(cause)
}

/// SQLITE_FULL (13), with its extended codes.
pub(crate) fn is_full(source: &sqlx::Error) -> bool {
    let code = source.as_database_error().and_then(|e| e.code()).and_then(|c| c.parse::<i32>().ok());
    code.is_some_and(|code| code & 0xff == 13)
}
