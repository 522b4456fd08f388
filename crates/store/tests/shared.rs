//! Several servers on one PostgreSQL: who owns a turn, what one hears of the other, and what becomes of a write when
//! the database goes away in the middle of it.

#![expect(clippy::unwrap_used, reason = "clippy takes only test functions for tests, not what they call")]

mod cut;

use std::sync::Arc;

use palisade_protocol::item::TurnOutcome;
use palisade_protocol::session::{SessionOrder, SessionStatus};
use palisade_protocol::{Event, FileAccess, Item, Session, SessionId, TenantName, TurnId};
use palisade_store::{
    ClientAnswer, Commit, NewSession, NewTurn, Notice, OpenStore, Store, StoreError, StoreUrl, TurnAccount,
};
use palisade_testkit::postgres::Postgres;
use palisade_testkit::wait_for;
use sqlx::Connection as _;
use tokio::sync::mpsc;

use cut::{Cut, CuttingProxy};

struct Server {
    store: Store,
    notices: mpsc::Receiver<Notice>,
}

async fn open(url: &str, name: &str) -> Server {
    let OpenStore { store, tasks, mut notices } =
        Store::open(&StoreUrl::Postgres(url.to_owned())).await.unwrap();
    for task in tasks {
        tokio::runtime::Handle::current().spawn(task);
    }
    store.register_server(name).await.unwrap();
    assert_eq!(notices.recv().await, Some(Notice::Missed), "it listens from here on");
    Server { store, notices }
}

fn tenant() -> TenantName {
    TenantName::parse("acme").unwrap()
}

fn session_id(n: u8) -> SessionId {
    SessionId::from_random([n; 6])
}

fn turn_id(n: u8) -> TurnId {
    TurnId::from_random([n; 12])
}

async fn create(store: &Store, n: u8, sessions_max: u64) -> Result<(), StoreError> {
    let session = Session {
        id: session_id(n),
        created_at: 0.0,
        last_activity: 0.0,
        busy: false,
        persistent: true,
        ttl: 1_000_000,
        status: SessionStatus::Ready,
        metadata: serde_json::Map::new(),
        file_access: FileAccess::default(),
        model: "pokee-isaac".into(),
        expires_at: 0.0,
        last_response_id: None,
        locked: vec![],
    };
    let new =
        NewSession { tenant: tenant(), session, context: "null".to_owned(), snapshots: vec![], sessions_max };
    store.create_session(new).await
}

async fn start(store: &Store, n: u8) -> Result<(), StoreError> {
    let new = NewTurn {
        id: turn_id(n),
        tenant: tenant(),
        session: session_id(n),
        now: 1.0,
        events: vec![text(0)],
        items: vec![Item::UserMessage { text: "hello".into() }],
        key: None,
        account: TurnAccount::default(),
    };
    store.start_turn(new).await
}

fn text(seq: u64) -> palisade_protocol::event::RenderedEvent {
    Event::TextDelta { content: format!("number {seq}") }.render(seq)
}

fn append(n: u8, generation: i64, seq: u64) -> Commit {
    Commit {
        session: session_id(n),
        turn: turn_id(n),
        generation,
        events: vec![text(seq)],
        items: Vec::new(),
        metered: None,
        skill: None,
        end: None,
    }
}

fn end(n: u8, generation: i64, seq: u64) -> Commit {
    let event = Event::Cancelled { id: turn_id(n), status: "cancelled" };
    Commit {
        events: vec![event.render(seq)],
        items: vec![Item::TurnEnded { outcome: TurnOutcome::Cancelled }],
        metered: None,
        skill: None,
        end: Some((TurnOutcome::Cancelled, 2.0)),
        ..append(n, generation, seq)
    }
}

async fn seqs(store: &Store, n: u8) -> Vec<u64> {
    store.events(&turn_id(n), 0, 10_000).await.unwrap().iter().map(|event| event.seq).collect()
}

/// The next notice that is none of starts.
async fn heard(server: &mut Server) -> Notice {
    loop {
        match server.notices.recv().await.unwrap() {
            Notice::Moved(_) => {}
            notice => return notice,
        }
    }
}

#[tokio::test]
async fn one_server_hears_what_the_other_did() {
    let Some(postgres) = Postgres::start() else { return };
    let url = postgres.database();
    let (here, mut there) = (open(&url, "here").await, open(&url, "there").await);
    create(&here.store, 1, 9).await.unwrap();
    start(&here.store, 1).await.unwrap();
    assert_eq!(there.notices.recv().await, Some(Notice::Moved(session_id(1))));
    here.store.request_cancel(&turn_id(1)).await.unwrap();
    assert_eq!(heard(&mut there).await, Notice::CancelRequested(turn_id(1)));
    let answer = ClientAnswer { call_id: "call_1".into(), content: "42".into(), is_error: false };
    here.store.answer_calls(&turn_id(1), vec![answer]).await.unwrap();
    assert_eq!(heard(&mut there).await, Notice::Answered(turn_id(1)));
    here.store.release(&turn_id(1), 1).await.unwrap();
    assert_eq!(heard(&mut there).await, Notice::Released(turn_id(1)));
    here.store.delete_session(&tenant(), &session_id(1), 3.0).await.unwrap();
    assert_eq!(heard(&mut there).await, Notice::Deleted(session_id(1)));
}

