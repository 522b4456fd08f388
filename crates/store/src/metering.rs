//! Metering: what turns use, counted where they use it. A turn is counted in the transaction that starts it, a model
//! call in the one that makes its answer an item, and a turn's debit is posted in the one that ends it; so a crash
//! between any two leaves nothing billed twice and nothing forgotten. A cancelled turn is counted and not debited.

use palisade_protocol::audit::EventType;
use palisade_protocol::item::TurnOutcome;
use palisade_protocol::limits::TOKENS_PER_CALL_MAX;
use palisade_protocol::money::CreditMode;
use palisade_protocol::rate::{self, Bucket, MinuteUsed, RateLimits, Used, WINDOWS};
use palisade_protocol::{LedgerName, MicroCredits, TenantName, TurnId, Usage};

use crate::engine::{Connection, Query, query};
use crate::ledger::{self, CUSTOMER, REVENUE};
use crate::read::reading;
use crate::write::{Write, writing};
use crate::{NewTurn, Store, StoreError};

/// Who starts a turn, what it may use, and who pays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnAccount {
    /// The tenant's token, by its configured id.
    pub caller: String,
    /// What the caller may use.
    pub rate: RateLimits,
    /// Without one nothing is debited.
    pub charge: Option<Charge>,
}

impl Default for TurnAccount {
    /// Nobody's, without limits, for nothing.
    fn default() -> Self {
        Self { caller: String::new(), rate: RateLimits([None, None]), charge: None }
    }
}

/// Who pays for a turn, and on which terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// The ledger.
    pub ledger: LedgerName,
    /// Whether it refuses what cannot be paid.
    pub mode: CreditMode,
    /// In hard mode: less than this and the turn does not start; it is set aside at once.
    pub minimum: MicroCredits,
}

/// One model call of a turn.
#[derive(Debug, Clone, PartialEq)]
pub struct MeteredCall {
    /// The n-th of its turn and kind, from 1.
    pub call: i64,
    /// What it was made for.
    pub kind: EventType,
    /// The catalog's name.
    pub model: String,
    /// As the upstream counted.
    pub usage: Usage,
    /// By today's tariff.
    pub cost: MicroCredits,
    /// Unix seconds.
    pub at: f64,
}

/// What one caller has used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallerUsage {
    /// Whose token.
    pub tenant: TenantName,
    /// The token, by its configured id.
    pub caller: String,
    /// `session_turn` or `response`.
    pub bucket: String,
    /// In the hour and in the day.
    pub used: [Used; 2],
}

impl Store {
    /// Sets aside what the turn has used so far and what its next call may cost; [`StoreError::CreditsExhausted`]
    /// when the ledger has less.
    pub async fn reserve(
        &self,
        turn: &TurnId,
        generation: i64,
        estimate: MicroCredits,
    ) -> Result<(), StoreError> {
        self.writer.write(Write::Reserve { turn: turn.clone(), generation, estimate }).await.map(drop)
    }

    /// Forgets usage that no window can see any more at `now` (Unix seconds).
    pub async fn sweep_usage(&self, now: f64) -> Result<u64, StoreError> {
        self.writer.write(Write::SweepUsage { before_minute: oldest_minute(now) }).await
    }

    /// What a caller has used in each of the windows that end at `now`.
    pub async fn used(
        &self,
        tenant: &TenantName,
        caller: &str,
        bucket: Bucket,
        now: f64,
    ) -> Result<[Used; 2], StoreError> {
        let sums = window_sums(tenant, caller, bucket, now).one::<(i64, i64, i64, i64)>(&self.readers).await;
        let (hour_turns, hour_tokens, turns, tokens) = sums.map_err(reading("usage"))?;
        Ok([used(hour_turns, hour_tokens), used(turns, tokens)])
    }

