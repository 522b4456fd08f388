//! Who may call: the configured tokens, or the key of a first start. Root reads the former and never touches the
//! latter, because the folder it lies in belongs to the server's uid.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use palisade_protocol::TenantName;
use palisade_vault::Keys;
use secrecy::{ExposeSecret as _, SecretString};

use crate::config::Config;

/// The tenant of a server without a configuration (decision 31).
pub(crate) const DEFAULT_TENANT: &str = "default";

/// The table of keys, and what a person should be told of it.
pub(crate) struct Admission {
    pub(crate) keys: Keys,
    pub(crate) shown: Shown,
}

/// What the start says about keys.
pub(crate) enum Shown {
    New { key: SecretString, file: PathBuf },
    Kept { file: PathBuf },
    Configured,
}

impl Admission {
    /// Reads the configured tokens' secrets.
    pub(crate) fn read(config: &Config) -> Result<Self> {
        let mut keys = Keys::default();
        for tenant in &config.tenant {
            for token in &tenant.tokens {
                keys.add(&tenant.name, &token.id, &token.key.read()?)?;
            }
        }
        Ok(Self { keys, shown: Shown::Configured })
    }

    /// With no tenant configured: the key in `admin.key`, made if this is the first start. To be called once root is
    /// given up.
    pub(crate) fn complete(mut self, config: &Config) -> Result<Self> {
        if !config.tenant.is_empty() {
            return Ok(self);
        }
        let tenant = TenantName::parse(DEFAULT_TENANT)?;
        let file = config.data_dir.join("admin.key");
        let key = match std::fs::read_to_string(&file) {
            Ok(text) => {
                self.shown = Shown::Kept { file: file.clone() };
                text.trim().to_owned().into()
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let key = palisade_vault::new_key(&tenant)?;
                write_key(&file, &key)?;
                self.shown = Shown::New { key: key.clone(), file: file.clone() };
                key
            }
            Err(error) => return Err(error).with_context(|| format!("reading {}", file.display())),
        };
        self.keys.add(&tenant, "admin", &key).with_context(|| format!("the key in {}", file.display()))?;
        Ok(self)
    }
}

fn write_key(file: &Path, key: &SecretString) -> Result<()> {
    let writing = || format!("writing {}", file.display());
    let mut out = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .with_context(writing)?;
    writeln!(out, "{}", key.expose_secret()).with_context(writing)?;
    out.sync_all().with_context(writing)
}
