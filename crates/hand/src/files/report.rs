//! The lines of a search's result: those that are asked for, as far as there is room, with the number of all.

use std::fmt::Write as _;

use palisade_hand_protocol::FILE_RESULT_TEXT_BYTES_MAX;

/// What one search shows, in bytes; the rest is room for notes.
const REPORT_BYTES_MAX: usize = FILE_RESULT_TEXT_BYTES_MAX - 3 * 1024;
/// Lines of a result that are shown when the call does not say how many.
const LINES_DEFAULT: usize = 1_000;

/// Counts every line and keeps those of one page.
pub(super) struct Report {
    text: String,
    skip: usize,
    limit: usize,
    total: usize,
    shown: usize,
    /// A line did not fit; none after it is shown.
    is_full: bool,
}

impl Report {
    /// A page of `limit` lines after the first `offset`; no limit and one of 0 are the usual one.
    pub(super) fn new(limit: Option<u64>, offset: Option<u64>) -> Self {
        let number = |number: Option<u64>| usize::try_from(number.unwrap_or(0)).unwrap_or(usize::MAX);
        let limit = match number(limit) {
            0 => LINES_DEFAULT,
            limit => limit,
        };
        Self { text: String::new(), skip: number(offset), limit, total: 0, shown: 0, is_full: false }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// Takes the next line.
    pub(super) fn add(&mut self, line: impl std::fmt::Display) {
        self.total += 1;
        if self.total <= self.skip || self.shown == self.limit || self.is_full {
            return;
        }
        let before = self.text.len();
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{line}");
        if self.text.len() > REPORT_BYTES_MAX {
            self.text.truncate(before);
            self.is_full = true;
        } else {
            self.shown += 1;
        }
    }

    /// A line between groups of lines, which counts for none.
    pub(super) fn separate(&mut self) {
        if self.shown > 0 && self.shown < self.limit && !self.is_full {
            self.text.push_str("--\n");
        }
    }

    /// The page, and how to see the others.
    pub(super) fn finish(mut self, noun: &str, notes: &[String]) -> String {
        if self.text.ends_with("--\n") {
            self.text.truncate(self.text.len() - 3);
        }
        let last = self.skip.saturating_add(self.shown);
        if self.shown == 0 && self.total > 0 {
            let _ = writeln!(self.text, "[there are {} {noun}; none after {}]", self.total, self.skip);
        } else if last < self.total {
            let _ = writeln!(
                self.text,
                "[{noun} {} to {last} of {}; go on with offset={last}, or narrow the pattern or the path]",
                self.skip + 1,
                self.total
            );
        } else if self.skip > 0 {
            let _ = writeln!(self.text, "[{noun} {} to {last} of {}]", self.skip + 1, self.total);
        }
        for note in notes {
            let _ = writeln!(self.text, "[note: {note}]");
        }
        self.text
    }
}
