//! Characters that look alike and are not: what a model writes for them, and what they are called.

use std::borrow::Cow;

use unicode_normalization::char::decompose_canonical;
use unicode_normalization::{UnicodeNormalization as _, is_nfc};

/// The text with accents as one character each (NFC).
pub(super) fn composed(text: &str) -> String {
    text.nfc().collect()
}

/// The same, without a copy where there is nothing to do.
pub(super) fn composed_cow(text: Cow<'_, str>) -> Cow<'_, str> {
    if text.is_ascii() || is_nfc(&text) { text } else { Cow::Owned(composed(&text)) }
}

/// A name as a person reads it: accents in one form, blanks, quotes and dashes of one kind.
pub(super) fn alike(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for c in text.chars() {
        fold(c, |c| folded.push(c));
    }
    folded
}

/// Gives `push` what `c` is to a reader; nothing for a character that is not seen.
pub(super) fn fold(c: char, mut push: impl FnMut(char)) {
    match c {
        '\u{2018}' | '\u{2019}' | '\u{201a}' | '\u{201b}' | '\u{2032}' | '`' | '\u{b4}' => push('\''),
        '\u{201c}'..='\u{201f}' | '\u{2033}' | '\u{ab}' | '\u{bb}' => push('"'),
        '\u{2010}'..='\u{2015}' | '\u{2212}' => push('-'),
        '\u{2026}' => (0..3).for_each(|_| push('.')),
        c if is_invisible(c) => {}
        c if c.is_whitespace() => push(' '),
        c if c.is_ascii() => push(c),
        c => decompose_canonical(c, push),
    }
}

fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}' | '\u{202a}'..='\u{202e}' | '\u{fe0e}' | '\u{fe0f}')
}

/// The character's number, with its name where a reader could not tell it.
pub(super) fn named(c: char) -> String {
    let name = match c {
        '\t' => "tab",
        '\n' => "end of line",
        '\r' => "carriage return",
        ' ' => "space",
        '"' => "quotation mark",
        '\'' => "apostrophe",
        '-' => "hyphen",
        '\u{a0}' => "no-break space",
        '\u{202f}' => "narrow no-break space",
        '\u{3000}' => "ideographic space",
        '\u{2010}' | '\u{2011}' => "another hyphen",
        '\u{2013}' => "en dash",
        '\u{2014}' => "em dash",
        '\u{2212}' => "minus sign",
        '\u{2018}' | '\u{2019}' => "curly single quotation mark",
        '\u{201c}' | '\u{201d}' => "curly double quotation mark",
        '\u{2026}' => "ellipsis",
        '\u{ad}' => "soft hyphen",
        '\u{200b}' => "zero-width space",
        '\u{feff}' => "byte order mark",
        '\u{300}'..='\u{36f}' => "a combining accent",
        c if is_invisible(c) => "an invisible character",
        c if c.is_control() => "a control character",
        c if c.is_whitespace() => "another blank",
        c => return format!("{c:?} (U+{:04X})", u32::from(c)),
    };
    format!("U+{:04X} ({name})", u32::from(c))
}

/// A pattern that means a text with its accents in either coding; `None` where that is no difference.
pub(super) fn codings(pattern: &str) -> Option<String> {
    let composed = composed(pattern);
    let decomposed: String = pattern.nfd().collect();
    (composed != decomposed).then(|| format!("(?:{composed})|(?:{decomposed})"))
}
