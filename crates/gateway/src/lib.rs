//! HTTP in: routes, authentication, events out as SSE, errors to statuses, the OpenAPI document.
//!
//! A handler unpacks a request, calls one operation of the runtime and wraps its answer; it decides nothing and
//! touches no disk, no database and no sandbox.

mod admin;
mod admission;
mod auth;
mod body;
mod conditions;
mod cors;
mod error;
mod extract;
mod file_body;
mod json_bounds;
mod link;
mod listen;
mod observe;
mod openapi;
mod range;
mod routes;
mod shape;
mod shares;
mod sse;

use axum::Router;
use axum::middleware;
use palisade_runtime::Runtime;
use tower_http::catch_panic::CatchPanicLayer;

pub use admin::serve_admin;
pub use listen::{HttpConfig, serve, serve_metrics};
pub use openapi::document as openapi_document;

/// `/metrics` and `/health` without a key, for a listener of their own that only the operator's machines reach.
fn metrics_router(runtime: Runtime) -> Router {
    Router::new()
        .route("/metrics", axum::routing::get(routes::metrics))
        .route("/health", axum::routing::get(routes::health))
        .fallback(error::no_such_endpoint)
        .method_not_allowed_fallback(error::no_such_method)
        .layer(CatchPanicLayer::custom(error::panicked))
        .with_state(runtime)
}

/// Every route with its layers, read from the inside out. Web pages of the `origins` may call them, and of no other
/// origin but the server's own.
pub(crate) fn router(runtime: Runtime, origins: &[String]) -> Router {
    let http_metrics = observe::HttpMetrics::register(runtime.metrics());
    let router = routes::all()
        .fallback(error::no_such_endpoint)
        .method_not_allowed_fallback(error::no_such_method)
        // Around every route and both fallbacks: a route that is forgotten in the list of open ones is closed.
        .layer(middleware::from_fn_with_state(runtime.clone(), auth::authenticate))
        .layer(middleware::from_fn(extract::bounded_head))
        // Above authentication, so that a panic there is answered too; below the observer, so that it is seen.
        .layer(CatchPanicLayer::custom(error::panicked));
    // Around authentication, because a browser asks without a key; and an error has to be readable, too.
    let router = if origins.is_empty() { router } else { router.layer(cors::layer(origins)) };
    router
        // Outermost: gives the request its id, and logs and counts whatever the answer was.
        .layer(middleware::from_fn_with_state((runtime.clone(), http_metrics), observe::observe))
        .with_state(runtime)
}
