//! `[store]`: where everything durable but the files is kept.

use anyhow::{Result, bail};
use palisade_runtime::StoreUrl;
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::value::StringDeserializer;
use serde::{Deserialize, Deserializer};

use super::SecretRef;

/// Without a `url` a file in the data directory, for one server.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct StoreSection {
    /// A PostgreSQL database that several servers share, each with the same data directory.
    url: Option<DatabaseUrl>,
}

/// `postgres://…`, or the name of a secret that holds one, since it may have a password.
#[derive(Debug)]
enum DatabaseUrl {
    Written(SecretString),
    Named(SecretRef),
}

impl<'de> Deserialize<'de> for DatabaseUrl {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        if is_postgres(&text) {
            return Ok(Self::Written(text.into()));
        }
        SecretRef::deserialize(StringDeserializer::new(text)).map(Self::Named).map_err(|_: D::Error| {
            serde::de::Error::custom(
                "a database is named by postgres://user@host/database, or by the secret that holds this: env:NAME or file:PATH",
            )
        })
    }
}

impl StoreSection {
    /// Whether other servers may use it, too.
    pub(crate) fn is_shared(&self) -> bool {
        self.url.is_some()
    }

    /// The secret that it names.
    pub(super) fn secret(&mut self) -> Option<&mut SecretRef> {
        match &mut self.url {
            Some(DatabaseUrl::Named(secret)) => Some(secret),
            _ => None,
        }
    }

    /// Reads the secret, where it is one.
    pub(crate) fn url(&self) -> Result<Option<StoreUrl>> {
        let text = match &self.url {
            None => return Ok(None),
            Some(DatabaseUrl::Written(text)) => text.clone(),
            Some(DatabaseUrl::Named(secret)) => secret.read()?,
        };
        if !is_postgres(text.expose_secret()) {
            bail!("the secret that [store] url names holds no postgres://user@host/database");
        }
        Ok(Some(StoreUrl::Postgres(text.expose_secret().to_owned())))
    }
}

fn is_postgres(text: &str) -> bool {
    ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme))
}
