//! Looks after the disk and every tenant's storage while the server runs. Each tenant has a task of its own, because
//! measuring one may take long.

use std::sync::Arc;
use std::time::Duration;

use palisade_protocol::{Error, TenantName};

use super::{Headroom, Storage};
use crate::sessions::blocking;
use crate::{OpCtx, Rooms, Runtime};

/// The pause between two looks where there is room for long.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The shortest one. A look asks the file system and takes microseconds.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// What sandboxes may write in a second, as a guess that is rather too high; the next look comes before that much more is
/// there.
const BYTES_PER_S: f64 = 4e9;
const FILES_PER_S: f64 = 1e5;

/// Looks after the server's own disk.
pub(crate) async fn keep_disk(rooms: Arc<Rooms>) {
    loop {
        let looker = rooms.clone();
        if let Err(error) = blocking(move || Ok(looker.disk.look()?)).await {
            tracing::error!(error = %palisade_protocol::chain(&error), "the disk was not looked at");
        }
        let pause = if rooms.hands.count() == 0 { LOOK_EVERY } else { LOOK_EVERY / 4 };
        tokio::select! {
            () = rooms.draining.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Looks after one tenant's storage.
pub(crate) async fn keep(rooms: Arc<Rooms>, name: TenantName, storage: Arc<Storage>) {
    loop {
        let watched = {
            let storage = storage.clone();
            let look = storage.looking.clone();
            look.run(move || storage.watch()).await.and_then(|watched| Ok(watched?))
        };
        let free = match watched {
            Ok(watched) => {
                if watched.is_to_stop {
                    // Commands of turns tell of it themselves; what they and others left running belongs to nobody.
                    rooms.hands.close_writers(&storage).await;
                }
                Some(watched.headroom)
            }
            Err(error) => {
                tracing::error!(tenant = %name, error = %palisade_protocol::chain(&error), "its storage was not looked at");
                None
            }
        };
        let is_used = rooms.hands.writes_to(&storage);
        tokio::select! {
            () = rooms.draining.cancelled() => return,
            () = tokio::time::sleep(pause(free.filter(|_| is_used))) => {}
        }
    }
}

/// Until the next look at a workspace that sandboxes write to and that has so much room.
fn pause(headroom: Option<Headroom>) -> Duration {
    let Some(headroom) = headroom else { return LOOK_EVERY };
    let lasts_s = (headroom.free_bytes as f64 / BYTES_PER_S).min(headroom.free_files as f64 / FILES_PER_S);
    Duration::from_secs_f64(lasts_s.min(LOOK_EVERY.as_secs_f64())).max(PAUSE_MIN)
}

/// Whether less is free of the server's disk or below a workspace than is kept for the server itself.
pub(crate) async fn is_disk_low(rooms: &Rooms) -> bool {
    let storages: Vec<_> = rooms.live().tenants.values().map(|tenant| tenant.storage.clone()).collect();
    rooms.disk.is_low()
        || blocking(move || Ok(storages.iter().any(|storage| storage.is_disk_low()))).await.unwrap_or(true)
}

impl Runtime {
    /// What the caller's workspace may still take.
    pub async fn headroom(&self, ctx: &OpCtx) -> Result<Headroom, Error> {
        let tenant = self.rooms.tenant(ctx)?;
        let storage = tenant.storage.clone();
        Ok(tenant.share.disk.run(move || storage.headroom()).await??)
    }
}
