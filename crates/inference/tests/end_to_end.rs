//! The router, the real client and a real server on loopback, together: every way an upstream behaves, well and
//! badly, ends in events or in an error that says what happened, within a bounded time.
#![expect(clippy::expect_used, clippy::panic, reason = "a helper that fails fails the test")]

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, future::BoxFuture};
use http::{Method, StatusCode};
use palisade_egress::{
    AuditLog, AuditSettings, Credentials, DoorLimits, EgressError, Endpoint, NoCredentials, OutboundRequest,
    PolicySpec, Principal, Proxy, ProxyClient, ProxyParts, ProxySettings, Resolver, Trust,
};
use palisade_inference::{
    CallIds, Catalog, CredentialRef, Dialect, FinishReason, InferenceError, ModelConfig, ModelEvent, Price,
    Router, Timeouts, Transport, TransportError, TransportFault, UpstreamCall, UpstreamConfig,
    UpstreamResponse, WaitedFor,
};
use palisade_protocol::{Prompt, ToolCall, Usage, limits, prompt::PromptMessage};
use palisade_testkit::upstream::{Answer, Call, Gate, ScriptedUpstream, Step};
use serde_json::json;
use tokio::{net::TcpListener, time::Instant};

/// The two rooms, joined as the runtime joins them.
struct Way {
    client: ProxyClient,
    _audit: tempfile::TempDir,
}

impl Way {
    /// A proxy that lets calls go to these upstreams and nowhere else.
    fn to(base_urls: &[String], credentials: Credentials) -> Self {
        let upstreams = base_urls.iter().map(|url| Endpoint::of_url(url).expect("a URL")).collect();
        let policy = PolicySpec { upstreams, ..PolicySpec::default() };
        let audit = tempfile::tempdir().expect("a folder");
        let proxy = Proxy::new(ProxyParts {
            policy,
            resolver: Resolver::new("127.0.0.1:9".parse().expect("an address")).expect("a resolver"),
            audit: Arc::new(AuditLog::open(audit.path(), AuditSettings::default()).expect("a log")),
            trust: Trust::load(&[]).expect("authorities"),
            credentials,
            vault: Arc::new(NoCredentials),
            settings: ProxySettings::default(),
        })
        .expect("a proxy");
        let door = proxy.door(Principal::Router, DoorLimits::default()).expect("a door");
        Self { client: ProxyClient::new(door), _audit: audit }
    }
}

impl Transport for Way {
    fn send(&self, call: UpstreamCall) -> BoxFuture<'static, Result<UpstreamResponse, TransportError>> {
        let client = self.client.clone();
        async move {
            let request = OutboundRequest {
                method: Method::POST,
                url: call.url,
                headers: call.headers,
                body: call.body,
                credential: call.credential.map(|credential| credential.name().to_owned()),
            };
            let response = client.send(request).await.map_err(transport_error)?;
            let body = response.body.map(|chunk| chunk.map_err(transport_error)).boxed();
            Ok(UpstreamResponse { status: response.status, headers: response.headers, body })
        }
        .boxed()
    }
}

fn transport_error(error: EgressError) -> TransportError {
    let fault = match &error {
        EgressError::Connect { .. } | EgressError::ConnectTimeout { .. } => TransportFault::Connect,
        EgressError::Answer { .. } => TransportFault::BadAnswer,
        EgressError::Send { .. } | EgressError::Body { .. } => TransportFault::Broken,
        _ => TransportFault::Unsendable,
    };
    TransportError::new(fault, error)
}

const KEY: &str = "sk-test-0123456789-secret";

/// Short enough for a test, long enough for a loaded machine.
fn timeouts() -> Timeouts {
    Timeouts { backoff: Duration::from_millis(5), ..Timeouts::default() }
}

fn router(base_urls: &[String], timeouts: Timeouts) -> Router {
    let upstreams = base_urls.iter().enumerate().map(|(place, base_url)| UpstreamConfig {
        name: format!("up{place}"),
        dialect: Dialect::OpenAiChat,
        base_url: base_url.clone(),
        credential: Some(CredentialRef::new("key")),
    });
    let model = ModelConfig {
        name: "pokee-isaac".into(),
        upstreams: (0..base_urls.len()).map(|place| format!("up{place}")).collect(),
        upstream_model: "gpt-x".into(),
        price: Price::default(),
    };
    let catalog = Catalog::new(upstreams.collect(), vec![model]).expect("a good catalog");
    let mut credentials = Credentials::new();
    credentials.insert("key", KEY.into());
    Router::new(catalog, Arc::new(Way::to(base_urls, credentials)), timeouts)
}

