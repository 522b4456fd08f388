//! The vault: credentials of tenants, sealed in the store, opened for the door alone. It joins `vault`, which has the cryptography and
//! no rows, and `store`, which has the rows and cannot read them. Nothing here is ever shown to a session, and no operation gives a
//! secret back but [`Vault::credential_secret`] and [`Vault::known_secrets`], which are for the proxy.
//!
//! The keys are in memory while the vault is unsealed, secrets only while they are used. What is cached is what was checked: sealed
//! rows whose manifest was right.

mod change;
mod draft;
mod fault;
mod info;
mod key_source;
mod keys;
mod known;
mod opened;
mod renew;
mod rotate;
mod service;
mod settings;
mod token_endpoint;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use palisade_protocol::{CredentialName, CredentialRule, Error, TenantName};
use palisade_store::Store;
use palisade_vault::{Field, Kek, KeyMaterial, SecretString, VaultError};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

pub use draft::{CredentialDraft, OAuthDraft, SecretDraft};
pub use fault::VaultFault;
pub use info::{CredentialInfo, CredentialKind, VaultState};
pub use key_source::{KeySource, KeySourceError, ReadKey};
pub use keys::VaultStartError;
pub use service::{ANSWER_BYTES_MAX, FormPost, ServiceCalls, ServiceFault};
pub use settings::{ClientAuth, OAuthGrant};

use fault::Failure;
use opened::Opened;
use settings::Credential;

/// How often a tenant's credentials are loaded anew because keys or rows changed under the hand.
const LOADS_MAX: usize = 3;

/// What the vault is made of.
pub struct VaultConfig {
    /// Where its key is.
    pub source: KeySource,
    /// The key, where it was read already: before root was given up.
    pub key: Option<KeyMaterial>,
    /// The way to token endpoints.
    pub calls: Arc<dyn ServiceCalls>,
    /// Whether a token endpoint may be on this machine, and without TLS: for tests.
    pub loopback_token_urls: bool,
}

/// The vault of a running server: a handle that is cheap to clone.
#[derive(Clone)]
pub struct Vault {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    source: KeySource,
    calls: Arc<dyn ServiceCalls>,
    loopback_token_urls: bool,
    /// `None` while it is sealed.
    kek: RwLock<Option<Arc<Kek>>>,
    cache: RwLock<Cache>,
    /// Counts everything that makes the cache stale, so that what was loaded before is not kept after.
    epoch: AtomicU64,
    changes: watch::Sender<u64>,
    renewals: renew::Renewals,
    /// This server is at it, and follows by itself.
    is_replacing_key: AtomicBool,
    /// One rotation at a time.
    rotating: tokio::sync::Mutex<()>,
    tasks: TaskTracker,
}

#[derive(Default)]
struct Cache {
    opened: HashMap<TenantName, Arc<Opened>>,
    /// What was opened before, for a while: it may still come back in an answer.
    earlier: known::Earlier,
    /// The latest version that was seen of each tenant: while this server lives it knows a whole vault that was put back.
    seen: HashMap<TenantName, i64>,
}

impl Vault {
    /// The secret that is to be attached now: the value, or an access token that has not expired. For the proxy alone.
    pub async fn credential_secret(
        &self,
        tenant: &TenantName,
        name: &CredentialName,
    ) -> Result<SecretString, VaultFault> {
        let told = |failure: Failure| {
            if failure.is_ours() {
                let error = palisade_protocol::chain(&failure);
                tracing::error!(%tenant, credential = %name, %error, "a credential cannot be opened");
            }
            failure.fault()
        };
        self.secret(tenant, name).await.map_err(told)
    }

    async fn secret(&self, tenant: &TenantName, name: &CredentialName) -> Result<SecretString, Failure> {
        let opened = self.opened(tenant).await?;
        let credential = opened.credentials.get(name).ok_or(Failure::Missing)?;
        match credential.settings.oauth {
            None => opened.secret(tenant, name, Field::Value),
            Some(_) => self.access_token(tenant, name, &opened).await,
        }
    }

    /// What the policy has to know of a tenant's credentials. While the vault is sealed they are as they are stored: nothing can be
    /// attached then, and unsealing is a change.
    pub async fn credential_rules(&self, tenant: &TenantName) -> Result<Vec<CredentialRule>, Error> {
        let credentials = self.credentials(tenant).await?;
        Ok(credentials.iter().map(|(name, credential)| credential.rule(tenant, name)).collect())
    }

    /// `host:port` of every token endpoint that some credential names, and whether TLS is spoken there.
    pub async fn token_endpoints(&self) -> Result<Vec<(String, bool)>, Error> {
        let mut endpoints = std::collections::BTreeSet::new();
        for tenant in self.inner.store.tenants_of_vault().await? {
            for credential in self.credentials(&tenant).await?.into_values() {
                endpoints.extend(
                    credential.settings.oauth.and_then(|oauth| token_endpoint::endpoint(&oauth.token_url)),
                );
            }
        }
        Ok(endpoints.into_iter().collect())
    }

