//! JSON that leaves as one line: an event's data, a line of NDJSON, a line of a log.
//!
//! JSON escapes the line ends of ASCII. Readers that split lines as Unicode has them (Python's `splitlines`, and so
//! httpx and requests) also break at U+0085, U+2028 and U+2029, which JSON allows as they are.

const LINE_ENDS: [char; 3] = ['\u{85}', '\u{2028}', '\u{2029}'];

/// The same JSON, which no reader takes for more than one line. Outside of strings these characters cannot stand in
/// JSON, so escaping them does not change what it says.
pub fn one_line(json: String) -> String {
    if !json.contains(LINE_ENDS) {
        return json;
    }
    let mut escaped = String::with_capacity(json.len() + 64);
    for character in json.chars() {
        match character {
            '\u{85}' => escaped.push_str("\\u0085"),
            '\u{2028}' => escaped.push_str("\\u2028"),
            '\u{2029}' => escaped.push_str("\\u2029"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_a_reader_of_lines_breaks_at_is_escaped() {
        let value = json!({"a\u{2028}b": "c\u{2029}d\u{85}e\u{b}\u{c}\u{1c}\u{1d}\u{1e}\r\nf é 東 😀"});
        let line = one_line(value.to_string());
        let breaks =
            ['\n', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}', '\u{2029}'];
        assert!(!line.contains(breaks), "{line:?}");
        assert!(line.contains("é 東 😀"), "{line:?}");
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), value);
    }
}
