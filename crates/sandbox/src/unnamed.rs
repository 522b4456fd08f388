//! Files that sandboxes hold open though they have no name any more, or never had one: no folder shows them, and they take
//! the disk all the same. Looked for from outside, in /proc, which shows the server every process of its sandboxes.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use palisade_beneath::Amount;

use crate::Sandbox;

/// Files counted at a time: what all processes of a thousand sandboxes may have open.
const FILES_MAX: usize = 1_000_000;

/// What the sandboxes' unnamed files on `device` take, each counted once. Not seen is what is only mapped or on its way through
/// a socket.
pub fn unnamed_files(sandboxes: &[Arc<Sandbox>], device: u64) -> Amount {
    let first = |sandbox: &Arc<Sandbox>| namespace(Path::new(&format!("/proc/{}", sandbox.mark()?.pid())));
    let namespaces: HashSet<u64> = sandboxes.iter().filter_map(first).collect();
    let mut found = HashMap::new();
    if namespaces.is_empty() {
        return Amount::default();
    }
    for process in entries("/proc") {
        let is_pid =
            process.file_name().is_some_and(|name| name.as_encoded_bytes().iter().all(u8::is_ascii_digit));
        if !is_pid || !namespace(&process).is_some_and(|it| namespaces.contains(&it)) {
            continue;
        }
        // Threads may have descriptors of their own.
        for file in entries(process.join("task")).flat_map(|task| entries(task.join("fd"))) {
            if found.len() >= FILES_MAX {
                break;
            }
            // Looked at, never opened.
            let Ok(about) = fs::metadata(&file) else { continue };
            if about.nlink() == 0 && about.is_file() && about.dev() == device {
                found.insert(about.ino(), about.blocks() * 512);
            }
        }
    }
    Amount {
        bytes: found.values().fold(0, |sum, bytes| sum.saturating_add(*bytes)),
        files: found.len() as u64,
    }
}

/// Names the namespace of a process' pids.
fn namespace(process: &Path) -> Option<u64> {
    fs::metadata(process.join("ns/pid")).ok().map(|found| found.ino())
}

fn entries(folder: impl AsRef<Path>) -> impl Iterator<Item = std::path::PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}
