//! Whether a log is whole: every line is JSON, numbers follow each other, and each names the hash of the one before. What was cut off at the
//! end shows only against a number known from elsewhere.

use std::path::{Path, PathBuf};

use super::segment::{CURRENT, GENESIS, LineHead, full_segments, hash, whole_lines};
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

/// Reads the whole log in this folder.
pub fn verify(folder: &Path) -> Result<Verified, EgressError> {
    let failed = |source| EgressError::Audit { doing: "read", path: folder.into(), source };
    let full = full_segments(folder).map_err(failed)?;
    let mut verified =
        Verified { first_seq: 0, last_seq: 0, last_hash: GENESIS.into(), segments: full.len(), torn: false };
    for (first, last, path) in full {
        let bytes = std::fs::read(&path).map_err(failed)?;
        let first_here = verified.check(&path, &bytes)?;
        if verified.torn || verified.last_seq != last || first_here != Some(first) {
            return Err(broken(&path, 0, "its name and its records do not agree"));
        }
    }
    let path = folder.join(CURRENT);
    match std::fs::read(&path) {
        Ok(bytes) => {
            verified.check(&path, &bytes)?;
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    Ok(verified)
}

impl Verified {
    /// Goes on through one file; the number of its first record comes back.
    fn check(&mut self, path: &Path, bytes: &[u8]) -> Result<Option<u64>, EgressError> {
        let mut first_here = None;
        self.torn = bytes.last().is_some_and(|&byte| byte != b'\n');
        for (index, line) in whole_lines(bytes).enumerate() {
            let head: LineHead =
                serde_json::from_slice(line).map_err(|_| broken(path, index + 1, "it is not a record"))?;
            let begins = self.last_seq == 0;
            if begins {
                self.first_seq = head.seq;
            } else if head.seq != self.last_seq + 1 {
                return Err(broken(path, index + 1, "its number does not follow the one before"));
            }
            // Where older segments were taken away, the first record's predecessor is not here to compare with.
            if (!begins || head.seq == 1) && head.prev_hash != self.last_hash {
                return Err(broken(path, index + 1, "the record before it is not the one that it names"));
            }
            first_here.get_or_insert(head.seq);
            (self.last_seq, self.last_hash) = (head.seq, hash(line));
        }
        Ok(first_here)
    }
}

fn broken(path: &Path, line: usize, why: &'static str) -> EgressError {
    EgressError::AuditBroken { path: PathBuf::from(path), line, why }
}
