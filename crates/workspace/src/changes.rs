//! One change of a name at a time: between the look that a condition asks for and the rename or the removal nobody else
//! changes the name through the API, in this process or in another server of the same data directory. What runs in a
//! sandbox takes no such lock: it can write between the two, within some microseconds.

use std::collections::VecDeque;
use std::fs::File;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use palisade_beneath::Metadata;
use palisade_protocol::WorkspacePath;
use rustix::fs::{FlockOperation, flock};

use crate::WorkspaceError;
use crate::condition::{Conditions, Validators, Verdict};

/// The lock's file, beside the workspace and so out of every sandbox's sight.
const LOCK_FILE: &str = "changes.lock";
/// Files written lately whose state is remembered.
const WRITTEN_MAX: usize = 256;

/// The lock, and which states of files this server has made.
#[derive(Debug)]
pub(crate) struct Changes {
    lock: Mutex<File>,
    /// The oldest first. What is not in it has a weak tag for a second, and nothing else is lost with it.
    written: Mutex<VecDeque<Written>>,
}

/// Device, inode and change time of a file that was put in its place as a whole.
type Written = (u64, u64, i128);

/// Held while a name is changed.
pub(crate) struct Held<'c> {
    changes: &'c Changes,
    lock: MutexGuard<'c, File>,
}

impl Changes {
    /// The lock of the workspace at `dir`.
    pub(crate) fn of(dir: &Path) -> Result<Self, WorkspaceError> {
        let path = dir.parent().unwrap_or(dir).join(LOCK_FILE);
        let opened = File::options().create(true).truncate(false).write(true).open(&path);
        let lock = opened.map_err(|source| WorkspaceError::Io {
            action: "opening the lock",
            path: path.display().to_string(),
            source,
        })?;
        Ok(Self { lock: Mutex::new(lock), written: Mutex::default() })
    }

    /// Waits for its turn.
    pub(crate) fn hold(&self) -> Held<'_> {
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = flock(&*lock, FlockOperation::LockExclusive) {
            // A file system without locks: then only this process is kept in order.
            tracing::debug!(%error, "the lock of a workspace was not taken");
        }
        Held { changes: self, lock }
    }

    /// An error where what was found, if anything, is not as the conditions of a change say.
    pub(crate) fn require(
        &self,
        conditions: &Conditions,
        found: Option<&Metadata>,
        path: &WorkspacePath,
    ) -> Result<(), WorkspaceError> {
        let found = found.map(|found| self.validators(found));
        if conditions.judge(found.as_ref(), false) == Verdict::Met {
            return Ok(());
        }
        let tag = found.and_then(|found| found.tag).map(|tag| tag.to_string());
        Err(WorkspaceError::ConditionFailed { path: path.clone(), tag })
    }

    /// The tag and the date of what was found.
    pub(crate) fn validators(&self, found: &Metadata) -> Validators {
        let is_written =
            || self.written.lock().unwrap_or_else(PoisonError::into_inner).contains(&state(found));
        Validators::of(found, is_written)
    }
}

fn state(found: &Metadata) -> Written {
    (found.device, found.inode, found.changed_ns)
}

impl Held<'_> {
    /// Remembers a file that was just put in its place.
    pub(crate) fn wrote(&self, found: &Metadata) {
        let mut written = self.changes.written.lock().unwrap_or_else(PoisonError::into_inner);
        if written.len() >= WRITTEN_MAX {
            written.pop_front();
        }
        written.push_back(state(found));
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // The file stays open, so the lock has to be given back.
        let _ = flock(&*self.lock, FlockOperation::Unlock);
    }
}
