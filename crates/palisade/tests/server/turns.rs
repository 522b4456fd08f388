//! A turn's stream, its tools and its end (contract §4).

use std::time::{Duration, Instant};

use palisade_testkit::stream::{TurnStream, joined, kinds};
use palisade_testkit::upstream::{Answer, Call, Gate};
use palisade_testkit::wait_for;
use reqwest::Method;
use serde_json::json;
use sqlx::ConnectOptions as _;
use sqlx::sqlite::SqliteConnectOptions;

use crate::sessions::{a_sleep, process_runs};
use crate::start;

#[tokio::test]
async fn text_and_thinking_stream_in_blocks_and_end_with_the_usage() {
    let (server, upstream) = start().await;
    let id = server.session(json!({})).await;
    upstream.push(Answer::stream().think("hm").say("Hello").say(" world").usage(12, 4, 7, 2).done());
    let mut stream = server.send(&id, "hi").await;
    let events = stream.rest().await;
    assert_eq!(events[0].kind, "message.created");
    assert_eq!(events[0].data["session_id"], id.as_str());
    assert_eq!(events[0].data["id"], stream.turn.as_str());
    assert!(stream.turn.starts_with("msg_") && stream.turn.len() == 28);
    let mut blocks = kinds(&events);
    blocks.dedup();
    assert_eq!(
        blocks,
        [
            "message.created",
            "thinking.start",
            "thinking.delta",
            "thinking.stop",
            "text.start",
            "text.delta",
            "text.stop",
            "message.completed"
        ]
    );
    assert_eq!(joined(&events, "text.delta"), "Hello world");
    let usage = &events.last().unwrap().data["usage"];
    assert_eq!(
        *usage,
        json!({"input_tokens": 12, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 7,
            "output_tokens_details": {"reasoning_tokens": 2}, "total_tokens": 19})
    );
    let numbers: Vec<u64> = events.iter().map(|event| event.id).collect();
    assert_eq!(numbers, (0..events.len() as u64).collect::<Vec<_>>(), "from 0, step 1");
}

#[tokio::test]
async fn the_headers_keep_proxies_from_holding_a_stream() {
    let (server, upstream) = start().await;
    let id = server.session(json!({})).await;
    upstream.push(Answer::text("hi"));
    let request =
        server.request(Method::POST, &format!("/v1/sessions/{id}/messages")).json(&json!({"message": "hi"}));
    let response = request.send().await.unwrap();
    for (name, value) in [
        ("content-type", "text/event-stream; charset=utf-8"),
        ("cache-control", "no-cache, no-transform"),
        ("x-accel-buffering", "no"),
    ] {
        assert_eq!(response.headers()[name], value, "{name}");
    }
    TurnStream::of(response).await.until("message.completed").await;
}

#[tokio::test]
async fn a_tool_call_is_a_block_and_its_result_goes_back_to_the_model() {
    let (server, upstream) = start().await;
    let id = server.session(json!({})).await;
    upstream
        .push(Answer::calls([Call::new("Bash", json!({"command": "echo to-the-model"})).with_id("call_x")]));
    upstream.push(Answer::text("done"));
    let events = server.send(&id, "go").await.rest().await;
    let mut blocks = kinds(&events);
    blocks.dedup();
    assert_eq!(
        blocks,
        [
            "message.created",
            "tool_use.start",
            "tool_use.input_delta",
            "tool_use.executing",
            "tool_use.output_delta",
            "tool_use.stop",
            "tool_result",
            "text.start",
            "text.delta",
            "text.stop",
            "message.completed"
        ]
    );
    let one = |kind: &str| events.iter().find(|event| event.kind == kind).unwrap().data.clone();
    assert_eq!(one("tool_use.start")["name"], "Bash");
    assert_eq!(one("tool_use.executing")["input"], json!({"command": "echo to-the-model"}));
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&joined(&events, "tool_use.input_delta")).unwrap()["command"],
        "echo to-the-model"
    );
    assert_eq!(joined(&events, "tool_use.output_delta"), "to-the-model\n");
    assert_eq!(one("tool_result")["content"], "to-the-model\n");
    assert_eq!(one("tool_result")["is_error"], false);
    assert_eq!(one("tool_result")["id"], one("tool_use.start")["id"]);

    let asked = &upstream.requests()[1].json["messages"];
    let last = asked.as_array().unwrap().last().unwrap();
    assert_eq!((last["role"].as_str(), last["content"].as_str()), (Some("tool"), Some("to-the-model\n")));
}

