//! Sessions end when their time is over, and a tenant has only so many of them (contract §1 and §3).

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use palisade_testkit::stream::{TurnEvent, kinds};
use palisade_testkit::upstream::{Answer, Gate};
use palisade_testkit::{Server, wait_for};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::sessions::process_runs;
use crate::{start, start_with};

const SHORT_IDLE: &str = "[sessions]\nidle_s = 1";

async fn is_there(server: &Server, id: &str) -> bool {
    let response = server.request(Method::GET, &format!("/v1/sessions/{id}")).send().await.unwrap();
    assert!([StatusCode::OK, StatusCode::NOT_FOUND].contains(&response.status()), "{}", response.status());
    response.status() == StatusCode::OK
}

/// Looks again and again, which is traffic and must not prolong anything.
async fn wait_until_gone(server: &Server, id: &str) {
    wait_for("the session's end", || async { (!is_there(server, id).await).then_some(()) }).await;
    let folder = server.workspace().join(".sessions").join(id);
    wait_for("the end of its folder", || async { (!folder.exists()).then_some(()) }).await;
}

#[tokio::test]
async fn a_session_ends_after_its_last_response_unless_it_is_persistent_or_was_never_used() {
    let (server, upstream) = start_with(SHORT_IDLE).await;
    let unused = server.session(json!({})).await;
    let persistent = server.session(json!({"persistent": true})).await;
    upstream.push(Answer::text("kept"));
    server.send(&persistent, "go").await.until("message.completed").await;
    let used = server.session(json!({})).await;
    let command = "echo kept > result; mkdir -p .memory; echo kept > .memory/MEMORY.md; sleep 5151";
    upstream.push(Answer::tool_call("Bash", json!({"command": command, "background": true})));
    upstream.push(Answer::text("done"));
    server.send(&used, "go").await.until("message.completed").await;
    let ended = Instant::now();
    let result = server.workspace().join("result");
    let memory = server.workspace().join(".memory/MEMORY.md");
    wait_for("the command's work", || async { (result.exists() && memory.exists()).then_some(()) }).await;

    wait_until_gone(&server, &used).await;
    let lived = ended.elapsed();
    assert!(lived >= Duration::from_millis(900), "it ended {lived:?} after its response");
    wait_for("the end of its processes", || async { (!process_runs("sleep 5151")).then_some(()) }).await;
    assert_eq!(std::fs::read_to_string(result).unwrap(), "kept\n");
    assert_eq!(std::fs::read_to_string(memory).unwrap(), "kept\n");
    // Both are older than the one that is gone.
    assert!(is_there(&server, &persistent).await && is_there(&server, &unused).await);
}

#[tokio::test]
async fn a_session_that_runs_a_turn_is_not_idle() {
    let (server, upstream) = start_with(SHORT_IDLE).await;
    let busy = server.session(json!({})).await;
    upstream.push(Answer::text("first"));
    server.send(&busy, "go").await.until("message.completed").await;
    let gate = Gate::new();
    upstream.push(Answer::stream().say("one").wait(&gate).say("two").done());
    let mut stream = server.send(&busy, "and on").await;
    stream.until("text.delta").await;
    let other = server.session(json!({})).await;
    upstream.push(Answer::text("quick"));
    server.send(&other, "go").await.until("message.completed").await;
    wait_until_gone(&server, &other).await;
    assert!(is_there(&server, &busy).await);
    gate.open();
    stream.until("message.completed").await;
    wait_until_gone(&server, &busy).await;
}

#[tokio::test]
async fn idleness_goes_on_while_the_server_is_down() {
    let (mut server, upstream) = start_with(SHORT_IDLE).await;
    let id = server.session(json!({})).await;
    upstream.push(Answer::text("hi"));
    server.send(&id, "go").await.until("message.completed").await;
    server.kill_and_restart().await;
    wait_until_gone(&server, &id).await;
}

fn ends(events: &[TurnEvent]) -> Vec<&str> {
    kinds(events)
        .into_iter()
        .filter(|kind| kind.starts_with("message.") && *kind != "message.created")
        .collect()
}

