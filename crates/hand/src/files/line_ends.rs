//! Ends of lines: what `Read` shows has none, so what a model writes is LF, and a file may have any, and mixed.

use std::ops::Range;

/// A text with LF ends, and the way back.
pub(super) struct Plain {
    pub(super) text: String,
    /// Where in `text` an LF stands before which a CR was left out.
    folded: Vec<usize>,
}

impl Plain {
    pub(super) fn of(raw: &str) -> Self {
        if !raw.contains('\n') {
            return Self { text: raw.replace('\r', "\n"), folded: Vec::new() };
        }
        let mut text = String::with_capacity(raw.len());
        let mut folded = Vec::new();
        let mut pieces = raw.split("\r\n").peekable();
        while let Some(piece) = pieces.next() {
            text.push_str(piece);
            if pieces.peek().is_some() {
                folded.push(text.len());
                text.push('\n');
            }
        }
        Self { text, folded }
    }

    /// The bytes of the raw text that these of the plain one come from.
    pub(super) fn raw(&self, plain: Range<usize>) -> Range<usize> {
        let back = |at: usize| at + self.folded.partition_point(|folded| *folded < at);
        back(plain.start)..back(plain.end)
    }
}

/// `new` with the ends that the text has which it replaces: line by line, and after those the ends around it.
pub(super) fn as_in(new: &str, raw: &str, replaced: Range<usize>) -> String {
    let new = new.replace("\r\n", "\n");
    if !new.contains('\n') || !raw.contains('\r') {
        return new;
    }
    let has_lf = raw.contains('\n');
    let around = || {
        let after = ends(&raw[replaced.end..], has_lf).next();
        after.or_else(|| ends(&raw[..replaced.start], has_lf).last())
    };
    let mut own: Vec<&str> = ends(&raw[replaced.clone()], has_lf).collect();
    own.extend(own.is_empty().then(around).flatten());
    let mut written = String::with_capacity(new.len());
    let mut lines = new.split('\n').enumerate().peekable();
    while let Some((at, line)) = lines.next() {
        written.push_str(line);
        if lines.peek().is_some() {
            written.push_str(own.get(at).or(own.last()).copied().unwrap_or("\n"));
        }
    }
    written
}

/// The end that every line has, when it is another than LF.
pub(super) fn of_all(raw: &str) -> Option<&'static str> {
    let crlf = raw.matches("\r\n").count();
    (crlf > 0 && crlf == raw.matches('\n').count()).then_some("\r\n")
}

/// The ends of lines in their order. A CR alone ends a line where the whole text has no LF.
fn ends(raw: &str, has_lf: bool) -> impl Iterator<Item = &str> {
    let end = move |c: char| c == '\n' || (c == '\r' && !has_lf);
    raw.match_indices(end).map(move |(at, end)| match raw[..at].ends_with('\r') && end == "\n" {
        true => &raw[at - 1..at + 1],
        false => end,
    })
}
