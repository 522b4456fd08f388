//! One turn's events in order, without gap or duplicate, through every break of the connection.
//!
//! A stream that ends without a terminal event is resumed after the last event that was seen, a bounded number of
//! times without progress. A message that has to be sent again has the same key, so that it is taken once.

use std::time::Duration;

use reqwest::{Response, StatusCode};
use serde_json::Value;

use super::api::{Api, SILENCE_LIMIT};
use super::error::ClientError;
use super::sse::{Frame, FrameParser};
use super::text;

/// Attempts in a row without a new event; with the waits below about 40 s, enough for a server's restart.
const ATTEMPTS_MAX: u32 = 12;
/// How often a message is sent again whose answer was lost.
const RESENDS_MAX: u32 = 6;
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// An event of the turn.
#[derive(Debug)]
pub(super) struct TurnEvent {
    pub seq: u64,
    pub kind: String,
    /// The data as it stood on the wire.
    pub raw: String,
    pub data: Value,
}

impl TurnEvent {
    /// Whether this is one of the three that end a stream.
    pub(super) fn is_terminal(&self) -> bool {
        matches!(self.kind.as_str(), "message.completed" | "message.cancelled" | "message.error")
    }
}

/// What a stream has to say next.
#[derive(Debug)]
pub(super) enum Step {
    Event(TurnEvent),
    /// The connection broke; the next step reconnects.
    Broken(ClientError),
    /// The terminal event was the last step.
    Ended,
}

/// A reader of one turn.
#[derive(Debug)]
pub(super) struct TurnStream<'api> {
    api: &'api Api,
    session: String,
    turn: String,
    next_seq: u64,
    connection: Option<(Response, FrameParser)>,
    attempts: u32,
    ended: bool,
}

impl<'api> TurnStream<'api> {
    /// Starts a turn and reads it from its first event. The message goes out again under the same key when the answer's
    /// head is lost, so that one turn starts at the most.
    pub(super) async fn send(api: &'api Api, session: &str, message: &str) -> Result<Self, ClientError> {
        let key =
            palisade_vault::random_hex::<16>().map_err(|source| ClientError::NoRandomness { source })?;
        let mut attempt = 0;
        let response = loop {
            match api.send_message(session, message, &key).await {
                Err(ClientError::Broken { .. } | ClientError::Silent { .. }) if attempt < RESENDS_MAX => {
                    tokio::time::sleep(backoff(attempt)).await;
                    attempt += 1;
                }
                answered => break answered?,
            }
        };
        let turn = response.headers().get("x-response-id").and_then(|id| id.to_str().ok());
        let turn = turn.unwrap_or("").to_owned();
        Ok(Self::over(api, session, turn, 0, Some(response)))
    }

    /// Reads a turn that exists, from the event with the given number.
    pub(super) async fn attach(
        api: &'api Api,
        session: &str,
        turn: &str,
        from_seq: u64,
    ) -> Result<Self, ClientError> {
        let response = api.events(session, turn, from_seq.checked_sub(1)).await?;
        Ok(Self::over(api, session, turn.to_owned(), from_seq, Some(response)))
    }

    fn over(api: &'api Api, session: &str, turn: String, next_seq: u64, response: Option<Response>) -> Self {
        // The server's word that the event before was the last.
        let ended = response.as_ref().is_some_and(|response| response.status() == StatusCode::NO_CONTENT);
        let connection = response.map(|response| (response, FrameParser::default()));
        Self { api, session: session.to_owned(), turn, next_seq, connection, attempts: 0, ended }
    }

    /// The turn's id; empty only until the first event of a server that sent no header.
    pub(super) fn turn(&self) -> &str {
        &self.turn
    }