#[tokio::test]
async fn the_ttl_ends_a_turn_with_an_error_that_says_so_and_then_the_session() {
    let (server, upstream) = start().await;
    for (stalling, process) in [
        (Answer::never(), None),
        (Answer::stream().say("half").stall(), None),
        (Answer::tool_call("Bash", json!({"command": "sleep 6161"})), Some("sleep 6161")),
        // Nobody answers it.
        (Answer::tool_call("lookup", json!({})), None),
    ] {
        let tools = json!([{"type": "function", "function": {"name": "lookup"}}]);
        let id = server.session(json!({"persistent": true, "ttl": 2, "tools": tools})).await;
        let created = Instant::now();
        upstream.push(stalling);
        let events = server.send(&id, "go").await.rest().await;
        let lived = created.elapsed();
        assert!(lived >= Duration::from_millis(1500), "{lived:?}");
        assert_eq!(ends(&events), ["message.error"], "one end and no other");
        let end = &events.last().unwrap().data;
        assert_eq!(end["code"], "session.expired");
        assert!(end["error"].as_str().unwrap().contains("ttl of 2 s"), "{end}");
        wait_until_gone(&server, &id).await;
        let message = server.request(Method::POST, &format!("/v1/sessions/{id}/messages"));
        assert_eq!(server.refused(message.json(&json!({"message": "still there?"}))).await.0, 404);
        if let Some(process) = process {
            wait_for("the end of its processes", || async { (!process_runs(process)).then_some(()) }).await;
        }
    }
}

#[tokio::test]
async fn a_hundred_sessions_that_expire_together_are_each_told() {
    let (server, upstream) = start().await;
    upstream.respond_with(|_| Answer::stream().say("half").stall());
    let turns = join_all((0..100).map(async |_| {
        let id = server.session(json!({"ttl": 5})).await;
        server.send(&id, "go").await.rest().await
    }))
    .await;
    for events in &turns {
        assert_eq!(ends(events), ["message.error"]);
        assert_eq!(events.last().unwrap().data["code"], "session.expired");
    }
    wait_for("no session", || async { (server.get("/v1/sessions").await == json!([])).then_some(()) }).await;
    let folders = server.workspace().join(".sessions");
    wait_for("no folder", || async { (std::fs::read_dir(&folders).unwrap().count() == 0).then_some(()) })
        .await;
}

#[tokio::test]
async fn the_ttl_ends_a_session_that_does_nothing_however_persistent() {
    let (server, _upstream) = start().await;
    let short = server.session(json!({"persistent": true, "ttl": 1})).await;
    let long = server.session(json!({"ttl": 600})).await;
    wait_until_gone(&server, &short).await;
    assert!(is_there(&server, &long).await);
}

#[tokio::test]
async fn a_turn_whose_ttl_ran_out_while_the_server_was_down_does_not_go_on_for_long() {
    let (mut server, upstream) = start().await;
    let id = server.session(json!({"ttl": 2})).await;
    upstream.respond_with(|_| Answer::never());
    server.send(&id, "go").await.until("message.created").await;
    server.kill_and_restart().await;
    wait_until_gone(&server, &id).await;
    assert_eq!(server.get("/v1/sessions").await, json!([]));
}

async fn create_as_other(server: &Server) -> (StatusCode, Option<u64>, Value) {
    let body = json!({"ttl": 100});
    let response = server.as_other(Method::POST, "/v1/sessions").json(&body).send().await.unwrap();
    let wait_s = response.headers().get("retry-after").map(|value| value.to_str().unwrap().parse().unwrap());
    (response.status(), wait_s, response.json().await.unwrap())
}

#[tokio::test]
async fn fifty_creates_at_once_make_exactly_as_many_sessions_as_the_tenant_may_have() {
    let (server, _upstream) = start().await;
    let answers = join_all((0..50).map(|_| create_as_other(&server))).await;
    let (made, refused): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|(status, ..)| *status == StatusCode::CREATED);
    assert_eq!((made.len(), refused.len()), (10, 40));
    for (status, wait_s, body) in &refused {
        assert_eq!(*status, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!((&body["error"], &body["code"]), (&json!("Too Many Requests"), &json!("sessions.limit")));
        assert!(
            wait_s.is_some_and(|wait_s| (50..=100).contains(&wait_s)),
            "{wait_s:?}: the first ttl to end"
        );
    }
    let folders = server.folder.path().join("data/tenants/other/workspace/.sessions");
    assert_eq!(std::fs::read_dir(folders).unwrap().count(), 10, "nothing is left of those that were refused");
    server.session(json!({})).await;

    let first = format!("/v1/sessions/{}", made[0].2["id"].as_str().unwrap());
    assert_eq!(server.as_other(Method::DELETE, &first).send().await.unwrap().status(), 204);
    assert_eq!(create_as_other(&server).await.0, StatusCode::CREATED);
    assert_eq!(create_as_other(&server).await.0, StatusCode::TOO_MANY_REQUESTS);
}
