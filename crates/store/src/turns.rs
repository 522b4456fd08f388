//! Turns: started, appended to, ended, taken over. Every write of a turn names the attempt that makes it, and an
//! attempt that does not own the turn any more changes nothing; on PostgreSQL the turn's row is held from that look
//! until the commit, so that a take-over and a commit come one after the other.

use std::collections::HashSet;

use palisade_protocol::event::RenderedEvent;
use palisade_protocol::item::TurnOutcome;
use palisade_protocol::{Item, SessionId, TurnId};

use crate::engine::{Connection, placeholders, query, query_built};
use crate::read::keys_kept_since;
use crate::sweep::make_evictable;
use crate::write::{Commit, Write, to_json, unless_taken, writing};
use crate::{ClientAnswer, IdempotencyKey, NewTurn, Store, StoreError, audit, metering};

/// Rows in one INSERT: each number of rows is a statement of its own, which is prepared once.
const ROWS_PER_INSERT_MAX: usize = 64;

impl Store {
    /// Starts a turn, unless the session is gone ([`StoreError::NoSuchSession`]) or has one
    /// ([`StoreError::Busy`]). Durable when this returns.
    pub async fn start_turn(&self, new: NewTurn) -> Result<(), StoreError> {
        self.writer.write(Write::StartTurn(new)).await.map(drop)
    }

    /// Appends to a running turn; durable, and visible to every reader, when this returns.
    pub async fn commit(&self, commit: Commit) -> Result<(), StoreError> {
        self.writer.write(Write::Commit(commit)).await.map(drop)
    }

    /// Ends a turn whose end is refused again and again, without settling it: what it has set aside is released, what it
    /// has used is not posted, and [`Store::ledger_faults`] names it with `why`.
    pub async fn end_unsettled(&self, commit: Commit, why: String) -> Result<(), StoreError> {
        self.writer.write(Write::EndUnsettled { commit, why }).await.map(drop)
    }

    /// Keeps a client's answers for the turn to take up; all of them or none.
    pub async fn answer_calls(&self, turn: &TurnId, answers: Vec<ClientAnswer>) -> Result<(), StoreError> {
        self.writer.write(Write::AnswerCalls { turn: turn.clone(), answers }).await.map(drop)
    }

    /// Lets a running turn go in good order: whoever takes it over counts no crash.
    pub async fn release(&self, turn: &TurnId, generation: i64) -> Result<(), StoreError> {
        self.writer.write(Write::Release { turn: turn.clone(), generation }).await.map(drop)
    }

    /// Writes down that somebody wants the turn cancelled; whether it was still running. If it was, it ends as
    /// cancelled, whoever drives it.
    pub async fn request_cancel(&self, turn: &TurnId) -> Result<bool, StoreError> {
        Ok(self.writer.write(Write::RequestCancel { turn: turn.clone() }).await? > 0)
    }

    /// Makes the attempt after `generation` the turn's owner, on this server, and returns its number. Refused as
    /// [`StoreError::Fenced`] when somebody else was quicker or the turn has ended.
    pub async fn take_over(
        &self,
        session: &SessionId,
        turn: &TurnId,
        generation: i64,
    ) -> Result<i64, StoreError> {
        let (session, turn) = (session.clone(), turn.clone());
        self.writer.write(Write::TakeOver { session, turn, generation }).await?;
        Ok(generation + 1)
    }
}

pub(crate) async fn start(db: &mut Connection, server: &str, new: &NewTurn) -> Result<u64, StoreError> {
    // A session over its ttl is gone, whether or not it has been taken away yet.
    let touched = query(
        "UPDATE session SET last_activity = $1 WHERE id = $2 AND tenant = $3 AND created_at + ttl > $1",
    )
    .bind(new.now)
    .bind(new.session.as_str())
    .bind(new.tenant.as_str())
    .execute(&mut *db)
    .await
    .map_err(writing("a session"))?;
    if touched == 0 {
        return Err(StoreError::NoSuchSession(new.session.clone()));
    }
    // Before the turn: a retry while the first is running is a replay and no conflict.
    if let Some(key) = &new.key {
        take_key(db, new, key).await?;
    }
    query(
        "INSERT INTO turn (id, session_id, state, generation, owner, started_at, caller, ledger)
         VALUES ($1, $2, 'running', 1, $3, $4, $5, $6)",
    )
    .bind(new.id.as_str())
    .bind(new.session.as_str())
    .bind(server)
    .bind(new.now)
    .bind(&new.account.caller)
    .bind(new.account.charge.as_ref().map(|charge| charge.ledger.as_str()))
    .execute(&mut *db)
    .await
    .map_err(unless_taken("a turn", StoreError::Busy(new.session.clone())))?;
    metering::admit(db, new).await?;
    append_events(db, &of_turn(&new.id, &new.events)).await?;
    append_items(db, &new.session, &new.id, &new.items).await?;
    Ok(1)
}

