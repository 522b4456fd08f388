//! Health, readiness, metrics and the API's own description.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse};
use axum::routing::{MethodRouter, get};
use axum::{Extension, Router};
use palisade_protocol::Error;
use palisade_runtime::{Headroom, OpCtx, Readiness, Runtime};
use serde_json::{Value, json};

use crate::error::{ApiError, ErrorBody};

/// The process is alive.
#[utoipa::path(get, operation_id = "health", path = "/health", tag = "server", security(()), responses((status = 200, description = "alive", body = Object)))]
pub(crate) async fn health() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// Whether store, sandbox, egress and models work. Without a key: the status alone.
#[utoipa::path(get, operation_id = "ready", path = "/ready", tag = "server", security((), ("key" = [])), responses(
    (status = 200, description = "every part works", body = Object),
    (status = 503, description = "a part does not work", body = Object)))]
pub(crate) async fn ready(
    State(runtime): State<Runtime>,
    caller: Option<Extension<OpCtx>>,
) -> impl IntoResponse {
    let readiness = runtime.readiness().await;
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let headroom = match &caller {
        Some(Extension(ctx)) => runtime.headroom(ctx).await.ok(),
        None => None,
    };
    (status, Json(shown(&readiness, headroom, caller.is_some())))
}

/// `headroom` is the caller's own workspace's.
fn shown(readiness: &Readiness, headroom: Option<Headroom>, detail: bool) -> Value {
    let status = if readiness.ready { "ready" } else { "degraded" };
    let mut storage = json!(readiness.storage);
    storage["workspace"] = json!(headroom);
    match detail {
        true => json!({"status": status, "parts": {
            "store": readiness.store, "sandbox": readiness.sandbox, "egress": readiness.egress,
            "models": readiness.models,
            "storage": storage,
        }}),
        false => json!({"status": status}),
    }
}

/// Prometheus metrics.
#[utoipa::path(get, operation_id = "metrics", path = "/metrics", tag = "server", responses(
    (status = 200, description = "OpenMetrics text", body = String, content_type = "application/openmetrics-text"),
    (status = 401, body = ErrorBody)))]
pub(crate) async fn metrics(State(runtime): State<Runtime>) -> Result<impl IntoResponse, ApiError> {
    let mut text = String::new();
    runtime
        .metrics()
        .with_registry(|registry| prometheus_client::encoding::text::encode(&mut text, registry))
        .map_err(Error::bug)?;
    Ok(([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text))
}

/// The description, and the page that shows it.
pub(crate) fn documents() -> Router<Runtime> {
    let document: MethodRouter<Runtime> = get(async || Json(crate::openapi_document()));
    Router::new().route("/openapi.json", document).route("/docs", get(docs))
}

async fn docs() -> impl IntoResponse {
    const POLICY: &str =
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'";
    ([(header::CONTENT_SECURITY_POLICY, POLICY)], Html(include_str!("../../assets/docs.html")))
}
