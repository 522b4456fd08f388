//! The operations of Palisade and the supervisor of its turns: the only place where rooms meet.
//!
//! Handlers call an operation with an [`OpCtx`]; a message is written down and its turn is driven by a task of
//! the supervisor, never by the request that sent it. Durable state is the store and the tenants' folders; what
//! is held here can be lost and rebuilt. No HTTP and no SQL.

mod admin;
mod billing;
mod clock;
mod context;
mod conversation;
mod doors;
mod egress_policy;
mod files;
mod hands;
mod lease;
mod leftovers;
mod lifetimes;
mod lock;
mod messages;
mod metrics;
mod ready;
mod recover;
mod scopes;
mod sessions;
mod settings;
mod share;
mod skills;
mod snapshots;
mod start;
mod storage;
mod tenant;
mod threads;
mod tool_results;
mod transport;
mod turn;
mod usage;
mod vault;

use std::sync::Arc;

use arc_swap::ArcSwap;
use palisade_egress::WayOut;
use palisade_inference::Router;
use palisade_protocol::{Error, SessionId, TenantName};
use palisade_sandbox::SandboxFactory;
use palisade_store::Store;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use admin::{Admin, CallerSummary, LedgerSummary, Posted, PostingDraft};
pub use billing::LedgerConfig;
pub use context::OpCtx;
pub use conversation::{ConversationItem, ConversationPage};
pub use egress_policy::{EgressConfig, EgressPolicy, PolicyError, VaultSource};
pub use files::{
    Conditions, Entry, FileUpload, Opened, Page, ReadFile, Tag, Tags, Validators, Verdict, Written,
};
pub use messages::{Cancelled, Sent, TurnStream};
pub use metrics::Metrics;
pub use palisade_agent::Network;
pub use palisade_store::{AuditRange, ClientAnswer, LedgerEntry, StoreError, StoreUrl};
pub use palisade_vault::{ExposeSecret, KekKind, KeyMaterial, SecretString, VaultError};
pub use palisade_workspace::Amount;
pub use ready::{PartState, Readiness};
pub use sessions::BulkDelete;
pub use settings::Settings;
pub use share::Place;
pub use skills::BundledSkill;
pub use start::{RuntimeConfig, StartError};
pub use storage::Headroom;
pub use tenant::{MemoryMode, TenantConfig, TenantMode};
pub use threads::{Lane, threads_max};
pub use transport::{ProxyServiceCalls, ProxyTransport};
pub use vault::{
    ANSWER_BYTES_MAX, ClientAuth, CredentialDraft, CredentialInfo, CredentialKind, FormPost, KeySource,
    KeySourceError, OAuthDraft, OAuthGrant, ReadKey, SecretDraft, ServiceCalls, ServiceFault, Vault,
    VaultConfig, VaultFault, VaultStartError, VaultState,
};

use crate::hands::Hands;
use crate::tenant::Tenant;
use crate::turn::Turns;

/// The running system: a handle that is cheap to clone.
#[derive(Clone)]
pub struct Runtime {
    rooms: Arc<Rooms>,
}

/// A model as clients see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelInfo {
    /// Its name in the catalog.
    pub name: String,
    /// `model`, or `demo-planner` for the built-in stand-in.
    pub kind: &'static str,
    /// Whether the tenant's sessions run on it when they name none.
    pub default: bool,
}

/// Everything operations share.
struct Rooms {
    store: Store,
    live: ArcSwap<settings::Live>,
    data_dir: std::path::PathBuf,
    router: Router,
    sandboxes: SandboxFactory,
    way_out: WayOut,
    doors: doors::Doors,
    /// Of a proxy in this process.
    policy: Option<Arc<EgressPolicy>>,
    bundled_skills: Vec<BundledSkill>,
    hands: Hands,
    disk: storage::Disk,
    sharing: Arc<storage::Sharing>,
    scopes: scopes::Scopes,
    lease: lease::Lease,
    turns: Turns,
    endings: lifetimes::Endings,
    probe: ready::Probe,
    upstreams: ready::UpstreamProbes,
    metrics: Metrics,
    /// Every task the runtime starts, so that shutdown can wait for them.
    tasks: TaskTracker,
    /// Cancelled when the server drains: turns stop at their next durable point.
    draining: CancellationToken,
    vault: Vault,
    demo_planner: bool,
    _lock: lock::DataDirLock,
}

