//! The calls of the HTTP API (contract §2), and what its refusals mean.
//!
//! Every wait has a limit and every answer held in memory a bound. The key goes to the one configured address only:
//! redirects are not followed, and loopback is never reached through a proxy.

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderValue, RETRY_AFTER};
use reqwest::{Body, Client, Method, RequestBuilder, Response, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::error::{ClientError, Refusal};
use super::remote_path::{RemotePath, encode_id};
use super::text;

/// Until a connection stands.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Until the head of an answer comes, and between two pieces of a body: keep-alives come every 15 s.
pub(super) const SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// Until an upload is through, however large.
const UPLOAD_LIMIT: Duration = Duration::from_secs(3600);
/// The largest JSON answer: 100,000 directory entries fit.
const JSON_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How much of a refusal's body is read.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;

/// A server, as one key sees it.
#[derive(Debug, Clone)]
pub(super) struct Api {
    http: Client,
    base: String,
    key: HeaderValue,
    key_origin: String,
}

/// A session's record; what another server of this contract may leave out has a default.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(super) struct SessionRecord {
    pub id: String,
    pub created_at: f64,
    pub last_activity: f64,
    pub busy: bool,
    pub persistent: bool,
    pub ttl: u64,
    pub metadata: Value,
    pub file_access: Value,
    pub model: Option<String>,
    pub expires_at: Option<f64>,
    pub last_response_id: Option<String>,
}

impl Default for SessionRecord {
    fn default() -> Self {
        Self {
            id: String::new(),
            created_at: 0.0,
            last_activity: 0.0,
            busy: false,
            persistent: false,
            ttl: 0,
            metadata: Value::Null,
            file_access: Value::Null,
            model: None,
            expires_at: None,
            last_response_id: None,
        }
    }
}

/// An entry of a listing.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct FileEntry {
    pub name: String,
    /// The exact bytes of a name that is not UTF-8.
    #[serde(default)]
    pub name_percent: Option<String>,
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub size: u64,
    #[serde(default)]
    pub modified: f64,
}

impl Api {
    /// Checks the address and the key's form.
    pub(super) fn new(url: &str, key: &str, key_origin: String) -> Result<Self, ClientError> {
        let parsed = Url::parse(url).ok().filter(|parsed| matches!(parsed.scheme(), "http" | "https"));
        let Some(parsed) = parsed.filter(|parsed| parsed.query().is_none() && parsed.fragment().is_none())
        else {
            return Err(ClientError::Url { url: text::one_line(url, 200) });
        };
        let Ok(mut bearer) = HeaderValue::from_str(&format!("Bearer {key}")) else {
            return Err(ClientError::BadKey { origin: key_origin });
        };
        bearer.set_sensitive(true);
        let mut builder =
            Client::builder().connect_timeout(CONNECT_LIMIT).redirect(reqwest::redirect::Policy::none());
        if parsed.host_str().is_some_and(is_loopback) {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|source| ClientError::Setup { source })?;
        Ok(Self { http, base: parsed.as_str().trim_end_matches('/').to_owned(), key: bearer, key_origin })
    }

    /// `POST /v1/sessions`.
    pub(super) async fn create_session(&self, draft: &Value) -> Result<SessionRecord, ClientError> {
        self.json("creating a session", self.request(Method::POST, "/v1/sessions").json(draft)).await
    }

    /// `GET /v1/sessions`, as it came.
    pub(super) async fn sessions(&self) -> Result<Value, ClientError> {
        self.json("listing the sessions", self.request(Method::GET, "/v1/sessions")).await
    }

    /// `GET /v1/sessions/{id}`, as it came.
    pub(super) async fn session(&self, session: &str) -> Result<Value, ClientError> {
        let path = format!("/v1/sessions/{}", encode_id(session));
        self.json("reading the session", self.request(Method::GET, &path)).await
    }

    /// `DELETE /v1/sessions/{id}`.
    pub(super) async fn delete_session(&self, session: &str) -> Result<(), ClientError> {
        let path = format!("/v1/sessions/{}", encode_id(session));
        self.call("deleting the session", self.request(Method::DELETE, &path), SILENCE_LIMIT).await.map(drop)
    }

    /// `DELETE /v1/sessions?status=idle&older_than=…`; the answer as it came.
    pub(super) async fn delete_idle(&self, older_than: Option<&str>) -> Result<Value, ClientError> {
        let request = self.request(Method::DELETE, "/v1/sessions?status=idle");
        let request = match older_than {
            // A duration is letters and digits; whatever else was typed is for the server to refuse.
            Some(age) => self
                .request(Method::DELETE, &format!("/v1/sessions?status=idle&older_than={}", encode_id(age))),
            None => request,
        };
        self.json("deleting idle sessions", request).await
    }

    /// `POST …/messages`: the head of the stream. The same key starts the same turn, however often it is sent.
    pub(super) async fn send_message(
        &self,
        session: &str,
        message: &str,
        key: &str,
    ) -> Result<Response, ClientError> {
        let path = format!("/v1/sessions/{}/messages", encode_id(session));
        let request = self.request(Method::POST, &path).json(&json!({"message": message}));
        let request = request.header("Idempotency-Key", key);
        self.call("sending the message", request, SILENCE_LIMIT).await
    }

    /// `GET …/events`: the stream again, after the given event.
    pub(super) async fn events(
        &self,
        session: &str,
        turn: &str,
        after_seq: Option<u64>,
    ) -> Result<Response, ClientError> {
        let path = format!("/v1/sessions/{}/responses/{}/events", encode_id(session), encode_id(turn));
        let mut request = self.request(Method::GET, &path);
        if let Some(seq) = after_seq {
            request = request.header("Last-Event-ID", seq);
        }
        self.call("following the turn", request, SILENCE_LIMIT).await
    }

