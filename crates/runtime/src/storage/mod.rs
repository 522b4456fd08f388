//! How much a tenant may take of the disk, in bytes and in files, and how its writers are stopped in time.
//!
//! Where its folders are on a file system of their own or under a project quota, the file system itself says how full it
//! is. Elsewhere they are measured, with what sandboxes hold open without a name, and what the disk as a whole has lost
//! since then is counted on top, or only what was uploaded where no sandbox has been awake. That bound costs microseconds.
//! It is too large where others write to the disk, so nobody is refused before a new measurement; it is too small where
//! others delete, so a disk that changes is measured again now and then. Measuring costs, so measurements rest in between,
//! but not where the latest one found plenty of room: there it may be others' writing that makes the bound too large. A
//! workspace that cannot be measured, because its agent keeps moving it about, is held to the bound.

mod keep;
mod reserve;
mod share;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use palisade_protocol::ToolOutput;
use palisade_protocol::limits::{STOPS_WHILE_FULL_MAX, TENANT_LOOKING_THREADS_MAX};
use palisade_sandbox::Sandbox;
use palisade_workspace::{Amount, Footprint, Volumes, WorkspaceError};
use serde::Serialize;
use tokio::sync::watch;

use crate::threads::Lane;
pub(crate) use keep::{is_disk_low, keep, keep_disk};
pub(crate) use reserve::Disk;
use share::{kept_from, reserved};

/// A disk that changes is measured again after this time, however far the limit is.
const MEASURE_EVERY: Duration = Duration::from_secs(60);
/// What counts as a change of the disk.
const CHANGE: Amount = Amount { bytes: 1024 * 1024, files: 1_000 };
/// A measurement that took a second is not repeated for so many: at most a twentieth of one core goes into it.
const REST_PER_MEASUREMENT: u32 = 20;
/// Who had less than this part of the limit left, when it was measured, has to wait for the next measurement.
const PLENTY: u64 = 20;
/// So much more in a full workspace, and what runs in it is stopped again.
const GROWTH_WHILE_FULL: Amount = Amount { bytes: 16 * 1024 * 1024, files: 1_000 };
/// The least that anybody asks for.
const ONE: Amount = Amount { bytes: 1, files: 1 };

/// Who shares the disk.
pub(crate) struct Sharing {
    tenants: AtomicU64,
    other_servers: bool,
}

impl Sharing {
    /// `other_servers`: whether others may write to the same data directory.
    pub(crate) fn new(other_servers: bool) -> Self {
        Self { tenants: AtomicU64::new(1), other_servers }
    }

    /// So many tenants are configured now.
    pub(crate) fn is_among(&self, tenants: usize) {
        self.tenants.store(tenants as u64, Ordering::Relaxed);
    }

    fn tenants(&self) -> u64 {
        self.tenants.load(Ordering::Relaxed)
    }
}

/// One tenant's storage.
pub(crate) struct Storage {
    footprint: Footprint,
    limit: Amount,
    sharing: Arc<Sharing>,
    look: Mutex<Look>,
    /// Held while a measurement runs: a second one at the same time would only cost.
    measuring: Mutex<()>,
    /// One thread for those that may have to measure, so that all who wait for a large workspace hold no more than that.
    looking: Lane,
    /// Counts up whenever what runs in the workspace has to stop.
    stops: watch::Sender<u64>,
    /// Those that write to it.
    sandboxes: Mutex<Vec<Weak<Sandbox>>>,
}

/// What the latest measurement found.
#[derive(Debug, Clone, Copy)]
struct Look {
    /// Nothing before the first one.
    used: Amount,
    is_measured: bool,
    /// What the shared disk had left when it began.
    free: Amount,
    /// What was uploaded since then.
    uploaded: Amount,
    /// Whether somebody else may have written since then: a sandbox, or another server.
    had_writers: bool,
    ended: Instant,
    took: Duration,
    /// What there was when the writers were stopped last; `None` while it is not full.
    full_at: Option<Amount>,
    /// How often they were stopped since it is full.
    stops: u32,
}

/// What the tenant's folders may still take, in bytes and in files: whatever has a name is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Headroom {
    /// The limit.
    pub limit_bytes: u64,
    /// What they take: measured, plus what the disk has lost since then.
    pub used_bytes: u64,
    /// What can still be written: the limit's rest, or the disk's where that is less.
    pub free_bytes: u64,
    /// The limit.
    pub limit_files: u64,
    /// How many there are, as for bytes.
    pub used_files: u64,
    /// How many can still be made.
    pub free_files: u64,
}

