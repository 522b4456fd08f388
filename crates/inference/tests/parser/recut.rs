//! The same bytes cut anywhere are the same answer, and fewer bytes are the same answer or an error.

use proptest::prelude::*;

use crate::{Heard, hear, stream};

/// Text, reasoning, two interleaved calls, characters of one to four bytes, escapes, usage.
fn sample() -> Vec<u8> {
    stream(&[
        r#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],"usage":null}"#,
        r#"{"choices":[{"index":0,"delta":{"reasoning_content":"Überlegung: 考える 🤔"}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"content":"Größe \"x\"\\n日本語 🎉\ud83c\udf89"}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"call_a","function":{"name":"Write","arguments":"{\"path\":"}}]}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"id":"","function":{"name":"Read","arguments":""}}]}}]}"#,
        r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"\"ü.txt\"}"}}]}}]}"#,
        r#"{"choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}"#,
        r#"{"choices":[],"usage":{"prompt_tokens":11,"completion_tokens":22,"total_tokens":33}}"#,
    ])
}

/// The sample with line ends, comments and a BOM as a server may have them.
fn dressed(line_end: &str, with_comments: bool, with_bom: bool) -> Vec<u8> {
    let text = String::from_utf8(sample()).expect("text");
    let text = if with_comments { text.replace("\n\n", "\n: keep-alive\n\n: keep-alive\n\n") } else { text };
    let bom = if with_bom { "\u{feff}" } else { "" };
    format!("{bom}{}", text.replace('\n', line_end)).into_bytes()
}

fn assert_complete(heard: &Heard) {
    assert_eq!(heard.error, None);
    assert_eq!(heard.reasoning, "Überlegung: 考える 🤔");
    assert_eq!(heard.text, "Größe \"x\"\\n日本語 🎉🎉");
    assert_eq!(heard.calls(), [("call_a", "Write", "{\"path\":\"ü.txt\"}"), ("ours-1", "Read", "{}")]);
    assert_eq!(heard.usage.map(|usage| usage.total_tokens), Some(33));
}

#[test]
fn every_single_cut_in_every_dress() {
    for line_end in ["\n", "\r\n", "\r"] {
        for (with_comments, with_bom) in [(false, false), (true, false), (false, true), (true, true)] {
            let bytes = dressed(line_end, with_comments, with_bom);
            assert_complete(&hear([bytes.as_slice()]));
            assert_complete(&hear(bytes.chunks(1)));
            for cut in 0..=bytes.len() {
                assert_complete(&hear([&bytes[..cut], &bytes[cut..]]));
            }
        }
    }
}

/// A cut before the finish reason is an error; after it, the answer is whole but may lack its count.
#[test]
fn a_stream_that_stops_anywhere_is_an_error_or_the_same_answer() {
    let bytes = sample();
    let whole = hear([bytes.as_slice()]);
    let mut errors = 0;
    for end in 0..bytes.len() {
        let heard = hear([&bytes[..end]]);
        if let Some(code) = heard.code() {
            assert_eq!(code, "upstream.truncated", "cut at {end}");
            errors += 1;
            continue;
        }
        assert!(heard.usage.is_none() || heard.usage == whole.usage, "cut at {end}");
        assert_eq!(Heard { usage: whole.usage, ..heard }, whole, "cut at {end}");
    }
    let finish = String::from_utf8_lossy(&bytes).find("\"tool_calls\"}]}").expect("the finish reason");
    assert!(errors > finish, "nothing before the finish reason counts as whole: {errors} of {finish}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_cutting_is_the_same_answer(
        cuts in proptest::collection::vec(1_usize..40, 1..200),
        line_end in prop_oneof![Just("\n"), Just("\r\n"), Just("\r")],
        with_comments: bool,
        with_bom: bool,
    ) {
        let bytes = dressed(line_end, with_comments, with_bom);
        let mut rest = bytes.as_slice();
        let mut pieces = Vec::new();
        for size in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, after) = rest.split_at((*size).min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        assert_complete(&hear(pieces));
    }

    #[test]
    fn any_bytes_at_all_end_in_an_error_or_an_answer(
        noise in proptest::collection::vec(any::<u8>(), 0..300),
        place in 0_usize..1200,
    ) {
        let mut bytes = sample();
        let place = place.min(bytes.len());
        bytes.splice(place..place, noise);
        let at_once = hear([bytes.as_slice()]);
        let single = hear(bytes.chunks(1));
        prop_assert_eq!(at_once, single);
    }
}
