//! What an answer goes through whose request carried a secret: its coding undone, the secrets taken out, and what is packed in it looked
//! into.

use super::{Scrubber, decode::Decoder, packed::Packed};

/// Why the rest of an answer cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WashFault {
    /// Its coding cannot be undone.
    Undecodable,
    /// A secret is in something packed, where it cannot be taken out.
    HoldsSecret,
}

/// See above.
#[derive(Debug)]
pub(crate) struct Wash {
    decoder: Decoder,
    scrubber: Scrubber,
    packed: Packed,
}

impl Wash {
    /// For an answer with these codings; `None` where they are not understood, and then nothing of it can go on. `content_type` says
    /// what may be in it where its first bytes do not.
    pub(crate) fn new(codings: &[&[u8]], content_type: &[u8], scrubber: Scrubber) -> Option<Self> {
        let packed = Packed::new(content_type, &scrubber);
        Some(Self { decoder: Decoder::of(codings)?, scrubber, packed })
    }

    /// Whether there was a coding: what goes on has another length then.
    pub(crate) fn undoes_a_coding(&self) -> bool {
        !matches!(self.decoder, Decoder::Identity)
    }

    /// A field of the head.
    pub(crate) fn field(&self, value: &[u8]) -> Vec<u8> {
        self.scrubber.whole(value)
    }

    /// What may go on now that these bytes have come.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<Vec<u8>, WashFault> {
        let plain = self.decoder.push(bytes).map_err(|_| WashFault::Undecodable)?;
        self.packed.push(&plain, &mut self.scrubber)
    }

    /// The rest, if the answer's coding came to its end.
    pub(crate) fn finish(&mut self) -> Result<Vec<u8>, WashFault> {
        let plain = self.decoder.finish().map_err(|_| WashFault::Undecodable)?;
        let mut clean = self.packed.push(&plain, &mut self.scrubber)?;
        clean.extend(self.packed.finish(&mut self.scrubber)?);
        Ok(clean)
    }
}
