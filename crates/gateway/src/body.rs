//! Reading bodies: within the bound of their endpoint, at the pace of an honest client, and with memory that grows with what
//! has come and is counted for the tenant. Whatever is wrong is said in the contract's shape.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use palisade_protocol::{Error, ErrorKind, limits};
use tokio::time::Instant;

use crate::admission::{BodyMemory, Visit};
use crate::error::ApiError;
use crate::extract::malformed;
use crate::json_bounds::{JsonBounds, TooMuch};

/// How much of a refused body is still read, in bytes: an upload somewhat over the default limit sees its 413.
const DISCARD_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// And for how long.
const DISCARD_MAX: Duration = Duration::from_secs(30);

/// How long a client may let us wait.
#[derive(Clone, Copy)]
struct Pace {
    silence: Duration,
    /// In all, before what has come is looked at.
    grace: Duration,
    bytes_per_s: u64,
}

const PACE: Pace = Pace {
    silence: Duration::from_secs(limits::REQUEST_BODY_SILENCE_MAX_S),
    grace: Duration::from_secs(limits::REQUEST_BODY_GRACE_S),
    bytes_per_s: limits::REQUEST_BODY_BYTES_PER_S_MIN,
};

/// A body that is read piece by piece.
pub(crate) struct BodyReader {
    body: Body,
    pace: Pace,
    received: u64,
    waited: Duration,
}

impl BodyReader {
    pub(crate) fn new(body: Body) -> Self {
        Self { body, pace: PACE, received: 0, waited: Duration::ZERO }
    }

    /// The next piece; `None` at the end. A client that falls silent is given up, and so is one that is too slow; time in which
    /// nobody asks for the next piece does not count.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        loop {
            let earned = Duration::from_secs(self.received / self.pace.bytes_per_s);
            let left = (self.pace.grace + earned).saturating_sub(self.waited).min(self.pace.silence);
            let asked = Instant::now();
            let frame = tokio::time::timeout(left, self.body.frame()).await;
            self.waited += asked.elapsed();
            let Ok(frame) = frame else { return Err(stalled(left)) };
            match frame.map(|frame| frame.map(hyper::body::Frame::into_data)) {
                None => return Ok(None),
                Some(Ok(Ok(chunk))) => {
                    self.received += chunk.len() as u64;
                    return Ok(Some(chunk));
                }
                // Trailers say nothing to us.
                Some(Ok(Err(_))) => {}
                Some(Err(_)) => {
                    let message = "the body broke off; nothing was done".to_owned();
                    return Err(malformed("request.unread", message));
                }
            }
        }
    }

    /// Reads on for a while and keeps nothing: a client that is still sending would not see why it was refused.
    pub(crate) async fn discard(mut self) {
        let until = self.received + DISCARD_BYTES_MAX;
        let reading = async { while self.received < until && matches!(self.next().await, Ok(Some(_))) {} };
        let _ = tokio::time::timeout(DISCARD_MAX, reading).await;
    }
}

fn stalled(waited: Duration) -> ApiError {
    let message =
        format!("the body came too slowly: nothing of it in {} s, so it was given up", waited.as_secs());
    malformed("request.stalled", message)
}

/// Memory for the body of this request; none is counted where nobody else could ask for it (the operator's socket).
pub(crate) fn memory_of(request: &Request) -> Option<BodyMemory> {
    request.extensions().get::<Arc<Visit>>()?.body_memory()
}

/// A JSON body as bytes, at most so many of them, and neither deeper nor wider than any may be. What it takes of the memory, a
/// tree of it included, is counted until the request is done.
pub(crate) async fn read_json(request: Request, bytes_max: usize) -> Result<Vec<u8>, ApiError> {
    let (visit, memory) = (request.extensions().get::<Arc<Visit>>().cloned(), memory_of(&request));
    let length =
        request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let is_asking_first = request.headers().contains_key(header::EXPECT);
    let mut gathered =
        Gathered { bytes: Vec::new(), bytes_max, announced: length, memory, bounds: JsonBounds::default() };
    let mut body = BodyReader::new(request.into_body());
    let read = async {
        gathered.is_short_enough(length.unwrap_or(0))?;
        while let Some(chunk) = body.next().await? {
            gathered.add(&chunk)?;
        }
        gathered.finish()
    }
    .await;
    match read {
        Ok((bytes, memory)) => {
            if let (Some(visit), Some(memory)) = (visit, memory) {
                visit.keep(memory);
            }
            Ok(bytes)
        }
        Err(refused) => {
            // What came is of no use any more, and its client may take long to see the answer.
            drop(gathered);
            // Who asked first has sent nothing yet, and reading would tell him to go on.
            if !is_asking_first || body.received > 0 {
                body.discard().await;
            }
            Err(refused)
        }
    }
}

