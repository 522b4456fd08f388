//! The key encryption key: from a passphrase, or from 32 random bytes. It opens nothing but data keys. What is stored of it
//! ([`KekRecord`]) tells whether a key is the right one, and helps nobody to find it faster than by trying.

use std::fmt;
use std::num::NonZeroU32;

use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use aws_lc_rs::{constant_time, pbkdf2};
use palisade_protocol::TenantName;
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use crate::data_key::DataKey;
use crate::sealed::{KEY_BYTES, Sealer};
use crate::{VaultError, hex, random};

/// Rounds of PBKDF2-HMAC-SHA256 for a new passphrase.
const ITERATIONS: u32 = 600_000;
/// What a stored record may ask for; more would be a way to keep a server busy.
const ITERATIONS_MAX: u32 = 10_000_000;
/// The shortest passphrase, in characters.
const PASSPHRASE_CHARS_MIN: usize = 12;
const SALT_BYTES: usize = 16;

/// What an operator has.
#[derive(Clone)]
pub enum KeyMaterial {
    /// Random bytes.
    Key(Zeroizing<[u8; KEY_BYTES]>),
    /// Words, which are stretched.
    Passphrase(SecretString),
}

impl KeyMaterial {
    /// A new random key.
    pub fn generate() -> Result<Self, VaultError> {
        Ok(Self::Key(Zeroizing::new(random()?)))
    }

    /// A key as a file or a variable has it: 32 bytes as they are, or 64 hex digits.
    pub fn key(bytes: &[u8]) -> Result<Self, VaultError> {
        if let Ok(raw) = <[u8; KEY_BYTES]>::try_from(bytes) {
            return Ok(Self::Key(Zeroizing::new(raw)));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| VaultError::KeyForm)?;
        let lower = Zeroizing::new(text.trim().to_ascii_lowercase());
        let read = Zeroizing::new(hex::decode(&lower).ok_or(VaultError::KeyForm)?);
        let raw = <[u8; KEY_BYTES]>::try_from(read.as_slice()).map_err(|_| VaultError::KeyForm)?;
        Ok(Self::Key(Zeroizing::new(raw)))
    }

    /// A passphrase that is not too short.
    pub fn passphrase(text: SecretString) -> Result<Self, VaultError> {
        match text.expose_secret().chars().count() {
            0..PASSPHRASE_CHARS_MIN => Err(VaultError::PassphraseShort(PASSPHRASE_CHARS_MIN)),
            _ => Ok(Self::Passphrase(text)),
        }
    }

    /// What was typed, read as a vault of this kind wants it.
    pub fn of_kind(kind: KekKind, text: &SecretString) -> Result<Self, VaultError> {
        match kind {
            KekKind::Key => Self::key(text.expose_secret().as_bytes()),
            KekKind::Passphrase => Self::passphrase(text.clone()),
        }
    }

    /// Which of the two it is.
    pub fn kind(&self) -> KekKind {
        match self {
            Self::Key(_) => KekKind::Key,
            Self::Passphrase(_) => KekKind::Passphrase,
        }
    }

    /// A random key as 64 hex digits, for a file; `None` for a passphrase, which nobody else needs to keep.
    pub fn to_hex(&self) -> Option<SecretString> {
        match self {
            Self::Key(bytes) => Some(hex::encode(bytes.as_slice()).into()),
            Self::Passphrase(_) => None,
        }
    }
}

impl fmt::Debug for KeyMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyMaterial({})", self.kind().name())
    }
}

/// What a key encryption key is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KekKind {
    /// Random bytes.
    Key,
    /// A stretched passphrase.
    Passphrase,
}

impl KekKind {
    /// As it is stored and shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Passphrase => "passphrase",
        }
    }

    /// The kind of this name.
    pub fn parse(name: &str) -> Result<Self, VaultError> {
        match name {
            "key" => Ok(Self::Key),
            "passphrase" => Ok(Self::Passphrase),
            _ => Err(VaultError::Record("its kind")),
        }
    }
}

/// What is stored of a key encryption key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KekRecord {
    /// The vault's own random name: what was sealed for another vault under the same key does not open here.
    pub vault: String,
    /// Counts on with every rotation.
    pub generation: i64,
    /// What it is made from.
    pub kind: KekKind,
    /// Hex; empty for a random key.
    pub salt: String,
    /// Rounds of stretching; 0 for a random key.
    pub iterations: u32,
    /// Tells the right key from a wrong one.
    pub check: String,
}

/// A key encryption key.
pub struct Kek {
    vault: String,
    generation: i64,
    sealer: Sealer,
}

impl Kek {
    /// The key that this material makes anew, with what is to be stored of it. Takes a while for a passphrase.
    pub fn create(
        material: &KeyMaterial,
        vault: &str,
        generation: i64,
    ) -> Result<(Self, KekRecord), VaultError> {
        let (salt, iterations) = match material.kind() {
            KekKind::Key => (String::new(), 0),
            KekKind::Passphrase => (hex::encode(&random::<SALT_BYTES>()?), ITERATIONS),
        };
        let (vault, kind) = (vault.to_owned(), material.kind());
        let mut record = KekRecord { vault, generation, kind, salt, iterations, check: String::new() };
        let (kek, check) = derive(material, &record)?;
        record.check = hex::encode(check.as_slice());
        Ok((kek, record))
    }

