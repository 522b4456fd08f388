//! An echo sends the secret back in whatever form, coding and pieces; it never arrives.

use std::io::Write as _;

use base64::{Engine as _, prelude::*};
use proptest::prelude::*;

use super::{decode::Decoder, *};

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

/// What stands in the place of a form that is so long.
fn mark(length: usize) -> String {
    format!("[redacted:thing]{}", "*".repeat(length)).chars().take(length).collect()
}

fn each(escape: impl Fn(char) -> String) -> String {
    SECRET.chars().map(escape).collect()
}

/// The escapes that real servers write, of some characters or of all.
fn forms() -> Vec<String> {
    let hex: String = SECRET.bytes().map(|byte| format!("{byte:02x}")).collect();
    let json = serde_json::to_string(SECRET).expect("JSON");
    let json = json[1..json.len() - 1].to_owned();
    let nested = serde_json::to_string(&json).expect("JSON");
    let odd = |plain: fn(u8) -> String| {
        each(move |c| if c.is_ascii_alphanumeric() { c.to_string() } else { plain(c as u8) })
    };
    let percent = odd(|byte| format!("%{byte:02X}"));
    let html = odd(|byte| format!("&#{byte};"));
    vec![
        SECRET.to_owned(),
        hex.to_ascii_uppercase(),
        hex.clone(),
        hex.as_bytes().chunks(2).map(|two| String::from_utf8_lossy(two)).collect::<Vec<_>>().join(":"),
        json.clone(),
        json.replace('/', "\\/"),
        nested[1..nested.len() - 1].to_owned(),
        odd(|byte| format!("\\u{byte:04X}")),
        odd(|byte| format!("\\u{byte:04x}")),
        each(|c| format!("\\u{:04x}", c as u32)),
        each(|c| format!("\\\\u{:04x}", c as u32)),
        odd(|byte| format!("\\x{byte:02x}")),
        odd(|byte| format!("\\{}", char::from(byte))),
        odd(|byte| format!("\\{byte:03o}")),
        percent.to_ascii_lowercase().replace("live", "Live"),
        percent.replace('%', "%25"),
        percent,
        each(|c| format!("%{:02X}", c as u32)),
        each(|c| format!("%{:02x}", c as u32)),
        each(|c| format!("%u{:04X}", c as u32)),
        html.replace('&', "&amp;"),
        html,
        odd(|byte| format!("&#x{byte:X};")),
        odd(|byte| format!("&#X{byte:04x};")),
        each(|c| format!("&#{:03};", c as u32)),
        SECRET.replace('"', "&quot;").replace('=', "&equals;").replace('/', "&sol;").replace('_', "&lowbar;"),
        SECRET.replace('"', "&amp;quot;"),
        odd(|byte| format!("={byte:02X}")),
        SECRET.replace('=', "=3D").replace("/456", "=\r\n/456"),
    ]
}

/// EG-I1: each form alone, cut at every byte.
#[test]
fn no_form_of_the_secret_passes() {
    for form in forms() {
        let text = format!("before {form} after");
        let expected = scrubber(SECRET).whole(text.as_bytes());
        let shown = String::from_utf8_lossy(&expected).replace("\r\n", "");
        assert_eq!(expected.len(), text.len(), "{form}");
        assert!(shown.starts_with("before [redacted:thing]") && shown.ends_with(" after"), "{form}: {shown}");
        assert!(!shown.contains("ve_") && !shown.contains("0123"), "{form}: {shown}");
        for cut in 0..text.len() {
            let clean = through(&mut scrubber(SECRET), text.as_bytes(), &[cut]);
            assert_eq!(clean, expected, "{form} cut at {cut}: {}", clean.escape_ascii());
        }
    }
}

