//! What rows a tenant's vault has, sealed as one: each credential's name, its version and a digest of everything stored of it. Who
//! can write the rows cannot write this, so an older version of a row, a row too many or one too few is seen. Who puts back all
//! rows of a tenant together, as a restored backup does, is seen only by whoever has seen a later version.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{Context, SHA256};
use palisade_protocol::CredentialName;

use crate::data_key::DataKey;
use crate::{VaultError, hex};

/// SHA-256 over all that is stored of a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowDigest(String);

impl RowDigest {
    /// Of these parts in this order; where one ends is part of it.
    pub fn of(parts: &[&str]) -> Self {
        let mut context = Context::new(&SHA256);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        Self(hex::encode(context.finish().as_ref()))
    }
}

/// Every credential of a tenant, without its content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    rows: BTreeMap<CredentialName, (i64, RowDigest)>,
}

impl Manifest {
    /// Adds a row, or replaces the one of this name.
    pub fn insert(&mut self, name: CredentialName, version: i64, digest: RowDigest) {
        self.rows.insert(name, (version, digest));
    }

    /// Takes a row out.
    pub fn remove(&mut self, name: &CredentialName) {
        self.rows.remove(name);
    }

    /// As it is to be stored.
    pub fn seal(&self, key: &DataKey, version: i64) -> Result<String, VaultError> {
        let line = |(name, (version, RowDigest(digest))): (&CredentialName, &(i64, RowDigest))| {
            format!("{name} {version} {digest}\n")
        };
        key.seal_manifest(version, &self.rows.iter().map(line).collect::<String>())
    }

    /// What was sealed as this version.
    pub fn open(key: &DataKey, version: i64, sealed: &str) -> Result<Self, VaultError> {
        let unreadable =
            || VaultError::Manifest { tenant: key.tenant().clone(), why: "its manifest is not readable" };
        let plain = key.open_manifest(version, sealed)?;
        let text = std::str::from_utf8(&plain).map_err(|_| unreadable())?;
        let row = |line: &str| {
            let mut words = line.split(' ');
            let name = CredentialName::parse(words.next()?).ok()?;
            let version = words.next()?.parse().ok()?;
            Some((name, version, RowDigest(words.next()?.to_owned())))
        };
        let mut manifest = Self::default();
        for line in text.lines() {
            let (name, version, digest) = row(line).ok_or_else(unreadable)?;
            manifest.insert(name, version, digest);
        }
        Ok(manifest)
    }

    /// Whether these rows are exactly the sealed ones.
    pub fn check(&self, key: &DataKey, found: &Self) -> Result<(), VaultError> {
        let wrong = |why| Err(VaultError::Manifest { tenant: key.tenant().clone(), why });
        for (name, (version, digest)) in &found.rows {
            match self.rows.get(name) {
                None => return wrong("a credential was put here by somebody else"),
                Some((sealed, _)) if version < sealed => return wrong("a credential is of an older version"),
                Some(sealed) if *sealed != (*version, digest.clone()) => {
                    return wrong("a credential was altered");
                }
                Some(_) => {}
            }
        }
        match found.rows.len() == self.rows.len() {
            true => Ok(()),
            false => wrong("a credential is missing"),
        }
    }
}
