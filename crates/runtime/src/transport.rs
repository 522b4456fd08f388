//! Gives `inference` and the vault their way out: the ports they declare, filled with the egress client.

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method};
use palisade_egress::{Door, EgressError, OutboundRequest, ProxyClient};
use palisade_inference::{Transport, TransportError, TransportFault, UpstreamCall, UpstreamResponse};
use palisade_vault::ExposeSecret as _;

use crate::vault::{ANSWER_BYTES_MAX, FormPost, ServiceCalls, ServiceFault};

/// Sends model calls through the egress proxy, which alone knows the keys.
pub struct ProxyTransport {
    client: ProxyClient,
}

impl ProxyTransport {
    /// Through the router's door.
    pub fn new(door: Door) -> Self {
        Self { client: ProxyClient::new(door) }
    }
}

impl Transport for ProxyTransport {
    fn send(&self, call: UpstreamCall) -> BoxFuture<'static, Result<UpstreamResponse, TransportError>> {
        let client = self.client.clone();
        async move {
            let request = OutboundRequest {
                method: Method::POST,
                url: call.url,
                headers: call.headers,
                body: call.body,
                credential: call.credential.map(|credential| credential.name().to_owned()),
            };
            let response = client.send(request).await.map_err(told)?;
            let body = response.body.map(|chunk| chunk.map_err(told)).boxed();
            Ok(UpstreamResponse { status: response.status, headers: response.headers, body })
        }
        .boxed()
    }
}

/// Sends the server's own calls through the egress proxy.
pub struct ProxyServiceCalls {
    client: ProxyClient,
}

impl ProxyServiceCalls {
    /// Through the services' door.
    pub fn new(door: Door) -> Self {
        Self { client: ProxyClient::new(door) }
    }
}

impl ServiceCalls for ProxyServiceCalls {
    fn post_form(&self, call: FormPost) -> BoxFuture<'static, Result<(u16, Bytes), ServiceFault>> {
        let client = self.client.clone();
        async move {
            let response =
                client.send(request_of(&call)?).await.map_err(|error| ServiceFault(error.into()))?;
            let (status, mut body) = (response.status.as_u16(), response.body);
            let mut answer = BytesMut::new();
            while let Some(chunk) = body.next().await {
                answer.extend_from_slice(&chunk.map_err(|error| ServiceFault(error.into()))?);
                if answer.len() > ANSWER_BYTES_MAX {
                    return Err(ServiceFault("the answer is too long".into()));
                }
            }
            Ok((status, answer.freeze()))
        }
        .boxed()
    }
}

fn request_of(call: &FormPost) -> Result<OutboundRequest, ServiceFault> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    for (name, value) in &call.headers {
        // The error would name the value's place, and the value is a secret.
        let mut value = HeaderValue::from_str(value.expose_secret())
            .map_err(|_| ServiceFault("a header field is not one".into()))?;
        value.set_sensitive(true);
        headers.insert(*name, value);
    }
    let body = Bytes::copy_from_slice(call.body().expose_secret().as_bytes());
    Ok(OutboundRequest { method: Method::POST, url: call.url.clone(), headers, body, credential: None })
}

fn told(error: EgressError) -> TransportError {
    let fault = match &error {
        _ if error.is_connect() => TransportFault::Connect,
        EgressError::Answer { .. } => TransportFault::BadAnswer,
        EgressError::Send { .. } | EgressError::Body { .. } => TransportFault::Broken,
        _ => TransportFault::Unsendable,
    };
    let reason = error.reason();
    let told = TransportError::new(fault, error);
    match reason {
        Some(reason) => told.because(reason.why()),
        None => told,
    }
}
