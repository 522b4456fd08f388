//! How one character may be written down: as it is, or in the escapes of URLs, JSON, HTML, mail and source code, nested in each other as
//! servers nest them, and in UTF-16 or UTF-32. Every way has a bounded length.

/// How often an escape is escaped again: JSON in JSON, a URL in a URL's query.
const NESTED_MAX: usize = 2;
/// Backslashes before what they escape: three levels of JSON strings need seven.
const BACKSLASHES_MAX: usize = 8;
/// Zero bytes between two bytes: three in UTF-32.
const ZEROS_MAX: usize = 3;
/// Digits of a numeric entity, leading zeros included.
const ENTITY_DIGITS_MAX: usize = 8;
/// Blanks at the beginning of a line of base64.
const BLANKS_MAX: usize = 8;
/// More bytes than any spelling of a character and what may stand before it, each with its zeros.
pub(super) const SYMBOL_BYTES_MAX: usize = (1 + ZEROS_MAX) * 48;

/// The names of characters in HTML that escapers use, or may: ASCII has these.
const ENTITIES: &[(char, &[&str])] = &[
    ('!', &["excl"]),
    ('"', &["quot", "QUOT"]),
    ('#', &["num"]),
    ('$', &["dollar"]),
    ('%', &["percnt"]),
    ('&', &["amp", "AMP"]),
    ('\'', &["apos"]),
    ('(', &["lpar"]),
    (')', &["rpar"]),
    ('*', &["ast", "midast"]),
    ('+', &["plus"]),
    (',', &["comma"]),
    ('.', &["period"]),
    ('/', &["sol"]),
    (':', &["colon"]),
    (';', &["semi"]),
    ('<', &["lt", "LT"]),
    ('=', &["equals"]),
    ('>', &["gt", "GT"]),
    ('?', &["quest"]),
    ('@', &["commat"]),
    ('[', &["lsqb", "lbrack"]),
    ('\\', &["bsol"]),
    (']', &["rsqb", "rbrack"]),
    ('^', &["Hat"]),
    ('_', &["lowbar", "UnderBar"]),
    ('`', &["grave", "DiacriticalGrave"]),
    ('{', &["lcub", "lbrace"]),
    ('|', &["verbar", "vert", "VerticalLine"]),
    ('}', &["rcub", "rbrace"]),
];

/// What is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Text.
    Text,
    /// Base64 of either alphabet, in lines or not.
    Base64,
    /// Hexadecimal digits, with or without something between each two.
    Hex,
}

impl Kind {
    /// The bytes that a spelling of this character may begin with.
    pub(super) fn first_bytes(self, symbol: char) -> Vec<u8> {
        let plain = |symbol: char| symbol.to_string().as_bytes()[0];
        let mut first = vec![plain(symbol)];
        match (self, symbol) {
            (Self::Hex, _) => first.push(plain(symbol.to_ascii_uppercase())),
            (Self::Base64, '+' | '/') => first.extend(b"-_%\\&=+/"),
            (Self::Base64, _) => {}
            (Self::Text, _) => {
                first.extend(b"%\\&=");
                first.extend(Some(b'+').filter(|_| symbol == ' '));
                first.extend(u8::try_from(u32::from(symbol)));
                if !symbol.is_ascii() {
                    first.extend(symbol.encode_utf16(&mut [0; 2]).iter().flat_map(|unit| unit.to_be_bytes()));
                }
            }
        }
        first.sort_unstable();
        first.dedup();
        first
    }
}

impl Kind {
    /// The bytes that what parts two characters may begin with.
    pub(super) fn between(self) -> &'static [u8] {
        match self {
            Self::Text => b"\0=",
            Self::Base64 => b"\0\r\n\\%",
            Self::Hex => b"\0 :-,\r\n",
        }
    }
}

/// Reads characters off a text.
pub(super) struct Reader<'t> {
    kind: Kind,
    text: &'t [u8],
    /// Whether something that was looked for may go on behind the end of the text.
    pub(super) is_cut: bool,
}

impl<'t> Reader<'t> {
    pub(super) fn new(kind: Kind, text: &'t [u8]) -> Self {
        Self { kind, text, is_cut: false }
    }

