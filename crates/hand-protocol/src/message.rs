//! The messages of the control socket: requests inwards, replies outwards.

use serde::{Deserialize, Serialize};

/// What the server asks. Handled in the order of sending.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Request {
    /// The first message. Answered by [`Reply::Ready`].
    Setup {
        /// The whole environment of every command.
        env: Vec<(String, String)>,
        /// The scope roots.
        roots: Vec<RootInside>,
        /// Limits of each command's own, where no control group holds the sandbox as a whole.
        rlimits: Option<CommandLimits>,
        /// Whether to listen where programs inside look for the proxy, and to pass the listener out with `Ready`.
        listen: bool,
    },
    /// A fresh shell, in which the command's text stands in no argument. Descriptors: the text; the write end of its output pipe (not for a
    /// background command, whose output goes to a log file). Answered by `Started` and `Exited`, or `Refused`.
    Run {
        /// Unique within the sandbox.
        id: u64,
        /// After it: SIGTERM, the grace time, SIGKILL. `None` for a background command.
        timeout_ms: Option<u64>,
        /// Lives until the sandbox ends.
        background: bool,
    },
    /// A file operation in a process of its own. Descriptors: a [`crate::FileOp`] as JSON; where the
    /// [`crate::FileResult`] goes as JSON. Answered like `Run`.
    File {
        /// Unique within the sandbox.
        id: u64,
        /// As for `Run`.
        timeout_ms: u64,
    },
    /// SIGKILL to every process of a call. Not answered but by the call's own `Exited`; unknown ids are ignored.
    Kill {
        /// The call.
        id: u64,
    },
    /// Kill everything but background commands. Answered by `TurnEnded`.
    EndTurn {
        /// Unique within the sandbox.
        id: u64,
    },
}

/// What the hand says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Reply {
    /// The sandbox takes calls. With it comes the listener that was asked for.
    Ready {
        /// The version of the kernel's Landlock, behind which everything inside is now; 0 where it has none that would do.
        landlock_abi: u32,
        /// What lies at each of the roots asked for, in their order.
        roots: Vec<Identity>,
    },
    /// A call's process runs.
    Started {
        /// The call.
        id: u64,
        /// Its pid inside.
        pid: i32,
        /// Where a background command's output goes, as a path inside.
        log: Option<String>,
    },
    /// A call's process has ended, and so has everything it left in its session.
    Exited {
        /// The call.
        id: u64,
        /// How the process ended: the exit code,
        code: Option<i32>,
        /// or the signal that ended it.
        signal: Option<i32>,
        /// Whether that was the deadline's doing.
        timed_out: bool,
        /// What it left.
        #[serde(default)]
        left: Left,
    },
    /// A call was not started.
    Refused {
        /// The call.
        id: u64,
        /// Why, for a person.
        message: String,
    },
    /// `EndTurn` is done.
    TurnEnded {
        /// The request.
        id: u64,
    },
    /// A process inside set a key of the session's status.
    Status {
        /// See [`crate::status_is_valid`].
        key: String,
        /// See [`crate::status_is_valid`].
        value: String,
    },
}

/// What a call leaves behind when it ends.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Left {
    /// Programs that were still running in it and ended with it.
    pub ended: Vec<String>,
    /// Programs that left its session and run until the turn ends; told once.
    pub adrift: Vec<String>,
    /// The last output of a background command.
    pub tail: String,
}

/// A root of the scope as it is inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootInside {
    /// Where it is mounted.
    pub path: String,
    /// Whether commands may change what is below it.
    pub writable: bool,
}

/// What stands in for a control group; weaker, because a process that forks has them anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandLimits {
    /// Private memory of one process, in bytes.
    pub data_bytes: u64,
    /// Processes in the sandbox's user namespace.
    pub processes: u64,
}

/// A directory, whatever it is called at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The device it is on.
    pub dev: u64,
    /// Its inode.
    pub ino: u64,
}
