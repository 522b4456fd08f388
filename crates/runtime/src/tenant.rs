//! One tenant: its settings and its files.

use std::path::PathBuf;
use std::sync::Arc;

use palisade_agent::Network;
use palisade_protocol::rate::RateLimits;
use palisade_protocol::scope::{LockedFolder, Scope};
use palisade_protocol::{
    Access, Error, ErrorKind, FileAccess, LedgerName, Session, SessionId, TenantName, WorkspacePath,
};
use palisade_workspace::{Amount, Homes, Workspace};

use crate::share::Share;
use crate::snapshots::Shelf;
use crate::storage::Storage;

/// What an operator sets per tenant.
#[derive(Debug, Clone)]
pub struct TenantConfig {
    /// `[a-z0-9-]{1,40}`.
    pub name: TenantName,
    /// Host names that are this tenant's own endpoints, in small letters: no other tenant's key is taken there.
    pub hosts: Vec<String>,
    /// Whether its agents may reach the internet.
    pub mode: TenantMode,
    /// What its agents are told of the network. What holds them to it is the egress policy.
    pub network: Network,
    /// The catalog model of its sessions.
    pub default_model: String,
    /// Whether clients may choose another one at create; otherwise what they ask for is ignored.
    pub client_model_selection: bool,
    /// Who sees `.memory/`.
    pub memory: MemoryMode,
    /// What its sandboxes show read-only, but to sessions that name it in their scope.
    pub locked: Vec<LockedFolder>,
    /// One upload, in bytes.
    pub upload_bytes_max: u64,
    /// What its folders may take of the disk.
    pub storage_max: Amount,
    /// Sessions at a time.
    pub concurrent_sessions_max: u64,
    /// How long a turn may run, all attempts together, in seconds.
    pub turn_timeout_s: u64,
    /// The lifetime of sessions that ask for none, in seconds.
    pub session_ttl_s: u64,
    /// The longest lifetime that a session may ask for, in seconds.
    pub session_ttl_max_s: u64,
    /// What each of its tokens may use in an hour and a day, per bucket.
    pub rate: RateLimits,
    /// Whose credits it spends; without one nothing is debited.
    pub ledger: Option<LedgerName>,
}

/// Whether a tenant's agents may reach the internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TenantMode {
    /// All bundled skills and tools.
    Standard,
    /// Only what needs no network.
    Offline,
}

/// Who sees `.memory/` (contract §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryMode {
    /// Every session.
    Shared,
    /// Sessions whose scope includes it.
    Scoped,
    /// No session is told of it.
    Off,
}

/// A tenant as the runtime holds it.
#[derive(Clone)]
pub(crate) struct Tenant {
    pub(crate) config: TenantConfig,
    pub(crate) workspace: Arc<Workspace>,
    pub(crate) storage: Arc<Storage>,
    pub(crate) workspace_dir: PathBuf,
    /// Where its sessions' homes are.
    pub(crate) homes: Arc<Homes>,
    /// The snapshots of its custom skills.
    pub(crate) shelf: Shelf,
    /// What it may take of what all tenants share.
    pub(crate) share: Arc<Share>,
}

impl Tenant {
    /// What a session of this tenant may see: what it asked for, its own folder, and the shared memory. The same
    /// for the file API and for the sandbox.
    pub(crate) fn scope(&self, session: &SessionId, access: &FileAccess) -> Result<Scope, Error> {
        let scope = access
            .scope_for(session)
            .map_err(|e| Error::new(ErrorKind::Malformed, "session.bad_scope", e.to_string()))?;
        match (self.config.memory, WorkspacePath::parse(".memory")) {
            (MemoryMode::Shared, Ok(memory)) => Ok(scope.with(memory, Access::Write)),
            _ => Ok(scope),
        }
    }

    /// The session's record with what the tenant's settings add to it.
    pub(crate) fn shown(&self, session: Session) -> Session {
        let locked = session.file_access.still_locked(&self.config.locked);
        Session { locked: locked.iter().map(|folder| folder.path().to_string()).collect(), ..session }
    }

    /// Removes a session's own folder and its home.
    pub(crate) async fn remove_session(&self, session: &SessionId) -> Result<(), Error> {
        let (workspace, homes, session) = (self.workspace.clone(), self.homes.clone(), session.clone());
        let remove = move || {
            homes.remove(&session)?;
            Ok(workspace.remove_session_dir(&session)?)
        };
        self.share.bulk.run(remove).await?
    }

    /// Whether a session with this scope sees `.memory/`.
    pub(crate) fn shows_memory(&self, scope: &Scope) -> bool {
        self.config.memory != MemoryMode::Off
            && WorkspacePath::parse(".memory").is_ok_and(|memory| scope.access(&memory) >= Access::Read)
    }
}
