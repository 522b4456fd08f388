//! The operator's socket, `<data directory>/admin.sock`: who can open it may do everything, so it is made closed to
//! everybody but the server's own user. Where several servers share the directory one of them has it, and another
//! takes it up when that one is gone: who has it holds a lock, for of two that find a dead server's socket each would
//! put its own in the place, and one would serve where nobody comes. A server without it serves its clients all the same.

use std::fs::{File, TryLockError};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use palisade_runtime::Runtime;
use tokio::net::{UnixListener, UnixStream};

/// The socket's name in the data directory.
pub(crate) const SOCKET: &str = "admin.sock";
/// Between two looks at a socket that another server has.
const LOOK: Duration = Duration::from_secs(5);

/// What became of an attempt to have the socket.
enum Claim {
    /// With the lock that says so, for as long as it is served.
    Ours(UnixListener, File),
    Others,
}

/// Serves the operator until the server drains.
pub(crate) async fn serve(runtime: Runtime, data_dir: PathBuf) {
    let path = data_dir.join(SOCKET);
    let (mut is_told, mut is_failure_told) = (false, false);
    let (listener, _lock) = loop {
        match claim(&path).await {
            Ok(Claim::Ours(listener, lock)) => break (listener, lock),
            Ok(Claim::Others) if !is_told => {
                tracing::info!(path = %path.display(), "another server of this data directory has the operator's socket");
                is_told = true;
            }
            Ok(Claim::Others) => {}
            Err(error) if !is_failure_told => {
                tracing::error!(path = %path.display(), %error, "`palisade admin` cannot reach this server: its socket could not be made; trying again");
                is_failure_told = true;
            }
            Err(_) => {}
        }
        tokio::select! {
            () = runtime.drained() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    };
    let identity = identity(&path);
    if let Err(error) = palisade_gateway::serve_admin(listener, runtime).await {
        tracing::error!(%error, "the operator's socket failed");
    }
    // Another server may have put its own there.
    if identity.is_some() && identity == self::identity(&path) {
        let _ = std::fs::remove_file(&path);
    }
}

/// A socket that nobody answers on is a dead server's, and is replaced in one step, so that there is always one.
async fn claim(path: &Path) -> std::io::Result<Claim> {
    let mut options = File::options();
    let lock =
        options.create(true).write(true).truncate(false).mode(0o600).open(path.with_extension("lock"))?;
    match lock.try_lock() {
        Err(TryLockError::WouldBlock) => return Ok(Claim::Others),
        Err(TryLockError::Error(error)) => return Err(error),
        Ok(()) => {}
    }
    // Another program's, or a server's of before there was a lock.
    if UnixStream::connect(path).await.is_ok() {
        return Ok(Claim::Others);
    }
    let made = path.with_extension("sock.new");
    match std::fs::remove_file(&made) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&made)?;
    std::fs::set_permissions(&made, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&made, path)?;
    Ok(Claim::Ours(listener, lock))
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dead_servers_socket_is_replaced_and_a_living_ones_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(SOCKET);
        let Claim::Ours(first, lock) = claim(&path).await.unwrap() else { panic!("nobody has it") };
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(claim(&path).await.unwrap(), Claim::Others));
        drop(first);
        assert!(path.exists(), "a server that was killed leaves it");
        assert!(matches!(claim(&path).await.unwrap(), Claim::Others), "its lock says that it lives");
        drop(lock);
        assert!(matches!(claim(&path).await.unwrap(), Claim::Ours(..)));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "socket and lock, and nothing else");
    }

    #[tokio::test]
    async fn of_many_that_find_a_dead_servers_socket_one_has_it_and_is_reached() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(SOCKET);
        drop(UnixListener::bind(&path).unwrap());
        for _ in 0..50 {
            let claims = futures_util::future::join_all((0..8).map(|_| claim(&path))).await;
            let ours = claims.into_iter().filter_map(|claim| match claim.unwrap() {
                Claim::Ours(listener, lock) => Some((listener, lock)),
                Claim::Others => None,
            });
            let ours: Vec<_> = ours.collect();
            assert_eq!(ours.len(), 1);
            assert!(UnixStream::connect(&path).await.is_ok());
        }
    }

    #[tokio::test]
    async fn what_is_no_socket_is_replaced_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(SOCKET);
        std::fs::write(&path, "").unwrap();
        assert!(matches!(claim(&path).await.unwrap(), Claim::Ours(..)));
        assert!(UnixStream::connect(&path).await.is_err(), "its listener is gone again");
    }
}
