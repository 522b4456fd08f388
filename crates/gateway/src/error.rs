//! The one place where an error becomes an HTTP answer: nothing else knows status codes for errors. The shape is
//! the contract's, with a stable `code` beside it; causes stay in the log.

use std::any::Any;

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use palisade_protocol::{Error, ErrorKind};
use serde::Serialize;
use utoipa::ToSchema;

/// An error on its way out.
pub(crate) struct ApiError(pub(crate) Error);

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

/// The body of every error.
#[derive(Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    /// The status's reason phrase.
    error: &'static str,
    /// For people.
    message: String,
    /// For machines; stable.
    code: &'static str,
}

impl ApiError {
    /// Status, seconds of `Retry-After` and body, for where there is no response: the request's head could not be read.
    pub(crate) fn into_parts(self) -> (StatusCode, Option<u64>, String) {
        let Self(error) = self;
        let status = status(error.kind);
        let body = ErrorBody {
            error: status.canonical_reason().unwrap_or("Error"),
            message: error.message,
            code: error.code,
        };
        (status, error.retry_after_s, serde_json::to_string(&body).unwrap_or_default())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Self(error) = self;
        let status = status(error.kind);
        if status.is_server_error() {
            // The chain is logged once, here, where it ends.
            tracing::error!(code = error.code, error = %palisade_protocol::chain(&error), "request failed");
        }
        let retry_after_s = error.retry_after_s;
        let body = ErrorBody {
            error: status.canonical_reason().unwrap_or("Error"),
            message: error.message,
            code: error.code,
        };
        let mut response = (status, Json(body)).into_response();
        if status == StatusCode::UNSUPPORTED_MEDIA_TYPE {
            response
                .headers_mut()
                .insert(header::ACCEPT_ENCODING, header::HeaderValue::from_static("identity"));
        }
        if status == StatusCode::UNAUTHORIZED {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from(seconds));
        }
        response
    }
}

fn status(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::Malformed => StatusCode::BAD_REQUEST,
        ErrorKind::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorKind::OutOfCredits => StatusCode::PAYMENT_REQUIRED,
        ErrorKind::Forbidden => StatusCode::FORBIDDEN,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
        ErrorKind::UnsupportedCoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorKind::RangeNotSatisfiable => StatusCode::RANGE_NOT_SATISFIABLE,
        ErrorKind::IdempotencyMismatch => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorKind::LimitReached => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::TimedOut => StatusCode::REQUEST_TIMEOUT,
        ErrorKind::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        ErrorKind::Bug => StatusCode::INTERNAL_SERVER_ERROR,
        ErrorKind::NotImplemented => StatusCode::NOT_IMPLEMENTED,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
    }
}

/// No route has this path.
pub(crate) async fn no_such_endpoint() -> ApiError {
    let message = "there is no such endpoint; GET /openapi.json lists them";
    ApiError(Error::new(ErrorKind::NotFound, "endpoint.not_found", message))
}

/// A route has this path, with another method.
pub(crate) async fn no_such_method() -> ApiError {
    let message = "this endpoint does not take that method; GET /openapi.json lists what it takes";
    ApiError(Error::new(ErrorKind::MethodNotAllowed, "endpoint.method_not_allowed", message))
}

/// A handler panicked; the connection and the server live on.
pub(crate) fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let said = panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "something that is not text".to_owned());
    ApiError(Error::bug(format!("a handler panicked: {said}"))).into_response()
}
