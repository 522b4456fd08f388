//! A hostile tenant beside another one: it takes all that it can of everything that tenants share, and every request of the
//! other is answered and nothing of anybody's is lost. How long an answer takes is the bench's to show.

use std::time::Duration;

use futures_util::future::join_all;
use palisade_protocol::limits::TENANT_READERS_MAX;
use palisade_testkit::attack::{self, Attack, Kind};
use palisade_testkit::server::{KEY, OTHER_KEY};
use palisade_testkit::stream::TurnStream;
use palisade_testkit::upstream::{Answer, Gate, RecordedRequest, ScriptedUpstream};
use palisade_testkit::{Server, wait_for};
use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::start;

/// Far more than a busy machine needs; only what is never answered takes longer.
const ANSWER_MAX: Duration = Duration::from_secs(60);
const ROUNDS: usize = 2;

/// The other tenant, with connections of its own.
struct Neighbour {
    client: Client,
    url: String,
}

impl Neighbour {
    fn of(server: &Server) -> Self {
        let client = Client::builder().timeout(ANSWER_MAX).build().unwrap();
        Self { client, url: server.url.clone() }
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url)).bearer_auth(OTHER_KEY)
    }

    /// The answer's text, of an answer that must be a good one.
    async fn call(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> String {
        let request = self.request(method.clone(), path);
        let request = body.into_iter().fold(request, reqwest::RequestBuilder::body);
        let response = request.send().await.unwrap_or_else(|error| panic!("{method} {path}: {error:?}"));
        let (status, text) = (response.status(), response.text().await.unwrap());
        assert!(status.is_success(), "{method} {path}: {status} {text}");
        text
    }

    async fn json(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let text = self.call(method, path, body.map(|body| body.to_string().into_bytes())).await;
        serde_json::from_str(&text).unwrap()
    }

    /// One of everything a tenant does; `kept` is a session that stays.
    async fn live(&self, kept: &str, round: usize) {
        let session = self.json(Method::POST, "/v1/sessions", Some(json!({}))).await;
        let session = format!("/v1/sessions/{}", session["id"].as_str().unwrap());
        let file = format!("{session}/files/round-{round}");
        let content = round.to_string().repeat(1024);
        self.call(Method::PUT, &file, Some(content.clone().into_bytes())).await;
        assert_eq!(self.call(Method::GET, &file, None).await, content);
        let listed = self.json(Method::GET, &format!("{session}/files"), None).await;
        assert!(listed.as_array().unwrap().iter().any(|entry| entry["name"] == format!("round-{round}")));
        self.work(&session).await;
        self.work(kept).await;
        let sessions = self.json(Method::GET, "/v1/sessions", None).await;
        assert_eq!(sessions.as_array().unwrap().len(), 2);
        self.call(Method::DELETE, &session, None).await;
    }

    /// A message whose answer needs a tool.
    async fn work(&self, session: &str) {
        let message = self.request(Method::POST, &format!("{session}/messages"));
        let response = message.json(&json!({"message": "work"})).send().await.unwrap();
        let mut stream = TurnStream::of(response).await;
        let events = stream.until("message.completed").await;
        let result = events.iter().find(|event| event.kind == "tool_result").unwrap();
        assert_eq!(result.data["content"], "worked\n", "{}", result.frame);
    }
}

/// The neighbour's model runs a command and is done.
fn model(request: &RecordedRequest) -> Answer {
    attack::answer(request).unwrap_or_else(|| {
        let last = request.json["messages"].as_array().and_then(|messages| messages.last());
        match last.is_some_and(|last| last["role"] == "tool") {
            true => Answer::text("done"),
            false => Answer::tool_call("Bash", json!({"command": "echo worked"})),
        }
    })
}

