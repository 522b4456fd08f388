//! Unguessable bytes from the system, and SHA-256 as hex.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};

/// Random bytes from the system's generator could not be had.
#[derive(Debug, thiserror::Error)]
#[error("the system gave no random bytes")]
pub struct NoRandomness;

/// `N` bytes that nobody can guess.
pub fn random<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

/// `N` unguessable bytes as hex.
pub fn random_hex<const N: usize>() -> Result<String, NoRandomness> {
    let mut text = String::with_capacity(2 * N);
    for byte in random::<N>()? {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}

/// SHA-256 as hex: tells contents apart.
pub fn sha256_hex(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
