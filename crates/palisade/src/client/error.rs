//! What can go wrong between a client command and its end, each with the sentence that helps.
//!
//! Printed as `error: …`, a blank line, `hint: …`, on stderr. What a server says is shown, never obeyed.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// One variant per step that can fail.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    /// The address is not one.
    #[error("'{url}' is not an http or https address")]
    Url { url: String },
    /// The HTTP client could not be made.
    #[error("cannot set up the HTTP client")]
    Setup {
        #[source]
        source: reqwest::Error,
    },
    /// The kernel's randomness.
    #[error("cannot make a key for the message")]
    NoRandomness {
        #[source]
        source: palisade_vault::NoRandomness,
    },
    /// There is no key to send.
    #[error("no key: neither --key nor POKEE_KEY is set, and {} cannot be read", path.display())]
    NoKey {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The key has bytes that a header cannot carry.
    #[error("the key from {origin} is not a key: it should look like pk_<tenant>_<token>")]
    BadKey { origin: String },
    /// Nothing listens there.
    #[error("cannot connect to {url}")]
    Connect {
        url: String,
        #[source]
        source: reqwest::Error,
    },
    /// The connection broke, or the answer did not come.
    #[error("{what} failed: the connection broke")]
    Broken {
        what: String,
        #[source]
        source: reqwest::Error,
    },
    /// The answer did not come in time.
    #[error("{what} failed: no answer within {} s", limit.as_secs())]
    Silent { what: String, limit: Duration },
    /// The server said no.
    #[error("{}", refusal.message)]
    Refused { refusal: Refusal },
    /// The answer is not what the contract says.
    #[error("{what}: the answer is not one of this API ({detail})")]
    Unexpected { what: String, detail: String },
    /// The stream broke and would not come back.
    #[error(
        "the stream of turn {turn} broke off before event {next_seq} and did not come back in {attempts} attempts"
    )]
    StreamLost {
        session: String,
        turn: String,
        next_seq: u64,
        attempts: u32,
        #[source]
        source: Box<Self>,
    },
    /// A workspace path that a URL cannot carry.
    #[error("'{path}': a workspace path cannot contain '..'")]
    RemotePath { path: String },
    /// A folder was asked for as if it were a file.
    #[error("'{path}' is a folder")]
    IsFolder { path: String },
    /// A local file.
    #[error("cannot {action} {}", path.display())]
    File {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Every name tried was taken.
    #[error("{} and {tried} names like it are taken", path.display())]
    NamesTaken { path: PathBuf, tried: u32 },
    /// A file would have gone to a terminal.
    #[error("this would write a file's raw bytes to the terminal")]
    RawToTerminal,
    /// The message is missing or too long.
    #[error("{problem}")]
    Message { problem: String },
    /// Nothing has run in the session.
    #[error("nothing has run in session {session} yet")]
    NoTurn { session: String },
    /// stdout or the signal handler failed.
    #[error("cannot {action}")]
    Process {
        action: &'static str,
        #[source]
        source: io::Error,
    },
    /// Ctrl-C; says nothing.
    #[error("interrupted")]
    Interrupted,
}

/// An answer with an error status.
#[derive(Debug)]
pub(super) struct Refusal {
    /// The status.
    pub status: u16,
    /// Ours, for machines; empty when the server gave none.
    pub code: String,
    /// For people.
    pub message: String,
    /// Where the key came from, for a 401.
    pub key_origin: String,
    /// `Retry-After`, when there is one.
    pub retry_after: Option<String>,
}

impl ClientError {
    /// What to do about it, when there is something.
    pub(super) fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Url { .. } => "like --url http://127.0.0.1:8080, or POKEE_API".into(),
            Self::NoKey { .. } => {
                "the server's first key is in admin.key in its data directory: name that directory with \
                 --data-dir, or pass a key with POKEE_KEY"
                    .into()
            }
            Self::Connect { url, .. } => format!(
                "start a server with `palisade serve`, or say where one runs with --url or POKEE_API (now {url})"
            ),
            Self::Refused { refusal } => return refusal.hint(),
            Self::Unexpected { .. } => "is --url the address of a Palisade server?".into(),
            Self::StreamLost { session, source, .. }
                if matches!(**source, Self::Refused { .. }) && !source.is_passing() =>
            {
                format!("`palisade sessions show {session}` says whether the turn still runs")
            }
            Self::StreamLost { session, turn, next_seq, .. } => format!(
                "the turn goes on without a reader; once the server answers: \
                 palisade tail {session} --turn {turn} --from {next_seq}"
            ),
            Self::IsFolder { path } => {
                format!("list it with `palisade files SESSION ls '{path}'`, or fetch it whole with --zip")
            }
            Self::RawToTerminal => "pipe it somewhere, or name a file with -o".into(),
            Self::NamesTaken { .. } => "move some of them away, or choose another folder".into(),
            _ => return None,
        };
        Some(hint)
    }

    /// Whether trying again later may help a reader of a stream.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Broken { .. } | Self::Silent { .. } => true,
            Self::Refused { refusal } => matches!(refusal.status, 429 | 500 | 502 | 503 | 504),
            _ => false,
        }
    }

    /// Whether a pipe's reader has gone, which is no failure.
    pub(super) fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Process { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl Refusal {
    fn hint(&self) -> Option<String> {
        let hint = match (self.status, self.code.as_str()) {
            (401, _) => format!(
                "the key came from {}; the server's first key is in admin.key in its data directory \
                 (--data-dir, --key or POKEE_KEY)",
                self.key_origin
            ),
            (402, _) => "an operator can raise the tenant's credit balance".into(),
            (403, "scope.denied") => {
                "a session's scope is fixed when it is created; `palisade sessions show ID` prints it".into()
            }
            (404, "session.not_found") => "`palisade sessions` lists the sessions that there are".into(),
            (409, "session.busy") => "a turn is running in it: follow it with `palisade tail ID`".into(),
            (409, "directory.not_empty") => "--recursive deletes a folder with everything in it".into(),
            (413, _) => "the tenant's setting `upload_mb` is the limit for one file".into(),
            (429, _) => match &self.retry_after {
                Some(time_s) => format!("try again in {} s", super::text::one_line(time_s, 40)),
                None => "try again later".into(),
            },
            (501, _) => "this server does not offer that (yet)".into(),
            (503, _) => "`GET /ready` with the key says which part is down".into(),
            _ => return None,
        };
        Some(hint)
    }
}
