//! The server's own calls through the proxy, against a real server on loopback: what leaves, what comes back, and how it fails.
#![expect(clippy::expect_used, reason = "a helper that fails fails the test")]

use std::{path::PathBuf, sync::Arc};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use http::{HeaderMap, Method, StatusCode};
use palisade_egress::{
    AuditLog, AuditSettings, Credentials, DoorLimits, EgressError, Endpoint, NoCredentials, OutboundRequest,
    OutboundResponse, PolicySpec, Principal, Proxy, ProxyClient, ProxyParts, ProxySettings, Resolver, Trust,
};
use palisade_testkit::origin::{Manner, Origin};
use palisade_testkit::tls_origin::TlsOrigin;
use palisade_testkit::upstream::{Answer, Gate, ScriptedUpstream, Step};
use tokio::net::TcpListener;

/// A proxy that lets its server's own calls go to one upstream, and a client at its door.
struct Way {
    client: ProxyClient,
    _folder: tempfile::TempDir,
}

impl Way {
    fn to(base_url: &str) -> Self {
        Self::trusting(base_url, &[])
    }

    fn trusting(base_url: &str, authorities: &[PathBuf]) -> Self {
        let upstreams = vec![Endpoint::of_url(base_url).expect("a URL")];
        let spec = PolicySpec { upstreams, ..PolicySpec::default() };
        let folder = tempfile::tempdir().expect("a folder");
        let mut credentials = Credentials::new();
        credentials.insert("local", "sk-test".into());
        let proxy = Proxy::new(ProxyParts {
            policy: spec,
            resolver: Resolver::new("127.0.0.1:9".parse().expect("an address")).expect("a resolver"),
            audit: Arc::new(AuditLog::open(folder.path(), AuditSettings::default()).expect("a log")),
            trust: Trust::load(authorities).expect("authorities"),
            credentials,
            vault: Arc::new(NoCredentials),
            settings: ProxySettings::default(),
        })
        .expect("a proxy");
        let door = proxy.door(Principal::Router, DoorLimits::default()).expect("a door");
        Self { client: ProxyClient::new(door), _folder: folder }
    }