struct Gathered {
    bytes: Vec<u8>,
    bytes_max: usize,
    announced: Option<usize>,
    memory: Option<BodyMemory>,
    bounds: JsonBounds,
}

impl Gathered {
    fn is_short_enough(&self, length: usize) -> Result<(), ApiError> {
        if length <= self.bytes_max {
            return Ok(());
        }
        let message = format!("the body is larger than {} bytes", self.bytes_max);
        Err(ApiError(Error::new(ErrorKind::TooLarge, "request.too_large", message)))
    }

    fn add(&mut self, chunk: &[u8]) -> Result<(), ApiError> {
        let length = self.bytes.len() + chunk.len();
        self.is_short_enough(length)?;
        self.bounds.feed(chunk).map_err(too_much)?;
        if length > self.bytes.capacity() {
            // Doubled, but for what was announced; what it had before goes back only when it has been copied.
            let doubled =
                (2 * length).min(self.announced.unwrap_or(usize::MAX)).min(self.bytes_max).max(length);
            self.count(doubled - self.bytes.capacity())?;
            self.bytes.reserve_exact(doubled - self.bytes.len());
        }
        self.bytes.extend_from_slice(chunk);
        Ok(())
    }

    fn count(&mut self, more: usize) -> Result<(), ApiError> {
        let free = limits::BODY_BYTES_FREE.saturating_sub(self.bytes.capacity());
        match &mut self.memory {
            Some(memory) => memory.grow(more.saturating_sub(free)).map_err(ApiError),
            None => Ok(()),
        }
    }

    fn finish(&mut self) -> Result<(Vec<u8>, Option<BodyMemory>), ApiError> {
        if let Some(memory) = &mut self.memory {
            memory.grow(self.bounds.tree_bytes().saturating_sub(limits::BODY_BYTES_FREE))?;
        }
        Ok((std::mem::take(&mut self.bytes), self.memory.take()))
    }
}

fn too_much(what: TooMuch) -> ApiError {
    match what {
        TooMuch::Depth => malformed(
            "request.too_deep",
            format!("the body has more than {} arrays and objects within each other", limits::JSON_DEPTH_MAX),
        ),
        TooMuch::Values => {
            let message = format!("the body has more than {} values", limits::JSON_VALUES_MAX);
            ApiError(Error::new(ErrorKind::TooLarge, "request.too_many_values", message))
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt as _, stream};

    use super::*;

    fn reader(
        pieces: impl futures_util::Stream<Item = &'static str> + Send + 'static,
        pace: Pace,
    ) -> BodyReader {
        let body = Body::from_stream(
            pieces.map(|piece| Ok::<_, std::io::Error>(Bytes::from_static(piece.as_bytes()))),
        );
        BodyReader { pace, ..BodyReader::new(body) }
    }

    const SHORT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_body_that_falls_silent_is_given_up() {
        let pace = Pace { silence: SHORT, ..PACE };
        let mut body = reader(stream::iter(["{"]).chain(stream::pending()), pace);
        assert_eq!(body.next().await.ok().flatten().as_deref(), Some(&b"{"[..]));
        let Err(ApiError(refused)) = body.next().await else { panic!("it never ends") };
        assert_eq!((refused.kind, refused.code), (ErrorKind::Malformed, "request.stalled"));
    }

    #[tokio::test]
    async fn a_body_that_comes_too_slowly_is_given_up_and_our_own_time_does_not_count() {
        let pace = Pace { grace: 4 * SHORT, ..PACE };
        let trickle = stream::unfold((), |()| async {
            tokio::time::sleep(SHORT).await;
            Some(("x", ()))
        });
        let mut slow = reader(trickle, pace);
        while slow.next().await.is_ok() {}
        assert!(slow.received <= 4, "{} bytes came", slow.received);
        let mut steady = reader(stream::iter(["x"; 5]), pace);
        while let Ok(Some(_)) = steady.next().await {
            // The disk, say.
            tokio::time::sleep(2 * SHORT).await;
        }
        assert_eq!(steady.received, 5);
    }
}
