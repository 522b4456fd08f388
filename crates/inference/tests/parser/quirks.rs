//! What servers of this dialect really do, one test each, in streams written by hand.

use palisade_inference::FinishReason;
use palisade_protocol::{Usage, limits};
use serde_json::{Value, json};

use crate::{Heard, hear, open_stream, stream};

fn hear_chunks(chunks: &[Value]) -> Heard {
    let texts: Vec<String> = chunks.iter().map(Value::to_string).collect();
    hear([stream(&texts.iter().map(String::as_str).collect::<Vec<_>>()).as_slice()])
}

fn delta(delta: &Value) -> Value {
    json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}]})
}

fn call_piece(piece: &Value) -> Value {
    delta(&json!({"tool_calls": [piece]}))
}

fn finish(reason: &str) -> Value {
    json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
}

#[test]
fn a_call_without_index_and_type_and_with_its_finish_reason_in_the_same_chunk() {
    let heard = hear_chunks(&[
        delta(&json!({"role": "assistant", "content": ""})),
        json!({"choices": [{"index": 0, "finish_reason": "tool_calls", "delta": {"content": null, "tool_calls": [
            {"id": "a1B2c3D4e", "function": {"name": "weather", "arguments": "{\"city\": \"Kyoto\"}"}}]}}],
            "usage": {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}}),
    ]);
    assert_eq!(heard.calls(), [("a1B2c3D4e", "weather", "{\"city\": \"Kyoto\"}")]);
    assert_eq!(heard.finish, Some(FinishReason::ToolCalls));
    assert_eq!(heard.usage, Some(Usage::new(12, 0, 3, 0)));
}

#[test]
fn several_whole_calls_in_one_delta_or_without_any_index() {
    let whole = |id: &str, n: u32| json!({"id": id, "function": {"name": "add", "arguments": format!("{{\"n\":{n}}}")}});
    let together = hear_chunks(&[delta(&json!({"tool_calls": [whole("a", 1), whole("b", 2)]}))]);
    let apart = hear_chunks(&[call_piece(&whole("a", 1)), call_piece(&whole("b", 2))]);
    for heard in [together, apart] {
        assert_eq!(heard.calls(), [("a", "add", "{\"n\":1}"), ("b", "add", "{\"n\":2}")]);
    }
}

#[test]
fn all_calls_numbered_zero_are_told_apart_by_id_or_by_being_whole() {
    let whole = |id: &str, n: u32| {
        call_piece(
            &json!({"index": 0, "id": id, "function": {"name": "add", "arguments": format!("{{\"n\":{n}}}")}}),
        )
    };
    let heard = hear_chunks(&[whole("a", 1), whole("b", 2)]);
    assert_eq!(heard.calls(), [("a", "add", "{\"n\":1}"), ("b", "add", "{\"n\":2}")]);
    let heard = hear_chunks(&[whole("", 1), whole("", 2)]);
    assert_eq!(heard.calls(), [("ours-1", "add", "{\"n\":1}"), ("ours-2", "add", "{\"n\":2}")]);
    let heard = hear_chunks(&[whole("0", 1), whole("0", 2)]);
    assert_eq!(heard.calls(), [("0", "add", "{\"n\":1}"), ("ours-1", "add", "{\"n\":2}")]);
}

#[test]
fn calls_without_arguments_under_one_number_are_told_apart_by_id() {
    let bare =
        |id: &str| call_piece(&json!({"index": 0, "id": id, "function": {"name": "now", "arguments": ""}}));
    let heard = hear_chunks(&[bare("a"), bare("b"), bare("b")]);
    assert_eq!(heard.calls(), [("a", "now", "{}"), ("b", "now", "{}")]);
}

#[test]
fn calls_without_index_and_id_are_told_apart_by_name_and_by_being_whole() {
    let whole = |name: &str, arguments: &str| {
        call_piece(&json!({"function": {"name": name, "arguments": arguments}}))
    };
    let heard =
        hear_chunks(&[whole("a", ""), whole("b", "{}"), whole("b", "{\"n\":1}"), whole("b", "{\"n\":2}")]);
    assert_eq!(
        heard.calls(),
        [
            ("ours-1", "a", "{}"),
            ("ours-2", "b", "{}"),
            ("ours-3", "b", "{\"n\":1}"),
            ("ours-4", "b", "{\"n\":2}")
        ]
    );
}