fn prompt() -> Prompt {
    Prompt {
        system: "Be brief.".into(),
        messages: vec![PromptMessage::User("the user's private words".into())],
        tools: vec![],
        output_tokens_max: None,
    }
}

type Heard = Vec<Result<ModelEvent, InferenceError>>;

async fn ask(router: &Router) -> Heard {
    router.stream("pokee-isaac", &prompt(), CallIds::beside(&[])).collect().await
}

fn text_of(heard: &Heard) -> String {
    let deltas = heard.iter().filter_map(|event| match event {
        Ok(ModelEvent::TextDelta(text)) => Some(text.as_str()),
        _ => None,
    });
    deltas.collect()
}

/// The error that ended an answer. No public sentence may show the key or what the user said.
fn error_of(heard: Heard) -> InferenceError {
    let error = heard.into_iter().next_back().expect("at least an error").expect_err("an error at the end");
    let sentence = error.to_string();
    assert!(!sentence.contains("secret") && !sentence.contains("private words"), "{sentence}");
    error
}

fn finish_of(heard: &Heard) -> FinishReason {
    match heard.last() {
        Some(Ok(ModelEvent::Done { finish })) => *finish,
        other => panic!("the last event should be Done, not {other:?}"),
    }
}

#[tokio::test]
async fn a_plain_answer_arrives_and_the_request_was_right() {
    let upstream = ScriptedUpstream::start().await.expect("listen");
    upstream.push(Answer::stream().think("Hmm, let me see.").say("Grüße aus Köln!").usage(7, 3, 5, 2).done());
    let heard = ask(&router(&[upstream.base_url()], timeouts())).await;
    assert_eq!(text_of(&heard), "Grüße aus Köln!");
    assert_eq!(finish_of(&heard), FinishReason::Stop);
    assert!(matches!(heard[0], Ok(ModelEvent::ReasoningDelta(_))));
    let usage = heard[heard.len() - 2].as_ref().expect("usage before the end");
    assert_eq!(usage, &ModelEvent::Usage(Usage::new(7, 3, 5, 2)));
    let requests = upstream.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!((requests[0].path.as_str(), requests[0].method.as_str()), ("/v1/chat/completions", "POST"));
    assert_eq!(requests[0].header("authorization"), format!("Bearer {KEY}"));
    assert_eq!(requests[0].header("accept"), "text/event-stream");
    assert_eq!(requests[0].header("accept-encoding"), "identity");
    assert_eq!(requests[0].json["model"], "gpt-x");
    assert_eq!(requests[0].json["messages"][1]["content"], "the user's private words");
}

#[tokio::test]
async fn calls_arrive_with_their_arguments_and_their_answers_go_back() {
    let upstream = ScriptedUpstream::start().await.expect("listen");
    let first = Call::new("Bash", json!({"command": "ls -la /workspace"})).with_id("call_a");
    let second = Call::new("Read", json!({"file_path": "größe.txt"})).with_id("call_b");
    upstream.push(Answer::calls([first.clone(), second.clone()]));
    let router = router(&[upstream.base_url()], timeouts());
    let heard = ask(&router).await;
    assert_eq!(
        calls_of(&heard),
        [
            ("call_a".to_owned(), "Bash".to_owned(), first.arguments),
            ("call_b".to_owned(), "Read".to_owned(), second.arguments),
        ]
    );
    assert_eq!(finish_of(&heard), FinishReason::ToolCalls);

    // The next answer repeats an id of the conversation: it is replaced.
    upstream.push(Answer::calls([Call::new("Bash", json!({})).with_id("call_a")]));
    let mut next = prompt();
    let call = ToolCall { id: "call_a".into(), name: "Bash".into(), arguments: "{}".into() };
    next.messages.push(PromptMessage::Assistant {
        text: String::new(),
        reasoning: String::new(),
        calls: vec![call],
    });
    next.messages.push(PromptMessage::ToolResult {
        call_id: "call_a".into(),
        content: "total 0".into(),
        is_error: false,
    });
    let heard: Heard = router.stream("pokee-isaac", &next, CallIds::beside(&next.messages)).collect().await;
    let calls = calls_of(&heard);
    assert_eq!(calls.len(), 1);
    assert_ne!(calls[0].0, "call_a");
    let sent = &upstream.requests()[1].json["messages"];
    assert_eq!(sent[2]["tool_calls"][0]["id"], "call_a");
    assert_eq!(sent[3], json!({"role": "tool", "tool_call_id": "call_a", "content": "total 0"}));
}

