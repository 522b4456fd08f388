//! One tenant's credentials, checked: the manifest opened, every row found in it and none too many. What is in memory is sealed
//! still; a secret is opened when it is wanted.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use palisade_protocol::{CredentialName, TenantName};
use palisade_store::{Store, StoredCredential, TenantVault};
use palisade_vault::{DataKey, Field, Kek, Manifest, SecretString, VaultError};

use super::fault::Failure;
use super::settings::{Credential, digest};

/// Checked, and with the keys that open it.
pub(super) struct Opened {
    pub(super) version: i64,
    /// The version that is sealed under now; 0 where there is none yet.
    pub(super) data_key: i64,
    pub(super) credentials: BTreeMap<CredentialName, Credential>,
    keys: HashMap<i64, Arc<DataKey>>,
    manifest: Manifest,
}

impl Opened {
    pub(super) async fn load(store: &Store, kek: &Kek, tenant: &TenantName) -> Result<Self, Failure> {
        let stored = store.vault_of(tenant).await?;
        let mut keys = HashMap::new();
        for key in store.data_keys(tenant, kek.generation()).await? {
            keys.insert(key.version, Arc::new(kek.unwrap(tenant, key.version, &key.wrapped)?));
        }
        let found = manifest_of(&stored.credentials);
        let wrong = |why| VaultError::Manifest { tenant: tenant.clone(), why };
        let manifest = match (keys.get(&stored.data_key), stored.version) {
            (_, 0) if stored.credentials.is_empty() => Manifest::default(),
            (Some(key), _) => {
                let manifest = Manifest::open(key, stored.version, &stored.manifest)?;
                manifest.check(key, &found)?;
                manifest
            }
            (None, _) => return Err(wrong("its data key is missing").into()),
        };
        let TenantVault { version, data_key, credentials, .. } = stored;
        let read = |row: &StoredCredential| Ok((row.name.clone(), Credential::read(row)?));
        let credentials = credentials.iter().map(read).collect::<Result<_, Failure>>()?;
        Ok(Self { version, data_key, credentials, keys, manifest })
    }

    /// A secret in the clear.
    pub(super) fn secret(
        &self,
        tenant: &TenantName,
        name: &CredentialName,
        field: Field,
    ) -> Result<SecretString, Failure> {
        let credential = self.credentials.get(name).ok_or(Failure::Missing)?;
        let wrong = |why| VaultError::Manifest { tenant: tenant.clone(), why };
        let key = self.keys.get(&credential.data_key).ok_or_else(|| wrong("a data key is missing"))?;
        let sealed = credential.fields.get(&field).ok_or_else(|| wrong("a field is missing"))?;
        Ok(key.open(name, field, credential.version, sealed)?)
    }

    /// All secrets of a credential.
    pub(super) fn secrets(
        &self,
        tenant: &TenantName,
        name: &CredentialName,
    ) -> Result<BTreeMap<Field, SecretString>, Failure> {
        let credential = self.credentials.get(name).ok_or(Failure::Missing)?;
        let open = |field: &Field| Ok((*field, self.secret(tenant, name, *field)?));
        credential.fields.keys().map(open).collect()
    }

    /// The key that is sealed under now.
    pub(super) fn key(&self) -> Option<Arc<DataKey>> {
        self.keys.get(&self.data_key).cloned()
    }

    /// What the manifest is once these rows are put and those are gone.
    pub(super) fn manifest_with(&self, put: &[StoredCredential], delete: &[CredentialName]) -> Manifest {
        let mut manifest = self.manifest.clone();
        for name in delete {
            manifest.remove(name);
        }
        for row in put {
            manifest.insert(row.name.clone(), row.version, digest(row));
        }
        manifest
    }
}

fn manifest_of(rows: &[StoredCredential]) -> Manifest {
    let mut manifest = Manifest::default();
    for row in rows {
        manifest.insert(row.name.clone(), row.version, digest(row));
    }
    manifest
}
