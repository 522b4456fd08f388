//! Files, workspace-wide, each call through a session's scope (contract §5).

use std::convert::Infallible;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json, Router};
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use palisade_protocol::limits::{BODY_BYTES_FREE, DIRECTORY_ENTRIES_MAX, FILE_SENT_BYTES_MAX};
use palisade_protocol::{Error, ErrorKind, SessionId, WorkspacePath};
use palisade_runtime::{
    Entry, FileUpload, Lane, OpCtx, Opened, Page, ReadFile, Runtime, Validators, Verdict,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::admission::{BodyMemory, Visit};
use crate::auth::Caller;
use crate::body::BodyReader;
use crate::conditions::{conditions, last_modified, may_send_part};
use crate::error::{ApiError, ErrorBody};
use crate::extract::{FilePath, FileToWrite, InSession, Query, QueryAfter, QueryPath, malformed, not_packed};
use crate::file_body::file_body;
use crate::link::add_next;
use crate::range::{Wanted, wanted};

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
    #[param(minimum = 1, maximum = 100_000)]
    limit: Option<usize>,
    /// Only the names behind this one: what `X-Next-After` of the page before says.
    #[expect(dead_code, reason = "read as bytes by `QueryAfter`; here it is known and documented")]
    after: Option<String>,
}

/// List a directory, by name. What has more entries than one answer holds says so: `X-Truncated: true`, and
/// `X-Next-After` is what `after` has to be for the next page, percent-encoded as a query wants it; `Link` has it whole.
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
    (method, uri): (Method, Uri),
) -> Result<Response, ApiError> {
    if is_zip(at.archive.as_deref())? {
        return archive(&runtime, &ctx, &id, path, &method).await;
    }
    let listing = runtime.list_files(&ctx, &id, path, page(at.limit, after)?).await?;
    Ok(listed(listing.entries, listing.next_after, &uri))
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

fn listed(entries: Vec<Entry>, next_after: Option<String>, asked: &Uri) -> Response {
    let mut response = Json(entries).into_response();
    if let Some(next) = next_after {
        let headers = response.headers_mut();
        headers.insert(HeaderName::from_static("x-truncated"), HeaderValue::from_static("true"));
        add_next(headers, asked, &next);
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
    #[param(minimum = 1, maximum = 100_000)]
    limit: Option<usize>,
    /// Of a directory: only the names behind this one, which `X-Next-After` of the page before says.
    #[expect(dead_code, reason = "read as bytes by `QueryAfter`; here it is known and documented")]
    after: Option<String>,
}

/// Read a file, whole or a range of it; of a directory, its listing. Conditions and `If-Range` hold as RFC 9110 has them.
/// The ETag of a file that changed less than a second ago, and was not written through this API, is weak.
#[utoipa::path(get, operation_id = "getFile", path = "/v1/sessions/{id}/files/{*path}", tag = "files",
    params(("id" = String, Path), ("path" = String, Path), How), responses(
    (status = 200, description = "the file's bytes, or a directory's entries"), (status = 206, description = "the range"),
    (status = 304, description = "the reader has it (If-None-Match, If-Modified-Since)"), (status = 400, body = ErrorBody),
    (status = 401, body = ErrorBody), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody),
    (status = 412, description = "it is not as If-Match or If-Unmodified-Since say", body = ErrorBody),
    (status = 413, description = "more than is sent at once: ask for a range, or for fewer files in an archive", body = ErrorBody),
    (status = 416, description = "the range lies outside the file; Content-Range says how long it is", body = ErrorBody)))]
