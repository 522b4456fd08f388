//! `/v1/sessions`.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use palisade_protocol::session::{SessionCursor, SessionOrder};
use palisade_protocol::{Session, SessionDraft, limits};
use palisade_runtime::{BulkDelete, Runtime};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{InSession, JsonBody, Query, malformed};
use crate::link::add_next;

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

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Listed {
    /// At most so many; without it all of them, up to 10 000.
    #[param(minimum = 1, maximum = 10_000)]
    limit: Option<usize>,
    /// Only what comes behind this place: what `X-Next-After` of the page before says.
    after: Option<String>,
    /// `asc`: oldest first, as when it is absent; `desc`: newest first.
    #[serde(default)]
    #[param(inline)]
    order: SessionOrder,
}

/// The tenant's sessions. Where a page has not all of them, `Link` with `rel="next"` is the request for the next one,
/// relative to this host. Without `limit` a list of more than 10 000 says `X-Truncated: true`, too.
#[utoipa::path(get, operation_id = "listSessions", path = "/v1/sessions", tag = "sessions", params(Listed), responses(
    (status = 200, body = Vec<Session>), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody)))]
pub(crate) async fn list(
    State(runtime): State<Runtime>,
    Caller(ctx): Caller,
    Query(asked): Query<Listed>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let limit = asked.limit.unwrap_or(limits::SESSIONS_LISTED_MAX);
    if !(1..=limits::SESSIONS_LISTED_MAX).contains(&limit) {
        let message =
            format!("limit={limit}: from 1 to {} sessions can be asked for", limits::SESSIONS_LISTED_MAX);
        return Err(malformed("sessions.bad_limit", message));
    }
    let place = |text: String| {
        let bad = || {
            malformed(
                "sessions.bad_after",
                "after must be what X-Next-After of the page before says".to_owned(),
            )
        };
        SessionCursor::parse(&text).ok_or_else(bad)
    };
    let after = asked.after.map(place).transpose()?;
    let (sessions, next) = runtime.sessions(&ctx, after.as_ref(), asked.order, limit).await?;
    let mut response = Json(sessions).into_response();
    if let Some(next) = next {
        let headers = response.headers_mut();
        if asked.limit.is_none() {
            headers.insert(HeaderName::from_static("x-truncated"), HeaderValue::from_static("true"));
        }
        add_next(headers, &uri, &next.to_string());
    }
    Ok(response)
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
