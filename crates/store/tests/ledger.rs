//! Money and usage through the store's public face, on both engines: whatever happens in whatever order, the ledgers
//! add up, no call is paid twice and none is forgotten; and a limit is met exactly, however many ask at once.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy takes only test functions for tests, not what they call"
)]

mod engines;

use std::collections::{BTreeMap, BTreeSet};

use palisade_protocol::audit::EventType;
use palisade_protocol::item::TurnOutcome;
use palisade_protocol::limits::TOKENS_PER_CALL_MAX;
use palisade_protocol::money::CreditMode;
use palisade_protocol::rate::{Bucket, RateLimits, Used, WindowLimit};
use palisade_protocol::session::SessionStatus;
use palisade_protocol::{
    Event, FileAccess, Item, LedgerName, MicroCredits, Session, SessionId, TenantName, TurnId, Usage,
};
use palisade_store::{
    AuditRange, Charge, Commit, IdempotencyKey, MeteredCall, NewSession, NewTurn, Posting, PostingKind,
    SkillUse, Store, StoreError, StoreUrl, TurnAccount,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::task::JoinSet;

use engines::{Engine, on_both_engines};

on_both_engines!(
    of_many_at_once_exactly_as_many_start_as_may,
    a_hard_ledger_is_never_oversold_by_many_at_once,
    a_window_lets_go_of_what_is_old_and_survives_a_restart,
    a_refusal_and_a_retry_count_nothing,
    a_ledger_is_opened_once_and_a_posting_made_once,
    what_a_turn_set_aside_is_released_however_it_ends,
    the_audit_reads_in_pages_and_outlives_its_session,
    an_upstream_that_counts_without_bounds_stops_nobody,
    a_turn_that_cannot_be_settled_ends_all_the_same_and_is_named,
);

const NOW: f64 = 1_777_222_996.07;

fn tenant() -> TenantName {
    TenantName::parse("acme").unwrap()
}

fn ledger(name: &str) -> LedgerName {
    LedgerName::parse(name).unwrap()
}

fn bytes<const N: usize>(n: u32) -> [u8; N] {
    let mut bytes = [0; N];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    bytes
}

fn session_id(n: u32) -> SessionId {
    SessionId::from_random(bytes(n))
}

fn turn_id(n: u32) -> TurnId {
    TurnId::from_random(bytes(n))
}

async fn make_session(store: &Store, n: u32) {
    let session = Session {
        id: session_id(n),
        created_at: NOW,
        last_activity: NOW,
        busy: false,
        persistent: true,
        ttl: 1_000_000,
        status: SessionStatus::Ready,
        metadata: serde_json::Map::new(),
        file_access: FileAccess::default(),
        model: "pokee-isaac".into(),
        expires_at: NOW + 1e6,
        last_response_id: None,
        locked: vec![],
    };
    let new = NewSession {
        tenant: tenant(),
        session,
        context: "{}".to_owned(),
        snapshots: vec![],
        sessions_max: 1_000_000,
    };
    store.create_session(new).await.unwrap();
}

fn charged(ledger: &LedgerName, mode: CreditMode, minimum: i64) -> TurnAccount {
    let charge = Charge { ledger: ledger.clone(), mode, minimum: MicroCredits(minimum) };
    TurnAccount { caller: "default".into(), charge: Some(charge), ..TurnAccount::default() }
}

fn limited(turns_max: u64, tokens_max: u64) -> TurnAccount {
    let hour = Some(WindowLimit { turns_max, tokens_max });
    TurnAccount { caller: "default".into(), rate: RateLimits([hour, None]), charge: None }
}

fn new_turn(session: u32, turn: u32, now: f64, account: TurnAccount) -> NewTurn {
    let created =
        Event::Created { id: turn_id(turn), session_id: session_id(session), status: "in_progress" };
    NewTurn {
        id: turn_id(turn),
        tenant: tenant(),
        session: session_id(session),
        now,
        events: vec![created.render(0)],
        items: vec![Item::UserMessage { text: "hello".into() }],
        key: None,
        account,
    }
}

fn metered(call: i64, cost: i64, at: f64) -> MeteredCall {
    let usage = Usage::new(100, 40, 10, 5);
    MeteredCall {
        call,
        kind: EventType::Turn,
        model: "pokee-isaac".into(),
        usage,
        cost: MicroCredits(cost),
        at,
    }
}

/// Whose request is told apart from any other's.
fn with_own_key(new: NewTurn) -> NewTurn {
    let key = IdempotencyKey { key: new.id.to_string(), body_hash: String::new() };
    NewTurn { key: Some(key), ..new }
}

/// An answer with its metering, as one step.
fn step(session: u32, turn: u32, generation: i64, call: MeteredCall) -> Commit {
    let item = Item::AssistantMessage {
        text: "said".into(),
        reasoning: String::new(),
        calls: vec![],
        usage: call.usage,
    };
    Commit {
        session: session_id(session),
        turn: turn_id(turn),
        generation,
        events: vec![],
        items: vec![item],
        metered: Some(call),
        skill: None,
        end: None,
    }
}

fn end(session: u32, turn: u32, generation: i64, outcome: TurnOutcome, at: f64) -> Commit {
    Commit {
        session: session_id(session),
        turn: turn_id(turn),
        generation,
        events: vec![],
        items: vec![Item::TurnEnded { outcome }],
        metered: None,
        skill: None,
        end: Some((outcome, at)),
    }
}

async fn top_up(store: &Store, ledger: &LedgerName, key: &str, amount: i64) -> Result<bool, StoreError> {
    let posting = Posting {
        ledger: ledger.clone(),
        kind: PostingKind::TopUp,
        key: key.into(),
        amount: MicroCredits(amount),
        reason: "test".into(),
    };
    store.post(posting, NOW).await
}

async fn assert_adds_up(store: &Store) {
    assert_eq!(store.ledger_faults().await.unwrap(), Vec::<String>::new());
}

/// Something that may happen to one of a few sessions and one of two ledgers.
#[derive(Debug, Clone)]
enum Act {
    Start {
        session: usize,
        hard: bool,
        ledger: usize,
    },
    Reserve {
        session: usize,
        estimate: i64,
    },
    Meter {
        session: usize,
        cost: i64,
    },
    /// The last call's commit arrives once more.
    MeterAgain {
        session: usize,
    },
    /// Another attempt owns the turn; the earlier one does not know.
    TakeOver {
        session: usize,
    },
    /// The attempt before this one writes.
    MeterStale {
        session: usize,
        cost: i64,
    },
    EndStale {
        session: usize,
    },
    End {
        session: usize,
        outcome: TurnOutcome,
    },
    Delete {
        session: usize,
    },
    /// Somebody cancels the turn; its driver may not have heard of it when it ends.
    Cancel {
        session: usize,
    },
    /// The request that started the running turn arrives once more.
    Retry {
        session: usize,
    },
    /// The server starts anew.
    Reopen,
    TopUp {
        ledger: usize,
        key: usize,
    },
}

fn act() -> impl Strategy<Value = Act> {
    let session = 0..3_usize;
    let outcome = prop_oneof![
        3 => Just(TurnOutcome::Completed),
        1 => Just(TurnOutcome::Failed),
        1 => Just(TurnOutcome::Cancelled),
    ];
    prop_oneof![
        4 => (session.clone(), any::<bool>(), 0..2_usize).prop_map(|(session, hard, ledger)| Act::Start { session, hard, ledger }),
        2 => (session.clone(), 0..400_i64).prop_map(|(session, estimate)| Act::Reserve { session, estimate }),
        6 => (session.clone(), 0..300_i64).prop_map(|(session, cost)| Act::Meter { session, cost }),
        2 => session.clone().prop_map(|session| Act::MeterAgain { session }),
        2 => session.clone().prop_map(|session| Act::TakeOver { session }),
        1 => (session.clone(), 0..300_i64).prop_map(|(session, cost)| Act::MeterStale { session, cost }),
        1 => session.clone().prop_map(|session| Act::EndStale { session }),
        3 => (session.clone(), outcome).prop_map(|(session, outcome)| Act::End { session, outcome }),
        1 => session.clone().prop_map(|session| Act::Delete { session }),
        2 => session.clone().prop_map(|session| Act::Cancel { session }),
        2 => session.prop_map(|session| Act::Retry { session }),
        1 => Just(Act::Reopen),
        1 => (0..2_usize, 0..3_usize).prop_map(|(ledger, key)| Act::TopUp { ledger, key }),
    ]
}

/// A turn as it ought to be.
#[derive(Debug, Default, Clone)]
struct Running {
    turn: u32,
    generation: i64,
    ledger: usize,
    costs: Vec<i64>,
    is_cancelled: bool,
}

/// Plays acts against the store and against a few numbers.
struct Play<'a> {
    engine: &'a Engine,
    store: Store,
    ledgers: [LedgerName; 2],
    sessions: [u32; 3],
    running: [Option<Running>; 3],
    balances: [i64; 2],
    keys: BTreeSet<(usize, usize)>,
    next: &'a mut u32,
}

