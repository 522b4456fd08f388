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
    let is_part_of_the_mark =
        b"[redacted:thing]".windows(secret.len().max(1)).any(|part| part == secret.as_bytes());
    if secret.len() >= 6 && !is_part_of_the_mark && !secret.contains('\u{1}') {
        let cleared = String::from_utf8_lossy(&in_pieces).replace("[redacted:thing]", "\u{1}");
        assert!(!cleared.contains(secret), "{secret:?} is still in {cleared:?}");
    }
}