fn calls_of(heard: &Heard) -> Vec<(String, String, String)> {
    let mut calls: Vec<(String, String, String)> = Vec::new();
    for event in heard.iter().flatten() {
        match event {
            ModelEvent::CallStart { index, id, name } => {
                assert_eq!(*index, calls.len(), "indices count up from 0");
                calls.push((id.clone(), name.clone(), String::new()));
            }
            ModelEvent::CallDelta { index, arguments } => calls[*index].2.push_str(arguments),
            _ => {}
        }
    }
    calls
}

#[tokio::test]
async fn split_chunks_change_nothing() {
    for sizes in [&[1][..], &[2, 3, 5, 7], &[1024]] {
        let upstream = ScriptedUpstream::start().await.expect("listen");
        upstream.push(Answer::stream().say("日本語 und Emoji 🎉 in Stücken").done().cut_at(sizes));
        let heard = ask(&router(&[upstream.base_url()], timeouts())).await;
        assert_eq!(text_of(&heard), "日本語 und Emoji 🎉 in Stücken", "cut at {sizes:?}");
        assert_eq!(finish_of(&heard), FinishReason::Stop);
    }
}

#[tokio::test]
async fn an_event_is_handed_on_before_the_next_is_sent() {
    let upstream = ScriptedUpstream::start().await.expect("listen");
    let gate = Gate::new();
    upstream.push(Answer::stream().say("first").wait(&gate).say("second").done());
    let mut stream =
        router(&[upstream.base_url()], timeouts()).stream("pokee-isaac", &prompt(), CallIds::beside(&[]));
    let first = stream.next().await.expect("an event").expect("no error");
    assert_eq!(first, ModelEvent::TextDelta("first".into()));
    gate.reached().await;
    assert!(stream.next().now_or_never().is_none(), "nothing more was sent yet");
    gate.open();
    let rest: Heard = stream.collect().await;
    assert_eq!(text_of(&rest), "second");
}

#[tokio::test]
async fn dropping_the_stream_closes_the_connection() {
    let upstream = ScriptedUpstream::start().await.expect("listen");
    let ended = Gate::new();
    upstream.push(Answer::stream().say("on and on").on_close(&ended).stall());
    let mut stream =
        router(&[upstream.base_url()], timeouts()).stream("pokee-isaac", &prompt(), CallIds::beside(&[]));
    stream.next().await.expect("an event").expect("no error");
    drop(stream);
    tokio::time::timeout(Duration::from_secs(20), ended.reached()).await.expect("the upstream saw it");
}