impl Rooms {
    /// The caller's tenant. A key that authenticated names a tenant that is there.
    fn tenant(&self, ctx: &OpCtx) -> Result<Arc<Tenant>, Error> {
        self.live()
            .tenants
            .get(ctx.tenant())
            .cloned()
            .ok_or_else(|| Error::bug(format!("no tenant {}", ctx.tenant())))
    }

    /// The store as this tenant uses it; as the server does for one that is not configured any more.
    fn store_of(&self, tenant: &TenantName) -> Store {
        let live = self.live();
        live.tenants.get(tenant).map_or(&self.store, |tenant| &tenant.share.store).clone()
    }

    /// The record of the caller's session; somebody else's does not exist.
    async fn session(&self, ctx: &OpCtx, id: &SessionId) -> Result<palisade_protocol::Session, Error> {
        self.store_of(ctx.tenant()).session(ctx.tenant(), id).await?.ok_or_else(Error::no_such_session)
    }
}

impl Runtime {
    /// The counters, for `/metrics`.
    pub fn metrics(&self) -> &Metrics {
        self.rooms.metrics.observe(self.rooms.turns.count(), self.rooms.hands.count());
        &self.rooms.metrics
    }

    /// The catalog, as the caller's tenant sees it.
    pub fn models(&self, ctx: &OpCtx) -> Vec<ModelInfo> {
        let live = self.rooms.live();
        let default = live.tenants.get(ctx.tenant()).map(|tenant| tenant.config.default_model.as_str());
        let models = self.rooms.router.catalog().models();
        models
            .map(|model| ModelInfo {
                name: model.name.clone(),
                kind: if self.rooms.demo_planner { "demo-planner" } else { "model" },
                default: default == Some(model.name.as_str()),
            })
            .collect()
    }

    /// How many tenants there are.
    pub fn tenant_count(&self) -> usize {
        self.rooms.live().tenants.len()
    }

    /// The credentials of tenants.
    pub fn vault(&self) -> &Vault {
        &self.rooms.vault
    }

    /// Whose key this is.
    pub fn authenticate(&self, key: &str) -> Option<OpCtx> {
        self.rooms.live().keys.authenticate(key).cloned().map(OpCtx::new)
    }

    /// Whether a caller may use the endpoint of this name: one that belongs to a tenant is that tenant's alone (decision 31), every other
    /// is everybody's.
    pub fn is_endpoint_of(&self, ctx: &OpCtx, host: &str) -> bool {
        let live = self.rooms.live();
        let owns = |tenant: &&Arc<Tenant>| tenant.config.hosts.iter().any(|name| name == host);
        let owner = live.tenants.values().find(owns);
        owner.is_none_or(|owner| owner.config.name == *ctx.tenant())
    }

    /// Returns when what was just changed in the vault is in force at the door.
    pub async fn vault_applied(&self) {
        if let Some(policy) = &self.rooms.policy {
            policy.caught_up().await;
        }
    }

    /// An id for a request that brought none.
    pub fn new_request_id(&self) -> String {
        let random = palisade_vault::random_hex::<8>().unwrap_or_else(|_| "0000000000000000".to_owned());
        format!("req_{random}")
    }

    /// Completes when the server has begun to drain.
    pub async fn drained(&self) {
        self.rooms.draining.cancelled().await;
    }

    /// Stops taking turns, lets running ones reach a durable point, ends every sandbox, and returns when every
    /// task of the runtime has ended. An error says that the database could not be told; whoever starts next on it goes on
    /// with the turns all the same.
    pub async fn drain(&self) -> Result<(), StoreError> {
        self.rooms.draining.cancel();
        self.rooms.store.hurry();
        self.rooms.turns.all_ended().await;
        self.rooms.hands.close_all().await;
        self.rooms.sandboxes.shutdown().await;
        self.rooms.vault.settle().await;
        let left = self.rooms.store.leave().await;
        if let Err(error) = &left {
            tracing::warn!(
                error = %palisade_protocol::chain(error),
                "the other servers will wait for this one's lease"
            );
        }
        self.rooms.store.close().await;
        self.rooms.tasks.close();
        self.rooms.tasks.wait().await;
        match left {
            Err(error) if error.is_unreachable() => Err(error),
            _ => Ok(()),
        }
    }
}
