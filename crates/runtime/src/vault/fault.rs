//! What can go wrong with a credential: three words for the door, the contract's errors for callers, the cause for the log.

use palisade_protocol::{Error, ErrorKind};
use palisade_store::StoreError;
use palisade_vault::VaultError;

/// Why a credential could not be had, in terms of what is answered: the request it was for never leaves without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VaultFault {
    /// The keys are not in memory.
    #[error("the vault is sealed")]
    Sealed,
    /// There is none of this name.
    #[error("there is no such credential")]
    Missing,
    /// It is there and cannot be used now.
    #[error("the credential cannot be had at the moment")]
    Unavailable,
}

/// The same with its cause.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("the vault is sealed")]
    Sealed,
    #[error("there is no such credential")]
    Missing,
    /// The token endpoint, which was asked not long ago; the log has why.
    #[error("the credential could not be renewed")]
    Renewal,
    #[error(transparent)]
    Vault(#[from] VaultError),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What a caller asked for is not taken.
    #[error(transparent)]
    Refused(#[from] Error),
}

impl Failure {
    pub(super) fn fault(&self) -> VaultFault {
        match self {
            Self::Sealed => VaultFault::Sealed,
            Self::Missing => VaultFault::Missing,
            _ => VaultFault::Unavailable,
        }
    }

    /// What was tampered with or is broken, and not only busy or asked for wrongly.
    pub(super) fn is_ours(&self) -> bool {
        matches!(self, Self::Vault(_) | Self::Store(_))
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Sealed => Error::new(
                ErrorKind::Unavailable,
                "vault.sealed",
                "the vault is sealed; an operator can unseal it (palisade vault unseal)",
            ),
            Failure::Missing => no_such_credential(),
            Failure::Renewal => {
                Error::new(ErrorKind::Unavailable, "vault.renewal", "the credential could not be renewed")
            }
            Failure::Vault(error) => {
                let message = "the vault's stored data is not what was sealed; nothing was done, and the log has the details";
                Error::new(ErrorKind::Bug, "vault.corrupt", message).caused_by(error)
            }
            Failure::Store(error) => error.into(),
            Failure::Refused(error) => error,
        }
    }
}

pub(super) fn no_such_credential() -> Error {
    Error::new(ErrorKind::NotFound, "vault.not_found", "there is no such credential")
}