pub(crate) async fn get(
    State(runtime): State<Runtime>,
    Caller(ctx): Caller,
    InSession(id): InSession,
    FilePath(path): FilePath,
    Query(how): Query<How>,
    QueryAfter(after): QueryAfter,
    (method, uri, headers): (Method, Uri, HeaderMap),
) -> Result<Response, ApiError> {
    if is_zip(how.archive.as_deref())? {
        return archive(&runtime, &ctx, &id, path, &method).await;
    }
    match runtime.open_file(&ctx, &id, path.clone(), page(how.limit, after)?).await? {
        Opened::Directory(listing) => Ok(listed(listing.entries, listing.next_after, &uri)),
        Opened::File(file) => send(file, &path, &method, &headers, runtime.disk(&ctx)?),
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
    id: &SessionId,
    path: WorkspacePath,
    method: &Method,
) -> Result<Response, ApiError> {
    let name = path.name().map_or("workspace".to_owned(), |name| String::from_utf8_lossy(name).into_owned());
    // Without a length: nobody knows it before the archive is packed.
    let mut response = Response::new(Body::from_stream(stream::empty::<Result<Bytes, Infallible>>()));
    if method == Method::HEAD {
        // Whether it is there, without packing it.
        let page = Page { entries_max: 1, ..Page::default() };
        runtime.list_files(ctx, id, path, page).await?;
    } else {
        *response.body_mut() = Body::from_stream(runtime.archive_files(ctx, id, path).await?);
    }
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
    disk: Lane,
) -> Result<Response, ApiError> {
    let mut response = Response::new(Body::empty());
    describe(response.headers_mut(), &file, path);
    match conditions(asked)?.judge(Some(&file.validators), true) {
        Verdict::Met => {}
        Verdict::NotModified => {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return Ok(response);
        }
        Verdict::Failed => return Ok(condition_failed(&file, path)),
    }
    let (first, length) = match range_of(method, asked, &file) {
        Wanted::Whole => (0, file.size),
        Wanted::Part { first, last } => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let range = format!("bytes {first}-{last}/{}", file.size);
            insert(response.headers_mut(), header::CONTENT_RANGE, &range);
            (first, last - first + 1)
        }
        Wanted::Unsatisfiable => return Ok(unsatisfiable(file.size)),
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
            Some(content) => Body::from(content.slice(span(first, length))),
            None => file_body(file.file, first, length, disk),
        };
    }
    Ok(response)
}

/// Of content that is in memory, so that its length is a `usize`.
fn span(first: u64, length: u64) -> std::ops::Range<usize> {
    let at = |offset| usize::try_from(offset).unwrap_or(usize::MAX);
    at(first)..at(first + length)
}

fn describe(headers: &mut HeaderMap, file: &ReadFile, path: &WorkspacePath) {
    let name = String::from_utf8_lossy(path.name().unwrap_or(b"")).into_owned();
    let kind = mime_guess::from_path(&name).first_or_octet_stream();
    let charset = if kind.type_() == mime_guess::mime::TEXT { "; charset=utf-8" } else { "" };
    insert(headers, header::CONTENT_TYPE, &format!("{}{charset}", kind.essence_str()));
    insert_validators(headers, &file.validators);
    // With a date alone a browser would guess for how long its copy is good.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // What a browser would run must not run under this origin: every XML can hold script.
    if kind.essence_str().ends_with("xml") || ["text/html", "text/xsl"].contains(&kind.essence_str()) {
        headers.insert(header::CONTENT_DISPOSITION, attachment(&name));
        headers
            .insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox; default-src 'none'"));
    }
}

/// What part of the file is sent. Only GET has ranges, and several Range headers say nothing.
fn range_of(method: &Method, asked: &HeaderMap, file: &ReadFile) -> Wanted {
    let mut ranges = asked.get_all(header::RANGE).iter();
    match (ranges.next().and_then(|range| range.to_str().ok()), ranges.next()) {
        (Some(range), None) if method == Method::GET && may_send_part(asked, &file.validators) => {
            wanted(range, file.size)
        }
        _ => Wanted::Whole,
    }
}

fn unsatisfiable(size: u64) -> Response {
    let message = format!("the range lies outside the file, which has {size} bytes");
    let error = Error::new(ErrorKind::RangeNotSatisfiable, "file.bad_range", message);
    let mut response = ApiError(error).into_response();
    insert(response.headers_mut(), header::CONTENT_RANGE, &format!("bytes */{size}"));
    response
}

fn condition_failed(file: &ReadFile, path: &WorkspacePath) -> Response {
    let message = format!("'{path}' is not as the request's conditions say");
    let error = Error::new(ErrorKind::PreconditionFailed, "file.precondition_failed", message);
    let mut response = ApiError(error).into_response();
    insert_validators(response.headers_mut(), &file.validators);
    response
}