    /// `POST …/cancel`.
    pub(super) async fn cancel(&self, session: &str, turn: &str) -> Result<(), ClientError> {
        let path = format!("/v1/sessions/{}/responses/{}/cancel", encode_id(session), encode_id(turn));
        self.call("cancelling the turn", self.request(Method::POST, &path), SILENCE_LIMIT).await.map(drop)
    }

    /// `GET …/files?path=`, as it came.
    pub(super) async fn listing(&self, session: &str, path: &RemotePath) -> Result<Value, ClientError> {
        let url = format!("/v1/sessions/{}/files?path={}", encode_id(session), path.encoded());
        self.json("listing files", self.request(Method::GET, &url)).await
    }

    /// The same, understood.
    pub(super) async fn entries(
        &self,
        session: &str,
        path: &RemotePath,
    ) -> Result<Vec<FileEntry>, ClientError> {
        understood("listing files", self.listing(session, path).await?)
    }

    /// `GET …/files/{path}`: the head; `zip` for a whole folder.
    pub(super) async fn download(
        &self,
        session: &str,
        path: &RemotePath,
        zip: bool,
    ) -> Result<Response, ClientError> {
        let query = if zip { "?archive=zip" } else { "" };
        let request = self.request(Method::GET, &format!("{}{query}", file_path(session, path)));
        self.call("fetching the file", request, SILENCE_LIMIT).await
    }

    /// `PUT …/files/{path}`; with its length where it is known beforehand.
    pub(super) async fn upload(
        &self,
        session: &str,
        path: &RemotePath,
        body: Body,
        length_bytes: Option<u64>,
    ) -> Result<Value, ClientError> {
        let mut request = self.request(Method::PUT, &file_path(session, path)).body(body);
        if let Some(length_bytes) = length_bytes {
            request = request.header(CONTENT_LENGTH, length_bytes);
        }
        let response = self.call("uploading the file", request, UPLOAD_LIMIT).await?;
        read_json("uploading the file", response).await
    }

    /// `DELETE …/files/{path}`.
    pub(super) async fn remove(
        &self,
        session: &str,
        path: &RemotePath,
        recursive: bool,
    ) -> Result<(), ClientError> {
        let query = if recursive { "?recursive=true" } else { "" };
        let request = self.request(Method::DELETE, &format!("{}{query}", file_path(session, path)));
        self.call("deleting the file", request, SILENCE_LIMIT).await.map(drop)
    }

    fn request(&self, method: Method, path_and_query: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}{path_and_query}", self.base))
            .header(AUTHORIZATION, self.key.clone())
    }

    async fn json<T: DeserializeOwned>(&self, what: &str, request: RequestBuilder) -> Result<T, ClientError> {
        read_json(what, self.call(what, request, SILENCE_LIMIT).await?).await
    }

    /// Sends, waits for the head, and turns an error status into a refusal.
    async fn call(
        &self,
        what: &str,
        request: RequestBuilder,
        limit: Duration,
    ) -> Result<Response, ClientError> {
        let sent = tokio::time::timeout(limit, request.send()).await;
        let answer = sent.map_err(|_| ClientError::Silent { what: what.to_owned(), limit })?;
        match answer {
            Ok(response) if response.status().is_success() => Ok(response),
            Ok(response) => Err(self.refusal(response).await),
            Err(source) if source.is_connect() => {
                Err(ClientError::Connect { url: self.base.clone(), source })
            }
            Err(source) => Err(ClientError::Broken { what: what.to_owned(), source }),
        }
    }

    async fn refusal(&self, mut response: Response) -> ClientError {
        let status = response.status();
        let retry_after =
            response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let body = read_bounded(&mut response, REFUSAL_BYTES_MAX).await.unwrap_or_default();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let field = |name: &str| body.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let message = match field("message").or_else(|| field("error")) {
            Some(message) => text::visible(message),
            None => format!("{} answered {status}", self.base),
        };
        ClientError::Refused {
            refusal: Refusal {
                status: status.as_u16(),
                code: field("code").unwrap_or_default().to_owned(),
                message,
                key_origin: self.key_origin.clone(),
                retry_after,
            },
        }
    }
}

fn file_path(session: &str, path: &RemotePath) -> String {
    format!("/v1/sessions/{}/files/{}", encode_id(session), path.encoded())
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

async fn read_json<T: DeserializeOwned>(what: &str, mut response: Response) -> Result<T, ClientError> {
    let body = read_bounded(&mut response, JSON_BYTES_MAX).await.ok_or_else(|| ClientError::Unexpected {
        what: what.to_owned(),
        detail: format!("its body broke off, or is larger than {}", text::size(JSON_BYTES_MAX as u64)),
    })?;
    serde_json::from_slice(&body).map_err(|error| not_ours(what, &error))
}

/// The whole body; `None` when it breaks off, stalls or exceeds the bound.
async fn read_bounded(response: &mut Response, bytes_max: usize) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let chunk = tokio::time::timeout(SILENCE_LIMIT, response.chunk()).await.ok()?.ok()?;
        match chunk {
            Some(chunk) if body.len() + chunk.len() <= bytes_max => body.extend_from_slice(&chunk),
            Some(_) => return None,
            None => return Some(body),
        }
    }
}

/// A value of the wire as one of ours.
pub(super) fn understood<T: DeserializeOwned>(what: &str, value: Value) -> Result<T, ClientError> {
    serde_json::from_value(value).map_err(|error| not_ours(what, &error))
}

fn not_ours(what: &str, error: &serde_json::Error) -> ClientError {
    ClientError::Unexpected { what: what.to_owned(), detail: text::one_line(&error.to_string(), 200) }
}