impl Headroom {
    fn used(&self) -> Amount {
        Amount { bytes: self.used_bytes, files: self.used_files }
    }

    fn free(&self) -> Amount {
        Amount { bytes: self.free_bytes, files: self.free_files }
    }

    fn has(&self, more: Amount) -> bool {
        self.free().covers(at_least_one(more))
    }
}

/// What a look says.
pub(crate) struct Watched {
    pub(crate) headroom: Headroom,
    /// What writes there is to be ended now.
    pub(crate) is_to_stop: bool,
}

impl Storage {
    pub(crate) fn new(footprint: Footprint, limit: Amount, sharing: &Arc<Sharing>) -> Self {
        let look = Look {
            used: Amount::default(),
            is_measured: false,
            uploaded: Amount::default(),
            had_writers: true,
            free: footprint.volumes().map(|volumes| volumes.shared.free).unwrap_or_default(),
            ended: Instant::now(),
            took: Duration::ZERO,
            full_at: None,
            stops: 0,
        };
        Self {
            footprint,
            limit,
            sharing: sharing.clone(),
            look: Mutex::new(look),
            measuring: Mutex::default(),
            looking: Lane::new(TENANT_LOOKING_THREADS_MAX),
            stops: watch::Sender::new(0),
            sandboxes: Mutex::default(),
        }
    }

    /// Told whenever what runs in the workspace has to stop.
    pub(crate) fn stops(&self) -> watch::Receiver<u64> {
        self.stops.subscribe()
    }

    /// Counts what a sandbox holds open without a name.
    pub(crate) fn count_with(&self, sandbox: &Arc<Sandbox>) {
        let mut sandboxes = lock(&self.sandboxes);
        sandboxes.retain(|known| known.strong_count() > 0);
        sandboxes.push(Arc::downgrade(sandbox));
        self.lock().had_writers = true;
    }

    /// Whether files may not grow now. Looks again before it says so: something may have been deleted.
    pub(crate) async fn is_full(self: &Arc<Self>) -> bool {
        if self.lock().full_at.is_none() {
            return false;
        }
        let storage = self.clone();
        // Where too many wait already, nothing is known to have been deleted.
        !matches!(self.looking.run(move || storage.check(ONE)).await, Ok(Ok(())))
    }

    /// Whether commands kept writing to a full workspace, by ways that no limit of a file's size is in.
    pub(crate) fn takes_no_commands(&self) -> bool {
        self.lock().stops >= STOPS_WHILE_FULL_MAX
    }

    /// What a model is told when something of it was not done, or ended, because files may not grow.
    pub(crate) fn full(&self, what: &str) -> ToolOutput {
        let headroom = self.headroom();
        let is_disk = headroom.is_ok_and(|it| matches!(self.refusal(&it, ONE), WorkspaceError::DiskFull));
        let why = match is_disk {
            true => WorkspaceError::DiskFull.to_string(),
            false => format!(
                "the workspace is full; it may have {} MB and {} files",
                self.limit.bytes / 1_000_000,
                self.limit.files
            ),
        };
        let way_on = match self.takes_no_commands() {
            true => {
                "Commands kept writing all the same, so none runs until files were deleted through the file API."
            }
            false => {
                "Until something is deleted no file can grow; Bash runs, so that `rm` and `du` can be used."
            }
        };
        ToolOutput::error("workspace.full", format!("{what}: {why}. {way_on}"))
    }

    /// Whether so much more may be uploaded; it counts from here on.
    pub(crate) fn take(&self, more: Amount) -> Result<(), WorkspaceError> {
        self.check(more)?;
        let mut look = self.lock();
        look.uploaded = look.uploaded.plus(more);
        Ok(())
    }

    /// Whether so much more may be written. Asks the disk, and measures where the bound says no.
    pub(crate) fn check(&self, more: Amount) -> Result<(), WorkspaceError> {
        if self.headroom()?.has(more) {
            return Ok(());
        }
        self.measure_if_rested(more)?;
        let headroom = self.headroom()?;
        if headroom.has(more) {
            self.lock().forget_full();
            return Ok(());
        }
        Err(self.refusal(&headroom, more))
    }

