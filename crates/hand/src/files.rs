//! The file tools, each in a process of its own that pid 1 can end: what they read may be huge or hostile.
//!
//! The only fence is the mount namespace, the same that Bash has; nothing here decides what may be seen.

mod characters;
mod differ;
mod edit;
mod filter;
mod glob;
mod grep;
mod line_ends;
mod paths;
mod read;
mod report;
#[cfg(test)]
mod search_tests;
mod text;
mod walk;
mod write;

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use palisade_hand_protocol::{
    FILE_OP_BYTES_MAX, FILE_RESULT_TEXT_BYTES_MAX, FileOp, FileResult, WORKSPACE_INSIDE,
};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use crate::control::read_whole;

/// A text file that `Read` and `Edit` take, in bytes.
const TEXT_FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Names of a folder that are shown to who takes it for a file.
const NAMES_SHOWN_MAX: usize = 50;

/// A failure that the model is told: a stable code and a sentence.
#[derive(Debug, PartialEq, Eq)]
struct Failure(&'static str, String);

type Outcome = Result<String, Failure>;

/// Reads one operation from stdin, carries it out, writes its result to stdout.
pub(crate) fn serve_one() -> Result<(), String> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|e| format!("close /proc/self: {e}"))?;
    let request =
        read_whole(std::io::stdin(), FILE_OP_BYTES_MAX).map_err(|e| format!("read the operation: {e}"))?;
    let operation: FileOp =
        serde_json::from_slice(&request).map_err(|e| format!("parse the operation: {e}"))?;
    let result = carry_out(&operation, Path::new(WORKSPACE_INSIDE));
    let text = serde_json::to_vec(&result).map_err(|e| format!("render the result: {e}"))?;
    io::Write::write_all(&mut io::stdout(), &text).map_err(|e| format!("write the result: {e}"))
}

fn carry_out(operation: &FileOp, workspace: &Path) -> FileResult {
    let outcome = match operation {
        FileOp::Read(read) => read::read(read, workspace),
        FileOp::Write(write) => write::write(write, workspace),
        FileOp::Edit(edit) => edit::edit(edit, workspace),
        FileOp::Glob(glob) => glob::glob(glob, workspace),
        FileOp::Grep(grep) => grep::grep(grep, workspace),
    };
    let (mut content, code) = match outcome {
        Ok(content) => (content, None),
        Err(Failure(code, message)) => (message, Some(code.to_owned())),
    };
    cut(&mut content, FILE_RESULT_TEXT_BYTES_MAX);
    FileResult { content, is_error: code.is_some(), code }
}

/// What the system said, in words for the model.
fn failure(path: &Path, error: &io::Error) -> Failure {
    let path = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => Failure("file.not_found", format!("{path} does not exist.")),
        io::ErrorKind::PermissionDenied => Failure("file.denied", format!("{path}: permission denied.")),
        io::ErrorKind::ReadOnlyFilesystem => {
            Failure("file.read_only", format!("{path} is read-only for this session."))
        }
        io::ErrorKind::IsADirectory => Failure("file.is_directory", format!("{path} is a directory.")),
        // Making the parents of a file says it this way.
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            Failure("file.not_a_directory", format!("{path}: a part of the path is not a directory."))
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Failure("file.storage_full", format!("{path}: no space is left."))
        }
        _ => Failure("file.io", format!("{path}: {error}.")),
    }
}

/// Opens a regular file for reading and nothing else: a FIFO or a device is told, never waited for.
fn open_regular(path: &Path) -> Result<File, Failure> {
    let fail = |e: rustix::io::Errno| failure(path, &e.into());
    // Without NONBLOCK, opening a FIFO waits for a writer that never comes.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Err(rustix::io::Errno::NXIO) => return Err(not_regular(path, "socket")),
        other => other.map_err(fail)?,
    };
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&file).map_err(fail)?.st_mode);
    match kind {
        FileType::RegularFile => Ok(file.into()),
        FileType::Directory => {
            let what = listed(path);
            let message = format!("{} is a directory; use Glob or `ls`. {what}", path.display());
            Err(Failure("file.is_directory", message))
        }
        FileType::Fifo => Err(not_regular(path, "FIFO")),
        FileType::CharacterDevice | FileType::BlockDevice => Err(not_regular(path, "device")),
        _ => Err(not_regular(path, "special file")),
    }
}

/// The first names of a folder, as a sentence.
fn listed(path: &Path) -> String {
    let named = |entry: std::fs::DirEntry| {
        let slash = if entry.file_type().is_ok_and(|kind| kind.is_dir()) { "/" } else { "" };
        format!("{}{slash}", entry.file_name().to_string_lossy())
    };
    let mut names: Vec<String> = std::fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .take(NAMES_SHOWN_MAX + 1)
        .map(named)
        .collect();
    let rest = if names.len() > NAMES_SHOWN_MAX { ", and more" } else { "" };
    names.truncate(NAMES_SHOWN_MAX);
    names.sort();
    if names.is_empty() { "Nothing is in it.".into() } else { format!("In it: {}{rest}.", names.join(", ")) }
}

fn not_regular(path: &Path, kind: &str) -> Failure {
    Failure("file.not_regular", format!("{} is not a regular file but a {kind}.", path.display()))
}

/// The file's bytes, with a clear refusal of what is too large.
fn read_bytes(path: &Path) -> Result<Vec<u8>, Failure> {
    let file = open_regular(path)?;
    let mut bytes = Vec::new();
    file.take(TEXT_FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|e| failure(path, &e))?;
    if bytes.len() as u64 > TEXT_FILE_BYTES_MAX {
        let megabytes = TEXT_FILE_BYTES_MAX / 1024 / 1024;
        let message =
            format!("{} is larger than {megabytes} MiB; use Bash to look at parts of it.", path.display());
        return Err(Failure("file.too_large", message));
    }
    Ok(bytes)
}

/// Cuts at a character's boundary.
fn cut(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use palisade_hand_protocol::{Read, Write};

    #[test]
    fn a_fifo_a_socket_and_a_directory_are_told_and_never_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        for (name, code, word) in [
            ("fifo", "file.not_regular", "FIFO"),
            ("socket", "file.not_regular", "socket"),
            (".", "file.is_directory", "directory"),
            ("missing", "file.not_found", "does not exist"),
        ] {
            let result =
                carry_out(&FileOp::Read(Read { file_path: name.into(), ..Read::default() }), folder.path());
            assert!(result.is_error && result.content.contains(word), "{name}: {result:?}");
            assert_eq!(result.code.as_deref(), Some(code));
        }
    }

    #[test]
    fn results_are_cut_at_their_limit() {
        let folder = tempfile::tempdir().unwrap();
        let file_path = "é".repeat(200_000);
        let write = FileOp::Write(Write { file_path, content: String::new() });
        assert!(carry_out(&write, folder.path()).content.len() <= FILE_RESULT_TEXT_BYTES_MAX);
    }
}
