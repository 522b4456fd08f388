//! What calls are understood as, whatever models write.

use palisade_hand_protocol::{Glob, Grep, GrepMode, Read, Write};
use proptest::prelude::*;

use super::calls::one_edit;
use super::*;

fn action_of(name: &str, arguments: &str) -> Action {
    action(&ToolCall { id: "call_1".into(), name: name.into(), arguments: arguments.into() })
}

#[test]
fn every_offered_tool_is_understood() {
    let skills = [SkillEntry { name: "deck".into(), description: "d".into() }];
    let context =
        SessionContext { skills: skills.into(), network: Network::Public, ..SessionContext::default() };
    for offered in definitions(&context) {
        let answered = action_of(&offered.name, "{}");
        let known =
            !matches!(&answered, Action::Answered(out) if out.code.as_deref() == Some("tool.unknown"));
        assert!(known, "{}", offered.name);
    }
    let bare = definitions(&SessionContext::default());
    assert!(bare.iter().all(|tool| tool.name != "Skill"), "no skills, no Skill");
    assert!(bare.iter().all(|tool| !tool.name.starts_with("Web")), "no network, no web");
}

#[test]
fn arguments_have_a_bound() {
    let bytes = |bytes: usize| {
        let frame = json!({"file_path": "a", "content": ""}).to_string().len();
        json!({"file_path": "a", "content": "x".repeat(bytes - frame)}).to_string()
    };
    assert!(matches!(action_of("Write", &bytes(TOOL_INPUT_BYTES_MAX)), Action::File(_)));
    let Action::Answered(output) = action_of("Write", &bytes(TOOL_INPUT_BYTES_MAX + 1)) else {
        panic!("it is run")
    };
    assert_eq!(output.code.as_deref(), Some("tool.input_too_large"));
    assert!(output.is_error && output.content.contains("2097152"), "{}", output.content);
}

#[test]
fn whatever_a_model_writes_has_an_answer() {
    for (name, arguments, code) in [
        ("Bash", "", "tool.bad_input"),
        ("Bash", "{\"command\":", "tool.bad_input"),
        ("Bash", "[]", "tool.bad_input"),
        ("Bash", "{\"command\": 5}", "tool.bad_input"),
        ("Bash", "{\"command\": []}", "tool.bad_input"),
        ("Bash", "{\"command\": \"a\\u0000b\"}", "tool.bad_input"),
        ("Read", "{}", "tool.bad_input"),
        ("Nmap", "{}", "tool.unknown"),
    ] {
        match action_of(name, arguments) {
            Action::Answered(output) => {
                assert!(output.is_error);
                assert_eq!(output.code.as_deref(), Some(code), "{name} {arguments}");
            }
            other => panic!("{name} {arguments}: {other:?}"),
        }
    }
}

#[test]
fn a_deadline_stays_within_its_bounds() {
    let with = |ms: u64| action_of("Bash", &format!("{{\"command\":\"true\",\"timeout_ms\":{ms}}}"));
    for (asked, given) in [(0, 1), (5, 5), (u64::MAX, BASH_TIMEOUT_MAX_MS)] {
        assert!(matches!(with(asked), Action::Bash(bash) if bash.timeout_ms == given));
    }
}

fn read_op(read: Read) -> Action {
    Action::File(FileOp::Read(read))
}

fn grep_op(grep: Grep) -> Action {
    Action::File(FileOp::Grep(Grep { pattern: "x".into(), ..grep }))
}

fn bash_op(command: &str, timeout_ms: u64, background: bool) -> Action {
    Action::Bash(Bash { command: command.into(), timeout_ms, background })
}

/// Each of these arguments, alone, is understood as the same thing.
fn all_mean(name: &str, rest: &Value, ways: &[Value], meant: &Action) {
    for way in ways {
        let mut arguments = rest.as_object().unwrap().clone();
        arguments.extend(way.as_object().unwrap().clone());
        assert_eq!(action_of(name, &Value::Object(arguments).to_string()), *meant, "{name} {way}");
    }
}