    /// The next step. May be dropped and called again without losing anything.
    pub(super) async fn next(&mut self) -> Result<Step, ClientError> {
        while !self.ended {
            let Some(connection) = &mut self.connection else {
                self.reconnect().await?;
                continue;
            };
            let frame = match next_frame(connection).await {
                Ok(frame) => frame,
                Err(broken) => return self.broken(broken),
            };
            match self.accept(frame)? {
                Arrival::New(event) => return Ok(Step::Event(event)),
                Arrival::Old => {}
                Arrival::Gap { seq } => {
                    let detail = format!("event {seq} came where {} was due", self.next_seq);
                    return self
                        .broken(ClientError::Unexpected { what: "following the turn".into(), detail });
                }
            }
        }
        Ok(Step::Ended)
    }

    fn broken(&mut self, reason: ClientError) -> Result<Step, ClientError> {
        self.connection = None;
        // Without the turn's id nothing can be asked for again.
        if self.turn.is_empty() { Err(reason) } else { Ok(Step::Broken(reason)) }
    }

    async fn reconnect(&mut self) -> Result<(), ClientError> {
        self.attempts += 1;
        tokio::time::sleep(backoff(self.attempts - 1)).await;
        match self.api.events(&self.session, &self.turn, self.next_seq.checked_sub(1)).await {
            Ok(response) if self.attempts < ATTEMPTS_MAX => {
                self.connection = Some((response, FrameParser::default()));
                Ok(())
            }
            Err(error) if error.is_passing() && self.attempts < ATTEMPTS_MAX => Ok(()),
            Ok(_) => Err(self.lost(ClientError::Unexpected {
                what: "following the turn".into(),
                detail: "the stream keeps ending without a new event".into(),
            })),
            Err(error) => Err(self.lost(error)),
        }
    }

    fn lost(&self, source: ClientError) -> ClientError {
        ClientError::StreamLost {
            session: self.session.clone(),
            turn: self.turn.clone(),
            next_seq: self.next_seq,
            attempts: self.attempts,
            source: Box::new(source),
        }
    }

    fn accept(&mut self, frame: Frame) -> Result<Arrival, ClientError> {
        // What has no number is no event of the contract; an additive server may send such things.
        let Some(seq) = frame.id.filter(|seq| *seq >= self.next_seq) else {
            return Ok(Arrival::Old);
        };
        if seq > self.next_seq {
            return Ok(Arrival::Gap { seq });
        }
        let data: Value = serde_json::from_str(&frame.data).map_err(|error| ClientError::Unexpected {
            what: format!("reading event {seq}"),
            detail: text::one_line(&error.to_string(), 200),
        })?;
        if self.turn.is_empty() && frame.event == "message.created" {
            data.get("id").and_then(Value::as_str).unwrap_or("").clone_into(&mut self.turn);
        }
        let event = TurnEvent { seq, kind: frame.event, raw: frame.data, data };
        self.next_seq = seq + 1;
        self.attempts = 0;
        self.ended = event.is_terminal();
        Ok(Arrival::New(event))
    }
}

fn backoff(attempt: u32) -> Duration {
    BACKOFF_FIRST.saturating_mul(1 << attempt.min(16)).min(BACKOFF_MAX)
}

enum Arrival {
    New(TurnEvent),
    Old,
    Gap { seq: u64 },
}

/// Waits for one frame; an end without one is a break, since only a terminal event ends a stream.
async fn next_frame((response, parser): &mut (Response, FrameParser)) -> Result<Frame, ClientError> {
    let what = "following the turn";
    loop {
        if let Some(frame) = parser.next() {
            return Ok(frame);
        }
        let chunk = tokio::time::timeout(SILENCE_LIMIT, response.chunk()).await;
        match chunk.map_err(|_| ClientError::Silent { what: what.into(), limit: SILENCE_LIMIT })? {
            Ok(Some(bytes)) => parser.push(&bytes).map_err(|_| ClientError::Unexpected {
                what: what.into(),
                detail: format!("an event is larger than {}", text::size(super::sse::FRAME_BYTES_MAX as u64)),
            })?,
            Ok(None) => {
                return Err(ClientError::Unexpected {
                    what: what.into(),
                    detail: "it ended too early".into(),
                });
            }
            Err(source) => return Err(ClientError::Broken { what: what.into(), source }),
        }
    }
}
