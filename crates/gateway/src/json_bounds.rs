//! How deep and how wide a JSON text is, told from its bytes as they come. A tree of it takes a hundred times the text's memory
//! where values are small, so that this is looked at before there is a tree. It must never accept what a reader would find
//! deeper or wider: what is no JSON it may count as it likes.

use palisade_protocol::limits;

/// What a text has too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TooMuch {
    /// Arrays and objects within each other.
    Depth,
    /// Values, each object, array and their members counted.
    Values,
}

/// Counts while the text comes.
#[derive(Debug, Default)]
pub(crate) struct JsonBounds {
    depth: usize,
    values: usize,
    in_string: bool,
    is_escaped: bool,
}

impl JsonBounds {
    /// Takes the text's next bytes.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<(), TooMuch> {
        for byte in bytes {
            if self.in_string {
                match byte {
                    _ if self.is_escaped => self.is_escaped = false,
                    b'\\' => self.is_escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                // One for itself and one for its first member; each comma is one more.
                b'{' | b'[' => {
                    self.depth += 1;
                    self.values += 2;
                }
                b',' => self.values += 1,
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
            if self.depth > limits::JSON_DEPTH_MAX {
                return Err(TooMuch::Depth);
            }
            if self.values > limits::JSON_VALUES_MAX {
                return Err(TooMuch::Values);
            }
        }
        Ok(())
    }

    /// What a tree of the text may take beside the text itself, in bytes.
    pub(crate) fn tree_bytes(&self) -> usize {
        self.values * limits::JSON_VALUE_BYTES
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn told(text: &str) -> Result<usize, TooMuch> {
        let mut bounds = JsonBounds::default();
        bounds.feed(text.as_bytes()).map(|()| bounds.values)
    }

    #[test]
    fn depth_and_number_are_bounded_and_texts_are_not() {
        let (depth, values) = (limits::JSON_DEPTH_MAX, limits::JSON_VALUES_MAX);
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let wide = |members: usize| format!("[{}0]", "0,".repeat(members - 1));
        for (text, expected) in [
            (deep(depth), Ok(2 * depth)),
            (deep(depth + 1), Err(TooMuch::Depth)),
            (wide(values - 1), Ok(values)),
            (wide(values), Err(TooMuch::Values)),
            (format!("\"{}\"", "[{,".repeat(values)), Ok(0)),
            (format!("[\"{}\\\"{}\"]", "[".repeat(values), "\\\\[".repeat(values)), Ok(2)),
            (format!("{{\"a\":[{}]}}", "{\"\":0},".repeat(values)), Err(TooMuch::Values)),
        ] {
            assert_eq!(told(&text), expected, "{}", &text[..text.len().min(60)]);
        }
    }

    fn size(value: &Value) -> usize {
        1 + match value {
            Value::Array(members) => members.iter().map(size).sum(),
            Value::Object(members) => members.values().map(size).sum(),
            _ => 0,
        }
    }

    #[test]
    fn no_tree_has_more_values_than_were_counted_wherever_the_text_is_cut() {
        for text in [
            r#"{"a":[1,"]\\",{"}":"\"{"}],"b":{},"c":[[],[[]]]}"#,
            r#"[{"":0},{"":0},{"":[{"":0}]}]"#,
            r#"{"\\":"\\","x":"\u005b[\"[","y":[null,true,-1.5e3]}"#,
        ] {
            let counted = told(text).unwrap();
            assert!(counted >= size(&serde_json::from_str(text).unwrap()), "{text}: {counted}");
            for cut in 0..text.len() {
                let (first, second) = text.as_bytes().split_at(cut);
                let mut bounds = JsonBounds::default();
                bounds.feed(first).and_then(|()| bounds.feed(second)).unwrap();
                assert_eq!((bounds.values, bounds.depth), (counted, 0), "{text} cut at {cut}");
            }
        }
    }
}