/// A key whose time is over is free, whether or not it has been swept.
async fn take_key(db: &mut Connection, new: &NewTurn, key: &IdempotencyKey) -> Result<(), StoreError> {
    let taken = query(
        "INSERT INTO idempotency_key (tenant, key, session_id, body_hash, turn_id, created_at)
         VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (tenant, key) DO UPDATE
         SET session_id = excluded.session_id, body_hash = excluded.body_hash, turn_id = excluded.turn_id,
             created_at = excluded.created_at
         WHERE idempotency_key.created_at <= $7",
    )
    .bind(new.tenant.as_str())
    .bind(&key.key)
    .bind(new.session.as_str())
    .bind(&key.body_hash)
    .bind(new.id.as_str())
    .bind(new.now)
    .bind(keys_kept_since(new.now))
    .execute(db)
    .await
    .map_err(writing("an idempotency key"))?;
    if taken == 0 { Err(StoreError::KeyTaken) } else { Ok(()) }
}

/// Writes many appends with few statements: one answer for each. An `Err` is of all of them.
pub(crate) async fn append_all(
    db: &mut Connection,
    appends: &[&Commit],
) -> Result<Vec<Result<u64, StoreError>>, StoreError> {
    let owned = Owned::look(db, appends).await?;
    let ours = appends.iter().filter(|commit| owned.has(commit));
    let events: Vec<_> = ours.flat_map(|commit| of_turn(&commit.turn, &commit.events)).collect();
    append_events(db, &events).await?;
    Ok(appends.iter().map(|commit| owned.answer(commit)).collect())
}

/// The same as one statement that is a transaction by itself: for a database where nobody else writes, so that the fences can be looked
/// at again behind it. Each statement changes threads twice on SQLite, which costs more than what it does. `None`: they are too many.
pub(crate) async fn append_all_at_once(
    db: &mut Connection,
    appends: &[&Commit],
) -> Result<Option<Vec<Result<u64, StoreError>>>, StoreError> {
    let rows: usize = appends.iter().map(|commit| commit.events.len()).sum();
    if rows == 0 || rows > ROWS_PER_INSERT_MAX {
        return Ok(None);
    }
    let mut insert = query_built(format!(
        "INSERT INTO event (turn_id, seq, kind, data)
         SELECT column1, column3, column4, column5 FROM (VALUES {})
         WHERE EXISTS (SELECT 1 FROM turn WHERE id = column1 AND generation = column2 AND state = 'running')",
        placeholders(1, rows, 5)
    ));
    for commit in appends {
        for event in &commit.events {
            insert = insert.bind(commit.turn.as_str()).bind(commit.generation);
            insert = insert.bind(event.seq.cast_signed()).bind(&event.kind).bind(&event.data);
        }
    }
    if insert.execute(&mut *db).await.map_err(writing("events"))? == rows as u64 {
        return Ok(Some(appends.iter().map(|_| Ok(0)).collect()));
    }
    let owned = Owned::look(db, appends).await?;
    Ok(Some(appends.iter().map(|commit| owned.answer(commit)).collect()))
}

/// The running turns of some commits, with the attempts that own them.
struct Owned(HashSet<(String, i64)>);

impl Owned {
    /// Looks at all fences at once, and holds them.
    async fn look(db: &mut Connection, appends: &[&Commit]) -> Result<Self, StoreError> {
        let Some(last) = appends.last() else { return Ok(Self(HashSet::new())) };
        // The number of placeholders is a power of two, so that few statements are prepared; the last stands in for
        // those that are not there.
        let asked = appends.len().next_power_of_two();
        let mut find = query_built(format!(
            "SELECT id, generation FROM turn WHERE id IN {} AND state = 'running' ORDER BY id{}",
            placeholders(1, 1, asked),
            db.for_update()
        ));
        for at in 0..asked {
            find = find.bind(appends.get(at).unwrap_or(last).turn.as_str());
        }
        let found = find.all(db).await.map_err(writing("a turn's fence"))?;
        Ok(Self(found.into_iter().collect()))
    }

