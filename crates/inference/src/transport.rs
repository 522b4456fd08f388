//! The port to the network (decision 1): a call goes out with the name of its credential, never with a key.

use std::fmt;

use bytes::Bytes;
use futures_util::{future::BoxFuture, stream::BoxStream};
use http::{HeaderMap, StatusCode};

/// The name of a key that this room never sees.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CredentialRef(String);

impl CredentialRef {
    /// A reference to the credential of this name.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.0
    }
}

/// One POST to an upstream.
#[derive(Debug, Clone)]
pub struct UpstreamCall {
    /// The upstream's name in the catalog.
    pub upstream: String,
    /// The whole URL.
    pub url: String,
    /// Headers, without credentials.
    pub headers: HeaderMap,
    /// The JSON body.
    pub body: Bytes,
    /// What the transport attaches.
    pub credential: Option<CredentialRef>,
}

/// The head of an upstream's answer, and a body still to be read.
pub struct UpstreamResponse {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body; dropping it must close the connection, for that is how a call is cancelled.
    pub body: BoxStream<'static, Result<Bytes, TransportError>>,
}

impl fmt::Debug for UpstreamResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamResponse").field("status", &self.status).finish_non_exhaustive()
    }
}

/// Sends calls. Timeouts beyond connecting, retries and fallbacks are the router's, not the transport's.
pub trait Transport: Send + Sync {
    /// Sends one call and returns at the head of its answer, whatever its status. Redirects are answers.
    fn send(&self, call: UpstreamCall) -> BoxFuture<'static, Result<UpstreamResponse, TransportError>>;
}

/// Why a transport failed. `Display` is for people outside, and goes on where a sentence has named the upstream; the source is
/// for the log.
#[derive(Debug, thiserror::Error)]
#[error("{fault}: {why}")]
pub struct TransportError {
    /// Where it failed.
    pub fault: TransportFault,
    /// What was wrong, for people outside; part of a sentence.
    pub why: &'static str,
    /// What the transport says about it.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl TransportError {
    /// A failure and its cause.
    pub fn new(fault: TransportFault, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { fault, why: fault.usual_reason(), source: source.into() }
    }

    /// Says more exactly what was wrong.
    #[must_use]
    pub fn because(self, why: &'static str) -> Self {
        Self { why, ..self }
    }
}

/// Where a transport failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TransportFault {
    /// The call could not be built: a bad URL, an unknown credential. Trying again is of no use.
    #[error("is misconfigured")]
    Unsendable,
    /// No connection came about.
    #[error("cannot be reached")]
    Connect,
    /// The connection broke, before the answer or within it.
    #[error("gave no answer")]
    Broken,
    /// What came back is no answer that can be read.
    #[error("sent an answer that cannot be read")]
    BadAnswer,
}

impl TransportFault {
    /// What is said where nothing more is known.
    fn usual_reason(self) -> &'static str {
        match self {
            Self::Unsendable => "a call to it cannot be built",
            Self::Connect => "there was no connection",
            Self::Broken => "the connection broke",
            Self::BadAnswer => "it is not HTTP",
        }
    }
}
