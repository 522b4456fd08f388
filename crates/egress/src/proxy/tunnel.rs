//! CONNECT: the way is opened, the client is told, and then its first bytes must be a ClientHello for the very host that it named. Nothing
//! of the client's reaches the upstream before. What is not opened here for its requests is passed on as it is.

use std::sync::Arc;

use palisade_protocol::limits::EGRESS_HELLO_BYTES_MAX;

use super::{
    DoorState, Shared,
    connection::Client,
    intercept,
    open::{Opened, Request, Way, open},
    relay::relay,
};
use crate::{ClientHello, Destination, Host, Reason, Stream, parse_client_hello};

const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

/// Serves one tunnel to its end.
pub(super) async fn serve(
    shared: &Arc<Shared>,
    door: &Arc<DoorState>,
    client: &mut Client,
    destination: Destination,
) {
    let request = Request { destination: &destination, method: "CONNECT", path: "" };
    let Opened { upstream, address, mut way } = match open(shared, door, request, None, |_| Ok(None)).await {
        Ok(opened) => opened,
        Err(reason) => return client.answer_refusal(reason).await,
    };
    match begin(shared, &mut way, client).await {
        Ok(()) if way.grant.intercept => {
            let reason = intercept::serve(shared, &way, client, (upstream, address)).await;
            if reason != Reason::Done {
                client.stream.reset_on_close();
            }
            way.close(reason, Some(200)).await;
        }
        Ok(()) => {
            let reason = tokio::select! {
                reason = pass(shared, &way, client, &upstream) => reason,
                reason = way.ended() => reason,
            };
            end(reason, &client.stream, &upstream);
            way.close(reason, Some(200)).await;
        }
        Err(reason) if reason == Reason::NotTls && speaks_http(&client.buffer) => {
            upstream.reset_on_close();
            way.close(reason, Some(200)).await;
            // It takes this for the host's answer, and shows it.
            client.answer_refusal(reason).await;
        }
        Err(reason) => {
            end(reason, &client.stream, &upstream);
            way.close(reason, Some(200)).await;
        }
    }
}

/// Whether these bytes begin a request: some programs open tunnels for `http://` and `ws://`, too.
fn speaks_http(first: &[u8]) -> bool {
    let line = first.split(|&byte| byte == b'\r').next().unwrap_or_default();
    line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0")
}

/// Tells the client, and waits for a hello that may pass.
async fn begin(shared: &Shared, way: &mut Way, client: &mut Client) -> Result<(), Reason> {
    client.stream.write_all(ESTABLISHED).await.map_err(|_| Reason::ClientBroke)?;
    if way.grant.raw && !way.grant.intercept {
        return Ok(());
    }
    let hello = tokio::select! {
        hello = tokio::time::timeout(shared.settings.hello_timeout, read_hello(client)) => {
            hello.map_err(|_| Reason::HelloTimeout)??
        }
        reason = way.ended() => return Err(reason),
    };
    if let Some(name) = &hello.server_name {
        way.saw_server_name(name.to_string());
    }
    check_hello(&hello, &way.destination, way.grant.allow_ech)
}

async fn read_hello(client: &mut Client) -> Result<ClientHello, Reason> {
    loop {
        if let Some(hello) = parse_client_hello(&client.buffer)? {
            return Ok(hello);
        }
        if client.buffer.len() > EGRESS_HELLO_BYTES_MAX {
            return Err(Reason::HelloMalformed);
        }
        match client.stream.read_into(&mut client.buffer).await {
            Ok(0) | Err(_) => return Err(Reason::ClientBroke),
            Ok(_) => {}
        }
    }
}

/// The name in the hello is the host of the tunnel. A tunnel to an address has no name, and a hello without one.
fn check_hello(hello: &ClientHello, destination: &Destination, allow_ech: bool) -> Result<(), Reason> {
    match (&destination.host, &hello.server_name) {
        _ if hello.ech && !allow_ech => Err(Reason::EchRefused),
        (Host::Name(host), Some(name)) if host == name => Ok(()),
        (Host::Ip(_), None) => Ok(()),
        (Host::Name(_), None) => Err(Reason::SniMissing),
        (_, Some(_)) => Err(Reason::SniMismatch),
    }
}

/// What the client sent already goes first.
pub(super) async fn pass(shared: &Shared, way: &Way, client: &mut Client, upstream: &Stream) -> Reason {
    let first = std::mem::take(&mut client.buffer);
    let granted = way.door.usage.take_bytes(first.len());
    let written = upstream.write_counted(&first[..granted], &way.traffic.up);
    match tokio::time::timeout(shared.settings.idle_timeout, written).await {
        Err(_) => return Reason::IdleTimeout,
        Ok(Err(_)) => return Reason::UpstreamBroke,
        Ok(Ok(())) if granted < first.len() => return Reason::SessionBytes,
        Ok(Ok(())) => drop(first),
    }
    relay(shared, way, &client.stream, upstream).await
}

/// What was cut off ends in a reset; what ended, or was counted to its last byte, in an end.
pub(super) fn end(reason: Reason, client: &Stream, upstream: &Stream) {
    if !matches!(reason, Reason::Done | Reason::SessionBytes) {
        client.reset_on_close();
        upstream.reset_on_close();
    }
}
