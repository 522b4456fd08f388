//! The server's own calls: each goes through the proxy like everybody's, plain inward, so that policy, record, TLS and key are the
//! door's affair. It must never dial anything but the proxy, follow a redirect, or see a key.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, future::BoxFuture, stream::BoxStream};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{HOST, USER_AGENT},
    uri::{Authority, Scheme},
};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connected, Connection},
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use tokio::net::UnixStream;

use crate::{Door, EgressError, Endpoint, Reason, http::refusal::PROXY_STATUS};

/// Names the credential that the proxy attaches; honoured on the server's own doors and taken out on all.
pub(crate) const CREDENTIAL: HeaderName = HeaderName::from_static("palisade-credential");
/// How long a connection to the proxy is kept for the next call to the same host. Less than the proxy keeps it.
const KEPT: Duration = Duration::from_secs(30);
/// Such connections for one host.
const KEPT_PER_HOST_MAX: usize = 8;

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

/// Sends calls through one door of the proxy. Cheap to clone.
#[derive(Clone)]
pub struct ProxyClient {
    client: Client<ToProxy, Full<Bytes>>,
}

impl std::fmt::Debug for ProxyClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProxyClient").finish_non_exhaustive()
    }
}

impl ProxyClient {
    /// A client whose calls are the door's principal's.
    pub fn new(door: Door) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(KEPT)
            .pool_max_idle_per_host(KEPT_PER_HOST_MAX)
            .build(ToProxy { door });
        Self { client }
    }

    /// Sends one call and returns at the head of its answer, whatever its status. That the proxy refused it is an error.
    pub async fn send(&self, request: OutboundRequest) -> Result<OutboundResponse, EgressError> {
        let (host, request) = build(request)?;
        let response = self.client.request(request).await.map_err(|source| {
            let source = source.into();
            EgressError::Send { host: host.clone(), source }
        })?;
        if let Some(refusal) = refusal(&response) {
            return Err(refused(host, refusal));
        }
        let (head, body) = response.into_parts();
        let body = body.into_data_stream().map(move |chunk| {
            chunk.map_err(|source| EgressError::Body { host: host.clone(), source: source.into() })
        });
        Ok(OutboundResponse { status: head.status, headers: head.headers, body: body.boxed() })
    }
}

/// The request as it goes inward: whatever the URL's scheme, the hop to the proxy is plain, and the endpoint's port tells the proxy
/// which of the upstreams it is.
fn build(request: OutboundRequest) -> Result<(String, Request<Full<Bytes>>), EgressError> {
    let (host, uri) = inward(&request.url)?;
    let mut inward = Request::new(Full::new(request.body));
    *inward.method_mut() = request.method;
    *inward.uri_mut() = uri;
    *inward.headers_mut() = request.headers;
    let headers = inward.headers_mut();
    let agent = HeaderValue::from_static(concat!("palisade/", env!("CARGO_PKG_VERSION")));
    headers.entry(USER_AGENT).or_insert(agent);
    headers.remove(CREDENTIAL);
    // The hop inward names the port, whatever the caller has written.
    headers.remove(HOST);
    if let Some(name) = request.credential {
        let value = HeaderValue::try_from(&name).map_err(|_| EgressError::UnknownCredential { name })?;
        headers.insert(CREDENTIAL, value);
    }
    Ok((host, inward))
}

/// Host and port for messages, and the URL with both said and the scheme of the inner hop.
fn inward(url: &str) -> Result<(String, Uri), EgressError> {
    let unreadable = |source: Box<dyn std::error::Error + Send + Sync>| EgressError::Build { source };
    let uri: Uri = url.parse().map_err(|error: http::uri::InvalidUri| unreadable(error.into()))?;
    let port = match (uri.scheme_str(), uri.port_u16()) {
        (_, Some(port)) => port,
        (Some("https"), None) => 443,
        (Some("http"), None) => 80,
        _ => return Err(unreadable("its scheme is neither http nor https".into())),
    };
    let at = uri.host().ok_or_else(|| unreadable("it has no host".into()))?;
    let host = format!("{at}:{port}");
    let mut parts = uri.into_parts();
    if parts.authority.as_ref().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(unreadable("there is a user name in front of its host".into()));
    }
    parts.authority = Some(Authority::try_from(host.as_str()).map_err(|error| unreadable(error.into()))?);
    parts.scheme = Some(Scheme::HTTP);
    let uri = Uri::from_parts(parts).map_err(|error| unreadable(error.into()))?;
    Ok((host, uri))
}

