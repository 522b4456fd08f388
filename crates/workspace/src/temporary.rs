//! Names that only the server gives: unfinished uploads and folders set aside. They cannot be guessed, so
//! nobody can be waiting at one.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use crate::WorkspaceError;

/// How every unfinished upload's name begins. Such names are in no listing and no archive, and no client can
/// name one.
const PREFIX: &str = ".palisade-upload-";

/// A new name for an unfinished upload.
pub(crate) fn name() -> Result<OsString, WorkspaceError> {
    Ok(OsString::from(format!("{PREFIX}{}", random_hex()?)))
}

/// Whether a name is one of an unfinished upload.
pub(crate) fn is_temporary(name: &OsStr) -> bool {
    name.as_bytes().starts_with(PREFIX.as_bytes())
}

/// 128 random bits.
pub(crate) fn random_hex() -> Result<String, WorkspaceError> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| WorkspaceError::Randomness)?;
    Ok(hex(&bytes))
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|nibble| char::from(b"0123456789abcdef"[usize::from(nibble)]))
        .collect()
}
