//! A tenant's data key seals the fields of its credentials and its manifest, each for one place. It never leaves memory but
//! wrapped, which [`crate::Kek`] does.

use std::fmt;

use palisade_protocol::{CredentialName, TenantName};
use secrecy::SecretString;
use zeroize::Zeroizing;

use crate::VaultError;
use crate::sealed::{KEY_BYTES, Sealer};

/// A sealed part of a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// What is attached, of a credential that has just that.
    Value,
    /// What the server shows a token endpoint as its own.
    ClientSecret,
    /// What a token endpoint takes for a new access token.
    RefreshToken,
    /// What is attached, of a credential that is renewed.
    AccessToken,
}

impl Field {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Value, Self::ClientSecret, Self::RefreshToken, Self::AccessToken];

    /// As it is stored, and as it stands in what a value is bound to.
    pub fn name(self) -> &'static str {
        match self {
            Self::Value => "value",
            Self::ClientSecret => "client_secret",
            Self::RefreshToken => "refresh_token",
            Self::AccessToken => "access_token",
        }
    }
}

/// One version of a tenant's data key.
pub struct DataKey {
    vault: String,
    tenant: TenantName,
    version: i64,
    sealer: Sealer,
}

impl DataKey {
    pub(crate) fn new(vault: &str, tenant: &TenantName, version: i64, key: &[u8; KEY_BYTES]) -> Option<Self> {
        let sealer = Sealer::new(key)?;
        Some(Self { vault: vault.to_owned(), tenant: tenant.clone(), version, sealer })
    }

    /// Which version it is.
    pub fn version(&self) -> i64 {
        self.version
    }

    /// Seals one field of one version of a credential.
    pub fn seal(
        &self,
        credential: &CredentialName,
        field: Field,
        version: i64,
        value: &SecretString,
    ) -> Result<String, VaultError> {
        use secrecy::ExposeSecret as _;
        let bound_to = self.bound_to(credential.as_str(), field.name(), version);
        self.sealer.seal(&bound_to, value.expose_secret().as_bytes()).ok_or(VaultError::Seal)
    }

    /// What was sealed for exactly this place; an error for everything else.
    pub fn open(
        &self,
        credential: &CredentialName,
        field: Field,
        version: i64,
        sealed: &str,
    ) -> Result<SecretString, VaultError> {
        let foreign = || VaultError::Open { tenant: self.tenant.clone(), what: field.name() };
        let bound_to = self.bound_to(credential.as_str(), field.name(), version);
        let plain = self.sealer.open(&bound_to, sealed).ok_or_else(foreign)?;
        // Nothing empty is ever sealed, so nothing empty is ever given out.
        let text = std::str::from_utf8(&plain).ok().filter(|text| !text.is_empty()).ok_or_else(foreign)?;
        Ok(text.into())
    }

    pub(crate) fn seal_manifest(&self, version: i64, text: &str) -> Result<String, VaultError> {
        let bound_to = self.bound_to("", "manifest", version);
        self.sealer.seal(&bound_to, text.as_bytes()).ok_or(VaultError::Seal)
    }

    pub(crate) fn open_manifest(&self, version: i64, sealed: &str) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        let foreign = || VaultError::Open { tenant: self.tenant.clone(), what: "manifest" };
        self.sealer.open(&self.bound_to("", "manifest", version), sealed).ok_or_else(foreign)
    }

    pub(crate) fn tenant(&self) -> &TenantName {
        &self.tenant
    }

    /// No part may hold a `|`: names are checked by their types, the vault's is hex, the rest are ours and numbers.
    fn bound_to(&self, secret: &str, field: &str, version: i64) -> String {
        format!("v1|{}|{}|{secret}|{field}|{version}|{}", self.tenant, self.vault, self.version)
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataKey({} {})", self.tenant, self.version)
    }
}
