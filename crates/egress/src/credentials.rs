//! The keys of upstreams by name. Must never print one or hand one out as text.

use std::collections::HashMap;

use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString};

use crate::EgressError;

/// Keys by the name that configuration gives them. `Debug` shows the names only.
#[derive(Default, Clone)]
pub struct Credentials {
    by_name: HashMap<String, SecretString>,
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

    /// The `Authorization` value for one call, marked sensitive so that no header dump shows it.
    pub(crate) fn bearer(&self, name: &str) -> Result<HeaderValue, EgressError> {
        let key =
            self.by_name.get(name).ok_or_else(|| EgressError::UnknownCredential { name: name.to_owned() })?;
        let mut value = HeaderValue::try_from(format!("Bearer {}", key.expose_secret()))
            .map_err(|_| EgressError::UnusableCredential { name: name.to_owned() })?;
        value.set_sensitive(true);
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_shown() {
        let mut credentials = Credentials::new();
        credentials.insert("local", "sk-very-secret".into());
        assert_eq!(format!("{credentials:?}"), r#"Credentials { names: ["local"], .. }"#);
        let header = credentials.bearer("local").expect("a key");
        assert_eq!(header.to_str().expect("text"), "Bearer sk-very-secret");
        assert!(!format!("{header:?}").contains("secret"), "{header:?}");
    }

    #[test]
    fn a_missing_and_an_unusable_key_are_told_apart_without_showing_it() {
        let mut credentials = Credentials::new();
        credentials.insert("broken", "sk-very\nsecret".into());
        let missing = credentials.bearer("other").expect_err("no such key");
        assert_eq!(missing.to_string(), r#"no credential is named "other""#);
        let broken = credentials.bearer("broken").expect_err("not a header");
        assert!(matches!(&broken, EgressError::UnusableCredential { name } if name == "broken"));
        assert!(!format!("{broken:?}").contains("secret"));
    }
}