#[test]
fn the_usual_names_of_files_and_lines_are_understood() {
    let file = |name: &str| json!({name: "a.py"});
    let names =
        ["file_path", "path", "filename", "file", "filePath", "file-path", "absolute_path", "target_file"];
    let a = Read { file_path: "a.py".into(), ..Read::default() };
    all_mean("Read", &json!({}), &names.map(file), &read_op(a.clone()));
    let write = Write { file_path: "a.py".into(), content: "x".into() };
    all_mean(
        "Write",
        &json!({"content": "x"}),
        &names.map(file),
        &Action::File(FileOp::Write(write.clone())),
    );
    let contents = ["content", "contents", "file_text", "text"].map(|name| json!({name: "x"}));
    all_mean("Write", &file("path"), &contents, &Action::File(FileOp::Write(write)));

    let part = Read { offset: Some(3), limit: Some(5), ..a.clone() };
    let ways = [
        json!({"offset": 3, "limit": 5}),
        json!({"offset": "3", "limit": 5.0}),
        json!({"start_line": 3, "end_line": 7}),
        json!({"startLine": 3, "endLine": "7"}),
        json!({"view_range": [3, 7]}),
        json!({"view_range": "[3, 7]"}),
    ];
    all_mean("Read", &file("path"), &ways, &read_op(part));
    let to_the_end = Read { offset: Some(3), limit: Some(u64::MAX), ..a.clone() };
    all_mean("Read", &file("path"), &[json!({"view_range": [3, -1]})], &read_op(to_the_end));
    let tail = Read { offset: Some(-20), ..a.clone() };
    all_mean("Read", &file("path"), &[json!({"offset": -20})], &read_op(tail));
    let nothing =
        [json!({"offset": null, "limit": null}), json!({"limit": ""}), json!({"explanation": "why"})];
    all_mean("Read", &file("path"), &nothing, &read_op(a));
}

#[test]
fn the_usual_names_of_edits_are_understood() {
    let meant = one_edit("f", "a", "b", false);
    let ways = [
        json!({"old_string": "a", "new_string": "b"}),
        json!({"old_str": "a", "new_str": "b", "replace_all": "false"}),
        json!({"oldString": "a", "newString": "b", "replaceAll": 0}),
        json!({"old_text": "a", "new_text": "b", "instruction": "why"}),
        json!({"search": "a", "replace": "b"}),
        json!({"edits": [{"old_string": "a", "new_string": "b"}]}),
        json!({"edits": {"oldText": "a", "newText": "b"}}),
        json!({"edits": "[{\"old_string\": \"a\", \"new_string\": \"b\"}]"}),
    ];
    all_mean("Edit", &json!({"path": "f"}), &ways, &meant);
    all_mean("MultiEdit", &json!({"path": "f"}), &ways, &meant);
    let all = [json!({"replace_all": true}), json!({"replace_all": "True"}), json!({"allow_multiple": 1})];
    let ab = json!({"path": "f", "old_string": "a", "new_string": "b"});
    all_mean("Edit", &ab, &all, &one_edit("f", "a", "b", true));
    // What is exact stays so: these are words of a file, not ways to say nothing.
    let words = json!({"path": "f", "old_string": "null", "new_string": ""});
    all_mean("Edit", &words, &[json!({})], &one_edit("f", "null", "", false));
    let number = json!({"path": "f", "old_string": 5, "new_string": true});
    all_mean("Edit", &number, &[json!({})], &one_edit("f", "5", "true", false));
}