impl Play<'_> {
    async fn new_session(&mut self, at: usize) {
        *self.next += 1;
        self.sessions[at] = *self.next;
        make_session(&self.store, self.sessions[at]).await;
    }

    async fn act(&mut self, act: &Act) {
        match *act {
            Act::Start { session, hard, ledger } => self.start(session, hard, ledger).await,
            Act::TopUp { ledger, key } => {
                let is_new =
                    top_up(&self.store, &self.ledgers[ledger], &format!("k{key}"), 500).await.unwrap();
                assert_eq!(is_new, self.keys.insert((ledger, key)));
                self.balances[ledger] += if is_new { 500 } else { 0 };
            }
            Act::Delete { session } => {
                self.store.delete_session(&tenant(), &session_id(self.sessions[session]), 3.0).await.unwrap();
                self.running[session] = None;
                self.new_session(session).await;
            }
            Act::Reopen => self.store = self.engine.open().await,
            Act::Reserve { session, .. }
            | Act::Cancel { session }
            | Act::Retry { session }
            | Act::Meter { session, .. }
            | Act::MeterAgain { session }
            | Act::TakeOver { session }
            | Act::MeterStale { session, .. }
            | Act::EndStale { session }
            | Act::End { session, .. } => {
                if let Some(running) = self.running[session].clone() {
                    self.running[session] = self.of_turn(act, self.sessions[session], running).await;
                }
            }
        }
    }

    async fn start(&mut self, session: usize, hard: bool, ledger: usize) {
        *self.next += 1;
        let turn = *self.next;
        let mode = if hard { CreditMode::Hard } else { CreditMode::Soft };
        let account = charged(&self.ledgers[ledger], mode, 200);
        let new = with_own_key(new_turn(self.sessions[session], turn, NOW, account));
        let started = self.store.start_turn(new).await;
        match (started, self.running[session].is_some()) {
            (Ok(()), false) => {
                self.running[session] = Some(Running { turn, generation: 1, ledger, ..Running::default() });
            }
            (Err(StoreError::Busy(_)), true) => {}
            (Err(StoreError::CreditsExhausted { .. }), false) => {
                assert!(hard, "a soft ledger refuses nothing")
            }
            (other, busy) => panic!("busy {busy}: {other:?}"),
        }
    }

    async fn of_turn(&mut self, act: &Act, session: u32, mut running: Running) -> Option<Running> {
        let (turn, generation) = (running.turn, running.generation);
        let count = running.costs.len() as i64;
        match *act {
            Act::Reserve { estimate, .. } => {
                let reserved = self.store.reserve(&turn_id(turn), generation, MicroCredits(estimate)).await;
                assert!(
                    matches!(reserved, Ok(()) | Err(StoreError::CreditsExhausted { .. })),
                    "{reserved:?}"
                );
            }
            Act::Meter { cost, .. } => {
                let call = metered(count + 1, cost, NOW);
                self.store.commit(step(session, turn, generation, call)).await.unwrap();
                running.costs.push(cost);
            }
            Act::MeterAgain { .. } if count > 0 => {
                let again = metered(count, running.costs[running.costs.len() - 1], NOW);
                self.store.commit(step(session, turn, generation, again)).await.unwrap();
            }
            Act::Cancel { .. } => {
                assert!(self.store.request_cancel(&turn_id(turn)).await.unwrap(), "it runs");
                running.is_cancelled = true;
            }
            Act::Retry { .. } => {
                let account = charged(&self.ledgers[running.ledger], CreditMode::Soft, 200);
                let retry = with_own_key(new_turn(session, turn, NOW, account));
                let retried = self.store.start_turn(NewTurn { id: turn_id(turn + 500), ..retry }).await;
                assert!(matches!(retried, Err(StoreError::KeyTaken)), "{retried:?}");
            }
            Act::TakeOver { .. } => {
                let taken = self.store.take_over(&session_id(session), &turn_id(turn), generation).await;
                running.generation = taken.unwrap();
            }
            Act::MeterStale { cost, .. } => {
                let stale = step(session, turn, generation - 1, metered(count + 1, cost, NOW));
                assert!(matches!(self.store.commit(stale).await, Err(StoreError::Fenced(_))));
            }
            Act::EndStale { .. } => {
                let stale = end(session, turn, generation - 1, TurnOutcome::Completed, NOW);
                assert!(matches!(self.store.commit(stale).await, Err(StoreError::Fenced(_))));
            }
            Act::End { outcome, .. } => {
                let ended = self.store.commit(end(session, turn, generation, outcome, NOW)).await;
                let outcome = match ended {
                    Err(StoreError::CancelRequested(_)) if running.is_cancelled => TurnOutcome::Cancelled,
                    ended => ended.map(|()| outcome).unwrap(),
                };
                if running.is_cancelled {
                    assert_eq!(outcome, TurnOutcome::Cancelled, "a cancel that was acknowledged holds");
                    // Refused or not, from here on it is written.
                    let _ = self.store.commit(end(session, turn, generation, outcome, NOW)).await;
                }
                // Whoever did not hear of it and tries again is refused.
                let again = self.store.commit(end(session, turn, generation, outcome, NOW)).await;
                assert!(matches!(again, Err(StoreError::Fenced(_))));
                if outcome != TurnOutcome::Cancelled {
                    self.balances[running.ledger] -= running.costs.iter().sum::<i64>();
                }
                return None;
            }
            _ => {}
        }
        Some(running)
    }

    async fn check(&self) {
        assert_adds_up(&self.store).await;
        for (ledger, expected) in self.ledgers.iter().zip(self.balances) {
            assert_eq!(self.store.balance(ledger).await.unwrap(), MicroCredits(expected), "{ledger}");
        }
    }
}

