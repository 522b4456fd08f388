//! The audit log: JSON lines, each naming the hash of the one before it. A record is in the file before its connection is dialled; what cannot
//! be recorded does not happen. One thread writes, many records at a time.

mod anchor;
mod pack;
mod record;
pub(crate) mod segment;
mod verify;

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, mpsc},
    thread::JoinHandle,
};

use palisade_protocol::limits::{EGRESS_AUDIT_QUEUE_RECORDS_MAX, EGRESS_AUDIT_SEGMENT_BYTES_MAX};
pub use record::{Kind, Record};
use segment::Segments;
use tokio::sync::{mpsc as channel, oneshot};
pub use verify::{Verified, verify, verify_anchored};

use crate::{EgressError, Reason};

/// Servers that share one data directory.
const SHARED_LOGS_MAX: u32 = 64;

/// How a log is kept.
#[derive(Debug, Clone, Copy)]
pub struct AuditSettings {
    /// Bytes after which a segment is closed.
    pub segment_bytes_max: u64,
    /// Whether each group of records is on the disk, and not only with the kernel, before its connections are dialled. A killed process
    /// loses nothing either way; a machine without power does.
    pub sync_each: bool,
}

impl Default for AuditSettings {
    fn default() -> Self {
        Self { segment_bytes_max: EGRESS_AUDIT_SEGMENT_BYTES_MAX, sync_each: false }
    }
}

/// The log as the proxy sees it.
#[derive(Debug)]
pub struct AuditLog {
    folder: PathBuf,
    queue: channel::Sender<Entry>,
    writer: Mutex<Option<JoinHandle<()>>>,
    finished: Mutex<mpsc::Receiver<()>>,
}

/// What the writer is asked for; the answer, where somebody waits for one, is whether it is done.
struct Entry {
    wanted: Wanted,
    done: Option<oneshot::Sender<bool>>,
}

enum Wanted {
    Record(Box<Record>),
    /// Only to be told when what came before is done.
    Nothing,
    /// That what is there becomes a full segment, short as it may be.
    CloseSegment,
}

impl AuditLog {
    /// Opens the log in this folder, goes on behind its last whole record, and starts its writer. The folder is this log's alone.
    pub fn open(folder: &Path, settings: AuditSettings) -> Result<Self, EgressError> {
        Self::open_with(folder, None, settings)
    }

    /// The same for a log whose end is noted in this file, so that a cut shows. A log that is shorter than its anchor says goes on behind
    /// the gap.
    pub fn open_anchored(folder: &Path, anchor: &Path, settings: AuditSettings) -> Result<Self, EgressError> {
        Self::open_with(folder, Some(anchor), settings)
    }

