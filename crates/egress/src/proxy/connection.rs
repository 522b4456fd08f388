//! A client's connection from its first byte to its last: heads are read one after the other, each is judged by itself, and what is refused ends
//! the connection.

use std::{io, sync::Arc, time::Duration};

use bytes::BytesMut;
use palisade_protocol::limits::{EGRESS_HEAD_BYTES_MAX, EGRESS_REQUESTS_PER_CONNECTION_MAX};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    DoorState, Shared,
    forward::{self, After},
    tunnel,
    usage::{Place, TenantPlace, Tenants, Usage},
};
use crate::{
    Kind, Reason, Record, Stream,
    http::{
        head::{Asked, Request, parse_request, quote},
        refusal,
        scan::HeadScan,
    },
};

/// How long a refused client may take to hear why.
const LINGER: Duration = Duration::from_secs(1);
/// What is read of a refused client meanwhile, so that the answer is not lost to a reset.
const LINGER_BYTES_MAX: usize = 256 * 1024;

/// The client's leg: its stream, and what was read of it and not used yet.
pub(super) struct Client {
    pub(super) stream: Stream,
    pub(super) buffer: BytesMut,
}

/// Serves a connection to its end.
pub(super) async fn serve(shared: Arc<Shared>, door: Arc<DoorState>, stream: Stream) {
    serve_client(shared, door, Client::new(stream)).await;
}

/// The same, of which something may have been read.
pub(super) async fn serve_client(shared: Arc<Shared>, door: Arc<DoorState>, mut client: Client) {
    let _places = match take_places(&shared, &door) {
        Ok(places) => places,
        Err(reason) => return refuse(&shared, &door, &mut client, &Asked::default(), reason).await,
    };
    let mut kept = None;
    for _ in 0..EGRESS_REQUESTS_PER_CONNECTION_MAX {
        let mut asked = Asked::default();
        let read = tokio::select! {
            read = client.read_request(&shared, &mut asked, parse_request) => read,
            () = ended(&shared, &door) => return,
        };
        // Boxed: most connections are idle most of the time, and a future is as large as its largest branch.
        match read {
            Ok(None) => return,
            Ok(Some(Request::Connect(destination))) => {
                return Box::pin(tunnel::serve(&shared, &door, &mut client, destination)).await;
            }
            Ok(Some(Request::Forward(request))) => {
                let served = forward::serve(&shared, &door, &mut client, *request, &mut kept);
                if Box::pin(served).await != After::Next {
                    return;
                }
            }
            Err(reason) => return Box::pin(refuse(&shared, &door, &mut client, &asked, reason)).await,
        }
    }
}

/// A connection's place among its session's, its tenant's and the proxy's. What the server itself asks for needs none of
/// the proxy's: sessions cannot stand in the way of the models.
fn take_places(
    shared: &Shared,
    door: &DoorState,
) -> Result<(Place, Option<TenantPlace>, Option<OwnedSemaphorePermit>), Reason> {
    let place = Usage::take_place(&door.usage)?;
    let Some(of_tenant) = Tenants::take_place(&shared.tenants, &door.principal)? else {
        return Ok((place, None, None));
    };
    let of_all = shared.places.clone().try_acquire_owned().map_err(|_| Reason::ProxyConnections)?;
    Ok((place, Some(of_tenant), Some(of_all)))
}

/// Waits until connections that ask for nothing are not kept any longer.
pub(super) async fn ended(shared: &Shared, door: &DoorState) {
    tokio::select! {
        () = door.closed.cancelled() => {}
        () = shared.stopping.cancelled() => {}
    }
}

/// Records a request that was not understood or may not be made, and says why.
pub(super) async fn refuse(
    shared: &Shared,
    door: &DoorState,
    client: &mut Client,
    asked: &Asked,
    reason: Reason,
) {
    let record = Record::new(Kind::Refused, shared.connection_id(), Some(&door.principal));
    let reason = shared.record_refusal(record.asked(&asked.method, &asked.target), reason).await;
    client.answer_refusal(reason).await;
}

impl Client {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, buffer: BytesMut::new() }
    }

    /// The next request, as `parse` reads it; `None` if the client has none.
    pub(super) async fn read_request<T>(
        &mut self,
        shared: &Shared,
        asked: &mut Asked,
        parse: impl FnOnce(&[u8], &mut Asked) -> Result<T, Reason>,
    ) -> Result<Option<T>, Reason> {
        if self.buffer.is_empty() {
            let first = self.stream.read_into(&mut self.buffer);
            match tokio::time::timeout(shared.settings.keep_alive_timeout, first).await {
                Ok(Ok(count)) if count > 0 => {}
                _ => return Ok(None),
            }
        }
        let head = read_head(&self.stream, &mut self.buffer);
        let outcome = tokio::time::timeout(shared.settings.head_timeout, head).await;
        let length = match outcome.unwrap_or(Err(Reason::HeadTimeout)) {
            Ok(None) => return Ok(None),
            Ok(Some(length)) => length,
            Err(reason) => {
                quote(&self.buffer, asked);
                return Err(reason);
            }
        };
        let head = self.buffer.split_to(length);
        parse(&head, asked).map(Some)
    }

    /// A line without its end. None: whoever sends it is gone, or it is too long, or no text. Nothing is lost where this is cancelled.
    pub(super) async fn read_line(&mut self, bytes_max: usize) -> Option<String> {
        let mut looked = 0;
        loop {
            if let Some(at) = memchr::memmem::find(&self.buffer[looked..], b"\r\n") {
                let line = self.buffer.split_to(looked + at + 2);
                return String::from_utf8(line[..looked + at].to_vec()).ok();
            }
            if self.buffer.len() > bytes_max {
                return None;
            }
            looked = self.buffer.len().saturating_sub(1);
            match self.stream.read_into(&mut self.buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// Says why, and lets the client hear it.
    pub(super) async fn answer_refusal(&mut self, reason: Reason) {
        let told = async {
            self.stream.write_all(&refusal::render(reason)).await?;
            self.stream.finish_writing();
            let mut read = 0;
            while read < LINGER_BYTES_MAX {
                self.buffer.clear();
                match self.stream.read_into(&mut self.buffer).await? {
                    0 => break,
                    count => read += count,
                }
            }
            io::Result::Ok(())
        };
        // It was refused in any case.
        let _ = tokio::time::timeout(LINGER, told).await;
    }
}

/// Returns when a client is gone that waits for its answer. Only for the server's own calls: others may rightly have said all they had
/// to say.
pub(super) async fn gone(stream: &Stream, buffer: &mut BytesMut) {
    if buffer.is_empty() && matches!(stream.read_into(buffer).await, Ok(0) | Err(_)) {
        return;
    }
    std::future::pending().await
}

/// Reads up to the end of a head. `None`: whoever sends it is gone.
pub(super) async fn read_head(stream: &Stream, buffer: &mut BytesMut) -> Result<Option<usize>, Reason> {
    let mut scan = HeadScan::default();
    loop {
        match scan.advance(buffer)? {
            Some(length) if length > EGRESS_HEAD_BYTES_MAX => return Err(Reason::HeadTooLarge),
            None if buffer.len() > EGRESS_HEAD_BYTES_MAX => return Err(Reason::HeadTooLarge),
            Some(length) => return Ok(Some(length)),
            None => {}
        }
        match stream.read_into(buffer).await {
            Ok(0) | Err(_) => return Ok(None),
            Ok(_) => {}
        }
    }
}
