//! The files of the log: `current.jsonl`, and `segment-<first>-<last>.jsonl` for what is full. A kill at any point leaves whole records and
//! at most one torn line, whose writer was never told that it was written.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::{AuditSettings, Record};
use crate::EgressError;

pub(super) const CURRENT: &str = "current.jsonl";
/// The hash before the first record.
pub(super) const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

pub(super) struct Segments {
    folder: PathBuf,
    settings: AuditSettings,
    current: File,
    /// The end of the last whole record in `current`.
    length: u64,
    first_seq: u64,
    next_seq: u64,
    last_hash: String,
    /// Held for as long as this log is open.
    _lock: File,
}

#[derive(Serialize)]
struct Line<'r> {
    ts: String,
    seq: u64,
    prev_hash: &'r str,
    #[serde(flatten)]
    record: &'r Record,
}

/// What every line begins with, for whoever goes on or verifies.
#[derive(Debug, Deserialize)]
pub(super) struct LineHead {
    pub(super) seq: u64,
    pub(super) prev_hash: String,
}

pub(super) fn hash(line: &[u8]) -> String {
    digest(&SHA256, line).as_ref().iter().fold(String::with_capacity(64), |mut text, byte| {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from_digit(nibble.into(), 16).unwrap_or('0'));
        }
        text
    })
}

/// The full segments, oldest first: first and last number, and where.
pub(super) fn full_segments(folder: &Path) -> io::Result<Vec<(u64, u64, PathBuf)>> {
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let numbers = name.strip_prefix("segment-").and_then(|rest| rest.strip_suffix(".jsonl"));
        if let Some((first, last)) = numbers.and_then(|numbers| numbers.split_once('-'))
            && let (Ok(first), Ok(last)) = (first.parse(), last.parse())
        {
            segments.push((first, last, path));
        }
    }
    segments.sort_unstable();
    Ok(segments)
}

impl Segments {
    pub(super) fn open(folder: &Path, settings: AuditSettings) -> Result<Self, EgressError> {
        let failed = |doing| move |source| EgressError::Audit { doing, path: folder.into(), source };
        std::fs::create_dir_all(folder).map_err(failed("make the folder of"))?;
        let lock = File::create(folder.join("lock")).map_err(failed("lock"))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => EgressError::AuditInUse { path: folder.into() },
            TryLockError::Error(source) => failed("lock")(source),
        })?;
        let (mut next_seq, mut last_hash) = (1, GENESIS.to_owned());
        if let Some((_, last, path)) = full_segments(folder).map_err(failed("list"))?.pop() {
            let bytes = std::fs::read(&path).map_err(failed("read the last segment of"))?;
            let line = whole_lines(&bytes).next_back().unwrap_or_default();
            (next_seq, last_hash) = (last + 1, hash(line));
        }
        let mut current = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .open(folder.join(CURRENT))
            .map_err(failed("open"))?;
        let mut bytes = Vec::new();
        current.read_to_end(&mut bytes).map_err(failed("read"))?;
        let length = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        current.set_len(length as u64).map_err(failed("cut a torn line off"))?;
        let mut lines = whole_lines(&bytes[..length]);
        let first_seq = lines.next().map_or(Ok(next_seq), seq_of).map_err(failed("read"))?;
        if let Some(line) = whole_lines(&bytes[..length]).next_back() {
            (next_seq, last_hash) = (seq_of(line).map_err(failed("read"))? + 1, hash(line));
        }
        let length = length as u64;
        Ok(Self {
            folder: folder.into(),
            settings,
            current,
            length,
            first_seq,
            next_seq,
            last_hash,
            _lock: lock,
        })
    }

    /// Writes all of these or none.
    pub(super) fn append<'r>(
        &mut self,
        records: impl Iterator<Item = &'r Record>,
    ) -> Result<(), EgressError> {
        if self.length >= self.settings.segment_bytes_max {
            self.rotate().map_err(|source| self.failed("rotate", source))?;
        }
        let ts = jiff::Timestamp::now().to_string();
        let (mut bytes, mut seq, mut last_hash) = (Vec::new(), self.next_seq, self.last_hash.clone());
        for record in records {
            let start = bytes.len();
            let line = Line { ts: ts.clone(), seq, prev_hash: &last_hash, record };
            serde_json::to_writer(&mut bytes, &line)
                .map_err(|source| self.failed("write to", source.into()))?;
            last_hash = hash(&bytes[start..]);
            seq += 1;
            bytes.push(b'\n');
        }
        let written = self.current.write_all(&bytes).and_then(|()| match self.settings.sync_each {
            true => self.current.sync_data(),
            false => Ok(()),
        });
        if let Err(source) = written {
            // Half a group must not stand before the next one; where even that fails, opening the log cuts it.
            let cut = self.current.set_len(self.length).and_then(|()| self.current.seek(SeekFrom::End(0)));
            return Err(self.failed("write to", cut.err().unwrap_or(source)));
        }
        (self.next_seq, self.last_hash) = (seq, last_hash);
        self.length += bytes.len() as u64;
        Ok(())
    }

    pub(super) fn sync(&self) -> Result<(), EgressError> {
        self.current.sync_all().map_err(|source| self.failed("sync", source))
    }

    /// The rename is what counts: before it the records are in `current`, after it in the segment.
    fn rotate(&mut self) -> io::Result<()> {
        self.current.sync_all()?;
        let full = format!("segment-{:012}-{:012}.jsonl", self.first_seq, self.next_seq - 1);
        let current = self.folder.join(CURRENT);
        std::fs::rename(&current, self.folder.join(full))?;
        // Whatever fails from here on, the old file must not be appended to any more.
        self.length = 0;
        self.first_seq = self.next_seq;
        self.current = OpenOptions::new().create_new(true).append(true).open(&current)?;
        File::open(&self.folder)?.sync_all()
    }

    fn failed(&self, doing: &'static str, source: io::Error) -> EgressError {
        EgressError::Audit { doing, path: self.folder.clone(), source }
    }
}

#[cfg(test)]
impl Segments {
    /// Puts another file in the place of the log's, as a disk that is full would be.
    pub(super) fn replace_current(&mut self, current: File) {
        self.current = current;
    }
}

pub(super) fn whole_lines(bytes: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(&[][..], |at| &bytes[..at]);
    whole.split(|&byte| byte == b'\n').filter(|line| !line.is_empty())
}

fn seq_of(line: &[u8]) -> io::Result<u64> {
    Ok(serde_json::from_slice::<LineHead>(line)?.seq)
}
