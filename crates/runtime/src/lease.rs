//! The servers that share a store. This one says that it lives, finds those that do not, and takes over the turns they
//! left; when it cannot say so, it lets its own turns go before anybody takes them.
//!
//! Only for a store that is shared: where there is one server, its lock on the data directory says all this.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use palisade_protocol::SessionId;
use palisade_sandbox::ProcessMark;
use palisade_store::{Notice, ServerBeat, Store, StoreError};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::lock::{ServerDir, has_ended, mark_of, remove_ended};
use crate::{Rooms, StartError};

/// Between two beats, and between two looks at the others.
const BEAT: Duration = Duration::from_secs(2);
/// A server whose count stands still for so long is dead (decision 4).
const LEASE: Duration = Duration::from_secs(15);
/// A server that could not beat for so long lets its turns go: before the others take them.
const OWN_LEASE: Duration = Duration::from_secs(11);
/// A beat that takes longer is tried again.
const BEAT_MAX: Duration = Duration::from_secs(3);

/// This server's hold on the turns that it drives.
pub(crate) struct Lease {
    data_dir: PathBuf,
    held: Mutex<Held>,
    /// Rung when there may be turns to take over.
    pub(crate) look: Notify,
}

struct Held {
    /// Cancelled when the lease is over.
    over: CancellationToken,
    dir: ServerDir,
}

impl Lease {
    /// Enters this server under a new name.
    pub(crate) async fn take(store: &Store, data_dir: &Path) -> Result<Self, StartError> {
        let dir = enter(store, data_dir).await?;
        let held = Mutex::new(Held { over: CancellationToken::new(), dir });
        Ok(Self { data_dir: data_dir.to_owned(), held, look: Notify::new() })
    }

    /// Cancelled when the turns that are driven now are to be let go.
    pub(crate) fn over(&self) -> CancellationToken {
        self.lock().over.clone()
    }

    /// Where the session's sandbox is marked for other servers.
    pub(crate) fn mark_of(&self, session: &SessionId) -> PathBuf {
        self.lock().dir.mark_of(session)
    }

    /// Ends the sandbox that another server of this machine has for the session: one that stands still does not do
    /// so itself.
    pub(crate) async fn end_sandbox_of(&self, server: &str, session: &SessionId) {
        let path = mark_of(&self.data_dir, server, session);
        let Ok(mark) = std::fs::read_to_string(&path) else { return };
        let ended = match mark.parse::<ProcessMark>() {
            Ok(mark) => mark.end().await,
            Err(error) => Err(error),
        };
        match ended {
            Ok(true) => tracing::info!(session = %session, server, "the sandbox of another server was ended"),
            Ok(false) => {}
            Err(error) => {
                tracing::error!(session = %session, server, %error, "the sandbox of another server was not ended");
            }
        }
        let _ = std::fs::remove_file(path);
    }

    /// The same for every other server of this machine: one of them may not have heard that the session is gone.
    pub(crate) async fn end_sandboxes_elsewhere(&self, own: &str, session: &SessionId) {
        let servers = match std::fs::read_dir(self.data_dir.join("servers")) {
            Ok(servers) => servers,
            Err(error) => {
                return tracing::warn!(%error, "the other servers' sandboxes could not be looked for");
            }
        };
        for name in servers.flatten().map(|server| server.file_name()) {
            if let Some(server) = name.to_str().filter(|server| *server != own) {
                self.end_sandbox_of(server, session).await;
            }
        }
    }

    // Whole after any panic, so a poisoned lock is still good.
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The folder first: a name in the store whose lock is free belongs to a dead server.
async fn enter(store: &Store, data_dir: &Path) -> Result<ServerDir, StartError> {
    let name = palisade_vault::random_hex::<8>()?;
    let folder = |source| StartError::Folder { path: data_dir.join("servers"), source };
    let dir = ServerDir::make(data_dir, &name).map_err(folder)?;
    store.register_server(&name).await?;
    Ok(dir)
}

/// What is known of the other servers.
#[derive(Default)]
pub(crate) struct Others {
    seen: HashMap<String, (i64, Instant)>,
}

impl Others {
    /// Those that are dead: they have ended, or have not beaten for a lease.
    fn dead(
        &mut self,
        servers: Vec<ServerBeat>,
        own: &str,
        now: Instant,
        has_ended: impl Fn(&str) -> bool,
    ) -> Vec<ServerBeat> {
        self.seen.retain(|known, _| servers.iter().any(|server| server.server == *known));
        let is_dead = |other: &ServerBeat| {
            let seen = self.seen.entry(other.server.clone()).or_insert((other.beats, now));
            if seen.0 != other.beats {
                *seen = (other.beats, now);
            }
            now.duration_since(seen.1) >= LEASE || has_ended(&other.server)
        };
        servers.into_iter().filter(|other| other.server != own).filter(is_dead).collect()
    }

