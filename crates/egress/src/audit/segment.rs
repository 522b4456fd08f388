//! The files of the log: `current.jsonl`, and `segment-<first>-<last>.jsonl.zst` for what is full, without the `.zst` until it is packed.
//! A kill at any point leaves whole records and at most one torn line, whose writer was never told that it was written.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, BufRead, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::mpsc::SyncSender,
};

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::{
    AuditSettings, Record,
    anchor::{Anchor, End},
    pack,
};
use crate::EgressError;

pub(super) const CURRENT: &str = "current.jsonl";
/// How a full segment's name ends before it is packed,
pub(super) const PLAIN: &str = "jsonl";
/// and afterwards.
pub(super) const PACKED: &str = "jsonl.zst";
/// A record with every text at its longest and escaped is shorter.
const LINE_BYTES_MAX: u64 = 1024 * 1024;
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
    /// Tells the packer that there is something to pack.
    look: SyncSender<()>,
    anchor: Option<Anchor>,
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

/// A full segment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Segment {
    /// The number of its first record,
    pub(crate) first: u64,
    /// and of its last.
    pub(crate) last: u64,
    /// Where it is.
    pub(crate) path: PathBuf,
}

impl Segment {
    pub(crate) fn is_packed(&self) -> bool {
        self.path.extension().is_some_and(|extension| extension != PLAIN)
    }
}

/// The full segments, oldest first; one that is just being packed is there once.
pub(crate) fn segments(folder: &Path) -> io::Result<Vec<Segment>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let stem = [PACKED, PLAIN].iter().find_map(|it| name.strip_suffix(it)?.strip_suffix('.'));
        let numbers = stem.and_then(|stem| stem.strip_prefix("segment-")?.split_once('-'));
        if let Some((first, last)) = numbers
            && let (Ok(first), Ok(last)) = (first.parse(), last.parse())
        {
            found.push(Segment { first, last, path });
        }
    }
    // A plain file sorts before its packed twin, which has all of it.
    found.sort_unstable();
    let mut segments: Vec<Segment> = Vec::with_capacity(found.len());
    for segment in found {
        match segments.last_mut() {
            Some(twin) if (twin.first, twin.last) == (segment.first, segment.last) => *twin = segment,
            _ => segments.push(segment),
        }
    }
    Ok(segments)
}

/// The last line of a segment.
fn last_line(path: &Path) -> io::Result<Vec<u8>> {
    let (mut lines, mut last, mut line) = (pack::open(path)?, Vec::new(), Vec::new());
    loop {
        line.clear();
        if read_line(&mut lines, &mut line)? == 0 {
            return Ok(last);
        }
        if line.last() == Some(&b'\n') {
            line.pop();
            std::mem::swap(&mut last, &mut line);
        }
    }
}

/// One line with its end; a longer one than any record is an error.
pub(super) fn read_line(lines: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<usize> {
    let count = lines.take(LINE_BYTES_MAX).read_until(b'\n', line)?;
    if count as u64 == LINE_BYTES_MAX {
        return Err(io::Error::other("a line is longer than any record"));
    }
    Ok(count)
}

impl Segments {
    pub(super) fn open(
        folder: &Path,
        anchor: Option<&Path>,
        settings: AuditSettings,
        look: SyncSender<()>,
    ) -> Result<Self, EgressError> {
        let failed = |doing| move |source| EgressError::Audit { doing, path: folder.into(), source };
        std::fs::create_dir_all(folder).map_err(failed("make the folder of"))?;
        let lock = File::create(folder.join("lock")).map_err(failed("lock"))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => EgressError::AuditInUse { path: folder.into() },
            TryLockError::Error(source) => failed("lock")(source),
        })?;
        let (mut next_seq, mut last_hash) = (1, GENESIS.to_owned());
        if let Some(segment) = segments(folder).map_err(failed("list"))?.pop() {
            let line = last_line(&segment.path).map_err(failed("read the last segment of"))?;
            (next_seq, last_hash) = (segment.last + 1, hash(&line));
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
        let first_line = lines.next();
        if let Some(line) = whole_lines(&bytes[..length]).next_back() {
            (next_seq, last_hash) = (seq_of(line).map_err(failed("read"))? + 1, hash(line));
        }
        let (anchor, said) =
            anchor.map(Anchor::open).transpose()?.map_or((None, None), |(it, said)| (Some(it), said));
        if let Some(said) = said.filter(|said| said.seq >= next_seq) {
            tracing::error!(
                folder = %folder.display(), last = next_seq - 1, written = said.seq,
                "the end of the audit log is missing; it goes on behind the gap, so that the gap shows"
            );
            (next_seq, last_hash) = (said.seq + 1, said.hash);
        }
        let first_seq = first_line.map_or(Ok(next_seq), seq_of).map_err(failed("read"))?;
        let length = length as u64;
        let mut segments = Self {
            folder: folder.into(),
            settings,
            current,
            length,
            first_seq,
            next_seq,
            last_hash,
            look,
            anchor,
            _lock: lock,
        };
        // What is there was not synced by whoever was killed.
        segments.sync()?;
        Ok(segments)
    }

    fn end(&self) -> End {
        End { seq: self.next_seq - 1, hash: self.last_hash.clone() }
    }

    /// Writes all of these or none.
    pub(super) fn append<'r>(
        &mut self,
        records: impl Iterator<Item = &'r Record>,
    ) -> Result<(), EgressError> {
        if self.length >= self.settings.segment_bytes_max {
            self.close_segment()?;
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
        let end = self.end();
        if let (Some(anchor), false) = (&mut self.anchor, bytes.is_empty()) {
            match self.settings.sync_each {
                true => anchor.note_synced(end),
                false => anchor.note(end),
            }
        }
        Ok(())
    }

    pub(super) fn sync(&mut self) -> Result<(), EgressError> {
        self.current.sync_all().map_err(|source| self.failed("sync", source))?;
        let end = self.end();
        if let Some(anchor) = &mut self.anchor {
            anchor.note_synced(end);
        }
        Ok(())
    }

    /// Makes what is there a full segment; nothing is none.
    pub(super) fn close_segment(&mut self) -> Result<(), EgressError> {
        if self.length > 0 {
            self.rotate().map_err(|source| self.failed("rotate", source))?;
            let end = self.end();
            if let Some(anchor) = &mut self.anchor {
                anchor.note_synced(end);
            }
            // One look that waits will see this one, too.
            let _ = self.look.try_send(());
        }
        Ok(())
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
