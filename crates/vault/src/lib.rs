//! The only room that handles keys and secrets, and pure but for randomness: it reads no file, no row and no clock.
//!
//! Two things live here. The *tokens* that clients authenticate with are kept as hashes. The *vault* is three layers: a key
//! encryption key ([`Kek`]) made from what an operator has, data keys ([`DataKey`]) of each tenant wrapped by it, and values sealed
//! under those. Every layer is bound to its place by associated data, and a tenant's [`Manifest`] says which rows there are; so what
//! was swapped, cut, replayed or put here from somewhere else is an error, and never an empty or a wrong value. No type of this
//! crate prints a key or a value, and no error carries one.

mod data_key;
mod error;
mod hex;
mod kek;
mod manifest;
mod random;
mod sealed;
mod token;

#[cfg(test)]
mod tests;

pub use data_key::{DataKey, Field};
pub use error::VaultError;
pub use kek::{Kek, KekKind, KekRecord, KeyMaterial};
pub use manifest::{Manifest, RowDigest};
pub use random::{NoRandomness, random, random_hex, sha256_hex};
pub use secrecy::{ExposeSecret, SecretString};
pub use token::{Caller, InvalidKey, Keys, new_key};
