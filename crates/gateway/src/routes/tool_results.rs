//! `POST …/tool_results`: a client answers calls of its own tools.

use axum::Json;
use axum::extract::State;
use palisade_runtime::{ClientAnswer, Runtime};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{InSession, JsonBody, malformed};

/// One answer (`call_id`, `output`), or several (`results`).
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ToolResults {
    /// Several answers, in place of the other fields.
    #[schema(min_items = 1, max_items = 64)]
    results: Option<Vec<ToolResult>>,
    /// From `tool_call.requested`.
    call_id: Option<String>,
    /// For the model; cut in the middle where it is longer than 32 KiB.
    output: Option<String>,
    /// Whether the call failed.
    is_error: Option<bool>,
}

/// One answer of several. Unknown fields are ignored, because clients pass on what their own tools gave them.
#[derive(Deserialize, ToSchema)]
pub(crate) struct ToolResult {
    /// From `tool_call.requested`.
    call_id: String,
    /// For the model; cut in the middle where it is longer than 32 KiB.
    output: String,
    /// Whether the call failed.
    #[serde(default)]
    is_error: Option<bool>,
}

impl ToolResults {
    fn into_answers(self) -> Result<Vec<ToolResult>, ApiError> {
        let Self { results, call_id, output, is_error } = self;
        let wrong = |message: &str| Err(malformed("request.malformed", message.to_owned()));
        match (results, call_id, output) {
            (Some(results), None, None) if is_error.is_none() => Ok(results),
            (None, Some(call_id), Some(output)) => Ok(vec![ToolResult { call_id, output, is_error }]),
            (Some(_), ..) => {
                wrong("'results' stands alone: call_id, output and is_error belong into each of them")
            }
            (None, Some(_), None) => wrong("the field 'output' is missing; it must be a string"),
            (None, None, Some(_)) => wrong("the field 'call_id' is missing; it must be a string"),
            (None, None, None) => {
                wrong("give 'call_id' and 'output', or 'results' with a list of such answers")
            }
        }
    }
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
    let answer = |result: ToolResult| ClientAnswer {
        call_id: result.call_id,
        content: result.output,
        is_error: result.is_error.unwrap_or(false),
    };
    runtime.answer_calls(&ctx, &id, results.into_answers()?.into_iter().map(answer).collect()).await?;
    Ok(Json(Accepted { status: "accepted" }))
}
