//! The one error that crosses rooms: a kind, a stable code for machines, a sentence for people.
//!
//! No HTTP here: only the gateway knows which status a kind becomes. The `source` is for the log and never
//! leaves the server.

use std::error::Error as StdError;

/// An error with everything that caused it, for the log: `cannot write events: the disk is full`.
pub fn chain(error: &dyn StdError) -> impl std::fmt::Display + '_ {
    struct Chain<'e>(&'e dyn StdError);
    impl std::fmt::Display for Chain<'_> {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "{}", self.0)?;
            let mut cause = self.0.source();
            while let Some(error) = cause {
                write!(f, ": {error}")?;
                cause = error.source();
            }
            Ok(())
        }
    }
    Chain(error)
}

/// What went wrong, in terms a caller can act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request cannot be understood.
    Malformed,
    /// No valid key was presented.
    Unauthenticated,
    /// The ledger has no credits left (hard mode).
    OutOfCredits,
    /// Outside the session's scope, or an invalid path.
    Forbidden,
    /// There is no such thing, or it is somebody else's.
    NotFound,
    /// The thing exists and does not take this method.
    MethodNotAllowed,
    /// The thing exists and its state does not allow this now.
    Conflict,
    /// A body is over its written limit.
    TooLarge,
    /// The thing is not as the caller said that it must be.
    PreconditionFailed,
    /// A body is packed in a way that is not read here.
    UnsupportedCoding,
    /// A byte range outside the file.
    RangeNotSatisfiable,
    /// An idempotency key was used for something else.
    IdempotencyMismatch,
    /// A usage limit is reached.
    LimitReached,
    /// The client did not send its request in time.
    TimedOut,
    /// A request's head is over its written limit.
    HeadTooLarge,
    /// Something of ours is at fault.
    Bug,
    /// This server does not do that (yet).
    NotImplemented,
    /// A part we depend on is down.
    Unavailable,
    /// The disk or a quota is full.
    StorageFull,
}

/// An error as rooms pass it upwards. `Display` is the public message.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What a caller can do about it.
    pub kind: ErrorKind,
    /// Stable and dotted, such as `session.busy`; clients may match on it.
    pub code: &'static str,
    /// For people; says what to do next where there is something to do.
    pub message: String,
    /// After how many seconds it may be different, where that is known.
    pub retry_after_s: Option<u64>,
    /// The cause, for the log only.
    #[source]
    pub source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error without an inner cause.
    pub fn new(kind: ErrorKind, code: &'static str, message: impl Into<String>) -> Self {
        Self { kind, code, message: message.into(), retry_after_s: None, source: None }
    }

    /// The same error, remembering what caused it.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same error, saying when it may be different.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// A fault of ours: the client sees a fixed sentence, the log sees the cause.
    pub fn bug(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(ErrorKind::Bug, "internal", "The server failed unexpectedly; the log has the details.")
            .caused_by(source)
    }

    /// There is no such session, or it belongs to another tenant.
    pub fn no_such_session() -> Self {
        Self::new(ErrorKind::NotFound, "session.not_found", "no such session")
    }
}
