//! What is stored of a credential beside its secrets. It is readable, and sealed all the same: the tenant's manifest has its digest.

use std::collections::BTreeMap;

use palisade_protocol::credential::PLACEHOLDER_PREFIX;
use palisade_protocol::{CredentialName, CredentialRule, Injection, TenantName};
use palisade_store::{StoreError, StoredCredential};
use palisade_vault::{Field, RowDigest};
use serde::{Deserialize, Serialize};

/// How an access token is had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OAuthGrant {
    /// For a refresh token, which may be another one afterwards.
    RefreshToken,
    /// For the client's own secret.
    ClientCredentials,
}

impl OAuthGrant {
    /// As a token endpoint knows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::RefreshToken => "refresh_token",
            Self::ClientCredentials => "client_credentials",
        }
    }
}

/// How a client shows its secret to a token endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// `Authorization: Basic`, which every endpoint has to take (RFC 6749 §2.3.1).
    #[default]
    Basic,
    /// In the form, for endpoints that take nothing else.
    Post,
}

/// What is stored in the clear.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Settings {
    pub(super) allowed_hosts: Vec<String>,
    pub(super) injection: Injection,
    pub(super) env: Option<String>,
    pub(super) created_at: f64,
    pub(super) updated_at: f64,
    pub(super) oauth: Option<OAuthSettings>,
    /// Of the access token, where there is one.
    pub(super) access: Option<Access>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct OAuthSettings {
    pub(super) grant: OAuthGrant,
    pub(super) token_url: String,
    pub(super) client_id: String,
    pub(super) scope: Option<String>,
    pub(super) client_auth: ClientAuth,
}

/// Until when an access token may be used, and from when on another one is asked for; Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Access {
    pub(super) expires_at: f64,
    pub(super) renew_at: f64,
}

/// A stored credential, read.
#[derive(Debug, Clone)]
pub(super) struct Credential {
    pub(super) version: i64,
    pub(super) data_key: i64,
    pub(super) settings: Settings,
    pub(super) fields: BTreeMap<Field, String>,
}

impl Credential {
    pub(super) fn read(row: &StoredCredential) -> Result<Self, StoreError> {
        let settings = from_json("a credential's settings", &row.settings)?;
        let stored: BTreeMap<String, String> = from_json("a credential's fields", &row.fields)?;
        let fields =
            Field::ALL.into_iter().filter_map(|field| Some((field, stored.get(field.name())?.clone())));
        Ok(Self { version: row.version, data_key: row.data_key, settings, fields: fields.collect() })
    }

    pub(super) fn rule(&self, tenant: &TenantName, name: &CredentialName) -> CredentialRule {
        CredentialRule {
            name: name.clone(),
            allowed_hosts: self.settings.allowed_hosts.clone(),
            injection: self.settings.injection.clone(),
            env: self.settings.env.clone(),
            placeholder: placeholder(tenant, name),
        }
    }
}

/// The row of these parts.
pub(super) fn row(
    name: CredentialName,
    version: i64,
    data_key: i64,
    settings: &Settings,
    fields: &BTreeMap<Field, String>,
) -> Result<StoredCredential, StoreError> {
    let fields: BTreeMap<&str, &String> = fields.iter().map(|(field, text)| (field.name(), text)).collect();
    let (settings, fields) =
        (to_json("a credential's settings", settings)?, to_json("a credential's fields", &fields)?);
    Ok(StoredCredential { name, version, data_key, settings, fields })
}

/// Of everything that is in the row.
pub(super) fn digest(row: &StoredCredential) -> RowDigest {
    let (version, data_key) = (row.version.to_string(), row.data_key.to_string());
    RowDigest::of(&[row.name.as_str(), &version, &data_key, &row.settings, &row.fields])
}

/// What stands for a credential inside a sandbox.
fn placeholder(tenant: &TenantName, name: &CredentialName) -> String {
    let hash = palisade_vault::sha256_hex(format!("placeholder|{tenant}|{name}").as_bytes());
    format!("{PLACEHOLDER_PREFIX}{}", &hash[..32])
}

fn from_json<T: serde::de::DeserializeOwned>(what: &'static str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::Corrupt { what, source: error.into() })
}

fn to_json(what: &'static str, value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Corrupt { what, source: error.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placeholder_is_the_tenants_and_the_names() {
        let of = |tenant, name| {
            placeholder(&TenantName::parse(tenant).unwrap(), &CredentialName::parse(name).unwrap())
        };
        assert_eq!(of("acme", "github"), of("acme", "github"));
        assert_eq!(of("acme", "github").len(), PLACEHOLDER_PREFIX.len() + 32);
        assert!(of("acme", "github").starts_with(PLACEHOLDER_PREFIX));
        assert_ne!(of("acme", "github"), of("other", "github"));
        assert_ne!(of("acme", "github"), of("acme", "gitlab"));
    }
}
