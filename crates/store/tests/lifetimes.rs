//! Whose time is over, at the very moment and not before; and what a delete of an idle session must not take.

#![expect(clippy::unwrap_used, reason = "clippy takes only test functions for tests, not what they call")]

mod engines;

use palisade_protocol::item::TurnOutcome;
use palisade_protocol::session::SessionStatus;
use palisade_protocol::{FileAccess, Item, Session, SessionId, TenantName, TurnId};
use palisade_store::{
    Commit, DueSession, IdempotencyKey, NewSession, NewTurn, Store, StoreError, TurnAccount,
};
use serde_json::json;

const CREATED: f64 = 1_777_223_000.0;
const TTL: u64 = 1000;
const IDLE_S: f64 = 300.0;

use engines::{Engine, on_both_engines};

on_both_engines!(
    a_session_falls_due_at_its_ttl_or_when_idle_and_not_a_moment_before,
    what_was_found_idle_and_is_used_again_is_not_deleted,
    no_turn_starts_beyond_the_ttl,
    a_tenant_has_as_many_sessions_as_it_may_and_no_more,
    a_key_stands_for_a_day_and_not_a_moment_longer,
    a_page_ends_where_its_bytes_or_its_items_do,
);

struct Fixture {
    store: Store,
    tenant: TenantName,
    _engine: Engine,
}

async fn fixture(engine: Engine) -> Fixture {
    let store = engine.open().await;
    Fixture { store, tenant: TenantName::parse("acme").unwrap(), _engine: engine }
}

impl Fixture {
    async fn create(&self, n: u8, persistent: bool, sessions_max: u64) -> Result<SessionId, StoreError> {
        self.create_at(n, persistent, sessions_max, CREATED).await
    }

    async fn create_at(
        &self,
        n: u8,
        persistent: bool,
        sessions_max: u64,
        created_at: f64,
    ) -> Result<SessionId, StoreError> {
        let id = SessionId::from_random([n; 6]);
        let session = Session {
            id: id.clone(),
            created_at,
            last_activity: created_at,
            busy: false,
            persistent,
            ttl: TTL,
            status: SessionStatus::Ready,
            metadata: serde_json::Map::new(),
            file_access: FileAccess::default(),
            model: "pokee-isaac".into(),
            expires_at: created_at + TTL as f64,
            last_response_id: None,
            locked: vec![],
        };
        let new = NewSession {
            tenant: self.tenant.clone(),
            session,
            context: "null".to_owned(),
            snapshots: vec![],
            sessions_max,
        };
        self.store.create_session(new).await.map(|()| id)
    }

    async fn start_turn(&self, session: &SessionId, n: u8, now: f64) -> Result<TurnId, StoreError> {
        self.start_with_key(session, n, now, None).await
    }

    async fn start_with_key(
        &self,
        session: &SessionId,
        n: u8,
        now: f64,
        key: Option<&str>,
    ) -> Result<TurnId, StoreError> {
        let id = TurnId::from_random([n; 12]);
        let new = NewTurn {
            id: id.clone(),
            tenant: self.tenant.clone(),
            session: session.clone(),
            now,
            events: Vec::new(),
            items: vec![Item::UserMessage { text: "hello".into() }],
            key: key.map(|key| IdempotencyKey { key: key.into(), body_hash: format!("of {n}") }),
            account: TurnAccount::default(),
        };
        self.store.start_turn(new).await.map(|()| id)
    }

    async fn end_turn(&self, session: &SessionId, turn: TurnId, now: f64) {
        let commit = Commit {
            session: session.clone(),
            turn,
            generation: 1,
            events: Vec::new(),
            items: vec![Item::TurnEnded { outcome: TurnOutcome::Completed }],
            metered: None,
            skill: None,
            end: Some((TurnOutcome::Completed, now)),
        };
        self.store.commit(commit).await.unwrap();
    }

    async fn due(&self, now: f64) -> Vec<(SessionId, bool)> {
        let due = self.store.due_sessions(now, IDLE_S, 10).await.unwrap();
        due.into_iter()
            .map(|DueSession { tenant, id, expired }| {
                assert_eq!(tenant, self.tenant);
                (id, expired)
            })
            .collect()
    }
}

