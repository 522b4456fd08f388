//! One server per data directory: a locked file, which the kernel frees when its process ends, however it ends.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// A server that is just being replaced has so long to let go.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(20);

/// Held for as long as the server runs.
#[derive(Debug)]
pub(crate) struct DataDirLock {
    _file: File,
}

impl DataDirLock {
    /// Takes the lock; `None` when another server has it.
    pub(crate) async fn take(data_dir: &Path) -> std::io::Result<Option<Self>> {
        let path = data_dir.join("server.lock");
        let file = File::options().create(true).write(true).truncate(false).mode(0o600).open(path)?;
        let began = Instant::now();
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Some(Self { _file: file })),
                Err(Errno::WOULDBLOCK) if began.elapsed() < WAIT_MAX => tokio::time::sleep(PAUSE).await,
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
