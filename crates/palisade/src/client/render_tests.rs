//! Whole turns as a person sees them: scripted events in, the text of the terminal out.

use serde_json::json;

use super::*;

const PLAIN: Style = Style { colour: false, live: false, thinking: true, times: true, columns: 80 };
const RICH: Style = Style { colour: true, live: true, ..PLAIN };

/// Renders the events, a quarter of a second apart.
fn rendered(style: Style, events: &[(&str, Value)]) -> String {
    let mut renderer = Renderer::new(style);
    let times = (0..).map(|n| n * 250);
    events.iter().zip(times).map(|((kind, data), at_ms)| renderer.event(at_ms, kind, data)).collect()
}

/// The same with control characters spelled out, for snapshots.
fn spelled_out(style: Style, events: &[(&str, Value)]) -> String {
    rendered(style, events).replace('\u{1b}', "␛").replace('\r', "␍")
}

fn call(id: &str, name: &str, input: Value) -> Vec<(&'static str, Value)> {
    vec![
        ("tool_use.start", json!({"id": id, "name": name})),
        ("tool_use.input_delta", json!({"content": input.to_string()})),
        ("tool_use.executing", json!({"id": id, "name": name, "input": input})),
    ]
}

fn output(id: &str, content: &str) -> (&'static str, Value) {
    ("tool_use.output_delta", json!({"id": id, "content": content}))
}

fn result(id: &str, content: &str, is_error: bool) -> Vec<(&'static str, Value)> {
    vec![
        ("tool_use.stop", json!({})),
        ("tool_result", json!({"id": id, "content": content, "is_error": is_error})),
    ]
}

fn usage() -> (&'static str, Value) {
    let usage = json!({
        "input_tokens": 18204, "input_tokens_details": {"cached_tokens": 12000},
        "output_tokens": 2310, "output_tokens_details": {"reasoning_tokens": 500}, "total_tokens": 20514,
    });
    ("message.completed", json!({"id": "msg_1", "status": "completed", "usage": usage}))
}

/// A turn like the one that builds a deck.
fn deck() -> Vec<(&'static str, Value)> {
    let mut events = vec![
        ("message.created", json!({"id": "msg_1", "session_id": "sess_1", "status": "in_progress"})),
        ("thinking.start", json!({})),
        ("thinking.delta", json!({"content": "The user wants a deck.\n"})),
        ("thinking.delta", json!({"content": "I read the skill first.\n\n"})),
        ("thinking.stop", json!({})),
        ("text.start", json!({})),
        ("text.delta", json!({"content": "\n\nI will use "})),
        ("text.delta", json!({"content": "**pptx-builder**.\n"})),
        ("text.delta", json!({"content": "\nFirst its manual:\n\n"})),
        ("text.stop", json!({})),
    ];
    events.extend(call("call_1", "Read", json!({"file_path": "/skills/pptx-builder/SKILL.md"})));
    events.extend(result("call_1", "# pptx-builder\n…", false));
    events.extend(call("call_2", "Write", json!({"file_path": "/workspace/spec.json", "content": "{\n}\n"})));
    events.extend(result("call_2", "written", false));
    events.extend(call("call_3", "Bash", json!({"command": "python3 build.py spec.json"})));
    events.push(output("call_3", "slide 1\nsli"));
    events.push(output("call_3", "de 2\n"));
    events.extend(result("call_3", "slide 1\nslide 2\n", false));
    events.extend(call("call_4", "Glob", json!({"pattern": "output/*"})));
    events.extend(result("call_4", "output/deck.pptx\noutput/notes.md", false));
    events.push(("text.start", json!({})));
    events.push(("text.delta", json!({"content": "The deck is in `output/deck.pptx`.\n"})));
    events.push(("text.stop", json!({})));
    events.push(usage());
    events
}

