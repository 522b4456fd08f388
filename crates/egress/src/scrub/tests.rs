//! An echo sends the secret back in whatever form, coding and pieces; it never arrives.

use std::io::Write as _;

use base64::{Engine as _, prelude::*};
use proptest::prelude::*;

use super::*;

const SECRET: &str = "sk-Live_0123/456+789=\"q\"";

fn scrubber(secret: &str) -> Scrubber {
    let name = CredentialName::parse("thing").expect("a name");
    Scrubber::new(&name, &secret.to_owned().into()).expect("long enough")
}

fn through(scrubber: &mut Scrubber, text: &[u8], pieces: &[usize]) -> Vec<u8> {
    let (mut clean, mut at) = (Vec::new(), 0);
    for &length in pieces {
        let end = text.len().min(at + length);
        clean.extend(scrubber.push(&text[at..end]));
        at = end;
    }
    clean.extend(scrubber.push(&text[at..]));
    clean.extend(scrubber.finish());
    clean
}

/// EG-I1: each form alone, cut at every byte.
#[test]
fn no_form_of_the_secret_passes() {
    let hex: String = SECRET.bytes().map(|byte| format!("{byte:02x}")).collect();
    let json = serde_json::to_string(SECRET).expect("JSON");
    let percent: String = SECRET
        .bytes()
        .map(|b| if b.is_ascii_alphanumeric() { (b as char).to_string() } else { format!("%{b:02X}") })
        .collect();
    let forms = [
        SECRET.to_owned(),
        hex.to_ascii_uppercase(),
        hex,
        json[1..json.len() - 1].to_owned(),
        percent
            .replace("%2F", "%2f")
            .replace("%2B", "%2b")
            .replace("%3D", "%3d")
            .replace("%5F", "%5f")
            .replace("%2D", "%2d"),
        percent,
    ];
    for form in forms {
        let text = format!("before {form} after");
        for cut in 0..text.len() {
            let clean = through(&mut scrubber(SECRET), text.as_bytes(), &[cut]);
            assert_eq!(
                String::from_utf8_lossy(&clean),
                "before [redacted:thing] after",
                "{form} cut at {cut}"
            );
        }
    }
}

/// EG-I1: base64 at its three places, in both alphabets. What shares a character with its neighbours may stay.
#[test]
fn base64_is_known_wherever_it_begins() {
    for place in 0..6 {
        let text = format!("{}{SECRET}{}", &"abcdef"[..place], "tail");
        for encoded in [BASE64_STANDARD.encode(&text), BASE64_URL_SAFE.encode(&text)] {
            let clean = through(&mut scrubber(SECRET), encoded.as_bytes(), &[7, 11]);
            let clean = String::from_utf8(clean).expect("text");
            assert!(clean.contains("[redacted:thing]"), "{clean}");
            assert!(clean.len() < "[redacted:thing]".len() + 20, "{clean}");
        }
    }
}

#[test]
fn short_secrets_are_not_looked_for() {
    let name = CredentialName::parse("thing").expect("a name");
    assert!(Scrubber::new(&name, &"abc".to_owned().into()).is_none_or(|it| it.whole(b"abc") == b"abc"));
}

fn coded(coding: &str, text: &[u8]) -> Vec<u8> {
    match coding {
        "gzip" => {
            let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            writer.write_all(text).and_then(|()| writer.finish()).expect("written")
        }
        "deflate" => {
            let mut writer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
            writer.write_all(text).and_then(|()| writer.finish()).expect("written")
        }
        "zstd" => zstd::encode_all(text, 3).expect("written"),
        _ => unreachable!(),
    }
}

#[test]
fn codings_are_undone_in_any_pieces_and_must_end() {
    let text = format!("{}{SECRET}{}", "x".repeat(5000), "y".repeat(5000)).into_bytes();
    for coding in ["gzip", "deflate", "zstd"] {
        let coded = coded(coding, &text);
        for size in [1, 7, 4096] {
            let mut decoder = Decoder::of(&[coding.as_bytes()]).expect("known");
            let mut plain = Vec::new();
            for piece in coded.chunks(size) {
                plain.extend(decoder.push(piece).expect("decoded"));
            }
            plain.extend(decoder.finish().expect("ended"));
            assert_eq!(plain, text, "{coding} in pieces of {size}");
        }
        for cut in [coded.len() / 2, coded.len() - 1] {
            let mut decoder = Decoder::of(&[coding.as_bytes()]).expect("known");
            let ended = decoder.push(&coded[..cut]).and_then(|_| decoder.finish());
            assert!(ended.is_err(), "{coding} cut at {cut} of {}", coded.len());
        }
        let mut garbage = Decoder::of(&[coding.as_bytes()]).expect("known");
        assert!(garbage.push(&[0xff; 64]).and_then(|_| garbage.finish()).is_err(), "{coding}");
    }
    assert!(Decoder::of(&[b"gzip, br"]).is_none() && Decoder::of(&[b"gzip", b"br"]).is_none());
    assert!(Decoder::of(&[b"compress"]).is_none());
}

/// The brotli form of a few bytes, stored: a head, a block of 5, an end.
#[test]
fn brotli_is_undone_and_must_end() {
    let coded = [&[0x0b, 0x02, 0x80][..], b"hello", &[0x03]].concat();
    let mut decoder = Decoder::of(&[b"br"]).expect("known");
    let mut plain = decoder.push(&coded).expect("decoded");
    plain.extend(decoder.finish().expect("ended"));
    assert_eq!(plain, b"hello");
    let mut torn = Decoder::of(&[b"br"]).expect("known");
    assert!(torn.push(&coded[..5]).and_then(|_| torn.finish()).is_err());
}

#[test]
fn a_bomb_does_not_go_off() {
    let bomb = coded("gzip", &vec![0; 64 * 1024 * 1024]);
    let mut decoder = Decoder::of(&[b"gzip"]).expect("known");
    assert!(decoder.push(&bomb).is_err());
}

proptest! {
    /// Whatever stands around it and however it is cut, the secret never passes and nothing else is lost.
    #[test]
    fn what_is_not_the_secret_stays(
        parts in proptest::collection::vec("[a-z0-9/+=_% -]{0,40}", 1..6),
        pieces in proptest::collection::vec(1_usize..30, 0..20),
    ) {
        let text = parts.join(SECRET);
        let clean = through(&mut scrubber(SECRET), text.as_bytes(), &pieces);
        prop_assert_eq!(String::from_utf8(clean).expect("text"), parts.join("[redacted:thing]"));
    }
}
