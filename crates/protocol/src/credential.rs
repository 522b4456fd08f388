//! What is said of a credential without saying it: its name, where it may go and how it is attached. The value itself has no type
//! here, so that nothing that can be printed, logged or answered ever holds one.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::InvalidId;

/// A credential's name within its tenant: `[a-z0-9][a-z0-9_-]{0,63}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String)]
pub struct CredentialName(String);

impl CredentialName {
    /// Checks the name's form.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let valid = (1..=64).contains(&text.len())
            && text.bytes().next().is_some_and(plain)
            && text.bytes().all(|b| plain(b) || matches!(b, b'_' | b'-'));
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidId(text.to_owned(), "credential name ([a-z0-9][a-z0-9_-]{0,63})"))
        }
    }

    /// The name as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CredentialName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for CredentialName {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        Self::parse(&text)
    }
}

impl From<CredentialName> for String {
    fn from(name: CredentialName) -> String {
        name.0
    }
}

/// Where in a request the value goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Injection {
    /// `Authorization: Bearer <value>`.
    Bearer,
    /// `Authorization: Basic <username:value>`.
    Basic {
        /// What stands before the colon; it may not have one itself.
        username: String,
    },
    /// A header field of its own, such as `X-Api-Key`.
    Header {
        /// The field's name.
        name: String,
    },
    /// A parameter of the query, such as `?key=`.
    Query {
        /// The parameter's name.
        name: String,
    },
}

/// A credential as everybody but the vault knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialRule {
    /// Its name.
    pub name: CredentialName,
    /// The hosts it may go to: `name`, `name:port` or `*.suffix`, over TLS and nothing else. Without a port: 443.
    pub allowed_hosts: Vec<String>,
    /// How it is attached.
    pub injection: Injection,
    /// The environment variable that shows commands its placeholder; none where no program asks for one.
    pub env: Option<String>,
    /// What stands for it inside a sandbox: worthless, and the same for as long as the credential has its name.
    pub placeholder: String,
}

/// What every placeholder begins with, so that one in a wrong place is known for what it is.
pub const PLACEHOLDER_PREFIX: &str = "palisade_credential_";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        for good in ["github", "a", "0-x_y", &"n".repeat(64)] {
            assert!(CredentialName::parse(good).is_ok(), "{good}");
        }
        for wrong in ["", "-a", "_a", "A", "a b", "a/b", "ä", &"n".repeat(65)] {
            assert!(CredentialName::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_injection_is_read_strictly() {
        let read = |text| serde_json::from_str::<Injection>(text).ok();
        assert_eq!(read(r#"{"type":"bearer"}"#), Some(Injection::Bearer));
        assert_eq!(read(r#"{"type":"query","name":"key"}"#), Some(Injection::Query { name: "key".into() }));
        assert_eq!(read(r#"{"type":"header"}"#), None);
        assert_eq!(read(r#"{"type":"basic","username":"x","password":"y"}"#), None);
    }
}