#[test]
fn empty_ids_on_continuations_and_a_choice_without_a_finish_reason_key() {
    let heard = hear_chunks(&[
        call_piece(
            &json!({"index": 0, "id": "call_7", "type": "function", "function": {"name": "weather", "arguments": ""}}),
        ),
        call_piece(
            &json!({"index": 0, "id": "", "type": "function", "function": {"arguments": "{\"city\": "}}),
        ),
        json!({"choices": [{"index": 0, "delta": {"tool_calls": [
            {"index": 0, "id": "", "type": "function", "function": {"name": "", "arguments": "\"Oslo\"}"}}]}}]}),
        json!({"choices": [{"index": 0, "delta": {"tool_calls": [
            {"index": 0, "id": null, "function": {"name": null, "arguments": null}}]}}]}),
        finish("tool_calls"),
    ]);
    assert_eq!(heard.calls(), [("call_7", "weather", "{\"city\": \"Oslo\"}")]);
}

#[test]
fn the_same_id_and_name_on_every_piece_is_one_call() {
    let piece = |arguments: &str| {
        call_piece(
            &json!({"index": 0, "id": "0", "type": "function", "function": {"name": "version", "arguments": arguments}}),
        )
    };
    let heard = hear_chunks(&[piece(""), piece("{\"a\":"), piece("{\"b\":1}"), piece("}"), piece("")]);
    assert_eq!(heard.calls(), [("0", "version", "{\"a\":{\"b\":1}}")]);
}

#[test]
fn a_new_id_on_every_piece_without_a_name_is_one_call() {
    let heard = hear_chunks(&[
        call_piece(&json!({"id": "x1", "function": {"name": "f", "arguments": "{\"a\""}})),
        call_piece(&json!({"id": "x2", "function": {"arguments": ":1}"}})),
    ]);
    assert_eq!(heard.calls(), [("x1", "f", "{\"a\":1}")]);
}

#[test]
fn a_name_that_comes_late_keeps_the_arguments_waiting() {
    let heard = hear_chunks(&[
        call_piece(&json!({"index": 0, "id": "call_1", "function": {"arguments": "{\"a\""}})),
        call_piece(&json!({"index": 0, "function": {"name": "f"}})),
        call_piece(&json!({"index": 0, "function": {"arguments": ":1}"}})),
    ]);
    assert_eq!(heard.calls(), [("call_1", "f", "{\"a\":1}")]);
    let nameless =
        hear_chunks(&[call_piece(&json!({"index": 0, "id": "call_1", "function": {"arguments": "{}"}}))]);
    assert_eq!(nameless.code(), Some("upstream.bad_answer"));
    let stray = hear_chunks(&[call_piece(&json!({"function": {"arguments": "{}"}}))]);
    assert_eq!(stray.code(), Some("upstream.bad_answer"));
}

#[test]
fn interleaved_calls_and_numbers_that_do_not_begin_at_zero() {
    let heard = hear_chunks(&[
        call_piece(&json!({"index": 3, "id": "a", "function": {"name": "f", "arguments": "{\"x\":"}})),
        call_piece(&json!({"index": 1, "id": "b", "function": {"name": "g", "arguments": "{\"y\":"}})),
        call_piece(&json!({"index": 3, "function": {"arguments": "1}"}})),
        call_piece(&json!({"index": 1, "function": {"arguments": "2}"}})),
    ]);
    assert_eq!(heard.calls(), [("a", "f", "{\"x\":1}"), ("b", "g", "{\"y\":2}")]);
}

#[test]
fn arguments_that_are_an_object_or_nothing_at_all() {
    let heard = hear_chunks(&[
        call_piece(&json!({"index": 0, "id": "a", "function": {"name": "f", "arguments": {"n": 1}}})),
        call_piece(&json!({"index": 1, "id": "b", "function": {"name": "g"}})),
        finish("tool_calls"),
    ]);
    assert_eq!(heard.calls(), [("a", "f", "{\"n\":1}"), ("b", "g", "{}")]);
}

