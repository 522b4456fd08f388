//! `/v1/sessions`.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use palisade_protocol::{Session, SessionDraft, limits};
use palisade_runtime::{BulkDelete, Runtime};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{InSession, JsonBody, Query, malformed};

/// Create a session. Every field is optional.
#[utoipa::path(post, operation_id = "createSession", path = "/v1/sessions", tag = "sessions", request_body = SessionDraft, responses(
    (status = 201, body = Session), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
    (status = 429, description = "the tenant has as many sessions as it may have; Retry-After says when one will end", body = ErrorBody)))]
pub(crate) async fn create(
    State(runtime): State<Runtime>,
    Caller(ctx): Caller,
    JsonBody(draft): JsonBody<SessionDraft>,
) -> Result<(StatusCode, Json<Session>), ApiError> {
    let session = runtime.create_session(&ctx, draft).await?;
    Ok((StatusCode::CREATED, Json(session)))
}

/// The tenant's sessions, oldest first, at most 10 000; `X-Truncated: true` says that there are more.
#[utoipa::path(get, operation_id = "listSessions", path = "/v1/sessions", tag = "sessions", responses(
    (status = 200, body = Vec<Session>), (status = 401, body = ErrorBody)))]
pub(crate) async fn list(State(runtime): State<Runtime>, Caller(ctx): Caller) -> Result<Response, ApiError> {
    Ok(listed(runtime.sessions(&ctx).await?))
}

fn listed(mut sessions: Vec<Session>) -> Response {
    let is_cut = sessions.len() > limits::SESSIONS_LISTED_MAX;
    sessions.truncate(limits::SESSIONS_LISTED_MAX);
    let mut response = Json(sessions).into_response();
    if is_cut {
        let (name, value) = (HeaderName::from_static("x-truncated"), HeaderValue::from_static("true"));
        response.headers_mut().insert(name, value);
    }
    response
}

/// One session's record.
#[utoipa::path(get, operation_id = "getSession", path = "/v1/sessions/{id}", tag = "sessions", params(("id" = String, Path)), responses(
    (status = 200, body = Session), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn show(
    State(runtime): State<Runtime>,
    Caller(ctx): Caller,
    InSession(id): InSession,
) -> Result<Json<Session>, ApiError> {
    Ok(Json(runtime.session(&ctx, &id).await?))
}

/// Destroy a session: its turn is cancelled and every process of it ends; the workspace stays.
#[utoipa::path(delete, operation_id = "deleteSession", path = "/v1/sessions/{id}", tag = "sessions", params(("id" = String, Path)), responses(
    (status = 204), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn delete(
    State(runtime): State<Runtime>,
    Caller(ctx): Caller,
    InSession(id): InSession,
) -> Result<StatusCode, ApiError> {
    runtime.delete_session(&ctx, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Which {
    /// `idle`: only sessions without a running turn.
    status: Option<String>,
    /// Only sessions inactive for at least so long: `90s`, `2h`, `1h30m`.
    older_than: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Deleted {
    deleted: u64,
}

/// Destroy every session that matches.
#[utoipa::path(delete, operation_id = "deleteSessions", path = "/v1/sessions", tag = "sessions", params(Which), responses(
    (status = 200, body = Deleted), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody)))]
pub(crate) async fn delete_many(
    State(runtime): State<Runtime>,
    Caller(ctx): Caller,
    Query(which): Query<Which>,
) -> Result<Json<Deleted>, ApiError> {
    let idle_only = match which.status.as_deref() {
        None => false,
        Some("idle") => true,
        Some(other) => {
            return Err(malformed(
                "sessions.bad_status",
                format!("status={other:?}: only 'idle' can be asked for"),
            ));
        }
    };
    let inactive_for_s = which.older_than.as_deref().map(seconds).transpose()?;
    let deleted = runtime.delete_sessions(&ctx, BulkDelete { idle_only, inactive_for_s }).await?;
    Ok(Json(Deleted { deleted }))
}

/// `1h30m` and the like, in seconds: numbers with s, m or h, each unit once at most, largest first.
fn seconds(text: &str) -> Result<f64, ApiError> {
    let bad = || {
        malformed("sessions.bad_older_than", format!("older_than={text:?}: write it like 90s, 2h or 1h30m"))
    };
    let (mut total, mut rest, mut larger) = (0u64, text, u64::MAX);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let unit = match rest.as_bytes()[digits] {
            b'h' => 3600,
            b'm' => 60,
            b's' => 1,
            _ => return Err(bad()),
        };
        if unit >= larger {
            return Err(bad());
        }
        let number: u64 = rest[..digits].parse().map_err(|_| bad())?;
        total = number.checked_mul(unit).and_then(|part| total.checked_add(part)).ok_or_else(bad)?;
        rest = &rest[digits + 1..];
        larger = unit;
    }
    if text.is_empty() { Err(bad()) } else { Ok(total as f64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_list_that_is_cut_says_so() {
        let session: Session = serde_json::from_value(serde_json::json!({
            "id": "sess_0123456789ab", "created_at": 0.0, "last_activity": 0.0, "busy": false, "persistent": false,
            "ttl": 1, "status": "ready", "metadata": {}, "file_access": {"read": [], "write": []}, "model": "m",
            "expires_at": 1.0, "last_response_id": null,
        }))
        .unwrap();
        let max = limits::SESSIONS_LISTED_MAX;
        for (there, is_cut) in [(max, false), (max + 1, true)] {
            let response = listed(vec![session.clone(); there]);
            assert_eq!(response.headers().contains_key("x-truncated"), is_cut, "{there}");
            let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
            let listed: Vec<serde::de::IgnoredAny> = serde_json::from_slice(&body).unwrap();
            assert_eq!(listed.len(), max);
        }
    }

    #[test]
    fn durations() {
        for (text, expected) in
            [("90s", 90.0), ("2h", 7200.0), ("1h30m", 5400.0), ("1h1m1s", 3661.0), ("0s", 0.0)]
        {
            assert_eq!(seconds(text).ok(), Some(expected), "{text}");
        }
        for wrong in
            ["", "1", "h", "1d", "-1h", "1.5h", "1h1h", "1s1h", "99999999999999999999h", "1h ", "１h"]
        {
            assert!(seconds(wrong).is_err(), "{wrong:?}");
        }
    }
}
