//! Keys are replaced while the vault is used. What remains to be done is read from the rows before every step, and every step is one
//! transaction: kill the server at any point, and what was readable is readable, and the rest is done by whoever goes on.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use palisade_protocol::{CredentialName, Error, ErrorKind, TenantName};
use palisade_store::{StoreError, StoredDataKey, StoredKek};
use palisade_vault::{Kek, KekKind, KeyMaterial, SecretString, VaultError};

use super::change::{Edit, Put};
use super::fault::Failure;
use super::keys::{self, VaultStartError, blocking, record, refused};
use super::opened::Opened;
use super::{Vault, VaultState};

/// Data keys wrapped anew in one transaction.
const WRAP_BATCH: i64 = 64;
/// Credentials sealed anew in one transaction.
const RESEAL_BATCH: usize = 16;
/// Steps of one rotation; each wraps a batch, so this is a bound on tenants.
const STEPS_MAX: usize = 100_000;

/// A key on its way into use.
pub(super) struct Rotation {
    pub(super) material: KeyMaterial,
    /// Once it is entered, by this rotation or by one that was broken off.
    pub(super) next: Option<(StoredKek, Arc<Kek>)>,
}

impl Vault {
    /// Replaces the vault's key: by the one given, else by one of the server's own making where it keeps the key
    /// file, and by what is now where the configuration says otherwise. Every data key is
    /// wrapped anew; nothing is sealed anew.
    pub async fn rotate_key(
        &self,
        given: Option<(Option<KekKind>, SecretString)>,
    ) -> Result<VaultState, Error> {
        let material = match given {
            Some((kind, text)) => {
                let current = self.state().await?.kind;
                let kind = kind.map_or_else(|| KekKind::parse(&current), Ok);
                let read = kind.and_then(|kind| KeyMaterial::of_kind(kind, &text));
                self.check_is_new(read.map_err(|error| refused(error.into()))?).await?
            }
            None => self.stage().await?,
        };
        let rotating = self.inner.rotating.lock().await;
        self.inner.is_replacing_key.store(true, Ordering::SeqCst);
        let replaced = self.replace_key(material).await;
        self.inner.is_replacing_key.store(false, Ordering::SeqCst);
        drop(rotating);
        replaced?;
        let state = self.state().await?;
        tracing::warn!(generation = state.generation, "the vault's key was replaced");
        Ok(state)
    }

    async fn replace_key(&self, material: KeyMaterial) -> Result<(), Error> {
        let mut rotation = Rotation { material, next: None };
        for _ in 0..STEPS_MAX {
            if !self.advance(&mut rotation).await? {
                return Ok(());
            }
        }
        Err(Error::bug("the rotation of the vault's key does not end"))
    }

    /// Gives a tenant, or every one, a new data key, under which everything is sealed anew in the background. How many tenants.
    pub async fn rotate_data_keys(&self, tenant: Option<&TenantName>) -> Result<usize, Error> {
        let all = self.inner.store.tenants_of_vault().await?;
        let chosen: Vec<_> =
            all.into_iter().filter(|one| tenant.is_none_or(|tenant| tenant == one)).collect();
        for tenant in &chosen {
            self.change(tenant, |_| Ok((Edit { new_data_key: true, ..Edit::default() }, ()))).await?;
        }
        let vault = self.clone();
        self.inner.tasks.spawn(async move { vault.reseal().await });
        Ok(chosen.len())
    }

    /// Goes on with what an earlier process did not finish.
    pub(crate) async fn finish_rotations(&self) {
        let staged = {
            let source = self.inner.source.clone();
            blocking(move || Ok(source.staged()?.is_some())).await
        };
        let finished = match staged {
            Ok(true) => self.rotate_key(None).await.map(drop),
            Ok(false) => self.inner.store.retire_keks().await.map_err(Error::from),
            Err(error) => Err(refused(error)),
        };
        if let Err(error) = finished {
            let error = palisade_protocol::chain(&error);
            tracing::error!(%error, "a rotation of the vault's key was not finished; the vault works with the old one");
        }
        self.reseal().await;
    }

    /// One step towards the new key; false when nothing is left to do.
    pub(super) async fn advance(&self, rotation: &mut Rotation) -> Result<bool, Error> {
        let store = &self.inner.store;
        let current = self.kek().ok_or(Failure::Sealed)?;
        let head = store.vault().await?.ok_or(Failure::Sealed)?;
        let keks = store.vault_keks().await?;
        if head.kek != current.generation() {
            return Err(StoreError::VaultKeyChanged.into());
        }
        let Some((entered, next)) = &rotation.next else {
            return self.find_or_enter(rotation, &head.name, head.kek, &keks).await;
        };
        if next.generation() == head.kek {
            return self.put_in_place(keks.len() > 1).await;
        }
        let batch = store.data_keys_to_wrap(head.kek, next.generation(), WRAP_BATCH).await?;
        if !batch.is_empty() {
            let wrap = |key: &StoredDataKey| {
                let wrapped = current.rewrap(next, &key.tenant, key.version, &key.wrapped)?;
                Ok(StoredDataKey { kek: next.generation(), wrapped, ..key.clone() })
            };
            let wrapped = batch.iter().map(wrap).collect::<Result<_, VaultError>>().map_err(Failure::from)?;
            store.add_wrapped(entered, wrapped).await?;
        } else if store.switch_kek(head.kek, entered).await? {
            // The rows are switched; this server follows at once, and forgets what the old key had opened.
            self.replace_kek(next.clone());
        }
        Ok(true)
    }