    /// Adds every place where this character, which begins at `at`, may end. `number` is its own, from 0 on.
    pub(super) fn symbol(&mut self, number: usize, at: usize, symbol: char, ends: &mut Vec<usize>) {
        self.spelled(at, symbol, ends);
        // What parts two characters.
        if number == 0 {
            return;
        }
        match self.kind {
            Kind::Text => {
                for soft_break in [&b"=\r\n"[..], b"=\n"] {
                    if let Some(at) = self.literal(at, soft_break) {
                        self.spelled(at, symbol, ends);
                    }
                }
            }
            Kind::Base64 => {
                for line_break in [&b"\r\n"[..], b"\n", b"\\r\\n", b"\\n", b"%0D%0A", b"%0A"] {
                    if let Some(at) = self.literal(at, line_break) {
                        let at = self.skip_blanks(at);
                        self.spelled(at, symbol, ends);
                    }
                }
            }
            Kind::Hex if number.is_multiple_of(2) => {
                for between in [&b" "[..], b":", b"-", b", ", b"\n", b"\r\n"] {
                    if let Some(at) = self.literal(at, between) {
                        self.spelled(at, symbol, ends);
                    }
                }
            }
            Kind::Hex => {}
        }
    }

    fn spelled(&mut self, at: usize, symbol: char, ends: &mut Vec<usize>) {
        match (self.kind, symbol) {
            (Kind::Text, _) => self.text(at, symbol, ends),
            (Kind::Hex, _) => ends.extend(self.literal(at, &[symbol as u8])),
            (Kind::Base64, '+' | '/') => {
                self.text(at, symbol, ends);
                self.text(at, if symbol == '+' { '-' } else { '_' }, ends);
            }
            (Kind::Base64, _) => ends.extend(self.exactly(at, &[symbol as u8])),
        }
    }

    fn text(&mut self, at: usize, symbol: char, ends: &mut Vec<usize>) {
        let mut room = [0; 4];
        let bytes = symbol.encode_utf8(&mut room).as_bytes();
        ends.extend(self.exactly(at, bytes));
        let Some((first, behind)) = self.next(at) else { return };
        match first {
            b'%' => self.percent(behind, symbol, bytes, ends),
            b'\\' => self.backslash(behind, symbol, bytes, ends),
            b'&' => self.entity(behind, symbol, ends),
            b'=' => ends.extend(self.in_hex(behind, bytes, b"=")),
            b'+' if symbol == ' ' => ends.push(behind),
            // Latin-1.
            _ if !symbol.is_ascii() && u32::from(first) == u32::from(symbol) => ends.push(behind),
            _ => {}
        }
        if !symbol.is_ascii() {
            for to_bytes in [u16::to_le_bytes, u16::to_be_bytes] {
                let units: Vec<u8> =
                    symbol.encode_utf16(&mut [0; 2]).iter().flat_map(|unit| to_bytes(*unit)).collect();
                // The upper half of the character before may be a zero.
                ends.extend(self.raw(at, &units));
                ends.extend(self.raw(at + 1, &units).filter(|_| self.text[at] == 0));
            }
        }
    }

    /// Behind a percent sign: `2B`, `252B`, `u002B`.
    fn percent(&mut self, at: usize, symbol: char, bytes: &[u8], ends: &mut Vec<usize>) {
        let mut between = b"%".to_vec();
        let mut at_depth = Some(at);
        for _ in 0..=NESTED_MAX {
            let Some(at) = at_depth else { break };
            ends.extend(self.in_hex(at, bytes, &between));
            between.extend(b"25");
            at_depth = self.literal(at, b"25");
        }
        if let (Some(at), Ok(unit)) = (self.literal(at, b"u"), u16::try_from(u32::from(symbol))) {
            ends.extend(self.number(at, u32::from(unit), 16, 4, 4));
        }
    }

    /// Behind a backslash, and as many more as there are.
    fn backslash(&mut self, mut at: usize, symbol: char, bytes: &[u8], ends: &mut Vec<usize>) {
        let mut count = 1;
        while count < BACKSLASHES_MAX
            && let Some(next) = self.exactly(at, b"\\")
        {
            (at, count) = (next, count + 1);
            if symbol == '\\' && matches!(count, 2 | 4 | 8) {
                ends.push(at);
            }
        }
        let Some((escape, behind)) = self.next(at) else { return };
        let code = u32::from(symbol);
        match escape {
            b'u' => self.unicode_escape(behind, symbol, count, ends),
            b'U' => ends.extend(self.number(behind, code, 16, 8, 8)),
            b'x' => {
                let between = [&b"\\".repeat(count)[..], b"x"].concat();
                ends.extend(self.in_hex(behind, bytes, &between));
                ends.extend(self.number(behind, code, 16, 2, 2).filter(|_| !symbol.is_ascii()));
            }
            b'0'..=b'3' if symbol.is_ascii() => ends.extend(self.number(at, code, 8, 3, 3)),
            _ if symbol.is_ascii_punctuation() && u32::from(escape) == code => ends.push(behind),
            _ => {}
        }
    }

