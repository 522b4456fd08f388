//! Where credentials stand in requests, whoever's they are. What is not known here is passed on, so the lists err on the long side.

/// Fields that only ever hold a credential.
const FIELDS: &[&str] = &[
    "api-key",
    "apikey",
    "authorization",
    "deploy-token",
    "job-token",
    "ocp-apim-subscription-key",
    "private-token",
    "x-access-token",
    "x-amz-security-token",
    "x-api-key",
    "x-api-token",
    "x-auth-key",
    "x-auth-token",
    "x-functions-key",
    "x-goog-api-key",
    "x-goog-iam-authorization-token",
    "x-shopify-access-token",
    "x-token",
    "x-vault-token",
];
/// Fields that browsers and libraries send by themselves: taken out, and nobody is blamed.
const DROPPED: &[&str] = &["cookie", "cookie2"];
/// Parameters that hold a credential.
const PARAMETERS: &[&str] = &[
    "access_key",
    "access_token",
    "api-key",
    "api_key",
    "apikey",
    "auth",
    "auth_token",
    "client_secret",
    "key",
    "private_token",
    "secret",
    "subscription-key",
    "token",
];
/// Parameters of requests that are signed beforehand.
const SIGNED: &[&str] = &[
    "googleaccessid",
    "sig",
    "signature",
    "x-amz-credential",
    "x-amz-security-token",
    "x-amz-signature",
    "x-goog-credential",
    "x-goog-signature",
];
/// Schemes of `Authorization` that sign the request they stand in.
const SIGNATURES: &[&str] =
    &["aws4-", "aws ", "hmac", "signature ", "sharedkey", "goog4-", "hawk ", "digest "];

/// Whether two names are one field to a server that takes `_` and `.` for `-`.
pub(super) fn same(one: &str, other: &str) -> bool {
    spelled(one) == spelled(other)
}

pub(super) fn is_auth_field(name: &str) -> bool {
    let name = spelled(name);
    FIELDS.contains(&name.as_str()) || DROPPED.contains(&name.as_str())
}

pub(super) fn is_dropped_field(name: &str) -> bool {
    DROPPED.contains(&spelled(name).as_str())
}

pub(super) fn is_auth_parameter(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    PARAMETERS.contains(&name.as_str()) || SIGNED.contains(&name.as_str())
}

pub(super) fn is_signed_parameter(name: &str) -> bool {
    SIGNED.contains(&name.to_ascii_lowercase().as_str())
}

pub(super) fn is_signature(value: &[u8]) -> bool {
    let value = value.to_ascii_lowercase();
    SIGNATURES.iter().any(|scheme| value.starts_with(scheme.as_bytes()))
}

fn spelled(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect()
}
