//! Text of others (models, tools, file names) made safe to print: what could steer a terminal is shown, not obeyed.
//!
//! Everything of the wire that reaches a terminal passes through here. Nothing here may let a control character
//! but newline and tab through, nor a character that reorders what stands around it.

use std::fmt::Write as _;

/// The same text with control characters spelled out (`\x1b`); newlines and tabs stay.
pub(super) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        push_visible(&mut shown, character);
    }
    shown
}

fn push_visible(shown: &mut String, character: char) {
    if !steers_a_terminal(character) {
        shown.push(character);
        return;
    }
    // Writing to a String cannot fail.
    let _ = match u32::from(character) {
        code @ 0..=0xff => write!(shown, "\\x{code:02x}"),
        code => write!(shown, "\\u{{{code:x}}}"),
    };
}

fn steers_a_terminal(character: char) -> bool {
    let reorders = matches!(character,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let breaks_lines = matches!(character, '\u{2028}' | '\u{2029}');
    reorders || breaks_lines || (character.is_control() && !matches!(character, '\n' | '\t'))
}

/// A line of JSON in which what could steer a terminal stands as `\\u009b`: the same value, for every reader of JSON. Such
/// characters stand in nothing but its strings.
pub(crate) fn json_line(json: &str) -> String {
    let mut line = String::with_capacity(json.len() + 1);
    for character in json.chars() {
        match character >= '\u{7f}' && steers_a_terminal(character) {
            // All of them have four digits.
            true => line.push_str(&format!("\\u{:04x}", u32::from(character))),
            false => line.push(character),
        }
    }
    line.push('\n');
    line
}

/// Whether a name could mislead a person or a terminal.
pub(super) fn misleads(character: char) -> bool {
    steers_a_terminal(character) || matches!(character, '\n' | '\t')
}

/// One line of at most `columns_max` columns: colours are dropped, newlines and tabs become spaces, the rest is
/// made [`visible`], and what is too long ends in `…`.
pub(crate) fn one_line(text: &str, columns_max: usize) -> String {
    // A line that cannot be shown is not worth escaping to its end: an escape makes a character six at most.
    let flat: String = without_colours(text)
        .chars()
        .take(columns_max + 1)
        .map(|c| if matches!(c, '\n' | '\t') { ' ' } else { c })
        .collect();
    cut(&visible(flat.trim_end()), columns_max)
}

/// Cuts to a width; a character that is not ASCII counts as two columns, because some are.
fn cut(text: &str, columns_max: usize) -> String {
    let mut columns = 0;
    let mut fits_until = 0;
    for (at, character) in text.char_indices() {
        columns += if character.is_ascii() { 1 } else { 2 };
        if columns > columns_max {
            return format!("{}…", &text[..fits_until]);
        }
        if columns + 2 <= columns_max {
            fits_until = at + character.len_utf8();
        }
    }
    text.to_owned()
}

/// Drops complete CSI sequences (colours, cursor moves): programs that believe they write to a terminal send them.
/// What remains of incomplete ones is for [`visible`] to show.
fn without_colours(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("\u{1b}[") {
        let parameters = &rest[at + 2..];
        let end = parameters.find(|c: char| !(' '..='?').contains(&c));
        match end.and_then(|end| parameters[end..].chars().next().map(|last| (end, last))) {
            Some((end, last)) if ('@'..='~').contains(&last) => {
                kept.push_str(&rest[..at]);
                rest = &parameters[end + 1..];
            }
            _ => {
                kept.push_str(&rest[..at + 2]);
                rest = parameters;
            }
        }
    }
    kept.push_str(rest);
    kept
}

/// `1.2 kB`, as people write it.
pub(super) fn size(bytes: u64) -> String {
    let mut amount = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if amount < 999.95 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{amount:.1} {unit}") };
        }
        amount /= 1000.0;
    }
    format!("{amount:.1} TB")
}

/// `1,234,567`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `1 line`, `2 lines`.
pub(super) fn lines(number: u64) -> String {
    format!("{} {}", count(number), if number == 1 { "line" } else { "lines" })
}

/// `1.2 s`, `3 min 05 s`.
pub(super) fn seconds(time_ms: u64) -> String {
    if time_ms < 100_000 {
        return format!("{:.1} s", time_ms as f64 / 1000.0);
    }
    let whole_s = time_ms / 1000;
    format!("{} min {:02} s", whole_s / 60, whole_s % 60)
}

/// How long ago, or how far ahead, in the largest whole unit: `5s`, `12m`, `3h`, `2d`.
pub(super) fn age(time_s: f64) -> String {
    let whole_s = time_s.max(0.0) as u64;
    match whole_s {
        0..60 => format!("{whole_s}s"),
        60..3600 => format!("{}m", whole_s / 60),
        3600..86_400 => format!("{}h", whole_s / 3600),
        _ => format!("{}d", whole_s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_steers_a_terminal_survives() {
        let hostile: String = (0..=0x2fff).filter_map(char::from_u32).chain("a\u{feff}".chars()).collect();
        for shown in [visible(&hostile), one_line(&hostile, 1_000_000)] {
            assert!(shown.chars().all(|c| c == '\n' || c == '\t' || !c.is_control()));
            assert!(!shown.contains(['\u{202e}', '\u{2066}', '\u{2028}', '\u{200f}']));
        }
        assert_eq!(
            visible("\u{1b}]0;title\u{7}\u{9b}2J\u{202e}ok\n"),
            "\\x1b]0;title\\x07\\x9b2J\\u{202e}ok\n"
        );
    }

    #[test]
    fn json_is_the_same_value_and_steers_no_terminal() {
        let hostile: String = (0..=0x2fff).filter_map(char::from_u32).chain("😀".chars()).collect();
        let json = serde_json::json!({ &hostile: [&hostile] });
        let line = json_line(&json.to_string());
        assert!(!line.trim_end_matches('\n').chars().any(steers_a_terminal) && line.ends_with('\n'));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap(), json);
        assert_eq!(
            json_line("{\"a\":\"\u{9b}2J\u{202e}\u{2028}é\"}"),
            "{\"a\":\"\\u009b2J\\u202e\\u2028é\"}\n"
        );
    }

    #[test]
    fn colours_go_and_halves_of_them_are_shown() {
        assert_eq!(one_line("\u{1b}[1;31mred\u{1b}[0m plain", 80), "red plain");
        assert_eq!(one_line("a\u{1b}[", 80), "a\\x1b[");
        assert_eq!(one_line("a\u{1b}[3\u{e9}", 80), "a\\x1b[3é");
        // Dropping one sequence must not assemble another.
        assert!(!one_line("\u{1b}\u{1b}[0m[2J", 80).contains('\u{1b}'));
    }

    #[test]
    fn a_line_is_cut_to_its_width() {
        assert_eq!(one_line("abcdef", 6), "abcdef");
        assert_eq!(one_line("abcdefg", 6), "abcd…");
        assert_eq!(one_line("日本語テキスト", 8), "日本語…");
        assert_eq!(one_line("a\nb\tc\n", 80), "a b c");
    }

    #[test]
    fn numbers_read_well() {
        assert_eq!([size(0), size(999), size(1_204), size(999_960)], ["0 B", "999 B", "1.2 kB", "1.0 MB"]);
        assert_eq!([count(7), count(1_000), count(1_234_567)], ["7", "1,000", "1,234,567"]);
        assert_eq!([seconds(1_240), seconds(185_000)], ["1.2 s", "3 min 05 s"]);
        assert_eq!([age(-3.0), age(61.0), age(90_000.0)], ["0s", "1m", "1d"]);
    }
}
