//! Send a message, follow a turn, cancel it.

use palisade_protocol::{Error, ErrorKind, Event, Item, SessionId, TurnId, limits};
use palisade_store::{Follower, IdempotencyKey, NewTurn, StoreError, Turn, TurnState};

use crate::clock::now;
use crate::share::Place;
use crate::skills::SessionKeep;
use crate::turn::{TurnJob, TurnStart, spawn};
use crate::{OpCtx, Runtime};

/// A turn and a reader of its events.
pub struct TurnStream {
    /// Which turn.
    pub turn: TurnId,
    /// Its events, from where the caller asked.
    pub events: Follower,
    /// The reader's place among its tenant's.
    pub place: Place,
}

/// What sending a message came to.
pub enum Sent {
    /// A turn, new or the one that an earlier request with the same key started.
    Stream(TurnStream),
    /// An earlier request with the same key started this turn, whose events are no longer kept.
    Evicted(TurnId),
}

/// What a cancel came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// The turn will end with `message.cancelled`.
    Cancelling,
    /// It had ended already.
    AlreadyComplete,
}

impl Runtime {
    /// Starts a turn. When this returns, the message is durable and the turn runs to its end whether or not
    /// anybody follows it.
    pub async fn send_message(
        &self,
        ctx: &OpCtx,
        id: &SessionId,
        message: String,
        key: Option<String>,
    ) -> Result<Sent, Error> {
        check_message(&message)?;
        let key = key.map(|key| idempotency_key(key, &message)).transpose()?;
        if let Some(key) = &key
            && let Some(sent) = self.sent_before(ctx, id, key).await?
        {
            return Ok(sent);
        }
        let tenant = &*self.rooms.tenant(ctx)?;
        self.rooms.disk.check()?;
        // Before anything is started: a turn whose first reader is refused would look like one that was not begun.
        let place = tenant.share.reader()?;
        let session = self.rooms.session(ctx, id).await?;
        let keep = match tenant.share.store.session_context(id).await? {
            Some(context) => serde_json::from_value::<SessionKeep>(context).map_err(Error::bug)?,
            None => return Err(Error::no_such_session()),
        };
        let account = self.rooms.live().billing.account(ctx, &tenant.config);
        let turn = TurnId::from_random(palisade_vault::random().map_err(Error::bug)?);
        // Before the turn is written: one that is written under a name that this server is about to lose stops.
        let lease_over = self.rooms.lease.over();
        let listed = self.rooms.turns.list(id, &turn);
        if self.rooms.draining.is_cancelled() {
            let text = "the server is shutting down; try again in a moment";
            return Err(Error::new(ErrorKind::Unavailable, "server.draining", text));
        }
        let started_at = now();
        let created = Event::Created { id: turn.clone(), session_id: id.clone(), status: "in_progress" };
        let new = NewTurn {
            id: turn.clone(),
            tenant: ctx.tenant().clone(),
            session: id.clone(),
            now: started_at,
            key: key.clone(),
            events: vec![created.render(0)],
            items: vec![Item::UserMessage { text: message }],
            account,
        };
        let start = TurnStart { turn: turn.clone(), generation: 1, next_seq: 1, step_seq: 0, started_at };
        let job = TurnJob::new(&self.rooms, tenant, (session, keep), start, &listed, lease_over)?;
        // In a task of its own: a caller that hangs up between the commit and the start would leave a turn that
        // nobody drives.
        let (rooms, store) = (self.rooms.clone(), tenant.share.store.clone());
        let started = self.rooms.tasks.spawn(async move {
            store.start_turn(new).await?;
            rooms.metrics.turn_started();
            spawn(&rooms, job, listed);
            Ok(())
        });
        match (started.await.map_err(Error::bug)?, &key) {
            (Ok(()), _) => {}
            // Another request with this key was quicker: this one is its retry.
            (Err(StoreError::KeyTaken), Some(key)) => {
                let sent = self.sent_before(ctx, id, key).await?;
                return sent.ok_or_else(|| Error::bug("an idempotency key is taken and not there"));
            }
            (Err(error), _) => return Err(error.into()),
        }
        tracing::info!(tenant = %ctx.tenant(), session = %id, turn = %turn, "turn started");
        Ok(Sent::Stream(TurnStream { events: tenant.share.store.follow(&turn, None), turn, place }))
    }

