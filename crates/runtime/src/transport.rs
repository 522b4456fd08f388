//! Gives `inference` its way out: the port it declares, filled with the egress client.

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _};
use http::Method;
use palisade_egress::{Door, EgressError, OutboundRequest, ProxyClient};
use palisade_inference::{Transport, TransportError, TransportFault, UpstreamCall, UpstreamResponse};

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

fn told(error: EgressError) -> TransportError {
    let fault = match &error {
        _ if error.is_connect() => TransportFault::Connect,
        EgressError::Send { .. } | EgressError::Body { .. } => TransportFault::Broken,
        _ => TransportFault::Unsendable,
    };
    TransportError::new(fault, error)
}
