//! A reader of a turn's events: a cursor over rows. The live answer, a resume and a replay are this same cursor; a slow
//! reader costs a cursor and never a queue. Whoever has read everything is woken with the latest commit in hand, which
//! saves it the look at the table; anybody else reads rows.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use palisade_protocol::TurnId;
use palisade_protocol::event::RenderedEvent;
use tokio::sync::watch;

use crate::read::{EventRow, event_of, events_from, reading};
use crate::{Store, StoreError, TurnState};

/// Events taken from the table at once.
const BATCH_MAX: i64 = 64;
/// Bytes of events after which a batch takes no further one: what a reader who has stalled is held with. One event
/// is always taken, and may be longer.
const BATCH_BYTES_MAX: usize = 64 * 1024;

/// The events of a turn's latest commit; `None` when another server wrote it, or nobody knows.
type Latest = Option<Arc<[RenderedEvent]>>;

/// Which turns somebody is waiting on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wakers {
    turns: Arc<Mutex<HashMap<TurnId, watch::Sender<Latest>>>>,
}

/// One reader's place in [`Wakers`]; the last one of a turn takes the turn with it.
#[derive(Debug)]
pub(crate) struct Subscription {
    wakers: Wakers,
    turn: TurnId,
    changed: watch::Receiver<Latest>,
}

impl Wakers {
    /// Wakes whoever follows `turn`, with what was committed here.
    pub(crate) fn hand_over(&self, turn: &TurnId, events: Vec<RenderedEvent>) {
        if let Some(waker) = self.lock().get(turn) {
            waker.send_replace(Some(events.into()));
        }
    }

    /// Wakes whoever follows `turn`: another server has written.
    pub(crate) fn wake(&self, turn: &TurnId) {
        if let Some(waker) = self.lock().get(turn) {
            waker.send_replace(None);
        }
    }

    /// Everybody is to look: something may have been missed.
    pub(crate) fn wake_all(&self) {
        for waker in self.lock().values() {
            waker.send_replace(None);
        }
    }

    pub(crate) fn subscribe(&self, turn: &TurnId) -> Subscription {
        let changed = self.lock().entry(turn.clone()).or_insert_with(|| watch::channel(None).0).subscribe();
        Subscription { wakers: self.clone(), turn: turn.clone(), changed }
    }

    // The map is whole after any panic, so a poisoned lock is still good.
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<TurnId, watch::Sender<Latest>>> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut turns = self.wakers.lock();
        // Under the lock, so that of two that leave together the second sees that nobody is left.
        self.changed = watch::channel(None).1;
        if turns.get(&self.turn).is_some_and(|waker| waker.receiver_count() == 0) {
            turns.remove(&self.turn);
        }
    }
}

/// Reads a turn's events in order, from any point, until the terminal one.
#[derive(Debug)]
pub struct Follower {
    store: Store,
    turn: TurnId,
    next: u64,
    subscription: Subscription,
    ended: bool,
}

impl Store {
    /// Follows `turn` from the event after `after`; `None` is from the beginning.
    pub fn follow(&self, turn: &TurnId, after: Option<u64>) -> Follower {
        let subscription = self.wakers.subscribe(turn);
        let next = after.map_or(0, |seq| seq.saturating_add(1));
        Follower { store: self.clone(), turn: turn.clone(), next, subscription, ended: false }
    }
}

impl Follower {
    /// To be asked after a long silence: an error when nothing more will come although the end was not read, since
    /// the rest was evicted or the session deleted.
    pub async fn check_alive(&self) -> Result<(), StoreError> {
        let runs = self.store.turn(&self.turn).await?.is_some_and(|turn| turn.state == TurnState::Running);
        if runs || !self.store.events(&self.turn, self.next, 1).await?.is_empty() {
            return Ok(());
        }
        Err(StoreError::Evicted(self.turn.clone()))
    }

    /// The next events, at least one; waits for them. `None` after the terminal event. Safe to cancel: an event
    /// that was not returned will be returned by the next call.
    pub async fn next(&mut self) -> Result<Option<Arc<[RenderedEvent]>>, StoreError> {
        while !self.ended {
            // Marked as seen before the read: what is committed after it wakes us again.
            let latest = self.subscription.changed.borrow_and_update().clone();
            let is_next =
                |events: &Arc<[RenderedEvent]>| events.first().is_some_and(|it| it.seq == self.next);
            let events = match latest.filter(is_next) {
                Some(events) => events,
                None => self.batch().await?.into(),
            };
            if events.first().is_some_and(|first| first.seq != self.next) {
                return Err(StoreError::Evicted(self.turn.clone()));
            }
            if let Some(last) = events.last() {
                self.next = last.seq + 1;
                self.ended = last.is_terminal();
                return Ok(Some(events));
            }
            // The sender lives in the map as long as we are subscribed.
            self.subscription.changed.changed().await.map_err(|_| StoreError::Stopped)?;
        }
        Ok(None)
    }

    async fn batch(&self) -> Result<Vec<RenderedEvent>, StoreError> {
        let (mut events, mut bytes) = (Vec::new(), 0);
        let rows = events_from(&self.turn, self.next, BATCH_MAX);
        rows.each(&self.store.readers, |row: EventRow| {
            bytes += row.2.len();
            events.push(event_of(row));
            if bytes < BATCH_BYTES_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
        .await
        .map_err(reading("events"))?;
        Ok(events)
    }
}
