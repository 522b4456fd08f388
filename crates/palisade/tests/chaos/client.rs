//! A client of one turn that never gives up: it sends its message under an Idempotency-Key, and whenever the
//! stream breaks it comes back with the number of the last event it saw.

use std::sync::{Arc, Mutex};

use palisade_testkit::Server;
use palisade_testkit::stream::{TurnEvent, TurnStream};
use reqwest::{Method, RequestBuilder};
use serde_json::json;
use tokio::sync::watch;

use crate::model::plan_message;

/// What one client knows.
pub(crate) struct Client {
    pub(crate) session: String,
    pub(crate) message: String,
    key: String,
    known: Arc<Known>,
}

struct Known {
    /// Once a head was seen.
    turn: Mutex<Option<String>>,
    /// Every event, in the order it was seen, over all connections.
    seen: Mutex<Vec<TurnEvent>>,
    count: watch::Sender<usize>,
}

impl Client {
    pub(crate) async fn new(server: &Server, seed: u64, number: u64) -> Self {
        let (turn, seen, count) = (Mutex::default(), Mutex::default(), watch::Sender::new(0));
        Self {
            session: server.session(json!({})).await,
            message: plan_message(seed, number),
            key: format!("key {seed} {number}"),
            known: Arc::new(Known { turn, seen, count }),
        }
    }

    /// Reads on until the stream ends or breaks.
    pub(crate) fn read_on(&self, server: &Server) -> impl Future<Output = ()> + Send + 'static {
        let known = self.known.clone();
        let turn = self.turn();
        let request = match &turn {
            Some(turn) => self.events(server, turn, self.seen().last().map(|event| event.id)),
            None => self.send(server),
        };
        async move {
            // A server that is killed answers nothing, or half a head.
            let Ok(response) = request.send().await else { return };
            // It drains, and says that it will be back.
            if response.status() == 503 {
                return;
            }
            let mut stream = TurnStream::of(response).await;
            if let Some(turn) = turn {
                assert_eq!(turn, stream.turn, "the resumed stream is of the same turn");
            }
            *known.turn.lock().unwrap() = Some(stream.turn.clone());
            while let Some(event) = stream.next().await {
                known.seen.lock().unwrap().push(event);
                known.count.send_modify(|count| *count += 1);
            }
        }
    }

    /// Completes when so many events were seen.
    pub(crate) async fn has_seen(&self, count: usize) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.known.count.subscribe().wait_for(|seen| *seen >= count).await;
    }

    /// The request that starts the turn, and that changes nothing when it is repeated.
    pub(crate) fn send(&self, server: &Server) -> RequestBuilder {
        server
            .request(Method::POST, &format!("/v1/sessions/{}/messages", self.session))
            .header("Idempotency-Key", &self.key)
            .json(&json!({"message": self.message}))
    }

    /// Asks for the turn to be cancelled; whether it was told that it will be.
    pub(crate) async fn cancel(&self, server: &Server) -> bool {
        let Some(turn) = self.turn() else { return false };
        let path = format!("/v1/sessions/{}/responses/{turn}/cancel", self.session);
        let status = server.request(Method::POST, &path).send().await.unwrap().status();
        assert!(matches!(status.as_u16(), 200 | 202), "{status}");
        status == 202
    }

    /// The request that resumes a turn's stream.
    pub(crate) fn events(&self, server: &Server, turn: &str, after: Option<u64>) -> RequestBuilder {
        let path = format!("/v1/sessions/{}/responses/{turn}/events", self.session);
        let request = server.request(Method::GET, &path);
        match after {
            Some(id) => request.header("Last-Event-ID", id.to_string()),
            None => request,
        }
    }

    pub(crate) fn turn(&self) -> Option<String> {
        self.known.turn.lock().unwrap().clone()
    }

    pub(crate) fn seen(&self) -> Vec<TurnEvent> {
        self.known.seen.lock().unwrap().clone()
    }

    pub(crate) fn has_seen_the_end(&self) -> bool {
        self.seen().last().is_some_and(is_terminal)
    }
}

/// Whether this is one of the three that end a stream.
pub(crate) fn is_terminal(event: &TurnEvent) -> bool {
    matches!(event.kind.as_str(), "message.completed" | "message.cancelled" | "message.error")
}