    /// Which of the limits is in the way of so much more.
    fn refusal(&self, headroom: &Headroom, more: Amount) -> WorkspaceError {
        let (rest, more) = (self.limit.minus(headroom.used()), at_least_one(more));
        if rest.bytes < more.bytes {
            WorkspaceError::WorkspaceFull { limit_bytes: self.limit.bytes }
        } else if rest.files < more.files {
            WorkspaceError::TooManyFiles { limit_files: self.limit.files }
        } else {
            WorkspaceError::DiskFull
        }
    }

    /// What can be said at once.
    fn headroom(&self) -> Result<Headroom, WorkspaceError> {
        let volumes = self.footprint.volumes()?;
        let used = self.bound(&volumes);
        let mut free = self.limit.minus(used);
        if volumes.uses_shared {
            free =
                free.min(volumes.shared.free.minus(kept_from(used, &volumes.shared, self.sharing.tenants())));
        }
        free = volumes.own.iter().fold(free, |free, own| free.min(own.free));
        Ok(Headroom {
            limit_bytes: self.limit.bytes,
            used_bytes: used.bytes,
            free_bytes: free.bytes,
            limit_files: self.limit.files,
            used_files: used.files,
            free_files: free.files,
        })
    }

    /// What the folders take, never too little.
    fn bound(&self, volumes: &Volumes) -> Amount {
        let own = volumes.own.iter().fold(Amount::default(), |sum, own| sum.plus(own.used()));
        if !volumes.uses_shared {
            return own;
        }
        let look = *self.lock();
        let lost = look.free.minus(volumes.shared.free);
        // What others delete makes the loss too small: what was uploaded is known without it.
        own.plus(look.used).plus(if look.had_writers { lost } else { look.uploaded })
    }

    /// Measures because so much more is wanted, unless the last measurement is too fresh for its cost.
    fn measure_if_rested(&self, more: Amount) -> Result<(), WorkspaceError> {
        let _one_at_a_time = lock(&self.measuring);
        let look = *self.lock();
        let volumes = self.footprint.volumes()?;
        let is_rested = look.ended.elapsed() >= look.took * REST_PER_MEASUREMENT
            || self.is_in_doubt(&look, &volumes, more);
        if !volumes.uses_shared || !is_rested {
            return Ok(());
        }
        let began = Instant::now();
        let had_writers = self.sharing.other_servers || self.has_sandbox();
        let measured = self.footprint.measure().map(|named| named.plus(self.unnamed()));
        let has_writers = had_writers || self.has_sandbox();
        let earlier = look.uploaded;
        let mut look = self.lock();
        (look.ended, look.took) = (Instant::now(), began.elapsed());
        (look.used, look.free, look.is_measured) = (measured?, volumes.shared.free, true);
        // What was uploaded while it was measured may have been met or not.
        look.uploaded = look.uploaded.minus(earlier);
        look.had_writers = has_writers;
        Ok(())
    }

    /// Whether nothing but what the disk has lost since the latest measurement is in the way, which others may have written.
    fn is_in_doubt(&self, look: &Look, volumes: &Volumes, more: Amount) -> bool {
        let plenty = Amount { bytes: self.limit.bytes / PLENTY, files: self.limit.files / PLENTY };
        look.is_measured
            && !self.limit.minus(self.bound(volumes)).covers(more)
            && self.limit.minus(look.used).covers(more.plus(plenty))
    }

    fn has_sandbox(&self) -> bool {
        lock(&self.sandboxes).iter().any(|sandbox| sandbox.strong_count() > 0)
    }

    /// What the sandboxes hold open that no folder shows.
    fn unnamed(&self) -> Amount {
        let sandboxes: Vec<_> = lock(&self.sandboxes).iter().filter_map(Weak::upgrade).collect();
        let device = self.footprint.shared_device();
        device.map(|device| palisade_sandbox::unnamed_files(&sandboxes, device)).unwrap_or_default()
    }

    fn is_measurement_due(&self) -> Result<bool, WorkspaceError> {
        let headroom = self.headroom()?;
        let look = *self.lock();
        let (now, then) = (self.footprint.volumes()?.shared.free, look.free);
        let has_changed = look.ended.elapsed() > MEASURE_EVERY
            && (now.bytes.abs_diff(then.bytes) > CHANGE.bytes
                || now.files.abs_diff(then.files) > CHANGE.files);
        Ok(!look.is_measured || look.full_at.is_some() || !headroom.has(ONE) || has_changed)
    }

