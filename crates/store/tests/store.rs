//! The store through its public face: what was acknowledged is there, what was refused left nothing.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy takes only test functions for tests, not what they call"
)]

mod engines;

use palisade_protocol::item::TurnOutcome;
use palisade_protocol::session::{SessionOrder, SessionStatus};
use palisade_protocol::{Event, FileAccess, Item, Session, SessionId, TenantName, TurnId};
use palisade_store::{ClientAnswer, Commit, NewSession, NewTurn, Store, StoreError, TurnAccount, TurnState};
use serde_json::json;

use engines::{Engine, on_both_engines};

on_both_engines!(
    a_session_reads_back_as_it_was_written_and_only_for_its_tenant,
    one_turn_at_a_time_and_the_session_is_free_after_its_end,
    of_fifty_at_once_exactly_one_starts,
    a_commit_after_the_end_or_of_another_generation_changes_nothing,
    a_cancel_that_was_acknowledged_allows_no_other_end,
    of_a_cancel_and_an_end_at_once_exactly_one_is_in_time,
    a_refused_write_does_not_take_its_neighbours_along,
    a_follower_gets_every_event_once_in_order_and_then_the_end,
    what_was_acknowledged_survives_reopening,
    a_deleted_session_leaves_nothing_after_the_sweep,
    the_sweep_takes_only_turns_that_ended_before,
    a_clients_answers_go_with_their_turn_whoever_is_quicker,
);

struct Fixture {
    store: Store,
    engine: Engine,
    tenant: TenantName,
    session: SessionId,
}

async fn fixture(engine: Engine) -> Fixture {
    let store = engine.open().await;
    let tenant = TenantName::parse("acme").unwrap();
    let session = SessionId::from_random([1; 6]);
    store.create_session(new_session(&tenant, &session)).await.unwrap();
    Fixture { store, engine, tenant, session }
}

fn new_session(tenant: &TenantName, id: &SessionId) -> NewSession {
    NewSession {
        tenant: tenant.clone(),
        session: Session {
            id: id.clone(),
            created_at: 1777222996.07,
            last_activity: 1777222996.07,
            busy: false,
            persistent: true,
            ttl: 60,
            status: SessionStatus::Ready,
            metadata: serde_json::Map::new(),
            file_access: FileAccess::default(),
            model: "pokee-isaac".into(),
            expires_at: 1777223056.07,
            last_response_id: None,
            locked: vec![],
        },
        snapshots: vec![],
        context: json!({"skills": []}).to_string(),
        sessions_max: 10,
    }
}

fn turn_id(n: u8) -> TurnId {
    TurnId::from_random([n; 12])
}

fn text(content: &str) -> Event {
    Event::TextDelta { content: content.into() }
}

impl Fixture {
    async fn start(&self, n: u8) -> Result<(), StoreError> {
        self.store
            .start_turn(NewTurn {
                id: turn_id(n),
                tenant: self.tenant.clone(),
                session: self.session.clone(),
                now: 1777223000.5,
                events: vec![text("first").render(0)],
                items: vec![Item::UserMessage { text: "hello".into() }],
                key: None,
                account: TurnAccount::default(),
            })
            .await
    }

    fn commit(&self, n: u8, seq: u64, end: bool) -> Commit {
        let event = if end { Event::Cancelled { id: turn_id(n), status: "cancelled" } } else { text("more") };
        Commit {
            session: self.session.clone(),
            turn: turn_id(n),
            generation: 1,
            events: vec![event.render(seq)],
            items: vec![],
            metered: None,
            skill: None,
            end: end.then_some((TurnOutcome::Cancelled, 1777223001.0)),
        }
    }
}

async fn a_session_reads_back_as_it_was_written_and_only_for_its_tenant(engine: Engine) {
    let f = fixture(engine).await;
    let expected = new_session(&f.tenant, &f.session).session;
    assert_eq!(f.store.session(&f.tenant, &f.session).await.unwrap(), Some(expected));
    let other = TenantName::parse("other").unwrap();
    assert_eq!(f.store.session(&other, &f.session).await.unwrap(), None);
    assert!(matches!(
        f.store.delete_session(&other, &f.session, 3.0).await,
        Err(StoreError::NoSuchSession(_))
    ));
    assert!(f.store.sessions(&other, None, SessionOrder::OldestFirst, 10).await.unwrap().is_empty());
}

async fn one_turn_at_a_time_and_the_session_is_free_after_its_end(engine: Engine) {
    let f = fixture(engine).await;
    f.start(1).await.unwrap();
    assert!(f.store.session(&f.tenant, &f.session).await.unwrap().unwrap().busy);
    assert!(matches!(f.start(2).await, Err(StoreError::Busy(_))));
    f.store.commit(f.commit(1, 1, true)).await.unwrap();
    assert!(!f.store.session(&f.tenant, &f.session).await.unwrap().unwrap().busy);
    assert_eq!(f.store.turn(&turn_id(1)).await.unwrap().unwrap().state, TurnState::Ended);
    f.start(2).await.unwrap();
}