    fn has(&self, commit: &Commit) -> bool {
        self.0.contains(&(commit.turn.as_str().to_owned(), commit.generation))
    }

    fn answer(&self, commit: &Commit) -> Result<u64, StoreError> {
        if self.has(commit) { Ok(0) } else { Err(StoreError::Fenced(commit.turn.clone())) }
    }
}

/// A commit with items or an end; one of events alone comes here when it must be written for itself.
pub(crate) async fn commit(db: &mut Connection, commit: &Commit) -> Result<u64, StoreError> {
    if let Some((_, now)) = commit.end {
        // The session before the turn, in the order in which a delete takes them: two servers never wait for each
        // other in a circle.
        let touch = query("UPDATE session SET last_activity = $1 WHERE id = $2");
        let touch = touch.bind(now).bind(commit.session.as_str()).execute(&mut *db).await;
        touch.map_err(writing("a session"))?;
    }
    own(db, commit).await?;
    append_events(db, &of_turn(&commit.turn, &commit.events)).await?;
    append_items(db, &commit.session, &commit.turn, &commit.items).await?;
    if let Some(call) = &commit.metered {
        metering::meter(db, &commit.turn, call).await?;
    }
    if let Some(skill) = &commit.skill {
        audit::record_skill(db, &commit.turn, skill).await?;
    }
    if let Some((outcome, now)) = commit.end {
        metering::settle(db, &commit.turn, outcome, now).await?;
        end(db, commit, now).await?;
    }
    Ok(0)
}

/// The end of a turn that could not be settled.
pub(crate) async fn end_unsettled(
    db: &mut Connection,
    commit: &Commit,
    why: &str,
) -> Result<u64, StoreError> {
    let Some((_, now)) = commit.end else { return Ok(0) };
    own(db, commit).await?;
    append_events(db, &of_turn(&commit.turn, &commit.events)).await?;
    append_items(db, &commit.session, &commit.turn, &commit.items).await?;
    metering::leave_unsettled(db, &commit.turn, now, why).await?;
    end(db, commit, now).await.map(|()| 0)
}

/// Holds the turn for the attempt that owns it, and writes down its state.
async fn own(db: &mut Connection, commit: &Commit) -> Result<(), StoreError> {
    let last_seq = commit.events.last().map_or(-1, |event| event.seq.cast_signed());
    let is_step = !commit.items.is_empty();
    // The fence and what changes of the turn are one statement. What the readers have seen up to a step's end will
    // not be said again by a take-over. A cancel that was acknowledged, by whichever server, allows no other end.
    let is_other_end = commit.end.is_some_and(|(outcome, _)| outcome != TurnOutcome::Cancelled);
    let owned = query(
        "UPDATE turn SET state = $1, ended_at = $2,
                step_seq = CASE WHEN NOT $3 THEN step_seq WHEN $4 >= 0 THEN $4
                           ELSE COALESCE((SELECT MAX(seq) FROM event WHERE turn_id = $5), 0) END
         WHERE id = $5 AND generation = $6 AND state = 'running' AND NOT ($7 AND cancel_requested)",
    )
    .bind(commit.end.map_or("running", |(outcome, _)| state_name(outcome)))
    .bind(commit.end.map(|(_, now)| now))
    .bind(is_step)
    .bind(last_seq)
    .bind(commit.turn.as_str())
    .bind(commit.generation)
    .bind(is_other_end)
    .execute(&mut *db)
    .await
    .map_err(writing("a turn's fence"))?;
    if owned == 0 {
        return Err(refusal(db, commit).await?);
    }
    Ok(())
}

/// Why the turn did not take the commit.
async fn refusal(db: &mut Connection, commit: &Commit) -> Result<StoreError, StoreError> {
    let ours = query("SELECT id FROM turn WHERE id = $1 AND generation = $2 AND state = 'running'");
    let ours = ours.bind(commit.turn.as_str()).bind(commit.generation).optional::<(String,)>(db).await;
    let is_ours = ours.map_err(writing("a turn's fence"))?.is_some();
    let turn = commit.turn.clone();
    Ok(if is_ours { StoreError::CancelRequested(turn) } else { StoreError::Fenced(turn) })
}

/// What follows from a turn's end.
async fn end(db: &mut Connection, commit: &Commit, now: f64) -> Result<(), StoreError> {
    make_evictable(db, &commit.turn, now).await?;
    let forget = query("DELETE FROM client_result WHERE turn_id = $1").bind(commit.turn.as_str());
    forget.execute(db).await.map(drop).map_err(writing("a turn's end"))
}

