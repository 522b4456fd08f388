//! What the bench asks of the store itself, on a file: what metering adds to a commit, and a ledger with many rows.
//!
//!     metering measure CALLS          samples in nanoseconds, as JSON
//!     metering fill DATABASE ROWS     a ledger `acme` of so many rows, in the database of a server that is down

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a tool of the bench")]

use std::path::Path;
use std::time::Instant;

use palisade_protocol::audit::EventType;
use palisade_protocol::event::Event;
use palisade_protocol::item::TurnOutcome;
use palisade_protocol::money::CreditMode;
use palisade_protocol::session::SessionStatus;
use palisade_protocol::{
    FileAccess, Item, LedgerName, MicroCredits, Session, SessionId, TenantName, TurnId, Usage,
};
use palisade_store::{
    Charge, Commit, MeteredCall, NewSession, NewTurn, OpenStore, Store, StoreUrl, TurnAccount,
};
use serde_json::json;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};

/// Calls of one turn: a turn has at most three times as many.
const CALLS_PER_TURN: u32 = 100;
const NOW: f64 = 1_777_222_996.07;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["measure", calls] => runtime.block_on(measure(calls.parse().unwrap())),
        ["fill", database, rows] => runtime.block_on(fill(Path::new(database), rows.parse().unwrap())),
        _ => println!("measure CALLS | fill DATABASE ROWS"),
    }
}

async fn open(file: &Path) -> Store {
    let OpenStore { store, tasks, notices: _ } =
        Store::open(&StoreUrl::Sqlite(file.to_owned())).await.unwrap();
    for task in tasks {
        tokio::runtime::Handle::current().spawn(task);
    }
    store
}

/// One commit after the other, with an answer each: the same with its metering, and a reservation before it.
async fn measure(calls: u32) {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("palisade.db")).await;
    let (tenant, ledger) = (TenantName::parse("acme").unwrap(), LedgerName::parse("acme").unwrap());
    store.open_ledger(&ledger, Some(MicroCredits(i64::MAX / 4)), NOW).await.unwrap();
    let session = session();
    let id = session.id.clone();
    let new = NewSession {
        tenant: tenant.clone(),
        session,
        context: "{}".to_owned(),
        snapshots: vec![],
        sessions_max: 10,
    };
    store.create_session(new).await.unwrap();
    let (mut plain, mut metered, mut reserved) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 0..calls.div_ceil(CALLS_PER_TURN) {
        let turn_id = TurnId::from_random(std::array::from_fn(|at| turn.to_be_bytes()[at % 4]));
        let charge =
            Charge { ledger: ledger.clone(), mode: CreditMode::Hard, minimum: MicroCredits(1_000_000) };
        let account =
            TurnAccount { caller: "default".into(), charge: Some(charge), ..TurnAccount::default() };
        let start = NewTurn {
            id: turn_id.clone(),
            tenant: tenant.clone(),
            session: id.clone(),
            now: NOW,
            events: vec![],
            items: vec![],
            key: None,
            account,
        };
        store.start_turn(start).await.unwrap();
        for call in 1..=CALLS_PER_TURN {
            let step = |seq: u32, metered| Commit {
                session: id.clone(),
                turn: turn_id.clone(),
                generation: 1,
                events: vec![Event::TextStop {}.render(u64::from(seq))],
                items: vec![answer()],
                metered,
                skill: None,
                end: None,
            };
            plain.push(timed(store.commit(step(2 * call, None))).await);
            reserved.push(timed(store.reserve(&turn_id, 1, MicroCredits(5_000))).await);
            metered.push(timed(store.commit(step(2 * call + 1, Some(metered_call(call))))).await);
        }
        let end = Commit {
            session: id.clone(),
            turn: turn_id.clone(),
            generation: 1,
            events: vec![],
            items: vec![],
            metered: None,
            skill: None,
            end: Some((TurnOutcome::Completed, NOW)),
        };
        store.commit(end).await.unwrap();
    }
    println!("{}", json!({"plain_ns": plain, "metered_ns": metered, "reserve_ns": reserved}));
}

async fn timed<E: std::fmt::Debug>(write: impl Future<Output = Result<(), E>>) -> u64 {
    let began = Instant::now();
    write.await.unwrap();
    began.elapsed().as_nanos() as u64
}

fn session() -> Session {
    Session {
        id: SessionId::from_random([1; 6]),
        created_at: NOW,
        last_activity: NOW,
        busy: false,
        persistent: true,
        ttl: 1_000_000,
        status: SessionStatus::Ready,
        metadata: serde_json::Map::new(),
        file_access: FileAccess::default(),
        locked: vec![],
        model: "pokee-isaac".into(),
        expires_at: NOW + 1e6,
        last_response_id: None,
    }
}

fn answer() -> Item {
    Item::AssistantMessage {
        text: "and then ".repeat(20),
        reasoning: String::new(),
        calls: vec![],
        usage: Usage::new(1000, 500, 200, 0),
    }
}

fn metered_call(call: u32) -> MeteredCall {
    MeteredCall {
        call: i64::from(call),
        kind: EventType::Turn,
        model: "pokee-isaac".into(),
        usage: Usage::new(1000, 500, 200, 0),
        cost: MicroCredits(4_321),
        at: NOW,
    }
}

/// Two rows a posting, and a day's worth of usage of a token of the tenant `other`; the accounts hold what their entries sum to.
async fn fill(database: &Path, rows: i64) {
    // What is missing of the schema is made.
    open(database).await.close().await;
    let mut db = SqliteConnectOptions::new().filename(database).connect().await.unwrap();
    let now_minute = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |time| (time.as_secs() / 60).cast_signed());
    for (sql, number) in [
        (
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1)
             INSERT INTO ledger_entry (posting, account, ledger, kind, amount, reason, at)
             SELECT 'call/msg_' || i || '/1/turn', account, 'acme', 'usage', sign * 4321, '', i
             FROM n, (SELECT 'customer' AS account, -1 AS sign UNION ALL SELECT 'revenue', 1)",
            rows / 2,
        ),
        (
            "INSERT INTO ledger_account (ledger, account, balance)
             SELECT ledger, account, SUM(amount) FROM ledger_entry WHERE $1 > 0 GROUP BY ledger, account
             ON CONFLICT (ledger, account) DO UPDATE SET balance = excluded.balance",
            rows,
        ),
        (
            "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 1439)
             INSERT INTO usage_minute (tenant, caller, bucket, minute, turns, tokens)
             SELECT 'other', 'default', 'session_turn', $1 - i, 1, 1000 FROM n WHERE TRUE ON CONFLICT DO NOTHING",
            now_minute,
        ),
    ] {
        sqlx::query(sql).bind(number).execute(&mut db).await.unwrap();
    }
    db.close().await.unwrap();
}