#[tokio::test]
async fn a_reader_there_gets_every_event_that_is_written_here() {
    let Some(postgres) = Postgres::start() else { return };
    let url = postgres.database();
    let (here, there) = (open(&url, "here").await, open(&url, "there").await);
    create(&here.store, 1, 9).await.unwrap();
    start(&here.store, 1).await.unwrap();
    let mut reader = there.store.follow(&turn_id(1), None);
    let reading = async {
        let mut seen = Vec::new();
        while let Some(events) = reader.next().await.unwrap() {
            seen.extend(events.iter().map(|event| event.seq));
        }
        seen
    };
    let writing = async {
        for seq in 1..100 {
            here.store.commit(append(1, 1, seq)).await.unwrap();
        }
        here.store.commit(end(1, 1, 100)).await.unwrap();
    };
    let (seen, ()) = tokio::join!(reading, writing);
    assert_eq!(seen, (0..=100).collect::<Vec<_>>());
}

#[tokio::test]
async fn nothing_of_an_earlier_attempt_comes_after_a_take_over() {
    let Some(postgres) = Postgres::start() else { return };
    let url = postgres.database();
    let (here, there) = (open(&url, "here").await, open(&url, "there").await);
    for n in 1..=20 {
        create(&here.store, n, 99).await.unwrap();
        start(&here.store, n).await.unwrap();
        let writing = async {
            let mut seq = 1;
            while here.store.commit(append(n, 1, seq)).await.is_ok() {
                seq += 1;
            }
            seq
        };
        let taking = async {
            // After a few of the other's commits, whenever that is.
            while seqs(&there.store, n).await.len() < usize::from(n) {}
            let generation = there.store.take_over(&session_id(n), &turn_id(n), 1).await.unwrap();
            let last = there.store.last_seq(&turn_id(n)).await.unwrap().unwrap();
            there.store.commit(append(n, generation, last + 1)).await.unwrap();
            last
        };
        let (refused_at, last) = tokio::join!(writing, taking);
        assert_eq!(refused_at, last + 1, "what was seen at the take-over is all that there is");
        assert_eq!(seqs(&here.store, n).await, (0..=last + 1).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_turn_whose_server_is_gone_is_an_orphan_and_only_then() {
    let Some(postgres) = Postgres::start() else { return };
    let url = postgres.database();
    let (here, there) = (open(&url, "here").await, open(&url, "there").await);
    create(&here.store, 1, 9).await.unwrap();
    start(&here.store, 1).await.unwrap();
    let orphans = async || there.store.orphaned_turns().await.unwrap().len();
    assert_eq!(orphans().await, 0);
    let seen = there.store.servers().await.unwrap().remove(0);
    assert_eq!((seen.server.as_str(), seen.beats), ("here", 0));
    here.store.beat().await.unwrap();
    there.store.remove_server(&seen).await.unwrap();
    assert_eq!(orphans().await, 0, "it has beaten since");
    let seen = there.store.servers().await.unwrap().remove(0);
    there.store.remove_server(&seen).await.unwrap();
    assert_eq!(orphans().await, 1);
    assert!(matches!(here.store.beat().await, Err(StoreError::LeaseOver)));
    // Until somebody takes it, it is still its own.
    here.store.commit(append(1, 1, 1)).await.unwrap();
    let (session, turn) = (session_id(1), turn_id(1));
    let both =
        tokio::join!(here.store.take_over(&session, &turn, 1), there.store.take_over(&session, &turn, 1));
    assert_eq!(usize::from(both.0.is_ok()) + usize::from(both.1.is_ok()), 1, "{both:?}");
}

#[tokio::test]
async fn two_servers_together_keep_the_limits_that_each_keeps() {
    let Some(postgres) = Postgres::start() else { return };
    let url = postgres.database();
    let servers = [Arc::new(open(&url, "here").await), Arc::new(open(&url, "there").await)];
    let mut creates = tokio::task::JoinSet::new();
    for n in 0..40 {
        let server = servers[usize::from(n % 2)].clone();
        creates.spawn(async move { create(&server.store, n, 7).await.is_ok() });
    }
    assert_eq!(creates.join_all().await.into_iter().filter(|created| *created).count(), 7);

    let session =
        servers[0].store.sessions(&tenant(), None, SessionOrder::OldestFirst, 1).await.unwrap().remove(0).id;
    let mut starts = tokio::task::JoinSet::new();
    for n in 0..40 {
        let (server, session) = (servers[usize::from(n % 2)].clone(), session.clone());
        let new = NewTurn {
            id: turn_id(n),
            tenant: tenant(),
            session,
            now: 1.0,
            events: vec![text(0)],
            items: Vec::new(),
            key: None,
            account: TurnAccount::default(),
        };
        starts.spawn(async move { server.store.start_turn(new).await.is_ok() });
    }
    assert_eq!(starts.join_all().await.into_iter().filter(|started| *started).count(), 1);
}

/// Deletes of sessions, ends of their turns and sweeps meet in every order; none of them may fail.
#[tokio::test]
async fn what_meets_in_two_servers_ends_in_one_of_the_two_orders() {
    let Some(postgres) = Postgres::start() else { return };
    let url = postgres.database();
    let (here, there) = (open(&url, "here").await, open(&url, "there").await);
    for n in 1..=30 {
        create(&here.store, n, 99).await.unwrap();
        start(&here.store, n).await.unwrap();
        let (tenant, session) = (tenant(), session_id(n));
        let (ended, deleted, swept) = tokio::join!(
            here.store.commit(end(n, 1, 1)),
            there.store.delete_session(&tenant, &session, 3.0),
            there.store.sweep_events(10.0, 1),
        );
        assert!(matches!(ended, Ok(()) | Err(StoreError::Fenced(_))), "{ended:?}");
        deleted.unwrap();
        swept.unwrap();
        assert!(here.store.turn(&turn_id(n)).await.unwrap().is_none());
    }
    while here.store.sweep_events(10.0, 100).await.unwrap() > 0 {}
    assert_eq!(postgres.sql(url.rsplit('/').next().unwrap(), "SELECT COUNT(*) FROM event").trim(), "0");
}

#[tokio::test]
async fn a_database_that_is_started_again_costs_time_and_nothing_else() {
    let Some(mut postgres) = Postgres::start() else { return };
    let url = postgres.database();
    let here = open(&url, "here").await;
    create(&here.store, 1, 9).await.unwrap();
    start(&here.store, 1).await.unwrap();
    let store = here.store.clone();
    let writing = tokio::runtime::Handle::current().spawn(async move {
        for seq in 1..300 {
            store.commit(append(1, 1, seq)).await.unwrap();
        }
        store.commit(end(1, 1, 300)).await.unwrap();
    });
    for _ in 0..3 {
        palisade_testkit::wait_for("some commits", async || {
            (!here.store.events(&turn_id(1), 20, 1).await.unwrap_or_default().is_empty()).then_some(())
        })
        .await;
        postgres = tokio::task::spawn_blocking(move || {
            postgres.stop();
            postgres.launch();
            postgres
        })
        .await
        .unwrap();
    }
    writing.await.unwrap();
    // None of the pool's connections is good any more, and nobody notices.
    for _ in 0..20 {
        assert_eq!(here.store.events(&turn_id(1), 0, 10_000).await.unwrap().len(), 301);
    }
}

/// The two ways in which the answer to a COMMIT can be missing.
#[tokio::test]
async fn a_commit_whose_answer_was_lost_is_written_exactly_once() {
    let Some(postgres) = Postgres::start() else { return };
    let url = postgres.database();
    let direct = open(&url, "direct").await;
    create(&direct.store, 1, 9).await.unwrap();
    let proxy = CuttingProxy::start(&postgres, &url).await;
    let here = open(&proxy.url, "here").await;
    start(&here.store, 1).await.unwrap();
    for (seq, cut) in [(1, Cut::BeforeCommit), (2, Cut::AfterCommit), (3, Cut::AfterCommit)] {
        proxy.cut_next(cut);
        here.store.commit(append(1, 1, seq)).await.unwrap();
        assert!(!proxy.is_armed(), "it was cut");
        assert_eq!(seqs(&direct.store, 1).await.last(), Some(&seq));
    }
    proxy.cut_next(Cut::AfterCommit);
    here.store.commit(end(1, 1, 4)).await.unwrap();
    assert!(!proxy.is_armed(), "it was cut");
    assert_eq!(seqs(&direct.store, 1).await, [0, 1, 2, 3, 4]);
    assert_eq!(direct.store.items(&session_id(1)).await.unwrap().len(), 2);
}

/// Two servers whose groups hold rows and wait for the ledgers' lock would wait for each other.
#[tokio::test]
async fn a_group_that_waits_for_the_ledgers_holds_no_turn() {
    let Some(postgres) = Postgres::start() else { return };
    let url = postgres.database();
    let here = open(&url, "here").await;
    create(&here.store, 1, 9).await.unwrap();
    create(&here.store, 2, 9).await.unwrap();
    start(&here.store, 1).await.unwrap();

    let mut other = sqlx::PgConnection::connect(&url).await.unwrap();
    let mut looking = sqlx::PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("BEGIN; SELECT id FROM money_lock FOR UPDATE").execute(&mut other).await.unwrap();
    // One group: both wait before the writer looks.
    let group = async { tokio::join!(here.store.commit(append(1, 1, 1)), start(&here.store, 2)) };
    let looks = async {
        wait_for("the group to wait", || async {
            let waits = "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
            (postgres.sql("postgres", waits).trim() != "0").then_some(())
        })
        .await;
        let turn = sqlx::query("SELECT id FROM turn FOR UPDATE NOWAIT").execute(&mut looking).await;
        sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
        turn
    };
    let ((appended, started), turn) = tokio::join!(group, looks);
    assert_eq!(turn.unwrap().rows_affected(), 1, "nobody holds it");
    appended.unwrap();
    started.unwrap();
    assert_eq!(seqs(&here.store, 1).await, [0, 1]);
}
