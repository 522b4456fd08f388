//! `GET /v1/usage`, the usage limits and a tenant's other limits, each at its edge (contract §1 and §8).

use palisade_testkit::Server;
use palisade_testkit::stream::TurnStream;
use palisade_testkit::upstream::{Answer, ScriptedUpstream};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};

/// A server whose tenant `acme` has these settings, and `other` those.
pub(crate) async fn start_as(acme: &str, other: &str) -> (Server, ScriptedUpstream) {
    start_in("", acme, other).await
}

/// The same, with more at the head of the configuration.
pub(crate) async fn start_in(head: &str, acme: &str, other: &str) -> (Server, ScriptedUpstream) {
    let upstream = ScriptedUpstream::start().await.unwrap();
    let config = format!(
        r#"
        {head}
        [[upstream]]
        name = "scripted"
        dialect = "openai-chat"
        base_url = "{}"
        [model."pokee-isaac"]
        upstream = "scripted"
        upstream_model = "scripted-model"
        price = {{ input = 1.0, output = 10.0, cache_read = 0.1 }}
        [[tenant]]
        name = "acme"
        tokens = [{{ id = "default", key = "env:ACME_KEY" }}]
        {acme}
        [[tenant]]
        name = "other"
        tokens = [{{ id = "default", key = "env:OTHER_KEY" }}]
        {other}
        "#,
        upstream.base_url()
    );
    (Server::with_config(env!("CARGO_BIN_EXE_palisade"), &config).await, upstream)
}

/// A whole turn; the kind of its last event.
pub(crate) async fn turn(server: &Server, session: &str) -> Value {
    server.send(session, "go").await.rest().await.last().unwrap().data.clone()
}

/// The answer to a message that is refused: status, body and `Retry-After`.
pub(crate) async fn refused_message(server: &Server, session: &str) -> (StatusCode, Value, Option<u64>) {
    let path = format!("/v1/sessions/{session}/messages");
    let request = server.request(Method::POST, &path).json(&json!({"message": "go"}));
    let answer = request.send().await.unwrap();
    let wait_s = answer.headers().get("retry-after").map(|value| value.to_str().unwrap().parse().unwrap());
    (answer.status(), answer.json().await.unwrap(), wait_s)
}

#[tokio::test]
async fn usage_has_the_contracts_shape() {
    let (server, upstream) = start_as(
        "credits = { mode = \"soft\", balance = 100.5 }",
        "limits = { turns_per_hour = 0, tokens_per_hour = 0 }",
    )
    .await;
    let id = server.session(json!({})).await;
    upstream.push(Answer::stream().usage(1000, 400, 50, 10).say("hi").done());
    assert_eq!(turn(&server, &id).await["status"], "completed");
    let window = |name: &str,
                  seconds: u64,
                  turns: u64,
                  tokens: u64,
                  max_turns: u64,
                  max_tokens: u64,
                  enabled: bool| {
        json!({"name": name, "duration_seconds": seconds, "turns": turns, "max_turns": max_turns,
            "tokens": tokens, "max_tokens": max_tokens, "enabled": enabled})
    };
    let hour = |turns, tokens| window("hour", 3600, turns, tokens, 300, 20_000_000, true);
    let day = |turns, tokens| window("day", 86_400, turns, tokens, 5_000, 200_000_000, true);
    // 600 × $1 + 400 × $0.10 + 50 × $10, each per million, at $0.01 a credit.
    let balance = 100.5 - 0.114;
    assert_eq!(
        server.get("/v1/usage").await,
        json!({
            "rate_limit": {"caller_id": "default", "buckets": {
                "session_turn": {"windows": [hour(1, 1050), day(1, 1050)]},
                "response": {"windows": [hour(0, 0), day(0, 0)]},
            }},
            "credits": {"enabled": true, "mode": "soft", "balance": balance},
        })
    );
    let other = server.json(server.as_other(Method::GET, "/v1/usage")).await;
    let off = json!({"windows": [window("hour", 3600, 0, 0, 0, 0, false), day(0, 0)]});
    assert_eq!(other["rate_limit"]["buckets"]["session_turn"], off);
    assert_eq!(other["credits"], json!({"enabled": false, "mode": "soft", "balance": 0.0}));
}

