//! What can go wrong with the store, in its own terms.

use palisade_protocol::{Error, ErrorKind, LedgerName, MicroCredits, SessionId, TenantName, TurnId};
use sqlx::error::DatabaseError;
use sqlx::postgres::PgDatabaseError;

/// One variant per way to fail.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum StoreError {
    /// `place` names no password.
    #[error("cannot open the database {place}")]
    Open { place: String, source: sqlx::Error },
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
    /// Somebody was told that the turn is cancelled, so it ends in no other way; nothing was written.
    #[error("turn {0} is to be cancelled")]
    CancelRequested(TurnId),
    /// In hard mode: what can be spent, and what would be needed.
    #[error("the ledger {ledger} has {available} credits to spend, and {needed} are needed")]
    CreditsExhausted { ledger: LedgerName, available: MicroCredits, needed: MicroCredits },
    /// The caller has used what it may in this window.
    #[error("the {window}'s usage limit is reached for {wait_s} s")]
    UsageLimit { window: &'static str, wait_s: u64 },
    #[error("there is no ledger {0}")]
    NoSuchLedger(LedgerName),
    #[error("a posting with the key {0:?} is there, with another amount or of another kind")]
    PostingDiffers(String),
    /// This server was taken for dead, and its turns are others' from now on.
    #[error("the server's lease is over")]
    LeaseOver,
    /// The database cannot be reached; nothing of the group was written.
    #[error("the database cannot be reached: {why}")]
    Lost { why: String },
    /// The database was lost during a commit, and has not come back: whether it was written is not known.
    #[error("the database was lost during a commit")]
    InDoubt { source: sqlx::Error },
    /// The disk is full; nothing of the group was written.
    #[error("the disk is full")]
    Full,
    /// Events that the reader has not read are no longer kept.
    #[error("events of turn {0} were evicted before they were read")]
    Evicted(TurnId),
    /// Somebody else changed a tenant's credentials; nothing of this change was written.
    #[error("the vault of tenant {0} has changed meanwhile")]
    VaultChanged(TenantName),
    #[error("the vault's key has changed meanwhile")]
    VaultKeyChanged,
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
            StoreError::CreditsExhausted { available, needed, .. } => Error::new(
                ErrorKind::OutOfCredits,
                "credits.exhausted",
                format!(
                    "there are {available} credits left to spend and {needed} are needed; an operator can add some"
                ),
            ),
            StoreError::UsageLimit { window, wait_s } => Error::new(
                ErrorKind::LimitReached,
                "usage.limit",
                format!("the usage limit of the {window} is reached; there is room again in {wait_s} s, and GET /v1/usage says how much is used"),
            )
            .retry_after(*wait_s),
            StoreError::NoSuchLedger(ledger) => {
                let message = format!("there is no ledger {:?}", ledger.as_str());
                Error::new(ErrorKind::NotFound, "ledger.not_found", message)
            }
            StoreError::PostingDiffers(key) => {
                let message = format!("the key {key:?} was used for another posting; take a new key for a new one");
                Error::new(ErrorKind::Conflict, "ledger.key_used", message)
            }
            StoreError::VaultChanged(_) | StoreError::VaultKeyChanged => Error::new(
                ErrorKind::Conflict,
                "vault.changed",
                "the vault was changed by others at the same time, again and again; try again shortly",
            ),
            StoreError::Stopped => Error::new(
                ErrorKind::Unavailable,
                "store.stopped",
                "the server is shutting down; try again shortly",
            ),
            _ if error.is_full() => {
                let message = "the server's disk is full; nothing was written";
                Error::new(ErrorKind::StorageFull, "storage.full", message).caused_by(error)
            }
            StoreError::InDoubt { .. } => {
                let message = "the server lost its database while it wrote this, and whether it was written is not known; look before you repeat it, or repeat it under the same key";
                Error::new(ErrorKind::Unavailable, "store.in_doubt", message).caused_by(error)
            }
            _ if error.fault() == Fault::Lost => {
                let message = "the server cannot reach its database; try again shortly";
                Error::new(ErrorKind::Unavailable, "store.unavailable", message).caused_by(error)
            }
            _ => Error::bug(error),
        }
    }
}

/// How far a fault reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// One write, which is undone by itself.
    Refused,
    /// The whole transaction, which another server's stood in the way of; again, and it may pass.
    Contention,
    /// The connection; whatever was not committed is undone.
    Lost,
    /// The whole transaction.
    Group,
}

impl StoreError {
    /// What the database said, if it was the database.
    pub(crate) fn database(&self) -> Option<&sqlx::Error> {
        match self {
            Self::Open { source, .. }
            | Self::Read { source, .. }
            | Self::Write { source, .. }
            | Self::InDoubt { source }
            | Self::Commit { source } => Some(source),
            _ => None,
        }
    }

    pub(crate) fn fault(&self) -> Fault {
        match (self, self.database()) {
            (Self::Lost { .. } | Self::InDoubt { .. }, _) => Fault::Lost,
            (_, Some(source)) => fault_of(source),
            _ => Fault::Refused,
        }
    }

    /// Whether the database did not answer: nothing is wrong with what was asked, and it may be asked again.
    pub fn is_unreachable(&self) -> bool {
        self.fault() == Fault::Lost
    }

    /// Whether this one write was refused for what it is: the same again is refused again.
    pub fn is_refusal(&self) -> bool {
        self.fault() == Fault::Refused && !self.is_full() && !matches!(self, Self::Stopped)
    }

    /// Whether it was for want of room.
    pub(crate) fn is_full(&self) -> bool {
        let database = self.database().and_then(sqlx::Error::as_database_error);
        matches!(self, Self::Full)
            || database.is_some_and(|error| match postgres_code(error) {
                Some(code) => code == "53100",
                None => sqlite_code(error) == Some(13),
            })
    }
}

/// Codes: <https://sqlite.org/rescode.html>, <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
pub(crate) fn fault_of(source: &sqlx::Error) -> Fault {
    let Some(error) = source.as_database_error() else {
        return match source {
            sqlx::Error::RowNotFound
            | sqlx::Error::Encode(_)
            | sqlx::Error::Decode(_)
            | sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::ColumnNotFound(_) => Fault::Refused,
            _ => Fault::Lost,
        };
    };
    let Some(code) = postgres_code(error) else {
        // No memory (7), interrupted (9), an I/O error (10), a full disk (13): SQLite may have rolled back by itself,
        // and what would be written next would be outside the transaction.
        return if matches!(sqlite_code(error), Some(7 | 9 | 10 | 13)) {
            Fault::Group
        } else {
            Fault::Refused
        };
    };
    match code {
        "40001" | "40P01" | "55P03" => Fault::Contention,
        // A transaction that said nothing for too long was ended, with its connection.
        "25P03" => Fault::Lost,
        // Too many connections: all servers come back at once when the database does.
        "53300" => Fault::Lost,
        _ => match code.get(..2) {
            // The connection, and a server that is being stopped or started.
            Some("08" | "57") => Fault::Lost,
            // A transaction that cannot go on, resources, the system, PostgreSQL itself.
            Some("25" | "40" | "53" | "58" | "XX") => Fault::Group,
            _ => Fault::Refused,
        },
    }
}

fn postgres_code(error: &dyn DatabaseError) -> Option<&str> {
    error.try_downcast_ref::<PgDatabaseError>().map(PgDatabaseError::code)
}

/// The primary code of an extended one.
fn sqlite_code(error: &dyn DatabaseError) -> Option<i32> {
    Some(error.code()?.parse::<i32>().ok()? & 0xff)
}