fn insert_validators(headers: &mut HeaderMap, file: &Validators) {
    if let Some(tag) = &file.tag {
        insert(headers, header::ETAG, &tag.to_string());
    }
    if let Some(date) = last_modified(file) {
        headers.insert(header::LAST_MODIFIED, date);
    }
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// RFC 6266: the name percent-encoded, so that no name can break out of the header, and before it the nearest in ASCII for
/// clients that know only that.
fn attachment(name: &str) -> HeaderValue {
    let plain = |c: char| if c.is_ascii_graphic() && !r#""\%/"#.contains(c) || c == ' ' { c } else { '_' };
    let nearest: String = name.chars().map(plain).collect();
    let encoded = percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC);
    HeaderValue::from_str(&format!("attachment; filename=\"{nearest}\"; filename*=UTF-8''{encoded}"))
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

/// Write a file whole; readers see the old one or the new one, never half. Folders are made. With `If-Match`,
/// `If-Unmodified-Since` or `If-None-Match: *` it is written only if what is there is as they say; of two such requests
/// one wins. A command in a sandbox that writes in that same moment is not held back, but for a new file.
#[utoipa::path(put, operation_id = "putFile", path = "/v1/sessions/{id}/files/{*path}", tag = "files",
    params(("id" = String, Path), ("path" = String, Path)),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"), responses(
    (status = 201, description = "written; ETag is the file's", body = WrittenFile),
    (status = 400, description = "a bad path, or a part of a file (Content-Range)", body = ErrorBody), (status = 401, body = ErrorBody),
    (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
    (status = 412, description = "what is there is not as the conditions say", body = ErrorBody),
    (status = 413, description = "larger than the tenant's upload limit", body = ErrorBody),
    (status = 415, description = "packed (Content-Encoding)", body = ErrorBody),
    (status = 507, description = "the workspace or the disk is full", body = ErrorBody)))]
pub(crate) async fn put(
    State(runtime): State<Runtime>,
    Caller(ctx): Caller,
    InSession(id): InSession,
    FileToWrite(path): FileToWrite,
    headers: HeaderMap,
    visit: Option<Extension<Arc<Visit>>>,
    body: Body,
) -> Result<Response, ApiError> {
    let body = BodyReader::new(body);
    let begun = match is_whole(&headers).and_then(|()| conditions(&headers)) {
        Ok(conditions) => {
            let length = headers
                .get(header::CONTENT_LENGTH)
                .and_then(|v| v.to_str().ok())
                .and_then(|v| v.parse().ok());
            runtime.upload_file(&ctx, &id, path, length, conditions).await.map_err(ApiError::from)
        }
        Err(refused) => Err(refused),
    };
    let upload = match begun {
        Ok(upload) => upload,
        Err(refused) => {
            // Who asked first has sent nothing yet, and reading would tell him to go on.
            if !headers.contains_key(header::EXPECT) {
                body.discard().await;
            }
            return Err(refused);
        }
    };
    let written = receive(upload, body, visit.and_then(|visit| visit.body_memory())).await?.finish().await?;
    let shown = WrittenFile { path: written.path, size: written.size, modified: written.modified };
    let mut response = (StatusCode::CREATED, Json(shown)).into_response();
    insert_validators(response.headers_mut(), &written.validators);
    Ok(response)
}

/// Whether the body is the file as it is to be: a part of it would become all of it, and packed bytes would stay packed.
fn is_whole(headers: &HeaderMap) -> Result<(), ApiError> {
    if headers.contains_key(header::CONTENT_RANGE) {
        let message =
            "a file is written whole; a request with Content-Range would make its part the whole file";
        return Err(malformed("upload.partial", message.to_owned()));
    }
    let codings = headers
        .get_all(header::TRANSFER_ENCODING)
        .iter()
        .flat_map(|value| value.as_bytes().split(|b| *b == b','));
    let mut codings = codings.map(<[u8]>::trim_ascii).filter(|coding| !coding.is_empty());
    if codings.any(|coding| !coding.eq_ignore_ascii_case(b"chunked")) {
        let message = "no Transfer-Encoding but 'chunked' is unpacked here";
        return Err(ApiError(Error::new(ErrorKind::NotImplemented, "request.transfer_encoding", message)));
    }
    not_packed(headers)
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

/// Delete a file or a directory, on the conditions of the request if it has any.
#[utoipa::path(delete, operation_id = "deleteFile", path = "/v1/sessions/{id}/files/{*path}", tag = "files",
    params(("id" = String, Path), ("path" = String, Path), Recursively), responses(
    (status = 204), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody), (status = 403, body = ErrorBody),
    (status = 404, body = ErrorBody), (status = 409, description = "a directory that is not empty", body = ErrorBody),
    (status = 412, description = "what is there is not as the conditions say", body = ErrorBody)))]
pub(crate) async fn delete(
    State(runtime): State<Runtime>,
    Caller(ctx): Caller,
    InSession(id): InSession,
    FilePath(path): FilePath,
    Query(how): Query<Recursively>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    runtime.delete_file(&ctx, &id, path, how.recursive, conditions(&headers)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
