//! What the server and the hand say to each other over the control socket.
//!
//! One `SOCK_SEQPACKET` pair per sandbox; a message is one JSON value of at most [`MESSAGE_BYTES_MAX`], and
//! anything that may be longer (a command, a file's content, a result) travels in a descriptor passed with it
//! (decision 24). Pure data: nothing here opens, sends or runs anything.

pub mod file_op;
pub mod launch;
pub mod message;

pub use file_op::{Edit, FileOp, FileResult, Glob, Grep, GrepMode, Read, Replacement, Write};
pub use launch::{LaunchSpec, ScopeMount, SkillMount};
pub use message::{CommandLimits, Identity, Left, Reply, Request, RootInside};

/// One control message, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Descriptors passed with one control message.
pub const MESSAGE_FDS_MAX: usize = 2;
/// The certificate authorities of the system shown inside, in bytes.
pub const TRUST_BYTES_MAX: u64 = 2 * 1024 * 1024;
/// A launch specification, in bytes: 64 scope paths of 4 KiB and as many skills fit.
pub const LAUNCH_SPEC_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// One command, in bytes. It comes by descriptor, so that no limit of arguments holds for it.
pub const COMMAND_BYTES_MAX: usize = 2 * 1024 * 1024;
/// One file operation as JSON, in bytes: what one answer of a model may hold, escaped.
pub const FILE_OP_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// The text of one file operation's result, in bytes.
pub const FILE_RESULT_TEXT_BYTES_MAX: usize = 30 * 1024;
/// A result as JSON, in bytes: the text with every byte escaped, and some room.
pub const FILE_RESULT_BYTES_MAX: usize = 6 * FILE_RESULT_TEXT_BYTES_MAX + 4096;
/// Calls that may run at once in one sandbox, background commands included.
pub const CALLS_RUNNING_MAX: usize = 32;
/// The last output of a background command that is told with its end, in bytes.
pub const BACKGROUND_TAIL_BYTES_MAX: usize = 1024;
/// Processes that are named with the end of a call.
pub const LEFT_NAMED_MAX: usize = 8;
/// The name of one of them, in bytes, as the kernel has it.
pub const PROCESS_NAME_BYTES_MAX: usize = 16;
/// Between SIGTERM and SIGKILL at a command's deadline, in milliseconds.
pub const TERM_GRACE_MS: u64 = 2_000;
/// A status key, in bytes.
pub const STATUS_KEY_BYTES_MAX: usize = 64;
/// A status value, in bytes.
pub const STATUS_VALUE_BYTES_MAX: usize = 1024;

/// The largest file that anything inside may make, in bytes.
pub const FILE_SIZE_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Descriptors that a process inside may have open.
pub const OPEN_FILES_MAX: u64 = 1024;
/// inotify instances of one sandbox: the kernel counts them by uid, which all sandboxes share.
pub const INOTIFY_INSTANCES_MAX: u32 = 32;
/// /tmp inside, in files: an inode costs memory, however empty.
pub const TMP_FILES_MAX: u64 = 32 * 1024;
/// /dev/shm inside, in files.
pub const SHM_FILES_MAX: u64 = 4 * 1024;

/// Where the workspace is inside; the working directory of every command.
pub const WORKSPACE_INSIDE: &str = "/workspace";
/// HOME inside: a folder of the session's own on disk, outside of the workspace (decision 44).
pub const HOME_INSIDE: &str = "/home/agent";
/// The folder below HOME for temporary files that are too large for memory; empty whenever a sandbox starts.
pub const SCRATCH_NAME: &str = ".tmp";
/// TMPDIR inside.
pub const SCRATCH_INSIDE: &str = "/home/agent/.tmp";
/// The folder below HOME that background commands log to.
pub const BACKGROUND_LOGS_NAME: &str = ".background";
/// Where programs inside find the proxy. The listener is the server's: it alone takes what connects there.
pub const PROXY_INSIDE: std::net::SocketAddr =
    std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 3128);
/// The certificate authorities that programs inside trust.
pub const TRUST_INSIDE: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Where the hand's binary is inside.
pub const HAND_INSIDE: &str = "/usr/local/libexec/palisade-hand";
/// The uid and gid inside (decision 17).
pub const UID_INSIDE: u32 = 1000;
/// The hand's argument that makes it the launcher.
pub const LAUNCH_ARG: &str = "--launch";
/// The hand's argument that makes it pid 1 of a sandbox.
pub const INIT_ARG: &str = "--init";
/// The hand's argument that makes it carry out one file operation, from its stdin to its stdout.
pub const FILE_OP_ARG: &str = "--file-op";
/// The name under which the hand's binary sends status updates.
pub const STATUS_NAME: &str = "session-status";

/// Whether a status update is within its form: `[A-Za-z0-9_.-]{1,64}` and at most 1 KiB of text.
pub fn status_is_valid(key: &str, value: &str) -> bool {
    let key_byte = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    (1..=STATUS_KEY_BYTES_MAX).contains(&key.len())
        && key.bytes().all(key_byte)
        && value.len() <= STATUS_VALUE_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_bounded_in_key_and_value() {
        assert!(status_is_valid("deck_status", "") && status_is_valid(&"k".repeat(64), &"v".repeat(1024)));
        for (key, value) in [
            ("", "v"),
            (&"k".repeat(65)[..], "v"),
            ("a b", "v"),
            ("a=b", "v"),
            ("ä", "v"),
            ("k", &"v".repeat(1025)[..]),
        ] {
            assert!(!status_is_valid(key, value), "{key:?}");
        }
    }
}
