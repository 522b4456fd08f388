//! Where a log ends, kept in another place than the log: without it nobody could tell a log that was cut short from a whole one. The anchor
//! is written behind the records, so it may be late and never says more than what is there. Its place is best another disk.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::segment::GENESIS;
use crate::EgressError;

/// The whole file, in bytes: one sector of a disk, which is written whole or not at all.
const FILE_BYTES: usize = 512;
/// Names this start of the machine. What was not synced is lost with it.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The last record of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct End {
    pub(super) seq: u64,
    pub(super) hash: String,
}

/// What the file says.
#[derive(Debug, Serialize, Deserialize)]
struct Noted {
    /// This much is on the disk,
    synced: End,
    /// and this much was with the kernel in the start of the machine that `boot` names.
    written: End,
    boot: String,
}

/// The anchor of an open log.
#[derive(Debug)]
pub(super) struct Anchor {
    path: PathBuf,
    file: File,
    noted: Noted,
    /// Whether it could not be written the last time, which is told once.
    failed: bool,
}

impl End {
    /// Of a log in which there is nothing.
    pub(super) fn genesis() -> Self {
        Self { seq: 0, hash: GENESIS.into() }
    }
}

/// The end that must be there, as this anchor has it; none where there is no anchor.
pub(super) fn read(path: &Path) -> Result<Option<End>, EgressError> {
    let wrong = |source| EgressError::AuditAnchor { path: path.into(), source };
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(wrong(error)),
    };
    // One that was made, and not written before the machine stopped.
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(None);
    }
    let noted: Noted = serde_json::from_slice(&bytes).map_err(|error| wrong(error.into()))?;
    let is_this_start = !noted.boot.is_empty() && noted.boot == boot();
    Ok(Some(if is_this_start { noted.written } else { noted.synced }))
}

/// None where it cannot be known.
fn boot() -> String {
    std::fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned()
}

impl Anchor {
    /// Opens the anchor, or makes one; what it said so far comes with it.
    pub(super) fn open(path: &Path) -> Result<(Self, Option<End>), EgressError> {
        let said = read(path)?;
        let opening = || {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            OpenOptions::new().create(true).truncate(false).write(true).open(path)
        };
        let file = opening().map_err(|source| EgressError::AuditAnchor { path: path.into(), source })?;
        let synced = said.clone().unwrap_or_else(End::genesis);
        let noted = Noted { written: synced.clone(), synced, boot: boot() };
        Ok((Self { path: path.into(), file, noted, failed: false }, said))
    }

    /// Notes what the kernel has now: a killed process loses nothing of it.
    pub(super) fn note(&mut self, end: End) {
        self.noted.written = end;
        self.write(false);
    }

    /// Notes what is on the disk now.
    pub(super) fn note_synced(&mut self, end: End) {
        self.noted.written = end.clone();
        self.noted.synced = end;
        self.write(true);
    }

    fn write(&mut self, sync: bool) {
        let written = serde_json::to_vec(&self.noted).map_err(io::Error::from).and_then(|mut bytes| {
            bytes.resize(FILE_BYTES - 1, b' ');
            bytes.push(b'\n');
            self.file.write_all_at(&bytes, 0)?;
            if sync { self.file.sync_all() } else { Ok(()) }
        });
        if let (Err(error), false) = (&written, self.failed) {
            tracing::error!(%error, path = %self.path.display(), "the anchor of the audit log cannot be written: a cut of what is recorded from here on would not show");
        }
        self.failed = written.is_err();
    }
}
