//! What can go wrong with keys and sealed values. No variant holds a key, a value or what could not be opened.

use palisade_protocol::TenantName;

use crate::NoRandomness;

/// One variant per way to fail.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum VaultError {
    #[error(transparent)]
    Random(#[from] NoRandomness),
    #[error(
        "a vault key is 32 random bytes: a file of exactly 32 bytes, or 64 hex digits (openssl rand -hex 32)"
    )]
    KeyForm,
    #[error("a vault passphrase has at least {0} characters")]
    PassphraseShort(usize),
    /// Told by the check value, before anything is opened with it.
    #[error("this is not the key that the vault was sealed with")]
    WrongKey,
    /// A key where a passphrase is wanted, or the other way round.
    #[error("the vault was sealed with a {expected}, and this is a {given}")]
    WrongKind { expected: &'static str, given: &'static str },
    #[error("what is stored about the vault's key is not readable: {0}")]
    Record(&'static str),
    #[error("data key {version} of tenant {tenant} does not open: it was altered, or is another's")]
    Unwrap { tenant: TenantName, version: i64 },
    #[error("a sealed {what} of tenant {tenant} does not open: it was altered, or is another's")]
    Open { tenant: TenantName, what: &'static str },
    #[error("the vault of tenant {tenant} is not what was sealed: {why}")]
    Manifest { tenant: TenantName, why: &'static str },
    /// The library refused to seal; it says no more.
    #[error("the value could not be sealed")]
    Seal,
}
