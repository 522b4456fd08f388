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
    assert_eq!(whole.len(), text.len(), "nothing is longer or shorter");
    // Where the secret stood stands a mark. Characters that the mark leaves as they are would still be there.
    if secret.chars().count() >= 6 && !secret.contains(['\0', '\r', '\n']) {
        for at in occurrences(&text, secret.as_bytes()) {
            let instead = &whole[at..at + secret.len()];
            assert!(is_mark(instead), "{secret:?} became {}", instead.escape_ascii());
        }
    }
}

fn occurrences(text: &[u8], part: &[u8]) -> Vec<usize> {
    text.windows(part.len()).enumerate().filter(|(_, window)| *window == part).map(|(at, _)| at).collect()
}

/// Marks have asterisks behind them; two that touch follow each other. Zeros and line ends within another form stay.
fn is_mark(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| b"[redacted:thing]*\0\r\n".contains(byte))
}
