//! Connections and heads, seen from raw sockets: whoever holds as many as it can, with a key or without, everybody else is
//! answered, and `/health` always.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use futures_util::future::join_all;
use palisade_testkit::server::{KEY, Server};
use palisade_testkit::upstream::{Answer, Gate, ScriptedUpstream};
use palisade_testkit::wait_for;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::{start, start_with};

/// What a small machine lets a process open: the server takes half of it for connections.
const OPEN_FILES: usize = 1024;
const CONNECTIONS: usize = OPEN_FILES / 2;
/// Of one address, without a key.
const PER_ADDRESS: usize = CONNECTIONS / 8;

/// A server on a small machine.
async fn start_small(more: &str) -> (Server, ScriptedUpstream) {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("palisade");
    let binary = env!("CARGO_BIN_EXE_palisade");
    let script = format!("#!/bin/sh\nulimit -n {OPEN_FILES}\nexec {binary} \"$@\"\n");
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let upstream = ScriptedUpstream::start().await.unwrap();
    let server = Server::start(program.to_str().unwrap(), &upstream, more).await;
    (server, upstream)
}

pub(crate) async fn connect(server: &Server) -> TcpStream {
    TcpStream::connect(server.url.strip_prefix("http://").unwrap()).await.unwrap()
}

async fn say(server: &Server, bytes: &[u8]) -> TcpStream {
    let mut stream = connect(server).await;
    // Who is told to go at once cannot take all.
    let _ = stream.write_all(bytes).await;
    stream
}

/// Everything until the end; a reset is an end, too.
pub(crate) async fn to_its_end(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all).await;
    String::from_utf8_lossy(&all).into_owned()
}

/// Everybody else is served: anonymously, with a key, and with another tenant's.
async fn is_served(server: &Server) {
    let fresh = reqwest::Client::new();
    let health = fresh.get(format!("{}/health", server.url)).send().await.unwrap();
    assert_eq!(health.status(), 200);
    for key in [KEY, palisade_testkit::server::OTHER_KEY] {
        let listed = fresh.get(format!("{}/v1/sessions", server.url)).bearer_auth(key).send().await.unwrap();
        assert_eq!(listed.status(), 200);
    }
}