/// The state's name in the table.
pub(crate) fn state_name(outcome: TurnOutcome) -> &'static str {
    match outcome {
        TurnOutcome::Completed => "completed",
        TurnOutcome::Cancelled => "cancelled",
        TurnOutcome::Failed => "failed",
    }
}

/// All of them or none: a client that has to repeat its request should not wonder which were taken.
pub(crate) async fn answer_calls(
    db: &mut Connection,
    turn: &TurnId,
    answers: &[ClientAnswer],
) -> Result<u64, StoreError> {
    // Held until the answers are written: an end, or a delete, that comes at the same time forgets them or refuses them.
    let running = format!("SELECT id FROM turn WHERE id = $1 AND state = 'running'{}", db.for_update());
    let running = query_built(running).bind(turn.as_str()).optional::<(String,)>(&mut *db).await;
    if running.map_err(writing("a client's answer"))?.is_none() {
        return Err(StoreError::Fenced(turn.clone()));
    }
    for answer in answers {
        query("INSERT INTO client_result (turn_id, call_id, content, is_error) VALUES ($1, $2, $3, $4)")
            .bind(turn.as_str())
            .bind(&answer.call_id)
            .bind(&answer.content)
            .bind(answer.is_error)
            .execute(&mut *db)
            .await
            .map_err(unless_taken("a client's answer", StoreError::AnsweredTwice(answer.call_id.clone())))?;
    }
    Ok(answers.len() as u64)
}

pub(crate) async fn release(db: &mut Connection, turn: &TurnId, generation: i64) -> Result<u64, StoreError> {
    query("UPDATE turn SET released = TRUE WHERE id = $1 AND generation = $2 AND state = 'running'")
        .bind(turn.as_str())
        .bind(generation)
        .execute(db)
        .await
        .map_err(writing("a turn's release"))
}

pub(crate) async fn request_cancel(db: &mut Connection, turn: &TurnId) -> Result<u64, StoreError> {
    let ask = query("UPDATE turn SET cancel_requested = TRUE WHERE id = $1 AND state = 'running'");
    ask.bind(turn.as_str()).execute(db).await.map_err(writing("a cancel"))
}

/// The next attempt owns the turn from here on; commits of the one before are refused.
pub(crate) async fn take_over(
    db: &mut Connection,
    server: &str,
    turn: &TurnId,
    generation: i64,
) -> Result<u64, StoreError> {
    let taken = query(
        "UPDATE turn SET generation = generation + 1, owner = $1, released = FALSE,
                crashes = crashes + CASE WHEN released THEN 0 ELSE 1 END
         WHERE id = $2 AND generation = $3 AND state = 'running'",
    )
    .bind(server)
    .bind(turn.as_str())
    .bind(generation)
    .execute(db)
    .await
    .map_err(writing("a turn's owner"))?;
    if taken == 0 { Err(StoreError::Fenced(turn.clone())) } else { Ok(taken) }
}

fn of_turn<'e>(turn: &'e TurnId, events: &'e [RenderedEvent]) -> Vec<(&'e TurnId, &'e RenderedEvent)> {
    events.iter().map(|event| (turn, event)).collect()
}

async fn append_events(db: &mut Connection, events: &[(&TurnId, &RenderedEvent)]) -> Result<(), StoreError> {
    for rows in events.chunks(ROWS_PER_INSERT_MAX) {
        let values = placeholders(1, rows.len(), 4);
        let mut insert = query_built(format!("INSERT INTO event (turn_id, seq, kind, data) VALUES {values}"));
        for (turn, event) in rows {
            insert =
                insert.bind(turn.as_str()).bind(event.seq.cast_signed()).bind(&event.kind).bind(&event.data);
        }
        insert.execute(&mut *db).await.map_err(writing("events"))?;
    }
    Ok(())
}

async fn append_items(
    db: &mut Connection,
    session: &SessionId,
    turn: &TurnId,
    items: &[Item],
) -> Result<(), StoreError> {
    for item in items {
        query(
            "INSERT INTO item (session_id, idx, turn_id, body)
             SELECT $1, COALESCE(MAX(idx), -1) + 1, $2, $3 FROM item WHERE session_id = $1",
        )
        .bind(session.as_str())
        .bind(turn.as_str())
        .bind(&to_json("an item", item)?)
        .execute(&mut *db)
        .await
        .map_err(writing("an item"))?;
    }
    Ok(())
}
