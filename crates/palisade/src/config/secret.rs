//! Where a secret comes from: the configuration names it and never holds it. What was written instead of a name may
//! be the secret itself, so no error here repeats it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use secrecy::SecretString;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// `env:NAME` or `file:PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SecretRef {
    Env(String),
    File(PathBuf),
}

impl<'de> Deserialize<'de> for SecretRef {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        /// Anything but a string is refused as a string is: a derived reader would quote it.
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Text(String),
            Other(serde::de::IgnoredAny),
        }
        let written = Written::deserialize(from)?;
        let named = match &written {
            Written::Text(text) => text.split_once(':'),
            Written::Other(_) => None,
        };
        match named {
            Some(("env", name)) if !name.is_empty() => Ok(Self::Env(name.to_owned())),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            Some(("vault", _)) => Err(D::Error::custom(
                "the vault holds no secrets of the configuration: write env:NAME or file:PATH",
            )),
            _ => Err(D::Error::custom("a secret is named, not written down: env:NAME or file:PATH")),
        }
    }
}

impl std::fmt::Display for SecretRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Env(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

impl SecretRef {
    /// A relative path is meant from the folder of the configuration that names it.
    pub(super) fn mean_from(&mut self, folder: &Path) {
        if let Self::File(path) = self {
            *path = folder.join(&*path);
        }
    }

    /// The secret itself, without the line end that editors leave.
    pub(crate) fn read(&self) -> Result<SecretString> {
        let text = match self {
            Self::Env(name) => {
                std::env::var(name).map_err(|error| match error {
                    std::env::VarError::NotPresent => {
                        anyhow::anyhow!("the secret env:{name} is not set; set {name} in the server's environment, or write file:PATH")
                    }
                    std::env::VarError::NotUnicode(_) => anyhow::anyhow!("the secret env:{name} is no text"),
                })?
            }
            Self::File(path) => {
                warn_if_open(path);
                std::fs::read_to_string(path)
                    .with_context(|| format!("the secret file:{} cannot be read", path.display()))?
            }
        };
        let secret = text.trim_end_matches(['\r', '\n']);
        if secret.is_empty() {
            bail!("the secret {self} is empty; put the key there");
        }
        if secret.trim() != secret {
            bail!("the secret {self} has white space around it, which no client could send");
        }
        Ok(secret.to_owned().into())
    }
}

/// A key that everybody on the machine may read is told of, and read: orchestrators mount secrets so, where nobody else is.
pub(super) fn warn_if_open(path: &Path) {
    const OTHERS: u32 = 0o007;
    let mode = std::fs::metadata(path).map_or(0, |found| found.permissions().mode());
    if mode & OTHERS != 0 {
        tracing::warn!(
            file = %path.display(),
            mode = format!("{:o}", mode & 0o7777),
            "EVERY USER OF THIS MACHINE MAY READ A SECRET: chmod 600 closes its file"
        );
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn a_line_end_is_not_the_secrets_and_other_white_space_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        let read = |text: &str| {
            std::fs::write(&file, text).unwrap();
            SecretRef::File(file.clone()).read()
        };
        assert_eq!(read("pk_a_1234\r\n").unwrap().expose_secret(), "pk_a_1234");
        for wrong in [" pk_a_1234\n", "pk_a_1234 \n", "\tpk_a_1234", "pk_a_1234 ", "\n"] {
            let error = format!("{:#}", read(wrong).unwrap_err());
            assert!(error.contains("key") && !error.contains("pk_a_1234"), "{wrong:?}: {error}");
        }
    }
}