    /// Counts what rules, names or keys of anybody's credentials are: whoever waits for it builds the policy anew.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    /// Another server changed a tenant's credentials.
    pub(crate) fn heed_change(&self, tenant: &TenantName) {
        self.forget(tenant);
        self.tell();
    }

    /// Notices of other servers were lost: nothing that is cached counts.
    pub(crate) async fn heed_missed(&self) {
        self.inner.epoch.fetch_add(1, Ordering::SeqCst);
        self.cache_mut(|cache| {
            let all = std::mem::take(&mut cache.opened);
            all.into_iter().for_each(|(tenant, opened)| cache.earlier.keep(&tenant, opened));
        });
        self.heed_keys().await;
        self.tell();
    }

    /// A tenant's credentials: checked, or as they are stored while the vault is sealed.
    async fn credentials(
        &self,
        tenant: &TenantName,
    ) -> Result<BTreeMap<CredentialName, Credential>, Failure> {
        match self.opened(tenant).await {
            Ok(opened) => Ok(opened.credentials.clone()),
            Err(Failure::Sealed) => {
                let stored = self.inner.store.vault_of(tenant).await?.credentials;
                let read =
                    |row: palisade_store::StoredCredential| Ok((row.name.clone(), Credential::read(&row)?));
                stored.into_iter().map(read).collect()
            }
            Err(failure) => Err(failure),
        }
    }

    /// A tenant's credentials, checked once and kept until something changes.
    async fn opened(&self, tenant: &TenantName) -> Result<Arc<Opened>, Failure> {
        let mut last = Failure::Sealed;
        for _ in 0..LOADS_MAX {
            let kek = self.kek().ok_or(Failure::Sealed)?;
            if let Some(opened) = self.cached(tenant) {
                return Ok(opened);
            }
            let (epoch, seen) = (self.inner.epoch.load(Ordering::SeqCst), self.seen(tenant));
            match Opened::load(&self.inner.store, &kek, tenant).await {
                Ok(opened) => return self.keep(tenant, opened, epoch, seen),
                // Rows and keys are read one after the other, and may have been replaced in between.
                Err(failure @ Failure::Vault(_)) => {
                    self.heed_keys().await;
                    last = failure;
                }
                Err(failure) => return Err(failure),
            }
        }
        Err(last)
    }

    fn cached(&self, tenant: &TenantName) -> Option<Arc<Opened>> {
        let cache = self.inner.cache.read().unwrap_or_else(PoisonError::into_inner);
        cache.opened.get(tenant).cloned()
    }

    /// The latest version that anybody here has read.
    fn seen(&self, tenant: &TenantName) -> i64 {
        let cache = self.inner.cache.read().unwrap_or_else(PoisonError::into_inner);
        cache.seen.get(tenant).copied().unwrap_or_default()
    }

    /// `epoch` and `seen` are of before it was read: a version that somebody else has read meanwhile makes this one late and not wrong.
    fn keep(
        &self,
        tenant: &TenantName,
        opened: Opened,
        epoch: u64,
        seen: i64,
    ) -> Result<Arc<Opened>, Failure> {
        if opened.version < seen {
            let why = "all of it was put back to an older version";
            return Err(VaultError::Manifest { tenant: tenant.clone(), why }.into());
        }
        let opened = Arc::new(opened);
        self.cache_mut(|cache| {
            let latest = cache.seen.entry(tenant.clone()).or_default();
            if opened.version >= *latest {
                *latest = opened.version;
                if self.inner.epoch.load(Ordering::SeqCst) == epoch {
                    cache.opened.insert(tenant.clone(), opened.clone());
                }
            }
        });
        Ok(opened)
    }

    fn forget(&self, tenant: &TenantName) {
        // Before the entry goes: what was loaded until now is not put in its place.
        self.inner.epoch.fetch_add(1, Ordering::SeqCst);
        self.cache_mut(|cache| {
            if let Some(opened) = cache.opened.remove(tenant) {
                cache.earlier.keep(tenant, opened);
            }
        });
    }

    fn cache_mut<T>(&self, work: impl FnOnce(&mut Cache) -> T) -> T {
        work(&mut self.inner.cache.write().unwrap_or_else(PoisonError::into_inner))
    }

    fn kek(&self) -> Option<Arc<Kek>> {
        self.inner.kek.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn tell(&self) {
        self.inner.changes.send_modify(|count| *count += 1);
    }
}

/// Locks that a panic cannot leave half-written: what is held is replaced whole.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
