//! Endpoints of the contract that this server does not have yet: they say so, and pretend nothing.

use axum::Router;
use axum::routing::any;
use palisade_protocol::{Error, ErrorKind};
use palisade_runtime::Runtime;

use crate::error::ApiError;

const PLANNED: [&str; 5] = [
    "/v1/skills",
    "/v1/skills/{name}",
    "/v1/responses",
    "/v1/responses/{rid}/events",
    "/v1/responses/{rid}/cancel",
];

pub(crate) fn routes() -> Router<Runtime> {
    PLANNED.iter().fold(Router::new(), |router, path| router.route(path, any(not_yet)))
}

async fn not_yet() -> ApiError {
    let message = "this server does not have this endpoint yet; GET /openapi.json lists what it has";
    ApiError(Error::new(ErrorKind::NotImplemented, "endpoint.not_implemented", message))
}