    /// What every caller has used that has used anything.
    pub async fn usage_of_all(&self, now: f64) -> Result<Vec<CallerUsage>, StoreError> {
        let rows = query(
            "SELECT tenant, caller, bucket,
                    CAST(SUM(CASE WHEN minute > $1 THEN turns ELSE 0 END) AS BIGINT),
                    CAST(SUM(CASE WHEN minute > $1 THEN tokens ELSE 0 END) AS BIGINT),
                    CAST(SUM(turns) AS BIGINT), CAST(SUM(tokens) AS BIGINT)
             FROM usage_minute WHERE minute >= $2 GROUP BY tenant, caller, bucket ORDER BY tenant, caller, bucket",
        );
        let rows = rows.bind(rate::minute_of(now) - WINDOWS[0].minutes).bind(oldest_minute(now));
        let rows = rows.all::<(String, String, String, i64, i64, i64, i64)>(&self.readers).await;
        let usage =
            |(tenant, caller, bucket, hour_turns, hour_tokens, turns, tokens): (String, _, _, _, _, _, _)| {
                let tenant = TenantName::parse(&tenant).map_err(crate::read::corrupt("a tenant's name"))?;
                Ok(CallerUsage {
                    tenant,
                    caller,
                    bucket,
                    used: [used(hour_turns, hour_tokens), used(turns, tokens)],
                })
            };
        rows.map_err(reading("usage"))?.into_iter().map(usage).collect()
    }
}

/// The sums of both windows: the database adds up, so that a day of minutes is one row.
const WINDOW_SUMS: &str =
    "SELECT CAST(COALESCE(SUM(CASE WHEN minute > $5 THEN turns ELSE 0 END), 0) AS BIGINT),
            CAST(COALESCE(SUM(CASE WHEN minute > $5 THEN tokens ELSE 0 END), 0) AS BIGINT),
            CAST(COALESCE(SUM(turns), 0) AS BIGINT), CAST(COALESCE(SUM(tokens), 0) AS BIGINT)
     FROM usage_minute WHERE tenant = $1 AND caller = $2 AND bucket = $3 AND minute >= $4";

fn window_sums<'q>(tenant: &'q TenantName, caller: &'q str, bucket: Bucket, now: f64) -> Query<'q> {
    let sums = query(WINDOW_SUMS).bind(tenant.as_str()).bind(caller).bind(bucket.name());
    sums.bind(oldest_minute(now)).bind(rate::minute_of(now) - WINDOWS[0].minutes)
}

const MINUTES: &str = "SELECT minute, turns, tokens FROM usage_minute
     WHERE tenant = $1 AND caller = $2 AND bucket = $3 AND minute >= $4";

/// The oldest minute that the longest window can see.
fn oldest_minute(now: f64) -> i64 {
    rate::minute_of(now) - WINDOWS.map(|window| window.minutes).into_iter().max().unwrap_or(0) + 1
}

fn used(turns: i64, tokens: i64) -> Used {
    Used { turns: turns.unsigned_abs(), tokens: tokens.unsigned_abs() }
}

fn minute_used((minute, turns, tokens): (i64, i64, i64)) -> MinuteUsed {
    MinuteUsed { minute, used: used(turns, tokens) }
}

pub(crate) async fn sweep(db: &mut Connection, before_minute: i64) -> Result<u64, StoreError> {
    let swept = query("DELETE FROM usage_minute WHERE minute < $1").bind(before_minute).execute(db).await;
    swept.map_err(writing("old usage"))
}

