//! The audit log's way to whoever keeps it: full segments, in order, each under its own name, none lost and none twice. What was not
//! taken is offered again until it is; nothing here is removed.

mod bucket;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

pub use bucket::{Bucket, BucketSpec};
use tokio_util::sync::CancellationToken;

use crate::{
    AuditLog, EgressError,
    audit::segment::{Segment, segments},
};

/// What was shipped, in the log's own folder: the number of the last record.
const SHIPPED: &str = "shipped";
/// Between two tries of what was not taken: twice as long each time, up to the second.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// For one segment to be taken.
const TAKE_TIMEOUT: Duration = Duration::from_secs(300);

/// Where segments go.
#[derive(Debug)]
pub enum ShipTarget {
    /// Another folder, such as a mounted share.
    Folder(PathBuf),
    /// An S3-compatible bucket.
    Bucket(Box<Bucket>),
}

/// What taking one segment came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    /// It is there now.
    Now,
    /// It was there already, and is the same.
    Before,
}

/// Ships the log until told to stop, and once more then. Every so often what is there is closed, so that the copy is never further
/// behind than that.
pub async fn ship(log: Arc<AuditLog>, target: ShipTarget, every: Duration, stop: CancellationToken) {
    let mut wait = every;
    let mut pause = RETRY.0;
    loop {
        let stopping = tokio::select! {
            () = tokio::time::sleep(wait) => false,
            () = stop.cancelled() => true,
        };
        if log.close_segment().await.is_err() {
            tracing::error!("the audit log cannot be closed for shipping");
        }
        match ship_all(log.folder(), &target).await {
            Ok(count) => {
                if count > 0 {
                    tracing::info!(count, "audit segments were shipped");
                }
                (wait, pause) = (every, RETRY.0);
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "audit segments wait: they stay here until they are taken"
                );
                (wait, pause) = (pause, (pause * 2).min(RETRY.1));
            }
        }
        if stopping {
            return;
        }
    }
}

/// Ships what has not been; how many segments that were comes back.
pub async fn ship_all(folder: &Path, target: &ShipTarget) -> Result<usize, EgressError> {
    let failed = |doing| move |source| EgressError::Ship { doing, source };
    let mut shipped = read_shipped(folder).map_err(failed("remember what was shipped of"))?;
    let full = segments(folder).map_err(failed("list"))?;
    let mut count = 0;
    for segment in full {
        if segment.first <= shipped {
            continue;
        }
        // The packer is not through with it; it will be by the next time.
        if !segment.is_packed() {
            break;
        }
        match tokio::time::timeout(TAKE_TIMEOUT, target.take(&segment)).await {
            Ok(taken) => taken?,
            Err(_) => return Err(failed("ship")(io::ErrorKind::TimedOut.into())),
        };
        shipped = segment.last;
        write_shipped(folder, shipped).map_err(failed("remember what was shipped of"))?;
        count += 1;
    }
    Ok(count)
}

impl ShipTarget {
    async fn take(&self, segment: &Segment) -> Result<Taken, EgressError> {
        let failed = |doing| move |source| EgressError::Ship { doing, source };
        let name = segment.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let bytes = tokio::fs::read(&segment.path).await.map_err(failed("read a segment of"))?;
        match self {
            Self::Folder(folder) => put_in_folder(folder, name, &bytes).map_err(failed("ship to a folder")),
            Self::Bucket(bucket) => bucket.put(name, bytes).await,
        }
    }
}

/// A name that is there has all of it or is somebody else's.
fn put_in_folder(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<Taken> {
    std::fs::create_dir_all(folder)?;
    let path = folder.join(name);
    if path.exists() {
        return if std::fs::read(&path)? == bytes { Ok(Taken::Before) } else { Err(occupied(name)) };
    }
    let unfinished = folder.join(format!(".{name}.tmp"));
    std::fs::write(&unfinished, bytes)?;
    std::fs::File::open(&unfinished)?.sync_all()?;
    std::fs::rename(&unfinished, &path)?;
    std::fs::File::open(folder)?.sync_all()?;
    Ok(Taken::Now)
}

fn occupied(name: &str) -> io::Error {
    io::Error::other(format!(
        "{name} is there already and is another log's; give each log a place of its own"
    ))
}

pub(crate) fn read_shipped(folder: &Path) -> io::Result<u64> {
    match std::fs::read_to_string(folder.join(SHIPPED)) {
        Ok(text) => text.trim().parse().map_err(io::Error::other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

/// Lost in a crash it costs one more offer of what is there.
fn write_shipped(folder: &Path, last: u64) -> io::Result<()> {
    let unfinished = folder.join("shipped.new");
    std::fs::write(&unfinished, last.to_string())?;
    std::fs::rename(unfinished, folder.join(SHIPPED))
}