/// One case: its own ledgers and sessions, in a database that other cases use, too.
async fn play(engine: &Engine, acts: &[Act], mut number: u32) {
    let store = engine.open().await;
    let ledgers = [ledger(&format!("a-{number}")), ledger(&format!("b-{number}"))];
    for ledger in &ledgers {
        store.open_ledger(ledger, Some(MicroCredits(1000)), NOW).await.unwrap();
    }
    let mut play = Play {
        engine,
        store: store.clone(),
        ledgers,
        sessions: [0; 3],
        running: [None, None, None],
        balances: [1000, 1000],
        keys: BTreeSet::new(),
        next: &mut number,
    };
    for at in 0..3 {
        play.new_session(at).await;
    }
    for act in acts {
        play.act(act).await;
    }
    play.check().await;
    // Whatever still runs is ended, and then nothing is set aside.
    for session in 0..3 {
        play.act(&Act::End { session, outcome: TurnOutcome::Completed }).await;
    }
    play.check().await;
    let held: Vec<_> = store.ledgers().await.unwrap().into_iter().map(|ledger| ledger.held.0).collect();
    assert!(held.iter().all(|held| *held == 0), "{held:?}");
}

fn every_interleaving_adds_up(engine: &Engine, cases: u32) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let numbers = std::cell::Cell::new(0_u32);
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&proptest::collection::vec(act(), 1..60), |acts| {
            numbers.set(numbers.get() + 1000);
            runtime.block_on(play(engine, &acts, numbers.get()));
            Ok(())
        })
        .unwrap();
}

