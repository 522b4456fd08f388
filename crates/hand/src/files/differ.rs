//! Why a text does not occur in a file: the character that is another one, what was copied along, or the text that is
//! nearest. It helps a model to its next call, and never decides what is replaced.

use super::characters::{fold, named};

/// A larger text is not looked through for reasons, in bytes.
const TEXT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Lines that are compared for likeness, and how much of each, in characters.
const LINES_MAX: usize = 50_000;
const LINE_CHARS_MAX: usize = 300;
/// Lines of the file that are shown.
const LINES_SHOWN_MAX: usize = 12;
/// How like a line the nearest one must be to be shown, from 0 to 1.
const LIKENESS_MIN: f64 = 0.6;

const BARE: &str = "old_string does not occur; it must match exactly, white space included.";

/// The reason, in whole sentences.
pub(super) fn explain(text: &str, old: &str) -> String {
    if text.len() > TEXT_BYTES_MAX {
        return BARE.into();
    }
    other_characters(text, old)
        .or_else(|| copied_along(text, old))
        .or_else(|| other_case(text, old))
        .or_else(|| nearest(text, old))
        .unwrap_or_else(|| BARE.into())
}

/// A text as a reader sees it, and where in the original each byte of it comes from.
struct Folded {
    text: String,
    origin: Vec<usize>,
}

impl Folded {
    /// Blanks of any kind and number are one, and those at the ends are left out.
    fn of(original: &str) -> Self {
        let mut folded = Self { text: String::new(), origin: Vec::new() };
        for (at, c) in original.char_indices() {
            fold(c, |c| {
                if c != ' ' || !(folded.text.is_empty() || folded.text.ends_with(' ')) {
                    folded.text.push(c);
                    folded.origin.resize(folded.text.len(), at);
                }
            });
        }
        folded
    }

    /// Where in `original` the first text begins and ends that is the same as `other`.
    fn find(&self, other: &str, original: &str) -> Option<(usize, usize)> {
        let at = self.text.find(other)?;
        let last = *self.origin.get(at + other.len() - 1)?;
        Some((*self.origin.get(at)?, original[last..].chars().next().map_or(last, |c| last + c.len_utf8())))
    }
}

fn other_characters(text: &str, old: &str) -> Option<String> {
    let wanted = Folded::of(old);
    let wanted = wanted.text.trim_end();
    if wanted.is_empty() {
        return None;
    }
    let (start, end) = Folded::of(text).find(wanted, text)?;
    // The blanks around it are a part of what was given.
    let (lead, trail) = (&old[..old.len() - old.trim_start().len()], &old[old.trim_end().len()..]);
    let start = start - blanks(text[..start].chars().rev(), lead);
    let end = end + blanks(text[end..].chars(), trail);
    let there = &text[start..end];
    let line = text[..start].matches('\n').count() + 1;
    let ended = || std::iter::once(None);
    let (at, (file, model)) = there
        .chars()
        .map(Some)
        .chain(ended())
        .zip(old.chars().map(Some).chain(ended()))
        .enumerate()
        .find(|(_, (file, model))| file != model)?;
    let line_there = line + there.chars().take(at).filter(|c| *c == '\n').count();
    let name = |c: Option<char>| c.map_or_else(|| "nothing".to_owned(), named);
    Some(format!(
        "old_string does not occur, but nearly, from line {line} on: at line {line_there} the file has {} where old_string has \
         {}. The file has there:\n{}",
        name(file),
        name(model),
        numbered(text, line, there)
    ))
}

/// How many bytes of blanks come next, as far as `given` has as many characters and as many ends of lines.
fn blanks(next: impl Iterator<Item = char>, given: &str) -> usize {
    let mut ends = given.matches('\n').count();
    let is_given = |c: &char| match c {
        '\n' if ends == 0 => false,
        '\n' => {
            ends -= 1;
            true
        }
        c => c.is_whitespace(),
    };
    next.take(given.chars().count()).take_while(is_given).map(char::len_utf8).sum()
}

/// What is not of the file: the numbers that `Read` shows, and ways to write characters elsewhere.
fn copied_along(text: &str, old: &str) -> Option<String> {
    let occurs =
        |other: String| (other != old && !other.trim().is_empty() && text.contains(&other)).then_some(());
    let without_number = |line: &str| {
        let (number, rest) = line.split_once('\t')?;
        number.trim().parse::<u64>().ok().map(|_| rest.to_owned())
    };
    if let Some(lines) = old.lines().map(without_number).collect::<Option<Vec<_>>>()
        && occurs(lines.join("\n")).is_some()
    {
        return Some(
            "old_string has the line numbers that Read shows; leave them and the tab after them out.".into(),
        );
    }
    if occurs(old.replace("\\n", "\n").replace("\\t", "\t").replace("\\\"", "\"")).is_some() {
        return Some(
            "old_string has a backslash and a letter where the file has the character itself.".into(),
        );
    }
    let plain = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")];
    occurs(plain.iter().fold(old.to_owned(), |text, (entity, c)| text.replace(entity, c))).map(|()| {
        "old_string has HTML's names of characters (such as &lt;) where the file has the characters.".into()
    })
}

