//! The keys that clients authenticate with, and the table that tells whose one is. A key is held only until it is hashed; what is
//! kept, compared and could ever be printed is its SHA-256.

use std::collections::HashMap;

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use palisade_protocol::TenantName;
use secrecy::{ExposeSecret, SecretString};

use crate::{NoRandomness, random_hex};

/// A new key of a tenant: `pk_<tenant>_<48 hex>`.
pub fn new_key(tenant: &TenantName) -> Result<SecretString, NoRandomness> {
    Ok(format!("pk_{tenant}_{}", random_hex::<24>()?).into())
}

/// Who a key belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The tenant.
    pub tenant: TenantName,
    /// Which of the tenant's tokens it was, by its configured id.
    pub token_id: String,
}

/// Why a key was not taken into the table.
#[derive(Debug, thiserror::Error)]
pub enum InvalidKey {
    /// Not in the contract's form.
    #[error("the key of token {token_id:?} must have the form pk_{tenant}_<at least 16 characters>")]
    Form {
        /// Whose.
        tenant: TenantName,
        /// Which.
        token_id: String,
    },
    /// Two tokens have the same key.
    #[error(
        "the token {0:?} of tenant {1} has the same key as another token; every token needs one of its own"
    )]
    Twice(String, TenantName),
}

/// Every key the server accepts, as hashes.
#[derive(Debug, Default, Clone)]
pub struct Keys {
    callers: HashMap<[u8; SHA256_OUTPUT_LEN], Caller>,
}

/// Longest key that is looked at, in bytes.
const KEY_BYTES_MAX: usize = 512;
/// Shortest secret part of a key, in bytes.
const SECRET_BYTES_MIN: usize = 16;

impl Keys {
    /// Adds one token of a tenant.
    pub fn add(&mut self, tenant: &TenantName, token_id: &str, key: &SecretString) -> Result<(), InvalidKey> {
        let key = key.expose_secret();
        let secret = key.strip_prefix(&format!("pk_{tenant}_")).unwrap_or("");
        if secret.len() < SECRET_BYTES_MIN || key.len() > KEY_BYTES_MAX {
            return Err(InvalidKey::Form { tenant: tenant.clone(), token_id: token_id.to_owned() });
        }
        let caller = Caller { tenant: tenant.clone(), token_id: token_id.to_owned() };
        match self.callers.insert(hash(key), caller) {
            None => Ok(()),
            Some(_) => Err(InvalidKey::Twice(token_id.to_owned(), tenant.clone())),
        }
    }

    /// The tokens, as `tenant.NAME.tokens.ID`, whose key is another one here than there, or is in one of the two alone.
    pub fn differing(&self, other: &Self) -> impl Iterator<Item = String> {
        let only_in = |some: &Self, others: &Self| {
            let lacking =
                some.callers.iter().filter(|(hash, caller)| others.callers.get(*hash) != Some(caller));
            lacking
                .map(|(_, caller)| format!("tenant.{}.tokens.{}", caller.tenant, caller.token_id))
                .collect()
        };
        let mut all: std::collections::BTreeSet<String> = only_in(self, other);
        all.append(&mut only_in(other, self));
        all.into_iter()
    }

    /// Whose key this is. The look-up is by hash, so its timing says nothing about any key.
    pub fn authenticate(&self, key: &str) -> Option<&Caller> {
        if key.len() > KEY_BYTES_MAX {
            return None;
        }
        self.callers.get(&hash(key))
    }
}

fn hash(key: &str) -> [u8; SHA256_OUTPUT_LEN] {
    let mut bytes = [0; SHA256_OUTPUT_LEN];
    bytes.copy_from_slice(digest(&SHA256, key.as_bytes()).as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantName {
        TenantName::parse(name).unwrap()
    }

    #[test]
    fn a_new_key_is_its_tenants_and_nobody_elses() {
        let mut keys = Keys::default();
        let (acme, other) = (new_key(&tenant("acme")).unwrap(), new_key(&tenant("other")).unwrap());
        keys.add(&tenant("acme"), "default", &acme).unwrap();
        assert_eq!(keys.authenticate(acme.expose_secret()).unwrap().tenant, tenant("acme"));
        assert_eq!(keys.authenticate(other.expose_secret()), None);
        assert_eq!(keys.authenticate(""), None);
        assert!(!format!("{keys:?}").contains(acme.expose_secret()));
    }

    #[test]
    fn weak_foreign_and_repeated_keys_are_refused() {
        let mut keys = Keys::default();
        for wrong in ["pk_acme_short", "pk_other_0123456789abcdef0123", "0123456789abcdef0123", ""] {
            assert!(keys.add(&tenant("acme"), "t", &wrong.to_owned().into()).is_err(), "{wrong}");
        }
        let key: SecretString = "pk_acme_0123456789abcdef0123".to_owned().into();
        keys.add(&tenant("acme"), "one", &key).unwrap();
        assert!(matches!(keys.add(&tenant("acme"), "two", &key), Err(InvalidKey::Twice(..))));
    }
}
