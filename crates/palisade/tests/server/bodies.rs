//! Bodies that would cost more than they are: deep, wide, endless, unfinished. Each is refused in the contract's shape, the
//! server's memory stays flat, and nobody else notices.

use palisade_testkit::Server;
use palisade_testkit::server::KEY;
use palisade_testkit::upstream::Answer;
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::connections::connect;
use crate::load::private_kib;
use crate::start;

/// What one body, refused or taken, may cost, in KiB: the largest one and its tree, a few times.
const BODY_KIB_MAX: u64 = 96 * 1024;
/// What all unfinished bodies of one tenant may cost: its share, and what the allocator keeps.
const BODIES_KIB_MAX: u64 = 128 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deep_or_wide_is_refused_before_it_is_built() {
    let (server, upstream) = start().await;
    let session = server.session(json!({})).await;
    let deep = |text: &str, end: &str| format!("{}0{}", text.repeat(20_000), end.repeat(20_000));
    let bodies = [
        (
            format!("{{\"metadata\":{{\"a\":[{}0]}}}}", "{\"\":0},".repeat(1_000_000)),
            413,
            "request.too_many_values",
        ),
        (format!("{{\"results\":[{}0]}}", "[],".repeat(300_000)), 413, "request.too_many_values"),
        (format!("{{\"x\":{}}}", deep("[", "]")), 400, "request.too_deep"),
        (format!("{{\"message\":{}}}", deep("{\"a\":", "}")), 400, "request.too_deep"),
        (format!("{{\"tools\":\"{}\"}}", "x".repeat(9 << 20)), 413, "request.too_large"),
    ];
    let paths = [
        "/v1/sessions".to_owned(),
        format!("/v1/sessions/{session}/messages"),
        format!("/v1/sessions/{session}/tool_results"),
    ];
    let before = private_kib(&server);
    for path in &paths {
        for (body, status, code) in &bodies {
            let refused = server.refused(server.request(Method::POST, path).body(body.clone())).await;
            // A message's body has a smaller bound, which may come first.
            let is_expected =
                refused == (*status, (*code).to_owned()) || refused == (413, "request.too_large".to_owned());
            assert!(is_expected, "{path}: {refused:?} for {}", &body[..40]);
        }
    }
    let credential = format!("{{\"value\":\"{}\"}}", "x".repeat(600 * 1024));
    let put = server.request(Method::PUT, "/v1/vault/long").body(credential);
    assert_eq!(server.refused(put).await, (413, "request.too_large".to_owned()));
    if let Some((before, after)) = before.zip(private_kib(&server)) {
        assert!(after.saturating_sub(before) <= BODY_KIB_MAX, "from {before} to {after} KiB");
    }
    // What honest clients send is far from the bounds.
    let tools: Vec<_> = (0..128)
        .map(|n| {
            let properties: serde_json::Map<_, _> = (0..20)
                .map(|p| (format!("p{p}"), json!({"type": ["string", "null"], "description": "what it is", "enum": ["a", "b", null]})))
                .collect();
            json!({"type": "function", "function": {"name": format!("t{n}"), "description": "does it",
                "parameters": {"type": "object", "properties": properties, "required": ["p0"]}}})
        })
        .collect();
    let honest = server.session(json!({"tools": tools})).await;
    upstream.push(Answer::text("hi"));
    let controls = "\u{1}".repeat(1024 * 1024);
    server.send(&honest, &controls).await.until("message.completed").await;
}

/// A body that is announced, and of which one byte is missing.
async fn unfinished(server: &Server, path: &str, bytes: usize) -> TcpStream {
    let mut stream = connect(server).await;
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {bytes}\r\n\r\n{{\"message\":\""
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let body = vec![b'x'; bytes - "{\"message\":\"".len() - 1];
    stream.write_all(&body).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_never_finished_are_bounded_together_and_others_are_read() {
    const BODY_BYTES: usize = 6 << 20;
    let (server, upstream) = start().await;
    let session = server.session(json!({})).await;
    let path = format!("/v1/sessions/{session}/messages");
    let before = private_kib(&server);
    let mut held = Vec::new();
    for _ in 0..30 {
        held.push(unfinished(&server, &path, BODY_BYTES).await);
    }
    if let Some((before, after)) = before.zip(private_kib(&server)) {
        assert!(after.saturating_sub(before) <= BODIES_KIB_MAX, "from {before} to {after} KiB");
    }
    // The tenant's own small bodies are read, and another's of every size.
    let created =
        server.request(Method::POST, "/v1/sessions").json(&json!({"metadata": {"a": "x".repeat(8000)}}));
    server.json(created).await;
    let other = server.json(server.as_other(Method::POST, "/v1/sessions").json(&json!({}))).await;
    upstream.push(Answer::text("hi"));
    let request =
        server.as_other(Method::POST, &format!("/v1/sessions/{}/messages", other["id"].as_str().unwrap()));
    let answer = request.json(&json!({"message": "x".repeat(1 << 20)})).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.text().await.unwrap().contains("message.completed"));
    // The last byte of each: some are taken, as one message after the other, and all are answered.
    let mut statuses = Vec::new();
    for stream in &mut held {
        let _ = stream.write_all(b"x").await;
        let mut first = [0; 12];
        if stream.read_exact(&mut first).await.is_ok() {
            statuses.push(String::from_utf8_lossy(&first[9..]).into_owned());
        }
    }
    assert_eq!(statuses.len(), held.len(), "{statuses:?}");
    let count = |status: &str| statuses.iter().filter(|it| *it == status).count();
    assert!(count("429") >= 15 && count("400") >= 5, "too much, or no JSON: {statuses:?}");
    assert_eq!(count("429") + count("400"), statuses.len(), "{statuses:?}");
    drop(held);
    let large = server.request(Method::POST, &path).json(&json!({"message": "x".repeat(2 << 20)}));
    assert_eq!(server.refused(large).await, (413, "message.too_large".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_announced_costs_nothing_and_an_upload_its_piece() {
    let (server, _upstream) = start().await;
    let session = server.session(json!({})).await;
    let before = private_kib(&server);
    let mut held = Vec::new();
    for n in 0..200 {
        let mut stream = connect(&server).await;
        let (method, path) = if n % 2 == 0 {
            ("POST", format!("/v1/sessions/{session}/messages"))
        } else {
            ("PUT", format!("/v1/sessions/{session}/files/{n}"))
        };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 1000000\r\n\r\n{{"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        held.push(stream);
    }
    let metrics =
        || async { server.as_other(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap() };
    palisade_testkit::wait_for("all to be read", || async {
        metrics().await.contains("palisade_http_requests_in_flight 201").then_some(())
    })
    .await;
    if let Some((before, after)) = before.zip(private_kib(&server)) {
        assert!(after.saturating_sub(before) <= 200 * 64, "from {before} to {after} KiB");
    }
}
