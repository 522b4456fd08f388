//! Puts the rooms together, picks up what an earlier process left, and starts the housekeeping.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use palisade_egress::WayOut;
use palisade_inference::Router;
use palisade_sandbox::{SandboxConfig, SandboxError, SandboxFactory};
use palisade_store::{OpenStore, Store, StoreError, StoreUrl};
use palisade_workspace::WorkspaceError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::now;
use crate::doors::Doors;
use crate::egress_policy::{EgressConfig, EgressPolicy, PolicyError};
use crate::hands::Hands;
use crate::lease::{self, Lease, Others};
use crate::lock::DataDirLock;
use crate::metrics::Metrics;
use crate::settings::{Live, Settings};
use crate::skills::BundledSkill;
use crate::snapshots;
use crate::storage::{self, Sharing};
use crate::tenant::Tenant;
use crate::turn::Turns;
use crate::vault::{Vault, VaultConfig, VaultStartError};
use crate::{Rooms, Runtime, leftovers};

/// How often idle sandboxes and old events are looked for.
const HOUSEKEEPING: Duration = Duration::from_secs(5);
/// Rows swept in one transaction: small bites, so that no writer waits for them.
const SWEEP_ROWS_MAX: i64 = 500;

/// What the runtime is made of.
pub struct RuntimeConfig {
    /// Holds the tenants' folders, and the database where it is a file; must exist and belong to the server's uid.
    pub data_dir: PathBuf,
    /// A database that several servers share, each with the same data directory; without it a file there.
    pub store: Option<StoreUrl>,
    /// What can be changed later.
    pub settings: Settings,
    /// Whether the models are the built-in stand-in; then the catalog says so.
    pub demo_planner: bool,
    /// The models, with the way out to them.
    pub router: Router,
    /// How cages are made.
    pub sandbox: SandboxConfig,
    /// The proxy that everything leaves through, and its policy.
    pub egress: EgressConfig,
    /// Offered to every tenant.
    pub bundled_skills: Vec<BundledSkill>,
    /// Where credentials are kept, and with which key.
    pub vault: VaultConfig,
}