    /// The same where no other server can live: at the start on a store that is not shared.
    pub(crate) async fn bury_all(&mut self, store: &Store, data_dir: &Path) -> Result<(), StoreError> {
        store.remove_other_servers().await?;
        remove_folders(data_dir);
        Ok(())
    }

    /// Takes the dead off the store's list, so that their turns are orphans; how many servers are left.
    pub(crate) async fn bury(&mut self, store: &Store, data_dir: &Path) -> Result<usize, StoreError> {
        let servers = store.servers().await?;
        let all = servers.len();
        let dead = self.dead(servers, &store.server(), Instant::now(), |name| has_ended(data_dir, name));
        for server in &dead {
            tracing::warn!(server = server.server, "a server is dead; its turns are taken over");
            store.remove_server(server).await?;
        }
        remove_folders(data_dir);
        Ok(all - dead.len())
    }
}

/// Only of servers that are off the list: a free lock is what tells that one has ended.
fn remove_folders(data_dir: &Path) {
    if let Err(error) = remove_ended(data_dir) {
        tracing::warn!(%error, "what dead servers left in the data directory was not removed");
    }
}

/// Says that this server lives, until it drains. Apart from [`look`], which may wait long for the database or for
/// many turns: this server must not be taken for dead, nor miss that it is.
pub(crate) async fn beat(rooms: Arc<Rooms>) {
    let mut beaten = Instant::now();
    loop {
        tokio::select! {
            () = rooms.draining.cancelled() => return,
            () = tokio::time::sleep(BEAT) => {}
        }
        // From when the others can have seen it.
        let began = Instant::now();
        let mut is_over = false;
        match tokio::time::timeout(BEAT_MAX, rooms.store.beat()).await {
            Ok(Ok(())) => beaten = began,
            Ok(Err(StoreError::LeaseOver)) => is_over = true,
            Ok(Err(StoreError::Stopped)) => return,
            Ok(Err(error)) => {
                tracing::warn!(
                    error = %palisade_protocol::chain(&error),
                    "this server's beat was not written"
                );
            }
            Err(_) => tracing::warn!("this server's beat takes long"),
        }
        if is_over || beaten.elapsed() >= OWN_LEASE {
            renew(&rooms).await;
            beaten = Instant::now();
            rooms.lease.look.notify_one();
        }
    }
}

/// Looks after the others, and takes over what nobody drives, until the server drains.
pub(crate) async fn look(rooms: Arc<Rooms>, mut others: Others) {
    loop {
        tokio::select! {
            () = rooms.draining.cancelled() => return,
            () = rooms.lease.look.notified() => {}
            () = tokio::time::sleep(BEAT) => {}
        }
        let looked = match others.bury(&rooms.store, &rooms.lease.data_dir).await {
            Ok(_) => crate::recover::take_over_turns(&rooms).await,
            Err(error) => Err(error),
        };
        if let Err(error) = looked {
            tracing::warn!(
                error = %palisade_protocol::chain(&error),
                "the other servers could not be looked at"
            );
        }
    }
}

/// Lets go of everything, and begins anew under another name. What this server drove is an orphan from then on, which
/// it may well take over itself.
async fn renew(rooms: &Arc<Rooms>) {
    tracing::error!("this server could not say that it lives; it lets its turns go");
    let old = rooms.store.server();
    rooms.lease.over().cancel();
    rooms.turns.all_ended().await;
    rooms.hands.close_all().await;
    loop {
        match enter(&rooms.store, &rooms.lease.data_dir).await {
            Ok(dir) => {
                *rooms.lease.lock() = Held { over: CancellationToken::new(), dir };
                break;
            }
            Err(error) => {
                tracing::warn!(
                    error = %palisade_protocol::chain(&error),
                    "this server could not enter itself again"
                );
            }
        }
        tokio::select! {
            () = rooms.draining.cancelled() => return,
            () = tokio::time::sleep(BEAT) => {}
        }
    }
    // Where the others have not noticed anything.
    let servers = rooms.store.servers().await.unwrap_or_default();
    for server in servers.into_iter().filter(|server| server.server == old) {
        if let Err(error) = rooms.store.remove_server(&server).await {
            tracing::warn!(
                error = %palisade_protocol::chain(&error),
                "this server's old name was not removed"
            );
        }
    }
}

/// Does here what another server's write asks for, until the server drains.
pub(crate) async fn heed(rooms: Arc<Rooms>, mut notices: mpsc::Receiver<Notice>) {
    loop {
        let notice = tokio::select! {
            () = rooms.draining.cancelled() => return,
            notice = notices.recv() => notice,
        };
        match notice {
            Some(Notice::CancelRequested(turn)) => {
                rooms.turns.cancel(&turn);
            }
            Some(Notice::Answered(turn)) => rooms.turns.answered(&turn),
            Some(Notice::Released(_)) => rooms.lease.look.notify_one(),
            // In tasks of their own: a sandbox may take a moment to end.
            Some(Notice::Moved(session)) if !rooms.turns.is_running(&session) => {
                let task = rooms.clone();
                rooms.tasks.spawn(async move { task.hands.close(&session).await });
            }
            Some(Notice::Moved(session)) => {
                let task = rooms.clone();
                rooms.tasks.spawn(async move { let_overtaken_go(&task, &session).await });
            }
            Some(Notice::Deleted(session)) => {
                rooms.scopes.forget(&session);
                let task = rooms.clone();
                rooms.tasks.spawn(async move { drop_session(&task, &session).await });
            }
            Some(Notice::VaultChanged(tenant)) => rooms.vault.heed_change(&tenant),
            Some(Notice::VaultKeys) => {
                // A passphrase takes a while.
                let task = rooms.clone();
                rooms.tasks.spawn(async move { task.vault.heed_keys().await });
            }
            Some(Notice::Missed) => {
                rooms.vault.heed_missed().await;
                rooms.scopes.forget_all();
                if let Err(error) = look_at_all(&rooms).await {
                    tracing::warn!(
                        error = %palisade_protocol::chain(&error),
                        "what was missed could not be looked for"
                    );
                }
            }
            None => return,
        }
    }
}

/// Stops what runs here although another server has taken it over; its end is refused by the fence.
async fn let_overtaken_go(rooms: &Rooms, session: &SessionId) {
    for (turn, _) in rooms.turns.all().into_iter().filter(|(_, owner)| owner == session) {
        let row = rooms.store.turn(&turn).await;
        if row.is_ok_and(|row| row.is_some_and(|row| row.owner != rooms.store.server())) {
            tracing::warn!(turn = %turn, "a turn was taken over by another server");
            rooms.turns.cancel(&turn);
        }
    }
}

async fn drop_session(rooms: &Rooms, session: &SessionId) {
    rooms.turns.cancel_session(session).await;
    rooms.hands.close(session).await;
}

/// Looks at everything that a notice could have been about.
async fn look_at_all(rooms: &Arc<Rooms>) -> Result<(), StoreError> {
    for (turn, session) in rooms.turns.all() {
        let is_to_end = match rooms.store.turn(&turn).await? {
            Some(row) => row.cancel_requested,
            // Gone with its session; or not written down yet, for it is listed before.
            None => rooms.store.session_context(&session).await?.is_none(),
        };
        if is_to_end {
            rooms.turns.cancel(&turn);
        }
        rooms.turns.answered(&turn);
    }
    for session in rooms.hands.sessions() {
        if rooms.store.session_context(&session).await?.is_none() {
            drop_session(rooms, &session).await;
        }
    }
    rooms.lease.look.notify_one();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(name: &str, beats: i64) -> ServerBeat {
        ServerBeat { server: name.into(), beats }
    }

    #[test]
    fn dead_is_who_stands_still_for_a_lease_or_has_ended() {
        let mut others = Others::default();
        let began = Instant::now();
        let mut look = |after_s: u64, servers: &[ServerBeat], ended: &str| {
            let now = began + Duration::from_secs(after_s);
            let dead = others.dead(servers.to_vec(), "own", now, |name| name == ended);
            dead.into_iter().map(|server| server.server).collect::<Vec<_>>()
        };
        let none = Vec::<String>::new();
        assert_eq!(look(0, &[server("own", 0), server("a", 7), server("b", 1)], ""), none);
        assert_eq!(look(10, &[server("own", 0), server("a", 7), server("b", 2)], ""), none);
        assert_eq!(look(15, &[server("own", 0), server("a", 7), server("b", 2)], ""), ["a"], "never itself");
        assert_eq!(look(16, &[server("a", 8), server("b", 2)], ""), none, "it has beaten after all");
        assert_eq!(look(17, &[server("a", 8), server("b", 3)], "b"), ["b"], "its lock is free");
        // Gone and come back under the same name: counted anew.
        assert_eq!(look(18, &[server("b", 3)], ""), none);
        assert_eq!(look(40, &[server("a", 8), server("b", 4)], ""), none);
    }
}