#[tokio::test]
async fn calls_are_understood_by_the_names_that_models_know() {
    let (server, upstream) = start().await;
    let id = server.session(json!({})).await;
    upstream.push(Answer::calls([
        Call::new(
            "bash",
            json!({"command": "echo Hi | tee a.txt", "description": "Greets", "timeout": 20_000}),
        ),
        Call::new("read_file", json!({"path": "a.txt", "offset": "1"})),
        Call::new("Grep", json!({"pattern": "hi$", "-i": true, "-n": true, "head_limit": 5})),
        Call::new("Grep", json!({"pattern": "hi", "invert_match": true})),
    ]));
    upstream.push(Answer::text("done"));
    let events = server.send(&id, "go").await.rest().await;
    let results: Vec<(bool, &str)> = events
        .iter()
        .filter(|event| event.kind == "tool_result")
        .map(|event| (event.data["is_error"].as_bool().unwrap(), event.data["content"].as_str().unwrap()))
        .collect();
    assert_eq!(results[..3], [(false, "Hi\n"), (false, "     1\tHi\n"), (false, "/workspace/a.txt:1:Hi\n")]);
    let (refused, said) = results[3];
    assert!(
        refused && said.contains("no argument \"invert_match\". It takes pattern, path, glob,"),
        "{said}"
    );
}

#[tokio::test]
async fn parallel_calls_run_in_order_and_all_get_answered() {
    let (server, upstream) = start().await;
    let id = server.session(json!({})).await;
    upstream.push(Answer::calls([
        Call::new("Write", json!({"file_path": "n.txt", "content": "one"})),
        Call::new("Read", json!({"file_path": "missing.txt"})),
        Call::new("Nonsense", json!({})),
        Call::new("Bash", json!({"command": "cat n.txt; exit 3"})),
    ]));
    upstream.push(Answer::text("done"));
    let events = server.send(&id, "go").await.rest().await;
    let mut open: Option<String> = None;
    let mut results = Vec::new();
    for event in &events {
        match event.kind.as_str() {
            "tool_use.start" => {
                assert_eq!(open, None, "blocks never interleave");
                open = event.data["id"].as_str().map(str::to_owned);
            }
            "tool_result" => {
                assert_eq!(open.take().as_deref(), event.data["id"].as_str());
                results.push((
                    event.data["is_error"].as_bool().unwrap(),
                    event.data["content"].as_str().unwrap().to_owned(),
                ));
            }
            _ => {}
        }
    }
    assert_eq!(results.iter().map(|(failed, _)| *failed).collect::<Vec<_>>(), [false, true, true, true]);
    assert!(results[3].1.contains("one") && results[3].1.contains("exit code 3"), "{:?}", results[3]);
    assert_eq!(events.last().unwrap().kind, "message.completed", "a tool's failure never ends a turn");
    let answered = upstream.requests()[1].json["messages"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|m| m["role"] == "tool")
        .count();
    assert_eq!(answered, 4);
}

