//! The vault's key at the start: a named one is read while root still may (decision 29), the server's own file is touched only as the
//! server's user, because it lies in that user's folder.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use palisade_egress::{DoorLimits, Principal, WayOut};
use palisade_runtime::{KeyMaterial, KeySource, ProxyServiceCalls, VaultConfig};

use crate::config::Config;

/// The key file's name in the data directory.
const KEY_FILE: &str = "vault.key";

/// A named key, and the way to read it again.
pub(crate) struct VaultKey {
    named: Option<(KeySource, KeyMaterial)>,
}

impl VaultKey {
    /// Reads the key that the configuration names.
    pub(crate) fn read(config: &Config) -> Result<Self> {
        let Some(source) = config.vault.source() else { return Ok(Self { named: None }) };
        let material = source.read_named().context("the vault's key")?;
        Ok(Self { named: material.map(|material| (source, material)) })
    }

    /// What the runtime makes the vault of.
    pub(crate) async fn into_config(self, config: &Config, way_out: &WayOut) -> Result<VaultConfig> {
        let (source, key) = match self.named {
            Some((source, material)) => (source, Some(material)),
            None => (KeySource::Kept(config.data_dir.join(KEY_FILE)), None),
        };
        let door = way_out.door(Principal::Service, DoorLimits::default()).await?;
        let calls = Arc::new(ProxyServiceCalls::new(door));
        Ok(VaultConfig { source, key, calls, loopback_token_urls: config.vault.loopback_token_urls })
    }
}