#[test]
fn every_interleaving_adds_up_on_sqlite() {
    every_interleaving_adds_up(&Engine::sqlite().unwrap(), 60);
}

#[test]
fn every_interleaving_adds_up_on_postgres() {
    if let Some(engine) = Engine::postgres() {
        every_interleaving_adds_up(&engine, 15);
    }
}

/// As many stores as the engine allows on one database.
async fn stores(engine: &Engine) -> Vec<Store> {
    match engine {
        Engine::Sqlite(_) => vec![engine.open().await],
        Engine::Postgres { .. } => vec![engine.open().await, engine.open().await],
    }
}

async fn of_many_at_once_exactly_as_many_start_as_may(engine: Engine) {
    let stores = stores(&engine).await;
    let mut starts = JoinSet::new();
    for n in 1..=50 {
        make_session(&stores[0], n).await;
    }
    for n in 1..=50_u32 {
        let store = stores[n as usize % stores.len()].clone();
        starts.spawn(async move { store.start_turn(new_turn(n, n, NOW, limited(10, 1_000_000))).await });
    }
    let mut started = 0;
    while let Some(result) = starts.join_next().await {
        match result.unwrap() {
            Ok(()) => started += 1,
            // 46 seconds into its minute: 60 minutes less those.
            Err(StoreError::UsageLimit { window, wait_s }) => {
                assert_eq!((window, wait_s), ("hour", 3600 - (NOW as u64 % 60)));
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(started, 10);
    let used = stores[0].used(&tenant(), "default", Bucket::SessionTurn, NOW).await.unwrap();
    assert_eq!(used, [Used { turns: 10, tokens: 0 }; 2], "who was refused is not counted");
}

/// Turns whose calls cost what was expected of them: together they can spend what is there, and no more.
async fn a_hard_ledger_is_never_oversold_by_many_at_once(engine: Engine) {
    let stores = stores(&engine).await;
    let ledger = ledger("acme");
    stores[0].open_ledger(&ledger, Some(MicroCredits(1_000)), NOW).await.unwrap();
    let mut turns = JoinSet::new();
    for n in 1..=20 {
        make_session(&stores[0], n).await;
    }
    for n in 1..=20_u32 {
        let (store, ledger) = (stores[n as usize % stores.len()].clone(), ledger.clone());
        turns.spawn(async move {
            match store.start_turn(new_turn(n, n, NOW, charged(&ledger, CreditMode::Hard, 30))).await {
                Ok(()) => {}
                Err(StoreError::CreditsExhausted { .. }) => return 0,
                Err(error) => panic!("{error:?}"),
            }
            let mut spent = 0;
            for call in 1..=10 {
                match store.reserve(&turn_id(n), 1, MicroCredits(25)).await {
                    Ok(()) => {}
                    Err(StoreError::CreditsExhausted { .. }) => break,
                    Err(error) => panic!("{error:?}"),
                }
                store.commit(step(n, n, 1, metered(call, 25, NOW))).await.unwrap();
                spent += 25;
            }
            store.commit(end(n, n, 1, TurnOutcome::Completed, NOW)).await.unwrap();
            spent
        });
    }
    let spent: i64 = turns.join_all().await.into_iter().sum();
    let left = stores[0].balance(&ledger).await.unwrap().0;
    assert_eq!(left, 1_000 - spent);
    assert!((0..30).contains(&left), "all of it was spent and no more: {left}");
    assert_adds_up(&stores[0]).await;
}

async fn a_window_lets_go_of_what_is_old_and_survives_a_restart(engine: Engine) {
    let store = engine.open().await;
    let minute = (NOW / 60.0).floor() * 60.0;
    for n in 1..=6 {
        make_session(&store, n).await;
    }
    let start =
        async |store: &Store, n: u32, now: f64| store.start_turn(new_turn(n, n, now, limited(3, 300))).await;
    start(&store, 1, minute).await.unwrap();
    start(&store, 2, minute + 30.0).await.unwrap();
    start(&store, 3, minute + 60.0).await.unwrap();
    drop(store);
    let store = engine.open().await;
    let refused = |result: Result<(), StoreError>| match result {
        Err(StoreError::UsageLimit { wait_s, .. }) => wait_s,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(start(&store, 4, minute + 61.5).await), 3539);
    assert_eq!(refused(start(&store, 4, minute + 3599.0).await), 1);
    start(&store, 4, minute + 3600.0).await.unwrap();
    // Tokens of the calls that ended are counted in the minute in which they ended.
    store
        .commit(step(
            4,
            4,
            1,
            MeteredCall { usage: Usage::new(250, 0, 49, 0), ..metered(1, 5, minute + 3601.0) },
        ))
        .await
        .unwrap();
    start(&store, 5, minute + 3660.0).await.unwrap();
    store
        .commit(step(
            5,
            5,
            1,
            MeteredCall { usage: Usage::new(1, 0, 0, 0), ..metered(1, 5, minute + 3661.0) },
        ))
        .await
        .unwrap();
    assert_eq!(refused(start(&store, 6, minute + 3662.0).await), 3600 - 62);
    let usage = &store.usage_of_all(minute + 3662.0).await.unwrap()[0];
    assert_eq!(usage.used, [Used { turns: 2, tokens: 300 }, Used { turns: 5, tokens: 300 }]);
    assert_eq!(store.sweep_usage(minute + 86_400.0).await.unwrap(), 1, "one minute is over a day old");
    assert_eq!(store.sweep_usage(minute + 10.0 * 86_400.0).await.unwrap(), 3);
}

async fn a_refusal_and_a_retry_count_nothing(engine: Engine) {
    let store = engine.open().await;
    make_session(&store, 1).await;
    let key = IdempotencyKey { key: "k".into(), body_hash: "h".into() };
    let with_key = |n| NewTurn { key: Some(key.clone()), ..new_turn(1, n, NOW, limited(2, 300)) };
    store.start_turn(with_key(1)).await.unwrap();
    assert!(matches!(store.start_turn(with_key(2)).await, Err(StoreError::KeyTaken)));
    let busy = store.start_turn(new_turn(1, 3, NOW, limited(2, 300))).await;
    assert!(matches!(busy, Err(StoreError::Busy(_))), "{busy:?}");
    for (caller, bucket, turns) in [
        ("default", Bucket::SessionTurn, 1),
        ("another", Bucket::SessionTurn, 0),
        ("default", Bucket::Response, 0),
    ] {
        let used = store.used(&tenant(), caller, bucket, NOW).await.unwrap();
        assert_eq!(used, [Used { turns, tokens: 0 }; 2], "{caller} {bucket:?}");
    }
}

async fn a_ledger_is_opened_once_and_a_posting_made_once(engine: Engine) {
    let store = engine.open().await;
    let name = ledger("acme");
    assert!(matches!(top_up(&store, &name, "k", 5).await, Err(StoreError::NoSuchLedger(_))));
    store.open_ledger(&name, None, NOW).await.unwrap();
    assert_eq!(store.balance(&name).await.unwrap(), MicroCredits(0));
    store.open_ledger(&name, Some(MicroCredits(100)), NOW).await.unwrap();
    store.open_ledger(&name, Some(MicroCredits(900)), NOW).await.unwrap();
    assert_eq!(store.balance(&name).await.unwrap(), MicroCredits(100), "a ledger is opened once");
    assert!(top_up(&store, &name, "k", 5).await.unwrap());
    assert!(!top_up(&store, &name, "k", 5).await.unwrap());
    assert!(matches!(top_up(&store, &name, "k", 6).await, Err(StoreError::PostingDiffers(_))));
    let correction = Posting {
        ledger: name.clone(),
        kind: PostingKind::Correction,
        key: "k2".into(),
        amount: MicroCredits(-500),
        reason: "put right".into(),
    };
    assert!(store.post(correction, NOW + 1.0).await.unwrap());
    assert_eq!(store.balance(&name).await.unwrap(), MicroCredits(-395));
    let entries = store.ledger_entries(&name, 10).await.unwrap();
    let amounts: Vec<_> = entries.iter().map(|entry| (entry.kind.as_str(), entry.amount.0)).collect();
    assert_eq!(amounts[0], ("correction", -500));
    assert_eq!(amounts.len(), 3);
    assert_adds_up(&store).await;
}

async fn what_a_turn_set_aside_is_released_however_it_ends(engine: Engine) {
    let store = engine.open().await;
    let name = ledger("acme");
    store.open_ledger(&name, Some(MicroCredits(1_000)), NOW).await.unwrap();
    let state = async || {
        let found = store.ledgers().await.unwrap().remove(0);
        (found.balance.0, found.held.0)
    };
    let account = || charged(&name, CreditMode::Hard, 100);
    for n in 1..=4 {
        make_session(&store, n).await;
    }
    store.start_turn(new_turn(1, 1, NOW, account())).await.unwrap();
    assert_eq!(state().await, (1_000, 100), "the minimum is set aside at once");
    store.reserve(&turn_id(1), 1, MicroCredits(950)).await.unwrap();
    let refused = store.start_turn(new_turn(2, 2, NOW, account())).await;
    assert!(
        matches!(refused, Err(StoreError::CreditsExhausted { available: MicroCredits(50), .. })),
        "{refused:?}"
    );
    store.commit(step(1, 1, 1, metered(1, 300, NOW))).await.unwrap();
    assert_eq!(state().await, (1_000, 300), "what the call really cost");
    store.commit(step(1, 1, 1, metered(1, 300, NOW))).await.unwrap();
    assert_eq!(state().await, (1_000, 300), "the same call again changes nothing");
    let used = store.used(&tenant(), "default", Bucket::SessionTurn, NOW).await.unwrap();
    assert_eq!(used[0], Used { turns: 1, tokens: 110 });
    assert!(matches!(
        store.reserve(&turn_id(1), 1, MicroCredits(701)).await,
        Err(StoreError::CreditsExhausted { available: MicroCredits(700), needed: MicroCredits(701), .. })
    ));
    assert!(matches!(store.reserve(&turn_id(1), 2, MicroCredits(1)).await, Err(StoreError::Fenced(_))));
    store.commit(end(1, 1, 1, TurnOutcome::Failed, NOW)).await.unwrap();
    assert_eq!(state().await, (700, 0));

    store.start_turn(new_turn(3, 3, NOW, account())).await.unwrap();
    store.commit(step(3, 3, 1, metered(1, 300, NOW))).await.unwrap();
    store.commit(end(3, 3, 1, TurnOutcome::Cancelled, NOW)).await.unwrap();
    assert_eq!(state().await, (700, 0), "a cancelled turn is free");

    store.start_turn(new_turn(4, 4, NOW, account())).await.unwrap();
    store.commit(step(4, 4, 1, metered(1, 300, NOW))).await.unwrap();
    store.delete_session(&tenant(), &session_id(4), 3.0).await.unwrap();
    assert_eq!(state().await, (700, 0), "so is one that went with its session");
    assert_adds_up(&store).await;
}

async fn the_audit_reads_in_pages_and_outlives_its_session(engine: Engine) {
    let store = engine.open().await;
    let name = ledger("acme");
    store.open_ledger(&name, None, NOW).await.unwrap();
    for n in 1..=5_u32 {
        make_session(&store, n).await;
        // Two of them end in the same moment.
        let at = NOW + f64::from(n / 2);
        store.start_turn(new_turn(n, n, at, charged(&name, CreditMode::Soft, 0))).await.unwrap();
        let skill = SkillUse {
            call_id: "call_1".into(),
            name: "pptx-builder".into(),
            succeeded: true,
            at: at + 0.25,
        };
        let used = Commit { skill: Some(skill), ..step(n, n, 1, metered(1, 300, at)) };
        store.commit(used).await.unwrap();
        store.commit(step(n, n, 1, metered(2, 30, at))).await.unwrap();
        store.commit(end(n, n, 1, TurnOutcome::Completed, at + 0.5)).await.unwrap();
        store.delete_session(&tenant(), &session_id(n), 3.0).await.unwrap();
    }
    let all = AuditRange { since: 0.0, until: f64::MAX, tenant: None };
    let mut seen: Vec<palisade_protocol::audit::AuditEvent> = Vec::new();
    loop {
        let after = seen.last().map(|event| (event.at, event.id.clone()));
        let after = after.as_ref().map(|(at, id)| (*at, id.as_str()));
        let page = store.audit_events(&all, after, 3).await.unwrap();
        if page.is_empty() {
            break;
        }
        seen.extend(page);
    }
    let ids: BTreeSet<&str> = seen.iter().map(|event| event.id.as_str()).collect();
    assert_eq!((seen.len(), ids.len()), (10, 10), "each once");
    let of_type = |kind| seen.iter().filter(move |event| event.event_type == kind);
    assert!(of_type(EventType::Turn).all(|event| event.micro_credits == MicroCredits(330)
        && (event.input_tokens, event.cached_tokens, event.output_tokens) == (200, 80, 20)
        && event.outcome == "completed"
        && event.caller == "default"));
    assert_eq!(of_type(EventType::Skill).filter(|event| event.name == "pptx-builder").count(), 5);
    let by_turn: BTreeMap<&str, usize> = seen.iter().fold(BTreeMap::new(), |mut counts, event| {
        *counts.entry(event.response_id.as_str()).or_default() += 1;
        counts
    });
    assert!(by_turn.values().all(|count| *count == 2));
    let some = AuditRange { since: NOW + 1.5, until: NOW + 2.5, tenant: Some("acme".into()) };
    // Turns 2 and 3 end at +1.5; 4 and 5 begin at +2 and use their skill before +2.5.
    assert_eq!(store.audit_events(&some, None, 100).await.unwrap().len(), 4);
    let others = AuditRange { tenant: Some("other".into()), ..all };
    assert!(store.audit_events(&others, None, 100).await.unwrap().is_empty());
}

/// Two such calls would be more than a column holds.
async fn an_upstream_that_counts_without_bounds_stops_nobody(engine: Engine) {
    let store = engine.open().await;
    let name = ledger("acme");
    store.open_ledger(&name, Some(MicroCredits(1_000)), NOW).await.unwrap();
    make_session(&store, 1).await;
    let account = || TurnAccount {
        rate: RateLimits([Some(WindowLimit { turns_max: 10, tokens_max: u64::MAX }), None]),
        ..charged(&name, CreditMode::Soft, 0)
    };
    store.start_turn(new_turn(1, 1, NOW, account())).await.unwrap();
    for call in 1..=3 {
        let usage = Usage::new(u64::MAX, u64::MAX, u64::MAX, u64::MAX);
        store.commit(step(1, 1, 1, MeteredCall { usage, ..metered(call, 100, NOW) })).await.unwrap();
    }
    store.commit(end(1, 1, 1, TurnOutcome::Completed, NOW)).await.unwrap();
    assert_eq!(store.balance(&name).await.unwrap(), MicroCredits(700));
    let used = store.used(&tenant(), "default", Bucket::SessionTurn, NOW).await.unwrap();
    assert_eq!(used[0], Used { turns: 1, tokens: 6 * TOKENS_PER_CALL_MAX });
    store.start_turn(new_turn(1, 2, NOW, account())).await.unwrap();
    store.delete_session(&tenant(), &session_id(1), NOW).await.unwrap();
    assert_adds_up(&store).await;
}

/// From here on the database takes no record of a turn's end.
async fn refuse_settling(engine: &Engine) {
    match engine.url() {
        StoreUrl::Sqlite(file) => {
            let mut database = SqliteConnectOptions::new().filename(file).connect().await.unwrap();
            let refuse =
                "CREATE TRIGGER refuse BEFORE INSERT ON audit_event BEGIN SELECT RAISE(ABORT, 'no'); END";
            sqlx::raw_sql(refuse).execute(&mut database).await.unwrap();
        }
        StoreUrl::Postgres(url) => {
            let mut database = sqlx::PgConnection::connect(&url).await.unwrap();
            let refuse = "CREATE FUNCTION refuse() RETURNS trigger AS $$ BEGIN RAISE EXCEPTION 'no'; END $$ LANGUAGE plpgsql;
                CREATE TRIGGER refuse BEFORE INSERT ON audit_event EXECUTE FUNCTION refuse()";
            sqlx::raw_sql(refuse).execute(&mut database).await.unwrap();
        }
    }
}

async fn a_turn_that_cannot_be_settled_ends_all_the_same_and_is_named(engine: Engine) {
    let store = engine.open().await;
    let name = ledger("acme");
    store.open_ledger(&name, Some(MicroCredits(1_000)), NOW).await.unwrap();
    for n in 1..=2 {
        make_session(&store, n).await;
        store.start_turn(new_turn(n, n, NOW, charged(&name, CreditMode::Hard, 100))).await.unwrap();
        store.commit(step(n, n, 1, metered(1, 300, NOW))).await.unwrap();
    }
    refuse_settling(&engine).await;
    let the_end = || end(1, 1, 1, TurnOutcome::Completed, NOW);
    let refused = store.commit(the_end()).await.unwrap_err();
    assert!(refused.is_refusal(), "{refused:?}");
    let stale = store.end_unsettled(end(1, 1, 2, TurnOutcome::Completed, NOW), "why".into()).await;
    assert!(matches!(stale, Err(StoreError::Fenced(_))), "{stale:?}");
    store.end_unsettled(the_end(), "the reason".into()).await.unwrap();
    assert!(!store.session(&tenant(), &session_id(1)).await.unwrap().unwrap().busy);
    store.delete_session(&tenant(), &session_id(2), NOW).await.unwrap();
    let state = store.ledgers().await.unwrap().remove(0);
    assert_eq!((state.balance, state.held), (MicroCredits(1_000), MicroCredits(0)));
    let faults = store.ledger_faults().await.unwrap();
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(faults[0].contains(turn_id(1).as_str()) && faults[0].contains("the reason"), "{faults:?}");
    assert!(faults[1].contains(turn_id(2).as_str()), "{faults:?}");
}
