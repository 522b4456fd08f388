//! `POST …/tool_results`: a client answers calls of its own tools.

use axum::Json;
use axum::extract::State;
use palisade_runtime::{ClientAnswer, Runtime};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{InSession, JsonBody};

/// One answer, or several.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum ToolResults {
    /// `{"results": […]}`
    Several {
        /// At most 64.
        results: Vec<ToolResult>,
    },
    /// `{"call_id", "output"}`
    One(ToolResult),
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct ToolResult {
    /// From `tool_call.requested`.
    call_id: String,
    /// For the model; cut in the middle where it is longer than 32 KiB.
    output: String,
    /// Whether the call failed.
    #[serde(default)]
    is_error: bool,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Accepted {
    /// `accepted`.
    status: &'static str,
}

/// Answer calls of client-side tools; the turn's stream goes on.
#[utoipa::path(post, operation_id = "answerToolCalls", path = "/v1/sessions/{id}/tool_results", tag = "messages",
    params(("id" = String, Path)), request_body = ToolResults, responses(
    (status = 200, body = Accepted), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
    (status = 404, description = "no such call waits", body = ErrorBody),
    (status = 409, description = "answered before", body = ErrorBody)))]
pub(crate) async fn answer(
    State(runtime): State<Runtime>,
    Caller(ctx): Caller,
    InSession(id): InSession,
    JsonBody(results): JsonBody<ToolResults>,
) -> Result<Json<Accepted>, ApiError> {
    let results = match results {
        ToolResults::Several { results } => results,
        ToolResults::One(result) => vec![result],
    };
    let answer = |result: ToolResult| ClientAnswer {
        call_id: result.call_id,
        content: result.output,
        is_error: result.is_error,
    };
    runtime.answer_calls(&ctx, &id, results.into_iter().map(answer).collect()).await?;
    Ok(Json(Accepted { status: "accepted" }))
}
