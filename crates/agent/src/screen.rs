//! What a terminal would be left with of a command's output, line by line: the form in which a model reads it. Of a
//! line that is overwritten the last frame stays, codes for colours and cursors go, and what is not text is marked.
//! What was changed on the way is counted, so that it can be said.

use crate::output::HeadTail;

/// A longer line can no longer be overwritten, in bytes.
const LINE_BYTES_MAX: usize = 16 * 1024;
/// The parameters of one control sequence that are looked at, in bytes.
const PARAMETERS_BYTES_MAX: usize = 16;
const ESCAPE: char = '\u{1b}';

/// Takes output of any length as it comes, and keeps as much of its head and tail as will be shown.
#[derive(Debug)]
pub struct Screen {
    kept: HeadTail,
    /// The line that the cursor is in.
    line: String,
    /// The cursor is at the line's start: what comes next overwrites it.
    is_rewound: bool,
    /// The line was too long to be held and is kept in parts.
    is_long: bool,
    escape: Escape,
    /// The first bytes of a character whose end has not come yet.
    unfinished: Vec<u8>,
    frames: u64,
    replaced: u64,
    controls: u64,
}

/// Where in a terminal's escape sequence the output is.
#[derive(Debug, PartialEq)]
enum Escape {
    No,
    /// After the escape character and intermediate bytes.
    Begun,
    /// A control sequence; its parameters so far.
    Control(String),
    /// A title or the like, up to its end; whether that has begun.
    Text {
        is_ending: bool,
    },
}

impl Screen {
    /// Keeps at most `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            kept: HeadTail::new(bytes_max),
            line: String::new(),
            is_rewound: false,
            is_long: false,
            escape: Escape::No,
            unfinished: Vec::new(),
            frames: 0,
            replaced: 0,
            controls: 0,
        }
    }

    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.unfinished.is_empty() {
            return self.decode(bytes);
        }
        let mut all = std::mem::take(&mut self.unfinished);
        all.extend_from_slice(bytes);
        self.decode(&all);
    }

    /// The text for the model, and what it should know of it.
    pub fn into_text(mut self) -> (String, Vec<String>) {
        if !self.unfinished.is_empty() {
            self.replaced += 1;
            self.show("\u{fffd}");
        }
        self.kept.push(self.line.as_bytes());
        let cut = self.kept.cut() as u64;
        let counted = [
            (
                cut,
                "bytes of output",
                "were cut from its middle; to read them, run the command again with `> $TMPDIR/out.txt 2>&1` and read that file in parts",
            ),
            (self.frames, "overwritten states of a line", "are left out; the last one is shown"),
            (
                self.replaced,
                "places that are not UTF-8",
                "are shown as U+FFFD; the bytes themselves are unchanged (see `od -c`, `iconv`)",
            ),
            (self.controls, "control characters", "are left out"),
        ];
        let notes = counted.into_iter().filter(|(count, ..)| *count > 0);
        let notes = notes.map(|(count, what, how)| format!("{what}: {count}, which {how}")).collect();
        (self.kept.into_text(), notes)
    }

    fn decode(&mut self, bytes: &[u8]) {
        let mut chunks = bytes.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            self.take(chunk.valid());
            let invalid = chunk.invalid();
            if invalid.is_empty() {
                continue;
            }
            let is_cut = std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none());
            if is_cut && chunks.peek().is_none() {
                self.unfinished = invalid.to_vec();
            } else {
                self.replaced += 1;
                self.take("\u{fffd}");
            }
        }
    }

    /// Plain runs go by at once, everything else one character at a time.
    fn take(&mut self, mut text: &str) {
        while let Some(next) = text.chars().next() {
            let plain = match self.escape {
                Escape::No => text.bytes().position(is_special).unwrap_or(text.len()),
                _ => 0,
            };
            if plain > 0 {
                self.show(&text[..plain]);
                text = &text[plain..];
            } else {
                self.step(next);
                text = &text[next.len_utf8()..];
            }
        }
    }

    /// Text without any control but the end of a line.
    fn show(&mut self, mut text: &str) {
        if let Some(end) = text.rfind('\n') {
            let (first, rest) = text[..=end].split_at(text.find('\n').unwrap_or(end) + 1);
            self.extend(&first[..first.len() - 1]);
            self.end_line();
            self.kept.push(rest.as_bytes());
            text = &text[end + 1..];
        }
        self.extend(text);
    }

    /// More of the current line.
    fn extend(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        if std::mem::take(&mut self.is_rewound) && !self.line.is_empty() {
            self.frames += 1;
            self.line.clear();
        }
        self.line.push_str(text);
        if self.line.len() > LINE_BYTES_MAX {
            self.kept.push(self.line.as_bytes());
            self.line.clear();
            self.is_long = true;
        }
    }

    fn end_line(&mut self) {
        self.line.push('\n');
        self.kept.push(self.line.as_bytes());
        self.line.clear();
        (self.is_rewound, self.is_long) = (false, false);
    }

    /// The cursor goes to the start of the line. What is kept of a long one stays, as a line of its own.
    fn rewind(&mut self) {
        match self.is_long {
            true => self.end_line(),
            false => self.is_rewound = true,
        }
    }

    fn step(&mut self, next: char) {
        match std::mem::replace(&mut self.escape, Escape::No) {
            Escape::No => self.control(next),
            Escape::Begun => match next {
                '[' => self.escape = Escape::Control(String::new()),
                ']' | 'P' | 'X' | '^' | '_' => self.escape = Escape::Text { is_ending: false },
                ' '..='/' => self.escape = Escape::Begun,
                '0'..='~' => {}
                other => self.control(other),
            },
            Escape::Control(mut parameters) => match next {
                ' '..='?' => {
                    if parameters.len() < PARAMETERS_BYTES_MAX {
                        parameters.push(next);
                    }
                    self.escape = Escape::Control(parameters);
                }
                '@'..='~' => self.command(&parameters, next),
                other => self.control(other),
            },
            // A title that never ends must not take the rest of the output with it: a line's end ends it, too.
            Escape::Text { is_ending } => match next {
                '\u{7}' => {}
                '\n' => self.control(next),
                '\\' if is_ending => {}
                _ => self.escape = Escape::Text { is_ending: next == ESCAPE },
            },
        }
    }

    /// Erasing the line and going to its first column mean that it is written anew.
    fn command(&mut self, parameters: &str, command: char) {
        if matches!((command, parameters), ('K', "2") | ('G', "" | "0" | "1")) {
            self.rewind();
        }
    }

    fn control(&mut self, next: char) {
        match next {
            ESCAPE => self.escape = Escape::Begun,
            '\r' => self.rewind(),
            '\u{8}' => drop(self.line.pop()),
            '\u{7}' => {}
            '\0' => self.show("\u{2400}"),
            other if other.is_control() && !matches!(other, '\n' | '\t') => self.controls += 1,
            other => self.show(other.encode_utf8(&mut [0; 4])),
        }
    }
}

