//! `plan` over whole conversations: a tool loop that keeps files in memory and answers the build and check commands
//! as told. What the planner sees is nothing but the request.

#![expect(clippy::unwrap_used, clippy::panic, reason = "all of this file is tests and their frame")]

use std::collections::BTreeMap;

use palisade_planner::{Answer, ChatRequest, LABEL, plan};
use proptest::prelude::*;
use serde_json::{Value, json};

const SKILL: &str = include_str!("../../../skills/pptx-builder/SKILL.md");
const TOOLS: [&str; 8] = ["Bash", "Read", "Write", "Edit", "Glob", "Grep", "TodoWrite", "Skill"];
const OK: &str = "{\n  \"ok\": true,\n  \"command\": \"check\",\n  \"slides\": 10,\n  \"rendered\": true,\n  \"warnings\": [],\n  \"problems\": []\n}\n";
const COOKBOOK: &str = "Build a Temasek-style PPT on Q3 NVIDIA performance.";

/// A session as the planner sees it, with a sandbox that is a map of files.
struct Session {
    messages: Vec<Value>,
    tools: Vec<&'static str>,
    files: BTreeMap<String, String>,
    /// Answers to builds and checks, in order; after them everything is fine.
    reports: Vec<String>,
    commands: Vec<String>,
}

impl Session {
    fn new() -> Self {
        let system = "You are an agent.\n<skills>\n- pptx-builder: Builds PowerPoint decks (.pptx), slides and presentations.\n\
            - invoice-desk: Writes bills.\n</skills>";
        Self {
            messages: vec![json!({"role": "system", "content": system})],
            tools: TOOLS.to_vec(),
            files: BTreeMap::new(),
            reports: Vec::new(),
            commands: Vec::new(),
        }
    }

    fn file(mut self, name: &str, text: &str) -> Self {
        self.files.insert(format!("/workspace/{name}"), text.into());
        self
    }

    fn report(mut self, report: impl Into<String>) -> Self {
        self.reports.push(report.into());
        self
    }

    fn request(&self) -> ChatRequest {
        let tools: Vec<Value> =
            self.tools.iter().map(|name| json!({"type": "function", "function": {"name": name}})).collect();
        ChatRequest::from_json(json!({"messages": self.messages, "tools": tools}).to_string().as_bytes())
            .unwrap()
    }

    /// Runs a turn to its end and returns everything said.
    fn say(&mut self, text: &str) -> Vec<String> {
        self.messages.push(json!({"role": "user", "content": text}));
        let mut said = Vec::new();
        for _ in 0..20 {
            let answer = plan(&self.request());
            assert_eq!(answer, plan(&self.request()), "the same request has the same answer");
            said.push(answer.text.clone());
            if answer.calls.is_empty() {
                return said;
            }
            self.take(&answer);
        }
        panic!("the turn does not end: {said:#?}");
    }