#[tokio::test]
async fn the_turn_after_the_last_one_that_may_is_told_when_there_is_room() {
    let (mut server, upstream) = start_as("limits = { turns_per_hour = 2 }", "").await;
    let id = server.session(json!({})).await;
    upstream.respond_with(|_| Answer::text("hi"));
    let key = |request: reqwest::RequestBuilder| request.header("idempotency-key", "k-1");
    let path = format!("/v1/sessions/{id}/messages");
    for _ in 0..3 {
        // A replay is no turn.
        let request = server.request(Method::POST, &path).json(&json!({"message": "first"}));
        let stream = TurnStream::of(key(request).send().await.unwrap()).await.rest().await;
        assert_eq!(stream.last().unwrap().kind, "message.completed");
    }
    server.send(&id, "second").await.until("message.completed").await;
    let (status, body, wait_s) = refused_message(&server, &id).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!((&body["error"], &body["code"]), (&json!("Too Many Requests"), &json!("usage.limit")));
    let wait_s = wait_s.unwrap();
    assert!((3_400..=3_600).contains(&wait_s), "{wait_s}: the minute of the first turn leaves the window");
    assert!(body["message"].as_str().unwrap().contains("room again"), "{body}");
    server.kill_and_restart().await;
    assert_eq!(refused_message(&server, &id).await.0, StatusCode::TOO_MANY_REQUESTS, "kept over a restart");
    let windows = server.get("/v1/usage").await["rate_limit"]["buckets"]["session_turn"]["windows"].clone();
    assert_eq!(
        (&windows[0]["turns"], &windows[1]["turns"]),
        (&json!(2), &json!(2)),
        "refusals are not counted"
    );
    assert_eq!(server.get(&format!("/v1/sessions/{id}")).await["busy"], false);
    // Another tenant's token has its own.
    let session = server.json(server.as_other(Method::POST, "/v1/sessions").json(&json!({}))).await;
    let path = format!("/v1/sessions/{}/messages", session["id"].as_str().unwrap());
    let message = server.as_other(Method::POST, &path).json(&json!({"message": "go"}));
    assert_eq!(message.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn tokens_end_the_window_for_the_next_turn_and_not_for_this_one() {
    let (server, upstream) = start_as("limits = { tokens_per_hour = 1000 }", "").await;
    let id = server.session(json!({})).await;
    let using = |input| Answer::stream().usage(input, 0, 9, 0).say("hi").done();
    upstream.push(using(990));
    assert_eq!(turn(&server, &id).await["status"], "completed");
    upstream.push(using(5_000));
    assert_eq!(turn(&server, &id).await["status"], "completed", "one token was left");
    let (status, body, wait_s) = refused_message(&server, &id).await;
    assert_eq!((status, &body["code"]), (StatusCode::TOO_MANY_REQUESTS, &json!("usage.limit")));
    assert!(wait_s.is_some_and(|wait_s| (3_400..=3_600).contains(&wait_s)), "{wait_s:?}");
}

#[tokio::test]
async fn the_days_window_is_met_when_the_hours_is_off() {
    let (server, upstream) =
        start_as("limits = { turns_per_hour = 0, tokens_per_hour = 0, turns_per_day = 1 }", "").await;
    let id = server.session(json!({})).await;
    upstream.push(Answer::text("hi"));
    assert_eq!(turn(&server, &id).await["status"], "completed");
    let (status, _, wait_s) = refused_message(&server, &id).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert!(wait_s.is_some_and(|wait_s| (86_200..=86_400).contains(&wait_s)), "{wait_s:?}");
}

#[tokio::test]
async fn the_days_tokens_are_met_when_the_hours_are_off() {
    let limits = "limits = { turns_per_hour = 0, tokens_per_hour = 0, tokens_per_day = 1000 }";
    let (mut server, upstream) = start_as(limits, "").await;
    let id = server.session(json!({})).await;
    for input in [989, 10] {
        upstream.push(Answer::stream().usage(input, 0, 1, 0).say("hi").done());
        assert_eq!(turn(&server, &id).await["status"], "completed", "there is room for {input}");
    }
    server.kill_and_restart().await;
    let (status, body, wait_s) = refused_message(&server, &id).await;
    assert_eq!((status, &body["code"]), (StatusCode::TOO_MANY_REQUESTS, &json!("usage.limit")));
    assert!(body["message"].as_str().unwrap().contains("limit of the day"), "{body}");
    assert!(wait_s.is_some_and(|wait_s| (86_200..=86_400).contains(&wait_s)), "{wait_s:?}");
    let day = &server.get("/v1/usage").await["rate_limit"]["buckets"]["session_turn"]["windows"][1];
    assert_eq!((&day["tokens"], &day["max_tokens"]), (&json!(1001), &json!(1000)));
}

#[tokio::test]
async fn a_tenant_has_as_many_sessions_as_its_configuration_says() {
    let (server, _upstream) = start_as("limits = { concurrent_sessions = 2 }", "").await;
    let first = server.session(json!({})).await;
    server.session(json!({})).await;
    let create = || server.request(Method::POST, "/v1/sessions").json(&json!({}));
    assert_eq!(server.refused(create()).await, (429, "sessions.limit".into()));
    server.json(server.as_other(Method::POST, "/v1/sessions").json(&json!({}))).await;
    let delete = server.request(Method::DELETE, &format!("/v1/sessions/{first}"));
    assert_eq!(delete.send().await.unwrap().status(), 204);
    server.json(create()).await;
}

#[tokio::test]
async fn a_turns_time_goes_on_over_a_restart() {
    let (mut server, upstream) = start_as("limits = { turn_timeout_s = 600 }", "").await;
    let id = server.session(json!({})).await;
    upstream.respond_with(|_| Answer::stream().say("half").stall());
    let mut stream = server.send(&id, "go").await;
    stream.until("text.delta").await;
    server.kill().await;
    // As if the server had been down for so long.
    let file = server.folder.path().join("data/palisade.db");
    let mut database = SqliteConnectOptions::new().filename(file).connect().await.unwrap();
    let ago = sqlx::query("UPDATE turn SET started_at = started_at - 600 WHERE id = $1").bind(&stream.turn);
    assert_eq!(ago.execute(&mut database).await.unwrap().rows_affected(), 1);
    database.close().await.unwrap();
    server.restart().await;
    let path = format!("/v1/sessions/{id}/responses/{}/events", stream.turn);
    let events = TurnStream::of(server.request(Method::GET, &path).send().await.unwrap()).await.rest().await;
    let end = &events.last().unwrap().data;
    assert_eq!(end["code"], "turn.timeout", "{end}");
    upstream.respond_with(|_| Answer::text("in time"));
    assert_eq!(turn(&server, &id).await["status"], "completed", "the next one has its own");
}

#[tokio::test]
async fn a_turn_ends_at_its_timeout() {
    let (server, upstream) = start_as("limits = { turn_timeout_s = 1 }", "").await;
    let id = server.session(json!({})).await;
    upstream.push(Answer::stream().say("half").stall());
    let began = std::time::Instant::now();
    let end = turn(&server, &id).await;
    assert_eq!(end["code"], "turn.timeout");
    assert!(end["error"].as_str().unwrap().contains("1 s"), "{end}");
    assert!(began.elapsed() >= std::time::Duration::from_millis(900));
    upstream.push(Answer::text("in time"));
    assert_eq!(turn(&server, &id).await["status"], "completed");
}

#[tokio::test]
async fn a_sessions_lifetime_is_the_tenants() {
    let (server, _upstream) = start_as("limits = { session_ttl_s = 100, session_ttl_max_s = 200 }", "").await;
    let create = |ttl: Value| server.request(Method::POST, "/v1/sessions").json(&json!({"ttl": ttl}));
    assert_eq!(server.json(create(Value::Null)).await["ttl"], 100);
    assert_eq!(server.json(create(json!(200))).await["ttl"], 200);
    assert_eq!(server.refused(create(json!(201))).await, (400, "session.bad_ttl".into()));
    let other = server.json(server.as_other(Method::POST, "/v1/sessions").json(&json!({}))).await;
    assert_eq!(other["ttl"], 14_400);
}
