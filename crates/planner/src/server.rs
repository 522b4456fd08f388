//! The planner's HTTP face: chat completions on a loopback port, for the one caller that knows the token. It
//! must never be reachable from another machine, nor serve another process of this one as a model.

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use palisade_protocol::limits::PLANNER_REQUEST_BYTES_MAX;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{ChatRequest, PlannerError, completion, frames, plan};

/// The one model that the planner's list names.
pub const MODEL_NAME: &str = "palisade-demo-planner";

/// Serves until `shutdown` resolves and running answers are done. Callers must send `Authorization: Bearer <token>`.
pub async fn serve(
    listener: TcpListener,
    token: String,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), PlannerError> {
    let address = listener.local_addr().map_err(PlannerError::Address)?;
    if !address.ip().is_loopback() {
        return Err(PlannerError::NotLoopback(address));
    }
    axum::serve(listener, routes(token)).with_graceful_shutdown(shutdown).await.map_err(PlannerError::Serve)
}

fn routes(token: String) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(complete))
        .route("/v1/models", get(models))
        .fallback(|| async { error(StatusCode::NOT_FOUND, "there is no such endpoint") })
        .method_not_allowed_fallback(|| async {
            error(StatusCode::METHOD_NOT_ALLOWED, "not with this method")
        })
        .layer(DefaultBodyLimit::max(PLANNER_REQUEST_BYTES_MAX))
        // Outermost, so that nothing, not even a 404, is said to whoever has no token.
        .layer(middleware::from_fn_with_state(Arc::<str>::from(token), require_token))
}

async fn require_token(State(token): State<Arc<str>>, request: Request, next: Next) -> Response {
    if bearer(request.headers()).is_some_and(|given| same(given.as_bytes(), token.as_bytes())) {
        return next.run(request).await;
    }
    let mut refused = error(StatusCode::UNAUTHORIZED, "the token is missing or wrong");
    refused.headers_mut().insert(WWW_AUTHENTICATE, axum::http::HeaderValue::from_static("Bearer"));
    refused
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

/// Compares without stopping at the first difference, so that the time tells nothing of the token.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (x, y)| difference | (x ^ y)) == 0
}

async fn models() -> Json<Value> {
    Json(json!({"object": "list", "data": [
        {"id": MODEL_NAME, "object": "model", "created": 0, "owned_by": "palisade"}]}))
}

async fn complete(body: Result<Bytes, axum::extract::rejection::BytesRejection>) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(rejection) => return error(rejection.status(), &rejection.body_text()),
    };
    let request = match ChatRequest::from_json(&body) {
        Ok(request) => request,
        Err(bad) => return error(StatusCode::BAD_REQUEST, &bad.to_string()),
    };
    let answer = plan(&request);
    if request.stream != Some(true) {
        return Json(completion(&request, &answer)).into_response();
    }
    let frames = frames(&request, &answer).into_iter().map(Ok::<_, std::convert::Infallible>);
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(futures_util::stream::iter(frames))).into_response()
}

fn error(status: StatusCode, message: &str) -> Response {
    let kind = if status.is_server_error() { "server_error" } else { "invalid_request_error" };
    let body = json!({"error": {"message": message, "type": kind, "param": null, "code": null}});
    (status, Json(body)).into_response()
}