#[test]
fn a_turn_reads_like_a_conversation() {
    insta::assert_snapshot!(rendered(PLAIN, &deck()), @r#"
    · The user wants a deck.
      I read the skill first.

    I will use **pptx-builder**.

    First its manual:

    ▸ Read  /skills/pptx-builder/SKILL.md  ✓ 0.5 s
    ▸ Write  spec.json (2 lines, 4 B)  ✓ 0.5 s
    ▸ Bash  python3 build.py spec.json
      │ slide 1
      │ slide 2
      ✓ 1.0 s
    ▸ Glob  output/*  ✓ 0.5 s  2 lines

    The deck is in `output/deck.pptx`.

    ■ done · 18,204 tokens in (12,000 cached), 2,310 out (500 reasoning) · 8.8 s
    "#);
}

#[test]
fn a_terminal_gets_colours_and_its_lines_redrawn() {
    insta::assert_snapshot!(spelled_out(RICH, &deck()), @r#"
    ␛[2m· The user wants a deck.␛[0m␛[2m
      I read the skill first.␛[0m

    I will use **pptx-builder**.

    First its manual:

    ␛[2m▸ Read …␛[0m␍␛[2K␛[36m▸␛[0m ␛[1mRead␛[0m  /skills/pptx-builder/SKILL.md  ␛[32m✓␛[0m 0.5 s
    ␛[2m▸ Write …␛[0m␍␛[2K␛[36m▸␛[0m ␛[1mWrite␛[0m  spec.json (2 lines, 4 B)  ␛[32m✓␛[0m 0.5 s
    ␛[2m▸ Bash …␛[0m␍␛[2K␛[36m▸␛[0m ␛[1mBash␛[0m  python3 build.py spec.json
      ␛[2m│ slide 1␛[0m
      ␛[2m│ sli␛[0m
    ␛[2A␛[J  ␛[2m│ slide 1␛[0m
      ␛[2m│ slide 2␛[0m
    ␛[2A␛[J  ␛[2m│ slide 1␛[0m
      ␛[2m│ slide 2␛[0m
      ␛[32m✓␛[0m 1.0 s
    ␛[2m▸ Glob …␛[0m␍␛[2K␛[36m▸␛[0m ␛[1mGlob␛[0m  output/*  ␛[32m✓␛[0m 0.5 s  2 lines

    The deck is in `output/deck.pptx`.

    ␛[2m■ done · 18,204 tokens in (12,000 cached), 2,310 out (500 reasoning) · 8.8 s␛[0m
    "#);
}

#[test]
fn thinking_can_be_left_out() {
    let quiet = rendered(Style { thinking: false, ..PLAIN }, &deck());
    assert!(!quiet.contains("The user wants"), "{quiet}");
    assert!(quiet.starts_with("I will use"), "{quiet}");
}

#[test]
fn failures_say_why_and_long_output_is_bounded() {
    let mut events = call("call_1", "Bash", json!({"command": "make"}));
    let lines: String = (1..=40).map(|n| format!("compiling {n}\n")).collect();
    events.push(output("call_1", &lines));
    events.extend(result("call_1", &format!("{lines}\n[exit code 2]\n"), true));
    events.extend(call("call_2", "Read", json!({"file_path": "gone.txt"})));
    events.extend(result("call_2", "gone.txt: no such file", true));
    events.extend(call("call_3", "Bash", json!({"command": "echo hi"})));
    events.extend(result("call_3", "hi\n", false));
    events.push((
        "message.error",
        json!({"id": "msg_1", "error": "the model is down", "code": "upstream.down"}),
    ));
    insta::assert_snapshot!(rendered(PLAIN, &events), @r#"
    ▸ Bash  make
      │ compiling 1
      │ compiling 2
      │ compiling 3
      │ compiling 4
      │ compiling 5
      │ compiling 6
      │ compiling 7
      │ compiling 8
      │ … 24 lines not shown
      │ compiling 33
      │ compiling 34
      │ compiling 35
      │ compiling 36
      │ compiling 37
      │ compiling 38
      │ compiling 39
      │ compiling 40
      │ [exit code 2]
      ✗ failed 0.8 s
    ▸ Read  gone.txt
      │ gone.txt: no such file
      ✗ failed 0.5 s
    ▸ Bash  echo hi
      │ hi
      ✓ 0.5 s
    "#);
}

#[test]
fn tools_side_by_side_keep_their_names() {
    let mut events = call("call_1", "Bash", json!({"command": "sleep 1; echo one"}));
    events.extend(call("call_2", "Bash", json!({"command": "echo two"})));
    events.push(output("call_1", "one\n"));
    events.push(output("call_2", "two\n"));
    events.extend(result("call_1", "one\n", false));
    events.extend(result("call_2", "two\n", true));
    insta::assert_snapshot!(rendered(PLAIN, &events), @r#"
    ▸ Bash  sleep 1; echo one
    ▸ Bash  echo two
    ▸ Bash  sleep 1; echo one (goes on)
      │ one
    ▸ Bash  echo two (goes on)
      │ two
      ✓ 1.8 s  Bash sleep 1; echo one
      ✗ failed 1.5 s  Bash echo two
    "#);
    // What one call redraws must not erase what another wrote.
    let rich = rendered(RICH, &events);
    assert!(!rich.contains("\x1b[1A"), "{}", rich.escape_debug());
}

/// Output that is only held back needs no line that announces it.
#[test]
fn a_remark_in_the_middle_of_output_repeats_nothing() {
    let mut renderer = Renderer::new(PLAIN);
    let lines: String = (1..=9).map(|n| format!("line {n}\n")).collect();
    let mut events = call("call_1", "Bash", json!({"command": "seq 9"}));
    events.push(output("call_1", &lines));
    let before: String = events.iter().map(|(kind, data)| renderer.event(0, kind, data)).collect();
    assert!(before.ends_with("│ line 8\n"), "{before}");
    assert_eq!(renderer.end_line(), "");
    let (kind, data) = output("call_1", "line 10\n");
    assert_eq!(renderer.event(0, kind, &data), "");
}

#[test]
fn restarts_shortenings_and_clients_are_told() {
    let events = [
        ("text.delta", json!({"content": "half a sen"})),
        ("turn.attempt", json!({"attempt": 2, "after": 17})),
        ("text.start", json!({})),
        ("text.delta", json!({"content": "Half a sentence, whole."})),
        ("text.stop", json!({})),
        (
            "context.compacted",
            json!({"items_before": 90, "items_after": 8, "tokens_before": 150000, "tokens_after": 9000}),
        ),
        (
            "tool_call.requested",
            json!({"call_id": "call_9", "name": "get_weather", "arguments": "{\"city\":\"Oslo\"}"}),
        ),
        ("tool_result", json!({"id": "call_9", "content": "rain", "is_error": false})),
        ("something.new", json!({"content": "unknown"})),
        ("message.cancelled", json!({"id": "msg_1", "status": "cancelled"})),
    ];
    insta::assert_snapshot!(rendered(PLAIN, &events), @r#"
    half a sen

    ↻ the server was restarted; the turn goes on

    Half a sentence, whole.

    · the conversation was shortened from 150,000 to 9,000 tokens

    ▸ get_weather  {"city":"Oslo"}
      waiting for the client that offers this tool to answer
      ✓ 0.2 s

    ■ cancelled
    "#);
}

#[test]
fn hostile_bytes_never_reach_the_terminal() {
    let hostile = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{1b}[1;1H\u{9b}31m\r\u{8}\u{202e}evil\u{0}";
    let mut events =
        vec![("thinking.delta", json!({"content": hostile})), ("text.delta", json!({"content": hostile}))];
    events.extend(call(hostile, hostile, json!({"command": hostile, "file_path": hostile})));
    events.push(output(hostile, hostile));
    events.push(output(hostile, &format!("{hostile}\n")));
    events.extend(result(hostile, hostile, true));
    for name in ["Bash", "Write", "Edit", "Grep", "Skill", "TodoWrite"] {
        events.extend(call("call_1", name, json!({
            "command": hostile, "file_path": hostile, "pattern": hostile, "name": hostile, "content": hostile,
            "todos": [{"content": hostile, "status": "in_progress"}],
        })));
        events.extend(result("call_1", hostile, true));
        events.extend(result("call_unknown", hostile, true));
    }
    events.push(("tool_call.requested", json!({"call_id": hostile, "name": hostile, "arguments": hostile})));
    let shown = rendered(PLAIN, &events);
    assert!(shown.contains("evil") && shown.contains("\\x1b]0;owned\\x07"), "{shown}");
    let steering = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    assert!(!shown.contains(steering), "{}", shown.escape_debug());

    // On a terminal only our own sequences may remain.
    let mut rich = rendered(RICH, &events);
    let ours =
        ["\x1b[2m", "\x1b[0m", "\x1b[1m", "\x1b[36m", "\x1b[31m", "\x1b[32m", "\r\x1b[2K", "\x1b[1A\x1b[J"];
    for sequence in ours {
        rich = rich.replace(sequence, "");
    }
    assert!(!rich.contains(steering), "{}", rich.escape_debug());
}

#[test]
fn events_of_the_wrong_shape_say_nothing_wrong() {
    for kind in
        ["text.delta", "tool_use.executing", "tool_use.output_delta", "tool_result", "message.completed"]
    {
        for data in [json!(null), json!([]), json!({"content": 5, "id": {}, "usage": "x"})] {
            let shown = rendered(PLAIN, &[(kind, data)]);
            assert!(shown.len() < 100, "{kind}: {shown}");
        }
    }
}
