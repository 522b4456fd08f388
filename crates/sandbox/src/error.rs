//! Why a sandbox could not be started or used.

use std::io;
use std::path::PathBuf;

/// One variant per failing step. None of them is the fault of a command that ran: that is a [`crate::RunExit`].
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Inside a user namespace root stays root for the kernel, so this is refused.
    #[error("refusing to start sandboxes as root: run the server as an unprivileged user")]
    RunningAsRoot,
    /// No bubblewrap.
    #[error("bubblewrap was not found ({0}); install the package `bubblewrap`")]
    BwrapMissing(String),
    /// A configured file or directory is not there, or this user cannot reach it.
    #[error("the {what} {path} cannot be used by this user")]
    Unreachable {
        /// Which setting.
        what: &'static str,
        /// Its value.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A path that cannot be written down for the launcher.
    #[error("the path {0:?} is not UTF-8")]
    Path(PathBuf),
    /// The specification breaks a rule.
    #[error("the sandbox's specification is not valid: {0}")]
    Spec(String),
    /// A step on our side failed.
    #[error("{step} failed")]
    Prepare {
        /// What was tried.
        step: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The launcher or bubblewrap gave up.
    #[error("the sandbox did not start: {message}{}{hint}", if hint.is_empty() { "" } else { "; " })]
    Start {
        /// Its own words.
        message: String,
        /// What to do about it, where the words are known; else empty.
        hint: &'static str,
    },
    /// It is neither up nor down.
    #[error("the sandbox was not ready after {0} ms")]
    StartTimeout(u64),
    /// The command cannot be given to a shell.
    #[error("the command cannot be run: {0}")]
    Command(String),
    /// The hand did not start the call.
    #[error("the sandbox did not start the call: {0}")]
    Refused(String),
    /// The sandbox is gone; whatever ran in it is gone too. Start a new one.
    #[error("the sandbox has died: {0}")]
    Died(String),
}

impl SandboxError {
    /// For `map_err` on a step of ours.
    pub(crate) fn at(step: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Prepare { step, source }
    }

    /// Whether the sandbox is lost and a new one may do better.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Died(_))
    }
}
