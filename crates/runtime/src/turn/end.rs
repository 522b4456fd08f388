//! The end of a turn: one terminal event and the session's freedom in one commit, tried until it is written. A turn
//! that failed by a panic of ours ends on this path as well; nothing here may leave a session busy.

use std::time::Duration;

use palisade_protocol::item::TurnOutcome;
use palisade_protocol::{Error, ErrorKind, Event, Item, Session, SessionId, TurnId};
use palisade_store::{Commit, Store, StoreError};

use super::registry::Stop;
use super::{TurnEnd, TurnJob};
use crate::Rooms;
use crate::clock::now;

/// Between tries to write a turn's end, when the disk refuses it: doubling from the first to the second.
const WAIT_MIN: Duration = Duration::from_millis(100);
const WAIT_MAX: Duration = Duration::from_secs(5);

/// What is left of a job when its driver is gone.
pub(super) struct Ending {
    session: Session,
    turn: TurnId,
    generation: i64,
}

impl Ending {
    pub(super) fn of(job: &TurnJob) -> Self {
        let (session, start) = (job.session.clone(), &job.start);
        Self { session, turn: start.turn.clone(), generation: start.generation }
    }

    /// Writes the terminal event, and tries until it is written: only then is the session free.
    pub(super) async fn write(self, rooms: &Rooms, end: TurnEnd) {
        let Some((event, outcome)) = self.said(rooms, end) else { return self.release(rooms).await };
        let mut wait = WAIT_MIN;
        loop {
            match end_turn(&rooms.store, &self.session.id, &self.turn, self.generation, &event, outcome).await
            {
                Ok(outcome) => {
                    rooms.metrics.turn_ended(outcome);
                    tracing::info!(session = %self.session.id, turn = %self.turn, ?outcome, "turn ended");
                    return;
                }
                Err(StoreError::Fenced(_) | StoreError::Stopped) => return,
                Err(error) => {
                    tracing::error!(turn = %self.turn, error = %palisade_protocol::chain(&error), "a turn's end could not be written; trying again");
                    rooms.turns.end_refused(&self.turn, Error::from(error).kind == ErrorKind::StorageFull);
                }
            }
            tokio::select! {
                // The next process takes it over.
                () = rooms.draining.cancelled() => return,
                () = tokio::time::sleep(wait) => wait = (wait * 2).min(WAIT_MAX),
            }
        }
    }

    /// The terminal event; none for a turn that goes on elsewhere.
    fn said(&self, rooms: &Rooms, end: TurnEnd) -> Option<(Event, TurnOutcome)> {
        let id = self.turn.clone();
        Some(match (rooms.turns.stopped(&id), end) {
            (None, TurnEnd::Stopped) => return None,
            (Some(Stop::Cancelled), _) | (None, TurnEnd::Cancelled) => cancelled(id),
            (Some(Stop::Expired), _) => {
                let error = crate::lifetimes::expired_message(&self.session);
                (Event::Failed { id, error, code: "session.expired".to_owned() }, TurnOutcome::Failed)
            }
            (None, TurnEnd::Completed(usage)) => {
                (Event::Completed { id, status: "completed", usage }, TurnOutcome::Completed)
            }
            (None, TurnEnd::Failed { code, message }) => {
                (Event::Failed { id, error: message, code }, TurnOutcome::Failed)
            }
        })
    }

    /// Leaves the turn to the next server. Without this it would count as a crash, which is no more than a pity.
    async fn release(&self, rooms: &Rooms) {
        if let Err(error) = rooms.store.release(&self.turn, self.generation).await {
            tracing::warn!(turn = %self.turn, error = %palisade_protocol::chain(&error), "a turn was not released");
        }
    }
}

fn cancelled(id: TurnId) -> (Event, TurnOutcome) {
    (Event::Cancelled { id, status: "cancelled" }, TurnOutcome::Cancelled)
}

/// The terminal event and the turn's end; how it ended, for a cancel that was acknowledged meanwhile, here or by another
/// server, is said instead.
pub(crate) async fn end_turn(
    store: &Store,
    session: &SessionId,
    turn: &TurnId,
    generation: i64,
    event: &Event,
    outcome: TurnOutcome,
) -> Result<TurnOutcome, StoreError> {
    let said = end_as(store, session, turn, generation, (event, outcome)).await;
    let Err(StoreError::CancelRequested(_)) = said else { return said };
    let (event, outcome) = cancelled(turn.clone());
    end_as(store, session, turn, generation, (&event, outcome)).await
}

/// Numbered after what the store has: what a driver that is gone had still under way is in it, or is refused.
async fn end_as(
    store: &Store,
    session: &SessionId,
    turn: &TurnId,
    generation: i64,
    (event, outcome): (&Event, TurnOutcome),
) -> Result<TurnOutcome, StoreError> {
    let next_seq = store.last_seq(turn).await?.map_or(0, |last| last + 1);
    let commit = Commit {
        session: session.clone(),
        turn: turn.clone(),
        generation,
        events: vec![event.render(next_seq)],
        items: vec![Item::TurnEnded { outcome }],
        metered: None,
        skill: None,
        end: Some((outcome, now())),
    };
    store.commit(commit).await.map(|()| outcome)
}
