//! The first client: straight to the upstream, key attached as the call leaves. It must follow no redirect (a
//! key would travel with it), trust no proxy of the environment and keep no cookie.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream::BoxStream};
use http::{HeaderMap, Method, StatusCode, header::AUTHORIZATION};
use reqwest::{Client, Url, redirect};

use crate::{Credentials, EgressError};

/// How long a TCP connection and its TLS handshake may take; how long an answer may take is its reader's affair.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// One call that is to leave.
#[derive(Debug, Clone)]
pub struct OutboundRequest {
    /// The method.
    pub method: Method,
    /// The whole URL.
    pub url: String,
    /// Headers, without credentials.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// Which key goes along, by name.
    pub credential: Option<String>,
}

/// A body as it arrives.
pub type ByteStream = BoxStream<'static, Result<Bytes, EgressError>>;

/// What came back: the head, and a body still to be read.
pub struct OutboundResponse {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body; dropping it closes the connection.
    pub body: ByteStream,
}

/// Sends calls to upstreams. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DirectClient {
    client: Client,
    credentials: Credentials,
}

impl DirectClient {
    /// A client that may use these keys.
    pub fn new(credentials: Credentials) -> Result<Self, EgressError> {
        let client = Client::builder()
            .user_agent(concat!("palisade/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .build()
            .map_err(EgressError::Setup)?;
        Ok(Self { client, credentials })
    }

    /// Sends one call and returns at the head of its answer, whatever its status.
    pub async fn send(&self, request: OutboundRequest) -> Result<OutboundResponse, EgressError> {
        let host = host_of(&request.url);
        let mut headers = request.headers;
        if let Some(name) = &request.credential {
            headers.insert(AUTHORIZATION, self.credentials.bearer(name)?);
        }
        let response = self
            .client
            .request(request.method, request.url)
            .headers(headers)
            .body(request.body)
            .send()
            .await
            .map_err(|source| failed_to_send(&host, source))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.bytes_stream().map(move |chunk| {
            chunk.map_err(|source| EgressError::Body { host: host.clone(), source: source.without_url() })
        });
        Ok(OutboundResponse { status, headers, body: body.boxed() })
    }
}

/// For messages: host and port, never the path, a query or what stands before an `@`.
fn host_of(url: &str) -> String {
    let Ok(url) = Url::parse(url) else { return "an unreadable URL".into() };
    match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (Some(host), None) => host.to_owned(),
        (None, _) => "a URL without a host".into(),
    }
}

fn failed_to_send(host: &str, source: reqwest::Error) -> EgressError {
    let host = host.to_owned();
    let source = source.without_url();
    match (source.is_builder(), source.is_connect(), source.is_timeout()) {
        (true, _, _) => EgressError::Build { host, source },
        (_, true, true) => EgressError::ConnectTimeout { host, source },
        (_, true, false) => EgressError::Connect { host, source },
        (_, false, _) => EgressError::Send { host, source },
    }
}