    /// The key that was stored as `record`, if this material is what it was made from. Takes a while for a passphrase.
    pub fn open(material: &KeyMaterial, record: &KekRecord) -> Result<Self, VaultError> {
        if material.kind() != record.kind {
            let (expected, given) = (record.kind.name(), material.kind().name());
            return Err(VaultError::WrongKind { expected, given });
        }
        let stored = hex::decode(&record.check).ok_or(VaultError::Record("its check value"))?;
        let (kek, check) = derive(material, record)?;
        constant_time::verify_slices_are_equal(check.as_slice(), &stored)
            .map_err(|_| VaultError::WrongKey)?;
        Ok(kek)
    }

    /// Which generation it is.
    pub fn generation(&self) -> i64 {
        self.generation
    }

    /// A new data key of a tenant, with what is to be stored of it.
    pub fn new_data_key(&self, tenant: &TenantName, version: i64) -> Result<(DataKey, String), VaultError> {
        let key = Zeroizing::new(random::<KEY_BYTES>()?);
        let wrapped = self.sealer.seal(&self.bound_to(tenant, version), key.as_slice());
        let data_key = DataKey::new(&self.vault, tenant, version, &key).ok_or(VaultError::Seal)?;
        Ok((data_key, wrapped.ok_or(VaultError::Seal)?))
    }

    /// The data key that was stored so.
    pub fn unwrap(&self, tenant: &TenantName, version: i64, wrapped: &str) -> Result<DataKey, VaultError> {
        let key = self.unwrapped(tenant, version, wrapped)?;
        DataKey::new(&self.vault, tenant, version, &key).ok_or(VaultError::Seal)
    }

    /// The same data key as it is to be stored under `next`.
    pub fn rewrap(
        &self,
        next: &Self,
        tenant: &TenantName,
        version: i64,
        wrapped: &str,
    ) -> Result<String, VaultError> {
        let key = self.unwrapped(tenant, version, wrapped)?;
        next.sealer.seal(&next.bound_to(tenant, version), key.as_slice()).ok_or(VaultError::Seal)
    }

    fn unwrapped(
        &self,
        tenant: &TenantName,
        version: i64,
        wrapped: &str,
    ) -> Result<Zeroizing<[u8; KEY_BYTES]>, VaultError> {
        let foreign = || VaultError::Unwrap { tenant: tenant.clone(), version };
        let opened = self.sealer.open(&self.bound_to(tenant, version), wrapped).ok_or_else(foreign)?;
        <[u8; KEY_BYTES]>::try_from(opened.as_slice()).map(Zeroizing::new).map_err(|_| foreign())
    }

    fn bound_to(&self, tenant: &TenantName, version: i64) -> String {
        format!("v1|{tenant}|{}|data-key|{version}|kek|{}", self.vault, self.generation)
    }
}

impl fmt::Debug for Kek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kek(generation {})", self.generation)
    }
}

/// 32 bytes out of an expansion.
struct KeyLength;

impl KeyType for KeyLength {
    fn len(&self) -> usize {
        KEY_BYTES
    }
}

/// The key, and the check value that a right one has. Both come from one root and neither tells the other.
fn derive(
    material: &KeyMaterial,
    record: &KekRecord,
) -> Result<(Kek, Zeroizing<[u8; KEY_BYTES]>), VaultError> {
    let root = match material {
        KeyMaterial::Key(bytes) => bytes.clone(),
        KeyMaterial::Passphrase(text) => stretched(text, record)?,
    };
    let root = Salt::new(HKDF_SHA256, record.vault.as_bytes()).extract(root.as_slice());
    let sealer = Sealer::new(&*expanded(&root, b"palisade vault v1 wrap")?).ok_or(VaultError::Seal)?;
    let check = expanded(&root, b"palisade vault v1 check")?;
    Ok((Kek { vault: record.vault.clone(), generation: record.generation, sealer }, check))
}

fn stretched(text: &SecretString, record: &KekRecord) -> Result<Zeroizing<[u8; KEY_BYTES]>, VaultError> {
    let is_bounded = (ITERATIONS..=ITERATIONS_MAX).contains(&record.iterations);
    let iterations = NonZeroU32::new(record.iterations).filter(|_| is_bounded);
    let iterations = iterations.ok_or(VaultError::Record("its iterations"))?;
    let salt = hex::decode(&record.salt).filter(|salt| salt.len() == SALT_BYTES);
    let salt = salt.ok_or(VaultError::Record("its salt"))?;
    let mut root = Zeroizing::new([0; KEY_BYTES]);
    let passphrase = text.expose_secret().as_bytes();
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, passphrase, root.as_mut_slice());
    Ok(root)
}

fn expanded(root: &Prk, info: &[u8]) -> Result<Zeroizing<[u8; KEY_BYTES]>, VaultError> {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    let info = [info];
    let expanded = root.expand(&info, KeyLength).and_then(|okm| okm.fill(key.as_mut_slice()));
    expanded.map(|()| key).map_err(|_| VaultError::Seal)
}
