//! Which turns run here, and how to stop them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use palisade_protocol::{SessionId, TurnId};
use tokio_util::sync::CancellationToken;

/// The running turns, by session: a session has one at most.
#[derive(Default)]
pub(crate) struct Turns {
    running: Mutex<HashMap<SessionId, Running>>,
}

#[derive(Clone)]
struct Running {
    turn: TurnId,
    cancel: CancellationToken,
    ended: CancellationToken,
}

/// Takes the turn off the list when its task ends, however it ends.
pub(crate) struct Listed<'a> {
    turns: &'a Turns,
    session: SessionId,
    ended: CancellationToken,
}

impl Turns {
    /// Lists a turn that is about to run.
    pub(crate) fn list(&self, session: &SessionId, turn: &TurnId, cancel: &CancellationToken) -> Listed<'_> {
        let ended = CancellationToken::new();
        let running = Running { turn: turn.clone(), cancel: cancel.clone(), ended: ended.clone() };
        self.lock().insert(session.clone(), running);
        Listed { turns: self, session: session.clone(), ended }
    }

    /// Cancels the turn, if it is this one that runs; whether it did.
    pub(crate) fn cancel(&self, session: &SessionId, turn: &TurnId) -> bool {
        let running = self.lock().get(session).filter(|running| running.turn == *turn).cloned();
        running.map(|running| running.cancel.cancel()).is_some()
    }

    /// Cancels whatever the session runs, and waits for its end.
    pub(crate) async fn cancel_session(&self, session: &SessionId) {
        let running = self.lock().get(session).cloned();
        if let Some(running) = running {
            running.cancel.cancel();
            running.ended.cancelled().await;
        }
    }

    /// Waits until no turn runs here.
    pub(crate) async fn all_ended(&self) {
        let all: Vec<Running> = self.lock().values().cloned().collect();
        for running in all {
            running.ended.cancelled().await;
        }
    }

    /// Whether the session runs a turn here.
    pub(crate) fn is_running(&self, session: &SessionId) -> bool {
        self.lock().contains_key(session)
    }

    /// How many turns run.
    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    // The map is whole after any panic, so a poisoned lock is still good.
    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.turns.lock().remove(&self.session);
        self.ended.cancel();
    }
}
