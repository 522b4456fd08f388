//! The end of a turn: one terminal event and the session's freedom in one commit, tried until it is written. A turn
//! that failed by a panic of ours ends on this path as well; nothing here may leave a session busy.

use std::time::Duration;

use palisade_protocol::item::TurnOutcome;
use palisade_protocol::{Error, ErrorKind, Event, Item, Session, SessionId, TurnId};
use palisade_store::{Commit, Store, StoreError};
use tokio_util::sync::CancellationToken;

use super::registry::Stop;
use super::{TurnEnd, TurnJob};
use crate::Rooms;
use crate::clock::now;

/// Between tries to write a turn's end, when the disk refuses it: doubling from the first to the second.
const WAIT_MIN: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Refusals of an end before it is written without its debit. What the database refuses for what it is, it refuses again;
/// a session must not stay busy for it.
const REFUSALS_MAX: u32 = 4;

/// A terminal event, and the outcome that it tells.
pub(crate) type Said = (Event, TurnOutcome);

/// A turn that ends here: what is left of a job when its driver is gone, or what was taken over only to be closed.
pub(crate) struct Ending {
    pub(crate) session: SessionId,
    pub(crate) turn: TurnId,
    pub(crate) generation: i64,
    /// Cancelled when this server has to let the turn go.
    pub(crate) lease_over: CancellationToken,
    /// As its tenant uses it.
    pub(crate) store: Store,
}

impl Ending {
    pub(super) fn of(job: &TurnJob) -> Self {
        let (session, turn) = (job.session.id.clone(), job.start.turn.clone());
        let (lease_over, store) = (job.lease_over.clone(), job.share.store.clone());
        Self { session, turn, generation: job.start.generation, lease_over, store }
    }

    /// Writes the terminal event, and tries until it is written: only then is the session free.
    pub(crate) async fn write(self, rooms: &Rooms, said: Said) {
        let (mut wait, mut refusals, mut why) = (WAIT_MIN, 0, String::new());
        loop {
            let given_up = (refusals >= REFUSALS_MAX).then_some(&*why);
            match self.end(&self.store, &said, given_up).await {
                Ok(outcome) => {
                    rooms.metrics.turn_ended(outcome);
                    tracing::info!(session = %self.session, turn = %self.turn, ?outcome, "turn ended");
                    return;
                }
                Err(StoreError::Fenced(_) | StoreError::Stopped) => return,
                Err(error) => {
                    refusals += u32::from(error.is_refusal());
                    why = palisade_protocol::chain(&error).to_string();
                    tracing::error!(turn = %self.turn, error = why, "a turn's end could not be written; trying again");
                    rooms.turns.end_refused(&self.turn, Error::from(error).kind == ErrorKind::StorageFull);
                }
            }
            tokio::select! {
                // The next process takes it over.
                () = rooms.draining.cancelled() => return,
                // Another server does, or this one under its next name.
                () = self.lease_over.cancelled() => return,
                () = tokio::time::sleep(wait) => wait = (wait * 2).min(WAIT_MAX),
            }
        }
    }

    /// The terminal event and the turn's end; how it ended, for a cancel that was acknowledged meanwhile, here or by
    /// another server, is said instead. `given_up` says why it is to end unsettled.
    async fn end(
        &self,
        store: &Store,
        (event, outcome): &Said,
        given_up: Option<&str>,
    ) -> Result<TurnOutcome, StoreError> {
        let ended = self.end_as(store, event, *outcome, given_up).await;
        let Err(StoreError::CancelRequested(_)) = ended else { return ended };
        let (event, outcome) = cancelled(self.turn.clone());
        self.end_as(store, &event, outcome, given_up).await
    }

    /// Numbered after what the store has: what a driver that is gone had still under way is in it, or is refused.
    async fn end_as(
        &self,
        store: &Store,
        event: &Event,
        outcome: TurnOutcome,
        given_up: Option<&str>,
    ) -> Result<TurnOutcome, StoreError> {
        let next_seq = store.last_seq(&self.turn).await?.map_or(0, |last| last + 1);
        let commit = Commit {
            session: self.session.clone(),
            turn: self.turn.clone(),
            generation: self.generation,
            events: vec![event.render(next_seq)],
            items: vec![Item::TurnEnded { outcome }],
            metered: None,
            skill: None,
            end: Some((outcome, now())),
        };
        match given_up {
            None => store.commit(commit).await?,
            Some(why) => {
                tracing::error!(turn = %self.turn, why, "a turn ends without being settled");
                store.end_unsettled(commit, why.to_owned()).await?;
            }
        }
        Ok(outcome)
    }

    /// Leaves the turn to the next server. Without this it would count as a crash, which is no more than a pity.
    pub(super) async fn release(self) {
        if let Err(error) = self.store.release(&self.turn, self.generation).await {
            tracing::warn!(turn = %self.turn, error = %palisade_protocol::chain(&error), "a turn was not released");
        }
    }
}

/// How a turn ends that was driven to `end`; `None` for one that goes on elsewhere.
pub(super) fn said(rooms: &Rooms, session: &Session, turn: &TurnId, end: TurnEnd) -> Option<Said> {
    let id = turn.clone();
    Some(match (rooms.turns.stopped(&id), end) {
        (None, TurnEnd::Stopped) => return None,
        (Some(Stop::Cancelled), _) | (None, TurnEnd::Cancelled) => cancelled(id),
        (Some(Stop::Expired), _) => {
            let error = crate::lifetimes::expired_message(session);
            failed(id, "session.expired", error)
        }
        (None, TurnEnd::Completed(usage)) => {
            (Event::Completed { id, status: "completed", usage }, TurnOutcome::Completed)
        }
        (None, TurnEnd::Failed { code, message }) => failed(id, &code, message),
    })
}

pub(crate) fn cancelled(id: TurnId) -> Said {
    (Event::Cancelled { id, status: "cancelled" }, TurnOutcome::Cancelled)
}

pub(crate) fn failed(id: TurnId, code: &str, error: String) -> Said {
    (Event::Failed { id, error, code: code.to_owned() }, TurnOutcome::Failed)
}