async fn a_session_falls_due_at_its_ttl_or_when_idle_and_not_a_moment_before(engine: Engine) {
    let fixture = fixture(engine).await;
    let used = fixture.create(1, false, 9).await.unwrap();
    let unused = fixture.create(2, false, 9).await.unwrap();
    let persistent = fixture.create(3, true, 9).await.unwrap();
    let busy = fixture.create(4, false, 9).await.unwrap();
    for (n, session) in [(1, &used), (2, &persistent), (3, &busy)] {
        let turn = fixture.start_turn(session, n, CREATED + 1.0).await.unwrap();
        fixture.end_turn(session, turn, CREATED + 10.0).await;
    }
    fixture.start_turn(&busy, 4, CREATED + 11.0).await.unwrap();

    let idle_end = CREATED + 10.0 + IDLE_S;
    assert_eq!(fixture.store.next_due(None, IDLE_S).await.unwrap(), Some(idle_end));
    assert_eq!(fixture.due(idle_end - 0.001).await, []);
    assert_eq!(fixture.due(idle_end).await, [(used.clone(), false)]);

    let expiry = CREATED + TTL as f64;
    assert_eq!(fixture.due(expiry - 0.001).await, [(used.clone(), false)]);
    let mut all = fixture.due(expiry).await;
    all.sort();
    let mut expected: Vec<_> = [used.clone(), unused, persistent, busy].map(|id| (id, true)).into();
    expected.sort();
    assert_eq!(all, expected, "each once, busy or not");
    assert_eq!(fixture.store.due_sessions(expiry, IDLE_S, 3).await.unwrap().len(), 3, "as many as asked for");

    fixture.store.delete_idle_session(&fixture.tenant, &used, idle_end - IDLE_S, true).await.unwrap();
    assert_eq!(fixture.store.next_due(None, IDLE_S).await.unwrap(), Some(expiry));
    let other = TenantName::parse("other").unwrap();
    assert_eq!(fixture.store.next_due(Some(&other), IDLE_S).await.unwrap(), None);
}

async fn what_was_found_idle_and_is_used_again_is_not_deleted(engine: Engine) {
    let fixture = fixture(engine).await;
    let id = fixture.create(1, false, 9).await.unwrap();
    let tenant = &fixture.tenant;
    let refused = |result: Result<(), StoreError>| {
        assert!(matches!(result, Err(StoreError::NoSuchSession(_))), "{result:?}");
    };
    refused(fixture.store.delete_idle_session(tenant, &id, CREATED + 900.0, true).await);
    let turn = fixture.start_turn(&id, 1, CREATED + 1.0).await.unwrap();
    refused(fixture.store.delete_idle_session(tenant, &id, CREATED + 900.0, true).await);
    refused(fixture.store.delete_idle_session(tenant, &id, f64::MAX, false).await);
    let unused = fixture.create(2, false, 9).await.unwrap();
    fixture.store.delete_idle_session(tenant, &unused, f64::MAX, false).await.unwrap();
    fixture.end_turn(&id, turn, CREATED + 500.0).await;
    refused(fixture.store.delete_idle_session(tenant, &id, CREATED + 499.0, true).await);
    let other = TenantName::parse("other").unwrap();
    refused(fixture.store.delete_idle_session(&other, &id, CREATED + 500.0, true).await);
    assert!(fixture.store.session(tenant, &id).await.unwrap().is_some());
    fixture.store.delete_idle_session(tenant, &id, CREATED + 500.0, true).await.unwrap();
    assert!(fixture.store.session(tenant, &id).await.unwrap().is_none());
    // In bites of one; the last finds nothing.
    let mut bites = 0;
    while fixture.store.sweep_items(1).await.unwrap() == 1 {
        bites += 1;
    }
    assert_eq!((bites, fixture.store.items(&id).await.unwrap()), (2, vec![]));
}

async fn no_turn_starts_beyond_the_ttl(engine: Engine) {
    let fixture = fixture(engine).await;
    let id = fixture.create(1, true, 9).await.unwrap();
    let late = fixture.start_turn(&id, 1, CREATED + TTL as f64).await;
    assert!(matches!(late, Err(StoreError::NoSuchSession(_))), "{late:?}");
    fixture.start_turn(&id, 1, CREATED + TTL as f64 - 0.001).await.unwrap();
}

