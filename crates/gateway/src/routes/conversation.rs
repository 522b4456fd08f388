//! The conversation of a session as JSON items.

use axum::Json;
use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse as _, Response};
use palisade_runtime::{ConversationPage, Runtime};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{InSession, Query};
use crate::link::add_next;

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Page {
    /// The index of the last item that was seen.
    after: Option<u64>,
    /// How many items at most, from 1 to 200; 50 when absent.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<usize>,
}

/// The conversation so far, oldest first. A page with long items is shorter than `limit`; `Link` has the next one.
#[utoipa::path(get, operation_id = "listMessages", path = "/v1/sessions/{id}/messages", tag = "messages",
    params(("id" = String, Path), Page), responses(
    (status = 200, body = ConversationPageBody), (status = 400, body = ErrorBody),
    (status = 401, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn list(
    State(runtime): State<Runtime>,
    Caller(ctx): Caller,
    InSession(id): InSession,
    Query(page): Query<Page>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let page: ConversationPage = runtime.conversation(&ctx, &id, page.after, page.limit).await?;
    let next = page.next_after;
    let mut response = Json(page).into_response();
    if let Some(next) = next {
        add_next(response.headers_mut(), &uri, &next.to_string());
    }
    Ok(response)
}

/// How the document describes a page.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the runtime's own type is what is sent")]
pub(crate) struct ConversationPageBody {
    data: Vec<ConversationItemBody>,
    /// Whether there are items after these.
    has_more: bool,
    /// What to ask the next page with, as `after`; null on the last page.
    next_after: Option<u64>,
}

/// An item; further fields depend on its type.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the runtime's own type is what is sent")]
pub(crate) struct ConversationItemBody {
    /// Its place in the conversation, from 0.
    index: u64,
    /// The turn it belongs to.
    response_id: String,
    /// `user_message`, `assistant_message`, `tool_started`, `tool_finished` or `turn_ended`.
    #[schema(rename = "type")]
    kind: String,
}