async fn of_fifty_at_once_exactly_one_starts(engine: Engine) {
    let f = fixture(engine).await;
    let mut starts = tokio::task::JoinSet::new();
    let f = std::sync::Arc::new(f);
    for n in 0..50 {
        let f = f.clone();
        starts.spawn(async move { f.start(n).await.is_ok() });
    }
    let started = starts.join_all().await.into_iter().filter(|started| *started).count();
    assert_eq!(started, 1);
    assert_eq!(f.store.items(&f.session).await.unwrap().len(), 1, "a refused turn leaves no item");
}

async fn a_commit_after_the_end_or_of_another_generation_changes_nothing(engine: Engine) {
    let f = fixture(engine).await;
    f.start(1).await.unwrap();
    let stale = Commit { generation: 0, ..f.commit(1, 1, false) };
    assert!(matches!(f.store.commit(stale).await, Err(StoreError::Fenced(_))));
    f.store.commit(f.commit(1, 1, true)).await.unwrap();
    assert!(matches!(f.store.commit(f.commit(1, 2, false)).await, Err(StoreError::Fenced(_))));
    assert_eq!(f.store.last_seq(&turn_id(1)).await.unwrap(), Some(1));
}

fn ended(f: &Fixture, n: u8, outcome: TurnOutcome) -> Commit {
    Commit { end: Some((outcome, 1777223001.0)), ..f.commit(n, 1, false) }
}

async fn a_cancel_that_was_acknowledged_allows_no_other_end(engine: Engine) {
    let f = fixture(engine).await;
    f.start(1).await.unwrap();
    assert!(f.store.request_cancel(&turn_id(1)).await.unwrap());
    for outcome in [TurnOutcome::Completed, TurnOutcome::Failed] {
        let refused = f.store.commit(ended(&f, 1, outcome)).await;
        assert!(matches!(refused, Err(StoreError::CancelRequested(_))), "{refused:?}");
    }
    assert_eq!(f.store.last_seq(&turn_id(1)).await.unwrap(), Some(0), "nothing of it was written");
    let stale = Commit { generation: 0, ..ended(&f, 1, TurnOutcome::Completed) };
    assert!(matches!(f.store.commit(stale).await, Err(StoreError::Fenced(_))));
    f.store.commit(ended(&f, 1, TurnOutcome::Cancelled)).await.unwrap();
    assert!(!f.store.request_cancel(&turn_id(1)).await.unwrap(), "it is too late");
    let again = f.store.commit(ended(&f, 1, TurnOutcome::Completed)).await;
    assert!(matches!(again, Err(StoreError::Fenced(_))), "{again:?}");
}

/// In the same group as often as not; on PostgreSQL from another server as well.
async fn of_a_cancel_and_an_end_at_once_exactly_one_is_in_time(engine: Engine) {
    let f = fixture(engine).await;
    let other = f.engine.open().await;
    for n in 0..40 {
        f.start(n).await.unwrap();
        let cancelling = if f.store.is_shared() && n % 2 == 0 { &other } else { &f.store };
        let id = turn_id(n);
        let cancel = cancelling.request_cancel(&id);
        let end = f.store.commit(ended(&f, n, TurnOutcome::Completed));
        let (acknowledged, end) = if n % 4 < 2 {
            tokio::join!(cancel, end)
        } else {
            let (end, acknowledged) = tokio::join!(end, cancel);
            (acknowledged, end)
        };
        match acknowledged.unwrap() {
            true => {
                assert!(matches!(end, Err(StoreError::CancelRequested(_))), "{end:?}");
                f.store.commit(ended(&f, n, TurnOutcome::Cancelled)).await.unwrap();
            }
            false => end.unwrap(),
        }
    }
}

async fn a_refused_write_does_not_take_its_neighbours_along(engine: Engine) {
    let f = std::sync::Arc::new(fixture(engine).await);
    f.start(1).await.unwrap();
    let mut writes = tokio::task::JoinSet::new();
    for seq in 1..=100 {
        let f = f.clone();
        // Every second commit is stale and is refused.
        let generation = i64::from(seq % 2 == 1);
        writes.spawn(async move {
            let commit = Commit { generation, ..f.commit(1, seq, false) };
            f.store.commit(commit).await.is_ok() == (generation == 1)
        });
    }
    assert!(writes.join_all().await.into_iter().all(|as_expected| as_expected));
    let events = f.store.events(&turn_id(1), 0, 1000).await.unwrap();
    assert_eq!(events.len(), 51);
}

