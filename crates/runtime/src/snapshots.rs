//! The snapshots of a tenant's custom skills: copied when a skill changes and not when a session waits for it, counted
//! for the tenant, and removed when no session keeps them (decision 56).

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use palisade_protocol::{Error, TenantName};
use palisade_workspace::{Workspace, WorkspaceError};
use tokio::sync::{Mutex, Notify, RwLock, RwLockReadGuard};

use crate::Rooms;
use crate::share::Share;
use crate::storage::Storage;

/// A folder that changes is copied when it has been still for so long.
const STILL: Duration = Duration::from_millis(500);
/// But not later than so long after its first change, counted in such times.
const STILL_TRIES_MAX: u32 = 20;
/// A snapshot that a session was just given is not removed, even if no session is seen to keep it: another server may be
/// writing that session down.
const USED_FOR: Duration = Duration::from_secs(30);
/// Between two looks while something is to be removed, and while nothing is.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_secs(300);

/// One tenant's snapshots.
#[derive(Default)]
pub(crate) struct Snapshots {
    /// Rung when a skill may have changed or a session has gone.
    changed: Notify,
    /// Held while skills are copied: who else wants the same copies waits for them.
    copying: Mutex<()>,
    /// Read by whoever gives snapshots to a session that is not written down yet; written by whoever removes some.
    giving: RwLock<()>,
}

/// Skills by name, each with its snapshot.
type Named = Vec<(String, PathBuf)>;

/// What copying takes.
#[derive(Clone)]
pub(crate) struct Shelf {
    pub(crate) workspace: Arc<Workspace>,
    pub(crate) storage: Arc<Storage>,
    pub(crate) dir: PathBuf,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) share: Arc<Share>,
}

impl Snapshots {
    /// Something below `skills` may have changed, or a session has gone.
    pub(crate) fn look(&self) {
        self.changed.notify_one();
    }

    /// Nothing is removed until the guard is dropped.
    pub(crate) async fn give(&self) -> RwLockReadGuard<'_, ()> {
        self.giving.read().await
    }
}

impl Shelf {
    /// Each custom skill's latest snapshot. What has changed since it was copied is copied first.
    pub(crate) async fn latest(&self, tenant: &TenantName) -> Result<Named, Error> {
        let shelf = self.clone();
        let (mut found, changed) = self.share.disk.run(move || shelf.known()).await??;
        if !changed.is_empty() {
            let _one_at_a_time = self.snapshots.copying.lock().await;
            let (shelf, tenant) = (self.clone(), tenant.clone());
            found.extend(self.share.disk.run(move || shelf.copy(changed, &tenant)).await?);
            found.sort();
        }
        Ok(found)
    }

    /// Those that were copied as they are, and the names of the others.
    fn known(&self) -> Result<(Named, Vec<String>), WorkspaceError> {
        let (mut found, mut changed) = (Vec::new(), Vec::new());
        for folder in self.workspace.custom_skills()? {
            match self.workspace.known_snapshot(&folder.name, &self.dir) {
                Ok(Some(snapshot)) => found.push((folder.name, snapshot)),
                // What is wrong with it is told by whoever copies it.
                Ok(None) | Err(_) => changed.push(folder.name),
            }
        }
        Ok((found, changed))
    }

    fn copy(&self, names: Vec<String>, tenant: &TenantName) -> Named {
        let copied = names.into_iter().filter_map(|name| {
            let room = |more| self.storage.take(more);
            match self.workspace.snapshot_skill(&name, &self.dir, room) {
                Ok(snapshot) => Some((name, snapshot)),
                Err(error) => {
                    let error = palisade_protocol::chain(&error).to_string();
                    tracing::warn!(tenant = %tenant, skill = %name, error, "custom skill skipped");
                    None
                }
            }
        });
        copied.collect()
    }
}

/// Copies what changes and removes what nobody keeps, until the server drains.
pub(crate) async fn keep(rooms: Arc<Rooms>, tenant: TenantName, shelf: Shelf) {
    loop {
        let pause = match tidy(&rooms, &tenant, &shelf).await {
            Ok(is_more) => {
                if is_more {
                    LOOK_AGAIN
                } else {
                    LOOK
                }
            }
            Err(error) => {
                tracing::warn!(tenant = %tenant, error = %palisade_protocol::chain(&error), "snapshots of skills were not looked after");
                LOOK
            }
        };
        tokio::select! {
            () = rooms.draining.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
            () = still(&shelf.snapshots.changed) => {}
        }
    }
}

/// Completes when something has changed and is still again.
async fn still(changed: &Notify) {
    changed.notified().await;
    for _ in 0..STILL_TRIES_MAX {
        if tokio::time::timeout(STILL, changed.notified()).await.is_err() {
            return;
        }
    }
}

/// Whether something is left to be removed later.
async fn tidy(rooms: &Rooms, tenant: &TenantName, shelf: &Shelf) -> Result<bool, Error> {
    shelf.latest(tenant).await?;
    let Ok(_nobody_gives) = shelf.snapshots.giving.try_write() else { return Ok(true) };
    let kept = kept(rooms, tenant).await?;
    let (places, shelf) = (&shelf.share.bulk, shelf.clone());
    Ok(places.run(move || shelf.workspace.remove_unused_snapshots(&shelf.dir, &kept, USED_FOR)).await??)
}

/// The names of all that a session keeps.
async fn kept(rooms: &Rooms, tenant: &TenantName) -> Result<HashSet<String>, Error> {
    let mut kept = HashSet::new();
    for (session, snapshots) in rooms.store.snapshots_in_use(tenant).await? {
        match snapshots {
            Some(snapshots) => kept.extend(snapshots),
            // Made by an earlier version.
            None => {
                let context = rooms.store.session_context(&session).await?.unwrap_or_default();
                let keep: crate::skills::SessionKeep = serde_json::from_value(context).unwrap_or_default();
                kept.extend(keep.skill_dirs.iter().filter_map(|(_, dir)| name(dir)));
            }
        }
    }
    Ok(kept)
}

/// A snapshot's name.
pub(crate) fn name(snapshot: &Path) -> Option<String> {
    snapshot.file_name().and_then(|name| name.to_str()).map(str::to_owned)
}
