//! Whether a log is whole: every line is JSON, numbers follow each other, and each names the hash of the one before. What was cut off at the
//! end shows only against a number known from elsewhere.

use std::{
    fs::{File, Metadata},
    io::{BufRead, BufReader},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::{
    pack,
    segment::{CURRENT, GENESIS, LineHead, Segment, hash, read_line, segments},
};
use crate::EgressError;

/// A log that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The number of the first record there is; later than 1 if older segments were taken away.
    pub first_seq: u64,
    /// The number of the last; 0 for an empty log.
    pub last_seq: u64,
    /// The hash of the last record, to be kept elsewhere.
    pub last_hash: String,
    /// Full segments.
    pub segments: usize,
    /// Whether a torn line stands at the end: a writer that was killed, or one that is writing.
    pub torn: bool,
}

/// Reads the whole log in this folder, a line at a time. Of a log that is being written it is what stood there at the beginning, at least.
pub fn verify(folder: &Path) -> Result<Verified, EgressError> {
    let failed = |source| EgressError::Audit { doing: "read", path: folder.into(), source };
    let current = folder.join(CURRENT);
    // Opened before the list is made: whatever is rotated from here on, all that is before this file is in the list.
    let opened = File::open(&current).ok();
    let full = segments(folder).map_err(failed)?;
    let mut verified =
        Verified { first_seq: 0, last_seq: 0, last_hash: GENESIS.into(), segments: full.len(), torn: false };
    for Segment { first, last, path } in full {
        let lines = pack::open(&path).map_err(failed)?;
        let first_here = verified.check(&path, lines)?;
        if verified.torn || verified.last_seq != last || first_here != Some(first) {
            return Err(broken(&path, 0, "its name and its records do not agree"));
        }
    }
    if let Some(opened) = opened
        && is_still(&current, &opened)
    {
        verified.check(&current, BufReader::new(opened))?;
    }
    Ok(verified)
}

/// Whether the file has still this name; one that has become a segment since it was opened is in the list.
fn is_still(path: &Path, opened: &File) -> bool {
    let at = |found: Metadata| (found.dev(), found.ino());
    path.metadata().ok().map(at) == opened.metadata().ok().map(at)
}

impl Verified {
    /// Goes on through one file; the number of its first record comes back.
    fn check(&mut self, path: &Path, mut lines: impl BufRead) -> Result<Option<u64>, EgressError> {
        let (mut first_here, mut number, mut line) = (None, 0, Vec::new());
        loop {
            line.clear();
            let count = read_line(&mut lines, &mut line)
                .map_err(|_| broken(path, number + 1, "it cannot be read"))?;
            self.torn = count > 0 && line.last() != Some(&b'\n');
            if count == 0 || self.torn {
                return Ok(first_here);
            }
            line.pop();
            number += 1;
            if !line.is_empty() {
                first_here.get_or_insert(self.follow(path, number, &line)?);
            }
        }
    }

    /// The record's number, if it follows what was read before.
    fn follow(&mut self, path: &Path, number: usize, line: &[u8]) -> Result<u64, EgressError> {
        let head: LineHead =
            serde_json::from_slice(line).map_err(|_| broken(path, number, "it is not a record"))?;
        let begins = self.last_seq == 0;
        if begins {
            self.first_seq = head.seq;
        } else if head.seq != self.last_seq + 1 {
            return Err(broken(path, number, "its number does not follow the one before"));
        }
        // Where older segments were taken away, the first record's predecessor is not here to compare with.
        if (!begins || head.seq == 1) && head.prev_hash != self.last_hash {
            return Err(broken(path, number, "the record before it is not the one that it names"));
        }
        (self.last_seq, self.last_hash) = (head.seq, hash(line));
        Ok(head.seq)
    }
}

fn broken(path: &Path, line: usize, why: &'static str) -> EgressError {
    EgressError::AuditBroken { path: PathBuf::from(path), line, why }
}