    fn take(&mut self, answer: &Answer) {
        let calls: Vec<Value> = answer
            .calls
            .iter()
            .map(|call| json!({"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments.to_string()}}))
            .collect();
        self.messages.push(json!({"role": "assistant", "content": answer.text, "tool_calls": calls}));
        for call in &answer.calls {
            let content = self.tool(&call.name, &call.arguments);
            self.messages.push(json!({"role": "tool", "tool_call_id": call.id, "content": content}));
        }
    }

    fn tool(&mut self, name: &str, arguments: &Value) -> String {
        let text = |key: &str| arguments[key].as_str().unwrap_or_default().to_owned();
        let absolute = |path: String| if path.starts_with('/') { path } else { format!("/workspace/{path}") };
        match name {
            "Skill" if text("name") == "pptx-builder" => SKILL.into(),
            "Skill" => format!("# Bills\n{}", "Ask the clerk, who knows. ".repeat(30)),
            "Read" => match self.files.get(&absolute(text("file_path"))) {
                Some(held) => {
                    held.lines().enumerate().map(|(at, line)| format!("{:>6}\t{line}\n", at + 1)).collect()
                }
                None => format!("There is no file {}.", text("file_path")),
            },
            "Write" => {
                self.files.insert(absolute(text("file_path")), text("content"));
                "Wrote it.".into()
            }
            "Glob" => {
                let base = text("pattern").trim_start_matches("**/").replace('*', "");
                let found: Vec<&str> =
                    self.files.keys().filter(|path| path.ends_with(&base)).map(String::as_str).collect();
                found.join("\n")
            }
            "Bash" => self.run(&text("command")),
            other => panic!("no tool {other}"),
        }
    }

    fn run(&mut self, command: &str) -> String {
        self.commands.push(command.into());
        let file = command.split_whitespace().last().unwrap_or_default().to_owned();
        if command.contains(" build ") || command.contains(" check ") {
            if command.contains(" build ") {
                self.files.insert(file, "a deck".into());
            }
            return if self.reports.is_empty() { OK.into() } else { self.reports.remove(0) };
        }
        if command.contains("ls -l ") {
            return if self.files.contains_key(&file) {
                format!("-rw-r--r-- 1 {file}")
            } else {
                "No such file\n[exit code 2]".into()
            };
        }
        if command == "echo hi" { "hi\n".into() } else { String::new() }
    }

    /// The spec as it stands in the workspace.
    fn spec(&self, name: &str) -> Value {
        let path = format!("/workspace/output/{name}.json");
        serde_json::from_str(
            self.files.get(&path).unwrap_or_else(|| panic!("no {path}: {:?}", self.files.keys())),
        )
        .unwrap()
    }
}

fn layouts(spec: &Value) -> Vec<&str> {
    spec["slides"].as_array().unwrap().iter().map(|slide| slide["layout"].as_str().unwrap()).collect()
}

fn charts(spec: &Value) -> Vec<&Value> {
    spec["slides"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|slide| slide["layout"] == "chart")
        .map(|slide| &slide["chart"])
        .collect()
}

fn problems(problems: &Value) -> String {
    format!("{{\n  \"ok\": false,\n  \"problems\": {problems}\n}}\n[exit code 1]")
}

#[test]
fn the_cookbook_line_becomes_a_deck() {
    let mut session = Session::new();
    let said = session.say(COOKBOOK);
    assert!(said[0].starts_with(LABEL), "{}", said[0]);
    assert!(said[1..].iter().all(|text| !text.contains(LABEL)), "the label stands once a turn");
    let spec = session.spec("q3-nvidia-performance");
    assert_eq!(spec["title"], "Q3 NVIDIA performance");
    let layouts = layouts(&spec);
    assert_eq!((layouts[0], layouts[1], layouts.last().copied()), ("title", "agenda", Some("closing")));
    assert!(layouts.len() >= 8 && layouts.contains(&"chart"), "{layouts:?}");
    assert_eq!(charts(&spec)[0]["sample"], true);
    assert!(session.files.contains_key("/workspace/output/q3-nvidia-performance.pptx"));
    let last = said.last().unwrap();
    for expected in [
        "`output/q3-nvidia-performance.pptx` (10 slides)",
        "no problems",
        "sample data",
        "Temasek-style",
        "no brand assets",
    ] {
        assert!(last.contains(expected), "{expected}: {last}");
    }
    for status in ["planning", "building", "checking", "done"] {
        assert!(
            session
                .commands
                .iter()
                .any(|command| command.starts_with(&format!("session-status deck_status={status}"))),
            "{status}"
        );
    }
}

/// No number and no name stands in the deck that the request did not give.
#[test]
fn nothing_is_invented() {
    let mut session = Session::new();
    session.say("Build a deck on otters");
    let mut spec = session.spec("otters");
    for slide in spec["slides"].as_array_mut().unwrap() {
        if slide["chart"]["sample"] == true {
            assert_eq!(slide["chart"]["series"][0]["values"], json!([1, 2, 3, 4]));
            slide["chart"] = Value::Null;
        }
    }
    let text = spec
        .to_string()
        .replace("Step 1", "")
        .replace("Step 2", "")
        .replace("Step 3", "")
        .replace("Step 4", "");
    assert!(!text.chars().any(|c| c.is_ascii_digit()), "{text}");
}

#[test]
fn figures_of_the_request_are_used_exactly() {
    let mut session = Session::new();
    let said = session.say("Make a presentation about growth with revenue 10, 12.5, 15 for 2021–2023");
    let spec = session.spec("growth");
    let charts = charts(&spec);
    assert_eq!(charts.len(), 1);
    assert_eq!(
        (&charts[0]["categories"], &charts[0]["series"][0]["values"]),
        (&json!(["2021", "2022", "2023"]), &json!([10, 12.5, 15]))
    );
    assert!(charts[0].get("sample").is_none());
    assert!(!said.last().unwrap().contains("sample data"));
}

#[test]
fn a_csv_becomes_a_chart_and_a_table() {
    let mut session = Session::new().file("data/sales.csv", "Region,Revenue\nNorth,120\nSouth,80\n");
    let said = session.say("Build a deck on sales from sales.csv");
    let spec = session.spec("sales");
    assert_eq!(charts(&spec)[0]["series"][0]["values"], json!([120, 80]));
    let table = spec["slides"]
        .as_array()
        .unwrap()
        .iter()
        .find(|slide| slide["table"]["columns"] == json!(["Region", "Revenue"]));
    assert_eq!(table.unwrap()["table"]["rows"], json!([["North", 120], ["South", 80]]));
    assert!(!said.last().unwrap().contains("sample data"));
}

#[test]
fn an_outline_becomes_slides() {
    let mut session =
        Session::new().file("talk.md", "# Tea\n## Growing\n- Rain\n- Shade\n## Drying\n- Slowly\n");
    session.say("Turn talk.md into slides");
    let spec = session.spec("tea");
    assert_eq!(layouts(&spec), ["title", "agenda", "bullets", "bullets", "closing"]);
    assert_eq!(spec["slides"][2]["bullets"], json!(["Rain", "Shade"]));
    assert!(!spec.to_string().contains("What to say here"));
}

#[test]
fn a_missing_source_ends_the_turn_honestly() {
    let mut session = Session::new();
    let said = session.say("Build a deck from sales.csv");
    assert!(
        said.last().unwrap().contains("sales.csv") && said.last().unwrap().contains("No deck was made"),
        "{said:?}"
    );
    assert!(!session.commands.iter().any(|command| command.contains(" build ")));
    let said = Session::new().say("Build a deck from report.pdf");
    assert!(said[0].contains("cannot read report.pdf"), "{said:?}");
}

#[test]
fn a_failing_check_is_mended() {
    let overflow = json!([{"slide": 3, "path": "$.slides[2].title", "kind": "overflow", "detail": "too long",
        "max_chars": 20, "fix": "Shorten $.slides[2].title to at most 20 characters."}]);
    let mut session = Session::new().report(OK).report(problems(&overflow));
    let said = session.say(COOKBOOK);
    let title = session.spec("q3-nvidia-performance")["slides"][2]["title"].as_str().unwrap().to_owned();
    assert!(title.chars().count() <= 20, "{title}");
    assert!(said.last().unwrap().contains("mended: shortened $.slides[2].title"), "{said:?}");
    assert_eq!(session.commands.iter().filter(|command| command.contains(" build ")).count(), 2);
}

#[test]
fn what_cannot_be_mended_is_told() {
    let cases = [
        (
            "a missing program",
            problems(
                &json!([{"path": "$", "kind": "render", "detail": "not on this machine: soffice", "fix": "Install it."}]),
            ),
            "not on this machine",
        ),
        ("no report", "bash: python3: command not found\n[exit code 127]".to_owned(), "command not found"),
    ];
    for (name, report, expected) in cases {
        let mut session = Session::new().report(report);
        let said = session.say(COOKBOOK);
        assert!(said.last().unwrap().contains(expected), "{name}: {said:?}");
        assert!(said.last().unwrap().starts_with("The deck is not as it should be"), "{name}");
        assert_eq!(
            session.commands.iter().filter(|command| command.contains(" build ")).count(),
            1,
            "{name}: the same call is not repeated"
        );
    }
}

#[test]
fn mending_ends_after_three_rounds() {
    let mut session = Session::new();
    for _ in 0..9 {
        let found = json!([{"path": "$.slides[2]", "kind": "overflow", "detail": "too full", "fix": "Use less text."}]);
        session = session.report(problems(&found));
    }
    let said = session.say(COOKBOOK);
    assert_eq!(session.commands.iter().filter(|command| command.contains(" build ")).count(), 4);
    assert!(said.last().unwrap().contains("after 3 rounds"), "{said:?}");
}

#[test]
fn an_interrupted_build_runs_again() {
    let mut session = Session::new().report("The server was restarted while this call ran. Whether it took effect is not known: look before you repeat it.");
    let said = session.say(COOKBOOK);
    assert!(said.last().unwrap().starts_with("The deck is ready"), "{said:?}");
}

#[test]
fn a_taken_name_is_not_overwritten() {
    let mut session = Session::new().file("output/q3-nvidia-performance.pptx", "somebody's");
    session.say(COOKBOOK);
    assert_eq!(session.files["/workspace/output/q3-nvidia-performance.pptx"], "somebody's");
    assert!(session.files.contains_key("/workspace/output/q3-nvidia-performance-2.pptx"));
}

#[test]
fn a_scoped_session_writes_where_it_may() {
    let mut session = Session::new();
    let system = session.messages[0]["content"].as_str().unwrap().replace(
        "You are an agent.",
        "- You see a part of the workspace only. You may read: /workspace/a. You may write: /workspace/a. Other paths do not exist for you.",
    );
    session.messages[0]["content"] = system.into();
    session.say("Build a deck on tea");
    assert!(session.files.contains_key("/workspace/a/tea.pptx"), "{:?}", session.files.keys());
}

#[test]
fn questions_and_code_are_refused_in_two_sentences() {
    for request in
        ["What is the capital of France?", "Write a Rust function that sorts", "Hello!", "Summarise the news"]
    {
        let said = Session::new().say(request);
        let refusal = said[0].strip_prefix(LABEL).unwrap().trim();
        assert_eq!(said.len(), 1, "{request}");
        assert!(
            refusal.starts_with("It cannot do this")
                && refusal.contains("What it can do: build a slide deck"),
            "{refusal}"
        );
        assert_eq!(refusal.matches(". ").count(), 1, "two sentences: {refusal}");
    }
}

#[test]
fn a_skill_without_a_deck_spec_is_left_to_a_model() {
    let said = Session::new().say("Write an invoice for Ann");
    assert!(
        said.last().unwrap().contains("invoice-desk") && said.last().unwrap().contains("no deck spec"),
        "{said:?}"
    );
}

#[test]
fn a_missing_tool_is_named() {
    for tool in ["Bash", "Skill", "Write"] {
        let mut session = Session::new();
        session.tools.retain(|name| *name != tool);
        let said = session.say(COOKBOOK);
        assert!(said.len() == 1 && said[0].contains(&format!("needs the tool {tool}")), "{said:?}");
    }
}

#[test]
fn chores_are_done_and_reported() {
    let mut session = Session::new().file("notes.md", "milk\nbread\n");
    assert!(session.say("run `echo hi`").last().unwrap().contains("```\nhi\n```"));
    assert!(session.say("read notes.md").last().unwrap().contains("milk\nbread"));
    assert!(session.say("read none.md").last().unwrap().contains("There is no file none.md."));
    session.say("write hello to greeting.txt");
    assert_eq!(session.files["/workspace/greeting.txt"], "hello\n");
    session.say("list files");
    assert_eq!(session.commands.last().unwrap(), "ls -la -- .");
}

#[test]
fn a_follow_up_changes_the_deck() {
    let mut session = Session::new();
    session.say("Build a deck on tea");
    let before = layouts(&session.spec("tea")).len();
    let said = session.say("Now add a slide about water quality");
    assert!(said[0].starts_with(LABEL), "every turn is labelled");
    assert!(said.last().unwrap().contains("A slide about “water quality” was added"), "{said:?}");
    assert_eq!(layouts(&session.spec("tea")).len(), before + 1);
    session.say("Change the title to Green tea");
    assert_eq!(session.spec("tea")["title"], "Green tea");
    assert_eq!(layouts(&session.spec("tea")).len(), before + 1, "the earlier change stays");
}

#[test]
fn continue_takes_the_request_up_again() {
    let mut session = Session::new();
    session.messages.push(json!({"role": "user", "content": COOKBOOK}));
    let said = session.say("continue");
    assert!(said.last().unwrap().starts_with("The deck is ready"), "{said:?}");
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,24}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("[a-z_]{1,9}", inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

proptest! {
    #[test]
    fn any_json_is_a_request_or_an_error(body in any_json()) {
        if let Ok(request) = ChatRequest::from_json(body.to_string().as_bytes()) {
            plan(&request);
        }
    }

    /// Hostile words and hostile tool results: always an answer, and calls are always unique.
    #[test]
    fn any_conversation_has_an_answer(
        request in prop_oneof!["\\PC{0,80}", "(build|make|add|write|read) (a deck|slides|a slide)? ?(on|about|to)? \\PC{0,60}"],
        results in prop::collection::vec(prop_oneof!["\\PC{0,200}", Just(SKILL.to_owned()), Just(OK.to_owned()), "     1\t\\PC{0,60}", "\\{\"ok\": false, \"problems\": \\[\\{\"path\": \"\\$[a-z.\\[\\]0-9]{0,20}\", \"kind\": \"[a-z_]{0,9}\"\\}\\]\\}"], 1..12),
    ) {
        let mut session = Session::new();
        session.messages.push(json!({"role": "user", "content": request}));
        let mut ids = std::collections::BTreeSet::new();
        let mut results = results.into_iter().cycle();
        for _ in 0..16 {
            let answer = plan(&session.request());
            prop_assert!(!answer.text.is_empty());
            if answer.calls.is_empty() {
                return Ok(());
            }
            let calls: Vec<Value> = answer.calls.iter().map(|call| json!({"id": call.id, "type": "function",
                "function": {"name": call.name, "arguments": call.arguments.to_string()}})).collect();
            session.messages.push(json!({"role": "assistant", "content": answer.text, "tool_calls": calls}));
            for call in answer.calls {
                prop_assert!(ids.insert(call.id.clone()));
                session.messages.push(json!({"role": "tool", "tool_call_id": call.id, "content": results.next()}));
            }
        }
        prop_assert!(false, "the turn does not end");
    }

    #[test]
    fn any_file_makes_a_deck(text in "[\\PC\n,;|#-]{0,400}", extension in prop_oneof!["csv", "md", "txt"]) {
        let name = format!("data.{extension}");
        let mut session = Session::new().file(&name, &text);
        let said = session.say(&format!("Build a deck on tea from {name}"));
        prop_assert!(said.len() > 1);
    }
}
