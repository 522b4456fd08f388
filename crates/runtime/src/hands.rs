//! The sessions' sandboxes: started when first needed, kept through the session, rebuilt on doubt, ended when
//! idle. Losing one costs a tool result and nothing else.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use palisade_egress::EgressError;
use palisade_protocol::{SessionId, TenantName};
use palisade_sandbox::{Note, ProxySpec, SCRATCH_NAME, Sandbox, SandboxError, SandboxSpec};

use crate::Rooms;
use crate::doors::SandboxDoor;
use crate::storage::Storage;
use crate::turn::TurnJob;

/// A sandbox that was not used for so long, and whose session runs no turn, is ended.
const IDLE_MAX: Duration = Duration::from_secs(300);

/// Why there is no sandbox.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotStarted {
    /// It could not be made.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The egress proxy gave it no way out, and without one it is not started.
    #[error("the sandbox has no way out")]
    Door(#[from] EgressError),
    /// What it passed out cannot be listened at.
    #[error("the sandbox's listener cannot be served")]
    Listener(#[source] std::io::Error),
    /// The session's home cannot be made.
    #[error("the session has no home")]
    Home(#[source] palisade_protocol::Error),
}

/// Every sandbox of this server, by session.
#[derive(Default)]
pub(crate) struct Hands {
    awake: Mutex<HashMap<SessionId, Awake>>,
}

#[derive(Clone)]
struct Awake {
    sandbox: Arc<Sandbox>,
    /// Where its first process is named for other servers.
    _mark: Arc<Mark>,
    /// Its way out; closed when it is.
    door: Arc<SandboxDoor>,
    used: Instant,
    /// The workspace it writes to.
    storage: Arc<Storage>,
}

impl Hands {
    /// The session's sandbox, started or rebuilt if need be. Called by the session's one running turn only, so
    /// two starts never race.
    pub(crate) async fn get(&self, rooms: &Arc<Rooms>, job: &TurnJob) -> Result<Arc<Sandbox>, NotStarted> {
        let id = &job.session.id;
        let known = self.lock().get(id).map(|awake| (awake.sandbox.clone(), awake.door.clone()));
        let mut lost = 0;
        if let Some((sandbox, door)) = known {
            self.touch(id);
            if !sandbox.is_dead() && !is_stale(job, sandbox.clone()).await && door.is_current().await {
                return Ok(sandbox);
            }
            tracing::info!(session = %id, dead = sandbox.is_dead(), "sandbox rebuilt");
            lost = sandbox.background_lost();
            self.close(id).await;
        }
        let (sandbox, door) = start(rooms, job).await?;
        if lost > 0 {
            sandbox.tell(Note::Lost(lost));
        }
        job.storage.count_with(&sandbox);
        let mark = Arc::new(Mark::write(rooms.lease.mark_of(id), &sandbox));
        self.lock().insert(
            id.clone(),
            Awake {
                sandbox: sandbox.clone(),
                _mark: mark,
                door: Arc::new(door),
                used: Instant::now(),
                storage: job.storage.clone(),
            },
        );
        Ok(sandbox)
    }

    /// Ends what a turn left running, background commands apart.
    pub(crate) async fn end_turn(&self, session: &SessionId) {
        let known = self.lock().get(session).map(|awake| awake.sandbox.clone());
        if let Some(sandbox) = known {
            self.touch(session);
            if let Err(error) = sandbox.end_turn().await {
                // Whatever could not be ended politely ends with its sandbox.
                tracing::warn!(session = %session, error = %palisade_protocol::chain(&error), "sandbox dropped at the turn's end");
                self.close(session).await;
            }
        }
    }

    /// Ends the session's sandbox with every process in it.
    pub(crate) async fn close(&self, session: &SessionId) {
        let removed = self.lock().remove(session);
        if let Some(awake) = removed {
            awake.sandbox.shutdown().await;
        }
    }

    /// Ends every sandbox.
    pub(crate) async fn close_all(&self) {
        let all: Vec<Awake> = self.lock().drain().map(|(_, awake)| awake).collect();
        for awake in all {
            awake.sandbox.shutdown().await;
        }
    }

    /// Ends sandboxes that were idle too long; `busy` says which sessions run a turn. A sandbox with a background
    /// command is in use.
    pub(crate) async fn close_idle(&self, busy: impl Fn(&SessionId) -> bool) {
        // Taken off the list under the lock that decided: whoever needs one from here on starts a new one.
        let is_idle = |id: &SessionId, awake: &mut Awake| {
            awake.used.elapsed() > IDLE_MAX && !busy(id) && awake.sandbox.background_count() == 0
        };
        let idle: Vec<_> = self.lock().extract_if(is_idle).collect();
        for (id, awake) in idle {
            tracing::debug!(session = %id, "idle sandbox ended");
            awake.sandbox.shutdown().await;
        }
    }

    /// Ends every sandbox over this workspace with all that runs in it: who of them writes cannot be seen.
    pub(crate) async fn close_writers(&self, storage: &Arc<Storage>) {
        let is_writer = |awake: &Awake| Arc::ptr_eq(&awake.storage, storage);
        let writers: Vec<_> = self.lock().extract_if(|_, awake| is_writer(awake)).collect();
        let ended = writers.into_iter().map(|(id, awake)| async move {
            tracing::info!(session = %id, "sandbox ended: its workspace is full");
            awake.sandbox.shutdown().await;
        });
        futures_util::future::join_all(ended).await;
    }

    /// Whether a sandbox over this workspace is awake.
    pub(crate) fn writes_to(&self, storage: &Arc<Storage>) -> bool {
        self.lock().values().any(|awake| Arc::ptr_eq(&awake.storage, storage))
    }

    /// The sessions whose sandboxes are awake.
    pub(crate) fn sessions(&self) -> Vec<SessionId> {
        self.lock().keys().cloned().collect()
    }

    /// How many sandboxes are awake.
    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    fn touch(&self, session: &SessionId) {
        if let Some(awake) = self.lock().get_mut(session) {
            awake.used = Instant::now();
        }
    }

    // The map is whole after any panic, so a poisoned lock is still good.
    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Awake>> {
        self.awake.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file that names a sandbox's first process; goes with the sandbox.
struct Mark {
    path: PathBuf,
}

impl Mark {
    fn write(path: PathBuf, sandbox: &Sandbox) -> Self {
        let written = sandbox.mark().map(|mark| std::fs::write(&path, mark.to_string()));
        if let Some(Err(error)) = written {
            // Without it a server that stands still keeps its sandbox until it goes on.
            tracing::warn!(path = %path.display(), %error, "a sandbox was not marked");
        }
        Self { path }
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        // Gone with the server's folder, or there was none.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Looks at the disk; on doubt, it is.
async fn is_stale(job: &TurnJob, sandbox: Arc<Sandbox>) -> bool {
    job.share.disk.run(move || sandbox.is_stale()).await.unwrap_or(true)
}

/// The door comes first: what programs inside trust is part of what they see.
async fn start(rooms: &Arc<Rooms>, job: &TurnJob) -> Result<(Arc<Sandbox>, SandboxDoor), NotStarted> {
    let door = rooms.doors.open(&job.tenant, &job.session.id).await?;
    let mut spec = job.sandbox_spec.clone();
    spec.proxy = Some(ProxySpec { trust_anchor: door.trust_anchor() });
    spec.env.extend(placeholders(rooms, &job.tenant).await);
    make_home(job).await.map_err(NotStarted::Home)?;
    let sandbox = {
        let _place = job.share.sandbox_start().await;
        rooms.sandboxes.start(spec).await?
    };
    if let Some(listener) = sandbox.take_listener() {
        door.serve(listener).map_err(NotStarted::Listener)?;
    }
    rooms.metrics.sandbox_started();
    forward_status(rooms, job, &sandbox);
    Ok((Arc::new(sandbox), door))
}

/// The home outlives its sandboxes, as the workspace does; its folder for temporary files does not.
async fn make_home(job: &TurnJob) -> Result<(), palisade_protocol::Error> {
    let (homes, session) = (job.homes.clone(), job.session.id.clone());
    job.share.disk.run(move || Ok(homes.prepare(&session, SCRATCH_NAME)?)).await?
}

/// What programs inside read in the place of credentials.
async fn placeholders(rooms: &Rooms, tenant: &TenantName) -> Vec<(String, String)> {
    let rules = rooms.vault.credential_rules(tenant).await.unwrap_or_else(|error| {
        tracing::warn!(error = %palisade_protocol::chain(&error), "a sandbox is without its placeholders");
        Vec::new()
    });
    let shown = rules.into_iter().filter_map(|rule| Some((rule.env?, rule.placeholder)));
    shown.filter(|(name, _)| palisade_sandbox::may_be_set(name)).collect()
}

/// What `session-status` says inside becomes the session's metadata.
fn forward_status(rooms: &Arc<Rooms>, job: &TurnJob, sandbox: &Sandbox) {
    let Some(mut updates) = sandbox.take_status_updates() else { return };
    let (store, session) = (job.share.store.clone(), job.session.id.clone());
    rooms.tasks.spawn(async move {
        while let Some((key, value)) = updates.recv().await {
            if let Err(error) = store.set_metadata(&session, key, value.into()).await {
                tracing::debug!(session = %session, error = %palisade_protocol::chain(&error), "a status was not kept");
            }
        }
    });
}

/// What a session's cage is made of.
pub(crate) fn spec(
    tenant: &crate::tenant::Tenant,
    session: &palisade_protocol::Session,
    keep: &crate::skills::SessionKeep,
) -> Result<SandboxSpec, palisade_protocol::Error> {
    Ok(SandboxSpec {
        tenant: tenant.config.name.clone(),
        session: session.id.clone(),
        home: tenant.homes.of(&session.id),
        workspace: tenant.workspace_dir.clone(),
        scope: tenant.scope(&session.id, &session.file_access)?,
        locked: session.file_access.still_locked(&tenant.config.locked),
        skills: keep.skill_dirs.clone(),
        env: Vec::new(),
        proxy: None,
    })
}