/// What a plain run ends at: controls, and the first byte of those that have two.
fn is_special(byte: u8) -> bool {
    (byte < b' ' && !matches!(byte, b'\n' | b'\t')) || matches!(byte, 0x7f | 0xc2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(output: &[u8]) -> (String, Vec<String>) {
        let mut screen = Screen::new(64 * 1024);
        screen.push(output);
        screen.into_text()
    }

    #[test]
    fn what_a_terminal_would_be_left_with() {
        for (output, expected) in [
            (&b"plain\ntext"[..], "plain\ntext"),
            (b"one\r\ntwo\r\n", "one\ntwo\n"),
            (b"10%\r50%\r100%\ndone\n", "100%\ndone\n"),
            (b"10%\r50%\r", "50%"),
            (b"Fetching\r\x1b[KDone\n", "Done\n"),
            (b"10%\x1b[2K\x1b[1G20%\x1b[2K\x1b[1Gready\n", "ready\n"),
            (b"\x1b[1;31merror\x1b[0m: \x1b[38;5;9mred\x1b[m", "error: red"),
            (b"\x1b]0;a title\x07text \x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "text link"),
            (b"\x1b]an endless title\nnext line", "\nnext line"),
            (b"\x1b(B\x1b=\x1b[?25lcursor\x1b[?25h", "cursor"),
            (b"N\x08NA\x08A |\x08/\x08-\x08done\x07", "NA done"),
            (b"a\0b\0", "a\u{2400}b\u{2400}"),
            ("é ¡ü! 東京 😀\n".as_bytes(), "é ¡ü! 東京 😀\n"),
            (b"caf\xe9 \xff\xfe!\n", "caf\u{fffd} \u{fffd}\u{fffd}!\n"),
            (b"cut \xf0\x9f\x98", "cut \u{fffd}"),
            ("\u{85}\u{9b}x".as_bytes(), "x"),
        ] {
            assert_eq!(shown(output).0, expected, "{:?}", String::from_utf8_lossy(output));
        }
    }

    #[test]
    fn what_was_changed_is_said() {
        let notes = |output: &[u8]| shown(output).1.join("; ");
        assert_eq!(notes("\x1b[31mé\x1b[m \u{fffd}\r\n".as_bytes()), "");
        assert_eq!(
            notes(b"1\r2\r3\n"),
            "overwritten states of a line: 2, which are left out; the last one is shown"
        );
        assert!(notes(b"\xff a \xff").starts_with("places that are not UTF-8: 2,"));
        assert_eq!(notes(b"\x01\x02"), "control characters: 2, which are left out");
    }

    #[test]
    fn an_error_among_twenty_thousand_frames_is_seen() {
        let mut screen = Screen::new(4096);
        for frame in 0..20_000 {
            screen.push(format!("{frame} of 20000 files\r").as_bytes());
            if frame == 9_999 {
                screen.push(b"error: disk on fire\n");
            }
        }
        let text = screen.into_text().0;
        assert_eq!(text, "error: disk on fire\n19999 of 20000 files");
    }

    #[test]
    fn a_line_without_an_end_is_bounded() {
        let mut screen = Screen::new(100);
        for _ in 0..1000 {
            screen.push(&[b'x'; 4096]);
            assert!(screen.line.len() <= LINE_BYTES_MAX + 4096);
        }
        screen.push(b"\rend");
        assert!(screen.into_text().0.ends_with("x\nend"));
    }

    proptest! {
        #[test]
        fn how_it_arrives_does_not_matter(
            output in prop::collection::vec(
                prop::sample::select(b"ab\n\r\x08\x1b[]2KG;m\x07\\\xc3\xa9\xff\0".to_vec()), 0..60),
            at in 0..60_usize,
        ) {
            let (first, rest) = output.split_at(at.min(output.len()));
            let mut screen = Screen::new(64 * 1024);
            screen.push(first);
            screen.push(rest);
            prop_assert_eq!(screen.into_text(), shown(&output));
        }
    }
}
