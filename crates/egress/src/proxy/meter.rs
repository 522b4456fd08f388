//! Bytes of one direction of a request: its body taken from one leg and written to the other, counted, within what the session has left,
//! in our framing, and looked through where there is something to look for.

use std::{sync::atomic::AtomicU64, time::Duration};

use bytes::BytesMut;

use super::open::Way;
use crate::{
    Reason, Stream,
    http::{
        chunked::{Chunks, Extensions, Step},
        head::Body,
    },
    inject::PlaceholderScan,
    scrub::Wash,
};

/// Bytes of one direction: counted, and within what the session has left.
pub(super) struct Meter<'m> {
    pub(super) way: &'m Way,
    pub(super) from: &'m Stream,
    pub(super) to: &'m Stream,
    pub(super) passed: &'m AtomicU64,
    /// For the sender to go on.
    pub(super) timeout: Duration,
    /// For the receiver to take it.
    pub(super) idle: Duration,
}

/// What to call it when something is wrong.
#[derive(Clone, Copy)]
pub(super) struct Faults {
    pub(super) malformed: Reason,
    pub(super) from: Reason,
    pub(super) to: Reason,
}

impl Meter<'_> {
    pub(super) async fn write(&self, bytes: &[u8], broke: Reason) -> Result<(), Reason> {
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
    pub(super) async fn copy_body(
        &self,
        buffer: &mut BytesMut,
        body: Body,
        extensions: Extensions,
        faults: Faults,
        look: &mut Look,
    ) -> Result<(), Reason> {
        let mut pieces = match body {
            Body::None => return Ok(()),
            Body::Length(left) => Pieces::Length(left),
            Body::Chunked => Pieces::Chunked(Chunks::new(extensions)),
            Body::ToEnd => Pieces::ToEnd,
        };
        let is_chunked = matches!(body, Body::Chunked) || matches!(look, Look::Wash(_));
        while let Some(piece) = self.next_piece(&mut pieces, buffer, faults).await? {
            match look.at(piece)? {
                piece if piece.is_empty() => {}
                piece if is_chunked => self.write(&chunk(&piece), faults.to).await?,
                piece => self.write(&piece, faults.to).await?,
            }
        }
        let rest = look.finish()?;
        if !rest.is_empty() {
            self.write(&chunk(&rest), faults.to).await?;
        }
        if is_chunked { self.write(b"0\r\n\r\n", faults.to).await } else { Ok(()) }
    }

    /// What has come of the body, framing off; `None` at its end.
    async fn next_piece(
        &self,
        pieces: &mut Pieces,
        buffer: &mut BytesMut,
        faults: Faults,
    ) -> Result<Option<BytesMut>, Reason> {
        loop {
            let (missing_is_fine, taken) = match pieces {
                Pieces::Length(0) => return Ok(None),
                Pieces::Length(left) => {
                    let count = buffer.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= count as u64;
                    (false, count)
                }
                Pieces::Chunked(chunks) => match chunks.step(buffer).map_err(|_| faults.malformed)? {
                    Step::Done => return Ok(None),
                    Step::More => (false, 0),
                    Step::Data(count) => (false, count),
                    Step::Skip(count) => {
                        drop(buffer.split_to(count));
                        continue;
                    }
                },
                Pieces::ToEnd => (true, buffer.len()),
            };
            if taken > 0 {
                return Ok(Some(buffer.split_to(taken)));
            }
            if self.fill(buffer, faults).await? == 0 {
                return if missing_is_fine { Ok(None) } else { Err(faults.from) };
            }
        }
    }
}

/// Where in a body it is.
enum Pieces {
    Length(u64),
    Chunked(Chunks),
    ToEnd,
}

fn chunk(data: &[u8]) -> Vec<u8> {
    let mut chunk = format!("{:x}\r\n", data.len()).into_bytes();
    chunk.extend_from_slice(data);
    chunk.extend_from_slice(b"\r\n");
    chunk
}

/// What is looked for in a body.
pub(super) enum Look {
    /// Nothing.
    Nowhere,
    /// Placeholders, which have no business in one.
    Placeholders(PlaceholderScan),
    /// A secret, which is taken out. The body goes on chunked.
    Wash(Box<Wash>),
}

impl Look {
    /// The piece as it goes on.
    fn at(&mut self, piece: BytesMut) -> Result<BytesMut, Reason> {
        match self {
            Self::Nowhere => Ok(piece),
            Self::Placeholders(scan) => match scan.finds(&piece) {
                true => Err(Reason::PlaceholderMisplaced),
                false => Ok(piece),
            },
            Self::Wash(wash) => {
                wash.push(&piece).map(|clean| BytesMut::from(&clean[..])).map_err(|_| Reason::AnswerMalformed)
            }
        }
    }

    fn finish(&mut self) -> Result<Vec<u8>, Reason> {
        match self {
            Self::Nowhere | Self::Placeholders(_) => Ok(Vec::new()),
            Self::Wash(wash) => wash.finish().map_err(|_| Reason::AnswerMalformed),
        }
    }
}
