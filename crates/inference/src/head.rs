//! The head of an upstream's answer: a stream is let through, and everything else becomes an error that says
//! what it was. Of a body that is no stream no more is read than the sentence in it is worth.

use std::time::Duration;

use futures_util::StreamExt;
use http::{
    HeaderMap, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use palisade_protocol::limits::UPSTREAM_ERROR_BYTES_MAX;
use serde_json::Value;
use tokio::time::timeout;

use crate::{InferenceError, UpstreamResponse, error::presentable, openai_chat};

/// Lets a stream through and turns everything else into an error.
pub(crate) async fn accepted(
    upstream: &str,
    response: UpstreamResponse,
    error_body_wait: Duration,
) -> Result<UpstreamResponse, InferenceError> {
    let status = response.status;
    let media_type = media_type(&response.headers);
    if status.is_success() && !matches!(media_type.as_str(), "text/html" | "application/json") {
        return Ok(response);
    }
    let retry_after_s = retry_after_s(&response.headers);
    let upstream = upstream.to_owned();
    let code = status.as_u16();
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            return Err(InferenceError::Refused { upstream, status: code });
        }
        StatusCode::TOO_MANY_REQUESTS => return Err(InferenceError::RateLimited { upstream, retry_after_s }),
        _ => {}
    }
    if status.is_redirection() {
        let what = format!("answered {code}, a redirect, which is not followed; is its base_url right?");
        return Err(InferenceError::BadAnswer { upstream, what });
    }
    if media_type == "text/html" && !status.is_server_error() {
        let what = format!("answered {code} with text/html, not a model's stream; is its base_url right?");
        return Err(InferenceError::BadAnswer { upstream, what });
    }
    let body = timeout(error_body_wait, read_error_body(response)).await.unwrap_or_default();
    let body = serde_json::from_slice::<Value>(&body).unwrap_or(Value::Null);
    match openai_chat::error_message(&body) {
        None if status.is_success() => {
            let what = format!("answered {code} with {media_type}, not a stream");
            Err(InferenceError::BadAnswer { upstream, what })
        }
        message => {
            let status = (!status.is_success()).then_some(code);
            let message = presentable(message.as_deref().unwrap_or_default());
            Err(InferenceError::Upstream { upstream, status, message })
        }
    }
}

fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Seconds only: a date would need a clock that agrees with theirs, and backing off does as well.
fn retry_after_s(headers: &HeaderMap) -> Option<u64> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()
}

async fn read_error_body(response: UpstreamResponse) -> Vec<u8> {
    let mut body = response.body;
    let mut read = Vec::new();
    while let Some(Ok(chunk)) = body.next().await {
        let room = UPSTREAM_ERROR_BYTES_MAX - read.len();
        read.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if read.len() == UPSTREAM_ERROR_BYTES_MAX {
            break;
        }
    }
    read
}
