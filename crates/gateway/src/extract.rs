//! Reading requests: bodies within their bound, ids that cannot be anything else, paths as raw bytes. Whatever is
//! wrong is said in the contract's shape.

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::Uri;
use axum::http::request::Parts;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use palisade_protocol::path::InvalidPath;
use palisade_protocol::{Error, ErrorKind, SessionId, TurnId, WorkspacePath, limits};
use serde::de::DeserializeOwned;

use crate::error::ApiError;

/// A JSON body of at most [`limits::JSON_BODY_BYTES_MAX`], whatever its Content-Type says. No body is `{}`.
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let body = Limited::new(request.into_body(), limits::JSON_BODY_BYTES_MAX).collect().await;
        let bytes = body.map_err(unread)?.to_bytes();
        let text: &[u8] = if bytes.iter().all(u8::is_ascii_whitespace) { b"{}" } else { &bytes };
        let value = serde_json::from_slice(text)
            .map_err(|error| malformed("request.malformed", format!("the body is not what this endpoint takes: {error}")))?;
        Ok(Self(value))
    }
}

fn unread(error: Box<dyn std::error::Error + Send + Sync>) -> ApiError {
    if error.is::<LengthLimitError>() {
        let message = format!("the body is larger than {} bytes", limits::JSON_BODY_BYTES_MAX);
        return ApiError(Error::new(ErrorKind::TooLarge, "request.too_large", message));
    }
    malformed("request.unread", "the body could not be read to its end".to_owned())
}

/// The query, as the fields of `T`.
pub(crate) struct Query<T>(pub(crate) T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        axum::extract::Query::try_from_uri(&parts.uri)
            .map(|axum::extract::Query(query)| Self(query))
            .map_err(|error| malformed("request.bad_query", error.body_text()))
    }
}

/// The session named in the path. A text that is no session id names no session.
pub(crate) struct InSession(pub(crate) SessionId);

impl<S: Sync> FromRequestParts<S> for InSession {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let id = segment(&parts.uri, 2).and_then(|text| SessionId::parse(text).ok());
        id.map(Self).ok_or_else(|| ApiError(Error::no_such_session()))
    }
}

/// The turn named in the path.
pub(crate) struct OfTurn(pub(crate) TurnId);

impl<S: Sync> FromRequestParts<S> for OfTurn {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let id = segment(&parts.uri, 4).and_then(|text| TurnId::parse(text).ok());
        id.map(Self).ok_or_else(|| {
            ApiError(Error::new(ErrorKind::NotFound, "response.not_found", "no such response in this session"))
        })
    }
}

/// The file named in the path, after `/v1/sessions/{id}/files/`: read from the raw URI, because names are bytes.
pub(crate) struct FilePath(pub(crate) WorkspacePath);

impl<S: Sync> FromRequestParts<S> for FilePath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let raw = parts.uri.path().splitn(6, '/').nth(5).unwrap_or("");
        workspace_path(raw).map(Self)
    }
}

/// A percent-encoded path below the workspace.
pub(crate) fn workspace_path(raw: &str) -> Result<WorkspacePath, ApiError> {
    let well_formed = raw.split('%').skip(1).all(|rest| {
        let digits = rest.as_bytes();
        digits.len() >= 2 && digits[..2].iter().all(u8::is_ascii_hexdigit)
    });
    if !well_formed {
        return Err(malformed("path.malformed", "the path has a '%' that is not followed by two hex digits".to_owned()));
    }
    let bytes: Vec<u8> = percent_encoding::percent_decode_str(raw).collect();
    checked(bytes)
}

/// A path below the workspace, already decoded.
pub(crate) fn checked(path: impl AsRef<[u8]>) -> Result<WorkspacePath, ApiError> {
    WorkspacePath::parse(path).map_err(|error| match error {
        InvalidPath::Escapes => ApiError(Error::new(ErrorKind::Forbidden, "path.escapes", error.to_string())),
        InvalidPath::Malformed => malformed("path.malformed", error.to_string()),
    })
}

fn segment(uri: &Uri, index: usize) -> Option<&str> {
    uri.path().split('/').skip(1).nth(index)
}

pub(crate) fn malformed(code: &'static str, message: String) -> ApiError {
    ApiError(Error::new(ErrorKind::Malformed, code, message))
}
