//! Which web pages of other origins a browser lets speak to this server (CORS). None, unless an operator names them: a page
//! that holds a key can do what the key may. There are no cookies, so nothing is said about credentials.

use std::time::Duration;

use axum::extract::Request;
use axum::http::Method;
use axum::http::header::{self, HeaderName, HeaderValue};
use palisade_protocol::{Error, ErrorKind};
use tower_http::cors::{AllowOrigin, CorsLayer};

/// For how long a browser may keep the answer to a preflight.
const PREFLIGHT_KEPT: Duration = Duration::from_secs(600);

/// The layer that answers preflights, without a key, and marks answers for these origins and no others.
pub(crate) fn layer(origins: &[String]) -> CorsLayer {
    // What cannot stand in a header is no origin of any browser.
    let origins: Vec<HeaderValue> = origins.iter().filter_map(|origin| origin.parse().ok()).collect();
    let own = |name| HeaderName::from_static(name);
    let sent = [
        header::AUTHORIZATION,
        header::CONTENT_TYPE,
        header::ACCEPT,
        header::CACHE_CONTROL,
        header::RANGE,
        header::IF_MATCH,
        header::IF_NONE_MATCH,
        header::IF_MODIFIED_SINCE,
        header::IF_UNMODIFIED_SINCE,
        header::IF_RANGE,
        own("idempotency-key"),
        own("last-event-id"),
        own("x-request-id"),
        own("traceparent"),
    ];
    let read = [
        header::ETAG,
        header::LAST_MODIFIED,
        header::LINK,
        header::CONTENT_RANGE,
        header::CONTENT_LENGTH,
        header::CONTENT_DISPOSITION,
        header::ACCEPT_RANGES,
        header::RETRY_AFTER,
        own("x-response-id"),
        own("x-request-id"),
        own("x-next-after"),
        own("x-truncated"),
    ];
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_methods([Method::GET, Method::HEAD, Method::PUT, Method::POST, Method::DELETE])
        .allow_headers(sent)
        .expose_headers(read)
        .max_age(PREFLIGHT_KEPT)
}

/// Whether a browser asks if a page of another origin may go on.
pub(crate) fn is_preflight(request: &Request) -> bool {
    request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ORIGIN)
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// What the console of such a browser shows where no origin is allowed.
pub(crate) fn not_allowed() -> Error {
    let message = "this server answers no web page of another origin; its operator allows one with \
                   [cors] origins = [\"https://app.example.com\"]";
    Error::new(ErrorKind::Unauthenticated, "cors.not_allowed", message)
}
