//! Messages and the turns they start.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use palisade_protocol::SessionId;
use palisade_protocol::limits::MESSAGE_BODY_BYTES_MAX;
use palisade_runtime::{Cancelled, OpCtx, Runtime, Sent};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{InSession, JsonBody, OfTurn, Query, malformed};
use crate::sse;

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MessageBody {
    /// Text or markdown, at most 1 MiB.
    #[schema(min_length = 1, max_length = 1_048_576)]
    message: String,
}

/// Send a message. The answer is the turn's event stream; the turn runs to its end whether or not anybody reads.
/// A stream that broke is resumed with `GET /v1/sessions/{id}/responses/{rid}/events`, never here: a request with
/// `Last-Event-ID` is refused, since it would start a second turn.
#[utoipa::path(post, operation_id = "sendMessage", path = "/v1/sessions/{id}/messages", tag = "messages", params(("id" = String, Path),
    ("Idempotency-Key" = Option<String>, Header, description = "the same key and body start one turn, for 24 hours", min_length = 1, max_length = 255)),
    request_body = MessageBody, responses(
    (status = 200, description = "the turn's events; X-Response-Id names the turn", body = String, content_type = "text/event-stream"),
    (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
    (status = 402, description = "credits are used up (hard mode)", body = ErrorBody), (status = 404, body = ErrorBody),
    (status = 409, description = "a turn is running", body = ErrorBody), (status = 413, body = ErrorBody),
    (status = 422, description = "the Idempotency-Key was used for something else", body = ErrorBody),
    (status = 429, description = "a usage limit is reached; Retry-After says for how long", body = ErrorBody)))]
pub(crate) async fn send(
    State(runtime): State<Runtime>,
    Caller(ctx): Caller,
    InSession(id): InSession,
    headers: HeaderMap,
    JsonBody(body): JsonBody<MessageBody, MESSAGE_BODY_BYTES_MAX>,
) -> Result<Response, ApiError> {
    // One that is empty says that nothing was seen.
    if headers.get("last-event-id").is_some_and(|seen| !seen.is_empty()) {
        return Err(use_events(&runtime, &ctx, &id).await?);
    }
    let key = headers.get("idempotency-key").map(|key| key.to_str().map(str::to_owned)).transpose();
    let key = key.map_err(|_| {
        malformed("idempotency.bad_key", "an Idempotency-Key is visible ASCII text".to_owned())
    })?;
    Ok(match runtime.send_message(&ctx, &id, body.message, key).await? {
        Sent::Stream(turn) => sse::respond(runtime, turn),
        Sent::Evicted(turn) => {
            let note = "this Idempotency-Key started a turn whose events are no longer kept; nothing was started again";
            let body = ReplayedBody { response_id: turn.to_string(), status: "replayed", note };
            ([("x-response-id", turn.to_string())], Json(body)).into_response()
        }
    })
}

/// A client that sends a message again to resume its stream would pay for a second turn.
async fn use_events(runtime: &Runtime, ctx: &OpCtx, id: &SessionId) -> Result<ApiError, ApiError> {
    let latest = runtime.session(ctx, id).await?.last_response_id;
    let turn = latest.map_or("{X-Response-Id}".to_owned(), |turn| turn.to_string());
    let message = format!(
        "a message with Last-Event-ID would start another turn; to resume a stream, send the header to \
         GET /v1/sessions/{id}/responses/{turn}/events"
    );
    Ok(malformed("resume.use_events", message))
}

/// The answer to a retry whose stream is no longer kept.
#[derive(Serialize, ToSchema)]
pub(crate) struct ReplayedBody {
    response_id: String,
    /// `replayed`.
    status: &'static str,
    note: &'static str,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct From {
    /// The number of the last event that was seen; the header `Last-Event-ID` says the same.
    last_event_id: Option<String>,
}

/// Follow a turn, running or ended, from after the last event that was seen. After the terminal event there is nothing
/// to follow: 204, at which an EventSource stops asking.
#[utoipa::path(get, operation_id = "followResponse", path = "/v1/sessions/{id}/responses/{rid}/events", tag = "messages",
    params(("id" = String, Path), ("rid" = String, Path), From,
    ("Last-Event-ID" = Option<u32>, Header, description = "the number of the last event that was seen")), responses(
    (status = 200, description = "the rest of the turn's events", body = String, content_type = "text/event-stream"),
    (status = 204, description = "the last event that was seen is the turn's last"),
    (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn events(
    State(runtime): State<Runtime>,
    Caller(ctx): Caller,
    InSession(id): InSession,
    OfTurn(turn): OfTurn,
    Query(from): Query<From>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let header = headers.get("last-event-id").map(|value| value.to_str().unwrap_or("?").to_owned());
    let after = header.or(from.last_event_id).map(|text| event_number(&text)).transpose()?;
    Ok(match runtime.follow_turn(&ctx, &id, &turn, after).await? {
        Some(stream) => sse::respond(runtime, stream),
        None => ([("x-response-id", turn.to_string())], StatusCode::NO_CONTENT).into_response(),
    })
}

fn event_number(text: &str) -> Result<u64, ApiError> {
    // Digits only: `parse` alone would take a plus sign.
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number = if digits { text.parse::<u32>().ok() } else { None };
    number
        .map(u64::from)
        .ok_or_else(|| malformed("events.bad_id", "Last-Event-ID must be the number of an event".to_owned()))
}

#[derive(Serialize, ToSchema)]
pub(crate) struct CancelBody {
    response_id: String,
    /// `cancelling` or `already_complete`.
    status: &'static str,
}

/// Ask a turn to stop. Repeating it is harmless.
#[utoipa::path(post, operation_id = "cancelResponse", path = "/v1/sessions/{id}/responses/{rid}/cancel", tag = "messages",
    params(("id" = String, Path), ("rid" = String, Path)), responses(
    (status = 202, description = "its stream will end with message.cancelled", body = CancelBody),
    (status = 200, description = "it had ended", body = CancelBody),
    (status = 401, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn cancel(
    State(runtime): State<Runtime>,
    Caller(ctx): Caller,
    InSession(id): InSession,
    OfTurn(turn): OfTurn,
) -> Result<(StatusCode, Json<CancelBody>), ApiError> {
    let (status, said) = match runtime.cancel_turn(&ctx, &id, &turn).await? {
        Cancelled::Cancelling => (StatusCode::ACCEPTED, "cancelling"),
        Cancelled::AlreadyComplete => (StatusCode::OK, "already_complete"),
    };
    Ok((status, Json(CancelBody { response_id: turn.to_string(), status: said })))
}
