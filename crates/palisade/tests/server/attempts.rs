//! What a client can tell from `turn.attempt`: which of what it has seen is said again, and which stays.

use palisade_testkit::Server;
use palisade_testkit::stream::{TurnEvent, TurnStream, joined, kinds};
use palisade_testkit::upstream::{Answer, Call, Gate};
use reqwest::Method;
use serde_json::{Value, json};

use crate::start;

/// The turn's events from the first on, as a client reads them that has lost its connection.
async fn follow(server: &Server, session: &str, turn: &str) -> TurnStream {
    let path = format!("/v1/sessions/{session}/responses/{turn}/events");
    TurnStream::of(server.request(Method::GET, &path).send().await.unwrap()).await
}

fn attempts(events: &[TurnEvent]) -> Vec<(u64, u64)> {
    let attempts = events.iter().filter(|event| event.kind == "turn.attempt");
    attempts
        .map(|event| (event.data["attempt"].as_u64().unwrap(), event.data["after"].as_u64().unwrap()))
        .collect()
}

/// What a client keeps that drops, at each new attempt, what follows `after`.
fn kept(events: &[TurnEvent]) -> Vec<TurnEvent> {
    let mut kept: Vec<TurnEvent> = Vec::new();
    for event in events {
        match event.data["after"].as_u64() {
            Some(after) if event.kind == "turn.attempt" => kept.retain(|event| event.id <= after),
            _ => kept.push(event.clone()),
        }
    }
    kept
}

fn last_of<'a>(events: &'a [TurnEvent], kind: &str) -> &'a TurnEvent {
    events.iter().rfind(|event| event.kind == kind).unwrap()
}

/// Messages of the latest request, from the given role.
fn told(request: &Value, role: &str) -> Vec<Value> {
    let messages = request["messages"].as_array().unwrap();
    messages.iter().filter(|message| message["role"] == role).cloned().collect()
}

#[tokio::test]
async fn after_is_the_end_of_the_latest_finished_step_however_often_the_next_one_dies() {
    let (mut server, upstream) = start().await;
    let session = server.session(json!({})).await;
    // Late words, which readers see after the call, are said with the step that follows it.
    let first = Answer::stream()
        .say("I look.")
        .call(&Call::new("Bash", json!({"command": "echo seen >> looks; cat looks"})))
        .say("It is there.");
    let gate = Gate::new();
    upstream.push(first.done());
    let broken = |word: &str| {
        let answer = Answer::stream().think("hm").say(word);
        answer.call(&Call::new("Bash", json!({"command": "echo never >> looks"}))).wait(&gate)
    };
    upstream.push(broken("first try"));
    let mut stream = server.send(&session, "go").await;
    let mut seen = stream.until("tool_result").await;
    seen.extend(stream.until("tool_use.start").await);
    upstream.push(broken("second try"));
    server.kill_and_restart().await;
    let mut stream = follow(&server, &session, &stream.turn).await;
    stream.until("turn.attempt").await;
    stream.until("tool_use.start").await;
    upstream.push(Answer::text("third try"));
    server.kill_and_restart().await;

    let events = follow(&server, &session, &stream.turn).await.rest().await;
    assert_eq!(events.last().unwrap().kind, "message.completed");
    let step = last_of(&events, "tool_result").id;
    assert_eq!(attempts(&events), [(2, step), (3, step)], "the same step, though it broke off twice");
    let kept = kept(&events);
    assert_eq!(joined(&kept, "text.delta"), "I look.It is there.third try");
    assert_eq!(kinds(&kept).iter().filter(|kind| **kind == "tool_use.start").count(), 1);
    // And that is what the conversation has.
    upstream.push(Answer::text("ok"));
    server.send(&session, "and?").await.until("message.completed").await;
    let asked = upstream.requests().pop().unwrap().json;
    let said: Vec<Value> =
        told(&asked, "assistant").iter().map(|message| message["content"].clone()).collect();
    assert_eq!(said, [json!("I look.It is there."), json!("third try")]);
    assert_eq!(std::fs::read_to_string(server.workspace().join("looks")).unwrap(), "seen\n");
}

#[tokio::test]
async fn a_call_that_was_running_goes_on_in_its_block_and_is_not_said_again() {
    let (mut server, upstream) = start().await;
    let session = server.session(json!({})).await;
    upstream.push(Answer::tool_call("Bash", json!({"command": "echo on; sleep 600"})));
    let mut stream = server.send(&session, "go").await;
    stream.until("tool_use.output_delta").await;
    upstream.push(Answer::text("I see"));
    server.kill_and_restart().await;
    let events = follow(&server, &session, &stream.turn).await.rest().await;
    let executing = last_of(&events, "tool_use.executing").id;
    assert_eq!(attempts(&events), [(2, executing)]);
    let after = events.iter().position(|event| event.kind == "turn.attempt").unwrap() + 1;
    assert_eq!(kinds(&events[after..after + 2]), ["tool_use.stop", "tool_result"]);
}

#[tokio::test]
async fn a_call_that_a_crash_cut_and_the_one_that_takes_its_place_have_different_ids() {
    let (mut server, upstream) = start().await;
    let session = server.session(json!({})).await;
    let call = Call::new("Bash", json!({"command": "echo once >> effects"})).with_id("call_0");
    let gate = Gate::new();
    for _ in 0..2 {
        upstream.push(Answer::stream().call(&call).wait(&gate));
    }
    let mut stream = server.send(&session, "go").await;
    stream.until("tool_use.start").await;
    server.kill_and_restart().await;
    let mut stream = follow(&server, &session, &stream.turn).await;
    stream.until("turn.attempt").await;
    stream.until("tool_use.start").await;
    // The same id for the third time, and once more in the next step.
    upstream.push_all([Answer::calls([call.clone()]), Answer::calls([call]), Answer::text("done")]);
    server.kill_and_restart().await;
    let events = follow(&server, &session, &stream.turn).await.rest().await;
    assert_eq!(events.last().unwrap().kind, "message.completed");
    let ids = |kind: &str| -> Vec<&str> {
        let events = events.iter().filter(|event| event.kind == kind);
        events.map(|event| event.data["id"].as_str().unwrap()).collect()
    };
    let (begun, ended) = (ids("tool_use.start"), ids("tool_result"));
    assert_eq!(begun.len(), 4);
    assert!((1..4).all(|at| !begun[..at].contains(&begun[at])), "{begun:?}");
    assert_eq!(ended, begun[2..], "results are those of the calls that were made");
    let results = told(&upstream.requests().last().unwrap().json, "tool");
    let answered: Vec<&str> = results.iter().map(|result| result["tool_call_id"].as_str().unwrap()).collect();
    assert_eq!(answered, ended);
    assert_eq!(std::fs::read_to_string(server.workspace().join("effects")).unwrap(), "once\nonce\n");
}
