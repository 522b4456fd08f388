//! Every change of the vault's rows, each one transaction: kill the server between two of them, and whatever could be read before
//! can be read after.

use palisade_protocol::{CredentialName, TenantName};

use super::{StoredCredential, StoredDataKey, StoredKek, VaultChange};
use crate::engine::{Connection, query};
use crate::write::writing;
use crate::{StoreError, ledger};

/// What the writer can be asked for.
#[derive(Debug)]
pub(crate) enum VaultWrite {
    Create { name: String, kek: StoredKek },
    Seal { is_sealed: bool },
    Change(VaultChange),
    SweepDataKeys { tenant: TenantName },
    EnterKek { kek: StoredKek },
    AddWrapped { next: StoredKek, keys: Vec<StoredDataKey> },
    SwitchKek { from: i64, next: StoredKek },
    RetireKeks,
    ClaimRenewal { tenant: TenantName, name: CredentialName, now: f64, until: f64 },
    ReleaseRenewal { tenant: TenantName, name: CredentialName },
}

/// The number is of what was changed.
pub(crate) async fn apply(db: &mut Connection, server: &str, write: &VaultWrite) -> Result<u64, StoreError> {
    // The ledgers' lock: a group holds writes of both kinds, and two locks could be waited for in a circle.
    ledger::lock(db).await?;
    match write {
        VaultWrite::Create { name, kek } => create(db, name, kek).await,
        VaultWrite::Seal { is_sealed } => {
            let seal = query("UPDATE vault SET is_sealed = $1 WHERE id = 1").bind(*is_sealed);
            seal.execute(db).await.map_err(writing("the vault"))
        }
        VaultWrite::Change(change) => self::change(db, change).await,
        VaultWrite::SweepDataKeys { tenant } => sweep_data_keys(db, tenant).await,
        VaultWrite::EnterKek { kek } => enter_next(db, kek).await,
        VaultWrite::AddWrapped { next, keys } => {
            check_next(db, next).await?;
            for key in keys {
                add_wrapped(db, key).await?;
            }
            Ok(keys.len() as u64)
        }
        VaultWrite::SwitchKek { from, next } => {
            check_next(db, next).await?;
            switch(db, *from, next.generation).await
        }
        VaultWrite::RetireKeks => retire(db).await,
        VaultWrite::ClaimRenewal { tenant, name, now, until } => {
            claim(db, server, tenant, name, *now, *until).await
        }
        VaultWrite::ReleaseRenewal { tenant, name } => {
            let release = query("DELETE FROM vault_renewal WHERE tenant = $1 AND name = $2 AND server = $3");
            let release = release.bind(tenant.as_str()).bind(name.as_str()).bind(server);
            release.execute(db).await.map_err(writing("a renewal"))
        }
    }
}

async fn create(db: &mut Connection, name: &str, kek: &StoredKek) -> Result<u64, StoreError> {
    let make = query(
        "INSERT INTO vault (id, name, kek, is_sealed) VALUES (1, $1, $2, $3) ON CONFLICT (id) DO NOTHING",
    );
    let made = make.bind(name).bind(kek.generation).bind(false).execute(&mut *db).await;
    match made.map_err(writing("the vault"))? {
        0 => Ok(0),
        _ => enter(db, kek).await,
    }
}

async fn enter(db: &mut Connection, kek: &StoredKek) -> Result<u64, StoreError> {
    let enter = query(
        "INSERT INTO vault_kek (generation, kind, salt, iterations, check_value) VALUES ($1, $2, $3, $4, $5)",
    );
    let enter = enter.bind(kek.generation).bind(&kek.kind).bind(&kek.salt).bind(kek.iterations);
    enter.bind(&kek.check).execute(db).await.map_err(writing("a key of the vault"))
}

/// What another key was to follow with goes, with what it wraps.
async fn enter_next(db: &mut Connection, kek: &StoredKek) -> Result<u64, StoreError> {
    let in_use = in_use(db).await?;
    if kek.generation <= in_use {
        return Err(StoreError::VaultKeyChanged);
    }
    for drop in [
        "DELETE FROM vault_data_key WHERE kek > (SELECT kek FROM vault WHERE id = 1)",
        "DELETE FROM vault_kek WHERE generation > (SELECT kek FROM vault WHERE id = 1)",
    ] {
        query(drop).execute(&mut *db).await.map_err(writing("a key of the vault"))?;
    }
    enter(db, kek).await
}

/// What one key has wrapped may not be taken for another's of the same number: it could be opened by nobody.
async fn check_next(db: &mut Connection, next: &StoredKek) -> Result<(), StoreError> {
    let entered = query("SELECT check_value FROM vault_kek WHERE generation = $1").bind(next.generation);
    let entered = entered.optional::<(String,)>(db).await.map_err(writing("a key of the vault"))?;
    match entered.is_some_and(|(check,)| check == next.check) {
        true => Ok(()),
        false => Err(StoreError::VaultKeyChanged),
    }
}

async fn in_use(db: &mut Connection) -> Result<i64, StoreError> {
    let in_use = query("SELECT kek FROM vault WHERE id = 1").one::<(i64,)>(db).await;
    Ok(in_use.map_err(writing("the vault"))?.0)
}