    /// What an earlier request with the same key started; it must have been the same request.
    async fn sent_before(
        &self,
        ctx: &OpCtx,
        id: &SessionId,
        key: &IdempotencyKey,
    ) -> Result<Option<Sent>, Error> {
        let share = self.rooms.tenant(ctx)?.share.clone();
        let store = &share.store;
        let Some(used) = store.key_use(ctx.tenant(), &key.key, now()).await? else {
            return Ok(None);
        };
        if used.session != *id || used.body_hash != key.body_hash {
            let message = "this Idempotency-Key was used for another message or another session; take a new key for a new message";
            return Err(Error::new(ErrorKind::IdempotencyMismatch, "idempotency.mismatch", message));
        }
        // A session that is gone is gone for retries, too.
        self.rooms.session(ctx, id).await?;
        let turn = used.turn;
        Ok(Some(match store.kept_events(&turn).await? {
            Some((0, _)) => {
                let place = share.reader()?;
                Sent::Stream(TurnStream { events: store.follow(&turn, None), turn, place })
            }
            _ => Sent::Evicted(turn),
        }))
    }

    /// Follows a turn from the event after `after`. A turn that is unknown, another session's, or whose events
    /// have been evicted is not found; a number from the future is malformed. `None` when the caller has seen the terminal event.
    pub async fn follow_turn(
        &self,
        ctx: &OpCtx,
        session: &SessionId,
        turn: &TurnId,
        after: Option<u64>,
    ) -> Result<Option<TurnStream>, Error> {
        // The state first: what was over then has its last event now.
        let state = self.turn_of(ctx, session, turn).await?.state;
        let share = self.rooms.tenant(ctx)?.share.clone();
        let place = share.reader()?;
        let Some((first, last)) = share.store.kept_events(turn).await? else {
            return Err(no_such_turn());
        };
        // The sweep may be half through.
        if first > after.map_or(0, |after| after + 1) {
            return Err(no_such_turn());
        }
        if after.is_some_and(|after| after > last) {
            let message = format!("Last-Event-ID is beyond the last event, which is {last}");
            return Err(Error::new(ErrorKind::Malformed, "events.from_the_future", message));
        }
        if state == TurnState::Ended && after == Some(last) {
            return Ok(None);
        }
        let events = share.store.follow(turn, after);
        Ok(Some(TurnStream { turn: turn.clone(), events, place }))
    }

    /// Asks a turn to stop. Repeating it is harmless.
    pub async fn cancel_turn(
        &self,
        ctx: &OpCtx,
        session: &SessionId,
        turn: &TurnId,
    ) -> Result<Cancelled, Error> {
        let found = self.turn_of(ctx, session, turn).await?;
        // Durable before it is acknowledged: from here on the store takes no other end, whoever drives the turn.
        if found.state == TurnState::Ended || !self.rooms.store_of(ctx.tenant()).request_cancel(turn).await? {
            return Ok(Cancelled::AlreadyComplete);
        }
        // What does not run here is told by the store, or is about to be taken over, and is ended then.
        self.rooms.turns.cancel(turn);
        Ok(Cancelled::Cancelling)
    }

    async fn turn_of(&self, ctx: &OpCtx, session: &SessionId, turn: &TurnId) -> Result<Turn, Error> {
        self.rooms.session(ctx, session).await?;
        let found =
            self.rooms.store_of(ctx.tenant()).turn(turn).await?.filter(|found| found.session == *session);
        found.ok_or_else(no_such_turn)
    }
}

fn no_such_turn() -> Error {
    Error::new(
        ErrorKind::NotFound,
        "response.not_found",
        "no such response in this session, or its events are no longer kept",
    )
}

/// Longest idempotency key, in bytes.
const KEY_BYTES_MAX: usize = 255;

fn idempotency_key(key: String, message: &str) -> Result<IdempotencyKey, Error> {
    if !(1..=KEY_BYTES_MAX).contains(&key.len()) {
        let text = format!("an Idempotency-Key has from 1 to {KEY_BYTES_MAX} characters");
        return Err(Error::new(ErrorKind::Malformed, "idempotency.bad_key", text));
    }
    Ok(IdempotencyKey { key, body_hash: palisade_vault::sha256_hex(message.as_bytes()) })
}

fn check_message(message: &str) -> Result<(), Error> {
    if message.trim().is_empty() {
        return Err(Error::new(
            ErrorKind::Malformed,
            "message.empty",
            "'message' is empty; say what is to be done",
        ));
    }
    if message.len() > limits::MESSAGE_BYTES_MAX {
        let text = format!(
            "'message' has {} bytes; at most {} are taken. Upload long material as a file and name it",
            message.len(),
            limits::MESSAGE_BYTES_MAX
        );
        return Err(Error::new(ErrorKind::TooLarge, "message.too_large", text));
    }
    Ok(())
}
