//! Which secrets must not come back in an answer: those of a credential now, whichever of them was attached, and those that it had not
//! long ago, for whoever gave them out may still take them. For the proxy alone.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use palisade_protocol::{CredentialName, TenantName};
use palisade_vault::{ExposeSecret as _, SecretString};

use super::Vault;
use super::fault::{Failure, VaultFault};
use super::opened::Opened;

/// How long what a vault was before is remembered: as long as most access tokens live.
const EARLIER_KEPT: Duration = Duration::from_secs(3600);
/// How many of a tenant's earlier versions.
const EARLIER_MAX: usize = 8;
/// Secrets that are looked for in one answer, and their bytes: the newest go first.
const KNOWN_MAX: usize = 64;
const KNOWN_BYTES_MAX: usize = 256 * 1024;

/// Vaults as they were before a change, sealed as they were. In memory only, and gone when the vault is sealed.
#[derive(Default)]
pub(super) struct Earlier {
    by_tenant: HashMap<TenantName, VecDeque<(Instant, Arc<Opened>)>>,
}

impl Earlier {
    pub(super) fn keep(&mut self, tenant: &TenantName, opened: Arc<Opened>) {
        let versions = self.by_tenant.entry(tenant.clone()).or_default();
        versions.retain(|(since, kept)| since.elapsed() < EARLIER_KEPT && kept.version != opened.version);
        versions.push_front((Instant::now(), opened));
        versions.truncate(EARLIER_MAX);
    }

    fn of(&self, tenant: &TenantName) -> Vec<Arc<Opened>> {
        let versions = self.by_tenant.get(tenant).into_iter().flatten();
        versions
            .filter(|(since, _)| since.elapsed() < EARLIER_KEPT)
            .map(|(_, opened)| opened.clone())
            .collect()
    }
}

impl Vault {
    /// All secrets of these credentials, as they are and as they were within the last hour. Nothing is renewed for this.
    pub async fn known_secrets(
        &self,
        tenant: &TenantName,
        names: &[CredentialName],
    ) -> Result<Vec<(CredentialName, SecretString)>, VaultFault> {
        self.known(tenant, names).await.map_err(|failure| {
            if failure.is_ours() {
                let error = palisade_protocol::chain(&failure);
                tracing::error!(%tenant, %error, "credentials cannot be opened");
            }
            failure.fault()
        })
    }

    async fn known(
        &self,
        tenant: &TenantName,
        names: &[CredentialName],
    ) -> Result<Vec<(CredentialName, SecretString)>, Failure> {
        let mut versions = vec![self.opened(tenant).await?];
        let cache = self.inner.cache.read().unwrap_or_else(PoisonError::into_inner);
        versions.extend(cache.earlier.of(tenant));
        drop(cache);
        let (mut known, mut bytes): (Vec<(CredentialName, SecretString)>, _) = (Vec::new(), 0);
        for opened in versions {
            for name in names.iter().filter(|name| opened.credentials.contains_key(*name)) {
                for secret in opened.secrets(tenant, name)?.into_values() {
                    let is_new = known.iter().all(|(_, it)| it.expose_secret() != secret.expose_secret());
                    bytes += secret.expose_secret().len();
                    if is_new && known.len() < KNOWN_MAX && bytes <= KNOWN_BYTES_MAX {
                        known.push((name.clone(), secret));
                    }
                }
            }
        }
        Ok(known)
    }
}