    /// Looks, measures where that is due, and says whether what runs in a workspace that is full has to end.
    fn watch(&self) -> Result<Watched, WorkspaceError> {
        if self.is_measurement_due()? {
            let measured = self.measure_if_rested(ONE);
            if let Err(error) = measured {
                tracing::warn!(error = %palisade_protocol::chain(&error), "a workspace cannot be measured");
            }
        }
        let headroom = self.headroom()?;
        let mut look = self.lock();
        let grew_to = |full_at: Amount| !full_at.plus(GROWTH_WHILE_FULL).covers(headroom.used());
        let is_full = !headroom.has(ONE);
        let is_to_stop = is_full && look.full_at.is_none_or(grew_to);
        if is_to_stop {
            look.full_at = Some(headroom.used());
            look.stops += 1;
        } else if !is_full {
            look.forget_full();
        }
        drop(look);
        if is_to_stop {
            tracing::warn!(?headroom, folders = ?self.footprint, "a workspace is full; what writes to it is stopped");
            self.stops.send_modify(|count| *count += 1);
        }
        Ok(Watched { headroom, is_to_stop })
    }

    /// Whether less is free below the folders than is kept for the server itself.
    fn is_disk_low(&self) -> bool {
        self.footprint.volumes().is_ok_and(|volumes| {
            volumes.uses_shared && !volumes.shared.free.covers(reserved(&volumes.shared))
        })
    }

    fn lock(&self) -> MutexGuard<'_, Look> {
        lock(&self.look)
    }
}

impl Look {
    fn forget_full(&mut self) {
        (self.full_at, self.stops) = (None, 0);
    }
}

fn at_least_one(more: Amount) -> Amount {
    Amount { bytes: more.bytes.max(ONE.bytes), files: more.files.max(ONE.files) }
}

// What is behind these locks is whole after any panic, so a poisoned one is still good.
fn lock<T>(it: &Mutex<T>) -> MutexGuard<'_, T> {
    it.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One thread for all who wait for a large workspace, one for everybody else.
    #[test]
    fn turns_that_wait_for_a_measurement_hold_one_thread_together() {
        let pool = tokio::runtime::Builder::new_current_thread().max_blocking_threads(2).build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let footprint = Footprint::new(folder.path(), vec![folder.path().to_owned()]);
        let storage = Arc::new(Storage::new(footprint, Amount::default(), &Arc::new(Sharing::new(false))));
        assert!(storage.watch().unwrap().is_to_stop, "nothing fits in it");
        let measuring = lock(&storage.measuring);
        let mut turns = tokio::task::JoinSet::new();
        for _ in 0..100 {
            let storage = storage.clone();
            turns.spawn_on(async move { storage.is_full().await }, pool.handle());
        }
        let others = Lane::new(2);
        for number in 0..100 {
            assert_eq!(pool.block_on(others.run(move || number)).unwrap(), number);
        }
        drop(measuring);
        assert_eq!(pool.block_on(turns.join_all()), [true; 100]);
    }

    #[test]
    fn what_others_write_stops_nobody_who_has_plenty_of_room() {
        let folder = tempfile::tempdir().unwrap();
        let limit = Amount { bytes: 100 << 20, files: 1_000 };
        let footprint = Footprint::new(folder.path(), vec![folder.path().into()]);
        let storage = Storage::new(footprint, limit, &Arc::new(Sharing::new(false)));
        // A measurement just now that took an hour, and a disk that has lost far more than the limit since.
        let measured = |used| {
            let free = storage.footprint.volumes().unwrap().shared.free;
            let lost = Amount { bytes: 1 << 40, files: 1 << 40 };
            let mut look = storage.lock();
            (look.used, look.is_measured, look.free, look.had_writers) = (used, true, free.plus(lost), true);
            (look.ended, look.took) = (Instant::now(), Duration::from_secs(3600));
        };
        measured(Amount::default());
        storage.check(ONE).unwrap();
        measured(Amount::default());
        assert!(!storage.watch().unwrap().is_to_stop);
        for near in [Amount { bytes: 99 << 20, files: 0 }, Amount { bytes: 0, files: 999 }] {
            measured(near);
            storage.check(ONE).unwrap_err();
        }
    }
}
