//! The vault's key: found at the start, forgotten when the vault is sealed, followed when another server replaces it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use palisade_protocol::{Error, ErrorKind};
use palisade_store::{Store, StoreError, StoredKek};
use palisade_vault::{Kek, KekKind, KekRecord, KeyMaterial, SecretString, VaultError};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::fault::Failure;
use super::key_source::KeySourceError;
use super::known::Earlier;
use super::{Cache, Inner, Vault, VaultConfig, VaultState};

/// Why the vault cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum VaultStartError {
    /// The key is not there.
    #[error("the vault's key cannot be had")]
    Source(#[from] KeySourceError),
    /// The rows.
    #[error("the vault cannot be read")]
    Store(#[from] StoreError),
    /// It is another one.
    #[error(
        "the vault does not open; [vault] in the configuration has to name the key that it was sealed with"
    )]
    Key(#[source] VaultError),
    /// It was the right one before a rotation.
    #[error(
        "this key of the vault was replaced by a rotation; [vault] in the configuration has to name the new one"
    )]
    Replaced,
    /// A thread was lost.
    #[error("reading the vault's key broke off")]
    Broken,
}

impl From<VaultError> for VaultStartError {
    fn from(error: VaultError) -> Self {
        Self::Key(error)
    }
}

impl Vault {
    /// Opens the vault, and makes it when there is none. A sealed one stays sealed, and its key is not asked for.
    pub(crate) async fn open(
        store: Store,
        config: VaultConfig,
        tasks: TaskTracker,
    ) -> Result<Self, VaultStartError> {
        let VaultConfig { source, key, calls, loopback_token_urls } = config;
        let (changes, _) = watch::channel(0);
        let vault = Self {
            inner: Arc::new(Inner {
                store,
                source,
                calls,
                loopback_token_urls,
                kek: RwLock::default(),
                cache: RwLock::new(Cache::default()),
                epoch: AtomicU64::new(0),
                changes,
                renewals: super::renew::Renewals::default(),
                is_replacing_key: AtomicBool::new(false),
                rotating: tokio::sync::Mutex::default(),
                tasks,
            }),
        };
        let is_sealed = vault.inner.store.vault().await?.is_some_and(|head| head.is_sealed);
        match is_sealed {
            true => tracing::warn!("the vault is sealed; `palisade vault unseal` opens it"),
            false => {
                let materials = match key {
                    Some(key) => vec![key],
                    None => vault.read_source().await?,
                };
                vault.open_with(materials).await?;
            }
        }
        Ok(vault)
    }

    /// Whether it is sealed, and what its key is made from.
    pub async fn state(&self) -> Result<VaultState, Error> {
        let keks = self.inner.store.vault_keks().await?;
        let head = self.inner.store.vault().await?;
        let generation = head.map_or(0, |head| head.kek);
        let kind = keks.iter().find(|kek| kek.generation == generation).map(|kek| kek.kind.clone());
        let is_rotating = keks.len() > 1;
        Ok(VaultState {
            is_sealed: self.kek().is_none(),
            kind: kind.unwrap_or_default(),
            generation,
            is_rotating,
        })
    }

    /// Makes every server forget the keys until somebody unseals the vault, restarts included.
    pub async fn seal(&self) -> Result<(), Error> {
        self.inner.store.seal_vault(true).await?;
        self.drop_keys();
        tracing::warn!("the vault was sealed: nothing that needs a credential leaves");
        Ok(())
    }

    /// Opens it again: with the key where the configuration says it is, or with this one.
    pub async fn unseal(&self, given: Option<SecretString>) -> Result<(), Error> {
        let materials = match &given {
            None => self.read_source().await.map_err(refused)?,
            Some(text) => vec![self.typed(text).await?],
        };
        self.open_with(materials).await.map_err(refused)?;
        self.inner.store.seal_vault(false).await?;
        tracing::warn!("the vault was unsealed");
        Ok(())
    }

    /// The vault was sealed, unsealed, or given another key, here or elsewhere; does the same here.
    pub(crate) async fn heed_keys(&self) {
        let head = match self.inner.store.vault().await {
            Ok(Some(head)) => head,
            Ok(None) => return,
            Err(error) => {
                let error = palisade_protocol::chain(&error);
                tracing::warn!(%error, "whether the vault's key has changed is not known");
                return;
            }
        };
        let own = self.kek().map(|kek| kek.generation());
        if head.is_sealed {
            if own.is_some() {
                self.drop_keys();
            }
        } else if own != Some(head.kek) && !self.inner.is_replacing_key.load(Ordering::SeqCst) {
            let opened = match self.read_source().await {
                Ok(materials) => self.open_with(materials).await,
                Err(error) => Err(error),
            };
            if let Err(error) = opened {
                self.drop_keys();
                let error = palisade_protocol::chain(&error);
                tracing::error!(%error, "the vault has another key, which this server does not find; it is sealed here");
            }
            // Somebody may have sealed it while the key was read.
            if self.inner.store.vault().await.is_ok_and(|head| head.is_some_and(|head| head.is_sealed)) {
                self.drop_keys();
            }
        }
    }

