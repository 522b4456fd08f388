//! What an operator may change while the server runs: tenants, who may call, who pays, and for how long things are kept. It is
//! swapped as a whole, so that nobody ever sees half of a change; whoever began with the old settings ends with them.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use palisade_inference::Catalog;
use palisade_protocol::TenantName;
use palisade_store::Store;
use palisade_vault::Keys;
use palisade_workspace::{Footprint, Homes, Workspace};

use crate::billing::{Billing, LedgerConfig};
use crate::clock::now;
use crate::share::Share;
use crate::snapshots::Shelf;
use crate::start::keep_tenant;
use crate::storage::{Sharing, Storage};
use crate::tenant::{Tenant, TenantConfig};
use crate::{Rooms, Runtime, StartError};

/// The part of the configuration that can be read again.
pub struct Settings {
    /// At least one.
    pub tenants: Vec<TenantConfig>,
    /// Who may call.
    pub keys: Keys,
    /// What a credit is worth, in dollars: prices are dollars, ledgers are credits.
    pub usd_per_credit: f64,
    /// Every ledger that a tenant names.
    pub ledgers: Vec<LedgerConfig>,
    /// How long a client has to answer a call of its own tool, in seconds.
    pub client_tool_timeout_s: u64,
    /// How long a turn's events are kept after its end, in seconds.
    pub events_retention_s: u64,
    /// How long a session that is not persistent is kept after its last response, in seconds.
    pub session_idle_s: u64,
}

/// The settings in force.
pub(crate) struct Live {
    pub(crate) tenants: HashMap<TenantName, Arc<Tenant>>,
    pub(crate) keys: Keys,
    pub(crate) billing: Billing,
    pub(crate) client_tool_timeout: Duration,
    pub(crate) events_retention_s: f64,
    pub(crate) session_idle_s: f64,
}

impl Live {
    /// Opens what tenants have on the disk; of those in `before` it is open already.
    pub(crate) fn open(
        settings: Settings,
        catalog: &Catalog,
        data_dir: &Path,
        sharing: &Arc<Sharing>,
        before: &HashMap<TenantName, Arc<Tenant>>,
        store: &Store,
    ) -> Result<Self, StartError> {
        let billing = Billing::new(catalog, settings.usd_per_credit, settings.ledgers)?;
        let mut tenants = HashMap::new();
        sharing.is_among(settings.tenants.len());
        for config in settings.tenants {
            let name = config.name.clone();
            let tenant = match before.get(&name) {
                Some(open) => open.with(config),
                None => open_tenant(data_dir, config, sharing, store)?,
            };
            tenants.insert(name, Arc::new(tenant));
        }
        Ok(Self {
            tenants,
            keys: settings.keys,
            billing,
            client_tool_timeout: Duration::from_secs(settings.client_tool_timeout_s),
            events_retention_s: settings.events_retention_s as f64,
            session_idle_s: settings.session_idle_s as f64,
        })
    }
}

impl Tenant {
    /// The same tenant with other settings. What it shows to sandboxes that are awake, and what its workspace was opened with, stays.
    fn with(&self, config: TenantConfig) -> Self {
        let before = &self.config;
        let config = TenantConfig {
            memory: before.memory,
            locked: before.locked.clone(),
            storage_max: before.storage_max,
            ..config
        };
        Self { config, ..self.clone() }
    }
}

impl Rooms {
    /// The settings in force now.
    pub(crate) fn live(&self) -> Arc<Live> {
        self.live.load_full()
    }

    /// Opens the ledgers that are new.
    pub(crate) async fn open_ledgers(&self, live: &Live) -> Result<(), StartError> {
        for ledger in live.billing.ledgers() {
            self.store.open_ledger(&ledger.name, ledger.opening, now()).await?;
        }
        Ok(())
    }
}

impl Runtime {
    /// Puts other settings in force, at once and as a whole; an error changes nothing. Turns that run go on as they began.
    pub async fn reload(&self, settings: Settings) -> Result<(), StartError> {
        let rooms = &self.rooms;
        let before = rooms.live();
        let mut new = Live::open(
            settings,
            rooms.router.catalog(),
            &rooms.data_dir,
            &rooms.sharing,
            &before.tenants,
            &rooms.store,
        )?;
        rooms.open_ledgers(&new).await?;
        for (name, tenant) in &before.tenants {
            // A tenant that is gone has no keys any more; what it runs comes to its end.
            new.tenants.entry(name.clone()).or_insert_with(|| tenant.clone());
        }
        let names = new.tenants.keys().cloned().collect();
        let new = Arc::new(new);
        rooms.live.store(new.clone());
        for (_, tenant) in new.tenants.iter().filter(|(name, _)| !before.tenants.contains_key(*name)) {
            keep_tenant(rooms, tenant);
        }
        if let Some(policy) = &rooms.policy {
            policy.serve(names).await?;
        }
        Ok(())
    }
}

fn open_tenant(
    data_dir: &Path,
    config: TenantConfig,
    sharing: &Arc<Sharing>,
    store: &Store,
) -> Result<Tenant, StartError> {
    let home = data_dir.join("tenants").join(config.name.as_str());
    let (workspace_dir, skills_dir) = (home.join("workspace"), home.join("skills"));
    for path in [&workspace_dir, &skills_dir] {
        std::fs::create_dir_all(path).map_err(|source| StartError::Folder { path: path.clone(), source })?;
    }
    let workspace = Workspace::open(&workspace_dir, &config.locked)
        .map_err(|source| StartError::Workspace { tenant: config.name.to_string(), source })?;
    let homes = Homes::open(&home.join("home"))
        .map_err(|source| StartError::Workspace { tenant: config.name.to_string(), source })?;
    let (workspace, homes) = (Arc::new(workspace), Arc::new(homes));
    // The sessions' homes count as well.
    let folders = vec![workspace_dir.clone(), home.join("home"), skills_dir.clone()];
    let footprint = Footprint::new(data_dir.join("tenants"), folders);
    let storage = Arc::new(Storage::new(footprint, config.storage_max, sharing));
    let share = Arc::new(Share::of(store));
    let shelf = Shelf {
        workspace: workspace.clone(),
        storage: storage.clone(),
        dir: skills_dir,
        snapshots: Arc::default(),
        share: share.clone(),
    };
    Ok(Tenant { config, workspace, storage, workspace_dir, homes, shelf, share })
}
