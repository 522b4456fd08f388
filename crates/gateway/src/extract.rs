//! Reading requests: heads and bodies within their bounds, ids that cannot be anything else, paths as raw bytes. Whatever is
//! wrong is said in the contract's shape.

use std::fmt;

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::Uri;
use axum::http::header::{self, HeaderMap};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use palisade_protocol::path::InvalidPath;
use palisade_protocol::{CredentialName, Error, ErrorKind, SessionId, TurnId, WorkspacePath, limits};
use serde::de::{Deserialize, DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::body::read_json;
use crate::error::ApiError;
use crate::shape::{self, Mismatch};

/// A JSON body of at most `BYTES_MAX`, whatever its Content-Type says, read and parsed within the bounds of [`crate::body`]. No body
/// is `{}`. A field that the endpoint does not know is an error, because a misspelt one would be a wish that nobody fulfils.
pub(crate) struct JsonBody<T, const BYTES_MAX: usize = { limits::JSON_BODY_BYTES_MAX }>(pub(crate) T);

/// A body of this length is parsed where nobody else waits for the thread, in bytes.
const PARSED_APART_BYTES_MIN: usize = 64 * 1024;

impl<S: Sync, T: DeserializeOwned + Send + 'static, const BYTES_MAX: usize> FromRequest<S>
    for JsonBody<T, BYTES_MAX>
{
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        not_packed(request.headers())?;
        let bytes = read_json(request, BYTES_MAX).await?;
        if bytes.len() < PARSED_APART_BYTES_MIN {
            return parsed(&bytes).map(Self);
        }
        tokio::task::spawn_blocking(move || parsed(&bytes)).await.map_err(Error::bug)?.map(Self)
    }
}

fn parsed<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let fields = object(bytes)?;
    shape::read(&fields).map_err(|wrong| mismatch(&wrong, wrong.sentence("field")))
}

/// The same for a body that may hold secrets: what is wrong with it is said without quoting it, and what was read is
/// cleared.
pub(crate) struct SecretBody<T>(pub(crate) T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for SecretBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        not_packed(request.headers())?;
        let bytes = Zeroizing::new(read_json(request, limits::VAULT_BODY_BYTES_MAX).await?);
        let fields = object(&bytes)?;
        let read = shape::read(&fields);
        clear(fields);
        read.map(Self).map_err(|wrong| mismatch(&wrong, wrong.sentence_beside_secrets()))
    }
}

/// A body that came packed would be read as something else.
pub(crate) fn not_packed(headers: &HeaderMap) -> Result<(), ApiError> {
    let codings = headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .flat_map(|value| value.as_bytes().split(|b| *b == b','));
    let is_packed = |coding: &[u8]| {
        !coding.trim_ascii().is_empty() && !coding.trim_ascii().eq_ignore_ascii_case(b"identity")
    };
    if !codings.into_iter().any(is_packed) {
        return Ok(());
    }
    let message = "a body with Content-Encoding is not unpacked here; send it as it is, without that header";
    Err(ApiError(Error::new(ErrorKind::UnsupportedCoding, "request.content_encoding", message)))
}

fn mismatch(wrong: &Mismatch, sentence: String) -> ApiError {
    malformed(if wrong.is_unknown_field() { "request.unknown_field" } else { "request.malformed" }, sentence)
}

/// The body's object, in which no name stands twice. What the reader says of bad JSON is where it is, and never quotes.
fn object(bytes: &[u8]) -> Result<Value, ApiError> {
    let text: &[u8] = if bytes.iter().all(u8::is_ascii_whitespace) { b"{}" } else { bytes };
    if text.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(malformed("request.malformed", "the body must be a JSON object".to_owned()));
    }
    let read = serde_json::from_slice(text).map(|Object(fields)| Value::Object(fields));
    read.map_err(|error| {
        malformed("request.malformed", format!("the body is not JSON that can be read: {error}"))
    })
}

struct Object(Map<String, Value>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Object, A::Error> {
                let mut fields = Map::new();
                while let Some((name, value)) = from.next_entry::<String, Value>()? {
                    if fields.insert(name, value).is_some() {
                        return Err(serde::de::Error::custom("a field stands twice"));
                    }
                }
                Ok(Object(fields))
            }
        }
        from.deserialize_map(Names)
    }
}

/// Overwrites every text of a value.
fn clear(value: Value) {
    match value {
        Value::String(text) => drop(Zeroizing::new(text)),
        Value::Array(values) => values.into_iter().for_each(clear),
        Value::Object(fields) => fields.into_iter().for_each(|(name, value)| {
            drop(Zeroizing::new(name));
            clear(value);
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
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
        let bad = |message| malformed("request.bad_query", message);
        let mut pairs = Map::new();
        for (name, value) in form_urlencoded::parse(parts.uri.query().unwrap_or("").as_bytes()) {
            if pairs.insert(name.into_owned(), Value::String(value.into_owned())).is_some() {
                return Err(bad("a parameter stands twice in the query".to_owned()));
            }
        }
        shape::read_query(pairs).map(Self).map_err(|wrong| bad(wrong.sentence("parameter")))
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

/// The file to be written: a path that ends like a folder's is refused, because no client means a file by it.
pub(crate) struct FileToWrite(pub(crate) WorkspacePath);

impl<S: Sync> FromRequestParts<S> for FileToWrite {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let FilePath(path) = FilePath::from_request_parts(parts, state).await?;
        let raw = percent_decoded(parts.uri.path())?;
        if raw.ends_with(b"/") || raw.ends_with(b"/.") {
            let message = "the path ends like a folder's; folders are made on the way to a file, so write a file into it";
            return Err(malformed("path.names_a_folder", message.to_owned()));
        }
        Ok(Self(path))
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