/// Counts the turn, and refuses it when its caller has used too much or its ledger has too little. To be called
/// once the turn's row is there.
pub(crate) async fn admit(db: &mut Connection, new: &NewTurn) -> Result<(), StoreError> {
    let (tenant, caller) = (new.tenant.as_str(), new.account.caller.as_str());
    count(db, (tenant, caller), new.now, (1, 0)).await?;
    if new.account.rate.0.iter().any(Option::is_some) {
        check_windows(db, new).await?;
    }
    let Some(charge) = &new.account.charge else { return Ok(()) };
    if charge.mode == CreditMode::Soft {
        return Ok(());
    }
    let available = ledger::available(db, charge.ledger.as_str(), new.id.as_str()).await?;
    if available < charge.minimum.0 {
        let (ledger, needed) = (charge.ledger.clone(), charge.minimum);
        return Err(StoreError::CreditsExhausted { ledger, available: MicroCredits(available), needed });
    }
    hold(db, new.id.as_str(), charge.ledger.as_str(), charge.minimum.0).await
}

/// Refuses the turn, which is counted already, when it is one too many.
async fn check_windows(db: &mut Connection, new: &NewTurn) -> Result<(), StoreError> {
    let (caller, bucket, rate) = (new.account.caller.as_str(), Bucket::SessionTurn, &new.account.rate);
    let sums = window_sums(&new.tenant, caller, bucket, new.now).one::<(i64, i64, i64, i64)>(&mut *db).await;
    let (hour_turns, hour_tokens, turns, tokens) = sums.map_err(writing("usage"))?;
    let before = [used(hour_turns - 1, hour_tokens), used(turns - 1, tokens)];
    if rate.0.iter().zip(before).all(|(limit, used)| limit.is_none_or(|limit| limit.has_room(used))) {
        return Ok(());
    }
    // Minute by minute only to say when there is room again.
    let minutes = query(MINUTES).bind(new.tenant.as_str()).bind(caller).bind(bucket.name());
    let rows = minutes.bind(oldest_minute(new.now)).all::<(i64, i64, i64)>(&mut *db).await;
    let mut minutes: Vec<MinuteUsed> = rows.map_err(writing("usage"))?.into_iter().map(minute_used).collect();
    let now_minute = rate::minute_of(new.now);
    if let Some(own) = minutes.iter_mut().find(|at| at.minute == now_minute) {
        own.used.turns = own.used.turns.saturating_sub(1);
    }
    match rate::refusal(rate, &minutes, new.now) {
        Some((window, wait_s)) => Err(StoreError::UsageLimit { window: window.name, wait_s }),
        None => Ok(()),
    }
}

/// Adds to what the caller has used in the minute of `at`.
async fn count(
    db: &mut Connection,
    (tenant, caller): (&str, &str),
    at: f64,
    (turns, tokens): (i64, i64),
) -> Result<(), StoreError> {
    let counted = query(
        "INSERT INTO usage_minute (tenant, caller, bucket, minute, turns, tokens) VALUES ($1, $2, $3, $4, $5, $6)
         ON CONFLICT (tenant, caller, bucket, minute) DO UPDATE
         SET turns = usage_minute.turns + excluded.turns, tokens = usage_minute.tokens + excluded.tokens",
    );
    let counted = counted.bind(tenant).bind(caller).bind(Bucket::SessionTurn.name());
    let counted = counted.bind(rate::minute_of(at)).bind(turns).bind(tokens).execute(db).await;
    counted.map(drop).map_err(writing("usage"))
}

async fn hold(db: &mut Connection, turn: &str, ledger: &str, amount: i64) -> Result<(), StoreError> {
    let held = query(
        "INSERT INTO hold (turn_id, ledger, amount) VALUES ($1, $2, $3)
         ON CONFLICT (turn_id) DO UPDATE SET amount = excluded.amount",
    );
    let held = held.bind(turn).bind(ledger).bind(amount).execute(db).await;
    held.map(drop).map_err(writing("a reservation"))
}

