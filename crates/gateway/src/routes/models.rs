//! The catalog.

use axum::Json;
use axum::extract::State;
use palisade_runtime::Runtime;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::Caller;
use crate::error::ErrorBody;

#[derive(Serialize, ToSchema)]
pub(crate) struct ModelList {
    object: &'static str,
    data: Vec<ModelEntry>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct ModelEntry {
    id: String,
    object: &'static str,
    owned_by: &'static str,
    /// `model`, or `demo-planner` for the built-in stand-in.
    kind: &'static str,
    /// Whether sessions run on it when they name none.
    default: bool,
}

/// The catalog's models, in the shape of OpenAI's list.
#[utoipa::path(get, operation_id = "listModels", path = "/v1/models", tag = "models", responses(
    (status = 200, body = ModelList), (status = 401, body = ErrorBody)))]
pub(crate) async fn list(State(runtime): State<Runtime>, Caller(ctx): Caller) -> Json<ModelList> {
    let data = runtime
        .models(&ctx)
        .into_iter()
        .map(|model| ModelEntry {
            id: model.name,
            object: "model",
            owned_by: "palisade",
            kind: model.kind,
            default: model.default,
        })
        .collect();
    Json(ModelList { object: "list", data })
}
