//! The vault's rows: what is known of keys, wrapped data keys, sealed credentials. Nothing here can open one, and what is stored
//! together is read together.

mod write;

use palisade_protocol::{CredentialName, TenantName};

use crate::engine::{Readers, query};
use crate::read::{corrupt, reading};
use crate::write::Write;
use crate::{Store, StoreError};

pub(crate) use write::{VaultWrite, apply};

/// How often a tenant's vault is read again because somebody changed it in between.
const READS_MAX: usize = 20;
/// Credentials read of one tenant; the runtime allows fewer.
const CREDENTIALS_READ_MAX: i64 = 10_000;

/// The vault as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultHead {
    /// Its own random name.
    pub name: String,
    /// The generation of the key encryption key in use.
    pub kek: i64,
    /// Whether every server is to forget the keys.
    pub is_sealed: bool,
}

/// What is stored of a key encryption key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredKek {
    /// Which.
    pub generation: i64,
    /// What it is made from.
    pub kind: String,
    /// Empty where it is not stretched.
    pub salt: String,
    /// 0 where it is not stretched.
    pub iterations: i64,
    /// Tells a right key from a wrong one.
    pub check: String,
}

/// A tenant's data key, wrapped by one key encryption key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredDataKey {
    /// Whose.
    pub tenant: TenantName,
    /// Which of the tenant's.
    pub version: i64,
    /// By which key.
    pub kek: i64,
    /// The sealed key.
    pub wrapped: String,
}

/// A credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCredential {
    /// Its name.
    pub name: CredentialName,
    /// Grows with every change.
    pub version: i64,
    /// The version of the data key that its fields are sealed under.
    pub data_key: i64,
    /// What may be shown of it, in the runtime's own form.
    pub settings: String,
    /// What may not, sealed.
    pub fields: String,
}

/// All of one tenant's, as it was at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantVault {
    /// Grows with every change; 0 for a tenant that never had a credential.
    pub version: i64,
    /// The version of the data key that is sealed under now.
    pub data_key: i64,
    /// The seal over all credentials.
    pub manifest: String,
    /// By name.
    pub credentials: Vec<StoredCredential>,
}

/// A change of one tenant's credentials; all of it or nothing.
#[derive(Debug, Clone)]
pub struct VaultChange {
    /// Whose.
    pub tenant: TenantName,
    /// What it was made from; refused when that is not what is stored any more.
    pub from_version: i64,
    /// The data key that is sealed under from here on.
    pub data_key: i64,
    /// The new seal over all credentials, of the version after `from_version`.
    pub manifest: String,
    /// Where that data key is new.
    pub new_data_key: Option<StoredDataKey>,
    /// Made or replaced.
    pub put: Vec<StoredCredential>,
    /// Removed.
    pub delete: Vec<CredentialName>,
}

type CredentialRow = (String, i64, i64, String, String);
type DataKeyRow = (String, i64, i64, String);

impl Store {
    /// The vault, once there is one.
    pub async fn vault(&self) -> Result<Option<VaultHead>, StoreError> {
        let row = query("SELECT name, kek, is_sealed FROM vault WHERE id = 1");
        let row = row.optional::<(String, i64, bool)>(&self.readers).await.map_err(reading("the vault"))?;
        Ok(row.map(|(name, kek, is_sealed)| VaultHead { name, kek, is_sealed }))
    }

    /// What is known of key encryption keys, the latest first.
    pub async fn vault_keks(&self) -> Result<Vec<StoredKek>, StoreError> {
        let rows = query(
            "SELECT generation, kind, salt, iterations, check_value FROM vault_kek ORDER BY generation DESC LIMIT 100",
        );
        let rows = rows.all::<(i64, String, String, i64, String)>(&self.readers).await;
        let kek = |(generation, kind, salt, iterations, check)| StoredKek {
            generation,
            kind,
            salt,
            iterations,
            check,
        };
        Ok(rows.map_err(reading("the vault's keys"))?.into_iter().map(kek).collect())
    }