#[test]
fn no_finish_reason_before_the_end_is_inferred_from_what_was_said() {
    let call = call_piece(&json!({"index": 0, "id": "0", "function": {"name": "f", "arguments": "{}"}}));
    assert_eq!(hear_chunks(std::slice::from_ref(&call)).finish, Some(FinishReason::ToolCalls));
    assert_eq!(hear_chunks(&[delta(&json!({"content": "Hi"}))]).finish, Some(FinishReason::Stop));
    assert_eq!(hear_chunks(&[]).finish, Some(FinishReason::Stop));
    // "stop" after calls, calls that were announced and never came, words of a server's own, an empty word.
    assert_eq!(hear_chunks(&[call.clone(), finish("stop")]).finish, Some(FinishReason::ToolCalls));
    assert_eq!(hear_chunks(&[finish("tool_calls")]).finish, Some(FinishReason::Stop));
    assert_eq!(hear_chunks(&[finish("eos")]).finish, Some(FinishReason::Stop));
    assert_eq!(hear_chunks(&[call.clone(), finish("")]).finish, Some(FinishReason::ToolCalls));
    assert_eq!(hear_chunks(&[finish("length")]).finish, Some(FinishReason::Length));
    assert_eq!(hear_chunks(&[call, finish("length")]).finish, Some(FinishReason::Length));
    assert_eq!(hear_chunks(&[finish("content_filter")]).finish, Some(FinishReason::ContentFilter));
}

#[test]
fn leading_empty_deltas_make_no_events() {
    let empty = delta(&json!({"role": "assistant", "content": "", "reasoning_content": "", "refusal": null}));
    let call = call_piece(&json!({"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}));
    let heard = hear_chunks(&[empty.clone(), empty, delta(&json!({"content": null})), call]);
    assert_eq!((heard.text.as_str(), heard.reasoning.as_str()), ("", ""));
    assert_eq!(heard.calls(), [("c", "f", "{}")]);
}

#[test]
fn reasoning_by_every_name() {
    let under = |reasoning: Value| hear_chunks(&[delta(&reasoning), delta(&json!({"content": "4"}))]);
    for reasoning in [
        json!({"reasoning_content": "2+2"}),
        json!({"reasoning": "2+2"}),
        json!({"reasoning": "2+2", "reasoning_content": "2+2"}),
        json!({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "2"}, {"type": "text", "text": "+2"}]}]}),
    ] {
        let heard = under(reasoning.clone());
        assert_eq!((heard.reasoning.as_str(), heard.text.as_str()), ("2+2", "4"), "{reasoning}");
    }
    let parts = hear_chunks(&[delta(
        &json!({"content": [{"type": "text", "text": "a"}, {"type": "reference"}, {"type": "text", "text": "b"}]}),
    )]);
    assert_eq!(parts.text, "ab");
}

#[test]
fn a_refusal_is_text() {
    assert_eq!(hear_chunks(&[delta(&json!({"content": null, "refusal": "I can't."}))]).text, "I can't.");
}

#[test]
fn usage_in_every_place_and_the_last_count_stands() {
    let counts = json!({"prompt_tokens": 30, "completion_tokens": 9, "total_tokens": 39,
        "prompt_tokens_details": {"cached_tokens": 20}, "completion_tokens_details": {"reasoning_tokens": 4}});
    let expected = Some(Usage::new(30, 20, 9, 4));
    let with_choice =
        json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": counts});
    let without_choices = json!({"choices": [], "usage": counts});
    let within_choice =
        json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": counts}]});
    let of_its_own = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "x_groq": {"id": "r", "usage": counts}});
    for chunk in [with_choice, without_choices.clone(), within_choice, of_its_own] {
        assert_eq!(hear_chunks(std::slice::from_ref(&chunk)).usage, expected, "{chunk}");
    }
    let early = json!({"choices": [], "usage": {"prompt_tokens": 30, "completion_tokens": 1}});
    let null = json!({"choices": [], "usage": null});
    assert_eq!(hear_chunks(&[early, without_choices, finish("stop"), null]).usage, expected);
}

