//! How much a tenant's workspace may take, and how its writers are stopped in time.
//!
//! Where the workspace is a file system of its own or under a project quota, the file system itself says how full it is.
//! Elsewhere the workspace is measured, and what the disk as a whole has lost since then is counted on top. That bound
//! costs microseconds. It is too large where others write to the disk, so nobody is refused before a new measurement;
//! it is too small where others delete, so a disk that changes is measured again now and then. A workspace that
//! cannot be measured, because its agent keeps moving it about, is held to the bound.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use palisade_protocol::limits::STORAGE_RESERVED_BYTES;
use palisade_protocol::{Error, ToolOutput};
use palisade_workspace::{Volume, Workspace, WorkspaceError};
use serde::Serialize;
use tokio::sync::watch;

use crate::sessions::blocking;
use crate::{OpCtx, Rooms, Runtime};

/// How often the disk is asked.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A disk that changes is measured again after this time, however far the limit is.
const MEASURE_EVERY: Duration = Duration::from_secs(60);
/// What counts as a change of the disk.
const CHANGE_BYTES: u64 = 1024 * 1024;
/// A measurement that took a second is not repeated for so many: at most a twentieth of one core goes into it.
const REST_PER_MEASUREMENT: u32 = 20;
/// So much more in a full workspace, and what runs in it is stopped again.
const GROWTH_WHILE_FULL_BYTES: u64 = 16 * 1024 * 1024;

/// One workspace's storage.
pub(crate) struct Storage {
    workspace: Arc<Workspace>,
    limit_bytes: u64,
    look: Mutex<Look>,
    /// Held while a measurement runs: a second one at the same time would only cost.
    measuring: Mutex<()>,
    /// Counts up whenever what runs in the workspace has to stop.
    stops: watch::Sender<u64>,
}

/// What the latest measurement found.
#[derive(Debug, Clone, Copy)]
struct Look {
    /// 0 before the first one.
    used_bytes: u64,
    is_measured: bool,
    /// What the disk had left when it began.
    free_bytes: u64,
    ended: Instant,
    took: Duration,
    /// What the workspace had when its writers were stopped last; `None` while it is not full.
    full_at_bytes: Option<u64>,
}

/// What the workspace may still take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Headroom {
    /// Its limit.
    pub limit_bytes: u64,
    /// What it takes: measured, plus what the disk has lost since then.
    pub used_bytes: u64,
    /// What can still be written: the limit's rest, or the disk's where that is less.
    pub free_bytes: u64,
}

impl Storage {
    pub(crate) fn new(workspace: Arc<Workspace>, limit_bytes: u64) -> Self {
        let look = Look {
            used_bytes: 0,
            is_measured: false,
            free_bytes: workspace.volume().map_or(0, |volume| volume.free_bytes),
            ended: Instant::now(),
            took: Duration::ZERO,
            full_at_bytes: None,
        };
        Self {
            workspace,
            limit_bytes,
            look: Mutex::new(look),
            measuring: Mutex::default(),
            stops: watch::Sender::new(0),
        }
    }

    /// Told whenever what runs in the workspace has to stop.
    pub(crate) fn stops(&self) -> watch::Receiver<u64> {
        self.stops.subscribe()
    }

    /// Whether files may not grow now. Looks again before it says so: something may have been deleted.
    pub(crate) async fn is_full(self: &Arc<Self>) -> bool {
        if self.lock().full_at_bytes.is_none() {
            return false;
        }
        let storage = self.clone();
        blocking(move || Ok(storage.check(1)?)).await.is_err()
    }

    /// What a model is told when something of it was not done, or ended, because files may not grow.
    pub(crate) fn full(&self, what: &str) -> ToolOutput {
        let message = format!(
            "{what}: the workspace is full; it may have {} MB. Until something is deleted no file can grow; Bash runs, \
             so that `rm` and `du` can be used.",
            self.limit_bytes / 1_000_000
        );
        ToolOutput::error("workspace.full", message)
    }

    /// Whether so many bytes more may be written. Asks the disk, and measures where the bound says no.
    pub(crate) fn check(&self, more_bytes: u64) -> Result<(), WorkspaceError> {
        let has_room = |headroom: Headroom| headroom.free_bytes >= more_bytes.max(1);
        if has_room(self.headroom()?) {
            return Ok(());
        }
        self.measure_if_rested()?;
        let headroom = self.headroom()?;
        if has_room(headroom) {
            self.lock().full_at_bytes = None;
            Ok(())
        } else if headroom.limit_bytes.saturating_sub(headroom.used_bytes) >= more_bytes.max(1) {
            Err(WorkspaceError::DiskFull)
        } else {
            Err(WorkspaceError::WorkspaceFull { limit_bytes: self.limit_bytes })
        }
    }

    /// What can be said at once.
    fn headroom(&self) -> Result<Headroom, WorkspaceError> {
        let volume = self.workspace.volume()?;
        let used_bytes = self.bound(&volume);
        let of_limit = self.limit_bytes.saturating_sub(used_bytes);
        let of_disk = volume.free_bytes.saturating_sub(reserved(&volume));
        Ok(Headroom { limit_bytes: self.limit_bytes, used_bytes, free_bytes: of_limit.min(of_disk) })
    }