#[tokio::test]
async fn a_second_message_while_busy_is_a_conflict_and_leaves_no_trace() {
    let (server, upstream) = start().await;
    let id = server.session(json!({})).await;
    let gate = Gate::new();
    upstream.push(Answer::stream().say("wait").wait(&gate).say(" over").done());
    let mut stream = server.send(&id, "first").await;
    stream.until("text.delta").await;
    assert_eq!(server.get(&format!("/v1/sessions/{id}")).await["busy"], true);
    let second = server
        .request(Method::POST, &format!("/v1/sessions/{id}/messages"))
        .json(&json!({"message": "second"}));
    assert_eq!(server.refused(second).await, (409, "session.busy".to_owned()));
    gate.open();
    stream.until("message.completed").await;
    assert_eq!(server.get(&format!("/v1/sessions/{id}")).await["busy"], false);
    upstream.push(Answer::text("again"));
    server.send(&id, "third").await.until("message.completed").await;
    let asked = upstream.requests().last().unwrap().json["messages"].to_string();
    assert!(asked.contains("first") && asked.contains("third") && !asked.contains("second"), "{asked}");
}

#[tokio::test]
async fn a_turn_runs_to_its_end_though_nobody_listens_and_can_be_read_afterwards() {
    let (server, upstream) = start().await;
    let id = server.session(json!({})).await;
    let gate = Gate::new();
    upstream.push(Answer::stream().say("one").wait(&gate).say("two").done());
    let mut stream = server.send(&id, "go").await;
    let seen = stream.until("text.delta").await;
    let turn = stream.turn.clone();
    drop(stream);
    gate.open();
    let path = format!("/v1/sessions/{id}/responses/{turn}/events");
    let last = seen.last().unwrap().id;
    let resume = server.request(Method::GET, &path).header("Last-Event-ID", last).send().await.unwrap();
    let rest = TurnStream::of(resume).await.rest().await;
    let whole = TurnStream::of(server.request(Method::GET, &path).send().await.unwrap()).await.rest().await;
    assert_eq!([&seen[..], &rest[..]].concat(), whole, "no gap, no duplicate, the same bytes");
    assert_eq!(joined(&whole, "text.delta"), "onetwo");
    let end = whole.last().unwrap().id;
    let nothing = server.request(Method::GET, &path).header("Last-Event-ID", end).send().await.unwrap();
    assert_eq!(nothing.status(), 204, "an EventSource would ask for ever");
    assert_eq!(nothing.headers()["x-response-id"], turn);
    assert_eq!(nothing.text().await.unwrap(), "");
    let future = server.request(Method::GET, &format!("{path}?last_event_id=999"));
    assert_eq!(server.refused(future).await.0, 400);
    for wrong in ["x", "-1", "+1", "1.5", ""] {
        let request = server.request(Method::GET, &path).header("Last-Event-ID", wrong);
        assert_eq!(server.refused(request).await.0, 400, "{wrong:?}");
    }
    let unknown = format!("/v1/sessions/{id}/responses/msg_{}/events", "0".repeat(24));
    assert_eq!(server.refused(server.request(Method::GET, &unknown)).await.0, 404);
}

/// A client that resumes by sending the message again would start a second turn, and pay for it.
#[tokio::test]
async fn a_message_with_a_last_event_id_is_told_where_events_are() {
    let (server, upstream) = start().await;
    let id = server.session(json!({})).await;
    let path = format!("/v1/sessions/{id}/messages");
    let again = |seen: &str| {
        let request = server.request(Method::POST, &path).header("Last-Event-ID", seen);
        request.json(&json!({"message": "go"}))
    };
    assert_eq!(server.refused(again("3")).await, (400, "resume.use_events".to_owned()));
    upstream.push(Answer::text("hi"));
    let mut stream = TurnStream::of(again("").send().await.unwrap()).await;
    stream.rest().await;
    for (seen, key) in [("1", None), ("0", Some("k")), ("x", None)] {
        let request = again(seen);
        let request = key.map_or(again(seen), |key| request.header("Idempotency-Key", key));
        let refused = request.send().await.unwrap();
        assert_eq!(refused.status(), 400, "{seen}");
        let body: serde_json::Value = refused.json().await.unwrap();
        let events = format!("GET /v1/sessions/{id}/responses/{}/events", stream.turn);
        assert_eq!(body["code"], "resume.use_events");
        assert!(body["message"].as_str().unwrap().contains(&events), "{body}");
    }
    assert_eq!(upstream.requests().len(), 1, "no turn was started");
}

