//! Finding placeholders where they do not belong. A placeholder is worth nothing to anybody, so this catches mistakes and tells of
//! attempts; that a secret never goes there follows from where it is put.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use palisade_protocol::credential::PLACEHOLDER_PREFIX;
use percent_encoding::percent_decode_str;

use crate::http::head::Forward;

/// Whether something in the head of a request is, or hides, a placeholder.
pub(crate) fn mentions_placeholder(request: &Forward) -> bool {
    let in_path = contains(&percent_decode_str(&request.path).collect::<Vec<u8>>());
    let in_field = |(name, value): &(String, Vec<u8>)| {
        let basic = value.get(6..).filter(|_| value[..6].eq_ignore_ascii_case(b"basic "));
        let decoded = basic.and_then(|pair| BASE64_STANDARD.decode(pair.trim_ascii()).ok());
        contains(name.as_bytes()) || contains(value) || decoded.is_some_and(|pair| contains(&pair))
    };
    in_path || contains(request.path.as_bytes()) || request.fields.iter().any(in_field)
}

/// Looks through a body as it passes, whatever pieces it comes in.
#[derive(Debug, Default)]
pub(crate) struct PlaceholderScan {
    /// The end of what has passed, shorter than a placeholder's beginning.
    tail: Vec<u8>,
}

impl PlaceholderScan {
    /// Whether one has passed by now.
    pub(crate) fn finds(&mut self, bytes: &[u8]) -> bool {
        let keep = PLACEHOLDER_PREFIX.len() - 1;
        self.tail.extend_from_slice(&bytes[..bytes.len().min(keep)]);
        let found = contains(&self.tail) || contains(bytes);
        if bytes.len() > keep {
            self.tail.clear();
            self.tail.extend_from_slice(&bytes[bytes.len() - keep..]);
        } else {
            self.tail.drain(..self.tail.len().saturating_sub(keep));
        }
        found
    }
}

fn contains(bytes: &[u8]) -> bool {
    memchr::memmem::find(bytes, PLACEHOLDER_PREFIX.as_bytes()).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placeholder_is_found_in_whatever_pieces_it_comes() {
        let body = format!("{{\"a\":\"{PLACEHOLDER_PREFIX}0123\"}}");
        for cut in 0..body.len() {
            for second in cut..body.len() {
                let mut scan = PlaceholderScan::default();
                let pieces = [&body[..cut], &body[cut..second], &body[second..]];
                assert!(pieces.map(|piece| scan.finds(piece.as_bytes())).contains(&true), "{cut} {second}");
            }
        }
        let mut scan = PlaceholderScan::default();
        let harmless = PLACEHOLDER_PREFIX[..PLACEHOLDER_PREFIX.len() - 1].repeat(3);
        assert!(!harmless.bytes().any(|byte| scan.finds(&[byte])));
    }
}
