//! The client against a real server on loopback: what leaves, what comes back, and how it fails.
#![expect(clippy::expect_used, reason = "a helper that fails fails the test")]

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use http::{HeaderMap, Method, StatusCode};
use palisade_egress::{Credentials, DirectClient, EgressError, OutboundRequest, OutboundResponse};
use palisade_testkit::upstream::{Answer, Gate, ScriptedUpstream, Step};
use tokio::net::TcpListener;

fn client() -> DirectClient {
    let mut credentials = Credentials::new();
    credentials.insert("local", "sk-test".into());
    DirectClient::new(credentials).expect("a client")
}

fn post(url: String) -> OutboundRequest {
    OutboundRequest {
        method: Method::POST,
        url,
        headers: HeaderMap::new(),
        body: Bytes::from_static(b"{\"model\":\"m\"}"),
        credential: Some("local".into()),
    }
}

async fn read_all(response: OutboundResponse) -> Result<Bytes, EgressError> {
    let mut body = response.body;
    let mut all = BytesMut::new();
    while let Some(chunk) = body.next().await {
        all.extend_from_slice(&chunk?);
    }
    Ok(all.freeze())
}

#[tokio::test]
async fn the_key_goes_along_and_the_body_comes_back() {
    let upstream = ScriptedUpstream::start().await.expect("listen");
    upstream.push(Answer::raw(StatusCode::OK, "text/plain", "hello").cut_at(&[1]));
    let response = client().send(post(format!("{}/x", upstream.base_url()))).await.expect("an answer");
    assert_eq!(response.status, StatusCode::OK);
    assert_eq!(read_all(response).await.expect("whole"), "hello");
    let requests = upstream.requests();
    assert_eq!(requests[0].path, "/v1/x");
    assert_eq!(requests[0].header("authorization"), "Bearer sk-test");
    assert_eq!(requests[0].header("user-agent"), concat!("palisade/", env!("CARGO_PKG_VERSION")));
    assert_eq!(requests[0].json["model"], "m");
}

#[tokio::test]
async fn a_call_without_a_credential_carries_none_and_an_unknown_one_never_leaves() {
    let upstream = ScriptedUpstream::start().await.expect("listen");
    upstream.push(Answer::text("hi"));
    let open = OutboundRequest { credential: None, ..post(upstream.base_url()) };
    client().send(open).await.expect("an answer");
    let unknown = OutboundRequest { credential: Some("other".into()), ..post(upstream.base_url()) };
    let failure = client().send(unknown).await.err().expect("refused here");
    assert!(matches!(failure, EgressError::UnknownCredential { name } if name == "other"));
    let requests = upstream.requests();
    assert_eq!(requests.len(), 1);
    assert!(!requests[0].headers.contains_key("authorization"));
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_not_followed() {
    let upstream = ScriptedUpstream::start().await.expect("listen");
    let elsewhere = Answer::raw(StatusCode::TEMPORARY_REDIRECT, "text/plain", "moved");
    upstream.push(elsewhere.with_header("location", "http://127.0.0.1:1/"));
    let response = client().send(post(upstream.base_url())).await.expect("an answer");
    assert_eq!(response.status, StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn nobody_listening_is_a_connect_failure_that_names_the_host() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    drop(listener);
    let failure = client().send(post(format!("http://{address}/v1"))).await.err().expect("refused");
    assert!(failure.is_connect(), "{failure:?}");
    assert_eq!(failure.to_string(), format!("could not connect to {address}"));
    assert!(!format!("{failure:?}").contains("sk-test"));
}

#[tokio::test]
async fn resets_are_told_apart_by_where_they_happen() {
    let upstream = ScriptedUpstream::start().await.expect("listen");
    let gate = Gate::new();
    upstream.push(Answer::reset_at_once());
    upstream.push(Answer::stream().bytes("data: 1\n\n").wait(&gate).reset());
    upstream.push(Answer::stream().bytes("data: 1\n\n").step(Step::Close));
    let failure = client().send(post(upstream.base_url())).await.err().expect("no head");
    assert!(matches!(failure, EgressError::Send { .. }), "{failure:?}");

    let mut response = client().send(post(upstream.base_url())).await.expect("a head");
    let first = response.body.next().await.expect("a chunk").expect("bytes");
    assert_eq!(first, "data: 1\n\n");
    gate.open();
    let failure = response.body.next().await.expect("an end").expect_err("a reset");
    assert!(matches!(failure, EgressError::Body { .. }), "{failure:?}");
    let mut cause: &dyn std::error::Error = &failure;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    assert!(cause.to_string().contains("reset"), "an RST and not a FIN: {cause:?}");

    let response = client().send(post(upstream.base_url())).await.expect("a head");
    let failure = read_all(response).await.expect_err("an unfinished body");
    assert!(matches!(failure, EgressError::Body { .. }), "{failure:?}");
}

#[tokio::test]
async fn an_empty_script_says_so() {
    let upstream = ScriptedUpstream::start().await.expect("listen");
    let response = client().send(post(upstream.base_url())).await.expect("an answer");
    assert_eq!(response.status, StatusCode::INTERNAL_SERVER_ERROR);
    let body = read_all(response).await.expect("whole");
    assert!(String::from_utf8_lossy(&body).contains("script is empty"));
}

#[tokio::test]
async fn a_responder_answers_what_the_queue_does_not() {
    let upstream = ScriptedUpstream::start().await.expect("listen");
    upstream.push(Answer::raw(StatusCode::OK, "text/plain", "queued"));
    upstream.respond_with(|request| {
        Answer::raw(StatusCode::OK, "text/plain", format!("asked {}", request.json["model"]))
    });
    let client = client();
    for expected in ["queued", "asked \"m\"", "asked \"m\""] {
        let response = client.send(post(upstream.base_url())).await.expect("an answer");
        assert_eq!(read_all(response).await.expect("whole"), expected);
    }
    assert_eq!(upstream.wait_for_requests(3).await.len(), 3);
}

#[tokio::test]
async fn a_tls_handshake_that_fails_is_a_connect_failure() {
    let upstream = ScriptedUpstream::start().await.expect("listen");
    let url = upstream.base_url().replace("http://", "https://");
    let failure = client().send(post(url)).await.err().expect("the server speaks no TLS");
    assert!(matches!(failure, EgressError::Connect { .. }), "{failure:?}");
    assert_eq!(upstream.requests().len(), 0, "nothing of the call was sent in the clear");
}
