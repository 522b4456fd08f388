//! Text in whatever coding a file has: UTF-8 and UTF-16 with and without a mark, the older codings of one language, and
//! UTF-8 with damaged bytes. What is decoded here is encoded again as it was.

use std::borrow::Cow;

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};

/// The part of a file by which binary data are told from text, in bytes.
const SNIFFED_BYTES: usize = 8_192;
/// The part of a file by which its coding is guessed, in bytes.
const GUESSED_BYTES: usize = 1024 * 1024;
/// A byte that is no UTF-8 is this and its value while it is in our hands: a private character at the end of Unicode.
const DAMAGED_BASE: u32 = 0x10_ff00;

/// A file's text, and how it was coded.
pub(super) struct Text {
    pub(super) text: String,
    pub(super) coding: Coding,
}

/// How a text is coded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Coding {
    encoding: &'static Encoding,
    has_mark: bool,
    /// Bytes that are no UTF-8.
    damaged: usize,
}

impl Coding {
    pub(super) const UTF_8: Self = Self { encoding: UTF_8, has_mark: false, damaged: 0 };

    /// What there is to say of it; nothing of UTF-8.
    pub(super) fn note(&self) -> Option<String> {
        if self.damaged > 0 {
            return Some(format!("{} bytes that are not UTF-8 are shown as \u{fffd}", self.damaged));
        }
        (self.encoding != UTF_8).then(|| format!("the file is {} text, decoded here", self.encoding.name()))
    }

    /// What is kept of a file whose text is replaced; nothing of plain UTF-8.
    pub(super) fn kept(&self) -> Option<String> {
        match (self.encoding == UTF_8, self.has_mark) {
            (true, false) => None,
            (true, true) => Some("its byte order mark".into()),
            (false, _) => Some(format!("its coding, {}", self.encoding.name())),
        }
    }

    /// The text as bytes, or the first character that this coding does not have.
    pub(super) fn encode(&self, text: &str) -> Result<Vec<u8>, char> {
        if self.encoding == UTF_16LE || self.encoding == UTF_16BE {
            let order = if self.encoding == UTF_16LE { u16::to_le_bytes } else { u16::to_be_bytes };
            let mark = self.has_mark.then_some(0xfeff);
            return Ok(mark.into_iter().chain(text.encode_utf16()).flat_map(order).collect());
        }
        if self.encoding == UTF_8 {
            let mark: &[u8] = if self.has_mark { b"\xef\xbb\xbf" } else { b"" };
            let mut bytes = mark.to_vec();
            for c in text.chars() {
                match damaged_byte(c) {
                    Some(byte) if self.damaged > 0 => bytes.push(byte),
                    _ => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                }
            }
            return Ok(bytes);
        }
        let is_strange = |c: &char| self.encoding.encode(c.encode_utf8(&mut [0; 4])).2;
        match self.encoding.encode(text) {
            (_, _, true) => Err(text.chars().find(is_strange).unwrap_or('?')),
            (bytes, _, false) => Ok(bytes.into_owned()),
        }
    }
}

/// The text of a file, if it is one.
pub(super) fn decode(bytes: &[u8]) -> Option<Text> {
    let head = &bytes[..bytes.len().min(SNIFFED_BYTES)];
    if let Some((encoding, length)) = Encoding::for_bom(bytes) {
        let is_utf_32 = encoding == UTF_16LE && bytes[length..].starts_with(b"\0\0");
        let marked = (!is_utf_32).then(|| decoded(&bytes[length..], encoding, true));
        return marked.flatten().filter(|_| encoding != UTF_8 || is_text(head));
    }
    if let Some(encoding) = utf_16_without_mark(head) {
        return decoded(bytes, encoding, false).filter(|text| text.coding.encode(&text.text).is_ok());
    }
    if !is_text(head) {
        return None;
    }
    decoded(bytes, UTF_8, false).or_else(|| {
        // Programs write NUL bytes, too; texts in an older coding have none.
        if head.contains(&0) {
            return None;
        }
        let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
        detector.feed(&bytes[..bytes.len().min(GUESSED_BYTES)], true);
        decoded(bytes, detector.guess(None, Utf8Detection::Deny), false)
            .or_else(|| Some(with_damage(bytes, false)))
    })
}

/// Whether what begins so is text: some control characters are taken for slips, and many for data.
fn is_text(head: &[u8]) -> bool {
    let is_odd = |byte: &&u8| **byte < 0x20 && !b"\t\n\r\x08\x0c\x1b".contains(byte);
    head.iter().filter(is_odd).count() * 10 <= head.len()
}

/// UTF-16 shows by its NUL bytes, which stand in every other place of most texts.
fn utf_16_without_mark(head: &[u8]) -> Option<&'static Encoding> {
    let pairs = head.len() / 2;
    let nuls = |at: usize| head.chunks_exact(2).filter(|pair| pair[at] == 0).count();
    match (nuls(0), nuls(1)) {
        (first, second) if second * 10 > pairs * 4 && first * 50 <= pairs => Some(UTF_16LE),
        (first, second) if first * 10 > pairs * 4 && second * 50 <= pairs => Some(UTF_16BE),
        _ => None,
    }
}