async fn a_follower_gets_every_event_once_in_order_and_then_the_end(engine: Engine) {
    let f = fixture(engine).await;
    f.start(1).await.unwrap();
    let mut early = f.store.follow(&turn_id(1), None);
    let reader = async {
        let mut seen = Vec::new();
        while let Some(events) = early.next().await.unwrap() {
            seen.extend_from_slice(&events);
        }
        seen
    };
    let writer = async {
        for seq in 1..200 {
            f.store.commit(f.commit(1, seq, seq == 199)).await.unwrap();
        }
    };
    let (seen, ()) = tokio::join!(reader, writer);
    assert_eq!(seen.iter().map(|e| e.seq).collect::<Vec<_>>(), (0..200).collect::<Vec<_>>());

    let mut late = f.store.follow(&turn_id(1), Some(150));
    let mut replayed = Vec::new();
    while let Some(events) = late.next().await.unwrap() {
        replayed.extend_from_slice(&events);
    }
    assert_eq!(replayed, seen[151..], "a replay is the same bytes");
}

async fn what_was_acknowledged_survives_reopening(engine: Engine) {
    let f = fixture(engine).await;
    f.start(1).await.unwrap();
    f.store.set_metadata(&f.session, "deck_status".into(), json!("building")).await.unwrap();
    f.store.commit(f.commit(1, 1, false)).await.unwrap();
    let again = f.engine.open().await;
    assert_eq!(
        again.events(&turn_id(1), 0, 10).await.unwrap(),
        f.store.events(&turn_id(1), 0, 10).await.unwrap()
    );
    assert_eq!(again.items(&f.session).await.unwrap(), vec![Item::UserMessage { text: "hello".into() }]);
    let session = again.session(&f.tenant, &f.session).await.unwrap().unwrap();
    assert_eq!(session.metadata["deck_status"], "building");
    assert_eq!(again.orphaned_turns().await.unwrap()[0].1.id, turn_id(1));
}

async fn a_deleted_session_leaves_nothing_after_the_sweep(engine: Engine) {
    let f = fixture(engine).await;
    f.start(1).await.unwrap();
    f.store.delete_session(&f.tenant, &f.session, 3.0).await.unwrap();
    assert_eq!(f.store.turn(&turn_id(1)).await.unwrap(), None);
    assert_eq!(f.store.sweep_items(100).await.unwrap(), 1);
    assert!(f.store.items(&f.session).await.unwrap().is_empty());
    assert_eq!(f.store.sweep_events(1777223001.0, 100).await.unwrap(), 1);
    assert!(matches!(f.store.commit(f.commit(1, 1, false)).await, Err(StoreError::Fenced(_))));
}

async fn the_sweep_takes_only_turns_that_ended_before(engine: Engine) {
    let f = fixture(engine).await;
    f.start(1).await.unwrap();
    f.store.commit(f.commit(1, 1, true)).await.unwrap();
    f.start(2).await.unwrap();
    assert_eq!(f.store.sweep_events(1777223000.9, 100).await.unwrap(), 0);
    assert_eq!(f.store.sweep_events(1777223001.1, 1).await.unwrap(), 1, "no more than asked");
    assert_eq!(f.store.sweep_events(1777223001.1, 100).await.unwrap(), 1);
    assert_eq!(f.store.last_seq(&turn_id(2)).await.unwrap(), Some(0), "a running turn keeps its events");
}

/// Whether the turn ends or its session is deleted, and on PostgreSQL from another server.
async fn a_clients_answers_go_with_their_turn_whoever_is_quicker(engine: Engine) {
    let f = fixture(engine).await;
    let other = f.engine.open().await;
    let answering = if f.store.is_shared() { &other } else { &f.store };
    let answer = |call: &str| {
        let (call_id, content) = (call.to_owned(), "42".to_owned());
        vec![ClientAnswer { call_id, content, is_error: false }]
    };
    let mut late = 0;
    for n in 0..40 {
        f.start(n).await.unwrap();
        let id = turn_id(n);
        answering.answer_calls(&id, answer("early")).await.unwrap();
        let by_delete = n % 2 == 0;
        let ending = async {
            if by_delete {
                f.store.delete_session(&f.tenant, &f.session, 1777223001.0).await.unwrap();
            } else {
                f.store.commit(ended(&f, n, TurnOutcome::Completed)).await.unwrap();
            }
        };
        let ((), answered) = tokio::join!(ending, answering.answer_calls(&id, answer("late")));
        match answered {
            Ok(()) => {}
            Err(StoreError::Fenced(_)) => late += 1,
            Err(error) => panic!("{error:?}"),
        }
        assert_eq!(f.store.client_answers(&id).await.unwrap(), [], "{n}");
        if by_delete {
            f.store.create_session(new_session(&f.tenant, &f.session)).await.unwrap();
        }
    }
    assert!(late > 0, "none came too late");
}
