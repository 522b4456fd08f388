//! A request with an absolute target: passed on in our words over a connection of its own, its answer passed back in our words. One request at a
//! time; what is left in the client's buffer is the next request, and is judged as one.

use std::{
    pin::pin,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use bytes::BytesMut;
use palisade_protocol::limits::EGRESS_INTERIM_ANSWERS_MAX;

use super::{
    DoorState, Shared,
    connection::Client,
    open::{self, Opened, Way, open},
    tunnel,
};
use crate::{
    Reason, Stream,
    http::{
        answer::{Answer, Question, parse_answer},
        chunked::{Chunks, Extensions, Step},
        head::{Body, Forward},
        scan::HighBytes,
    },
};

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// How an exchange ended.
enum Ended {
    /// The client has its whole answer.
    Answered { status: u16, keep: bool },
    /// It became a WebSocket, which is over.
    Upgraded(Reason),
    /// The client has heard nothing yet.
    Refused(Reason),
    /// The client has a part of its answer.
    Broken { status: u16, reason: Reason },
}

/// Serves one request; whether another may follow on this connection comes back.
pub(super) async fn serve(
    shared: &Arc<Shared>,
    door: &Arc<DoorState>,
    client: &mut Client,
    request: Forward,
) -> bool {
    let asked =
        open::Request { destination: &request.destination, method: &request.method, path: &request.path };
    let Opened { upstream, way } = match open(shared, door, asked).await {
        Ok(opened) => opened,
        Err(reason) => {
            client.answer_refusal(reason).await;
            return false;
        }
    };
    let mut upstream = Client { stream: upstream, buffer: BytesMut::new() };
    let exchange = Exchange { shared, way: &way, request: &request };
    let ended = tokio::select! {
        ended = exchange.run(client, &mut upstream) => ended,
        reason = way.ended() => Ended::Broken { status: 0, reason },
    };
    match ended {
        Ended::Answered { status, keep } => {
            way.close(Reason::Done, Some(status)).await;
            keep
        }
        Ended::Upgraded(reason) => {
            tunnel::end(reason, &client.stream, &upstream.stream);
            way.close(reason, Some(101)).await;
            false
        }
        Ended::Refused(reason) => {
            upstream.stream.reset_on_close();
            drop(upstream);
            way.close(reason, Some(reason.status())).await;
            client.answer_refusal(reason).await;
            false
        }
        Ended::Broken { status, reason } => {
            tunnel::end(reason, &client.stream, &upstream.stream);
            way.close(reason, (status != 0).then_some(status)).await;
            false
        }
    }
}

struct Exchange<'e> {
    shared: &'e Shared,
    way: &'e Way,
    request: &'e Forward,
}

impl Exchange<'_> {
    async fn run(&self, client: &mut Client, upstream: &mut Client) -> Ended {
        if let Err(reason) = self.send_head(client, upstream).await {
            return Ended::Refused(reason);
        }
        let question = Question { head: self.request.method == "HEAD", websocket: self.request.websocket };
        let (answer, uploaded) = match self.exchange_until_answer(client, upstream, question).await {
            Ok(answered) => answered,
            Err(reason) => return Ended::Refused(reason),
        };
        let status = answer.status;
        let broken = |reason| Ended::Broken { status, reason };
        let keep = uploaded && !self.request.close && answer.body != Body::ToEnd && status != 101;
        let down = self.meter(
            &upstream.stream,
            &client.stream,
            &self.way.traffic.down,
            self.shared.settings.idle_timeout,
        );
        if let Err(reason) = down.write(&answer.render(!keep), Reason::ClientBroke).await {
            return broken(reason);
        }
        if status == 101 {
            return match down.write(&upstream.buffer, Reason::ClientBroke).await {
                Ok(()) => {
                    Ended::Upgraded(tunnel::pass(self.shared, self.way, client, &upstream.stream).await)
                }
                Err(reason) => broken(reason),
            };
        }
        let faults = Faults {
            malformed: Reason::AnswerMalformed,
            from: Reason::UpstreamBroke,
            to: Reason::ClientBroke,
        };
        let copy = down.copy_body(&mut upstream.buffer, answer.body, Extensions::Dropped, faults);
        match copy.await {
            Ok(()) => Ended::Answered { status, keep },
            Err(reason) => broken(reason),
        }
    }

    /// The head goes on only when the body, as far as it must be there, begins as one.
    async fn send_head(&self, client: &mut Client, upstream: &Client) -> Result<(), Reason> {
        if self.request.expects_continue {
            client.stream.write_all(CONTINUE).await.map_err(|_| Reason::ClientBroke)?;
        }
        if self.request.body == Body::Chunked {
            let mut first = Chunks::new(Extensions::Refused);
            while first.step(&client.buffer)? == Step::More {
                let read = client.stream.read_into(&mut client.buffer);
                match tokio::time::timeout(self.shared.settings.body_timeout, read).await {
                    Ok(Ok(count)) if count > 0 => {}
                    _ => return Err(Reason::BodyIncomplete),
                }
            }
        }
        let up = self.meter(
            &client.stream,
            &upstream.stream,
            &self.way.traffic.up,
            self.shared.settings.idle_timeout,
        );
        up.write(&self.request.render(), Reason::UpstreamBroke).await
    }

    /// Sends the body while it waits for the answer, which may come early. Whether the whole body went comes back with it.
    async fn exchange_until_answer(
        &self,
        client: &mut Client,
        upstream: &mut Client,
        question: Question,
    ) -> Result<(Answer, bool), Reason> {
        let Client { stream: upstream_stream, buffer: upstream_buffer } = upstream;
        let up = self.meter(
            &client.stream,
            upstream_stream,
            &self.way.traffic.up,
            self.shared.settings.body_timeout,
        );
        let faults = Faults {
            malformed: Reason::ChunkMalformed,
            from: Reason::BodyIncomplete,
            to: Reason::UpstreamBroke,
        };
        let mut upload =
            pin!(up.copy_body(&mut client.buffer, self.request.body, Extensions::Refused, faults));
        let answer = read_answer(upstream_stream, upstream_buffer, question);
        let mut answer = pin!(tokio::time::timeout(self.shared.settings.answer_timeout, answer));
        let (mut sending, mut uploaded) = (true, false);
        loop {
            tokio::select! {
                biased;
                sent = &mut upload, if sending => match sent {
                    Ok(()) => (sending, uploaded) = (false, true),
                    // It does not listen any more; it may still have said why.
                    Err(Reason::UpstreamBroke) => sending = false,
                    Err(reason) => return Err(reason),
                },
                answer = &mut answer => return Ok((answer.map_err(|_| Reason::AnswerTimeout)??, uploaded)),
            }
        }
    }

    fn meter<'m>(
        &'m self,
        from: &'m Stream,
        to: &'m Stream,
        passed: &'m AtomicU64,
        timeout: Duration,
    ) -> Meter<'m> {
        Meter { way: self.way, from, to, passed, timeout, idle: self.shared.settings.idle_timeout }
    }
}

