//! Files, workspace-wide, each call through a session's scope (contract §5).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json, Router};
use bytes::BytesMut;
use palisade_protocol::limits::{BODY_BYTES_FREE, DIRECTORY_ENTRIES_MAX, FILE_SENT_BYTES_MAX};
use palisade_protocol::{Error, ErrorKind, WorkspacePath};
use palisade_runtime::{Entry, FileUpload, OpCtx, Opened, Page, ReadFile, Runtime};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::admission::{BodyMemory, Visit};
use crate::auth::Caller;
use crate::body::BodyReader;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{FilePath, InSession, Query, QueryAfter, QueryPath, malformed};
use crate::file_body::file_body;

/// What is gathered for a file before it is written.
const CHUNK_BYTES: usize = 256 * 1024;

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Where {
    /// The directory; the workspace when absent.
    #[expect(dead_code, reason = "read as bytes by `QueryPath`; here it is known and documented")]
    path: Option<String>,
    /// `zip`: the directory as one file.
    archive: Option<String>,
    /// At most so many entries, from 1 to 100 000.
    limit: Option<usize>,
    /// Only the names behind this one: what `X-Next-After` of the page before says.
    #[expect(dead_code, reason = "read as bytes by `QueryAfter`; here it is known and documented")]
    after: Option<String>,
}

/// List a directory, by name. What has more entries than one answer holds says so: `X-Truncated: true`, and
/// `X-Next-After` is what `after` has to be for the next page, percent-encoded as a query wants it.
#[utoipa::path(get, operation_id = "listFiles", path = "/v1/sessions/{id}/files", tag = "files", params(("id" = String, Path), Where), responses(
    (status = 200, body = Vec<Entry>), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
    (status = 403, description = "outside the session's scope", body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn list(
    State(runtime): State<Runtime>,
    Caller(ctx): Caller,
    InSession(id): InSession,
    Query(at): Query<Where>,
    QueryPath(path): QueryPath,
    QueryAfter(after): QueryAfter,
) -> Result<Response, ApiError> {
    if is_zip(at.archive.as_deref())? {
        return archive(&runtime, &ctx, &id, path).await;
    }
    let listing = runtime.list_files(&ctx, &id, path, page(at.limit, after)?).await?;
    Ok(listed(listing.entries, listing.next_after))
}

fn page(limit: Option<usize>, after: Vec<u8>) -> Result<Page, ApiError> {
    let entries_max = limit.unwrap_or(DIRECTORY_ENTRIES_MAX);
    if !(1..=DIRECTORY_ENTRIES_MAX).contains(&entries_max) {
        let message =
            format!("limit={entries_max}: from 1 to {DIRECTORY_ENTRIES_MAX} entries can be asked for");
        return Err(malformed("files.bad_limit", message));
    }
    Ok(Page { entries_max, after: OsString::from_vec(after) })
}

/// `/files/` is the workspace too.
pub(crate) fn root() -> Router<Runtime> {
    Router::new().route("/v1/sessions/{id}/files/", axum::routing::get(list))
}

fn listed(entries: Vec<Entry>, next_after: Option<String>) -> Response {
    let mut response = Json(entries).into_response();
    if let Some(next) = next_after {
        let headers = response.headers_mut();
        headers.insert(HeaderName::from_static("x-truncated"), HeaderValue::from_static("true"));
        insert(headers, HeaderName::from_static("x-next-after"), &next);
    }
    response
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct How {
    /// `zip`: a directory as one file.
    archive: Option<String>,
    /// Of a directory: at most so many entries, from 1 to 100 000.
    limit: Option<usize>,
    /// Of a directory: only the names behind this one, which `X-Next-After` of the page before says.
    #[expect(dead_code, reason = "read as bytes by `QueryAfter`; here it is known and documented")]
    after: Option<String>,
}

/// Read a file, whole or a range of it; of a directory, its listing.
#[utoipa::path(get, operation_id = "getFile", path = "/v1/sessions/{id}/files/{*path}", tag = "files",
    params(("id" = String, Path), ("path" = String, Path), How), responses(
    (status = 200, description = "the file's bytes, or a directory's entries"), (status = 206, description = "the range"),
    (status = 304), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
    (status = 404, body = ErrorBody), (status = 416, body = ErrorBody)))]
pub(crate) async fn get(
    State(runtime): State<Runtime>,
    Caller(ctx): Caller,
    InSession(id): InSession,
    FilePath(path): FilePath,
    Query(how): Query<How>,
    QueryAfter(after): QueryAfter,
    (method, headers): (Method, HeaderMap),
) -> Result<Response, ApiError> {
    if is_zip(how.archive.as_deref())? {
        return archive(&runtime, &ctx, &id, path).await;
    }
    match runtime.open_file(&ctx, &id, path.clone(), page(how.limit, after)?).await? {
        Opened::Directory(listing) => Ok(listed(listing.entries, listing.next_after)),
        Opened::File(file) => send(file, &path, &method, &headers),
    }
}