async fn change(db: &mut Connection, change: &VaultChange) -> Result<u64, StoreError> {
    let VaultChange { tenant, from_version, data_key, manifest, .. } = change;
    let head = match from_version {
        0 => query(
            "INSERT INTO vault_tenant (tenant, version, data_key, manifest) VALUES ($1, $2 + 1, $3, $4)
             ON CONFLICT (tenant) DO NOTHING",
        ),
        _ => query(
            "UPDATE vault_tenant SET version = $2 + 1, data_key = $3, manifest = $4
             WHERE tenant = $1 AND version = $2",
        ),
    };
    let head = head.bind(tenant.as_str()).bind(*from_version).bind(*data_key).bind(manifest);
    if head.execute(&mut *db).await.map_err(writing("a tenant's vault"))? == 0 {
        return Err(StoreError::VaultChanged(tenant.clone()));
    }
    if let Some(key) = &change.new_data_key {
        // Wrapped by a key that was replaced meanwhile it could be opened by nobody.
        if in_use(db).await? != key.kek {
            return Err(StoreError::VaultKeyChanged);
        }
        add_wrapped(db, key).await?;
    }
    for credential in &change.put {
        put(db, tenant, credential).await?;
    }
    for name in &change.delete {
        for table in [
            "DELETE FROM vault_credential WHERE tenant = $1 AND name = $2",
            "DELETE FROM vault_renewal WHERE tenant = $1 AND name = $2",
        ] {
            let delete = query(table).bind(tenant.as_str()).bind(name.as_str());
            delete.execute(&mut *db).await.map_err(writing("a credential"))?;
        }
    }
    Ok((change.put.len() + change.delete.len()) as u64)
}

async fn put(db: &mut Connection, tenant: &TenantName, new: &StoredCredential) -> Result<u64, StoreError> {
    let put = query(
        "INSERT INTO vault_credential (tenant, name, version, data_key, settings, fields)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (tenant, name) DO UPDATE SET version = excluded.version, data_key = excluded.data_key,
             settings = excluded.settings, fields = excluded.fields
         WHERE vault_credential.version <= excluded.version",
    );
    let put = put.bind(tenant.as_str()).bind(new.name.as_str()).bind(new.version).bind(new.data_key);
    match put.bind(&new.settings).bind(&new.fields).execute(db).await.map_err(writing("a credential"))? {
        // A version only grows, whoever asks.
        0 => Err(StoreError::VaultChanged(tenant.clone())),
        put => Ok(put),
    }
}

async fn add_wrapped(db: &mut Connection, key: &StoredDataKey) -> Result<u64, StoreError> {
    let add = query(
        "INSERT INTO vault_data_key (tenant, version, kek, wrapped) VALUES ($1, $2, $3, $4)
         ON CONFLICT (tenant, version, kek) DO UPDATE SET wrapped = excluded.wrapped",
    );
    let add = add.bind(key.tenant.as_str()).bind(key.version).bind(key.kek).bind(&key.wrapped);
    add.execute(db).await.map_err(writing("a data key"))
}

async fn sweep_data_keys(db: &mut Connection, tenant: &TenantName) -> Result<u64, StoreError> {
    let sweep = query(
        "DELETE FROM vault_data_key WHERE tenant = $1
           AND version < (SELECT data_key FROM vault_tenant WHERE tenant = $1)
           AND version NOT IN (SELECT data_key FROM vault_credential WHERE tenant = $1)",
    );
    sweep.bind(tenant.as_str()).execute(db).await.map_err(writing("data keys"))
}

async fn switch(db: &mut Connection, from: i64, to: i64) -> Result<u64, StoreError> {
    let missing = query(
        "SELECT COUNT(*) FROM vault_data_key WHERE kek = $1
           AND NOT EXISTS (SELECT 1 FROM vault_data_key AS other WHERE other.tenant = vault_data_key.tenant
               AND other.version = vault_data_key.version AND other.kek = $2)",
    );
    let missing = missing.bind(from).bind(to).one::<(i64,)>(&mut *db).await;
    if missing.map_err(writing("the vault"))?.0 > 0 {
        return Ok(0);
    }
    let switch = query(
        "UPDATE vault SET kek = $2 WHERE id = 1 AND kek = $1
           AND EXISTS (SELECT 1 FROM vault_kek WHERE generation = $2)",
    );
    match switch.bind(from).bind(to).execute(db).await.map_err(writing("the vault"))? {
        0 => Err(StoreError::VaultKeyChanged),
        switched => Ok(switched),
    }
}

async fn retire(db: &mut Connection) -> Result<u64, StoreError> {
    let mut retired = 0;
    for retire in [
        "DELETE FROM vault_data_key WHERE kek < (SELECT kek FROM vault WHERE id = 1)",
        "DELETE FROM vault_kek WHERE generation < (SELECT kek FROM vault WHERE id = 1)",
    ] {
        retired += query(retire).execute(&mut *db).await.map_err(writing("a key of the vault"))?;
    }
    Ok(retired)
}

async fn claim(
    db: &mut Connection,
    server: &str,
    tenant: &TenantName,
    name: &CredentialName,
    now: f64,
    until: f64,
) -> Result<u64, StoreError> {
    let claim = query(
        "INSERT INTO vault_renewal (tenant, name, server, until) VALUES ($1, $2, $3, $5)
         ON CONFLICT (tenant, name) DO UPDATE SET server = excluded.server, until = excluded.until
         WHERE vault_renewal.until < $4 OR vault_renewal.server = excluded.server
            OR NOT EXISTS (SELECT 1 FROM server WHERE server.id = vault_renewal.server)",
    );
    let claim = claim.bind(tenant.as_str()).bind(name.as_str()).bind(server).bind(now).bind(until);
    claim.execute(db).await.map_err(writing("a renewal"))
}
