//! What servers hold of a data directory: locked files, which the kernel frees when their process ends, however it
//! ends. Whose lock is free is dead, and nothing need be waited for.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use palisade_protocol::SessionId;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// A server that is just being replaced has so long to let go.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(20);

/// The whole data directory, held for as long as the server runs.
#[derive(Debug)]
pub(crate) struct DataDirLock {
    _file: File,
}

impl DataDirLock {
    /// Takes the lock, with `shared` beside others that share it; `None` when another server has it.
    pub(crate) async fn take(data_dir: &Path, shared: bool) -> std::io::Result<Option<Self>> {
        let file = open(&data_dir.join("server.lock"))?;
        let how = match shared {
            true => FlockOperation::NonBlockingLockShared,
            false => FlockOperation::NonBlockingLockExclusive,
        };
        let began = Instant::now();
        loop {
            match flock(&file, how) {
                Ok(()) => return Ok(Some(Self { _file: file })),
                Err(Errno::WOULDBLOCK) if began.elapsed() < WAIT_MAX => tokio::time::sleep(PAUSE).await,
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The folder of one server in the data directory: its lock, and the marks of its sandboxes. Goes with the value.
#[derive(Debug)]
pub(crate) struct ServerDir {
    path: PathBuf,
    _lock: File,
}

impl ServerDir {
    /// Makes the folder of a server with a new name, and takes its lock.
    pub(crate) fn make(data_dir: &Path, server: &str) -> std::io::Result<Self> {
        let path = dir_of(data_dir, server);
        std::fs::create_dir_all(&path)?;
        let lock = open(&path.join("lock"))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { path, _lock: lock })
    }

    /// Where a sandbox of this server is marked.
    pub(crate) fn mark_of(&self, session: &SessionId) -> PathBuf {
        self.path.join(session.as_str())
    }
}

impl Drop for ServerDir {
    fn drop(&mut self) {
        // What stays is removed by whoever finds its lock free.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// Whether that server has ended. A server of another machine, with a data directory of its own, cannot be told.
pub(crate) fn has_ended(data_dir: &Path, server: &str) -> bool {
    let lock = File::options().write(true).open(dir_of(data_dir, server).join("lock"));
    lock.is_ok_and(|lock| flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok())
}

/// Where a sandbox of another server is marked.
pub(crate) fn mark_of(data_dir: &Path, server: &str, session: &SessionId) -> PathBuf {
    dir_of(data_dir, server).join(session.as_str())
}

/// Removes the folders of servers that have ended.
pub(crate) fn remove_ended(data_dir: &Path) -> std::io::Result<()> {
    let servers = match std::fs::read_dir(data_dir.join("servers")) {
        Ok(servers) => servers,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for server in servers.flatten() {
        if server.file_name().to_str().is_some_and(|name| has_ended(data_dir, name)) {
            std::fs::remove_dir_all(server.path())?;
        }
    }
    Ok(())
}

fn dir_of(data_dir: &Path, server: &str) -> PathBuf {
    data_dir.join("servers").join(server)
}

fn open(path: &Path) -> std::io::Result<File> {
    File::options().create(true).write(true).truncate(false).mode(0o600).open(path)
}
