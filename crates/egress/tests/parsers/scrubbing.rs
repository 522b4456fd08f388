//! What must hold of an answer that is cleared of a secret, whatever it is and however it comes.

use palisade_egress::Scrubber;
use palisade_protocol::CredentialName;

/// Takes the bytes apart into a secret, what stands around it, and the pieces that it all comes in.
pub(crate) fn check(bytes: &[u8]) {
    let Some((lengths, text)) = bytes.split_at_checked(4) else { return };
    let secret_length = usize::from(lengths[0] % 64);
    let Some((secret, around)) = text.split_at_checked(secret_length) else { return };
    let Ok(secret) = std::str::from_utf8(secret) else { return };
    let name = CredentialName::parse("thing").expect("a name");
    let scrubber = || Scrubber::new(&name, &secret.to_owned().into());
    let Some(mut scrubber_of_pieces) = scrubber() else { return };
    let middle = around.len() / 2;
    let text = [&around[..middle], secret.as_bytes(), &around[middle..], secret.as_bytes()].concat();
    let piece = usize::from(lengths[1]).max(1);
    let mut in_pieces = Vec::new();
    for piece in text.chunks(piece) {
        in_pieces.extend(scrubber_of_pieces.push(piece));
    }
    in_pieces.extend(scrubber_of_pieces.finish());
    let whole = scrubber().expect("as before").whole(&text);
    assert_eq!(in_pieces, whole, "it does not matter what pieces it came in");
    // What was put in its place may make it anew only where it is a part of that.
    let is_part_of_the_mark = contains(MARK, secret.as_bytes());
    if secret.len() >= 6 && !is_part_of_the_mark && !secret.contains('\u{1}') {
        let cleared = without_marks(&in_pieces);
        assert!(!contains(&cleared, secret.as_bytes()), "{secret:?} is still in {}", cleared.escape_ascii());
    }
}

const MARK: &[u8] = b"[redacted:thing]";

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len().max(1)).any(|window| window == part)
}

/// With a byte in the place of each mark, so that what stands around one is not one text.
fn without_marks(mut text: &[u8]) -> Vec<u8> {
    let mut without = Vec::with_capacity(text.len());
    while let Some((first, rest)) = text.split_first() {
        match text.strip_prefix(MARK) {
            Some(behind) => {
                without.push(1);
                text = behind;
            }
            None => {
                without.push(*first);
                text = rest;
            }
        }
    }
    without
}
