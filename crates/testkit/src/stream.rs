//! A turn's events as a client reads them, byte by byte, without any of the product's own code.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use serde_json::Value;

/// How long a test waits for the next event.
const NEXT_MAX: Duration = Duration::from_secs(30);

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub struct TurnEvent {
    /// The `id:` line.
    pub id: u64,
    /// The `event:` line.
    pub kind: String,
    /// The `data:` line.
    pub data: Value,
    /// The exact bytes, from `id:` to the blank line.
    pub frame: String,
}

/// A turn's stream.
pub struct TurnStream {
    /// The `X-Response-Id` header.
    pub turn: String,
    body: BoxStream<'static, reqwest::Result<Bytes>>,
    buffered: Vec<u8>,
}

impl TurnStream {
    /// The stream in an answer with status 200.
    ///
    /// # Panics
    /// When it is not one.
    #[expect(clippy::panic, reason = "a test tool")]
    pub async fn of(response: reqwest::Response) -> Self {
        if response.status() != 200 {
            panic!("no stream but {}: {}", response.status(), response.text().await.unwrap_or_default());
        }
        let turn =
            response.headers().get("x-response-id").and_then(|id| id.to_str().ok()).unwrap_or("").to_owned();
        Self { turn, body: response.bytes_stream().boxed(), buffered: Vec::new() }
    }

    /// The next event; `None` when the stream has ended, cleanly or not.
    ///
    /// # Panics
    /// When nothing comes for 30 seconds, or something that is not an event.
    #[expect(clippy::panic, reason = "a test tool")]
    pub async fn next(&mut self) -> Option<TurnEvent> {
        loop {
            if let Some(end) = self.buffered.windows(2).position(|pair| pair == b"\n\n") {
                let frame: Vec<u8> = self.buffered.drain(..end + 2).collect();
                let frame = String::from_utf8_lossy(&frame).into_owned();
                if frame.starts_with(':') {
                    continue;
                }
                return Some(parse(frame));
            }
            match tokio::time::timeout(NEXT_MAX, self.body.next()).await {
                Ok(Some(Ok(bytes))) => self.buffered.extend_from_slice(&bytes),
                Ok(Some(Err(_)) | None) => return None,
                Err(_) => panic!("no event for {} s", NEXT_MAX.as_secs()),
            }
        }
    }

    /// Everything up to the end.
    pub async fn rest(&mut self) -> Vec<TurnEvent> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }

    /// Reads until an event of this kind, which is the last one returned.
    ///
    /// # Panics
    /// When the stream ends before.
    #[expect(clippy::panic, reason = "a test tool")]
    pub async fn until(&mut self, kind: &str) -> Vec<TurnEvent> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            let found = event.kind == kind;
            events.push(event);
            if found {
                return events;
            }
        }
        panic!("the stream ended before {kind}: {events:#?}");
    }
}

#[expect(clippy::panic, reason = "a test tool")]
fn parse(frame: String) -> TurnEvent {
    let lines: Vec<&str> = frame.trim_end_matches('\n').split('\n').collect();
    let field =
        |at: usize, name: &str| lines.get(at).and_then(|line| line.strip_prefix(name)).map(str::to_owned);
    let (Some(id), Some(kind), Some(data), 3) =
        (field(0, "id: "), field(1, "event: "), field(2, "data: "), lines.len())
    else {
        panic!("not an event of three lines: {frame:?}");
    };
    let data: Value =
        serde_json::from_str(&data).unwrap_or_else(|e| panic!("data is not JSON ({e}): {frame:?}"));
    let id: u64 = id.parse().unwrap_or_else(|e| panic!("id is not a number ({e}): {frame:?}"));
    assert_eq!(data["sequence_number"], id, "the number stands in the data too");
    // Rows of older servers have no type.
    assert!(data["type"] == kind || data.get("type").is_none(), "the type stands in the data too: {frame}");
    TurnEvent { id, kind, data, frame }
}

/// The kinds of events, for comparing whole streams.
pub fn kinds(events: &[TurnEvent]) -> Vec<&str> {
    events.iter().map(|event| event.kind.as_str()).collect()
}

/// The pieces of one kind of delta, joined.
pub fn joined(events: &[TurnEvent], kind: &str) -> String {
    events
        .iter()
        .filter(|event| event.kind == kind)
        .filter_map(|event| event.data["content"].as_str())
        .collect()
}
