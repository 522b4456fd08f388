//! Changes of a tenant's credentials: each is made from the latest version, sealed with a new manifest over all rows, and written in one
//! transaction that is refused when somebody else was faster. Then it is made again.

use std::collections::BTreeMap;

use palisade_protocol::{CredentialName, Error, ErrorKind, TenantName, limits};
use palisade_store::{StoreError, StoredCredential, StoredDataKey, VaultChange};
use palisade_vault::{DataKey, Field, SecretString};

use super::draft::{CredentialDraft, SecretDraft};
use super::fault::{Failure, no_such_credential};
use super::opened::Opened;
use super::settings::{self, OAuthSettings, Settings};
use super::{CredentialInfo, Vault};
use crate::clock::now;

/// How often a change is made anew because others were faster.
const CHANGES_MAX: usize = 50;

/// What is to be different.
#[derive(Default)]
pub(super) struct Edit {
    pub(super) put: Vec<Put>,
    pub(super) delete: Vec<CredentialName>,
    /// Seals under a new data key from here on.
    pub(super) new_data_key: bool,
}

/// A credential to be written.
pub(super) struct Put {
    pub(super) name: CredentialName,
    /// Stays as it is where only the key changes.
    pub(super) version: Option<i64>,
    pub(super) settings: Settings,
    pub(super) secrets: BTreeMap<Field, SecretString>,
}

impl Vault {
    /// Stores a credential, in place of the one of this name if there is one; whether it is new.
    pub async fn put(
        &self,
        tenant: &TenantName,
        name: &CredentialName,
        draft: CredentialDraft,
    ) -> Result<(CredentialInfo, bool), Error> {
        draft.check(self.inner.loopback_token_urls)?;
        let is_new = self.change(tenant, |opened| {
            let before = opened.credentials.get(name);
            check_room(opened, name, draft.env.as_deref())?;
            let put = put_of(name, &draft, before.map(|before| before.settings.created_at));
            Ok((Edit { put: vec![put], ..Edit::default() }, before.is_none()))
        });
        let is_new = is_new.await?;
        self.inner.renewals.forgive(tenant, name);
        self.tell();
        tracing::info!(%tenant, credential = %name, is_new, "a credential was stored");
        let stored = self.list(tenant).await?.into_iter().find(|credential| credential.name == *name);
        Ok((stored.ok_or_else(no_such_credential)?, is_new))
    }

    /// Removes a credential.
    pub async fn delete(&self, tenant: &TenantName, name: &CredentialName) -> Result<(), Error> {
        self.change(tenant, |opened| match opened.credentials.contains_key(name) {
            true => Ok((Edit { delete: vec![name.clone()], ..Edit::default() }, ())),
            false => Err(Failure::Missing),
        })
        .await?;
        self.inner.renewals.forgive(tenant, name);
        self.tell();
        tracing::info!(%tenant, credential = %name, "a credential was removed");
        Ok(())
    }

    /// Makes a change from the latest there is, until nobody else was faster. Tells nobody.
    pub(super) async fn change<T>(
        &self,
        tenant: &TenantName,
        edit: impl Fn(&Opened) -> Result<(Edit, T), Failure>,
    ) -> Result<T, Failure> {
        let mut lost = StoreError::VaultChanged(tenant.clone());
        for _ in 0..CHANGES_MAX {
            let opened = self.opened(tenant).await?;
            let (edit, result) = edit(&opened)?;
            let change = self.sealed(tenant, &opened, edit)?;
            let written = self.inner.store.change_vault(change).await;
            // Whatever became of it: what is cached may be stale now.
            self.forget(tenant);
            match written {
                Ok(()) => return Ok(result),
                Err(error @ StoreError::VaultChanged(_)) => lost = error,
                Err(error @ StoreError::VaultKeyChanged) => {
                    self.heed_keys().await;
                    lost = error;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(lost.into())
    }

    /// The rows of an edit, with the manifest that they make together with the others.
    fn sealed(&self, tenant: &TenantName, opened: &Opened, edit: Edit) -> Result<VaultChange, Failure> {
        let kek = self.kek().ok_or(Failure::Sealed)?;
        let version = opened.version + 1;
        let made;
        let (key, new_data_key): (&DataKey, Option<StoredDataKey>) = match opened.key() {
            Some(key) if !edit.new_data_key => {
                made = key;
                (&made, None)
            }
            _ => {
                let (key, wrapped) = kek.new_data_key(tenant, opened.data_key + 1)?;
                let (key_version, kek) = (key.version(), kek.generation());
                made = key.into();
                let tenant = tenant.clone();
                (&made, Some(StoredDataKey { tenant, version: key_version, kek, wrapped }))
            }
        };
        let put = edit.put.iter().map(|put| sealed_row(key, version, put)).collect::<Result<Vec<_>, _>>()?;
        let manifest = opened.manifest_with(&put, &edit.delete).seal(key, version)?;
        Ok(VaultChange {
            tenant: tenant.clone(),
            from_version: opened.version,
            data_key: key.version(),
            manifest,
            new_data_key,
            put,
            delete: edit.delete,
        })
    }
}

/// The tenant's own count is a credential's version, so that it grows beyond a delete.
fn sealed_row(key: &DataKey, version: i64, put: &Put) -> Result<StoredCredential, Failure> {
    let version = put.version.unwrap_or(version);
    let mut fields = BTreeMap::new();
    for (field, secret) in &put.secrets {
        fields.insert(*field, key.seal(&put.name, *field, version, secret)?);
    }
    Ok(settings::row(put.name.clone(), version, key.version(), &put.settings, &fields)?)
}

fn put_of(name: &CredentialName, draft: &CredentialDraft, created_at: Option<f64>) -> Put {
    let updated_at = now();
    let mut secrets = BTreeMap::new();
    let oauth = match &draft.secret {
        SecretDraft::Value(value) => {
            secrets.insert(Field::Value, value.clone());
            None
        }
        SecretDraft::OAuth(oauth) => {
            secrets.insert(Field::ClientSecret, oauth.client_secret.clone());
            secrets.extend(oauth.refresh_token.clone().map(|token| (Field::RefreshToken, token)));
            Some(OAuthSettings {
                grant: oauth.grant,
                token_url: oauth.token_url.clone(),
                client_id: oauth.client_id.clone(),
                scope: oauth.scope.clone(),
                client_auth: oauth.client_auth,
            })
        }
    };
    let settings = Settings {
        allowed_hosts: draft.allowed_hosts.clone(),
        injection: draft.injection.clone(),
        env: draft.env.clone(),
        created_at: created_at.unwrap_or(updated_at),
        updated_at,
        oauth,
        access: None,
    };
    Put { name: name.clone(), version: None, settings, secrets }
}

/// One more credential has room, and one variable shows one placeholder.
fn check_room(opened: &Opened, name: &CredentialName, env: Option<&str>) -> Result<(), Error> {
    let others = || opened.credentials.iter().filter(|(other, _)| *other != name);
    if others().count() >= limits::VAULT_CREDENTIALS_MAX {
        let message = format!(
            "there are {} credentials already, which is the limit; delete one",
            limits::VAULT_CREDENTIALS_MAX
        );
        return Err(Error::new(ErrorKind::LimitReached, "vault.limit", message));
    }
    match others().find(|(_, other)| env.is_some() && other.settings.env.as_deref() == env) {
        Some((other, _)) => {
            let message = format!("the credential {other} has this variable already");
            Err(Error::new(ErrorKind::Conflict, "vault.env_taken", message))
        }
        None => Ok(()),
    }
}