async fn a_tenant_has_as_many_sessions_as_it_may_and_no_more(engine: Engine) {
    let fixture = fixture(engine).await;
    let first = fixture.create(1, false, 2).await.unwrap();
    fixture.create(2, false, 2).await.unwrap();
    let third = fixture.create(3, false, 2).await;
    assert!(matches!(third, Err(StoreError::TooManySessions { sessions_max: 2, .. })), "{third:?}");
    fixture.store.delete_session(&fixture.tenant, &first, 3.0).await.unwrap();
    fixture.create(3, false, 2).await.unwrap();
    let other = Fixture { tenant: TenantName::parse("other").unwrap(), ..fixture };
    other.create(4, false, 2).await.unwrap();
}

async fn a_page_ends_where_its_bytes_or_its_items_do(engine: Engine) {
    let fixture = fixture(engine).await;
    let id = fixture.create(1, false, 9).await.unwrap();
    for n in 0..4 {
        let turn = fixture.start_turn(&id, n, CREATED + f64::from(n)).await.unwrap();
        fixture.end_turn(&id, turn, CREATED + f64::from(n)).await;
    }
    let item = json!({"type": "user_message", "text": "hello"}).to_string();
    for (from, items_max, bytes_max, indexes, has_more) in [
        (0, 100, 100_000, vec![0, 1, 2, 3, 4, 5, 6, 7], false),
        (0, 8, 100_000, vec![0, 1, 2, 3, 4, 5, 6, 7], false),
        (0, 7, 100_000, vec![0, 1, 2, 3, 4, 5, 6], true),
        (6, 7, 100_000, vec![6, 7], false),
        (8, 7, 100_000, vec![], false),
        (u64::MAX, 7, 100_000, vec![], false),
        (0, 7, 1, vec![0], true),
        (7, 7, 1, vec![7], false),
        (0, 7, item.len() + 1, vec![0, 1], true),
    ] {
        let (items, more) = fixture.store.items_page(&id, from, items_max, bytes_max).await.unwrap();
        let found: Vec<u64> = items.iter().map(|placed| placed.index).collect();
        assert_eq!((found, more), (indexes, has_more), "{from} {items_max} {bytes_max}");
    }
}

/// Neither does it matter whether the sweep has been there: that one only makes room.
async fn a_key_stands_for_a_day_and_not_a_moment_longer(engine: Engine) {
    const DAY: f64 = 86_400.0;
    let fixture = fixture(engine).await;
    let session = fixture.create(1, true, 9).await.unwrap();
    let next_day = fixture.create_at(2, true, 9, CREATED + DAY - 100.0).await.unwrap();
    let start = CREATED + 1.0;
    let turn = fixture.start_with_key(&session, 1, start, Some("k")).await.unwrap();
    fixture.end_turn(&session, turn.clone(), start).await;
    let used = async |at: f64| fixture.store.key_use(&fixture.tenant, "k", at).await.unwrap();
    assert_eq!(used(start + DAY - 1.0).await.unwrap().turn, turn);
    let retry = fixture.start_with_key(&next_day, 2, start + DAY - 1.0, Some("k")).await;
    assert!(matches!(retry, Err(StoreError::KeyTaken)), "{retry:?}");
    assert_eq!(used(start + DAY + 1.0).await, None);
    let anew = fixture.start_with_key(&next_day, 3, start + DAY + 1.0, Some("k")).await.unwrap();
    assert_eq!(used(start + DAY + 1.0).await.unwrap().turn, anew);
    fixture.end_turn(&next_day, anew, start + DAY + 1.0).await;

    // The sweep: as much as it may, and nothing too early.
    for (n, key) in [(4, "a"), (5, "b"), (6, "c")] {
        let turn = fixture.start_with_key(&session, n, start + f64::from(n), Some(key)).await.unwrap();
        fixture.end_turn(&session, turn, start + f64::from(n)).await;
    }
    assert_eq!(fixture.store.sweep_keys(start + DAY + 3.0, 9).await.unwrap(), 0);
    assert_eq!(fixture.store.sweep_keys(start + DAY + 5.0, 1).await.unwrap(), 1, "no more than asked");
    assert_eq!(fixture.store.sweep_keys(start + DAY + 5.0, 9).await.unwrap(), 1, "c is younger");
}
