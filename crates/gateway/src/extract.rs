//! Reading requests: heads and bodies within their bounds, ids that cannot be anything else, paths as raw bytes. Whatever is
//! wrong is said in the contract's shape.

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::Uri;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use palisade_protocol::path::InvalidPath;
use palisade_protocol::{CredentialName, Error, ErrorKind, SessionId, TurnId, WorkspacePath, limits};
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::body::read_json;
use crate::error::ApiError;

/// A JSON body of at most `BYTES_MAX`, whatever its Content-Type says, read and parsed within the bounds of [`crate::body`]. No body
/// is `{}`.
pub(crate) struct JsonBody<T, const BYTES_MAX: usize = { limits::JSON_BODY_BYTES_MAX }>(pub(crate) T);

/// A body of this length is parsed where nobody else waits for the thread, in bytes.
const PARSED_APART_BYTES_MIN: usize = 64 * 1024;

impl<S: Sync, T: DeserializeOwned + Send + 'static, const BYTES_MAX: usize> FromRequest<S>
    for JsonBody<T, BYTES_MAX>
{
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let bytes = read_json(request, BYTES_MAX).await?;
        if bytes.len() < PARSED_APART_BYTES_MIN {
            return parsed(&bytes).map(Self);
        }
        tokio::task::spawn_blocking(move || parsed(&bytes)).await.map_err(Error::bug)?.map(Self)
    }
}

fn parsed<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    // Said here, because a derived reader would take an array for an object's fields.
    if bytes.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|first| *first != b'{') {
        return Err(malformed("request.malformed", "the body must be a JSON object".to_owned()));
    }
    let text: &[u8] = if bytes.iter().all(u8::is_ascii_whitespace) { b"{}" } else { bytes };
    serde_json::from_slice(text).map_err(|error| {
        malformed("request.malformed", format!("the body is not what this endpoint takes: {error}"))
    })
}

/// A JSON body that may hold secrets: what is wrong with it is said without quoting it, and what was read is cleared.
pub(crate) struct SecretBody<T>(pub(crate) T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for SecretBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let bytes = Zeroizing::new(read_json(request, limits::VAULT_BODY_BYTES_MAX).await?);
        let text: &[u8] = if bytes.iter().all(u8::is_ascii_whitespace) { b"{}" } else { &bytes };
        let is_object = text.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
        // The reader's own words would repeat what it did not expect.
        let wrong = |line: usize, column: usize| {
            let message = format!(
                "the body is not what this endpoint takes (line {line}, column {column}); GET /openapi.json has its form"
            );
            malformed("request.malformed", message)
        };
        if !is_object {
            return Err(wrong(1, 1));
        }
        serde_json::from_slice(text).map(Self).map_err(|error| wrong(error.line(), error.column()))
    }
}

/// Refuses a head over its written limit, which is the same for HTTP/1.1 and HTTP/2.
pub(crate) async fn bounded_head(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let fields: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let uri = request.uri();
    let target = uri.path().len() + uri.query().map_or(0, |query| query.len() + 1);
    if fields + target > limits::REQUEST_HEAD_BYTES_MAX || headers.len() > limits::REQUEST_HEADERS_MAX {
        return ApiError(head_too_large()).into_response();
    }
    next.run(request).await
}

pub(crate) fn head_too_large() -> Error {
    let message = format!(
        "the request's head has more than {} bytes or {} fields",
        limits::REQUEST_HEAD_BYTES_MAX,
        limits::REQUEST_HEADERS_MAX
    );
    Error::new(ErrorKind::HeadTooLarge, "request.head_too_large", message)
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

/// `?path=` as bytes, because names need not be UTF-8; the workspace when absent. [`Query`] has refused a second one.
pub(crate) struct QueryPath(pub(crate) WorkspacePath);

impl<S: Sync> FromRequestParts<S> for QueryPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        workspace_path(&raw_value(&parts.uri, b"path")).map(Self)
    }
}

/// `?after=`: a name, as bytes; empty when absent.
pub(crate) struct QueryAfter(pub(crate) Vec<u8>);

impl<S: Sync> FromRequestParts<S> for QueryAfter {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        percent_decoded(&raw_value(&parts.uri, b"after")).map(Self)
    }
}

/// The parameter's value, still percent-encoded. In a query, unlike in a path, a space may be a plus.
fn raw_value(uri: &Uri, name: &[u8]) -> String {
    let pairs = uri.query().unwrap_or("").split('&').filter_map(|pair| pair.split_once('='));
    let mut values =
        pairs.filter(|(key, _)| percent_encoding::percent_decode_str(key).eq(name.iter().copied()));
    values.next().map_or(String::new(), |(_, value)| value.replace('+', " "))
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
            ApiError(Error::new(
                ErrorKind::NotFound,
                "response.not_found",
                "no such response in this session",
            ))
        })
    }
}

/// The credential named in the path, last.
pub(crate) struct CredentialNamed(pub(crate) CredentialName);

impl<S: Sync> FromRequestParts<S> for CredentialNamed {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let raw = parts.uri.path().rsplit('/').next().unwrap_or("");
        CredentialName::parse(raw).map(Self).map_err(|_| {
            malformed("vault.bad_name", "a credential's name is [a-z0-9][a-z0-9_-]{0,63}".to_owned())
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
fn workspace_path(raw: &str) -> Result<WorkspacePath, ApiError> {
    WorkspacePath::parse(percent_decoded(raw)?).map_err(|error| match error {
        InvalidPath::Escapes => ApiError(Error::new(ErrorKind::Forbidden, "path.escapes", error.to_string())),
        InvalidPath::Malformed => malformed("path.malformed", error.to_string()),
    })
}

fn percent_decoded(raw: &str) -> Result<Vec<u8>, ApiError> {
    let is_well_formed = raw.split('%').skip(1).all(|rest| {
        let digits = rest.as_bytes();
        digits.len() >= 2 && digits[..2].iter().all(u8::is_ascii_hexdigit)
    });
    match is_well_formed {
        true => Ok(percent_encoding::percent_decode_str(raw).collect()),
        false => Err(malformed(
            "path.malformed",
            "the path has a '%' that is not followed by two hex digits".to_owned(),
        )),
    }
}

fn segment(uri: &Uri, index: usize) -> Option<&str> {
    uri.path().split('/').skip(1).nth(index)
}

pub(crate) fn malformed(code: &'static str, message: String) -> ApiError {
    ApiError(Error::new(ErrorKind::Malformed, code, message))
}