    /// Behind `\u`: four digits, two times four, or any in braces.
    fn unicode_escape(&mut self, at: usize, symbol: char, backslashes: usize, ends: &mut Vec<usize>) {
        let mut units = [0; 2];
        let mut end = Some(at);
        for (number, unit) in symbol.encode_utf16(&mut units).iter().enumerate() {
            let again = [&b"\\".repeat(backslashes)[..], b"u"].concat();
            if number > 0 {
                end = end.and_then(|at| self.literal(at, &again));
            }
            end = end.and_then(|at| self.number(at, u32::from(*unit), 16, 4, 4));
        }
        ends.extend(end);
        if let Some(at) = self.exactly(at, b"{") {
            let closed = self.number(at, u32::from(symbol), 16, 1, 6).and_then(|at| self.exactly(at, b"}"));
            ends.extend(closed);
        }
    }

    /// Behind an ampersand: `#43;`, `#x2b;`, `plus;`, each with `amp;` before it where it was escaped again.
    fn entity(&mut self, at: usize, symbol: char, ends: &mut Vec<usize>) {
        let names = ENTITIES.iter().find(|(named, _)| *named == symbol).map_or(&[][..], |(_, names)| names);
        let mut at_depth = Some(at);
        for _ in 0..=NESTED_MAX {
            let Some(at) = at_depth else { return };
            for name in names {
                let end = self.exactly(at, name.as_bytes()).and_then(|at| self.exactly(at, b";"));
                ends.extend(end);
            }
            if let Some(at) = self.exactly(at, b"#") {
                let code = u32::from(symbol);
                let decimal = self.number(at, code, 10, 1, ENTITY_DIGITS_MAX);
                let hex =
                    self.literal(at, b"x").and_then(|at| self.number(at, code, 16, 1, ENTITY_DIGITS_MAX));
                for end in [decimal, hex] {
                    ends.extend(end.and_then(|at| self.exactly(at, b";")));
                }
            }
            at_depth = self.exactly(at, b"amp;");
        }
    }

    /// These bytes as two digits each, with something between each two.
    fn in_hex(&mut self, mut at: usize, bytes: &[u8], between: &[u8]) -> Option<usize> {
        for (number, byte) in bytes.iter().enumerate() {
            if number > 0 {
                at = self.literal(at, between)?;
            }
            at = self.number(at, u32::from(*byte), 16, 2, 2)?;
        }
        Some(at)
    }

    /// This number, in as many digits as there are, but not more or fewer than these.
    fn number(
        &mut self,
        mut at: usize,
        expected: u32,
        radix: u32,
        digits_min: usize,
        digits_max: usize,
    ) -> Option<usize> {
        let (mut value, mut digits) = (0_u32, 0);
        while digits < digits_max {
            // At the end of the text there may be more of them.
            let (byte, behind) = self.next(at)?;
            let Some(digit) = char::from(byte).to_digit(radix) else { break };
            value = value.checked_mul(radix)?.checked_add(digit)?;
            // Zeros alone may still become anything; what is too much will not become less.
            if value > expected {
                return None;
            }
            (at, digits) = (behind, digits + 1);
        }
        (digits >= digits_min && value == expected).then_some(at)
    }

    /// Exactly these bytes.
    fn exactly(&mut self, at: usize, expected: &[u8]) -> Option<usize> {
        self.compare(at, expected, |found, expected| found == expected)
    }

    /// These bytes, letters in either case.
    fn literal(&mut self, at: usize, expected: &[u8]) -> Option<usize> {
        self.compare(at, expected, |found, expected| found.eq_ignore_ascii_case(&expected))
    }

    fn compare(&mut self, mut at: usize, expected: &[u8], same: fn(u8, u8) -> bool) -> Option<usize> {
        for &byte in expected {
            // A character may be a zero itself.
            let found = match self.text.get(at) {
                Some(&found) if same(found, byte) => Some((found, at + 1)),
                _ => self.next(at),
            };
            let (found, behind) = found?;
            if !same(found, byte) {
                return None;
            }
            at = behind;
        }
        Some(at)
    }

    /// These bytes, no zeros between them.
    fn raw(&mut self, at: usize, expected: &[u8]) -> Option<usize> {
        let there = self.text.get(at..).unwrap_or_default();
        self.is_cut |= there.len() < expected.len() && expected.starts_with(there);
        there.starts_with(expected).then_some(at + expected.len())
    }

    /// The next byte that is not a zero, and where it ends.
    fn next(&mut self, at: usize) -> Option<(u8, usize)> {
        for skipped in 0..=ZEROS_MAX {
            match self.text.get(at + skipped) {
                None => {
                    self.is_cut = true;
                    return None;
                }
                Some(0) if skipped < ZEROS_MAX => {}
                Some(byte) => return Some((*byte, at + skipped + 1)),
            }
        }
        None
    }

    fn skip_blanks(&mut self, mut at: usize) -> usize {
        for _ in 0..BLANKS_MAX {
            match self.next(at) {
                Some((b' ' | b'\t', behind)) => at = behind,
                _ => break,
            }
        }
        at
    }
}
