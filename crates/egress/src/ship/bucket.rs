//! An S3-compatible bucket, spoken to through the proxy's own door for services: nothing here dials.

use std::io;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use object_store::{
    ClientOptions, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    client::{HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService},
    path::Path,
};
use secrecy::{ExposeSecret, SecretString};

use palisade_protocol::limits::EGRESS_AUDIT_SEGMENT_BYTES_MAX;

use super::{Taken, occupied};
use crate::{ByteStream, EgressError, Endpoint, OutboundRequest, ProxyClient};

/// What is read of an answer, in bytes: a segment is the longest.
const ANSWER_BYTES_MAX: u64 = 2 * EGRESS_AUDIT_SEGMENT_BYTES_MAX;

/// Which bucket, and with which key.
#[derive(Clone)]
pub struct BucketSpec {
    /// The service's URL, without the bucket.
    pub endpoint: String,
    /// The bucket.
    pub name: String,
    /// Its region, as signatures have it.
    pub region: String,
    /// What stands before every object's name.
    pub prefix: String,
    /// The key's id.
    pub access_key: SecretString,
    /// The key.
    pub secret_key: SecretString,
}

impl std::fmt::Debug for BucketSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BucketSpec")
            .field("endpoint", &self.endpoint)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl BucketSpec {
    /// Where it is, for the policy of the server's services.
    pub fn service(&self) -> Result<Endpoint, EgressError> {
        Endpoint::of_url(&self.endpoint)
    }
}

/// An open bucket.
#[derive(Debug)]
pub struct Bucket {
    store: AmazonS3,
    prefix: Path,
}

impl Bucket {
    /// A bucket that is reached through this client.
    pub fn new(spec: &BucketSpec, client: ProxyClient) -> Result<Self, EgressError> {
        let store = AmazonS3Builder::new()
            .with_endpoint(&spec.endpoint)
            .with_bucket_name(&spec.name)
            .with_region(&spec.region)
            .with_access_key_id(spec.access_key.expose_secret())
            .with_secret_access_key(spec.secret_key.expose_secret())
            // The hop to the proxy is plain by design; what leaves is as the endpoint says.
            .with_allow_http(true)
            // Who ships tries again in his own time.
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
            .with_http_connector(ThroughTheProxy(client))
            .build()
            .map_err(|source| EgressError::Ship {
                doing: "set up the bucket for",
                source: io::Error::other(source),
            })?;
        Ok(Self { store, prefix: Path::from(spec.prefix.as_str()) })
    }

    /// Puts an object where there is none. One that is there is looked at.
    pub(super) async fn put(&self, name: &str, bytes: Vec<u8>) -> Result<Taken, EgressError> {
        let failed = |source: object_store::Error| EgressError::Ship {
            doing: "ship to the bucket",
            source: io::Error::other(source),
        };
        let at = self.prefix.clone().join(name);
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.store.put_opts(&at, bytes.clone().into(), options).await {
            Ok(_) => Ok(Taken::Now),
            Err(object_store::Error::AlreadyExists { .. }) => {
                let there = self.store.get(&at).await.map_err(failed)?.bytes().await.map_err(failed)?;
                match there == bytes {
                    true => Ok(Taken::Before),
                    false => Err(EgressError::Ship { doing: "ship to the bucket", source: occupied(name) }),
                }
            }
            Err(error) => Err(failed(error)),
        }
    }
}

/// The library's requests, sent as the server's other calls are.
#[derive(Debug, Clone)]
struct ThroughTheProxy(ProxyClient);

impl HttpConnector for ThroughTheProxy {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait::async_trait]
impl HttpService for ThroughTheProxy {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (head, body) = request.into_parts();
        let outbound = OutboundRequest {
            method: head.method,
            url: head.uri.to_string(),
            headers: head.headers,
            body: collect(body).await?,
            credential: None,
        };
        let answer = self.0.send(outbound).await.map_err(|error| {
            let kind = if error.is_connect() { HttpErrorKind::Connect } else { HttpErrorKind::Request };
            HttpError::new(kind, error)
        })?;
        let mut response = http::Response::new(read_whole(answer.body).await?.into());
        *response.status_mut() = answer.status;
        *response.headers_mut() = answer.headers;
        Ok(response)
    }
}

/// Answers are short, but for a segment that is compared.
async fn read_whole(mut body: ByteStream) -> Result<Bytes, HttpError> {
    let mut whole = BytesMut::new();
    while let Some(piece) = body.next().await {
        whole.extend_from_slice(&piece.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error))?);
        if whole.len() as u64 > ANSWER_BYTES_MAX {
            return Err(HttpError::new(
                HttpErrorKind::Decode,
                io::Error::other("the bucket's answer has no end"),
            ));
        }
    }
    Ok(whole.freeze())
}

async fn collect(body: object_store::client::HttpRequestBody) -> Result<Bytes, HttpError> {
    let collected = http_body_util::BodyExt::collect(body).await;
    Ok(collected.map_err(|error| HttpError::new(HttpErrorKind::Request, error))?.to_bytes())
}