pub(crate) async fn reserve(
    db: &mut Connection,
    turn: &TurnId,
    generation: i64,
    estimate: MicroCredits,
) -> Result<u64, StoreError> {
    let owned = query("SELECT ledger FROM turn WHERE id = $1 AND generation = $2 AND state = 'running'");
    let owned = owned.bind(turn.as_str()).bind(generation).optional::<(Option<String>,)>(&mut *db).await;
    let Some((ledger,)) = owned.map_err(writing("a reservation"))? else {
        return Err(StoreError::Fenced(turn.clone()));
    };
    // Of a turn that nobody pays for there is nothing to set aside.
    let Some(ledger) = ledger else { return Ok(0) };
    let so_far = cost_so_far(db, turn).await?;
    // What the turn has used is spent, though it is not posted yet.
    let left = ledger::available(db, &ledger, turn.as_str()).await?.saturating_sub(so_far);
    if left < estimate.0 {
        let ledger = LedgerName::parse(&ledger).map_err(crate::read::corrupt("a ledger's name"))?;
        return Err(StoreError::CreditsExhausted { ledger, available: MicroCredits(left), needed: estimate });
    }
    hold(db, turn.as_str(), &ledger, so_far.saturating_add(estimate.0)).await.map(|()| 1)
}

async fn cost_so_far(db: &mut Connection, turn: &TurnId) -> Result<i64, StoreError> {
    let cost = query("SELECT CAST(COALESCE(SUM(cost), 0) AS BIGINT) FROM metered_call WHERE turn_id = $1");
    let cost = cost.bind(turn.as_str()).one::<(i64,)>(db).await;
    Ok(cost.map_err(writing("a turn's cost"))?.0)
}

/// Whose a turn is.
struct Owner {
    tenant: String,
    caller: String,
    ledger: Option<String>,
    session: String,
    model: String,
}

/// `None` for a turn that is gone with its session.
async fn owner_of(db: &mut Connection, turn: &TurnId) -> Result<Option<Owner>, StoreError> {
    let owner = query(
        "SELECT session.tenant, turn.caller, turn.ledger, session.id, session.model
         FROM turn JOIN session ON session.id = turn.session_id WHERE turn.id = $1",
    );
    let owner =
        owner.bind(turn.as_str()).optional::<(String, String, Option<String>, String, String)>(db).await;
    let owner = owner.map_err(writing("a turn's account"))?;
    Ok(owner.map(|(tenant, caller, ledger, session, model)| Owner { tenant, caller, ledger, session, model }))
}

/// Writes a call down with its answer. One that is there already is not counted again.
pub(crate) async fn meter(db: &mut Connection, turn: &TurnId, call: &MeteredCall) -> Result<(), StoreError> {
    let Some(owner) = owner_of(db, turn).await? else { return Ok(()) };
    let metered = query(
        "INSERT INTO metered_call (turn_id, call, kind, tenant, model, input_tokens, cached_tokens, output_tokens,
                                   reasoning_tokens, cost, at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (turn_id, call, kind) DO NOTHING",
    );
    let tokens = |count: u64| count.min(TOKENS_PER_CALL_MAX).cast_signed();
    let usage = &call.usage;
    let metered = metered
        .bind(turn.as_str())
        .bind(call.call)
        .bind(call.kind.name())
        .bind(&owner.tenant)
        .bind(&call.model)
        .bind(tokens(usage.input_tokens))
        .bind(tokens(usage.input_tokens_details.cached_tokens))
        .bind(tokens(usage.output_tokens))
        .bind(tokens(usage.output_tokens_details.reasoning_tokens))
        .bind(call.cost.0)
        .bind(call.at);
    if metered.execute(&mut *db).await.map_err(writing("a model call"))? == 0 {
        return Ok(());
    }
    let total = tokens(usage.input_tokens) + tokens(usage.output_tokens);
    count(db, (&owner.tenant, &owner.caller), call.at, (0, total)).await?;
    if owner.ledger.is_none() {
        return Ok(());
    }
    // What was expected of the call is known now.
    let cost = cost_so_far(db, turn).await?;
    let held = query("UPDATE hold SET amount = $2 WHERE turn_id = $1").bind(turn.as_str()).bind(cost);
    held.execute(db).await.map(drop).map_err(writing("a reservation"))
}