    /// The key that was stored as the one in use, out of these.
    pub(super) async fn open_with(&self, materials: Vec<KeyMaterial>) -> Result<(), VaultStartError> {
        let store = &self.inner.store;
        let head = match store.vault().await? {
            Some(head) => head,
            None => {
                let first = materials.first().cloned().ok_or(VaultError::WrongKey)?;
                self.create(first).await?
            }
        };
        let keks = store.vault_keks().await?;
        let (name, in_use) = (head.name, head.kek);
        let kek = blocking(move || {
            let mut wrong = VaultError::WrongKey;
            for (stored, material) in
                keks.iter().flat_map(|stored| materials.iter().map(move |material| (stored, material)))
            {
                match Kek::open(material, &record(&name, stored)?) {
                    Ok(kek) if stored.generation == in_use => return Ok(kek),
                    // What was before, or what is to be and is not yet.
                    Ok(_) if stored.generation < in_use => return Err(VaultStartError::Replaced),
                    Ok(_) => {}
                    Err(error) if stored.generation == in_use => wrong = error,
                    Err(_) => {}
                }
            }
            Err(wrong.into())
        });
        self.use_kek(Arc::new(kek.await?));
        Ok(())
    }

    async fn create(&self, first: KeyMaterial) -> Result<palisade_store::VaultHead, VaultStartError> {
        let name = palisade_vault::random_hex::<16>().map_err(VaultError::from)?;
        let named = name.clone();
        let record = blocking(move || Ok(Kek::create(&first, &named, 1)?.1)).await?;
        self.inner.store.create_vault(&name, stored(&record)).await?;
        self.inner.store.vault().await?.ok_or(VaultStartError::Broken)
    }

    fn use_kek(&self, kek: Arc<Kek>) {
        self.hold(|held| *held = Some(kek));
    }

    /// As [`Vault::use_kek`], unless the vault was sealed meanwhile.
    pub(super) fn replace_kek(&self, kek: Arc<Kek>) {
        self.hold(|held| {
            if held.is_some() {
                *held = Some(kek);
            }
        });
    }

    fn drop_keys(&self) {
        self.hold(|held| *held = None);
    }

    /// Whatever was opened with another key goes with it.
    fn hold(&self, change: impl FnOnce(&mut Option<Arc<Kek>>)) {
        change(&mut self.inner.kek.write().unwrap_or_else(PoisonError::into_inner));
        self.inner.epoch.fetch_add(1, Ordering::SeqCst);
        self.cache_mut(|cache| {
            cache.opened.clear();
            cache.earlier = Earlier::default();
        });
        self.tell();
    }

    pub(super) async fn read_source(&self) -> Result<Vec<KeyMaterial>, VaultStartError> {
        let source = self.inner.source.clone();
        blocking(move || source.read().map_err(VaultStartError::from)).await
    }

    /// What a person gave, as this vault's kind of key.
    async fn typed(&self, text: &SecretString) -> Result<KeyMaterial, Error> {
        let kind = self.state().await?.kind;
        KekKind::parse(&kind)
            .and_then(|kind| KeyMaterial::of_kind(kind, text))
            .map_err(|error| refused(error.into()))
    }
}

/// Away from the executor: a passphrase is stretched for half a second.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VaultStartError> + Send + 'static,
) -> Result<T, VaultStartError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(VaultStartError::Broken))
}

/// To an operator, who may know what is wrong with a key.
pub(super) fn refused(error: VaultStartError) -> Error {
    match error {
        VaultStartError::Store(error) => Failure::Store(error).into(),
        VaultStartError::Broken => Error::bug(error),
        error => {
            let message = palisade_protocol::chain(&error).to_string();
            Error::new(ErrorKind::Conflict, "vault.wrong_key", message)
        }
    }
}

pub(super) fn stored(record: &KekRecord) -> StoredKek {
    StoredKek {
        generation: record.generation,
        kind: record.kind.name().to_owned(),
        salt: record.salt.clone(),
        iterations: i64::from(record.iterations),
        check: record.check.clone(),
    }
}

pub(super) fn record(vault: &str, stored: &StoredKek) -> Result<KekRecord, VaultError> {
    Ok(KekRecord {
        vault: vault.to_owned(),
        generation: stored.generation,
        kind: KekKind::parse(&stored.kind)?,
        salt: stored.salt.clone(),
        iterations: u32::try_from(stored.iterations).map_err(|_| VaultError::Record("its iterations"))?,
        check: stored.check.clone(),
    })
}
