//! Typed ids in the contract's own formats (contract §1). An id is made from random bytes that the caller
//! supplies, because this crate has no source of randomness.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a text is not an id or a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a valid {1}")]
pub struct InvalidId(pub String, pub &'static str);

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $bytes:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schema(value_type = String)]
        pub struct $name(String);

        impl $name {
            /// The id that these random bytes spell.
            pub fn from_random(bytes: [u8; $bytes]) -> Self {
                use fmt::Write as _;
                let mut text = String::with_capacity($prefix.len() + 2 * $bytes);
                text.push_str($prefix);
                for byte in bytes {
                    // Writing to a String cannot fail.
                    let _ = write!(text, "{byte:02x}");
                }
                Self(text)
            }

            /// Accepts exactly the form that `from_random` makes.
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                let hex = text.strip_prefix($prefix).unwrap_or("");
                let valid = hex.len() == 2 * $bytes
                    && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
                if valid { Ok(Self(text.to_owned())) } else { Err(InvalidId(text.to_owned(), stringify!($name))) }
            }

            /// The id as it stands on the wire.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
    };
}

hex_id!(
    /// `sess_<12 hex>`: one agent with its own conversation, scope and busy state.
    SessionId, "sess_", 6
);
hex_id!(
    /// `msg_<24 hex>`: one turn of a session.
    TurnId, "msg_", 12
);

/// A tenant's name: `[a-z0-9-]{1,40}` (decision 42). It is part of paths and keys, so nothing else is let in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TenantName(String);

impl TenantName {
    /// Checks the name's form.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        let valid = (1..=40).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidId(text.to_owned(), "tenant name ([a-z0-9-]{1,40})"))
        }
    }

    /// The name as configured.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for TenantName {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        Self::parse(&text)
    }
}

impl From<TenantName> for String {
    fn from(name: TenantName) -> String {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_the_contracts_form() {
        assert_eq!(
            SessionId::from_random([0xa8, 0x61, 0x18, 0xc0, 0x66, 0x88]).as_str(),
            "sess_a86118c06688"
        );
        assert!(SessionId::parse("sess_a86118c06688").is_ok());
        for wrong in
            ["", "sess_", "sess_A86118c06688", "msg_a86118c06688", "sess_a86118c066880", "sess_../../etc/p"]
        {
            assert!(SessionId::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn tenant_names_cannot_leave_a_folder() {
        assert!(TenantName::parse("acme-offline").is_ok());
        for wrong in ["", "..", "a/b", "Acme", "a_b", &"x".repeat(41)] {
            assert!(TenantName::parse(wrong).is_err(), "{wrong}");
        }
    }
}