/// Reads heads until one is the answer.
async fn read_answer(stream: &Stream, buffer: &mut BytesMut, question: Question) -> Result<Answer, Reason> {
    for _ in 0..=EGRESS_INTERIM_ANSWERS_MAX {
        let length = match super::connection::read_head(stream, buffer, HighBytes::Kept).await {
            Ok(Some(length)) => length,
            Ok(None) => return Err(Reason::UpstreamBroke),
            Err(_) => return Err(Reason::AnswerMalformed),
        };
        let head = buffer.split_to(length);
        let answer = parse_answer(&head, question)?;
        if !answer.is_interim() {
            return Ok(answer);
        }
    }
    Err(Reason::AnswerMalformed)
}

/// Bytes of one direction: counted, and within what the session has left.
struct Meter<'m> {
    way: &'m Way,
    from: &'m Stream,
    to: &'m Stream,
    passed: &'m AtomicU64,
    /// For the sender to go on.
    timeout: Duration,
    /// For the receiver to take it.
    idle: Duration,
}

/// What to call it when something is wrong.
#[derive(Clone, Copy)]
struct Faults {
    malformed: Reason,
    from: Reason,
    to: Reason,
}

impl Meter<'_> {
    async fn write(&self, bytes: &[u8], broke: Reason) -> Result<(), Reason> {
        let granted = self.way.door.usage.take_bytes(bytes.len());
        let written = self.to.write_counted(&bytes[..granted], self.passed);
        match tokio::time::timeout(self.idle, written).await {
            Err(_) => Err(Reason::IdleTimeout),
            Ok(Err(_)) => Err(broke),
            Ok(Ok(())) if granted < bytes.len() => Err(Reason::SessionBytes),
            Ok(Ok(())) => Ok(()),
        }
    }

    async fn fill(&self, buffer: &mut BytesMut, faults: Faults) -> Result<usize, Reason> {
        match tokio::time::timeout(self.timeout, self.from.read_into(buffer)).await {
            Ok(Ok(count)) => Ok(count),
            Ok(Err(_)) | Err(_) => Err(faults.from),
        }
    }

    /// Passes one body on, from the buffer first, and leaves what comes after it there.
    async fn copy_body(
        &self,
        buffer: &mut BytesMut,
        body: Body,
        extensions: Extensions,
        faults: Faults,
    ) -> Result<(), Reason> {
        match body {
            Body::None => Ok(()),
            Body::Length(length) => self.copy_length(buffer, length, faults).await,
            Body::Chunked => self.copy_chunks(buffer, extensions, faults).await,
            Body::ToEnd => loop {
                self.write(&buffer.split(), faults.to).await?;
                if self.fill(buffer, faults).await? == 0 {
                    return Ok(());
                }
            },
        }
    }

    async fn copy_length(&self, buffer: &mut BytesMut, mut left: u64, faults: Faults) -> Result<(), Reason> {
        loop {
            let count = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            self.write(&buffer.split_to(count), faults.to).await?;
            left -= count as u64;
            if left == 0 {
                return Ok(());
            }
            if self.fill(buffer, faults).await? == 0 {
                return Err(faults.from);
            }
        }
    }

    async fn copy_chunks(
        &self,
        buffer: &mut BytesMut,
        extensions: Extensions,
        faults: Faults,
    ) -> Result<(), Reason> {
        let mut chunks = Chunks::new(extensions);
        loop {
            match chunks.step(buffer).map_err(|_| faults.malformed)? {
                Step::Skip(count) => drop(buffer.split_to(count)),
                Step::Data(count) => {
                    let data = buffer.split_to(count);
                    let mut chunk = format!("{count:x}\r\n").into_bytes();
                    chunk.extend_from_slice(&data);
                    chunk.extend_from_slice(b"\r\n");
                    self.write(&chunk, faults.to).await?;
                }
                Step::Done => return self.write(b"0\r\n\r\n", faults.to).await,
                Step::More => {
                    if self.fill(buffer, faults).await? == 0 {
                        return Err(faults.from);
                    }
                }
            }
        }
    }
}
