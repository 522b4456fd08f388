//! A client's connection from its first byte to its last: heads are read one after the other, each is judged by itself, and what is refused ends
//! the connection.

use std::{io, sync::Arc, time::Duration};

use bytes::BytesMut;
use palisade_protocol::limits::{EGRESS_HEAD_BYTES_MAX, EGRESS_REQUESTS_PER_CONNECTION_MAX};

use super::{
    DoorState, Shared, Who, forward, tunnel,
    usage::{Place, Usage},
};
use crate::{
    Kind, Reason, Record, Stream,
    http::{
        head::{Asked, Request, parse_request, quote},
        refusal,
        scan::{HeadScan, HighBytes},
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
pub(super) async fn serve(shared: Arc<Shared>, who: Who, stream: Stream) {
    let mut client = Client { stream, buffer: BytesMut::new() };
    let mut seat = None;
    let taken = match &who {
        Who::Door(door) => Usage::take_place(door).map(|place| seat = Some((door.clone(), place))),
        Who::Tokens(..) => Ok(()),
    };
    let place = shared.places.clone().try_acquire_owned().map_err(|_| Reason::ProxyConnections);
    if let Err(reason) = taken.and(place.as_ref().map(|_| ()).map_err(|reason| *reason)) {
        return refuse(&shared, &who, &mut client, &Asked::default(), reason).await;
    }
    for _ in 0..EGRESS_REQUESTS_PER_CONNECTION_MAX {
        let mut asked = Asked::default();
        let read = tokio::select! {
            read = client.read_request(&shared, &mut asked) => read,
            () = ended(&shared, &who) => return,
        };
        let request = match read {
            Ok(None) => return,
            Ok(Some(request)) => identify(&who, &mut seat, &asked).map(|door| (door, request)),
            Err(reason) => Err(reason),
        };
        // Boxed: most connections are idle most of the time, and a future is as large as its largest branch.
        match request {
            Ok((door, Request::Connect(destination))) => {
                return Box::pin(tunnel::serve(&shared, &door, &mut client, destination)).await;
            }
            Ok((door, Request::Forward(request))) => {
                if !Box::pin(forward::serve(&shared, &door, &mut client, *request)).await {
                    return;
                }
            }
            Err(reason) => return Box::pin(refuse(&shared, &who, &mut client, &asked, reason)).await,
        }
    }
}

/// Waits until connections that ask for nothing are not kept any longer.
async fn ended(shared: &Shared, who: &Who) {
    match who {
        Who::Door(door) => tokio::select! {
            () = door.closed.cancelled() => {}
            () = shared.stopping.cancelled() => {}
        },
        Who::Tokens(..) => shared.stopping.cancelled().await,
    }
}

/// Whose request it is. A connection stays with the principal that it began with.
fn identify(
    who: &Who,
    seat: &mut Option<(Arc<DoorState>, Place)>,
    asked: &Asked,
) -> Result<Arc<DoorState>, Reason> {
    let door = match who {
        Who::Door(door) => return Ok(door.clone()),
        Who::Tokens(tokens, peer) => tokens.identify(asked, *peer)?,
    };
    match seat {
        Some((seated, _)) if !Arc::ptr_eq(seated, &door) => return Err(Reason::TokenRefused),
        Some(_) => {}
        None => *seat = Some((door.clone(), Usage::take_place(&door)?)),
    }
    Ok(door)
}

/// Records a request that was not understood or may not be made, and says why.
async fn refuse(shared: &Shared, who: &Who, client: &mut Client, asked: &Asked, reason: Reason) {
    let principal = match who {
        Who::Door(door) => Some(&door.principal),
        Who::Tokens(..) => None,
    };
    let record =
        Record::new(Kind::Refused, shared.connection_id(), principal).asked(&asked.method, &asked.target);
    let reason = shared.record_refusal(record, reason).await;
    client.answer_refusal(reason).await;
}

impl Client {
    /// The next request; `None` if the client has none.
    async fn read_request(&mut self, shared: &Shared, asked: &mut Asked) -> Result<Option<Request>, Reason> {
        if self.buffer.is_empty() {
            let first = self.stream.read_into(&mut self.buffer);
            match tokio::time::timeout(shared.settings.keep_alive_timeout, first).await {
                Ok(Ok(count)) if count > 0 => {}
                _ => return Ok(None),
            }
        }
        let head = read_head(&self.stream, &mut self.buffer, HighBytes::Refused);
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
        parse_request(&head, asked).map(Some)
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

/// Reads up to the end of a head. `None`: whoever sends it is gone.
pub(super) async fn read_head(
    stream: &Stream,
    buffer: &mut BytesMut,
    high: HighBytes,
) -> Result<Option<usize>, Reason> {
    let mut scan = HeadScan::default();
    loop {
        match scan.advance(buffer, high)? {
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
