//! What is shown of the vault: names and rules, never a value.

use palisade_protocol::{CredentialName, Error, Injection, TenantName};

use super::{OAuthGrant, Vault};

/// A credential as anybody of its tenant may see it.
#[derive(Debug, Clone, PartialEq)]
pub struct CredentialInfo {
    /// Its name.
    pub name: CredentialName,
    /// What it is.
    pub kind: CredentialKind,
    /// Where it may go.
    pub allowed_hosts: Vec<String>,
    /// How it is attached.
    pub injection: Injection,
    /// The variable that shows commands its placeholder.
    pub env: Option<String>,
    /// Grows with every change, a renewed token included.
    pub version: i64,
    /// When it was first stored, Unix seconds.
    pub created_at: f64,
    /// When it was last stored by somebody.
    pub updated_at: f64,
    /// When its access token expires, where it has one.
    pub expires_at: Option<f64>,
}

/// What a credential is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialKind {
    /// A value that is attached as it is.
    Static,
    /// An access token is asked for.
    OAuth(OAuthGrant),
}

/// The vault as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultState {
    /// Whether this server has forgotten the keys.
    pub is_sealed: bool,
    /// `key` or `passphrase`.
    pub kind: String,
    /// Counts the keys there were.
    pub generation: i64,
    /// Whether one key is being replaced by another.
    pub is_rotating: bool,
}

impl Vault {
    /// A tenant's credentials by name, without their values.
    pub async fn list(&self, tenant: &TenantName) -> Result<Vec<CredentialInfo>, Error> {
        let credentials = self.credentials(tenant).await?;
        let info = |(name, credential): (CredentialName, super::Credential)| CredentialInfo {
            name,
            kind: credential
                .settings
                .oauth
                .map_or(CredentialKind::Static, |oauth| CredentialKind::OAuth(oauth.grant)),
            allowed_hosts: credential.settings.allowed_hosts,
            injection: credential.settings.injection,
            env: credential.settings.env,
            version: credential.version,
            created_at: credential.settings.created_at,
            updated_at: credential.settings.updated_at,
            expires_at: credential.settings.access.map(|access| access.expires_at),
        };
        Ok(credentials.into_iter().map(info).collect())
    }
}
