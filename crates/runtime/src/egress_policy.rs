//! The vault's part of what the egress proxy does: which hosts it manages, put in force whenever that changes. What is wrong changes
//! nothing. The other part is the operator's, and the proxy has it from the configuration.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use palisade_egress::{
    CredentialFault, CredentialSource, EgressError, Endpoint, Secrets, VaultRules, WayOut,
};
use palisade_protocol::{CredentialName, Error, TenantName};
use palisade_vault::SecretString;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::vault::{Vault, VaultFault};

/// Between two tries to lend the vault to a proxy that is not there.
const LEND_PAUSE: Duration = Duration::from_secs(1);
/// How long a change of the vault's waits for its policy.
const CATCH_UP_MAX: Duration = Duration::from_secs(5);

/// The way out, and what is let through it.
pub struct EgressConfig {
    /// The proxy that everything leaves through.
    pub way_out: WayOut,
    /// Whether a proxy in another process borrows the vault: one on this machine does.
    pub lends: bool,
    /// What the proxy asks for credentials; the vault is put behind it.
    pub vault: VaultSource,
}

/// The vault's part of the proxy's policy, kept in force: in this process, or lent to the proxy in another.
pub struct EgressPolicy {
    way_out: WayOut,
    vault: Vault,
    /// What a proxy in another process asks through us.
    source: Arc<dyn CredentialSource>,
    tenants: Mutex<Vec<TenantName>>,
    /// Held while rules are read and put in force, so that older ones never come last.
    applying: tokio::sync::Mutex<()>,
    /// Which of the vault's changes is in force.
    applied: watch::Sender<u64>,
}

/// Why a policy was not put in force.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// It is not one, or the proxy cannot be told.
    #[error("the policy is refused, and the old one stays")]
    Refused(#[from] EgressError),
    /// The credentials' part is not to be had.
    #[error("the vault's part of the policy cannot be read, and the old policy stays")]
    Vault(#[from] Error),
}

impl EgressPolicy {
    /// For these tenants.
    pub fn new(way_out: WayOut, vault: Vault, source: VaultSource, tenants: Vec<TenantName>) -> Self {
        let (applying, applied) = (tokio::sync::Mutex::default(), watch::Sender::new(0));
        Self { way_out, vault, source: Arc::new(source), tenants: Mutex::new(tenants), applying, applied }
    }

    /// Takes what the vault has now.
    pub async fn apply(&self) -> Result<(), PolicyError> {
        let _applying = self.applying.lock().await;
        let rules = self.rules().await?;
        match &self.way_out {
            WayOut::Here(proxy) => drop(proxy.manage(rules)?),
            WayOut::There(proxy) => proxy.lend(&self.source, rules).await?,
        }
        Ok(())
    }

    /// From now on for these tenants.
    pub(crate) async fn serve(&self, tenants: Vec<TenantName>) -> Result<(), PolicyError> {
        {
            let mut served = self.lock();
            if tenants.iter().all(|tenant| served.contains(tenant)) {
                return Ok(());
            }
            *served = tenants;
        }
        self.apply().await
    }

    // The list is whole after any panic, so a poisoned lock is still good.
    fn lock(&self) -> MutexGuard<'_, Vec<TenantName>> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn rules(&self) -> Result<VaultRules, Error> {
        let mut rules = VaultRules::default();
        let tenants = self.lock().clone();
        for tenant in tenants {
            let credentials = self.vault.credential_rules(&tenant).await?;
            rules.credentials.push((tenant, credentials));
        }
        let endpoints = self.vault.token_endpoints().await?;
        rules.token_endpoints =
            endpoints.into_iter().map(|(host_port, tls)| Endpoint { host_port, tls }).collect();
        Ok(rules)
    }

    /// Follows the vault until told to stop: another server may have changed it. A proxy in another process may be gone, and come back.
    pub async fn follow(&self, stop: CancellationToken) {
        let mut changes = self.vault.changes();
        let mut told = None;
        loop {
            let count = *changes.borrow_and_update();
            let outcome = self.apply().await;
            let why = outcome.as_ref().err().map(|error| palisade_protocol::chain(error).to_string());
            // A proxy that stays away is told of once.
            match &why {
                Some(error) if told != why => tracing::error!(error, "the egress policy was not renewed"),
                None if told.is_some() => tracing::info!("the egress policy is in force"),
                _ => {}
            }
            told = why;
            self.applied.send_replace(count);
            let broke = async {
                match &self.way_out {
                    WayOut::Here(_) => std::future::pending().await,
                    WayOut::There(proxy) => proxy.lending_broke().await,
                }
                // At once, when it only was started again.
                if outcome.is_err() {
                    tokio::time::sleep(LEND_PAUSE).await;
                }
            };
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = broke => {}
                () = stop.cancelled() => return,
            }
        }
    }
}

impl EgressPolicy {
    /// Returns when every change of the vault until now is in force, or was found to be impossible; or after a while, for it will be.
    pub(crate) async fn caught_up(&self) {
        let wanted = *self.vault.changes().borrow();
        let mut applied = self.applied.subscribe();
        let _ = tokio::time::timeout(CATCH_UP_MAX, applied.wait_for(|count| *count >= wanted)).await;
    }
}

/// The vault as the proxy asks it. A proxy is there before the vault is open; until then it is sealed.
#[derive(Clone, Default)]
pub struct VaultSource(Arc<OnceLock<Vault>>);

impl VaultSource {
    /// From now on this vault is asked.
    pub fn open(&self, vault: Vault) {
        // There is one vault to a process.
        let _ = self.0.set(vault);
    }
}

fn told(fault: VaultFault) -> CredentialFault {
    match fault {
        VaultFault::Sealed => CredentialFault::Sealed,
        VaultFault::Missing => CredentialFault::Missing,
        VaultFault::Unavailable => CredentialFault::Unavailable,
    }
}

impl CredentialSource for VaultSource {
    fn secret(
        &self,
        tenant: &TenantName,
        name: &CredentialName,
    ) -> BoxFuture<'static, Result<SecretString, CredentialFault>> {
        let (vault, tenant, name) = (self.0.get().cloned(), tenant.clone(), name.clone());
        async move {
            let vault = vault.ok_or(CredentialFault::Sealed)?;
            vault.credential_secret(&tenant, &name).await.map_err(told)
        }
        .boxed()
    }

    fn known(
        &self,
        tenant: &TenantName,
        names: Vec<CredentialName>,
    ) -> BoxFuture<'static, Result<Secrets, CredentialFault>> {
        let (vault, tenant) = (self.0.get().cloned(), tenant.clone());
        async move {
            let vault = vault.ok_or(CredentialFault::Sealed)?;
            vault.known_secrets(&tenant, &names).await.map_err(told)
        }
        .boxed()
    }
}
