//! Tunnels whose TLS the proxy opens: to the client it is the host, by the session's own authority, and each request in it is judged,
//! recorded and passed on by itself. A tunnel speaks to the one host that it was opened for.

use std::{net::IpAddr, sync::Arc, time::Instant};

use palisade_protocol::limits::EGRESS_REQUESTS_PER_CONNECTION_MAX;

use super::{
    Shared,
    connection::{self, Client},
    forward::{self, After},
    open::{Kept, Way},
};
use crate::{
    Destination, Host, Reason, Scheme, Stream,
    http::head::{Asked, parse_inner_request},
};

/// Serves the tunnel to its end; why it ended comes back. Nothing is said to the upstream before the first request is judged.
pub(super) async fn serve(
    shared: &Arc<Shared>,
    way: &Way,
    client: &mut Client,
    (upstream, address): (Stream, IpAddr),
) -> Reason {
    if let Err(reason) = open_tls(shared, way, client).await {
        return reason;
    }
    let destination = Destination { scheme: Scheme::Https, ..way.destination.clone() };
    let mut kept = Some(Kept { upstream, address, destination: destination.clone(), since: Instant::now() });
    for _ in 0..EGRESS_REQUESTS_PER_CONNECTION_MAX {
        let mut asked = Asked::default();
        let parse = |head: &[u8], asked: &mut Asked| parse_inner_request(head, asked, &destination);
        let read = tokio::select! {
            read = client.read_request(shared, &mut asked, parse) => read,
            reason = way.ended() => return reason,
            () = connection::ended(shared, &way.door) => return Reason::Shutdown,
        };
        match read {
            Ok(None) => {
                client.stream.finish_writing();
                return Reason::Done;
            }
            Ok(Some(request)) => {
                match Box::pin(forward::serve(shared, &way.door, client, request, &mut kept)).await {
                    After::Next => {}
                    After::End => {
                        client.stream.finish_writing();
                        return Reason::Done;
                    }
                    After::Cut => {
                        client.stream.cut_off();
                        return Reason::Done;
                    }
                }
            }
            Err(reason) => {
                connection::refuse(shared, &way.door, client, &asked, reason).await;
                return reason;
            }
        }
    }
    client.stream.finish_writing();
    Reason::Done
}

/// The session's programs trust its authority for this host, or they do not go on.
async fn open_tls(shared: &Shared, way: &Way, client: &mut Client) -> Result<(), Reason> {
    let (Some(authority), Host::Name(host)) = (&way.door.authority, &way.destination.host) else {
        return Err(Reason::InterceptionUnavailable);
    };
    let config = authority.server_config(host).map_err(|error| {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "no certificate could be made for a tunnel"
        );
        Reason::InterceptionUnavailable
    })?;
    let shaking = client.stream.start_tls_server(config, &mut client.buffer);
    match tokio::time::timeout(shared.settings.hello_timeout, shaking).await {
        Err(_) => Err(Reason::HelloTimeout),
        Ok(Err(_)) => Err(Reason::ClientTlsFailed),
        Ok(Ok(())) => Ok(()),
    }
}
