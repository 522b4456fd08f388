//! What the egress proxy may let through, as two sources have it: the operator's configuration, and the vault, whose credentials say
//! where they may go. Whenever one of them changes, the whole is put together again; what is wrong changes nothing.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use palisade_egress::{CredentialFault, CredentialSource, EgressError, Endpoint, PolicySpec, Proxy, WayOut};
use palisade_protocol::{CredentialName, Error, TenantName};
use palisade_vault::SecretString;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::vault::{Vault, VaultFault};

/// How long a change of the vault's waits for its policy.
const CATCH_UP_MAX: Duration = Duration::from_secs(5);

/// The way out, and what is let through it.
pub struct EgressConfig {
    /// The proxy that everything leaves through.
    pub way_out: WayOut,
    /// What the operator lets through. Of no meaning where the proxy is in another process, which has a policy of its own.
    pub policy: PolicySpec,
    /// What the proxy asks for credentials; the vault is put behind it.
    pub vault: VaultSource,
}

/// The policy of a proxy in this process.
pub struct EgressPolicy {
    proxy: Proxy,
    vault: Vault,
    /// The operator's part. Held while the whole is put together, so that an older one never comes last.
    configured: tokio::sync::Mutex<PolicySpec>,
    /// Which of the vault's changes is in force.
    applied: watch::Sender<u64>,
}

/// Why a policy was not put in force.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// It is not one.
    #[error("the policy is refused, and the old one stays")]
    Refused(#[from] EgressError),
    /// The credentials' part is not to be had.
    #[error("the vault's part of the policy cannot be read, and the old policy stays")]
    Vault(#[from] Error),
}

impl EgressPolicy {
    /// For a proxy that has the operator's part already.
    pub fn new(proxy: Proxy, vault: Vault, configured: PolicySpec) -> Self {
        let (configured, applied) = (tokio::sync::Mutex::new(configured), watch::Sender::new(0));
        Self { proxy, vault, configured, applied }
    }

    /// Takes another operator's part; how many connections that ended comes back.
    pub async fn configure(&self, spec: PolicySpec) -> Result<usize, PolicyError> {
        let mut configured = self.configured.lock().await;
        let closed = self.proxy.reload(&self.whole(&spec).await?)?;
        *configured = spec;
        Ok(closed)
    }

    /// Takes what the vault has now.
    pub async fn apply(&self) -> Result<(), PolicyError> {
        let configured = self.configured.lock().await;
        let whole = self.whole(&configured).await?;
        self.proxy.reload(&whole)?;
        Ok(())
    }

    async fn whole(&self, configured: &PolicySpec) -> Result<PolicySpec, PolicyError> {
        let mut spec = configured.clone();
        for (tenant, its) in &mut spec.tenants {
            its.credentials = self.vault.credential_rules(tenant).await?;
        }
        let endpoints = self.vault.token_endpoints().await?;
        spec.tenant_services
            .extend(endpoints.into_iter().map(|(host_port, tls)| Endpoint { host_port, tls }));
        Ok(spec)
    }

    /// Follows the vault until told to stop: another server may have changed it.
    pub async fn follow(&self, stop: CancellationToken) {
        let mut changes = self.vault.changes();
        loop {
            let count = *changes.borrow_and_update();
            if let Err(error) = self.apply().await {
                tracing::error!(error = %palisade_protocol::chain(&error), "the egress policy was not renewed");
            }
            self.applied.send_replace(count);
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
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

impl CredentialSource for VaultSource {
    fn secret(
        &self,
        tenant: &TenantName,
        name: &CredentialName,
    ) -> BoxFuture<'static, Result<SecretString, CredentialFault>> {
        let (vault, tenant, name) = (self.0.get().cloned(), tenant.clone(), name.clone());
        async move {
            let vault = vault.ok_or(CredentialFault::Sealed)?;
            vault.credential_secret(&tenant, &name).await.map_err(|fault| match fault {
                VaultFault::Sealed => CredentialFault::Sealed,
                VaultFault::Missing => CredentialFault::Missing,
                VaultFault::Unavailable => CredentialFault::Unavailable,
            })
        }
        .boxed()
    }
}