async fn counted(server: &Server, line: &str) -> u64 {
    let request = server.as_other(Method::GET, "/metrics");
    let text = request.send().await.unwrap().text().await.unwrap();
    let value = text.lines().find_map(|it| it.strip_prefix(line));
    value.map_or(0, |value| value.trim().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn half_heads_of_one_address_end_each_other_and_stop_nobody() {
    let (server, _upstream) = start_small("").await;
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS + 8 {
        held.push(say(&server, b"GET /v1/sessions HTTP/1.1\r\nHost: x\r\nX-Half: ").await);
    }
    is_served(&server).await;
    let ended = "palisade_http_connections_ended_total{reason=\"address\"}";
    let more = held.len() - PER_ADDRESS;
    wait_for("those that are too many", || async {
        (counted(&server, ended).await >= more as u64).then_some(())
    })
    .await;
    let told = to_its_end(&mut held[0]).await;
    assert!(told.is_empty() || told.contains("\"code\":\"server.busy\""), "{told}");
    let log = server.log();
    let lines: Vec<&str> =
        log.lines().filter(|line| line.contains("too many connections without a key")).collect();
    assert!(!lines.is_empty() && lines.len() < 10, "{lines:?}");
    assert!(lines[0].contains("127.0.0.1"), "{lines:?}");
}

/// The preface of HTTP/2, empty settings, and a request with this path.
fn http2(path: &str) -> Vec<u8> {
    let mut head = vec![0x82, 0x86, 0x01, 1, b'x', 0x04, u8::try_from(path.len()).unwrap()];
    head.extend_from_slice(path.as_bytes());
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend_from_slice(&frame(4, 0, 0, &[]));
    bytes.extend_from_slice(&frame(1, 0x5, 1, &head));
    bytes
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_of_http2_stop_nobody_and_end_and_busy_ones_do_not() {
    let (server, upstream) = start_small("[http]\nidle_s = 2").await;
    let gate = Gate::new();
    upstream.push(Answer::stream().wait(&gate).delta(&json!({"content": "late"})).done());
    let session = server.session(json!({})).await;
    let mut turn = server.send(&session, "wait").await;
    turn.until("message.created").await;
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS + 8 {
        held.push(say(&server, &http2("/health")).await);
    }
    is_served(&server).await;
    // As clients of HTTP/2 do, who have nothing to ask.
    let settings_ack = frame(4, 1, 0, &[]);
    let ping_ack = frame(6, 1, 0, &[0; 8]);
    for stream in &mut held {
        let _ = stream.write_all(&[&settings_ack[..], &ping_ack].concat()).await;
    }
    let ends = held.iter_mut().map(|stream| async { stream.read_to_end(&mut Vec::new()).await.is_ok() });
    tokio::time::timeout(Duration::from_secs(60), join_all(ends)).await.expect("idle connections end");
    gate.open();
    turn.until("message.completed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_with_a_key_cannot_take_every_connection() {
    let (server, upstream) = start_small("").await;
    let gate = Gate::new();
    upstream.push(Answer::stream().wait(&gate).delta(&json!({"content": "late"})).done());
    let session = server.session(json!({})).await;
    let mut turn = server.send(&session, "wait").await;
    let path = format!("/v1/sessions/{session}/responses/{}/events", turn.turn);
    let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\r\n");
    let mut statuses = Vec::new();
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS + 8 {
        let mut stream = say(&server, head.as_bytes()).await;
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        statuses.push(String::from_utf8_lossy(&first[9..]).into_owned());
        held.push(stream);
    }
    let (followed, refused) = (CONNECTIONS / 2 - 1, "429".to_owned());
    assert_eq!(statuses.iter().filter(|it| *it == "200").count(), followed, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|it| **it == refused).count(), statuses.len() - followed);
    let too_many = server.request(Method::GET, "/v1/sessions");
    assert_eq!(server.refused(too_many).await, (429, "requests.too_many".to_owned()));
    let answer = server.request(Method::GET, "/v1/sessions").send().await.unwrap();
    assert!(answer.headers().contains_key("retry-after"));
    // Nobody else notices.
    assert_eq!(server.request(Method::GET, "/health").send().await.unwrap().status(), 200);
    let made = server.as_other(Method::POST, "/v1/sessions").json(&json!({}));
    assert!(server.json(made).await["id"].is_string());
    gate.open();
    turn.until("message.completed").await;
    drop(held);
    wait_for("its requests to end", || async {
        let listed = server.request(Method::GET, "/v1/sessions").send().await.unwrap();
        (listed.status() == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_head_has_the_same_bounds_in_both_protocols_and_every_refusal_has_the_shape() {
    let (server, _upstream) = start().await;
    let http2 = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let long = "x".repeat(33 * 1024);
    let mut many = reqwest::header::HeaderMap::new();
    for n in 0..101 {
        many.insert(reqwest::header::HeaderName::try_from(format!("x-{n}")).unwrap(), "1".parse().unwrap());
    }
    for client in [reqwest::Client::new(), http2] {
        let url = format!("{}/v1/sessions", server.url);
        for request in [
            client.get(&url).header("x-long", &long),
            client.get(format!("{url}?{long}")),
            client.get(&url).headers(many.clone()),
        ] {
            assert_eq!(server.refused(request).await, (431, "request.head_too_large".to_owned()));
        }
        let fits = client.get(&url).bearer_auth(KEY).header("x-long", &long[..30 * 1024]);
        assert_eq!(fits.send().await.unwrap().status(), 200);
    }
    let endless = [b"GET / HTTP/1.1\r\nX-Long: ", "x".repeat(200 * 1024).as_bytes()].concat();
    let uri = format!("GET /{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "x".repeat(60 * 1024))
        .into_bytes();
    for (head, status, code) in [
        (&b"GET /health\r\n\r\n"[..], 400, "request.malformed_head"),
        (b"GET /health HTTP/1.1\r\nHost x\r\n\r\n", 400, "request.malformed_head"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "request.malformed_head"),
        (&endless, 431, "request.head_too_large"),
        (&uri, 431, "request.head_too_large"),
    ] {
        let mut stream = say(&server, head).await;
        let answer = to_its_end(&mut stream).await;
        let shown = &head[..head.len().min(40)];
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{shown:?}: {answer}");
        let body: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!((&body["code"], body["error"].is_string()), (&json!(code), true), "{shown:?}: {body}");
    }
}

#[tokio::test]
async fn floods_of_http2_frames_end_their_own_connection() {
    let (server, _upstream) = start().await;
    let opened = http2("/health");
    let (reset, request) = (frame(3, 0, 3, &[0, 0, 0, 8]), frame(1, 0x5, 3, &[0x82, 0x86, 0x84]));
    let ids = |bytes: &[u8], stream: u32| [&bytes[..5], &stream.to_be_bytes(), &bytes[9..]].concat();
    let resets: Vec<u8> =
        (1..20_000).flat_map(|n| [ids(&request, 2 * n + 1), ids(&reset, 2 * n + 1)].concat()).collect();
    let unfinished = frame(1, 0x1, 3, &[0x82, 0x86, 0x84]);
    let field = [&[0x40, 1, b'a', 0x7f, 0x80, 0x7f][..], &[b'x'; 16_000]].concat();
    let goes_on = frame(9, 0, 3, &field);
    let continuations = [unfinished, goes_on.repeat(2_000)].concat();
    for (what, flood) in [("resets", resets), ("continuations", continuations)] {
        let mut stream = say(&server, &opened).await;
        let (mut reader, mut writer) = stream.split();
        let flooding = async {
            let _ = writer.write_all(&flood).await;
        };
        let mut answer = Vec::new();
        let ((), ended) = tokio::join!(flooding, async {
            tokio::time::timeout(Duration::from_secs(60), reader.read_to_end(&mut answer)).await
        });
        assert!(ended.is_ok(), "{what}: the connection does not end");
        is_served(&server).await;
    }
    let in_flight = "palisade_http_requests_in_flight";
    wait_for("no request to be left", || async { (counted(&server, in_flight).await <= 1).then_some(()) })
        .await;
}

#[tokio::test]
async fn an_idle_time_of_the_operators_ends_a_connection_and_a_longer_one_does_not() {
    let (server, _upstream) = start_with("[http]\nidle_s = 1\ntrusted_peers = [\"127.0.0.0/8\"]").await;
    let mut stream = say(&server, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let answer = to_its_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("{\"status\":\"ok\"}"), "{answer}");
    let ended = "palisade_http_connections_ended_total{reason=\"idle\"}";
    assert!(counted(&server, ended).await >= 1);
}
