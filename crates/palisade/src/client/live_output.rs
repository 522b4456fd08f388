//! What a running command prints, indented and bounded.
//!
//! On a terminal a window of the last lines is redrawn in place; elsewhere the first lines go out as they come and
//! the last ones at the end, with a line between them that says how many are missing. Holds a bounded number of
//! bounded lines, whatever a command prints.

use std::collections::VecDeque;

use super::text;

/// Lines of one command that stay visible; elsewhere than on a terminal as many again from its start.
const LINES_MAX: usize = 8;
/// Bytes kept of a line that does not end.
const LINE_BYTES_MAX: usize = 4096;

/// The output of one call.
#[derive(Debug, Default)]
pub(super) struct LiveOutput {
    partial: String,
    /// A carriage return was the last thing said; what follows replaces the line.
    restarts: bool,
    last: VecDeque<String>,
    /// The last line that ended, wherever it is shown.
    newest: String,
    lines: u64,
    printed: u64,
    drawn_rows: usize,
}

/// How lines are shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct OutputStyle {
    /// Whether a window can be redrawn.
    pub live: bool,
    /// Whether to dim.
    pub colour: bool,
    /// Columns of a line, frame included.
    pub columns: usize,
}

impl LiveOutput {
    /// Whether anything was printed.
    pub(super) fn is_empty(&self) -> bool {
        self.lines == 0 && self.partial.is_empty()
    }

    /// Forgets where the window was drawn: something else stands beneath it now.
    pub(super) fn detach(&mut self) {
        self.drawn_rows = 0;
    }

    /// Takes the next piece; returns what to write now.
    pub(super) fn push(&mut self, content: &str, style: OutputStyle) -> String {
        let mut now = String::new();
        let mut rest = content;
        while let Some(end) = rest.find('\n') {
            self.extend_partial(&rest[..end]);
            rest = &rest[end + 1..];
            now.push_str(&self.end_line(style));
        }
        self.extend_partial(rest);
        if style.live { self.redraw(style) } else { now }
    }

    /// The end of the output; returns what is still to be written.
    pub(super) fn finish(&mut self, style: OutputStyle) -> String {
        let mut now = String::new();
        if !self.partial.is_empty() {
            now.push_str(&self.end_line(style));
        }
        if style.live {
            return self.redraw(style);
        }
        now.push_str(&missing(self.lines - self.printed - self.last.len() as u64, "not shown", style));
        now.extend(self.last.drain(..).map(|line| framed(&line, style)));
        now
    }

    /// Whether the given line is the last one.
    pub(super) fn ends_with(&self, line: &str) -> bool {
        let last = if self.partial.is_empty() { &self.newest } else { &self.partial };
        last.trim() == line.trim()
    }

    fn extend_partial(&mut self, piece: &str) {
        for (at, part) in piece.split('\r').enumerate() {
            // A progress bar writes its line again from the start; only its latest state is of interest.
            self.restarts |= at > 0;
            if part.is_empty() {
                continue;
            }
            if std::mem::take(&mut self.restarts) {
                self.partial.clear();
            }
            let mut room = LINE_BYTES_MAX.saturating_sub(self.partial.len()).min(part.len());
            while !part.is_char_boundary(room) {
                room -= 1;
            }
            self.partial.push_str(&part[..room]);
        }
    }

    fn end_line(&mut self, style: OutputStyle) -> String {
        let line = std::mem::take(&mut self.partial);
        self.restarts = false;
        self.lines += 1;
        self.newest.clone_from(&line);
        if !style.live && self.printed < LINES_MAX as u64 {
            self.printed += 1;
            return framed(&line, style);
        }
        if self.last.len() == LINES_MAX {
            self.last.pop_front();
        }
        self.last.push_back(line);
        String::new()
    }

    fn redraw(&mut self, style: OutputStyle) -> String {
        let mut rows: Vec<String> = self.last.iter().map(|line| framed(line, style)).collect();
        if !self.partial.is_empty() {
            rows.push(framed(&self.partial, style));
        }
        let hidden = self.lines as usize - self.last.len() + rows.len().saturating_sub(LINES_MAX);
        rows.drain(..rows.len().saturating_sub(LINES_MAX));
        let header = missing(hidden as u64, "before", style);
        let erase =
            if self.drawn_rows > 0 { format!("\x1b[{}A\x1b[J", self.drawn_rows) } else { String::new() };
        self.drawn_rows = rows.len() + usize::from(!header.is_empty());
        format!("{erase}{header}{}", rows.concat())
    }
}