    /// What the workspace takes, never too little.
    fn bound(&self, volume: &Volume) -> u64 {
        if volume.is_own {
            return volume.total_bytes.saturating_sub(volume.free_bytes);
        }
        let look = *self.lock();
        look.used_bytes.saturating_add(look.free_bytes.saturating_sub(volume.free_bytes))
    }

    /// Measures, unless the last measurement is too fresh for its cost.
    fn measure_if_rested(&self) -> Result<(), WorkspaceError> {
        let _one_at_a_time = self.measuring.lock().unwrap_or_else(PoisonError::into_inner);
        let look = *self.lock();
        let is_rested = look.ended.elapsed() >= look.took * REST_PER_MEASUREMENT;
        let volume = self.workspace.volume()?;
        if volume.is_own || !is_rested {
            return Ok(());
        }
        let began = Instant::now();
        let measured = self.workspace.measure();
        let mut look = self.lock();
        (look.ended, look.took) = (Instant::now(), began.elapsed());
        (look.used_bytes, look.free_bytes, look.is_measured) = (measured?, volume.free_bytes, true);
        Ok(())
    }

    fn is_measurement_due(&self) -> Result<bool, WorkspaceError> {
        let headroom = self.headroom()?;
        let look = *self.lock();
        let has_changed = look.ended.elapsed() > MEASURE_EVERY
            && self.workspace.volume()?.free_bytes.abs_diff(look.free_bytes) > CHANGE_BYTES;
        Ok(!look.is_measured || look.full_at_bytes.is_some() || headroom.free_bytes == 0 || has_changed)
    }

    /// Looks, measures where that is due, and stops what runs in a workspace that is full.
    fn watch(&self) -> Result<(), WorkspaceError> {
        if self.is_measurement_due()? {
            let measured = self.measure_if_rested();
            if let Err(error) = measured {
                tracing::warn!(error = %palisade_protocol::chain(&error), "a workspace cannot be measured");
            }
        }
        let headroom = self.headroom()?;
        let mut look = self.lock();
        let grew_to = |full_at: u64| headroom.used_bytes > full_at + GROWTH_WHILE_FULL_BYTES;
        let is_full = headroom.free_bytes == 0;
        let is_to_stop = is_full && look.full_at_bytes.is_none_or(grew_to);
        if is_to_stop {
            look.full_at_bytes = Some(headroom.used_bytes);
        } else if !is_full {
            look.full_at_bytes = None;
        }
        drop(look);
        if is_to_stop {
            tracing::warn!(
                workspace = %self.workspace.dir().display(), used_bytes = headroom.used_bytes,
                limit_bytes = self.limit_bytes, "a workspace is full; what writes to it is stopped"
            );
            self.stops.send_modify(|count| *count += 1);
        }
        Ok(())
    }

    // What is behind the lock is whole after any panic, so a poisoned lock is still good.
    fn lock(&self) -> MutexGuard<'_, Look> {
        self.look.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is kept of a shared disk, so that a full one does not stop the database too.
fn reserved(volume: &Volume) -> u64 {
    if volume.is_own { 0 } else { STORAGE_RESERVED_BYTES.min(volume.total_bytes / 20) }
}

/// Looks after every tenant's storage.
pub(crate) async fn keep(rooms: Arc<Rooms>) {
    let mut tick = tokio::time::interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = rooms.draining.cancelled() => return,
            _ = tick.tick() => {}
        }
        for tenant in rooms.live().tenants.values() {
            let storage = tenant.storage.clone();
            let was_stopped = *storage.stops.borrow();
            let watched = {
                let storage = storage.clone();
                blocking(move || Ok(storage.watch()?)).await
            };
            if let Err(error) = watched {
                tracing::error!(tenant = %tenant.config.name, error = %palisade_protocol::chain(&error), "its storage was not looked at");
            }
            if *storage.stops.borrow() != was_stopped {
                // Commands of turns stop themselves; those in the background belong to no turn.
                rooms.hands.close_background(&storage).await;
            }
        }
    }
}

/// Whether less is free below a workspace than is kept for the server itself.
pub(crate) async fn is_disk_low(rooms: &Rooms) -> bool {
    let storages: Vec<_> = rooms.live().tenants.values().map(|tenant| tenant.storage.clone()).collect();
    let is_low = |storage: &Arc<Storage>| {
        let volume = storage.workspace.volume();
        volume.is_ok_and(|volume| !volume.is_own && volume.free_bytes < reserved(&volume))
    };
    blocking(move || Ok(storages.iter().any(is_low))).await.unwrap_or(true)
}

impl Runtime {
    /// What the caller's workspace may still take.
    pub async fn headroom(&self, ctx: &OpCtx) -> Result<Headroom, Error> {
        let storage = self.rooms.tenant(ctx)?.storage.clone();
        blocking(move || Ok(storage.headroom()?)).await
    }
}