async fn started() -> (Server, ScriptedUpstream, Neighbour, String) {
    let (server, upstream) = start().await;
    upstream.respond_with(model);
    let neighbour = Neighbour::of(&server);
    let kept = neighbour.json(Method::POST, "/v1/sessions", Some(json!({}))).await;
    let kept = format!("/v1/sessions/{}", kept["id"].as_str().unwrap());
    neighbour.work(&kept).await;
    (server, upstream, neighbour, kept)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_of_a_tenant_is_answered_beside_one_that_takes_all_it_can() {
    let (server, _upstream, neighbour, kept) = started().await;
    let mut attacks = Vec::new();
    // Sandboxes first, while there is quiet to start them in.
    for kind in Kind::ALL.into_iter().rev() {
        attacks.push(Attack::begin(&server, kind).await);
    }
    for round in 0..ROUNDS {
        neighbour.live(&kept, round).await;
    }
    let acknowledged: Vec<String> = attacks.iter().flat_map(Attack::kept_sessions).collect();
    assert!(!acknowledged.is_empty());
    drop(attacks);
    let listed = server.get("/v1/sessions").await;
    let there: Vec<&str> = listed.as_array().unwrap().iter().filter_map(|one| one["id"].as_str()).collect();
    let lost: Vec<_> = acknowledged.iter().filter(|id| !there.contains(&id.as_str())).collect();
    assert!(lost.is_empty(), "acknowledged and gone: {lost:?}");
    let files = neighbour.json(Method::GET, &format!("{kept}/files"), None).await;
    let files = files.as_array().unwrap().iter().filter_map(|entry| entry["name"].as_str());
    assert_eq!(files.filter(|name| name.starts_with("round-")).count(), ROUNDS, "the neighbour's files");
    let said = neighbour.json(Method::GET, &format!("{kept}/messages?limit=200"), None).await;
    let messages = said["data"].as_array().unwrap().iter().filter(|item| item["type"] == "user_message");
    assert_eq!(messages.count(), ROUNDS + 1, "the neighbour's conversation");
}

#[tokio::test]
async fn a_tenant_has_so_many_archives_at_a_time_and_they_come_free_again() {
    let (server, _upstream) = start().await;
    let attack = Attack::begin(&server, Kind::Archives).await;
    let session = server.session(json!({})).await;
    let path = format!("/v1/sessions/{session}/files?archive=zip");
    let refused = server.request(Method::GET, &path).send().await.unwrap();
    assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].to_str().unwrap()), (429, "5"));
    let body: Value = refused.json().await.unwrap();
    assert_eq!(body["code"], "archive.too_many");
    // Others have their own.
    let other = server.json(server.as_other(Method::POST, "/v1/sessions").json(&json!({}))).await;
    let theirs = format!("/v1/sessions/{}/files?archive=zip", other["id"].as_str().unwrap());
    assert_eq!(server.as_other(Method::GET, &theirs).send().await.unwrap().status(), 200);
    drop(attack);
    wait_for("a place for an archive", || async {
        let response = server.request(Method::GET, &path).send().await.unwrap();
        response.status().is_success().then_some(())
    })
    .await;
}

/// Readers on one connection of HTTP/2.
const READERS_EACH: usize = 90;

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_too_many_is_told_so_starts_nothing_and_others_read_on() {
    let (server, upstream) = start().await;
    let gate = Gate::new();
    upstream.push(Answer::stream().say("wait").wait(&gate).say(" over").done());
    let session = server.session(json!({})).await;
    // The first reader.
    let mut stream = server.send(&session, "go").await;
    stream.until("text.delta").await;
    let path = format!("/v1/sessions/{session}/responses/{}/events", stream.turn);
    let mut readers = Vec::new();
    for first in (1..TENANT_READERS_MAX).step_by(READERS_EACH) {
        let client = Client::builder().http2_prior_knowledge().build().unwrap();
        let asked = (first..TENANT_READERS_MAX.min(first + READERS_EACH)).map(|_| {
            let request = client.get(format!("{}{path}", server.url)).bearer_auth(KEY);
            async move { request.send().await.unwrap() }
        });
        readers.extend(join_all(asked).await);
    }
    assert!(readers.iter().all(|reader| reader.status() == 200));

    let refused = server.request(Method::GET, &path).send().await.unwrap();
    assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].to_str().unwrap()), (429, "1"));
    let body: Value = refused.json().await.unwrap();
    assert_eq!(body["code"], "events.too_many_readers");
    let second = server.session(json!({})).await;
    let message = server.request(Method::POST, &format!("/v1/sessions/{second}/messages"));
    let message = message.json(&json!({"message": "go"}));
    assert_eq!(server.refused(message).await, (429, "events.too_many_readers".to_owned()));
    assert_eq!(server.get(&format!("/v1/sessions/{second}")).await["busy"], false);
    assert_eq!(upstream.requests().len(), 1, "nothing was asked for a turn that was refused");

    let neighbour = Neighbour::of(&server);
    upstream.respond_with(model);
    let other = neighbour.json(Method::POST, "/v1/sessions", Some(json!({}))).await;
    neighbour.work(&format!("/v1/sessions/{}", other["id"].as_str().unwrap())).await;

    drop(readers);
    wait_for("a place for a reader", || async {
        let response = server.request(Method::GET, &path).send().await.unwrap();
        response.status().is_success().then_some(())
    })
    .await;
    gate.open();
    stream.until("message.completed").await;
}