#[test]
fn the_usual_options_of_searches_are_understood() {
    let means = |ways: &[Value], grep: Grep| all_mean("Grep", &json!({"pattern": "x"}), ways, &grep_op(grep));
    let ignore_case = Grep { ignore_case: true, ..Grep::default() };
    means(
        &[json!({"-i": true}), json!({"case_insensitive": "true"}), json!({"ignoreCase": 1})],
        ignore_case.clone(),
    );
    means(&[json!({"case_sensitive": false})], ignore_case);
    let around = Grep { before: Some(3), after: Some(3), ..Grep::default() };
    means(
        &[
            json!({"-C": 3}),
            json!({"context": "3"}),
            json!({"context_lines": 3.0}),
            json!({"-A": 3, "-B": 3}),
        ],
        around,
    );
    means(&[json!({"-A": 2}), json!({"after_context": 2})], Grep { after: Some(2), ..Grep::default() });
    means(&[json!({"-n": true})], Grep { line_numbers: Some(true), ..Grep::default() });
    let page = Grep { head_limit: Some(10), offset: Some(20), ..Grep::default() };
    means(&[json!({"head_limit": 10, "offset": 20}), json!({"max_results": "10", "skip": 20})], page);
    let python = Grep { file_type: Some("py".into()), ..Grep::default() };
    means(&[json!({"type": "py"}), json!({"fileType": "py"})], python);
    let filtered = Grep { glob: Some("*.py".into()), ..Grep::default() };
    means(
        &[json!({"glob": "*.py"}), json!({"include": "*.py"}), json!({"include_pattern": "*.py"})],
        filtered,
    );
    let without = Grep { glob: Some("*.py,!a,!b".into()), ..Grep::default() };
    means(&[json!({"glob": "*.py", "exclude": "a, !b"})], without);
    for (mode, ways) in [
        (GrepMode::Content, ["content", "lines"]),
        (GrepMode::Count, ["count", "counts"]),
        (GrepMode::FilesWithMatches, ["files_with_matches", "filesWithMatches"]),
    ] {
        let ways = ways.map(|way| json!({"output_mode": way}));
        means(&ways, Grep { output_mode: Some(mode), ..Grep::default() });
    }
    means(&[json!({"-l": true})], Grep { output_mode: Some(GrepMode::FilesWithMatches), ..Grep::default() });
    means(&[json!({"multiline": true}), json!({"-U": true})], Grep { multiline: true, ..Grep::default() });
    let everywhere =
        [json!({"path": null}), json!({"path": ""}), json!({"path": "undefined", "type": "None"})];
    means(&everywhere, Grep::default());
    let regex = |arguments: Value| match action_of("Grep", &arguments.to_string()) {
        Action::File(FileOp::Grep(grep)) => grep.pattern,
        other => panic!("{other:?}"),
    };
    assert_eq!(regex(json!({"pattern": "a.b(", "-F": true})), r"a\.b\(");
    assert_eq!(regex(json!({"regex": "a|b", "-w": true})), r"\b(?:a|b)\b");
    assert_eq!(regex(json!({"query": 404})), "404");

    let glob = Glob { pattern: "*.md".into(), path: Some("docs".into()), ..Glob::default() };
    let ways = [json!({"pattern": "*.md", "path": "docs"}), json!({"glob": "*.md", "directory": "docs"})];
    all_mean("Glob", &json!({}), &ways, &Action::File(FileOp::Glob(glob)));
}