    fn open_with(folder: &Path, anchor: Option<&Path>, settings: AuditSettings) -> Result<Self, EgressError> {
        let failed =
            |source| EgressError::Audit { doing: "start the writer of", path: folder.into(), source };
        let (look, packer) = pack::start(folder.into()).map_err(failed)?;
        let segments = Segments::open(folder, anchor, settings, look.clone())?;
        // What an earlier end has left.
        let _ = look.try_send(());
        drop(look);
        let (queue, entries) = channel::channel(EGRESS_AUDIT_QUEUE_RECORDS_MAX);
        let (finish, finished) = mpsc::channel();
        let writing = move || {
            write_all(entries, segments);
            // The sender that it waited for is gone.
            let _ = packer.join();
            drop(finish);
        };
        let writer =
            std::thread::Builder::new().name("egress-audit".into()).spawn(writing).map_err(failed)?;
        let (writer, finished) = (Mutex::new(Some(writer)), Mutex::new(finished));
        Ok(Self { folder: folder.into(), queue, writer, finished })
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Opens the first log below this folder that nobody writes: where several servers share a data directory, each has a log of its
    /// own, and one that is started again goes on with whichever is free. Each has an anchor of its own in that folder.
    pub fn open_free(folder: &Path, anchors: &Path, settings: AuditSettings) -> Result<Self, EgressError> {
        let mut in_use = None;
        for number in 1..=SHARED_LOGS_MAX {
            let folder = folder.join(format!("server-{number:02}"));
            match Self::open_anchored(&folder, &anchor_of(&folder, anchors), settings) {
                Err(error @ EgressError::AuditInUse { .. }) => in_use = Some(error),
                opened => return opened,
            }
        }
        Err(in_use.unwrap_or_else(|| EgressError::AuditInUse { path: folder.into() }))
    }

    /// Writes a record and returns when it is in the file.
    pub async fn append(&self, record: Record) -> Result<(), Reason> {
        self.ask(Wanted::Record(Box::new(record))).await
    }

    /// Takes a record of what is over and cannot be refused any more; it waits for a place in the queue only. Should it not be written, the log
    /// says so, and refuses what comes next.
    pub async fn hand_over(&self, record: Record) -> Result<(), Reason> {
        self.send(Wanted::Record(Box::new(record)), None).await
    }

    /// Returns when everything that was handed over before is in the file.
    pub async fn flush(&self) -> Result<(), Reason> {
        self.ask(Wanted::Nothing).await
    }

    /// Makes what is in the current file a full segment, so that it can be shipped.
    pub async fn close_segment(&self) -> Result<(), Reason> {
        self.ask(Wanted::CloseSegment).await
    }

    async fn ask(&self, wanted: Wanted) -> Result<(), Reason> {
        let (done, answer) = oneshot::channel();
        self.send(wanted, Some(done)).await?;
        match answer.await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(Reason::AuditUnavailable),
        }
    }

    async fn send(&self, wanted: Wanted, done: Option<oneshot::Sender<bool>>) -> Result<(), Reason> {
        self.queue.send(Entry { wanted, done }).await.map_err(|_| Reason::AuditUnavailable)
    }
}

impl Drop for AuditLog {
    /// What was handed over is written and synced before the log is gone.
    fn drop(&mut self) {
        let (closed, _) = channel::channel(1);
        drop(std::mem::replace(&mut self.queue, closed));
        if let (Ok(finished), Ok(mut writer)) = (self.finished.lock(), self.writer.lock()) {
            let _ = finished.recv();
            drop(writer.take().map(JoinHandle::join));
        }
    }
}

/// The anchor of the log in this folder, among those that are kept there.
pub fn anchor_of(folder: &Path, anchors: &Path) -> PathBuf {
    let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or("audit");
    anchors.join(format!("{name}.json"))
}

/// Takes whatever waits, writes it as one, and tells everybody.
fn write_all(mut entries: channel::Receiver<Entry>, mut segments: Segments) {
    let mut group = Vec::with_capacity(EGRESS_AUDIT_QUEUE_RECORDS_MAX);
    while entries.blocking_recv_many(&mut group, EGRESS_AUDIT_QUEUE_RECORDS_MAX) > 0 {
        let records = group.iter().filter_map(|entry| match &entry.wanted {
            Wanted::Record(record) => Some(&**record),
            Wanted::Nothing | Wanted::CloseSegment => None,
        });
        let mut outcome = segments.append(records);
        if outcome.is_ok() && group.iter().any(|entry| matches!(entry.wanted, Wanted::CloseSegment)) {
            outcome = segments.close_segment();
        }
        if let Err(error) = &outcome {
            tracing::error!(
                error = error as &dyn std::error::Error,
                "no audit record could be written: connections are refused"
            );
        }
        for done in group.drain(..).filter_map(|entry| entry.done) {
            // Whoever asked may have gone.
            let _ = done.send(outcome.is_ok());
        }
    }
    if let Err(error) = segments.sync() {
        tracing::error!(error = &error as &dyn std::error::Error, "the audit log could not be synced");
    }
}

#[cfg(test)]
mod tests;