fn decoded(bytes: &[u8], encoding: &'static Encoding, has_mark: bool) -> Option<Text> {
    if encoding == UTF_8 {
        return match std::str::from_utf8(bytes) {
            Ok(text) => Some(Text { text: text.to_owned(), coding: Coding { has_mark, ..Coding::UTF_8 } }),
            Err(_) if has_mark || is_mostly_utf_8(bytes) => Some(with_damage(bytes, has_mark)),
            Err(_) => None,
        };
    }
    let text = encoding.decode_without_bom_handling_and_without_replacement(bytes)?.into_owned();
    let coding = Coding { encoding, has_mark, damaged: 0 };
    // A guess is good when it leads back to the same bytes.
    (coding.encode(&text).as_deref() == Ok(bytes) || has_mark).then_some(Text { text, coding })
}

/// Whether there are more characters of UTF-8 than bytes that are none.
fn is_mostly_utf_8(bytes: &[u8]) -> bool {
    let (mut whole, mut damaged) = (0, 0);
    for chunk in bytes.utf8_chunks() {
        whole += chunk.valid().chars().filter(|c| !c.is_ascii()).count();
        damaged += chunk.invalid().len();
    }
    whole >= damaged
}

fn with_damage(bytes: &[u8], has_mark: bool) -> Text {
    let mut text = String::with_capacity(bytes.len());
    let mut damaged = 0;
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        let kept = chunk.invalid().iter().filter_map(|byte| char::from_u32(DAMAGED_BASE + u32::from(*byte)));
        text.extend(kept);
        damaged += chunk.invalid().len();
    }
    Text { text, coding: Coding { encoding: UTF_8, has_mark, damaged } }
}

fn damaged_byte(c: char) -> Option<u8> {
    u32::from(c)
        .checked_sub(DAMAGED_BASE)
        .and_then(|byte| u8::try_from(byte).ok())
        .filter(|byte| *byte >= 0x80)
}

/// A line as it is shown: what cannot be seen or sent is shown by a sign.
pub(super) fn shown(line: &str) -> Cow<'_, str> {
    if !line.contains(|c: char| c == '\0' || damaged_byte(c).is_some()) {
        return Cow::Borrowed(line);
    }
    let sign = |c: char| match c {
        '\0' => '\u{2400}',
        c if damaged_byte(c).is_some() => '\u{fffd}',
        c => c,
    };
    Cow::Owned(line.chars().map(sign).collect())
}

/// The text with LF at the end of each line, whether they end in CR LF, in LF, or, where there is no LF at all, in CR.
pub(super) fn with_plain_ends(text: &str) -> Cow<'_, str> {
    if !text.contains('\r') {
        Cow::Borrowed(text)
    } else if text.contains('\n') {
        Cow::Owned(text.replace("\r\n", "\n"))
    } else {
        Cow::Owned(text.replace('\r', "\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_coding_comes_back_as_it_was() {
        let utf_16 = |text: &str, mark: &[u8]| -> Vec<u8> {
            mark.iter().copied().chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect()
        };
        for (bytes, text) in [
            (b"plain".to_vec(), "plain"),
            ("h\u{e9} \u{1f600}".as_bytes().to_vec(), "h\u{e9} \u{1f600}"),
            (b"\xef\xbb\xbfmark".to_vec(), "mark"),
            (utf_16("w\u{e9}\u{1f600}\r\n", b"\xff\xfe"), "w\u{e9}\u{1f600}\r\n"),
            (utf_16("without a mark", b""), "without a mark"),
            (b"\xfe\xff\0a\0b".to_vec(), "ab"),
            (b"caf\xe9 au lait, d\xe9j\xe0 vu".to_vec(), "caf\u{e9} au lait, d\u{e9}j\u{e0} vu"),
            (
                encoding_rs::SHIFT_JIS
                    .encode("\u{6771}\u{4eac}\u{306f}\u{65e5}\u{672c}\u{306e}\u{9996}\u{90fd}")
                    .0
                    .into_owned(),
                "\u{6771}\u{4eac}\u{306f}\u{65e5}\u{672c}\u{306e}\u{9996}\u{90fd}",
            ),
            (b"a few\0 slips in a text".to_vec(), "a few\0 slips in a text"),
        ] {
            let decoded = decode(&bytes).unwrap();
            assert_eq!(decoded.text, text);
            assert_eq!(decoded.coding.encode(&decoded.text), Ok(bytes), "{text:?}");
        }
        // Of a log with one broken byte, the rest is what it was.
        let mut log = "\u{e9}\u{e8}\u{e0} broken: ".as_bytes().to_vec();
        log.push(0xff);
        let decoded = decode(&log).unwrap();
        assert_eq!(shown(&decoded.text), "\u{e9}\u{e8}\u{e0} broken: \u{fffd}");
        assert_eq!(decoded.coding.encode(&decoded.text), Ok(log));
    }

    #[test]
    fn data_are_no_text() {
        for bytes in [
            &b"a\0b"[..],
            b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0",
            b"\x01\x02\x03\x04\xff",
            b"\xff\xfe\0\0a\0\0\0",
        ] {
            assert!(decode(bytes).is_none(), "{bytes:?}");
        }
    }

    #[test]
    fn what_a_coding_does_not_have_is_named() {
        let latin = decode(b"caf\xe9 au lait, d\xe9j\xe0 vu").unwrap().coding;
        assert_eq!(latin.encode("caf\u{e9} \u{1f600}"), Err('\u{1f600}'));
    }
}