/// What readers of lines lose: other line ends than ASCII's, and lines that are too long for them.
#[tokio::test]
async fn every_event_is_one_line_of_at_most_64_kib_with_its_type() {
    let (server, upstream) = start().await;
    let id = server.session(json!({})).await;
    let odd = "a\u{85}b\u{2028}c\u{2029}d";
    let content = format!("{odd}{}", "\u{1}x".repeat(12_000));
    let write = json!({"file_path": "/workspace/long", "content": content});
    upstream.push(Answer::tool_call("Write", write.clone()));
    upstream.push(Answer::tool_call("Bash", json!({"command": "cat long"})));
    upstream.push(Answer::text(odd));
    let events = server.send(&id, "go").await.rest().await;
    let one =
        |kind: &str, nth: usize| &events.iter().filter(|event| event.kind == kind).nth(nth).unwrap().data;
    for event in &events {
        assert_eq!(event.data["type"], event.kind);
        let data = event.frame.lines().nth(2).unwrap();
        assert!(
            data.starts_with(&format!(
                "data: {{\"type\":\"{}\",\"sequence_number\":{}",
                event.kind, event.id
            ))
        );
        assert!(data.len() - "data: ".len() <= 64 * 1024, "{}: {} bytes", event.kind, data.len());
        assert!(!event.frame.contains(['\u{85}', '\u{2028}', '\u{2029}']), "{}", event.kind);
    }
    let executing = one("tool_use.executing", 0);
    assert_eq!(executing["input"], json!({"truncated": true, "bytes": write.to_string().len()}));
    let streamed: serde_json::Value = serde_json::from_str(&joined(
        &events[..executing["sequence_number"].as_u64().unwrap() as usize],
        "tool_use.input_delta",
    ))
    .unwrap();
    assert_eq!(streamed, write, "the whole input was streamed before");
    assert_eq!(joined(&events, "text.delta"), odd);
    // Control characters are taken out of what a command prints; these two are none.
    assert!(one("tool_result", 1)["content"].as_str().unwrap().contains("b\u{2028}c\u{2029}d"));
    assert_eq!(std::fs::read_to_string(server.workspace().join("long")).unwrap(), content);
}

#[tokio::test]
async fn cancel_ends_the_stream_within_a_second_while_a_tool_runs_the_model_hangs_or_the_client_is_awaited() {
    let (server, upstream) = start().await;
    let lookup = json!({"type": "function", "function": {"name": "lookup"}});
    let id = server.session(json!({"tools": [lookup]})).await;
    let sleep = a_sleep(2);
    // Nothing that a polite signal would end.
    let command = format!("trap '' TERM; echo on; {sleep}");
    for (hanging, begun) in [
        (Answer::tool_call("Bash", json!({"command": command})), "tool_use.output_delta"),
        (Answer::never(), "message.created"),
        (Answer::stream().say("half").stall(), "text.delta"),
        (Answer::tool_call("lookup", json!({})), "tool_call.requested"),
    ] {
        upstream.push(hanging);
        let before = upstream.requests().len();
        let mut stream = server.send(&id, "go").await;
        stream.until(begun).await;
        upstream.wait_for_requests(before + 1).await;
        if begun == "tool_use.output_delta" {
            wait_for("the command to run", || async { process_runs(&sleep).then_some(()) }).await;
        }
        let cancel = format!("/v1/sessions/{id}/responses/{}/cancel", stream.turn);
        let asked = Instant::now();
        let response = server.request(Method::POST, &cancel).send().await.unwrap();
        assert_eq!(response.status(), 202);
        let events = stream.rest().await;
        // What a cancel may take, and no more.
        assert!(asked.elapsed() < Duration::from_secs(1), "{begun}: {:?}", asked.elapsed());
        let ends: Vec<&str> = kinds(&events)
            .into_iter()
            .filter(|kind| kind.starts_with("message.") && *kind != "message.created")
            .collect();
        assert_eq!(ends, ["message.cancelled"]);
        wait_for("the command to be gone", || async { (!process_runs(&sleep)).then_some(()) }).await;
        let again = server.json(server.request(Method::POST, &cancel)).await;
        assert_eq!(again["status"], "already_complete");
    }
    upstream.push(Answer::text("usable"));
    let events = server.send(&id, "and now?").await.rest().await;
    assert_eq!(joined(&events, "text.delta"), "usable");
}

