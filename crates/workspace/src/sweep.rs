//! What a killed server left in a workspace: temporaries of uploads that nobody will finish (decision 34).

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use palisade_beneath::{Directory, Kind, Visit};

use crate::{Workspace, WorkspaceError, temporary};

/// Names looked at in one sweep; a larger workspace is swept as far as that.
const NAMES_SWEPT_MAX: usize = 20_000_000;
/// Directories that wait for their turn; the others are left to another sweep.
const PENDING_MAX: usize = 1_000_000;

impl Workspace {
    /// Removes the unfinished uploads that were not written to for `idle`, and says how many. Another process
    /// may be writing here too, so its uploads are told from dead ones by their age. It walks the whole
    /// workspace: for the background, not for the way to serving.
    pub fn remove_unfinished_uploads(&self, idle: Duration) -> Result<usize, WorkspaceError> {
        let top = self.root.directory(Path::new(""));
        top.map_err(|source| WorkspaceError::Io { action: "opening", path: String::new(), source })?;
        let before_ns =
            SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(idle).as_nanos();
        let before_ns = i128::try_from(before_ns).unwrap_or(i128::MAX);
        let (mut swept, mut removed) = (0, 0);
        let mut pending = vec![PathBuf::new()];
        while let Some(path) = pending.pop() {
            // What cannot be opened, or lies deeper than a path can say, no upload of ours could reach either.
            let Ok(directory) = self.root.directory(&path) else { continue };
            let mut temporaries = Vec::new();
            let read = directory.read(|name, kind| {
                swept += 1;
                match kind {
                    Kind::Directory if pending.len() < PENDING_MAX => pending.push(path.join(name)),
                    Kind::File if temporary::is_temporary(name) => temporaries.push(name.to_owned()),
                    _ => {}
                }
                if swept < NAMES_SWEPT_MAX { Visit::More } else { Visit::Stop }
            });
            if let Err(error) = read {
                tracing::debug!(path = %path.display(), error = %error, "not swept");
            }
            removed += temporaries.iter().filter(|name| remove_if_idle(&directory, name, before_ns)).count();
            if swept >= NAMES_SWEPT_MAX {
                break;
            }
        }
        Ok(removed)
    }
}

fn remove_if_idle(directory: &Directory, name: &std::ffi::OsStr, before_ns: i128) -> bool {
    let is_idle = directory.metadata(name).is_ok_and(|found| found.modified_ns <= before_ns);
    is_idle && directory.remove_file(name).is_ok()
}
