//! `[vault]`: the key that credentials are sealed with. It is named here and never written; without a name the server keeps a key file
//! in its data directory.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use palisade_runtime::{KeyMaterial, KeySource, KeySourceError};
use serde::Deserialize;

use super::SecretRef;

/// At most one of `key` and `passphrase`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct VaultSection {
    /// 32 random bytes: 64 hex digits, or a file of exactly 32 bytes.
    key: Option<SecretRef>,
    /// Words, which are stretched.
    passphrase: Option<SecretRef>,
    /// Whether an OAuth token endpoint may be on this machine, without TLS: for tests, and for nothing else.
    pub(crate) loopback_token_urls: bool,
}

impl VaultSection {
    pub(super) fn check(&self) -> Result<()> {
        if self.key.is_some() && self.passphrase.is_some() {
            bail!("[vault] names a key and a passphrase, and the vault has one of them");
        }
        Ok(())
    }

    /// The secrets that it names.
    pub(super) fn secrets(&mut self) -> impl Iterator<Item = &mut SecretRef> {
        self.key.iter_mut().chain(&mut self.passphrase)
    }

    /// How the named key is read; `None` where none is named.
    pub(crate) fn source(&self) -> Option<KeySource> {
        let (is_key, secret) = match (&self.key, &self.passphrase) {
            (Some(secret), _) => (true, secret.clone()),
            (None, Some(secret)) => (false, secret.clone()),
            (None, None) => return None,
        };
        let place = format!("the vault's {secret}");
        Some(KeySource::Named(Arc::new(move || {
            let read = if is_key { key(&secret) } else { passphrase(&secret) };
            read.map_err(|error| KeySourceError::Read { place: place.clone(), source: error.into() })
        })))
    }
}

fn key(secret: &SecretRef) -> Result<KeyMaterial> {
    match secret {
        SecretRef::Env(_) => Ok(KeyMaterial::of_kind(palisade_runtime::KekKind::Key, &secret.read()?)?),
        // May be no text at all.
        SecretRef::File(path) => {
            super::secret::warn_if_open(path);
            let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
            Ok(KeyMaterial::key(&bytes)?)
        }
    }
}

fn passphrase(secret: &SecretRef) -> Result<KeyMaterial> {
    Ok(KeyMaterial::passphrase(secret.read()?)?)
}