    /// A tenant's credentials.
    pub async fn vault_of(&self, tenant: &TenantName) -> Result<TenantVault, StoreError> {
        for _ in 0..READS_MAX {
            let before = head_of(&self.readers, tenant).await?;
            let rows = query(
                "SELECT name, version, data_key, settings, fields FROM vault_credential
                 WHERE tenant = $1 ORDER BY name LIMIT $2",
            );
            let rows = rows.bind(tenant.as_str()).bind(CREDENTIALS_READ_MAX);
            let rows = rows.all::<CredentialRow>(&self.readers).await.map_err(reading("credentials"))?;
            // Every change of a row changes the version with it: equal around the rows, they belong to it.
            if head_of(&self.readers, tenant).await? == before {
                let (version, data_key, manifest) = before.unwrap_or_default();
                let credentials = rows.into_iter().map(credential).collect::<Result<_, _>>()?;
                return Ok(TenantVault { version, data_key, manifest, credentials });
            }
        }
        Err(StoreError::VaultChanged(tenant.clone()))
    }

    /// A tenant's data keys as one key encryption key wraps them.
    pub async fn data_keys(&self, tenant: &TenantName, kek: i64) -> Result<Vec<StoredDataKey>, StoreError> {
        let rows = query(
            "SELECT tenant, version, kek, wrapped FROM vault_data_key
             WHERE tenant = $1 AND kek = $2 ORDER BY version LIMIT 1000",
        );
        let rows = rows.bind(tenant.as_str()).bind(kek).all::<DataKeyRow>(&self.readers).await;
        rows.map_err(reading("data keys"))?.into_iter().map(data_key).collect()
    }

    /// At most `limit` data keys that `from` wraps and `to` does not.
    pub async fn data_keys_to_wrap(
        &self,
        from: i64,
        to: i64,
        limit: i64,
    ) -> Result<Vec<StoredDataKey>, StoreError> {
        let rows = query(
            "SELECT tenant, version, kek, wrapped FROM vault_data_key
             WHERE kek = $1 AND NOT EXISTS (SELECT 1 FROM vault_data_key AS other
                 WHERE other.tenant = vault_data_key.tenant AND other.version = vault_data_key.version
                   AND other.kek = $2)
             ORDER BY tenant, version LIMIT $3",
        );
        let rows = rows.bind(from).bind(to).bind(limit).all::<DataKeyRow>(&self.readers).await;
        rows.map_err(reading("data keys"))?.into_iter().map(data_key).collect()
    }

    /// Tenants that have something sealed under an older data key, or an older data key left.
    pub async fn tenants_to_reseal(&self) -> Result<Vec<TenantName>, StoreError> {
        let rows = query(
            "SELECT tenant FROM vault_tenant
             WHERE EXISTS (SELECT 1 FROM vault_data_key WHERE vault_data_key.tenant = vault_tenant.tenant
                 AND vault_data_key.version < vault_tenant.data_key) ORDER BY tenant",
        );
        let rows = rows.all::<(String,)>(&self.readers).await.map_err(reading("tenants of the vault"))?;
        rows.into_iter().map(|(tenant,)| tenant_name(&tenant)).collect()
    }

    /// Tenants that ever had a credential.
    pub async fn tenants_of_vault(&self) -> Result<Vec<TenantName>, StoreError> {
        let rows = query("SELECT tenant FROM vault_tenant ORDER BY tenant");
        let rows = rows.all::<(String,)>(&self.readers).await.map_err(reading("tenants of the vault"))?;
        rows.into_iter().map(|(tenant,)| tenant_name(&tenant)).collect()
    }

    /// Makes the vault with its first key encryption key, if there is none yet: of several servers one does.
    pub async fn create_vault(&self, name: &str, kek: StoredKek) -> Result<(), StoreError> {
        self.write_vault(VaultWrite::Create { name: name.to_owned(), kek }).await.map(drop)
    }