/// What another server was told may be in the store before this one hears of it.
#[tokio::test]
async fn a_cancel_that_is_only_in_the_store_holds_and_costs_nothing() {
    let (server, upstream) = start().await;
    let id = server.session(json!({})).await;
    let gate = Gate::new();
    upstream.push(Answer::stream().usage(300_000, 0, 0, 0).say("one").wait(&gate).say("two").done());
    let mut stream = server.send(&id, "go").await;
    stream.until("text.delta").await;
    let before = server.get("/v1/usage").await["credits"]["balance"].clone();
    let file = server.folder.path().join("data/palisade.db");
    let mut database = SqliteConnectOptions::new().filename(file).connect().await.unwrap();
    let ask = sqlx::query("UPDATE turn SET cancel_requested = TRUE WHERE id = $1").bind(&stream.turn);
    assert_eq!(ask.execute(&mut database).await.unwrap().rows_affected(), 1);
    gate.open();
    let events = stream.rest().await;
    assert_eq!(events.last().unwrap().kind, "message.cancelled");
    assert_eq!(events.iter().filter(|event| event.kind == "message.completed").count(), 0);
    assert_eq!(server.get("/v1/usage").await["credits"]["balance"], before);
}

#[tokio::test]
async fn output_is_live_and_cut_to_its_limit_with_a_marker() {
    let (server, upstream) = start().await;
    let id = server.session(json!({})).await;
    upstream.push(Answer::tool_call("Bash", json!({"command": "echo begin; while [ ! -e go ]; do sleep 0.02; done; head -c 3000000 /dev/zero | tr '\\0' x; echo end"})));
    upstream.push(Answer::text("done"));
    let mut stream = server.send(&id, "go").await;
    stream.until("tool_use.output_delta").await;
    // Seen while the command waits for this very file.
    server.json(server.request(Method::PUT, &format!("/v1/sessions/{id}/files/go")).body("")).await;
    let events = stream.rest().await;
    let streamed = joined(&events, "tool_use.output_delta").len();
    assert!(streamed < 300 * 1024, "{streamed} bytes were streamed");
    let result = events.iter().find(|event| event.kind == "tool_result").unwrap();
    let content = result.data["content"].as_str().unwrap();
    assert!(content.len() <= 32 * 1024, "{}", content.len());
    assert!(content.starts_with("begin\n") && content.contains("bytes cut"));
    // The end of the output stands before what is said of it, the way to all of it included.
    let (_, said) = content.split_once("xend\n").unwrap();
    assert!(said.starts_with("[bytes of output: ") && said.contains("$TMPDIR/out.txt"), "{said}");
}