fn other_case(text: &str, old: &str) -> Option<String> {
    let (lower, old) = (text.to_lowercase(), old.to_lowercase());
    let at = lower.find(&old)?;
    let line = lower[..at].matches('\n').count() + 1;
    let height = old.matches('\n').count() + 1;
    Some(format!(
        "old_string does not occur, but at line {line} it does in other upper and lower case. The file has there:\n{}",
        block(text, line, height)
    ))
}

/// The lines that are most like the longest line of `old`.
fn nearest(text: &str, old: &str) -> Option<String> {
    let start = |line: &str| line.trim().chars().take(LINE_CHARS_MAX).collect::<String>();
    let (at, longest) = old.lines().enumerate().max_by_key(|(_, line)| line.trim().len())?;
    let longest = start(longest);
    let likeness = |line: &str| strsim::sorensen_dice(&longest, &start(line));
    let (best, found) = text
        .lines()
        .take(LINES_MAX)
        .map(likeness)
        .enumerate()
        .max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)))
        .filter(|(_, likeness)| *likeness >= LIKENESS_MIN)
        .map(|(line, likeness)| (line + 1, likeness))?;
    let first = best.saturating_sub(at).max(1);
    let lines = || text.lines().skip(first - 1);
    let other = lines().zip(old.lines()).position(|(file, model)| file != model);
    let which = match other {
        Some(other) if found == 1.0 || other > 0 => {
            format!("; the first line that differs is {}", first + other)
        }
        _ => String::new(),
    };
    Some(format!(
        "{BARE} The nearest text is at line {first}{which}:\n{}",
        block(text, first, old.lines().count())
    ))
}

fn numbered(text: &str, line: usize, there: &str) -> String {
    block(text, line, there.matches('\n').count() + 1)
}

/// Whole lines with their numbers, as `Read` shows them.
fn block(text: &str, first: usize, height: usize) -> String {
    let lines = (first..).zip(text.lines().skip(first - 1)).take(height.min(LINES_SHOWN_MAX));
    let shown = lines.map(|(number, line)| {
        let line: String = line.chars().take(LINE_CHARS_MAX).collect();
        format!("{number:>6}\t{line}")
    });
    shown.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_named() {
        for (text, old, says) in [
            (
                "x\nsay \u{201c}hi\u{201d}\n",
                "say \"hi\"",
                "line 2 the file has U+201C (curly double quotation mark) where old_string has U+0022",
            ),
            ("it\u{2019}s", "it's", "U+2019 (curly single quotation mark)"),
            ("10\u{a0}km", "10 km", "U+00A0 (no-break space) where old_string has U+0020 (space)"),
            ("a \u{2014} b", "a - b", "U+2014 (em dash)"),
            ("cafe\u{301}", "caf\u{e9}", "the file has 'e' (U+0065) where old_string has 'é' (U+00E9)"),
            ("caf\u{e9}", "cafe\u{301}", "the file has 'é' (U+00E9) where old_string has 'e' (U+0065)"),
            ("a\u{200b}b", "ab", "U+200B (zero-width space)"),
            ("wait\u{2026}", "wait...", "U+2026 (ellipsis)"),
            (
                "if x:\n\treturn\n",
                "if x:\n    return",
                "line 2 the file has U+0009 (tab) where old_string has U+0020 (space)",
            ),
            ("if x:\n  y\n", "if x:\n    y", "the file has 'y' (U+0079) where old_string has U+0020 (space)"),
            (
                "a  \nb\n",
                "a\nb",
                "line 1 the file has U+0020 (space) where old_string has U+000A (end of line)",
            ),
            ("a\nb", "a\nb\n", "the file has nothing where old_string has U+000A (end of line)"),
            (
                "x\n\treturn 1\n",
                "    return 1",
                "line 2 the file has U+0009 (tab) where old_string has U+0020 (space)",
            ),
            ("x\nalpha beta\n", "     2\talpha beta", "line numbers that Read shows"),
            ("a\nb", "a\\nb", "a backslash and a letter"),
            ("if a < b", "if a &lt; b", "HTML's names"),
            ("x\nHello World", "hello world", "at line 2 it does in other upper and lower case"),
            (
                "one\ndef total(items):\n    return sum(items)\n",
                "def total(item):\n    return sum(item)",
                "nearest text is at line 2",
            ),
            ("a = 1\nb = 2\nc = 3\n", "a = 1\nb = 9\nc = 3", "differs is 2:\n     1\ta = 1\n     2\tb = 2"),
            ("one", "something quite other", BARE),
            ("", "x", BARE),
        ] {
            let reason = explain(text, old);
            assert!(reason.contains(says), "{text:?} {old:?}: {reason}");
        }
    }
}