/// EG-I1: text of other widths keeps its zeros, so that it stays text.
#[test]
fn utf_16_and_utf_32_are_known() {
    let widths: [fn(char) -> Vec<u8>; 4] =
        [|c| vec![c as u8, 0], |c| vec![0, c as u8], |c| vec![c as u8, 0, 0, 0], |c| vec![0, 0, 0, c as u8]];
    for wide in widths {
        let text = |text: &str| text.chars().flat_map(wide).collect::<Vec<u8>>();
        let clean = through(&mut scrubber(SECRET), &text(&format!("a {SECRET} b")), &[3, 8, 1, 1]);
        assert_eq!(clean, text(&format!("a {} b", mark(SECRET.len()))));
        let escaped = text(&format!("a {} b", SECRET.replace('"', "&quot;")));
        let clean = scrubber(SECRET).whole(&escaped);
        assert!(clean.len() == escaped.len() && clean != escaped);
    }
    let secret = "gr\u{fc}n-\u{6771}-\u{1f600}-key";
    for units in [u16::to_le_bytes, u16::to_be_bytes] {
        let text: Vec<u8> = secret.encode_utf16().flat_map(units).collect();
        assert!(scrubber(secret).whole(&text).windows(4).any(|it| it.contains(&b'*') || it.contains(&b'[')));
    }
    let escaped = "gr\\u00fcn-\\u6771-\\ud83d\\ude00-key";
    assert_eq!(scrubber(secret).whole(escaped.as_bytes()), mark(escaped.len()).as_bytes());
    let percent = "gr%C3%BCn-%E6%9D%B1-%F0%9F%98%80-key";
    assert_eq!(scrubber(secret).whole(percent.as_bytes()), mark(percent.len()).as_bytes());
}

/// What cannot be a part of a secret goes on at once; what may be its beginning waits.
#[test]
fn only_a_beginning_waits() {
    let mut scrubber = scrubber(SECRET);
    for event in ["data: {\"a\":1}\n\n", "data: hi\n\n", ": ping\n\n", "no end", "a,b;c<d>"] {
        assert_eq!(scrubber.push(event.as_bytes()), event.as_bytes(), "{event}");
    }
    assert_eq!(scrubber.push(b"data: sk-Live_01"), b"data: ");
    assert_eq!(scrubber.push(b"99\n\n"), b"sk-Live_0199\n\n", "it was none");
    assert_eq!(scrubber.push(b"x%73k%2"), b"x");
    assert_eq!(scrubber.finish(), b"%73k%2");
}

/// Several secrets, each with its own mark; what overlaps is covered whole.
#[test]
fn all_secrets_are_looked_for() {
    let names = ["one", "other"].map(|name| CredentialName::parse(name).expect("a name"));
    let secrets: [SecretString; 2] = ["first-secret-of-two".into(), "second-secret-is-longer".into()];
    let both = Scrubber::of(names.iter().zip(&secrets));
    let clean = both.whole(b"a first-secret-of-two b second-secret-is-longer c");
    assert_eq!(String::from_utf8_lossy(&clean), "a [redacted:one]***** b [redacted:other]******* c");
    assert_eq!(scrubber("abcabcabc").whole(b"<abcabcabcabc>"), format!("<{}>", mark(12)).as_bytes());
}

/// EG-I1: base64 at its three places, in both alphabets. What shares a character with its neighbours may stay.
#[test]
fn base64_is_known_wherever_it_begins() {
    for place in 0..6 {
        let text = format!("{}{SECRET}{}", &"abcdef"[..place], "tail");
        for encoded in [BASE64_STANDARD.encode(&text), BASE64_URL_SAFE.encode(&text)] {
            let clean = through(&mut scrubber(SECRET), encoded.as_bytes(), &[7, 11]);
            let clean = String::from_utf8(clean).expect("text");
            assert!(clean.contains("[redacted:thing]") && clean.len() == encoded.len(), "{clean}");
            let left =
                clean.trim_end_matches('=').chars().filter(|c| !"[redacted:thing]*".contains(*c)).count();
            assert!(left < 20, "{clean}");
        }
    }
}