impl Endpoint {
    /// Where calls to this URL go.
    pub fn of_url(url: &str) -> Result<Self, EgressError> {
        let (host_port, _) = inward(url)?;
        let tls = url.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https:"));
        Ok(Self { host_port, tls })
    }
}

/// The code of a refusal of the proxy's own, and what it says of it; an upstream's answer never has that field.
fn refusal(response: &Response<Incoming>) -> Option<(String, String)> {
    let said = response.headers().get(PROXY_STATUS)?.to_str().ok()?;
    let (code, why) = said.rsplit('"').nth(1).unwrap_or_default().split_once(": ")?;
    Some((code.to_owned(), why.to_owned()))
}

fn refused(host: String, (code, why): (String, String)) -> EgressError {
    match Reason::ALL.iter().copied().find(|reason| reason.code() == code && reason.why() == why) {
        Some(reason @ (Reason::UpstreamBroke | Reason::AnswerTruncated | Reason::AnswerTimeout)) => {
            EgressError::Send { host, source: reason.into() }
        }
        Some(reason) if reason.is_of_the_answer() => EgressError::Answer { host, reason },
        Some(reason @ (Reason::DialTimeout | Reason::ResolveTimeout)) => {
            EgressError::ConnectTimeout { host, reason }
        }
        Some(Reason::CredentialMissing | Reason::CredentialUnusable) => EgressError::Refused { host, code },
        Some(reason) if reason.status() >= 500 => EgressError::Connect { host, reason },
        _ => EgressError::Refused { host, code },
    }
}

/// Opens connections to the proxy.
#[derive(Clone)]
struct ToProxy {
    door: Door,
}

/// A connection to the proxy.
struct Inner(TokioIo<UnixStream>);

impl tower_service::Service<Uri> for ToProxy {
    type Response = Inner;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Inner>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let door = self.door.clone();
        Box::pin(async move {
            let (ours, theirs) = UnixStream::pair()?;
            door.accept(theirs);
            Ok(Inner(TokioIo::new(ours)))
        })
    }
}

impl Connection for Inner {
    fn connected(&self) -> Connected {
        // So that targets stay absolute.
        Connected::new().proxy(true)
    }
}

impl hyper::rt::Read for Inner {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl hyper::rt::Write for Inner {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, host: &str, target: &str) {
        let (found, uri) = inward(url).expect("a URL");
        assert_eq!((found.as_str(), uri.to_string().as_str()), (host, target), "{url}");
    }

    #[test]
    fn the_hop_inward_is_plain_and_names_the_port() {
        check("https://api.test/v1?a=b", "api.test:443", "http://api.test:443/v1?a=b");
        check("http://api.test/", "api.test:80", "http://api.test:80/");
        check("http://127.0.0.1:9911/v1", "127.0.0.1:9911", "http://127.0.0.1:9911/v1");
        check("https://[::1]:8443/x", "[::1]:8443", "http://[::1]:8443/x");
        for wrong in ["", "/x", "ftp://api.test/", "https://user@api.test/", "https:///x"] {
            assert!(inward(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn refusals_say_how_far_a_call_came() {
        let told = |reason: Reason| refused("h:1".into(), (reason.code().into(), reason.why().into()));
        assert!(told(Reason::DialFailed).is_connect() && told(Reason::DialTimeout).is_connect());
        assert!(told(Reason::AuditUnavailable).is_connect() && told(Reason::CertificateExpired).is_connect());
        for reason in [Reason::UpstreamBroke, Reason::AnswerTimeout] {
            assert!(matches!(told(reason), EgressError::Send { .. }), "{reason}");
        }
        for reason in [Reason::AnswerMalformed, Reason::AnswerHeadTooLarge, Reason::AnswerFraming] {
            assert!(matches!(told(reason), EgressError::Answer { .. }), "{reason}");
        }
        for reason in [Reason::UpstreamBroke, Reason::AnswerMalformed, Reason::DialFailed] {
            assert_eq!(told(reason).reason(), Some(reason));
        }
        assert!(matches!(told(Reason::NotAllowed), EgressError::Refused { .. }));
        assert!(matches!(told(Reason::CredentialMissing), EgressError::Refused { .. }));
        let unknown = refused("h:1".into(), ("what-is-this".into(), "nobody knows".into()));
        assert!(matches!(unknown, EgressError::Refused { .. }));
    }
}