#[test]
fn usage_with_fields_missing_strange_or_of_another_name() {
    let usage = |counts: Value| hear_chunks(&[json!({"choices": [], "usage": counts})]).usage;
    assert_eq!(usage(json!({})), Some(Usage::default()));
    assert_eq!(usage(json!({"prompt_tokens": 5})), Some(Usage::new(5, 0, 0, 0)));
    assert_eq!(
        usage(json!({"prompt_tokens": null, "completion_tokens": "7", "prompt_tokens_details": null})),
        Some(Usage::default())
    );
    assert_eq!(
        usage(json!({"prompt_tokens": 5, "prompt_cache_hit_tokens": 4})),
        Some(Usage::new(5, 4, 0, 0))
    );
    // Reasoning beside the completion, as only the total tells.
    let beside = json!({"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 19, "completion_tokens_details": {"reasoning_tokens": 7}});
    assert_eq!(usage(beside), Some(Usage::new(10, 0, 9, 7)));
    let huge = json!({"prompt_tokens": u64::MAX, "completion_tokens": u64::MAX, "completion_tokens_details": {"reasoning_tokens": 1}});
    assert_eq!(usage(huge), Some(Usage::new(1_000_000_000, 0, 1_000_000_000, 1)), "no call uses more");
    assert_eq!(hear_chunks(&[finish("stop")]).usage, None, "not counted is not zero");
}

#[test]
fn unknown_keys_and_other_choices_are_passed_over() {
    let heard = hear_chunks(&[
        json!({"id": "g", "provider": "p", "obfuscation": "x7", "x_groq": {"id": "r"}, "choices": [
            {"index": 1, "delta": {"content": "other"}},
            {"index": 0, "delta": {"content": "mine", "annotations": []}, "native_finish_reason": null, "logprobs": null}]}),
        json!({"object": "ping"}),
        json!({"choices": null}),
        json!({"choices": [{"delta": {"content": " too"}}]}),
        json!({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1, "cost": 0.00007, "is_byok": false}}),
    ]);
    assert_eq!(heard.text, "mine too");
    assert_eq!(heard.usage, Some(Usage::new(1, 0, 1, 0)));
}

#[test]
fn a_last_whole_message_in_place_of_a_delta() {
    let heard = hear_chunks(&[
        json!({"choices": [{"index": 0, "message": {"content": "whole"}, "finish_reason": "stop"}]}),
    ]);
    assert_eq!(heard.text, "whole");
}

#[test]
fn an_error_object_in_the_middle_in_every_form() {
    let begun = "{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"I will\"}}]}";
    for (event, code) in [
        (
            "event: error\ndata: {\"error\":{\"message\":\"it broke\",\"type\":\"invalid_request_error\",\"code\":\"tool_use_failed\",\"status_code\":400}}\n\n",
            "upstream.error",
        ),
        ("data: {\"error\":\"it broke\"}\n\n", "upstream.error"),
        (
            "data: {\"error\":{\"message\":\"it broke\",\"code\":502},\"choices\":[{\"index\":0,\"delta\":{\"content\":\"\"},\"finish_reason\":\"error\"}]}\n\n",
            "upstream.error",
        ),
        ("data: {\"object\":\"error\",\"message\":\"it broke\",\"code\":50000}\n\n", "upstream.error"),
        ("event: error\ndata: {\"message\":\"it broke\"}\n\n", "upstream.error"),
        ("event: error\ndata: it broke\n\n", "upstream.error"),
        ("data: {\"error\":{\"message\":\"it broke\",\"code\":\"429\"}}\n\n", "upstream.rate_limited"),
        ("data: {\"error\":{\"message\":\"it broke\",\"code\":401}}\n\n", "upstream.refused"),
    ] {
        let bytes = [open_stream(&[begun]), event.into(), stream(&[])].concat();
        let heard = hear([bytes.as_slice()]);
        assert_eq!(heard.text, "I will");
        let (found, sentence) = heard.error.expect("an error");
        assert_eq!(found, code, "{event}");
        assert!(code != "upstream.error" || sentence.contains("it broke"), "{sentence}");
    }
    let null =
        hear_chunks(&[json!({"error": null, "choices": [{"index": 0, "delta": {"content": "fine"}}]})]);
    assert_eq!(null.text, "fine");
}

#[test]
fn a_finish_reason_that_says_error_is_one() {
    let heard = hear_chunks(&[delta(&json!({"content": "half"})), finish("error")]);
    assert_eq!(heard.code(), Some("upstream.error"));
}

#[test]
fn ends_of_every_kind() {
    let text = "{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Hi\"}}]}";
    let stop = "{\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}";
    let declared = hear([open_stream(&[text, stop]).as_slice()]);
    assert_eq!(declared.finish, Some(FinishReason::Stop), "a finish reason and no [DONE]");
    let unterminated = [open_stream(&[text]), b"data: [DONE]".to_vec()].concat();
    assert_eq!(hear([unterminated.as_slice()]).finish, Some(FinishReason::Stop), "no line end after [DONE]");
    let stop_unterminated = [open_stream(&[text]), format!("data: {stop}").into_bytes()].concat();
    assert_eq!(hear([stop_unterminated.as_slice()]).finish, Some(FinishReason::Stop));
    let neither = hear([open_stream(&[text]).as_slice()]);
    assert_eq!((neither.code(), neither.text.as_str()), (Some("upstream.truncated"), "Hi"));
    assert_eq!(hear([&b""[..]]).code(), Some("upstream.truncated"));
    assert_eq!(hear([&b": keep-alive\n\n: keep-alive\n\n"[..]]).code(), Some("upstream.truncated"));
    let after_done = [stream(&[text]), open_stream(&[text])].concat();
    assert_eq!(hear([after_done.as_slice()]).text, "Hi", "nothing counts after [DONE]");
}

#[test]
fn what_is_no_stream_is_no_truncated_one() {
    for page in ["<html></html>", "\n\n <!doctype html>"] {
        assert_eq!(hear([page.as_bytes()]).code(), Some("upstream.bad_answer"));
    }
    assert_eq!(hear([&b"{\"choices\":[]}"[..]]).code(), Some("upstream.bad_answer"));
    assert_eq!(hear([&b"data: {\"choices\":\n\ndata: [DONE]\n\n"[..]]).code(), Some("upstream.bad_answer"));
    assert_eq!(hear([&b"data: [1]\n\n"[..]]).code(), Some("upstream.bad_answer"));
}

#[test]
fn bytes_that_are_not_utf8_are_replaced_and_not_fatal() {
    let bytes = [
        b"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\xFFb\"}}]}\n\n".as_slice(),
        b"data: [DONE]\n\n",
    ]
    .concat();
    assert_eq!(hear([bytes.as_slice()]).text, "a\u{fffd}b");
}

#[test]
fn as_many_calls_as_the_limit_allows_and_no_more() {
    let calls = |count: usize| {
        let pieces: Vec<Value> = (0..count)
            .map(|index| json!({"index": index, "id": format!("c{index}"), "function": {"name": "f", "arguments": "{}"}}))
            .collect();
        hear_chunks(&[delta(&json!({"tool_calls": pieces}))])
    };
    assert_eq!(calls(limits::CALLS_PER_ANSWER_MAX).calls.len(), limits::CALLS_PER_ANSWER_MAX);
    let over = calls(limits::CALLS_PER_ANSWER_MAX + 1);
    assert_eq!(over.code(), Some("upstream.bad_answer"));
    assert!(over.error.expect("an error").1.contains("tool calls beyond the limit of 64"));
}

#[test]
fn an_answer_in_arguments_counts_and_an_event_without_end_is_bounded() {
    let piece = call_piece(
        &json!({"index": 0, "id": "c", "function": {"name": "f", "arguments": "x".repeat(1 << 20)}}),
    );
    let most = limits::MODEL_ANSWER_BYTES_MAX / (1 << 20);
    assert_eq!(hear_chunks(&vec![piece.clone(); most]).code(), None);
    assert_eq!(hear_chunks(&vec![piece; most + 1]).code(), Some("upstream.bad_answer"));

    let mut endless = b"data: ".to_vec();
    endless.resize(limits::UPSTREAM_EVENT_BYTES_MAX, b'x');
    assert_eq!(hear([endless.as_slice()]).code(), Some("upstream.truncated"), "at the limit");
    let heard = hear([endless.as_slice(), b"x"]);
    assert!(heard.error.expect("an error").1.contains("an event beyond the limit"));
}
