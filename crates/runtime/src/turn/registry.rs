//! Which turns run here, and how to stop them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use palisade_protocol::{SessionId, TurnId};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// The turns that run or are about to. A turn is listed before it is written down, so that whoever deletes its
/// session or drains the server either sees it here or keeps it from starting.
#[derive(Clone, Default)]
pub(crate) struct Turns {
    running: Arc<Mutex<HashMap<TurnId, Running>>>,
}

#[derive(Clone)]
struct Running {
    session: SessionId,
    cancel: CancellationToken,
    /// Why it was asked to stop.
    stopped: Option<Stop>,
    ended: CancellationToken,
    answered: Arc<Notify>,
    /// Its end could not be written for want of room.
    lacks_room: bool,
}

/// Why a turn is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Somebody cancelled it, or deleted its session.
    Cancelled,
    /// Its session reached the end of its time.
    Expired,
}

impl Running {
    /// A cancel that somebody was promised holds, whatever else stops the turn.
    fn stop(&mut self, why: Stop) {
        if self.stopped != Some(Stop::Cancelled) {
            self.stopped = Some(why);
        }
        self.cancel.cancel();
    }
}

/// A turn's place on the list; dropped when its task ends, however it ends.
pub(crate) struct Listed {
    turns: Turns,
    turn: TurnId,
    /// Asks the turn to stop.
    pub(crate) cancel: CancellationToken,
    /// Rung when the client has answered a call.
    pub(crate) answered: Arc<Notify>,
}

impl Turns {
    /// Lists a turn that is to be taken over; `None` when it is driven here, be it for its last moment: two drivers
    /// in one place would take each other off the list.
    pub(crate) fn take_up(&self, session: &SessionId, turn: &TurnId) -> Option<Listed> {
        let mut turns = self.lock();
        (!turns.contains_key(turn)).then(|| self.enter(&mut turns, session, turn))
    }

    /// Lists a turn that is about to start.
    pub(crate) fn list(&self, session: &SessionId, turn: &TurnId) -> Listed {
        self.enter(&mut self.lock(), session, turn)
    }

    fn enter(&self, turns: &mut HashMap<TurnId, Running>, session: &SessionId, turn: &TurnId) -> Listed {
        let (cancel, answered) = (CancellationToken::new(), Arc::new(Notify::new()));
        let running = Running {
            session: session.clone(),
            cancel: cancel.clone(),
            stopped: None,
            ended: CancellationToken::new(),
            answered: answered.clone(),
            lacks_room: false,
        };
        turns.insert(turn.clone(), running);
        Listed { turns: self.clone(), turn: turn.clone(), cancel, answered }
    }

    /// Tells the turn that the client has answered a call.
    pub(crate) fn answered(&self, turn: &TurnId) {
        if let Some(running) = self.lock().get(turn) {
            // Kept for a turn that is not waiting yet.
            running.answered.notify_one();
        }
    }

    /// Cancels the turn, if it runs here. Whether that is in time is for the store to say.
    pub(crate) fn cancel(&self, turn: &TurnId) {
        if let Some(running) = self.lock().get_mut(turn) {
            running.stop(Stop::Cancelled);
        }
    }

    /// Why the turn was asked to stop, if it was.
    pub(crate) fn stopped(&self, turn: &TurnId) -> Option<Stop> {
        self.lock().get(turn)?.stopped
    }

    /// The turn's end could not be written, and is tried again.
    pub(crate) fn end_refused(&self, turn: &TurnId, lacks_room: bool) {
        if let Some(running) = self.lock().get_mut(turn) {
            running.lacks_room = lacks_room;
        }
    }

    /// Whether a turn of the session does not end for want of room.
    pub(crate) fn lacks_room(&self, session: &SessionId) -> bool {
        self.lock().values().any(|running| running.session == *session && running.lacks_room)
    }

    /// Cancels whatever the session runs, and waits for its end.
    pub(crate) async fn cancel_session(&self, session: &SessionId) {
        self.stop_session(session, Stop::Cancelled).await;
    }

    /// Stops whatever the session runs, because its time is over, and waits for its end.
    pub(crate) async fn expire_session(&self, session: &SessionId) {
        self.stop_session(session, Stop::Expired).await;
    }

    async fn stop_session(&self, session: &SessionId, why: Stop) {
        for running in self.lock().values_mut().filter(|running| running.session == *session) {
            running.stop(why);
        }
        for running in self.matching(|running| running.session == *session) {
            running.ended.cancelled().await;
        }
    }

    /// Waits until none of the turns that are listed now runs any more.
    pub(crate) async fn all_ended(&self) {
        for running in self.matching(|_| true) {
            running.ended.cancelled().await;
        }
    }

    /// Whether the session runs a turn here.
    pub(crate) fn is_running(&self, session: &SessionId) -> bool {
        self.lock().values().any(|running| running.session == *session)
    }

    /// The turns that run here or are about to, with their sessions.
    pub(crate) fn all(&self) -> Vec<(TurnId, SessionId)> {
        self.lock().iter().map(|(turn, running)| (turn.clone(), running.session.clone())).collect()
    }

    /// How many turns run.
    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    fn matching(&self, which: impl Fn(&Running) -> bool) -> Vec<Running> {
        self.lock().values().filter(|running| which(running)).cloned().collect()
    }

    // The map is whole after any panic, so a poisoned lock is still good.
    fn lock(&self) -> MutexGuard<'_, HashMap<TurnId, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let removed = self.turns.lock().remove(&self.turn);
        if let Some(running) = removed {
            running.ended.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_taken_up_only_when_nobody_here_drives_it() {
        let (turns, session, turn) =
            (Turns::default(), SessionId::from_random([1; 6]), TurnId::from_random([1; 12]));
        let first = turns.list(&session, &turn);
        assert!(turns.take_up(&session, &turn).is_none());
        turns.cancel(&turn);
        assert!(first.cancel.is_cancelled(), "the first is still the one that is listed");
        drop(first);
        let second = turns.take_up(&session, &turn).unwrap();
        assert!(!second.cancel.is_cancelled() && turns.take_up(&session, &turn).is_none());
        assert_eq!(turns.all(), [(turn, session)]);
    }

    #[test]
    fn a_cancel_holds_though_the_session_expires() {
        use futures_util::FutureExt as _;
        let (turns, session, turn) =
            (Turns::default(), SessionId::from_random([1; 6]), TurnId::from_random([1; 12]));
        let listed = turns.list(&session, &turn);
        assert_eq!(turns.stopped(&turn), None);
        assert!(turns.expire_session(&session).now_or_never().is_none(), "it has not ended yet");
        assert_eq!(turns.stopped(&turn), Some(Stop::Expired));
        turns.cancel(&turn);
        assert_eq!(turns.stopped(&turn), Some(Stop::Cancelled));
        assert!(turns.expire_session(&session).now_or_never().is_none());
        assert_eq!(turns.stopped(&turn), Some(Stop::Cancelled));
        assert!(listed.cancel.is_cancelled());
    }
}
