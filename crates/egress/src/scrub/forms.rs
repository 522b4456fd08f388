//! The forms in which an upstream may send a secret back.

use std::fmt::Write as _;

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD},
};
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, percent_encode};
use secrecy::{ExposeSecret, SecretString};

/// Shorter forms than this, in bytes, are in too much text that is nobody's secret.
const FORM_BYTES_MIN: usize = 6;
/// What `encodeURIComponent` leaves as it is, and what RFC 3986 does.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'!')
    .remove(b'~')
    .remove(b'*')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')');
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// What most servers write in a path or a query.
const PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'`')
    .add(b'{')
    .add(b'}')
    .add(b'%');

/// Each form once.
pub(super) fn of(secret: &SecretString) -> Vec<Vec<u8>> {
    let secret = secret.expose_secret().as_bytes();
    let mut forms = vec![secret.to_vec()];
    for set in [NON_ALPHANUMERIC, COMPONENT, UNRESERVED, PATH] {
        let encoded = percent_encode(secret, set).to_string();
        forms.push(lower_escapes(&encoded));
        // A form has its blanks as plus signs.
        forms.push(encoded.replace("%20", "+").into_bytes());
        forms.push(encoded.into_bytes());
    }
    let json = serde_json::Value::String(String::from_utf8_lossy(secret).into_owned()).to_string();
    let json = json[1..json.len() - 1].to_owned();
    forms.push(json.replace('/', "\\/").into_bytes());
    forms.push(json.into_bytes());
    let hex = secret.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    });
    forms.push(hex.to_ascii_uppercase().into_bytes());
    forms.push(hex.into_bytes());
    for place in 0..3 {
        let standard = base64_at(secret, place, |bytes| BASE64_STANDARD_NO_PAD.encode(bytes));
        let url_safe = base64_at(secret, place, |bytes| BASE64_URL_SAFE_NO_PAD.encode(bytes));
        forms.extend(
            [standard.replace('+', "%2B").replace('/', "%2F"), standard, url_safe].map(String::into_bytes),
        );
    }
    forms.retain(|form| form.len() >= FORM_BYTES_MIN);
    forms.sort_unstable();
    forms.dedup();
    forms
}

/// The characters that stand for the secret alone when it begins `place` bytes after a group of three does.
fn base64_at(secret: &[u8], place: usize, encode: impl Fn(&[u8]) -> String) -> String {
    let text = encode(&[&[0; 2][..place], secret].concat());
    // Bits before the secret share its first character, bits after it its last.
    let first = (place * 8).div_ceil(6);
    let last = (place + secret.len()) * 8 / 6;
    text.get(first..last).unwrap_or_default().to_owned()
}

fn lower_escapes(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'%' {
            let end = bytes.len().min(at + 3);
            bytes[at..end].make_ascii_lowercase();
        }
        at += 1;
    }
    bytes
}
