//! Whether a log is whole: every line is JSON, numbers follow each other, and each names the hash of the one before. What was cut off at the
//! end shows against the log's anchor, which is kept elsewhere; what was cut off at the beginning against what was shipped.

use std::{
    fs::{File, Metadata},
    io::{BufRead, BufReader},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::{
    anchor::{self, End},
    pack,
    segment::{CURRENT, GENESIS, LineHead, Segment, hash, read_line, segments},
};
use crate::{EgressError, ship::read_shipped};

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
    /// Whether an anchor said how far it goes, at least.
    pub anchored: bool,
}

/// Reads the whole log in this folder, a line at a time. Of a log that is being written it is what stood there at the beginning, at least.
pub fn verify(folder: &Path) -> Result<Verified, EgressError> {
    read_all(folder, None)
}

/// The same, held against the log's anchor, if there is one: what was written before now is there, and is what was written. A log begins
/// with its first record, or behind what was shipped, or where `first` says.
pub fn verify_anchored(folder: &Path, anchor: &Path, first: Option<u64>) -> Result<Verified, EgressError> {
    // Before the log is read: it may be written meanwhile.
    let end = anchor::read(anchor)?;
    let verified = read_all(folder, end.as_ref())?;
    if let Some(end) = end.filter(|end| end.seq > verified.last_seq) {
        let (path, last_seq, written) = (folder.into(), verified.last_seq, end.seq);
        return Err(EgressError::AuditCut { path, last_seq, written });
    }
    let shipped = read_shipped(folder).unwrap_or_default();
    let may_begin =
        verified.first_seq <= 1 || verified.first_seq <= shipped + 1 || first == Some(verified.first_seq);
    if !may_begin {
        return Err(EgressError::AuditBeginning { path: folder.into(), first_seq: verified.first_seq });
    }
    Ok(verified)
}

fn read_all(folder: &Path, end: Option<&End>) -> Result<Verified, EgressError> {
    let failed = |source| EgressError::Audit { doing: "read", path: folder.into(), source };
    let current = folder.join(CURRENT);
    // Opened before the list is made: whatever is rotated from here on, all that is before this file is in the list.
    let opened = File::open(&current).ok();
    let full = segments(folder).map_err(failed)?;
    let mut verified = Verified {
        first_seq: 0,
        last_seq: 0,
        last_hash: GENESIS.into(),
        segments: full.len(),
        torn: false,
        anchored: end.is_some(),
    };
    for Segment { first, last, path } in full {
        let lines = pack::open(&path).map_err(failed)?;
        let first_here = verified.check(&path, lines, end)?;
        if verified.torn || verified.last_seq != last || first_here != Some(first) {
            return Err(broken(&path, 0, "its name and its records do not agree"));
        }
    }
    if let Some(opened) = opened
        && is_still(&current, &opened)
    {
        verified.check(&current, BufReader::new(opened), end)?;
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
    fn check(
        &mut self,
        path: &Path,
        mut lines: impl BufRead,
        end: Option<&End>,
    ) -> Result<Option<u64>, EgressError> {
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
                if end.is_some_and(|end| end.seq == self.last_seq && end.hash != self.last_hash) {
                    return Err(broken(path, number, "it is not the record that was written"));
                }
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