    /// Whether the key was entered already: then it is gone on with. A key that was begun with and is another one is dropped.
    async fn find_or_enter(
        &self,
        rotation: &mut Rotation,
        vault: &str,
        in_use: i64,
        keks: &[StoredKek],
    ) -> Result<bool, Error> {
        let (material, vault, keks) = (rotation.material.clone(), vault.to_owned(), keks.to_vec());
        let latest = keks.first().map_or(in_use, |kek| kek.generation);
        let found = blocking(move || {
            for stored in keks.iter().filter(|stored| stored.generation >= in_use) {
                match Kek::open(&material, &record(&vault, stored)?) {
                    Ok(kek) => return Ok((stored.clone(), kek, true)),
                    Err(VaultError::WrongKey | VaultError::WrongKind { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            let (kek, made) = Kek::create(&material, &vault, latest + 1)?;
            Ok((keys::stored(&made), kek, false))
        });
        let (stored, kek, is_entered) = found.await.map_err(refused)?;
        if !is_entered {
            self.inner.store.enter_next_kek(stored.clone()).await?;
        }
        rotation.next = Some((stored, Arc::new(kek)));
        Ok(true)
    }

    /// The key file first, so that a start finds the key in use in any case; then the old key is worth nothing.
    async fn put_in_place(&self, is_old_left: bool) -> Result<bool, Error> {
        let source = self.inner.source.clone();
        blocking(move || Ok(source.promote()?)).await.map_err(refused)?;
        if is_old_left {
            self.inner.store.retire_keks().await?;
        }
        Ok(false)
    }

    /// The key that is to follow: of the server's own making, or what the configuration's place has now.
    async fn stage(&self) -> Result<KeyMaterial, Error> {
        if self.kek().is_none() {
            return Err(Failure::Sealed.into());
        }
        let source = self.inner.source.clone();
        let staged = blocking(move || Ok(source.stage()?)).await.map_err(refused)?;
        match staged {
            Some(staged) => Ok(staged),
            None => {
                let named = self.read_source().await.map_err(refused)?.into_iter().next();
                self.check_is_new(named.ok_or(Failure::Sealed)?).await
            }
        }
    }

    /// Refuses the key that is in use.
    async fn check_is_new(&self, material: KeyMaterial) -> Result<KeyMaterial, Error> {
        let head = self.inner.store.vault().await?.ok_or(Failure::Sealed)?;
        let keks = self.inner.store.vault_keks().await?;
        let in_use = keks.into_iter().find(|kek| kek.generation == head.kek);
        let tried = material.clone();
        let is_same = blocking(move || match in_use {
            Some(stored) => Ok(Kek::open(&tried, &record(&head.name, &stored)?).is_ok()),
            None => Err(VaultStartError::Key(VaultError::Record("the key in use"))),
        });
        match is_same.await.map_err(refused)? {
            true => Err(Error::new(
                ErrorKind::Conflict,
                "vault.key_in_use",
                "that is the key in use already: put the new one where the configuration says, or give it on standard input",
            )),
            false => Ok(material),
        }
    }

    /// Seals everything anew that is under an older data key of its tenant, a few rows at a time.
    pub(super) async fn reseal(&self) {
        let _one = self.inner.rotating.lock().await;
        let resealed = async {
            for tenant in self.inner.store.tenants_to_reseal().await? {
                while self.reseal_batch(&tenant).await? {}
            }
            Ok::<(), Failure>(())
        };
        if let Err(failure) = resealed.await {
            let error = palisade_protocol::chain(&failure);
            tracing::error!(%error, "not everything was sealed under the new data keys; `palisade vault rotate` goes on");
        }
    }

    /// One step: a few rows, or the removal of a data key that nothing is under any more; false when nothing is left.
    pub(super) async fn reseal_batch(&self, tenant: &TenantName) -> Result<bool, Failure> {
        let is_done = self.change_unless_done(tenant).await?;
        if is_done {
            self.inner.store.sweep_data_keys(tenant).await?;
            self.forget(tenant);
        }
        Ok(!is_done)
    }

    async fn change_unless_done(&self, tenant: &TenantName) -> Result<bool, Failure> {
        let old = |opened: &Opened| {
            let is_old = |(name, credential): (&CredentialName, &super::Credential)| {
                (credential.data_key != opened.data_key).then(|| name.clone())
            };
            opened.credentials.iter().filter_map(is_old).take(RESEAL_BATCH).collect::<Vec<_>>()
        };
        if old(&*self.opened(tenant).await?).is_empty() {
            return Ok(true);
        }
        self.change(tenant, |opened| {
            let put = |name: CredentialName| {
                let credential = opened.credentials.get(&name).ok_or(Failure::Missing)?;
                let (version, settings) = (Some(credential.version), credential.settings.clone());
                Ok(Put { secrets: opened.secrets(tenant, &name)?, name, version, settings })
            };
            let put = old(opened).into_iter().map(put).collect::<Result<_, Failure>>()?;
            Ok((Edit { put, ..Edit::default() }, false))
        })
        .await
    }
}