fn is_zip(archive: Option<&str>) -> Result<bool, ApiError> {
    match archive {
        None => Ok(false),
        Some("zip") => Ok(true),
        Some(other) => {
            Err(malformed("files.bad_archive", format!("archive={other:?}: only 'zip' can be asked for")))
        }
    }
}

async fn archive(
    runtime: &Runtime,
    ctx: &OpCtx,
    id: &palisade_protocol::SessionId,
    path: WorkspacePath,
) -> Result<Response, ApiError> {
    let name = path.name().map_or("workspace".to_owned(), |name| String::from_utf8_lossy(name).into_owned());
    let body = Body::from_stream(runtime.archive_files(ctx, id, path).await?);
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/zip"));
    headers.insert(header::CONTENT_DISPOSITION, attachment(&format!("{name}.zip")));
    Ok(response)
}

fn send(
    file: ReadFile,
    path: &WorkspacePath,
    method: &Method,
    asked: &HeaderMap,
) -> Result<Response, ApiError> {
    let mut response = Response::new(Body::empty());
    describe(response.headers_mut(), &file, path);
    if is_known(asked, &file.etag) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(response);
    }
    // Only GET has ranges.
    let range = if method == Method::GET { wanted(asked, &file)? } else { None };
    let (first, length) = match range {
        Some((first, last)) => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let range = format!("bytes {first}-{last}/{}", file.size);
            insert(response.headers_mut(), header::CONTENT_RANGE, &range);
            (first, last - first + 1)
        }
        None => (0, file.size),
    };
    if length > FILE_SENT_BYTES_MAX && method != Method::HEAD {
        let message = format!(
            "{length} bytes are more than the {FILE_SENT_BYTES_MAX} that are sent at once; ask for a range of it"
        );
        return Err(ApiError(Error::new(ErrorKind::TooLarge, "file.too_large", message)));
    }
    insert(response.headers_mut(), header::CONTENT_LENGTH, &length.to_string());
    if method != Method::HEAD {
        *response.body_mut() = match file.content {
            Some(content) => Body::from(content.slice(range_of(first, length))),
            None => file_body(file.file, first, length),
        };
    }
    Ok(response)
}

/// Of content that is in memory, so that its length is a `usize`.
fn range_of(first: u64, length: u64) -> std::ops::Range<usize> {
    let at = |offset| usize::try_from(offset).unwrap_or(usize::MAX);
    at(first)..at(first + length)
}

fn describe(headers: &mut HeaderMap, file: &ReadFile, path: &WorkspacePath) {
    let name = String::from_utf8_lossy(path.name().unwrap_or(b"")).into_owned();
    let kind = mime_guess::from_path(&name).first_or_octet_stream();
    let charset = if kind.type_() == mime_guess::mime::TEXT { "; charset=utf-8" } else { "" };
    insert(headers, header::CONTENT_TYPE, &format!("{}{charset}", kind.essence_str()));
    insert(headers, header::ETAG, &file.etag);
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // What a browser would run must not run under this origin: every XML can hold script.
    if kind.essence_str().ends_with("xml") || ["text/html", "text/xsl"].contains(&kind.essence_str()) {
        headers.insert(header::CONTENT_DISPOSITION, attachment(&name));
        headers
            .insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox; default-src 'none'"));
    }
}

/// The range to send; `None` is the whole file. Several ranges at once are answered with the whole, as HTTP allows.
fn wanted(asked: &HeaderMap, file: &ReadFile) -> Result<Option<(u64, u64)>, ApiError> {
    let Some(range) = asked.get(header::RANGE).and_then(|value| value.to_str().ok()) else { return Ok(None) };
    // A strong comparison: a weak tag, a date or a star does not say that the bytes are the same.
    if asked.get(header::IF_RANGE).is_some_and(|tag| tag.as_bytes() != file.etag.as_bytes()) {
        return Ok(None);
    }
    if range.contains(',') {
        return Ok(None);
    }
    // A header that is not a range is ignored; a range beyond the file is told.
    let Ok(ranges) = http_range_header::parse_range_header(range) else {
        return if range.starts_with("bytes=") { Err(unsatisfiable(file.size)) } else { Ok(None) };
    };
    match ranges.validate(file.size) {
        Ok(valid) if valid.len() == 1 => Ok(valid.first().map(|range| (*range.start(), *range.end()))),
        Ok(_) => Ok(None),
        Err(_) => Err(unsatisfiable(file.size)),
    }
}

