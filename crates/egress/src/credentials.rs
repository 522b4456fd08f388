//! Where secrets come from: the keys of upstreams, which configuration names, and the vault, which is asked for one at a time. Nothing
//! here prints one or hands one out but to the request that it belongs to.

use std::collections::HashMap;

use futures_util::future::BoxFuture;
use palisade_protocol::{CredentialName, id::TenantName};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::Reason;

/// Keys by the name that configuration gives them. `Debug` shows the names only.
#[derive(Default, Clone)]
pub struct Credentials {
    by_name: HashMap<String, SecretString>,
}

/// Secrets, each with the credential that it is part of.
pub type Secrets = Vec<(CredentialName, SecretString)>;

/// The vault, as the proxy sees it.
pub trait CredentialSource: Send + Sync {
    /// What this tenant's credential of this name is worth at the moment.
    fn secret(
        &self,
        tenant: &TenantName,
        name: &CredentialName,
    ) -> BoxFuture<'static, Result<SecretString, CredentialFault>>;

    /// Everything of these credentials that must not come back in an answer: what is attached, what it is renewed with, and what they were
    /// not long ago. Nobody is asked for a new token for this.
    fn known(
        &self,
        tenant: &TenantName,
        names: Vec<CredentialName>,
    ) -> BoxFuture<'static, Result<Secrets, CredentialFault>>;
}

/// Why a credential cannot be attached. The request goes nowhere then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialFault {
    /// The vault's key is not there.
    #[error("the vault is sealed")]
    Sealed,
    /// There is no such credential, or not any more.
    #[error("there is no such credential")]
    Missing,
    /// Its grant was refused, its endpoint or the store does not answer.
    #[error("the credential cannot be had now")]
    Unavailable,
}

/// A proxy without a vault has no credentials.
pub struct NoCredentials;

impl CredentialSource for NoCredentials {
    fn secret(
        &self,
        _: &TenantName,
        _: &CredentialName,
    ) -> BoxFuture<'static, Result<SecretString, CredentialFault>> {
        Box::pin(std::future::ready(Err(CredentialFault::Missing)))
    }

    fn known(
        &self,
        _: &TenantName,
        _: Vec<CredentialName>,
    ) -> BoxFuture<'static, Result<Secrets, CredentialFault>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
}

impl From<CredentialFault> for Reason {
    fn from(fault: CredentialFault) -> Self {
        match fault {
            CredentialFault::Sealed => Self::VaultSealed,
            CredentialFault::Missing => Self::CredentialMissing,
            CredentialFault::Unavailable => Self::CredentialUnavailable,
        }
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut names: Vec<&str> = self.by_name.keys().map(String::as_str).collect();
        names.sort_unstable();
        f.debug_struct("Credentials").field("names", &names).finish_non_exhaustive()
    }
}

impl Credentials {
    /// No keys.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps a key under a name; one already there is replaced.
    pub fn insert(&mut self, name: impl Into<String>, key: SecretString) {
        self.by_name.insert(name.into(), key);
    }

    /// The names that have another key here than there.
    pub(crate) fn differing(&self, other: &Self) -> Vec<String> {
        let key = |keys: &Self, name: &str| keys.by_name.get(name).map(|key| key.expose_secret().to_owned());
        let mut names: Vec<String> =
            self.by_name.keys().filter(|name| key(self, name) != key(other, name)).cloned().collect();
        names.sort_unstable();
        names
    }

    /// These keys, and of the others those that are not among them.
    pub(crate) fn over(mut self, others: &Self) -> Self {
        for (name, key) in &others.by_name {
            self.by_name.entry(name.clone()).or_insert_with(|| key.clone());
        }
        self
    }

    /// The `Authorization` field for one call.
    pub(crate) fn bearer(&self, name: &[u8]) -> Result<Vec<u8>, Reason> {
        let name = std::str::from_utf8(name).map_err(|_| Reason::CredentialMissing)?;
        let key = self.by_name.get(name).ok_or(Reason::CredentialMissing)?.expose_secret();
        let plain = !key.is_empty() && key.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if plain { Ok(format!("Bearer {key}").into_bytes()) } else { Err(Reason::CredentialUnusable) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_shown() {
        let mut credentials = Credentials::new();
        credentials.insert("local", "sk-very-secret".into());
        credentials.insert("broken", "sk-very\nsecret".into());
        assert_eq!(format!("{credentials:?}"), r#"Credentials { names: ["broken", "local"], .. }"#);
        assert_eq!(credentials.bearer(b"local"), Ok(b"Bearer sk-very-secret".to_vec()));
        assert_eq!(credentials.bearer(b"other"), Err(Reason::CredentialMissing));
        assert_eq!(credentials.bearer(b"broken"), Err(Reason::CredentialUnusable));
    }
}
