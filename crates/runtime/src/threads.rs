//! How tenants share the threads on which work waits for the disk: each has places of its own, and what finds none waits
//! behind its own tenant's work. A tenant whose disk hangs holds its places and nobody else's. Nothing that waits for a
//! client or for a sandbox may run here.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::TryFutureExt as _;
use futures_util::future::BoxFuture;
use palisade_protocol::limits::{
    BLOCKING_WAITING_MAX, SERVER_THREADS_MAX, TENANT_BULK_THREADS_MAX, TENANT_DISK_THREADS_MAX,
    TENANT_LOOKING_THREADS_MAX,
};
use palisade_protocol::{Error, ErrorKind};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

/// Tenants that there are threads for at least: some may be added while the server runs.
const TENANTS_MIN: usize = 16;
/// What one tenant has.
const TENANT_THREADS_MAX: usize =
    TENANT_DISK_THREADS_MAX + TENANT_BULK_THREADS_MAX + TENANT_LOOKING_THREADS_MAX;

/// So many threads are enough for every tenant's places, with some left for the server's own work.
pub fn threads_max(tenants: usize) -> usize {
    SERVER_THREADS_MAX + tenants.max(TENANTS_MIN) * TENANT_THREADS_MAX
}

/// Places on the blocking threads; cheap to clone, and all clones are one.
#[derive(Debug, Clone)]
pub struct Lane {
    places: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
}

impl Lane {
    pub(crate) fn new(places: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(places)), waiting: Arc::default() }
    }

    /// Waits for a place, for work that takes long and needs no thread of its own.
    pub(crate) async fn place(&self) -> Result<OwnedSemaphorePermit, Error> {
        let _waits = Waits::begin(&self.waiting)?;
        self.places.clone().acquire_owned().await.map_err(Error::bug)
    }

    /// Runs something that waits for the disk, when there is a place for it. Whoever asks may go away meanwhile: what has
    /// begun ends all the same, and keeps its place until then.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        in_place(self.place().await?, work).await.map_err(Error::bug)
    }

    /// The same, begun at once where there is a place, and otherwise when its outcome is waited for.
    pub fn begin<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> BoxFuture<'static, Result<T, Error>> {
        match self.places.clone().try_acquire_owned() {
            Ok(place) => Box::pin(in_place(place, work).map_err(Error::bug)),
            Err(_) => {
                let lane = self.clone();
                Box::pin(async move { lane.run(work).await })
            }
        }
    }
}

fn in_place<T: Send + 'static>(
    place: OwnedSemaphorePermit,
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    tokio::task::spawn_blocking(move || {
        let done = work();
        drop(place);
        done
    })
}

/// One that waits for a place.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn begin(waiting: &'a AtomicUsize) -> Result<Self, Error> {
        let waits = Self(waiting);
        match waiting.fetch_add(1, Ordering::Relaxed) < BLOCKING_WAITING_MAX {
            true => Ok(waits),
            false => Err(busy()),
        }
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn busy() -> Error {
    let message = "too much of your own work waits for the disk already; try again in a moment";
    Error::new(ErrorKind::LimitReached, "tenant.busy", message).retry_after(1)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A pool as small as what two tenants need.
    fn pool(threads: usize) -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(threads)
            .build()
            .unwrap()
    }

    #[test]
    fn a_tenant_whose_disk_hangs_holds_its_own_places() {
        pool(5).block_on(async {
            let (hostile, other) = (Lane::new(4), Lane::new(1));
            let (hang, hung) = mpsc::channel::<()>();
            let hung = Arc::new(std::sync::Mutex::new(hung));
            let mut waiting = tokio::task::JoinSet::new();
            for _ in 0..100 {
                let (lane, hung) = (hostile.clone(), hung.clone());
                waiting
                    .spawn(async move { lane.run(move || drop(hung.lock().map(|hung| hung.recv()))).await });
            }
            tokio::task::yield_now().await;
            for number in 0..100 {
                assert_eq!(other.run(move || number).await.unwrap(), number);
            }
            drop(hang);
            while let Some(done) = waiting.join_next().await {
                done.unwrap().unwrap();
            }
        });
    }

    #[test]
    fn there_is_an_end_to_what_waits_and_who_goes_away_waits_no_more() {
        pool(1).block_on(async {
            let lane = Lane::new(1);
            let (hang, hung) = mpsc::channel::<()>();
            let first = lane.clone();
            let first = tokio::runtime::Handle::current()
                .spawn(async move { first.run(move || hung.recv().is_err()).await });
            while lane.places.available_permits() > 0 {
                tokio::task::yield_now().await;
            }
            let mut waiting = tokio::task::JoinSet::new();
            for _ in 0..BLOCKING_WAITING_MAX {
                let lane = lane.clone();
                waiting.spawn(async move { lane.run(|| ()).await });
            }
            while lane.waiting.load(Ordering::Relaxed) < BLOCKING_WAITING_MAX {
                tokio::task::yield_now().await;
            }
            let refused = lane.run(|| ()).await.unwrap_err();
            assert_eq!((refused.code, refused.retry_after_s), ("tenant.busy", Some(1)));
            waiting.shutdown().await;
            assert_eq!(lane.waiting.load(Ordering::Relaxed), 0);
            drop(hang);
            assert!(first.await.unwrap().unwrap());
            lane.run(|| ()).await.unwrap();
        });
    }

    #[test]
    fn work_that_panics_gives_its_place_back() {
        pool(1).block_on(async {
            let lane = Lane::new(1);
            assert_eq!(
                lane.run(|| std::panic::resume_unwind(Box::new("broken"))).await.unwrap_err().code,
                "internal"
            );
            lane.run(|| ()).await.unwrap();
        });
    }
}