/// A line of output behind its frame; never wider than the terminal, or a redraw would miss its rows.
pub(super) fn framed(line: &str, style: OutputStyle) -> String {
    let line = text::one_line(line, style.columns.saturating_sub(5));
    if style.colour { format!("  \x1b[2m│ {line}\x1b[0m\n") } else { format!("  │ {line}\n") }
}

fn missing(lines: u64, what: &str, style: OutputStyle) -> String {
    match lines {
        0 => String::new(),
        lines => framed(&format!("… {} {what}", text::lines(lines)), style),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: OutputStyle = OutputStyle { live: false, colour: false, columns: 40 };
    const LIVE: OutputStyle = OutputStyle { live: true, colour: false, columns: 40 };

    /// What a terminal would show after these bytes; knows the two sequences that are used.
    fn screen(bytes: &str) -> Vec<String> {
        let mut rows: Vec<String> = Vec::new();
        for row in bytes.split_inclusive('\n') {
            let mut row = row;
            if let Some(rest) = row.strip_prefix("\x1b[") {
                let (up, rest) = rest.split_once("A\x1b[J").unwrap();
                rows.truncate(rows.len() - up.parse::<usize>().unwrap());
                row = rest;
            }
            if !row.is_empty() {
                rows.push(row.trim_end_matches('\n').to_owned());
            }
        }
        rows
    }

    #[test]
    fn long_output_shows_its_start_and_its_end() {
        let mut output = LiveOutput::default();
        let text: String = (1..=100).map(|n| format!("line {n}\n")).collect();
        let shown = output.push(&text, PLAIN) + &output.finish(PLAIN);
        let rows: Vec<&str> = shown.lines().collect();
        assert_eq!(rows.len(), 2 * LINES_MAX + 1);
        assert_eq!(
            [rows[0], rows[7], rows[8], rows[9], rows[16]],
            ["  │ line 1", "  │ line 8", "  │ … 84 lines not shown", "  │ line 93", "  │ line 100"]
        );
    }

    #[test]
    fn a_terminal_shows_the_last_lines_in_place_however_the_pieces_are_cut() {
        let text: String = (1..=30).map(|n| format!("line {n}\n")).collect::<String>() + "no newline";
        for step in [1, 3, 7, 1000] {
            let mut output = LiveOutput::default();
            let pieces: Vec<&str> =
                text.as_bytes().chunks(step).map(|p| std::str::from_utf8(p).unwrap()).collect();
            let mut bytes: String = pieces.iter().map(|piece| output.push(piece, LIVE)).collect();
            bytes.push_str(&output.finish(LIVE));
            let rows = screen(&bytes);
            assert_eq!(rows.len(), LINES_MAX + 1, "{rows:?}");
            assert_eq!(rows[0], "  │ … 23 lines before");
            assert_eq!(rows[1], "  │ line 24");
            assert_eq!(rows[8], "  │ no newline");
        }
    }

    #[test]
    fn a_progress_bar_is_one_line() {
        let mut output = LiveOutput::default();
        let mut shown = String::new();
        for piece in ["10%\r", "50%\r", "100%\r\n", "done\r\n"] {
            shown.push_str(&output.push(piece, PLAIN));
        }
        shown.push_str(&output.finish(PLAIN));
        assert_eq!(shown, "  │ 100%\n  │ done\n");
    }

    #[test]
    fn a_line_without_end_takes_bounded_memory() {
        let mut output = LiveOutput::default();
        for _ in 0..100 {
            output.push(&"é".repeat(10_000), PLAIN);
            output.push(&format!("\r{}", "é".repeat(10_000)), PLAIN);
        }
        assert!(output.partial.len() <= LINE_BYTES_MAX);
        assert_eq!(output.finish(PLAIN), format!("  │ {}…\n", "é".repeat(16)));
    }
}