    async fn send(&self, request: OutboundRequest) -> Result<OutboundResponse, EgressError> {
        self.client.send(request).await
    }
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
    let response = Way::to(&upstream.base_url())
        .send(post(format!("{}/x", upstream.base_url())))
        .await
        .expect("an answer");
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
    Way::to(&upstream.base_url()).send(open).await.expect("an answer");
    let unknown = OutboundRequest { credential: Some("other".into()), ..post(upstream.base_url()) };
    let failure = Way::to(&upstream.base_url()).send(unknown).await.err().expect("refused here");
    assert!(
        matches!(&failure, EgressError::Refused { code, .. } if code == "credential-missing"),
        "{failure:?}"
    );
    let requests = upstream.requests();
    assert_eq!(requests.len(), 1);
    assert!(!requests[0].headers.contains_key("authorization"));
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_not_followed() {
    let upstream = ScriptedUpstream::start().await.expect("listen");
    let elsewhere = Answer::raw(StatusCode::TEMPORARY_REDIRECT, "text/plain", "moved");
    upstream.push(elsewhere.with_header("location", "http://127.0.0.1:1/"));
    let response = Way::to(&upstream.base_url()).send(post(upstream.base_url())).await.expect("an answer");
    assert_eq!(response.status, StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn nobody_listening_is_a_connect_failure_that_names_the_host() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    drop(listener);
    let url = format!("http://{address}/v1");
    let failure = Way::to(&url).send(post(url.clone())).await.err().expect("refused");
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
    let failure = Way::to(&upstream.base_url()).send(post(upstream.base_url())).await.err().expect("no head");
    assert!(matches!(failure, EgressError::Send { .. }), "{failure:?}");

    let mut response = Way::to(&upstream.base_url()).send(post(upstream.base_url())).await.expect("a head");
    let first = response.body.next().await.expect("a chunk").expect("bytes");
    assert_eq!(first, "data: 1\n\n");
    gate.open();
    let failure = response.body.next().await.expect("an end").expect_err("a reset");
    assert!(matches!(failure, EgressError::Body { .. }), "{failure:?}");

    let response = Way::to(&upstream.base_url()).send(post(upstream.base_url())).await.expect("a head");
    let failure = read_all(response).await.expect_err("an unfinished body");
    assert!(matches!(failure, EgressError::Body { .. }), "{failure:?}");
}

#[tokio::test]
async fn an_empty_script_says_so() {
    let upstream = ScriptedUpstream::start().await.expect("listen");
    let response = Way::to(&upstream.base_url()).send(post(upstream.base_url())).await.expect("an answer");
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
    let client = Way::to(&upstream.base_url());
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
    let failure = Way::to(&url).send(post(url.clone())).await.err().expect("the server speaks no TLS");
    assert!(matches!(failure, EgressError::Connect { .. }), "{failure:?}");
    assert_eq!(upstream.requests().len(), 0, "nothing of the call was sent in the clear");
}

#[tokio::test]
async fn what_is_no_upstream_is_refused_by_the_proxy() {
    let upstream = ScriptedUpstream::start().await.expect("listen");
    let elsewhere = Way::to("http://127.0.0.1:1/");
    let failure = elsewhere.send(post(upstream.base_url())).await.err().expect("not its upstream");
    assert!(matches!(&failure, EgressError::Refused { code, .. } if code == "not-allowed"), "{failure:?}");
    assert_eq!(upstream.requests().len(), 0);
}

#[tokio::test]
async fn a_call_over_tls_proves_who_it_speaks_to_and_keeps_its_connection() {
    let origin = TlsOrigin::start(&["localhost", "127.0.0.1"], |_| {
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi".to_vec()
    });
    let origin = origin.await.expect("an origin");
    let url = format!("https://127.0.0.1:{}/v1", origin.port());
    let failure = Way::to(&url).send(post(url.clone())).await.err().expect("nobody vouches for it");
    assert!(failure.is_connect(), "{failure:?}");
    assert_eq!(origin.requests().len(), 0);
    let folder = tempfile::tempdir().expect("a folder");
    let pem = folder.path().join("ca.pem");
    std::fs::write(&pem, origin.authority_pem()).expect("written");
    let way = Way::trusting(&url, &[pem]);
    let before = origin.connections();
    for _ in 0..3 {
        let response = way.send(post(url.clone())).await.expect("an answer");
        assert_eq!(read_all(response).await.expect("whole"), "hi");
    }
    assert_eq!(origin.connections(), before + 1, "one handshake for all");
    let head = &origin.requests()[2];
    assert!(
        head.starts_with("POST /v1 HTTP/1.1\r\nHost: 127.0.0.1:")
            && head.contains("\r\nAuthorization: Bearer sk-test\r\n"),
        "{head}"
    );
    assert!(!head.to_ascii_lowercase().contains("palisade-credential"), "{head}");
}

/// A cancelled call must not go on costing: the upstream sees its connection close before it has answered.
#[tokio::test]
async fn a_call_that_is_dropped_is_over_for_the_upstream() {
    let origin = Origin::start(Manner::Silent).await.expect("an origin");
    let url = format!("http://127.0.0.1:{}/v1", origin.port());
    let way = Way::to(&url);
    let call = way.send(post(url));
    tokio::select! {
        _ = call => panic!("it never answers"),
        () = async {
            palisade_testkit::wait_for("the call to arrive", || async { (!origin.bytes().is_empty()).then_some(()) }).await
        } => {}
    }
    let over = || async { origin.seen().iter().all(|seen| seen.ended || seen.broken).then_some(()) };
    palisade_testkit::wait_for("the connection to be over", over).await;
}
