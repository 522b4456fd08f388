//! An OAuth token endpoint on loopback: real HTTP, scripted answers, rotating refresh tokens of which each is good once.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

/// What the endpoint does with one request.
#[derive(Debug, Clone)]
pub enum Reply {
    /// This status and body.
    Say(u16, String),
    /// A new access token, and a new refresh token in place of the one that came, which is taken no more.
    Rotate {
        /// How long the access token is good.
        expires_in: u64,
    },
    /// Accepts, and never answers.
    Hang,
}

/// One request, as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The `Authorization` field.
    pub authorization: Option<String>,
    /// The form.
    pub body: String,
}

#[derive(Default)]
struct Script {
    replies: VecDeque<Reply>,
    always: Option<Reply>,
    asked: Vec<Asked>,
    /// The number of the refresh token that is good now.
    good: u64,
    slow: Duration,
}

/// The endpoint. It stops when it is dropped.
pub struct TokenEndpoint {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
    _accepting: AbortOnDropHandle<()>,
}

impl TokenEndpoint {
    /// Listens on a port of its own; every request gets `always`.
    pub async fn start(always: Reply) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let script = Arc::new(Mutex::new(Script { always: Some(always), ..Script::default() }));
        let shared = script.clone();
        let connections = TaskTracker::new();
        let accepting = async move {
            while let Ok((stream, _)) = listener.accept().await {
                let script = shared.clone();
                let service = service_fn(move |request| answer(script.clone(), request));
                let serving = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                connections.spawn(async move {
                    // A client that hangs up is no affair of ours.
                    let _ = serving.await;
                });
            }
        };
        let accepting = AbortOnDropHandle::new(tokio::runtime::Handle::current().spawn(accepting));
        Ok(Self { address, script, _accepting: accepting })
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}/token", self.address)
    }

    /// The next request gets this instead.
    pub fn push(&self, reply: Reply) {
        self.with(|script| script.replies.push_back(reply));
    }

    /// Every request that nothing else was pushed for gets this from here on.
    pub fn always(&self, reply: Reply) {
        self.with(|script| script.always = Some(reply));
    }

    /// Every answer takes so long.
    pub fn slow_down(&self, slow: Duration) {
        self.with(|script| script.slow = slow);
    }

    /// Every request so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.with(|script| script.asked.clone())
    }

    /// The refresh token that is good before any was given out.
    pub fn first_refresh_token() -> &'static str {
        "refresh-0"
    }

    fn with<T>(&self, work: impl FnOnce(&mut Script) -> T) -> T {
        work(&mut self.script.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn answer(
    script: Arc<Mutex<Script>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let authorization = request.headers().get("authorization");
    let authorization = authorization.and_then(|value| value.to_str().ok()).map(str::to_owned);
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let body = String::from_utf8_lossy(&body).into_owned();
    let (reply, slow) = {
        let mut script = script.lock().unwrap_or_else(PoisonError::into_inner);
        script.asked.push(Asked { authorization, body: body.clone() });
        let reply = script.replies.pop_front().or(script.always.clone());
        (said(&mut script, reply, &body), script.slow)
    };
    tokio::time::sleep(slow).await;
    let Some((status, text)) = reply else { std::future::pending().await };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
    Ok(response)
}

fn said(script: &mut Script, reply: Option<Reply>, body: &str) -> Option<(u16, String)> {
    match reply? {
        Reply::Hang => None,
        Reply::Say(status, text) => Some((status, text)),
        Reply::Rotate { expires_in } => {
            let came = body.split('&').find_map(|pair| pair.strip_prefix("refresh_token="));
            if came != Some(&format!("refresh-{}", script.good)) {
                return Some((400, r#"{"error":"invalid_grant"}"#.to_owned()));
            }
            script.good += 1;
            let good = script.good;
            Some((
                200,
                format!(
                    r#"{{"access_token":"access-{good}","token_type":"bearer","expires_in":{expires_in},"refresh_token":"refresh-{good}"}}"#
                ),
            ))
        }
    }
}
