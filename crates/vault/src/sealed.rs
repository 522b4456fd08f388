//! AES-256-GCM under a random nonce, as text: `v1.<nonce><ciphertext and tag>` in hex. What it is bound to is given by
//! whoever calls; this file knows no names.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use zeroize::Zeroizing;

use crate::hex;

/// Bytes of a key of any layer.
pub(crate) const KEY_BYTES: usize = 32;

/// The only form there is; another one will have another prefix.
const FORM: &str = "v1.";

/// A key that seals and opens. The library clears it when it goes.
pub(crate) struct Sealer(RandomizedNonceKey);

impl Sealer {
    /// `None` where the library does not take the key.
    pub(crate) fn new(key: &[u8; KEY_BYTES]) -> Option<Self> {
        RandomizedNonceKey::new(&AES_256_GCM, key).ok().map(Self)
    }

    pub(crate) fn seal(&self, bound_to: &str, plain: &[u8]) -> Option<String> {
        // With room for the tag, so that no copy of the plain text is left behind by growing.
        let mut bytes = Vec::with_capacity(plain.len() + AES_256_GCM.tag_len());
        bytes.extend_from_slice(plain);
        let nonce = self.0.seal_in_place_append_tag(Aad::from(bound_to.as_bytes()), &mut bytes).ok()?;
        Some(format!("{FORM}{}{}", hex::encode(nonce.as_ref()), hex::encode(&bytes)))
    }

    /// `None` for whatever was not sealed by this key for this place.
    pub(crate) fn open(&self, bound_to: &str, sealed: &str) -> Option<Zeroizing<Vec<u8>>> {
        let bytes = hex::decode(sealed.strip_prefix(FORM)?)?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut plain = Zeroizing::new(sealed.to_vec());
        let opened = self.0.open_in_place(nonce, Aad::from(bound_to.as_bytes()), &mut plain).ok()?.len();
        plain.truncate(opened);
        Some(plain)
    }
}
