//! The forms in which an upstream may send a secret back: the text itself, however its characters are escaped, and what encoders make of
//! the whole of it.

use std::fmt::Write as _;

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD},
};
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use secrecy::{ExposeSecret, SecretString};

use super::spelling::{Kind, Reader, SYMBOL_BYTES_MAX};

/// Shorter forms than this, in characters, are in too much text that is nobody's secret.
const FORM_CHARS_MIN: usize = 6;

/// One form: characters, and how they may be written down.
pub(super) struct Form {
    kind: Kind,
    chars: Vec<char>,
}

/// What reading a form off a text came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Where it ends, if it stands there; the longest, where there are several ways to read it.
    pub(super) end: Option<usize>,
    /// Whether the text ends before it is clear.
    pub(super) is_cut: bool,
}

/// All forms of a secret, each once.
pub(super) fn of(secret: &SecretString) -> Vec<Form> {
    let secret = secret.expose_secret();
    let mut forms = vec![Form::new(Kind::Text, secret.chars())];
    let mut encoded = Vec::new();
    for text in within(secret) {
        let hex = text.iter().fold(String::new(), |mut hex, byte| {
            // Writing to a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        encoded.push((Kind::Hex, hex));
        encoded.extend((0..3).map(|place| (Kind::Base64, base64_at(&text, place))));
    }
    encoded.sort_unstable();
    encoded.dedup();
    forms.extend(encoded.iter().map(|(kind, text)| Form::new(*kind, text.chars())));
    forms.retain(|form| form.chars.len() >= FORM_CHARS_MIN);
    forms
}

/// What an encoder may have been given in the place of the secret: itself, as a part of JSON or of a query, in another text encoding,
/// or encoded already.
fn within(secret: &str) -> Vec<Vec<u8>> {
    let json = serde_json::Value::String(secret.to_owned()).to_string();
    let units = |bytes: fn(u16) -> [u8; 2]| secret.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
    let mut texts = vec![
        secret.as_bytes().to_vec(),
        json.as_bytes()[1..json.len() - 1].to_vec(),
        percent_encode(secret.as_bytes(), NON_ALPHANUMERIC).to_string().into_bytes(),
        units(u16::to_le_bytes),
        units(u16::to_be_bytes),
        BASE64_STANDARD.encode(secret).into_bytes(),
    ];
    texts.sort_unstable();
    texts.dedup();
    texts
}

/// The characters that stand for the text alone when it begins `place` bytes after a group of three does.
fn base64_at(text: &[u8], place: usize) -> String {
    let encoded = BASE64_STANDARD_NO_PAD.encode([&[0; 2][..place], text].concat());
    // Bits before the text share its first character, bits after it its last.
    let first = (place * 8).div_ceil(6);
    let last = (place + text.len()) * 8 / 6;
    encoded.get(first..last).unwrap_or_default().to_owned()
}

impl Form {
    fn new(kind: Kind, chars: impl Iterator<Item = char>) -> Self {
        Self { kind, chars: chars.collect() }
    }

    /// More bytes than it may take up, however it is written.
    pub(super) fn bytes_max(&self) -> usize {
        self.chars.len() * SYMBOL_BYTES_MAX
    }

    /// The bytes that it may begin with.
    pub(super) fn first_bytes(&self) -> Vec<u8> {
        self.chars.first().map_or_else(Vec::new, |first| self.kind.first_bytes(*first))
    }

    /// The bytes that may stand behind its first letter or digit.
    pub(super) fn second_bytes(&self) -> Vec<u8> {
        let second = self.chars.get(1).map_or_else(Vec::new, |second| self.kind.first_bytes(*second));
        [&second, self.kind.between()].concat()
    }

    /// Reads it off the text, from `start` on.
    pub(super) fn read(&self, text: &[u8], start: usize, places: &mut Places) -> Found {
        let mut reader = Reader::new(self.kind, text);
        places.now.clear();
        places.now.push(start);
        for (number, symbol) in self.chars.iter().enumerate() {
            places.next.clear();
            for &at in &places.now {
                reader.symbol(number, at, *symbol, &mut places.next);
            }
            places.next.sort_unstable();
            places.next.dedup();
            if places.next.is_empty() {
                return Found { end: None, is_cut: reader.is_cut };
            }
            std::mem::swap(&mut places.now, &mut places.next);
        }
        Found { end: places.now.last().copied(), is_cut: reader.is_cut }
    }
}

/// Where a reading may stand: nearly always in one place. Kept between readings.
#[derive(Default)]
pub(super) struct Places {
    now: Vec<usize>,
    next: Vec<usize>,
}