#[test]
fn the_usual_options_of_commands_are_understood() {
    let means = |ways: &[Value], meant: Action| all_mean("Bash", &json!({"command": "ls"}), ways, &meant);
    let plain = bash_op("ls", BASH_TIMEOUT_DEFAULT_MS, false);
    means(
        &[
            json!({}),
            json!({"description": "Lists files"}),
            json!({"timeout": null, "run_in_background": false}),
        ],
        plain,
    );
    means(
        &[json!({"run_in_background": true}), json!({"background": "true"})],
        bash_op("ls", BASH_TIMEOUT_DEFAULT_MS, true),
    );
    let half_a_minute = [
        json!({"timeout": 30000}),
        json!({"timeout": 30}),
        json!({"timeout": "30"}),
        json!({"timeout_ms": 30000}),
        json!({"timeout_s": 30.0}),
        json!({"timeoutSeconds": 30}),
    ];
    means(&half_a_minute, bash_op("ls", 30_000, false));
    means(&[json!({"timeout": 0}), json!({"timeout": 1e300})], bash_op("ls", BASH_TIMEOUT_MAX_MS, false));
    means(&[json!({"workdir": "a b"})], bash_op("cd -- 'a b' || exit; ls", BASH_TIMEOUT_DEFAULT_MS, false));
    means(
        &[json!({"cwd": "~/x y"})],
        bash_op("cd -- \"$HOME\"'/x y' || exit; ls", BASH_TIMEOUT_DEFAULT_MS, false),
    );
    let words = [json!({"command": ["bash", "-lc", "ls"]}), json!({"command": ["ls"]}), json!({"cmd": "ls"})];
    all_mean("Bash", &json!({}), &words, &bash_op("ls", BASH_TIMEOUT_DEFAULT_MS, false));
    let spaced = json!({"command": ["grep", "a b", "f"]});
    all_mean("Bash", &spaced, &[json!({})], &bash_op("grep 'a b' f", BASH_TIMEOUT_DEFAULT_MS, false));
}

#[test]
fn tools_are_known_by_their_other_names() {
    let ls = bash_op("ls", BASH_TIMEOUT_DEFAULT_MS, false);
    for name in ["Bash", "bash", "BASH", "run_shell_command", "functions.bash", "execute_bash", "shell"] {
        all_mean(name, &json!({"command": "ls"}), &[json!({})], &ls);
    }
    let a = read_op(Read { file_path: "a".into(), ..Read::default() });
    for name in ["read", "read_file", "ReadFile", "view"] {
        all_mean(name, &json!({"path": "a"}), &[json!({})], &a);
    }
    let write = Action::File(FileOp::Write(Write { file_path: "a".into(), content: "x".into() }));
    for (command, rest, meant) in [
        ("view", json!({}), a),
        ("create", json!({"file_text": "x"}), write),
        ("str_replace", json!({"old_str": "a", "new_str": "b"}), one_edit("a", "a", "b", false)),
    ] {
        for name in ["str_replace_based_edit_tool", "str_replace_editor"] {
            all_mean(name, &json!({"path": "a", "command": command}), std::slice::from_ref(&rest), &meant);
        }
    }
    let listed = Glob { pattern: "*".into(), path: Some("docs".into()), ..Glob::default() };
    all_mean("LS", &json!({"path": "docs"}), &[json!({})], &Action::File(FileOp::Glob(listed)));
    assert!(
        is_read_only("read_file") && is_read_only("grep") && !is_read_only("bash") && !is_read_only("Nmap")
    );
}

#[test]
fn arguments_may_be_wrapped_or_written_as_a_string() {
    let ls = bash_op("ls", BASH_TIMEOUT_DEFAULT_MS, false);
    for text in [
        r#"{"arguments": {"command": "ls"}}"#,
        r#"{"input": {"command": "ls"}}"#,
        r#""{\"command\": \"ls\"}""#,
        "  {\"command\": \"ls\"}\n",
    ] {
        assert_eq!(action_of("Bash", text), ls, "{text}");
    }
}