/// Why the runtime did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another server works there.
    #[error(
        "the data directory {path} is in use by another server; stop it, or choose another with --data-dir"
    )]
    Locked {
        /// Which.
        path: PathBuf,
    },
    /// The database.
    #[error("the store cannot be opened")]
    Store(#[from] StoreError),
    /// A tenant's folder.
    #[error("the workspace of tenant {tenant} cannot be opened")]
    Workspace {
        /// Whose.
        tenant: String,
        /// Why.
        source: WorkspaceError,
    },
    /// A folder under the data directory.
    #[error("cannot work in the folder {path}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A price that no ledger can hold.
    #[error("the price of model {model:?} cannot be counted in credits; is [credits] usd_per_credit right?")]
    Price {
        /// Whose.
        model: String,
    },
    /// What may leave.
    #[error("the egress policy cannot be put in force")]
    Policy(#[from] PolicyError),
    /// The credentials.
    #[error("the vault cannot be opened")]
    Vault(#[from] VaultStartError),
    /// The kernel's randomness.
    #[error("the server cannot give itself a name")]
    Random(#[from] palisade_vault::NoRandomness),
    /// The part that makes cages.
    #[error("sandboxes cannot be made")]
    Sandbox(#[from] SandboxError),
}

impl Runtime {
    /// Starts everything but the listener.
    pub async fn start(config: RuntimeConfig) -> Result<Self, StartError> {
        let path = || config.data_dir.clone();
        let url = config.store.unwrap_or_else(|| StoreUrl::Sqlite(config.data_dir.join("palisade.db")));
        let is_shared = matches!(url, StoreUrl::Postgres(_));
        let lock = match DataDirLock::take(&config.data_dir, is_shared).await {
            Ok(Some(lock)) => lock,
            Ok(None) => return Err(StartError::Locked { path: path() }),
            Err(source) => return Err(StartError::Folder { path: path(), source }),
        };
        let OpenStore { store, tasks: of_store, notices } = Store::open(&url).await?;
        let tasks = TaskTracker::new();
        for task in of_store {
            tasks.spawn(task);
        }
        // Before anything is done: a wrong key is told at once.
        let vault = Vault::open(store.for_another_owner(), config.vault, tasks.clone()).await?;
        let EgressConfig { way_out, lends, vault: source } = config.egress;
        source.open(vault.clone());
        let names = config.settings.tenants.iter().map(|tenant| tenant.name.clone()).collect();
        let is_here = matches!(way_out, WayOut::Here(_));
        let policy = if is_here || lends {
            let policy = Arc::new(EgressPolicy::new(way_out.clone(), vault.clone(), source, names));
            // Before a turn goes on: what the vault manages is managed from the first connection on.
            match policy.apply().await {
                // A proxy elsewhere may be started later; until then sessions have no way out.
                Err(error) if !is_here => {
                    tracing::warn!(error = %palisade_protocol::chain(&error), "the egress proxy has no vault yet");
                }
                applied => applied?,
            }
            Some(policy)
        } else {
            None
        };
        let lease = Lease::take(&store, &config.data_dir).await?;
        let mut others = Others::default();
        let is_alone = match is_shared {
            true => others.bury(&store, &config.data_dir).await? == 1,
            // Whoever was here before has ended, or its lock would have stopped us.
            false => others.bury_all(&store, &config.data_dir).await.map(|()| true)?,
        };
        let sharing = Arc::new(Sharing::new(is_shared));
        let live = Live::open(
            config.settings,
            config.router.catalog(),
            &config.data_dir,
            &sharing,
            &HashMap::new(),
            &store,
        )?;
        let disk = storage::Disk::new(&config.data_dir);
        let rooms = Arc::new(Rooms {
            sharing,
            store,
            live: ArcSwap::from_pointee(live),
            data_dir: config.data_dir,
            router: config.router,
            sandboxes: SandboxFactory::new(config.sandbox)?,
            doors: Doors::new(way_out.clone()),
            way_out,
            policy,
            bundled_skills: config.bundled_skills,
            hands: Hands::default(),
            disk,
            scopes: crate::scopes::Scopes::default(),
            lease,
            turns: Turns::default(),
            endings: crate::lifetimes::Endings::default(),
            probe: crate::ready::Probe::default(),
            upstreams: crate::ready::UpstreamProbes::default(),
            metrics: Metrics::default(),
            tasks,
            draining: CancellationToken::new(),
            vault,
            demo_planner: config.demo_planner,
            _lock: lock,
        });
        if is_shared {
            let keeper = rooms.clone();
            rooms.tasks.spawn(async move { lease::beat(keeper).await });
        }
        rooms.open_ledgers(&rooms.live()).await?;
        // What another server is just making looks like a leftover.
        let leftovers = if is_alone { leftovers::find(&rooms).await } else { HashSet::new() };
        let keeper = rooms.clone();
        rooms.tasks.spawn(async move { leftovers::keep_away(keeper, leftovers).await });
        let vault = rooms.vault.clone();
        rooms.tasks.spawn(async move { vault.finish_rotations().await });
        if let Some(policy) = rooms.policy.clone() {
            let stop = rooms.draining.clone();
            rooms.tasks.spawn(async move { policy.follow(stop).await });
        }
        let keeper = rooms.clone();
        rooms.tasks.spawn(async move { keep_house(keeper).await });
        let keeper = rooms.clone();
        rooms.tasks.spawn(async move { storage::keep_disk(keeper).await });
        for tenant in rooms.live().tenants.values() {
            keep_tenant(&rooms, tenant);
        }
        // Last, because each goes on at once.
        crate::recover::take_over_turns(&rooms).await?;
        let keeper = rooms.clone();
        if is_shared {
            rooms.tasks.spawn(async move { lease::look(keeper, others).await });
            let keeper = rooms.clone();
            rooms.tasks.spawn(async move { lease::heed(keeper, notices).await });
        } else {
            rooms.tasks.spawn(async move { crate::recover::keep_looking(keeper).await });
        }
        let keeper = rooms.clone();
        rooms.tasks.spawn(async move { crate::lifetimes::end_due_sessions(keeper).await });
        Ok(Self { rooms })
    }
}

/// Starts what looks after a tenant's folders while the server runs.
pub(crate) fn keep_tenant(rooms: &Arc<Rooms>, tenant: &Tenant) {
    let (keeper, name, storage) = (rooms.clone(), tenant.config.name.clone(), tenant.storage.clone());
    rooms.tasks.spawn(async move { storage::keep(keeper, name, storage).await });
    let (keeper, name, shelf) = (rooms.clone(), tenant.config.name.clone(), tenant.shelf.clone());
    rooms.tasks.spawn(async move { snapshots::keep(keeper, name, shelf).await });
}

async fn keep_house(rooms: Arc<Rooms>) {
    let mut tick = tokio::time::interval(HOUSEKEEPING);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = rooms.draining.cancelled() => return,
            _ = tick.tick() => {}
        }
        rooms.hands.close_idle(|session| rooms.turns.is_running(session)).await;
        if let Err(error) = rooms.store.sweep_usage(now()).await {
            tracing::error!(error = %palisade_protocol::chain(&error), "old usage was not swept");
        }
        while is_full_bite("keys", rooms.store.sweep_keys(now(), SWEEP_ROWS_MAX).await) {}
        while is_full_bite("items", rooms.store.sweep_items(SWEEP_ROWS_MAX).await) {}
        let ended_before = now() - rooms.live().events_retention_s;
        while is_full_bite("events", rooms.store.sweep_events(ended_before, SWEEP_ROWS_MAX).await) {}
    }
}

/// Whether there may be more to sweep.
fn is_full_bite(what: &str, swept: Result<u64, StoreError>) -> bool {
    match swept {
        Ok(swept) => swept == SWEEP_ROWS_MAX as u64,
        Err(error) => {
            tracing::error!(what, error = %palisade_protocol::chain(&error), "what is old was not swept");
            false
        }
    }
}