    /// Tells every server to forget the keys, or that it may know them again.
    pub async fn seal_vault(&self, is_sealed: bool) -> Result<(), StoreError> {
        self.write_vault(VaultWrite::Seal { is_sealed }).await.map(drop)
    }

    /// Changes a tenant's credentials; [`StoreError::VaultChanged`] when they are not what the change was made from.
    pub async fn change_vault(&self, change: VaultChange) -> Result<(), StoreError> {
        self.write_vault(VaultWrite::Change(change)).await.map(drop)
    }

    /// Removes a tenant's data keys that nothing is sealed under any more.
    pub async fn sweep_data_keys(&self, tenant: &TenantName) -> Result<u64, StoreError> {
        self.write_vault(VaultWrite::SweepDataKeys { tenant: tenant.clone() }).await
    }

    /// Enters the key encryption key that is to follow the one in use, in place of another that was to.
    pub async fn enter_next_kek(&self, kek: StoredKek) -> Result<(), StoreError> {
        self.write_vault(VaultWrite::EnterKek { kek }).await.map(drop)
    }

    /// Adds data keys as the key encryption key that is to follow wraps them; [`StoreError::VaultKeyChanged`] when another one is.
    pub async fn add_wrapped(&self, next: &StoredKek, keys: Vec<StoredDataKey>) -> Result<(), StoreError> {
        self.write_vault(VaultWrite::AddWrapped { next: next.clone(), keys }).await.map(drop)
    }

    /// Takes `next` into use if it wraps every data key that `from` does; whether it did.
    pub async fn switch_kek(&self, from: i64, next: &StoredKek) -> Result<bool, StoreError> {
        Ok(self.write_vault(VaultWrite::SwitchKek { from, next: next.clone() }).await? > 0)
    }

    /// Removes what key encryption keys other than the one in use wrap, and what is known of them.
    pub async fn retire_keks(&self) -> Result<(), StoreError> {
        self.write_vault(VaultWrite::RetireKeks).await.map(drop)
    }

    /// Takes it upon this server to renew a credential until then (Unix seconds); false while another one does.
    pub async fn claim_renewal(
        &self,
        tenant: &TenantName,
        name: &CredentialName,
        now: f64,
        until: f64,
    ) -> Result<bool, StoreError> {
        let (tenant, name) = (tenant.clone(), name.clone());
        Ok(self.write_vault(VaultWrite::ClaimRenewal { tenant, name, now, until }).await? > 0)
    }

    /// Lets others renew it.
    pub async fn release_renewal(
        &self,
        tenant: &TenantName,
        name: &CredentialName,
    ) -> Result<(), StoreError> {
        let (tenant, name) = (tenant.clone(), name.clone());
        self.write_vault(VaultWrite::ReleaseRenewal { tenant, name }).await.map(drop)
    }

    async fn write_vault(&self, write: VaultWrite) -> Result<u64, StoreError> {
        self.writer.write(Write::Vault(Box::new(write))).await
    }
}

async fn head_of(readers: &Readers, tenant: &TenantName) -> Result<Option<(i64, i64, String)>, StoreError> {
    let head = query("SELECT version, data_key, manifest FROM vault_tenant WHERE tenant = $1");
    let head = head.bind(tenant.as_str()).optional::<(i64, i64, String)>(readers).await;
    head.map_err(reading("a tenant's vault"))
}

fn credential(
    (name, version, data_key, settings, fields): CredentialRow,
) -> Result<StoredCredential, StoreError> {
    let name = CredentialName::parse(&name).map_err(corrupt("a credential's name"))?;
    Ok(StoredCredential { name, version, data_key, settings, fields })
}

fn data_key((tenant, version, kek, wrapped): DataKeyRow) -> Result<StoredDataKey, StoreError> {
    Ok(StoredDataKey { tenant: tenant_name(&tenant)?, version, kek, wrapped })
}

fn tenant_name(text: &str) -> Result<TenantName, StoreError> {
    TenantName::parse(text).map_err(corrupt("a tenant's name"))
}