fn unsatisfiable(size: u64) -> ApiError {
    let message = format!("the range lies outside the file, which has {size} bytes");
    ApiError(Error::new(ErrorKind::RangeNotSatisfiable, "file.bad_range", message))
}

/// Whether the client has this very file: `If-None-Match` compares weakly, so that a proxy's `W/` does no harm.
fn is_known(asked: &HeaderMap, etag: &str) -> bool {
    asked
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// RFC 6266 with the name percent-encoded, so that no name can break out of the header.
fn attachment(name: &str) -> HeaderValue {
    let encoded = percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC);
    HeaderValue::from_str(&format!("attachment; filename*=UTF-8''{encoded}"))
        .unwrap_or(HeaderValue::from_static("attachment"))
}

#[derive(Serialize, ToSchema)]
pub(crate) struct WrittenFile {
    /// Relative to the workspace.
    path: String,
    /// Bytes.
    size: u64,
    /// Unix seconds.
    modified: f64,
}

/// Write a file whole; readers see the old one or the new one, never half. Folders are made.
#[utoipa::path(put, operation_id = "putFile", path = "/v1/sessions/{id}/files/{*path}", tag = "files",
    params(("id" = String, Path), ("path" = String, Path)),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"), responses(
    (status = 201, body = WrittenFile), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
    (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
    (status = 413, body = ErrorBody), (status = 507, description = "the disk is full", body = ErrorBody)))]
pub(crate) async fn put(
    State(runtime): State<Runtime>,
    Caller(ctx): Caller,
    InSession(id): InSession,
    FilePath(path): FilePath,
    headers: HeaderMap,
    visit: Option<Extension<Arc<Visit>>>,
    body: Body,
) -> Result<(StatusCode, Json<WrittenFile>), ApiError> {
    let length =
        headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    let body = BodyReader::new(body);
    let upload = match runtime.upload_file(&ctx, &id, path, length).await {
        Ok(upload) => upload,
        Err(refused) => {
            // Who asked first has sent nothing yet, and reading would tell him to go on.
            if !headers.contains_key(header::EXPECT) {
                body.discard().await;
            }
            return Err(refused.into());
        }
    };
    let written = receive(upload, body, visit.and_then(|visit| visit.body_memory())).await?.finish().await?;
    Ok((
        StatusCode::CREATED,
        Json(WrittenFile { path: written.path, size: written.size, modified: written.modified }),
    ))
}

/// In pieces worth a trip to the disk, so that an upload of any size needs the same memory; in smaller ones where other uploads of
/// the tenant have all that it may have.
async fn receive(
    mut upload: FileUpload,
    mut body: BodyReader,
    memory: Option<BodyMemory>,
) -> Result<FileUpload, ApiError> {
    let mut piece = Piece { gathered: BytesMut::new(), memory, bytes_max: BODY_BYTES_FREE };
    while let Some(chunk) = body.next().await? {
        piece.gathered.extend_from_slice(&chunk);
        if piece.is_full() {
            upload = match upload.write(piece.gathered.split().freeze()).await {
                Ok(upload) => upload,
                Err(refused) => {
                    body.discard().await;
                    return Err(refused.into());
                }
            };
        }
    }
    if !piece.gathered.is_empty() {
        upload = upload.write(piece.gathered.freeze()).await?;
    }
    Ok(upload)
}

/// What of an upload is in memory.
struct Piece {
    gathered: BytesMut,
    memory: Option<BodyMemory>,
    bytes_max: usize,
}

impl Piece {
    /// Whether to write it; one that is worth more memory takes that first, if there is any.
    fn is_full(&mut self) -> bool {
        if self.gathered.len() < self.bytes_max {
            return false;
        }
        let grows = self.bytes_max < CHUNK_BYTES
            && self.memory.as_mut().is_none_or(|memory| memory.grow(CHUNK_BYTES - self.bytes_max).is_ok());
        if grows {
            self.bytes_max = CHUNK_BYTES;
        }
        self.gathered.len() >= self.bytes_max
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Recursively {
    /// Needed for a directory that is not empty.
    #[serde(default)]
    recursive: bool,
}

/// Delete a file or a directory.
#[utoipa::path(delete, operation_id = "deleteFile", path = "/v1/sessions/{id}/files/{*path}", tag = "files",
    params(("id" = String, Path), ("path" = String, Path), Recursively), responses(
    (status = 204), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
    (status = 404, body = ErrorBody), (status = 409, description = "a directory that is not empty", body = ErrorBody)))]
pub(crate) async fn delete(
    State(runtime): State<Runtime>,
    Caller(ctx): Caller,
    InSession(id): InSession,
    FilePath(path): FilePath,
    Query(how): Query<Recursively>,
) -> Result<StatusCode, ApiError> {
    runtime.delete_file(&ctx, &id, path, how.recursive).await?;
    Ok(StatusCode::NO_CONTENT)
}