#[test]
fn what_is_not_understood_is_refused_with_the_list() {
    for (name, arguments, says) in [
        (
            "Grep",
            json!({"pattern": "x", "invert": true}),
            "no argument \"invert\". It takes pattern, path, glob,",
        ),
        ("Grep", json!({"pattern": "x", "-v": true}), "no argument \"-v\""),
        ("Grep", json!({"pattern": "x", "-c": 3}), "\"-c\" must be true or false"),
        (
            "Grep",
            json!({"pattern": "x", "output_mode": "json"}),
            "must be one of files_with_matches, content, count",
        ),
        (
            "Grep",
            json!({"pattern": "x", "head_limit": -1}),
            "\"head_limit\" must be a whole number, 0 or more",
        ),
        ("Grep", json!({"pattern": ["x"]}), "\"pattern\" must be a string"),
        ("Grep", json!({"path": "x"}), "\"pattern\" is missing. It takes pattern,"),
        (
            "Bash",
            json!({"command": "ls", "stdin": "x"}),
            "no argument \"stdin\". It takes command, timeout_ms,",
        ),
        ("Bash", json!({"command": "ls", "sandbox": false}), "no argument \"sandbox\""),
        ("Bash", json!({"command": "ls", "timeout": "soon"}), "\"timeout\" must be a number"),
        ("Bash", json!({"command": "ls", "background": "maybe"}), "\"background\" must be true or false"),
        ("Read", json!({"file_path": "a", "pages": "1-5"}), "no argument \"pages\""),
        ("Read", json!({"file_path": "a", "path": "b"}), "\"file_path\" is given twice"),
        ("Read", json!({"file_path": "a", "limit": 1.5}), "\"limit\" must be a whole number"),
        ("Read", json!({"file_path": "a", "view_range": [5]}), "\"view_range\" must be the numbers"),
        ("Read", json!({"file_path": "a", "start_line": 5, "end_line": 3}), "comes before the first"),
        ("Write", json!({"file_path": "a", "content": "x", "append": true}), "no argument \"append\""),
        ("Write", json!({"file_path": "a", "content": {"a": 1}}), "\"content\" must be a string"),
        ("Edit", json!({"file_path": "a", "old_string": "x"}), "\"new_string\" is missing"),
        ("Edit", json!({"file_path": "a", "edits": []}), "\"edits\" is empty"),
        (
            "Edit",
            json!({"file_path": "a", "edits": [{"old_string": "x"}]}),
            "edits[0]: \"new_string\" is missing",
        ),
        ("Edit", json!({"file_path": "a", "edits": [{}], "old_string": "x"}), "either \"edits\" or"),
        ("Glob", json!({"pattern": "*", "depth": 3}), "no argument \"depth\". It takes pattern, path,"),
        ("WebFetch", json!({"url": "https://a.b", "offset": 24000}), "no argument \"offset\". It takes url"),
        ("TodoWrite", json!({"todos": [{"state": "x"}]}), "todos[0] has no \"content\""),
        ("str_replace_editor", json!({"command": "insert", "path": "a"}), "view, create or str_replace"),
    ] {
        let Action::Answered(output) = action_of(name, &arguments.to_string()) else {
            panic!("{name} {arguments} is run")
        };
        assert_eq!(output.code.as_deref(), Some("tool.bad_input"), "{name} {arguments}");
        assert!(output.content.contains(says), "{name} {arguments}: {}", output.content);
    }
}

#[test]
fn what_is_offered_is_what_is_understood() {
    let context = SessionContext { network: Network::Public, ..SessionContext::default() };
    for tool in definitions(&context) {
        for (name, schema) in tool.parameters["properties"].as_object().unwrap() {
            let value = match schema["type"].as_str().unwrap() {
                "integer" => json!(1),
                "boolean" => json!(true),
                "array" => json!([]),
                _ => schema["enum"].get(0).cloned().unwrap_or("https://a.b".into()),
            };
            let answered = action_of(&tool.name, &json!({name: value}).to_string());
            let unknown = matches!(&answered, Action::Answered(out) if out.content.contains("no argument"));
            assert!(!unknown, "{} {name}: {answered:?}", tool.name);
        }
        let bytes = serde_json::to_string(&tool).unwrap().len();
        assert!(bytes < 1_500, "{} takes {bytes} bytes of every prompt", tool.name);
    }
}

proptest! {
    #[test]
    fn any_text_has_an_answer(name in 0..spelled().len(), text in "\\PC{0,60}", key in "[a-zA-Z_-]{0,12}", number: i64) {
        let name = spelled()[name];
        action_of(name, &text);
        for value in [json!(number), json!(text), json!([text]), json!({"a": text}), json!(null)] {
            action_of(name, &json!({key.as_str(): value}).to_string());
        }
    }
}

fn spelled() -> Vec<&'static str> {
    [&NAMES[..], &["ls", "str_replace_editor"]].concat()
}
