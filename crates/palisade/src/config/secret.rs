//! Where a secret comes from: the configuration names it and never holds it.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use secrecy::SecretString;
use serde::Deserialize;

/// `env:NAME` or `file:PATH`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum SecretRef {
    Env(String),
    File(PathBuf),
}

impl TryFrom<String> for SecretRef {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("env", name)) if !name.is_empty() => Ok(Self::Env(name.to_owned())),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            Some(("vault", _)) => Err("the vault is not available yet: write env:NAME or file:PATH".into()),
            // What was written may be the secret itself, so it is not repeated.
            _ => Err("a secret is named, not written down: env:NAME or file:PATH".into()),
        }
    }
}

impl SecretRef {
    /// The secret itself, without the line end that editors leave.
    pub(crate) fn read(&self) -> Result<SecretString> {
        let text = match self {
            Self::Env(name) => {
                std::env::var(name).with_context(|| format!("the secret env:{name} is not set"))?
            }
            Self::File(path) => std::fs::read_to_string(path)
                .with_context(|| format!("the secret file:{} cannot be read", path.display()))?,
        };
        let secret = text.trim_end_matches(['\r', '\n']);
        if secret.is_empty() {
            bail!("the secret {self:?} is empty");
        }
        Ok(secret.to_owned().into())
    }
}
