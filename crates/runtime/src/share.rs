//! What one tenant may take of what all tenants share: threads, the database, archives, readers of turns, sandboxes that
//! start. Whoever asks for more waits behind its own or is refused; nobody else notices. The numbers are
//! `protocol::limits`.

use std::sync::Arc;

use palisade_protocol::limits::{
    TENANT_ARCHIVES_MAX, TENANT_BULK_THREADS_MAX, TENANT_DISK_THREADS_MAX, TENANT_READERS_MAX,
    TENANT_SANDBOX_STARTS_MAX,
};
use palisade_protocol::{Error, ErrorKind};
use palisade_store::Store;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::threads::Lane;

/// When somebody whose archives are all in use may ask again, in seconds.
const ARCHIVE_RETRY_AFTER_S: u64 = 5;
/// The same for readers of turns.
const READER_RETRY_AFTER_S: u64 = 1;

/// One tenant's share.
pub(crate) struct Share {
    /// The database: it takes turns at the writer, and reads with a bounded number of connections.
    pub(crate) store: Store,
    /// Threads for what takes a moment: open, look up, write, rename, remove.
    pub(crate) disk: Lane,
    /// Threads for what takes long because there is much of it: archives, listings, removals.
    pub(crate) bulk: Lane,
    archives: Arc<Semaphore>,
    readers: Arc<Semaphore>,
    starts: Arc<Semaphore>,
}

/// One of a tenant's places; free again when it is dropped.
#[derive(Debug)]
pub struct Place(#[expect(dead_code, reason = "held and never looked at")] OwnedSemaphorePermit);

impl Share {
    /// A share of the server's store and threads.
    pub(crate) fn of(store: &Store) -> Self {
        Self {
            store: store.for_another_owner(),
            disk: Lane::new(TENANT_DISK_THREADS_MAX),
            bulk: Lane::new(TENANT_BULK_THREADS_MAX),
            archives: Arc::new(Semaphore::new(TENANT_ARCHIVES_MAX)),
            readers: Arc::new(Semaphore::new(TENANT_READERS_MAX)),
            starts: Arc::new(Semaphore::new(TENANT_SANDBOX_STARTS_MAX)),
        }
    }

    /// A place for an archive that is downloaded.
    pub(crate) fn archive(&self) -> Result<Place, Error> {
        place(&self.archives).ok_or_else(|| {
            let message = format!(
                "{TENANT_ARCHIVES_MAX} archives are being downloaded, as many as a tenant may at a time; finish or end one"
            );
            Error::new(ErrorKind::LimitReached, "archive.too_many", message).retry_after(ARCHIVE_RETRY_AFTER_S)
        })
    }

    /// A place for a reader of a turn's events.
    pub(crate) fn reader(&self) -> Result<Place, Error> {
        place(&self.readers).ok_or_else(|| {
            let message = format!(
                "{TENANT_READERS_MAX} streams of events are open, as many as a tenant may have at a time; close one"
            );
            Error::new(ErrorKind::LimitReached, "events.too_many_readers", message)
                .retry_after(READER_RETRY_AFTER_S)
        })
    }

    /// Waits for a place in which a sandbox is started: one thread starts those of all tenants.
    pub(crate) async fn sandbox_start(&self) -> Option<Place> {
        self.starts.clone().acquire_owned().await.ok().map(Place)
    }
}

fn place(places: &Arc<Semaphore>) -> Option<Place> {
    places.clone().try_acquire_owned().ok().map(Place)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use palisade_store::{OpenStore, StoreUrl};

    use super::*;

    #[tokio::test]
    async fn a_tenant_starts_so_many_sandboxes_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let url = StoreUrl::Sqlite(folder.path().join("palisade.db"));
        let OpenStore { store, .. } = Store::open(&url).await.unwrap();
        let (hostile, other) = (Share::of(&store), Share::of(&store));
        let mut starting = Vec::new();
        for _ in 0..TENANT_SANDBOX_STARTS_MAX {
            starting.push(hostile.sandbox_start().now_or_never().unwrap());
        }
        let mut next = Box::pin(hostile.sandbox_start());
        assert!((&mut next).now_or_never().is_none(), "it waits for its own tenant's");
        assert!(other.sandbox_start().now_or_never().is_some(), "and nobody else does");
        starting.pop();
        assert!(next.now_or_never().is_some());
    }
}
