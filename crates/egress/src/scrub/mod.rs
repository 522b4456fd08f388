//! Taking a secret out of what an upstream sends back, in every form in which it could be read again, whatever pieces it comes in.
//! What cannot be read for certain goes nowhere: whoever is given less than the whole sees a broken connection. Pure.

mod decode;
mod forms;

use std::io;

use aho_corasick::{AhoCorasick, MatchKind};
use palisade_protocol::CredentialName;
use secrecy::SecretString;

use decode::Decoder;

/// Looks for one secret's forms in a stream of bytes.
pub struct Scrubber {
    forms: AhoCorasick,
    longest: usize,
    instead: Vec<u8>,
    /// What has come and may be the beginning of a form.
    held: Vec<u8>,
}

impl Scrubber {
    /// For the secret of this name. `None` where it is too short to be told from other text.
    pub fn new(name: &CredentialName, secret: &SecretString) -> Option<Self> {
        let forms = forms::of(secret);
        let longest = forms.iter().map(|form| form.len()).max()?;
        let forms = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(forms).ok()?;
        Some(Self { forms, longest, instead: format!("[redacted:{name}]").into_bytes(), held: Vec::new() })
    }

    /// What may go on now that these bytes have come.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(bytes);
        let mut clean = Vec::with_capacity(self.held.len());
        let mut at = 0;
        // A form that begins in the last bytes may go on in the next ones; one that is longer may begin before it.
        let undecided = self.held.len().saturating_sub(self.longest - 1);
        for found in self.forms.find_iter(&self.held) {
            if found.start() >= undecided {
                break;
            }
            clean.extend_from_slice(&self.held[at..found.start()]);
            clean.extend_from_slice(&self.instead);
            at = found.end();
        }
        if undecided > at {
            clean.extend_from_slice(&self.held[at..undecided]);
            at = undecided;
        }
        self.held.drain(..at);
        clean
    }

    /// The rest.
    pub fn finish(&mut self) -> Vec<u8> {
        let held = std::mem::take(&mut self.held);
        self.whole(&held)
    }

    /// Something that is all there, such as a header field.
    pub fn whole(&self, bytes: &[u8]) -> Vec<u8> {
        let mut clean = Vec::with_capacity(bytes.len());
        let mut at = 0;
        for found in self.forms.find_iter(bytes) {
            clean.extend_from_slice(&bytes[at..found.start()]);
            clean.extend_from_slice(&self.instead);
            at = found.end();
        }
        clean.extend_from_slice(&bytes[at..]);
        clean
    }
}

impl std::fmt::Debug for Scrubber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scrubber").finish_non_exhaustive()
    }
}

/// What an answer goes through whose request carried a secret: its coding undone, the secret taken out.
#[derive(Debug)]
pub(crate) struct Wash {
    decoder: Decoder,
    /// None for a secret that is too short to be looked for.
    scrubber: Option<Scrubber>,
}

impl Wash {
    /// For an answer with these codings; `None` where they are not understood, and then nothing of it can go on.
    pub(crate) fn new(codings: &[&[u8]], name: &CredentialName, secret: &SecretString) -> Option<Self> {
        Some(Self { decoder: Decoder::of(codings)?, scrubber: Scrubber::new(name, secret) })
    }

    /// A field of the head.
    pub(crate) fn field(&self, value: &[u8]) -> Vec<u8> {
        self.scrubber.as_ref().map_or_else(|| value.to_vec(), |scrubber| scrubber.whole(value))
    }

    /// What may go on now that these bytes have come.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let plain = self.decoder.push(bytes)?;
        Ok(self.clean(plain))
    }

    /// The rest, if the answer's coding came to its end.
    pub(crate) fn finish(&mut self) -> io::Result<Vec<u8>> {
        let plain = self.decoder.finish()?;
        let mut clean = self.clean(plain);
        clean.extend(self.scrubber.as_mut().map(Scrubber::finish).unwrap_or_default());
        Ok(clean)
    }

    fn clean(&mut self, plain: Vec<u8>) -> Vec<u8> {
        match &mut self.scrubber {
            Some(scrubber) => scrubber.push(&plain),
            None => plain,
        }
    }
}

#[cfg(test)]
mod tests;