#[tokio::test]
async fn the_prompt_names_the_workspace_the_skills_the_context_and_the_memory() {
    let (server, upstream) = start().await;
    let first = server.session(json!({})).await;
    for (path, text) in [
        (".pokee/b.md", "Second file."),
        (".pokee/a.md", "We write British English."),
        ("skills/tables/SKILL.md", "---\nname: tables\ndescription: Makes tables.\n---\nUse rows.\n"),
    ] {
        server
            .json(server.request(Method::PUT, &format!("/v1/sessions/{first}/files/{path}")).body(text))
            .await;
    }
    let second = server.session(json!({})).await;
    upstream.push(Answer::calls([
        Call::new("Skill", json!({"name": "tables"})),
        Call::new("Bash", json!({"command": "cat /skills/tables/SKILL.md; touch /skills/tables/x"})),
        Call::new("Skill", json!({"name": "absent"})),
    ]));
    upstream.push(Answer::text("done"));
    let events = server.send(&second, "go").await.rest().await;
    let system = upstream.requests()[0].json["messages"][0]["content"].as_str().unwrap().to_owned();
    for named in [
        "/workspace",
        "- tables: Makes tables.",
        "- pptx-builder: ",
        ".memory/MEMORY.md",
        "## a.md\n",
        "British English",
    ] {
        assert!(system.contains(named), "{named}: {system}");
    }
    assert!(system.find("## a.md") < system.find("## b.md"), "alphabetical");
    let results: Vec<&serde_json::Value> =
        events.iter().filter(|e| e.kind == "tool_result").map(|e| &e.data).collect();
    assert!(results[0]["content"].as_str().unwrap().contains("Use rows."));
    assert!(results[1]["content"].as_str().unwrap().contains("Read-only file system"), "{}", results[1]);
    assert_eq!(results[2]["code"], "skill.not_found");
    upstream.push(Answer::text("old"));
    server.send(&first, "go").await.rest().await;
    let older =
        upstream.requests().last().unwrap().json["messages"][0]["content"].as_str().unwrap().to_owned();
    assert!(!older.contains("British"), "a running session keeps what it had at its start");
}

#[tokio::test]
async fn an_agent_without_end_is_stopped_by_the_limit_of_the_loop() {
    let (server, upstream) = start().await;
    let id = server.session(json!({})).await;
    upstream.respond_with(|_| Answer::tool_call("TodoWrite", json!({"todos": []})));
    let events = server.send(&id, "go").await.rest().await;
    let end = events.last().unwrap();
    assert_eq!(
        (end.kind.as_str(), end.data["code"].as_str()),
        ("message.error", Some("turn.too_many_steps"))
    );
    upstream.respond_with(|_| Answer::text("ok"));
    server.send(&id, "and now?").await.until("message.completed").await;
}

#[tokio::test]
async fn a_file_of_a_mebibyte_is_written_and_a_call_beyond_its_bound_is_told_to_the_model() {
    let (server, upstream) = start().await;
    let id = server.session(json!({})).await;
    // Whole in one delta each: in small pieces it would take a minute to say.
    let write = |index: u64, path: &str, bytes: usize| {
        let arguments = json!({"file_path": path, "content": "x".repeat(bytes)}).to_string();
        let function = json!({"name": "Write", "arguments": arguments});
        json!({"tool_calls": [{"index": index, "id": path, "type": "function", "function": function}]})
    };
    let answer = Answer::stream().delta(&write(0, "fits", 1024 * 1024));
    upstream.push(answer.delta(&write(1, "too-large", 3 * 1024 * 1024)).done_because("tool_calls"));
    upstream.push(Answer::text("done"));
    let events = server.send(&id, "go").await.rest().await;
    assert_eq!(events.last().unwrap().kind, "message.completed");
    let results: Vec<_> = events.iter().filter(|event| event.kind == "tool_result").collect();
    assert_eq!(results[0].data["is_error"], false, "{}", results[0].frame);
    assert_eq!(results[1].data["code"], "tool.input_too_large");
    let executing = events.iter().filter(|event| event.kind == "tool_use.executing").count();
    assert_eq!(executing, 1, "the one beyond the bound was not run");
    assert_eq!(std::fs::metadata(server.workspace().join("fits")).unwrap().len(), 1024 * 1024);
    assert!(!server.workspace().join("too-large").exists());
}
