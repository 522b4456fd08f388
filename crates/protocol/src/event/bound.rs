//! The bound of one event's data: readers of lines have limits of their own, and lose what is longer.

use serde_json::{Value, json};

use super::Event;
use crate::limits::EVENT_DATA_BYTES_MAX;

/// What is left for a text of the largest event, in bytes of JSON: the envelope and three short fields take the rest.
const TEXT_BYTES_MAX: usize = EVENT_DATA_BYTES_MAX - 8 * 1024;
/// The same for an id or a name.
const NAME_BYTES_MAX: usize = 1024;

/// The event with its long fields cut.
pub(super) fn cut(event: Event) -> Event {
    match event {
        Event::ToolExecuting { name, id, input } => {
            // Its text was streamed before, so nobody has to read half of an object.
            let bytes = input.to_string().len();
            Event::ToolExecuting { name: cut_name(&name), id: cut_name(&id), input: not_shown(bytes) }
        }
        Event::ToolStart { name, id } => Event::ToolStart { name: cut_name(&name), id: cut_name(&id) },
        Event::ToolResult { id, content, is_error, code } => {
            Event::ToolResult { id: cut_name(&id), content: cut_text(&content), is_error, code }
        }
        Event::ToolOutputDelta { id, content } => {
            Event::ToolOutputDelta { id: cut_name(&id), content: cut_text(&content) }
        }
        Event::Failed { id, error, code } => {
            Event::Failed { id, error: cut_text(&error), code: cut_name(&code) }
        }
        Event::TextDelta { content } => Event::TextDelta { content: cut_text(&content) },
        Event::ThinkingDelta { content } => Event::ThinkingDelta { content: cut_text(&content) },
        Event::ToolInputDelta { content } => Event::ToolInputDelta { content: cut_text(&content) },
        other => other,
    }
}

fn not_shown(bytes: usize) -> Value {
    json!({"truncated": true, "bytes": bytes})
}

fn cut_text(text: &str) -> String {
    cut_middle(text, TEXT_BYTES_MAX)
}

fn cut_name(name: &str) -> String {
    cut_middle(name, NAME_BYTES_MAX)
}

/// Head and tail of a text, with a mark between them, so that it has at most `json_bytes_max` bytes as JSON.
fn cut_middle(text: &str, json_bytes_max: usize) -> String {
    if text.chars().map(json_bytes).sum::<usize>() <= json_bytes_max {
        return text.to_owned();
    }
    let half = (json_bytes_max - 100) / 2;
    let head: usize = fitting(text.chars(), half);
    let tail: usize = fitting(text[head..].chars().rev(), half);
    let left_out = text.len() - head - tail;
    format!("{}\n[{left_out} bytes are left out here]\n{}", &text[..head], &text[text.len() - tail..])
}

/// How many bytes of these characters have at most `json_bytes_max` bytes as JSON.
fn fitting(characters: impl Iterator<Item = char>, json_bytes_max: usize) -> usize {
    let mut left = json_bytes_max;
    let fits = |character: &char| {
        let needed = json_bytes(*character);
        let fits = needed <= left;
        left = left.saturating_sub(needed);
        fits
    };
    characters.take_while(fits).map(char::len_utf8).sum()
}

/// What a character takes in a JSON text of ours.
fn json_bytes(character: char) -> usize {
    match character {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' | '\u{85}' | '\u{2028}' | '\u{2029}' => 6,
        other => other.len_utf8(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use crate::TurnId;

    /// Long texts of what takes much room, and of what takes little.
    fn text() -> impl Strategy<Value = String> {
        let piece =
            select(vec!["a", "\0", "\"", "\n", "é", "東", "😀", "\u{85}", "\u{2028}", "\u{7f}", "</x>"]);
        (prop::collection::vec(piece, 1..6), 0usize..40_000)
            .prop_map(|(pieces, times)| pieces.concat().repeat(times / 3))
    }

    fn event() -> impl Strategy<Value = Event> {
        let turn = TurnId::from_random([7; 12]);
        (0usize..10, text(), text()).prop_map(move |(kind, text, name)| match kind {
            0 => Event::TextDelta { content: text },
            1 => Event::ThinkingDelta { content: text },
            2 => Event::ToolStart { name, id: text },
            3 => Event::ToolInputDelta { content: text },
            4 => Event::ToolExecuting { name, id: "call_1".into(), input: json!({"content": text}) },
            5 => Event::ToolOutputDelta { id: name, content: text },
            6 => Event::ToolResult { id: name, content: text, is_error: true, code: Some("x".into()) },
            7 => Event::Failed { id: turn.clone(), error: text, code: name },
            8 => Event::ToolRequested { call_id: "call_1".into(), name: "ask".into(), arguments: text },
            _ => Event::TextStop {},
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
        #[test]
        fn no_events_data_is_over_its_bound_and_short_ones_are_whole(event in event(), seq in any::<u64>()) {
            let rendered = event.render(seq);
            let whole = event.render_whole(seq);
            let data: Value = serde_json::from_str(&rendered.data).unwrap();
            prop_assert_eq!(&data["type"], &json!(rendered.kind));
            prop_assert_eq!(&data["sequence_number"], &json!(seq));
            if matches!(event, Event::ToolRequested { .. }) || whole.data.len() <= EVENT_DATA_BYTES_MAX {
                prop_assert_eq!(rendered, whole);
            } else {
                prop_assert!(rendered.data.len() <= EVENT_DATA_BYTES_MAX, "{} bytes", rendered.data.len());
            }
        }
    }

    #[test]
    fn a_cut_is_marked_and_leaves_head_and_tail() {
        let text = format!("head{}tail", "\u{1}".repeat(40_000));
        let result = Event::ToolResult { id: "call_1".into(), content: text, is_error: false, code: None };
        let data: Value = serde_json::from_str(&result.render(3).data).unwrap();
        let content = data["content"].as_str().unwrap();
        assert!(content.starts_with("head") && content.ends_with("tail"));
        assert!(content.contains(" bytes are left out here]"), "{}", content.len());
        let input = json!({"content": "x".repeat(EVENT_DATA_BYTES_MAX)});
        let bytes = input.to_string().len();
        let executing = Event::ToolExecuting { name: "Write".into(), id: "call_1".into(), input };
        let data: Value = serde_json::from_str(&executing.render(3).data).unwrap();
        assert_eq!(data["input"], json!({"truncated": true, "bytes": bytes}));
    }
}
