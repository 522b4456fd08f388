//! What a caller has used.

use axum::Json;
use axum::extract::State;
use palisade_protocol::rate::UsageReport;
use palisade_runtime::Runtime;

use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};

/// The caller's rate-limit windows and its tenant's credits. A window is the current minute and those before it;
/// paired tenants have one balance.
#[utoipa::path(get, operation_id = "getUsage", path = "/v1/usage", tag = "usage", responses(
    (status = 200, body = UsageReport), (status = 401, body = ErrorBody)))]
pub(crate) async fn show(
    State(runtime): State<Runtime>,
    Caller(ctx): Caller,
) -> Result<Json<UsageReport>, ApiError> {
    Ok(Json(runtime.usage(&ctx).await?))
}
