//! The Idempotency-Key: a request that is repeated is not done twice (contract §4).

use palisade_testkit::Server;
use palisade_testkit::stream::TurnStream;
use palisade_testkit::upstream::{Answer, Gate};
use palisade_testkit::wait_for;
use reqwest::{Method, RequestBuilder};
use serde_json::json;

use crate::{start, start_with};

fn send(server: &Server, session: &str, key: &str, message: &str) -> RequestBuilder {
    server
        .request(Method::POST, &format!("/v1/sessions/{session}/messages"))
        .header("Idempotency-Key", key)
        .json(&json!({"message": message}))
}

#[tokio::test]
async fn a_retry_gets_the_same_turn_from_the_beginning_also_while_it_runs() {
    let (server, upstream) = start().await;
    let id = server.session(json!({})).await;
    let gate = Gate::new();
    upstream.push(Answer::stream().say("one").wait(&gate).say("two").done());
    let mut first = TurnStream::of(send(&server, &id, "k", "go").send().await.unwrap()).await;
    let seen = first.until("text.delta").await;
    let mut retry = TurnStream::of(send(&server, &id, "k", "go").send().await.unwrap()).await;
    assert_eq!(retry.turn, first.turn);
    gate.open();
    let whole = [seen, first.rest().await].concat();
    assert_eq!(retry.rest().await, whole);
    let late = TurnStream::of(send(&server, &id, "k", "go").send().await.unwrap()).await.rest().await;
    assert_eq!(late, whole);
    assert_eq!(upstream.requests().len(), 1, "one turn");
}

#[tokio::test]
async fn of_fifty_retries_at_once_one_starts_and_all_see_it() {
    let (server, upstream) = start().await;
    let id = server.session(json!({})).await;
    upstream.respond_with(|_| Answer::text("once"));
    let retries = (0..50).map(|_| async {
        let mut stream = TurnStream::of(send(&server, &id, "k", "go").send().await.unwrap()).await;
        (stream.turn.clone(), stream.rest().await)
    });
    let all = futures_util::future::join_all(retries).await;
    assert!(all.iter().all(|answer| *answer == all[0]));
    assert_eq!(upstream.requests().len(), 1, "one turn");
}

#[tokio::test]
async fn a_key_is_good_for_one_message_in_one_session_of_one_tenant() {
    let (server, upstream) = start().await;
    let (one, two) = (server.session(json!({})).await, server.session(json!({})).await);
    upstream.respond_with(|_| Answer::text("ok"));
    TurnStream::of(send(&server, &one, "k", "go").send().await.unwrap()).await.rest().await;
    assert_eq!(server.refused(send(&server, &one, "k", "other")).await, (422, "idempotency.mismatch".into()));
    assert_eq!(server.refused(send(&server, &two, "k", "go")).await.0, 422);
    let created = server.as_other(Method::POST, "/v1/sessions").json(&json!({}));
    let other = server.json(created).await["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/sessions/{other}/messages");
    let theirs =
        server.as_other(Method::POST, &path).header("Idempotency-Key", "k").json(&json!({"message": "mine"}));
    assert_eq!(theirs.send().await.unwrap().status(), 200, "another tenant's key is another key");
}

#[tokio::test]
async fn a_refused_message_does_not_use_its_key_up() {
    let (server, upstream) = start().await;
    let id = server.session(json!({})).await;
    let gate = Gate::new();
    upstream.push(Answer::stream().say("busy").wait(&gate).done());
    let mut running = server.send(&id, "first").await;
    running.until("text.delta").await;
    assert_eq!(server.refused(send(&server, &id, "k", "second")).await.0, 409);
    gate.open();
    running.rest().await;
    upstream.push(Answer::text("now"));
    TurnStream::of(send(&server, &id, "k", "second").send().await.unwrap())
        .await
        .until("message.completed")
        .await;
}

#[tokio::test]
async fn after_the_events_are_gone_a_retry_is_told_what_it_had_started() {
    let (server, upstream) = start_with("[events]\nretention_s = 0").await;
    let id = server.session(json!({})).await;
    upstream.push(Answer::text("once"));
    let mut stream = TurnStream::of(send(&server, &id, "k", "go").send().await.unwrap()).await;
    let turn = stream.turn.clone();
    stream.rest().await;
    let path = format!("/v1/sessions/{id}/responses/{turn}/events");
    wait_for("the events to be swept", || async {
        (server.request(Method::GET, &path).send().await.unwrap().status() == 404).then_some(())
    })
    .await;
    let body = server.json(send(&server, &id, "k", "go")).await;
    assert_eq!((&body["response_id"], &body["status"]), (&json!(turn), &json!("replayed")));
    assert_eq!(upstream.requests().len(), 1, "nothing was started again");
}