/// EG-I1: base64 in the lines of mails, of keys and of JSON; of UTF-16; of JSON; of base64.
#[test]
fn base64_is_known_in_lines_and_of_other_forms() {
    let encoded = BASE64_STANDARD.encode(format!("some text before it: {SECRET}, and behind it"));
    let broken = |line_break: &str| {
        encoded
            .as_bytes()
            .chunks(16)
            .map(|line| String::from_utf8_lossy(line).into_owned())
            .collect::<Vec<_>>()
            .join(line_break)
    };
    let utf_16: Vec<u8> = format!("\u{feff}{SECRET}.").encode_utf16().flat_map(u16::to_le_bytes).collect();
    let json = serde_json::json!({"key": SECRET}).to_string();
    for text in [
        broken("\r\n"),
        broken("\n"),
        broken("\n    "),
        broken("\\n"),
        broken("\\r\\n"),
        broken("%0A"),
        encoded.replace('+', "%2B").replace('/', "%2f"),
        encoded.replace('/', "\\/"),
        encoded.replace('+', "\\u002b"),
        BASE64_STANDARD.encode(utf_16),
        BASE64_STANDARD.encode(json),
        BASE64_STANDARD.encode(BASE64_STANDARD.encode(SECRET)),
    ] {
        let clean = through(&mut scrubber(SECRET), text.as_bytes(), &[7, 30]);
        let clean = String::from_utf8(clean).expect("text");
        let in_one = clean.replace(['\r', '\n', ' '], "");
        assert!(in_one.contains("[redacted:thing]"), "{text}: {clean}");
        assert_eq!((clean.len(), clean.lines().count()), (text.len(), text.lines().count()), "{clean}");
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

/// An answer that comes in pieces, each of them whole for the reader, goes on in them.
#[test]
fn coded_pieces_go_on_as_they_come() {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    let mut decoder = Decoder::of(&[b"gzip"]).expect("known");
    for event in ["data: 1\n\n", "data: 2\n\n", "data: 3\n\n"] {
        writer.write_all(event.as_bytes()).and_then(|()| writer.flush()).expect("written");
        let coded = std::mem::take(writer.get_mut());
        assert_eq!(decoder.push(&coded).expect("decoded"), event.as_bytes());
    }
}

/// EG-I1: what is packed is looked into and goes on byte for byte, or ends before the secret.
#[test]
fn packed_content_is_looked_into() {
    let noise: Vec<u8> =
        (0..60_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let with_secret = [&noise, SECRET.as_bytes(), &noise].concat();
    for coding in ["gzip", "deflate", "zstd"] {
        for size in [1, 700, 100_000] {
            let wash = || Wash::new(&[], b"application/octet-stream", scrubber(SECRET)).expect("known");
            let run = |coded: &[u8]| {
                let (mut wash, mut passed) = (wash(), Vec::new());
                for piece in coded.chunks(size) {
                    match wash.push(piece) {
                        Ok(clean) => passed.extend(clean),
                        Err(fault) => return (passed, Some(fault)),
                    }
                }
                match wash.finish() {
                    Ok(clean) => passed.extend(clean),
                    Err(fault) => return (passed, Some(fault)),
                }
                (passed, None)
            };
            let harmless = coded(coding, &noise);
            assert_eq!(run(&harmless), (harmless.clone(), None), "{coding} by {size}");
            let torn = &harmless[..harmless.len() / 2];
            assert_eq!(
                run(torn),
                (torn.to_vec(), None),
                "{coding} by {size}: torn, which is the client's to see"
            );
            let (passed, fault) = run(&coded(coding, &with_secret));
            assert_eq!(fault, Some(WashFault::HoldsSecret), "{coding} by {size}");
            let mut decoder = Decoder::of(&[coding.as_bytes()]).expect("known");
            let shown = decoder.push(&passed).expect("decoded");
            assert!(!shown.windows(7).any(|window| window == &SECRET.as_bytes()[..7]), "{coding} by {size}");
        }
    }
    // It only begins like something packed.
    let text = [&[0x1f, 0x8b, 8][..], SECRET.as_bytes()].concat();
    let mut wash = Wash::new(&[], b"", scrubber(SECRET)).expect("known");
    let mut clean = wash.push(&text).expect("plain");
    clean.extend(wash.finish().expect("plain"));
    assert!(clean.ends_with(mark(SECRET.len()).as_bytes()), "{}", clean.escape_ascii());
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
    let bomb = coded("gzip", &vec![0; 17 * 1024 * 1024]);
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
        prop_assert_eq!(String::from_utf8(clean).expect("text"), parts.join(&mark(SECRET.len())));
    }

    /// Any cut of any answer, escapes and their halves in it, gives the same bytes, as many as came.
    #[test]
    fn cutting_changes_nothing(
        parts in proptest::collection::vec("(sk-Live_|%73|%|\\\\|&#|&#115;|=\r\n|=|c2st|\\\\u00|[a-z0-9/+=_% -]){0,12}", 1..6),
        form in 0_usize..29,
        pieces in proptest::collection::vec(1_usize..9, 0..60),
    ) {
        let text = parts.join(&forms()[form]);
        let whole = scrubber(SECRET).whole(text.as_bytes());
        let clean = through(&mut scrubber(SECRET), text.as_bytes(), &pieces);
        prop_assert_eq!(whole.len(), text.len());
        prop_assert_eq!(String::from_utf8_lossy(&clean), String::from_utf8_lossy(&whole));
    }
}
