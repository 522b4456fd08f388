//! Bytes of one direction of a request: its body taken from one leg and written to the other, counted, within what the session has left,
//! in our framing, and looked through where there is something to look for.

use std::{io, sync::atomic::AtomicU64, time::Duration};

use bytes::BytesMut;

use super::open::Way;
use crate::{
    Reason, Stream,
    http::{
        chunked::{Chunks, Extensions, Step},
        head::Body,
    },
    inject::PlaceholderScan,
    scrub::{Wash, WashFault},
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
    /// It ended early.
    pub(super) ended: Reason,
    pub(super) from: Reason,
    pub(super) to: Reason,
}

/// A body as it comes, and as it goes on.
#[derive(Clone, Copy)]
pub(super) struct Passage {
    pub(super) comes: Body,
    pub(super) goes: Body,
    pub(super) extensions: Extensions,
    pub(super) faults: Faults,
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
            // TLS that does not say that it ends was cut off.
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Err(faults.ended),
            Ok(Err(_)) | Err(_) => Err(faults.from),
        }
    }

    /// Passes one body on, from the buffer first, and leaves what comes after it there.
    pub(super) async fn copy_body(
        &self,
        buffer: &mut BytesMut,
        passage: Passage,
        look: &mut Look,
    ) -> Result<(), Reason> {
        let faults = passage.faults;
        let mut pieces = match passage.comes {
            Body::None => return Ok(()),
            Body::Length(left) => Pieces::Length(left),
            Body::Chunked => Pieces::Chunked(Chunks::new(passage.extensions)),
            Body::ToEnd => Pieces::ToEnd,
        };
        let mut passed = 0;
        while let Some(piece) = self.next_piece(&mut pieces, buffer, faults).await? {
            passed += self.pass_on(&look.at(piece)?, passage).await?;
        }
        passed += self.pass_on(&look.finish()?, passage).await?;
        match passage.goes {
            Body::Chunked => self.write(b"0\r\n\r\n", faults.to).await,
            // A part of which less came than its head says.
            Body::Length(length) if passed < length => Err(faults.ended),
            _ => Ok(()),
        }
    }

    async fn pass_on(&self, bytes: &[u8], passage: Passage) -> Result<u64, Reason> {
        match passage.goes {
            _ if bytes.is_empty() => {}
            Body::Chunked => self.write(&chunk(bytes), passage.faults.to).await?,
            _ => self.write(bytes, passage.faults.to).await?,
        }
        Ok(bytes.len() as u64)
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
                return if missing_is_fine { Ok(None) } else { Err(faults.ended) };
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
    /// Secrets, which are taken out, and of what is clear then the part that the client wanted.
    Wash(Box<Wash>, Window),
}

/// What of a body goes on.
pub(super) struct Window {
    pub(super) skip: u64,
    pub(super) take: u64,
}

impl Window {
    /// The whole.
    pub(super) const ALL: Self = Self { skip: 0, take: u64::MAX };

    /// What of the next bytes is in it.
    fn of(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        let skipped = bytes.len().min(usize::try_from(self.skip).unwrap_or(usize::MAX));
        bytes.drain(..skipped);
        self.skip -= skipped as u64;
        bytes.truncate(usize::try_from(self.take).unwrap_or(usize::MAX));
        self.take -= bytes.len() as u64;
        bytes
    }
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
            Self::Wash(wash, window) => {
                let clean = window.of(wash.push(&piece).map_err(Reason::from)?);
                Ok(BytesMut::from(&clean[..]))
            }
        }
    }

    fn finish(&mut self) -> Result<Vec<u8>, Reason> {
        match self {
            Self::Nowhere | Self::Placeholders(_) => Ok(Vec::new()),
            Self::Wash(wash, window) => Ok(window.of(wash.finish().map_err(Reason::from)?)),
        }
    }
}

impl From<WashFault> for Reason {
    fn from(fault: WashFault) -> Self {
        match fault {
            WashFault::Undecodable => Self::AnswerUndecodable,
            WashFault::HoldsSecret => Self::AnswerHoldsSecret,
        }
    }
}