/// Posts what a turn has used, unless it was cancelled, releases what it had set aside, and leaves a record. To be
/// called in the transaction that ends the turn, once the turn is known to have been running.
pub(crate) async fn settle(
    db: &mut Connection,
    turn: &TurnId,
    outcome: TurnOutcome,
    now: f64,
) -> Result<(), StoreError> {
    let Some(owner) = owner_of(db, turn).await? else { return Ok(()) };
    let mut debit = 0;
    if let Some(ledger) = owner.ledger.as_deref() {
        if outcome != TurnOutcome::Cancelled {
            debit = cost_so_far(db, turn).await?;
        }
        if debit > 0 {
            post_calls(db, turn, ledger, now).await?;
            ledger::add_to(db, ledger, CUSTOMER, -debit).await?;
            ledger::add_to(db, ledger, REVENUE, debit).await?;
        }
        let released =
            query("DELETE FROM hold WHERE turn_id = $1").bind(turn.as_str()).execute(&mut *db).await;
        released.map_err(writing("a reservation"))?;
    }
    let recorded = query(
        "INSERT INTO audit_event (id, at, tenant, caller, event_type, session_id, response_id, name, input_tokens,
                                  cached_tokens, output_tokens, reasoning_tokens, micro_credits, outcome)
         SELECT $1, $2, $3, $4, $5, $6, $7, $8, CAST(COALESCE(SUM(input_tokens), 0) AS BIGINT),
                CAST(COALESCE(SUM(cached_tokens), 0) AS BIGINT), CAST(COALESCE(SUM(output_tokens), 0) AS BIGINT),
                CAST(COALESCE(SUM(reasoning_tokens), 0) AS BIGINT), $9, $10
         FROM metered_call WHERE turn_id = $7",
    );
    let recorded = recorded
        .bind(&format!("turn/{turn}"))
        .bind(now)
        .bind(&owner.tenant)
        .bind(&owner.caller)
        .bind(EventType::Turn.name())
        .bind(&owner.session)
        .bind(turn.as_str())
        .bind(&owner.model)
        .bind(debit)
        .bind(crate::turns::state_name(outcome))
        .execute(db)
        .await;
    recorded.map(drop).map_err(writing("an audit record"))
}

/// In the place of [`settle`], where that is refused: nothing is posted, nothing stays set aside, and an operator can see
/// why.
pub(crate) async fn leave_unsettled(
    db: &mut Connection,
    turn: &TurnId,
    now: f64,
    why: &str,
) -> Result<(), StoreError> {
    let released = query("DELETE FROM hold WHERE turn_id = $1").bind(turn.as_str()).execute(&mut *db).await;
    released.map_err(writing("a reservation"))?;
    let noted = query(
        "INSERT INTO unsettled_turn (turn_id, at, why) VALUES ($1, $2, $3) ON CONFLICT (turn_id) DO NOTHING",
    );
    let noted = noted.bind(turn.as_str()).bind(now).bind(why).execute(db).await;
    noted.map(drop).map_err(writing("a turn that is not settled"))
}

/// Two entries a call that cost anything.
async fn post_calls(db: &mut Connection, turn: &TurnId, ledger: &str, now: f64) -> Result<(), StoreError> {
    let posted = query(
        "INSERT INTO ledger_entry (posting, account, ledger, kind, amount, reason, at)
         SELECT 'call/' || turn_id || '/' || CAST(call AS TEXT) || '/' || kind, accounts.account, $2, 'usage',
                accounts.sign * cost, '', $3
         FROM metered_call, (SELECT $4 AS account, -1 AS sign UNION ALL SELECT $5, 1) AS accounts
         WHERE turn_id = $1 AND cost > 0",
    );
    let posted = posted.bind(turn.as_str()).bind(ledger).bind(now).bind(CUSTOMER).bind(REVENUE);
    posted.execute(db).await.map(drop).map_err(writing("a turn's debit"))
}