#[tokio::test]
async fn a_model_that_is_not_in_the_catalog_is_named() {
    let upstream = ScriptedUpstream::start().await.expect("listen");
    let router = router(&[upstream.base_url()], timeouts());
    let heard: Heard = router.stream("gpt-nothing", &prompt(), CallIds::beside(&[])).collect().await;
    let error = error_of(heard);
    assert_eq!(
        (error.code(), error.to_string().as_str()),
        ("model.unknown", r#"there is no model named "gpt-nothing""#)
    );
}

#[tokio::test]
async fn a_stalled_stream_times_out() {
    let upstream = ScriptedUpstream::start().await.expect("listen");
    upstream.push(Answer::stream().say("half an").stall());
    let short = Timeouts { idle: Duration::from_millis(200), ..timeouts() };
    let heard = ask(&router(&[upstream.base_url()], short)).await;
    assert_eq!(text_of(&heard), "half an");
    let error = error_of(heard);
    assert!(matches!(&error, InferenceError::Timeout { waited_for: WaitedFor::Chunk, .. }), "{error:?}");
    assert_eq!(error.code(), "upstream.timeout");
    assert_eq!(upstream.requests().len(), 1, "nothing is tried again after an event");
}

#[tokio::test]
async fn an_upstream_that_never_answers_times_out_and_the_next_one_is_asked() {
    let (silent, good) =
        (ScriptedUpstream::start().await.expect("listen"), ScriptedUpstream::start().await.expect("listen"));
    silent.push(Answer::never());
    good.push(Answer::text("from the second"));
    let short = Timeouts { head: Duration::from_millis(200), ..timeouts() };
    let heard = ask(&router(&[silent.base_url(), good.base_url()], short)).await;
    assert_eq!(text_of(&heard), "from the second");
    assert_eq!(silent.requests().len(), 1);

    silent.push(Answer::never());
    let error = error_of(ask(&router(&[silent.base_url()], short)).await);
    assert!(matches!(&error, InferenceError::Timeout { waited_for: WaitedFor::Head, .. }), "{error:?}");
}

#[tokio::test]
async fn a_reset_in_mid_stream_is_an_error_and_not_tried_again() {
    let upstream = ScriptedUpstream::start().await.expect("listen");
    let gate = Gate::new();
    upstream.push(Answer::stream().say("half an").wait(&gate).reset());
    upstream.push(Answer::text("never asked for"));
    let mut stream =
        router(&[upstream.base_url()], timeouts()).stream("pokee-isaac", &prompt(), CallIds::beside(&[]));
    let first = stream.next().await.expect("an event").expect("no error");
    assert_eq!(first, ModelEvent::TextDelta("half an".into()));
    gate.open();
    let error = error_of(stream.collect().await);
    assert!(matches!(&error, InferenceError::Truncated { source: Some(_), .. }), "{error:?}");
    assert_eq!(error.code(), "upstream.truncated");
    assert_eq!(upstream.answers_left(), 1);
}

#[tokio::test]
async fn a_body_that_ends_early_is_never_a_whole_answer() {
    for ending in [Answer::stream().say("half an"), Answer::stream().say("half an").close()] {
        let upstream = ScriptedUpstream::start().await.expect("listen");
        upstream.push(ending);
        let heard = ask(&router(&[upstream.base_url()], timeouts())).await;
        assert_eq!(error_of(heard).code(), "upstream.truncated");
    }
}

#[tokio::test]
async fn a_reset_before_the_first_event_is_tried_again() {
    let upstream = ScriptedUpstream::start().await.expect("listen");
    upstream.push_all([Answer::reset_at_once(), Answer::stream().reset(), Answer::text("third time")]);
    let heard = ask(&router(&[upstream.base_url()], timeouts())).await;
    assert_eq!(text_of(&heard), "third time");
    assert_eq!(upstream.requests().len(), 3);
}

#[tokio::test]
async fn html_is_told_from_a_stream_whatever_its_status() {
    let page = "<html>welcome</html>";
    let cases = [
        Answer::html(),
        Answer::raw(StatusCode::NOT_FOUND, "text/html", page),
        Answer::raw(StatusCode::OK, "text/event-stream", page),
    ];
    for case in cases {
        let upstream = ScriptedUpstream::start().await.expect("listen");
        upstream.push(case);
        let error = error_of(ask(&router(&[upstream.base_url()], timeouts())).await);
        assert_eq!(error.code(), "upstream.bad_answer", "{error}");
        assert!(error.to_string().contains("is its base_url right?"), "{error}");
        assert_eq!(upstream.requests().len(), 1, "trying again would not mend it");
    }
}

#[tokio::test]
async fn refused_credentials_are_said_without_the_upstreams_words() {
    for status in [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN] {
        let upstream = ScriptedUpstream::start().await.expect("listen");
        upstream.push(Answer::http_error(status, &format!("Incorrect API key provided: {KEY}")));
        let error = error_of(ask(&router(&[upstream.base_url()], timeouts())).await);
        assert_eq!(error.code(), "upstream.refused");
        assert!(error.to_string().contains(status.as_str()), "{error}");
        assert_eq!(upstream.requests().len(), 1);
    }
}

#[tokio::test]
async fn a_rate_limit_is_waited_out_as_long_as_it_says() {
    let upstream = ScriptedUpstream::start().await.expect("listen");
    let limited =
        Answer::http_error(StatusCode::TOO_MANY_REQUESTS, "slow down").with_header("retry-after", "1");
    upstream.push_all([limited, Answer::text("now")]);
    let begin = Instant::now();
    let heard = ask(&router(&[upstream.base_url()], timeouts())).await;
    assert_eq!(text_of(&heard), "now");
    assert!(begin.elapsed() >= Duration::from_secs(1), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_rate_limit_that_is_too_long_moves_on_or_is_reported() {
    let (limited, good) =
        (ScriptedUpstream::start().await.expect("listen"), ScriptedUpstream::start().await.expect("listen"));
    limited.respond_with(|_| {
        Answer::http_error(StatusCode::TOO_MANY_REQUESTS, "slow down").with_header("retry-after", "31")
    });
    good.push(Answer::text("from the second"));
    let heard = ask(&router(&[limited.base_url(), good.base_url()], timeouts())).await;
    assert_eq!(text_of(&heard), "from the second");
    let error = error_of(ask(&router(&[limited.base_url()], timeouts())).await);
    assert_eq!((error.code(), error.retry_after_s()), ("upstream.rate_limited", Some(31)));
    assert_eq!(limited.requests().len(), 2, "asked once each time");
}

#[tokio::test]
async fn failures_of_a_server_are_tried_again_so_often_and_then_told() {
    for status in
        [StatusCode::REQUEST_TIMEOUT, StatusCode::INTERNAL_SERVER_ERROR, StatusCode::SERVICE_UNAVAILABLE]
    {
        let upstream = ScriptedUpstream::start().await.expect("listen");
        upstream.respond_with(move |_| Answer::http_error(status, "overloaded"));
        let error = error_of(ask(&router(&[upstream.base_url()], timeouts())).await);
        assert_eq!(error.code(), "upstream.error");
        let sentence = error.to_string();
        for part in ["up0", status.as_str(), "overloaded", "tried 3 times"] {
            assert!(sentence.contains(part), "{part:?} in {sentence}");
        }
        assert_eq!(upstream.requests().len(), 1 + limits::UPSTREAM_RETRIES_MAX as usize);
    }
}

#[tokio::test]
async fn a_request_at_fault_is_not_sent_again_anywhere() {
    let (first, second) =
        (ScriptedUpstream::start().await.expect("listen"), ScriptedUpstream::start().await.expect("listen"));
    first.push(Answer::http_error(StatusCode::BAD_REQUEST, "context length exceeded"));
    let error = error_of(ask(&router(&[first.base_url(), second.base_url()], timeouts())).await);
    assert!(matches!(&error, InferenceError::Upstream { status: Some(400), .. }), "{error:?}");
    assert!(error.to_string().contains("context length exceeded"));
    assert_eq!((first.requests().len(), second.requests().len()), (1, 0));
}

#[tokio::test]
async fn nobody_listening_falls_back_and_with_no_fallback_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let nobody = format!("http://{}/v1", listener.local_addr().expect("address"));
    drop(listener);
    let good = ScriptedUpstream::start().await.expect("listen");
    good.push(Answer::text("from the second"));
    let heard = ask(&router(&[nobody.clone(), good.base_url()], timeouts())).await;
    assert_eq!(text_of(&heard), "from the second");
    let error = error_of(ask(&router(&[nobody], timeouts())).await);
    assert_eq!(error.code(), "upstream.unreachable");
    assert!(error.to_string().contains("up0") && error.to_string().contains("tried 3 times"), "{error}");
}

#[tokio::test]
async fn an_error_object_within_the_stream_is_the_upstreams_error() {
    let upstream = ScriptedUpstream::start().await.expect("listen");
    let failed = json!({"error": {"message": "Failed to call a function.", "code": "tool_use_failed"}});
    upstream.push(Answer::stream().say("I will").data(&failed.to_string()));
    let heard = ask(&router(&[upstream.base_url()], timeouts())).await;
    assert_eq!(text_of(&heard), "I will");
    let error = error_of(heard);
    assert_eq!(error.code(), "upstream.error");
    assert!(error.to_string().contains("Failed to call a function."), "{error}");

    // Before any event the same object is a failure like a status, and names one.
    let busy = json!({"error": {"message": "Provider returned error", "code": 502}}).to_string();
    upstream.push_all([Answer::stream().data(&busy), Answer::text("second time")]);
    assert_eq!(text_of(&ask(&router(&[upstream.base_url()], timeouts())).await), "second time");
}

#[tokio::test]
async fn a_json_document_in_place_of_a_stream_is_told_apart() {
    let whole = json!({"choices": [{"message": {"content": "no stream"}}]}).to_string();
    let refusal = json!({"error": {"message": "model is loading"}}).to_string();
    let upstream = ScriptedUpstream::start().await.expect("listen");
    upstream.push(Answer::raw(StatusCode::OK, "application/json", whole));
    upstream.push(Answer::raw(StatusCode::OK, "application/json", refusal));
    let router = router(&[upstream.base_url()], timeouts());
    let error = error_of(ask(&router).await);
    assert_eq!(error.code(), "upstream.bad_answer");
    assert!(error.to_string().contains("application/json, not a stream"), "{error}");
    let error = error_of(ask(&router).await);
    assert_eq!(error.code(), "upstream.error");
    assert!(error.to_string().contains("model is loading"), "{error}");
}

#[tokio::test]
async fn an_error_body_without_end_is_read_so_far() {
    let upstream = ScriptedUpstream::start().await.expect("listen");
    let flood = Step::Repeat { chunk: vec![b' '; 8192].into(), every: Duration::ZERO };
    upstream.push(Answer::raw(StatusCode::BAD_REQUEST, "application/json", "{").step(flood));
    // The limit is to end it, long before the time for a head would.
    let router = router(&[upstream.base_url()], timeouts());
    let heard = tokio::time::timeout(timeouts().head / 3, ask(&router))
        .await
        .expect("no more is read than the limit");
    let error = error_of(heard);
    assert!(matches!(&error, InferenceError::Upstream { status: Some(400), .. }), "{error:?}");
}

#[tokio::test]
async fn keep_alive_comments_do_not_prolong_a_call_for_ever() {
    let upstream = ScriptedUpstream::start().await.expect("listen");
    let trickle = Step::Repeat { chunk: ": keep-alive\n\n".into(), every: Duration::from_millis(20) };
    upstream.push(Answer::stream().say("wait").step(trickle));
    let short = Timeouts { whole: Duration::from_millis(500), ..timeouts() };
    let heard = ask(&router(&[upstream.base_url()], short)).await;
    let error = error_of(heard);
    assert!(matches!(&error, InferenceError::Timeout { waited_for: WaitedFor::End, .. }), "{error:?}");
}

#[tokio::test]
async fn an_answer_without_end_is_cut_at_its_limit() {
    let upstream = ScriptedUpstream::start().await.expect("listen");
    let piece = json!({"choices": [{"index": 0, "delta": {"content": "x".repeat(256 * 1024)}}]});
    let flood = Step::Repeat { chunk: format!("data: {piece}\n\n").into(), every: Duration::ZERO };
    upstream.push(Answer::stream().step(flood));
    let heard = ask(&router(&[upstream.base_url()], timeouts())).await;
    assert_eq!(text_of(&heard).len(), limits::MODEL_ANSWER_BYTES_MAX, "all that the limit allows");
    let error = error_of(heard);
    assert!(matches!(&error, InferenceError::OverLimit { what: "an answer", .. }), "{error:?}");
    assert_eq!(error.code(), "upstream.bad_answer");
}

#[tokio::test]
async fn a_finished_answer_does_not_wait_long_for_an_end_that_never_comes() {
    let upstream = ScriptedUpstream::start().await.expect("listen");
    let finish = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]});
    upstream.push(Answer::stream().say("all of it").data(&finish.to_string()).stall());
    let short = Timeouts { after_finish: Duration::from_millis(50), ..timeouts() };
    let heard = ask(&router(&[upstream.base_url()], short)).await;
    assert_eq!((text_of(&heard).as_str(), finish_of(&heard)), ("all of it", FinishReason::Stop));
}

#[tokio::test]
async fn a_credential_that_was_never_loaded_is_a_mistake_of_the_configuration() {
    let upstream = ScriptedUpstream::start().await.expect("listen");
    let config = UpstreamConfig {
        name: "up".into(),
        dialect: Dialect::OpenAiChat,
        base_url: upstream.base_url(),
        credential: Some(CredentialRef::new("forgotten")),
    };
    let model = ModelConfig {
        name: "m".into(),
        upstreams: vec!["up".into()],
        upstream_model: "gpt-x".into(),
        price: Price::default(),
    };
    let catalog = Catalog::new(vec![config], vec![model]).expect("a good catalog");
    let way = Way::to(&[upstream.base_url()], Credentials::new());
    let router = Router::new(catalog, Arc::new(way), timeouts());
    let error = error_of(router.stream("m", &prompt(), CallIds::beside(&[])).collect().await);
    assert_eq!(error.code(), "upstream.misconfigured");
    assert_eq!(upstream.requests().len(), 0);
}
