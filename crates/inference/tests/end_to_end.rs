//! The router, the real client and a real server on loopback, together: every way an upstream behaves, well and
//! badly, ends in events or in an error that says what happened, within a bounded time.
#![expect(clippy::expect_used, reason = "a helper that fails fails the test")]

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, future::BoxFuture};
use http::{Method, StatusCode};
use palisade_egress::{Credentials, DirectClient, EgressError, OutboundRequest};
use palisade_inference::{
    Catalog, CredentialRef, Dialect, FinishReason, InferenceError, ModelConfig, ModelEvent, Price, Router,
    Timeouts, Transport, TransportError, TransportFault, UpstreamCall, UpstreamConfig, UpstreamResponse,
    WaitedFor,
};
use palisade_protocol::{Prompt, ToolCall, Usage, limits, prompt::PromptMessage};
use palisade_testkit::upstream::{Answer, Call, Gate, ScriptedUpstream, Step};
use serde_json::json;
use tokio::{net::TcpListener, time::Instant};

/// The two rooms, joined as the runtime joins them.
struct Direct(DirectClient);

impl Transport for Direct {
    fn send(&self, call: UpstreamCall) -> BoxFuture<'static, Result<UpstreamResponse, TransportError>> {
        let client = self.0.clone();
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
    Router::new(catalog, Arc::new(Direct(DirectClient::new(credentials).expect("a client"))), timeouts)
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
    router.stream("pokee-isaac", &prompt()).collect().await
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
    assert_eq!(requests[0].json["model"], "gpt-x");
    assert_eq!(requests[0].json["messages"][1]["content"], "the user's private words");
}
