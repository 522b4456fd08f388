//! Two servers on one PostgreSQL and one data directory: what one began, the other shows, steers, ends, and goes on
//! with when the first is gone (decision 4).

use std::time::{Duration, Instant};

use palisade_testkit::postgres::Postgres;
use palisade_testkit::stream::{TurnEvent, TurnStream, joined, kinds};
use palisade_testkit::upstream::{Answer, Call, Gate, ScriptedUpstream};
use palisade_testkit::{Server, wait_for};
use reqwest::Method;
use rustix::process::{Signal, kill_process};
use serde_json::json;

use crate::sessions::{a_sleep, process_runs};

/// Two servers, with what they share.
struct Pair {
    here: Server,
    there: Server,
    upstream: ScriptedUpstream,
    postgres: Postgres,
}

impl Pair {
    /// `None`, said by name, where PostgreSQL is not installed.
    async fn start() -> Option<Self> {
        let postgres = Postgres::start()?;
        let upstream = ScriptedUpstream::start().await.unwrap();
        let store = format!("[store]\nurl = {:?}\n", postgres.database());
        let here = Server::start(env!("CARGO_BIN_EXE_palisade"), &upstream, &store).await;
        let there = here.beside().await;
        Some(Self { here, there, upstream, postgres })
    }
}

async fn follow(server: &Server, session: &str, turn: &str) -> TurnStream {
    let path = format!("/v1/sessions/{session}/responses/{turn}/events");
    TurnStream::of(server.request(Method::GET, &path).send().await.unwrap()).await
}

fn numbers(events: &[TurnEvent]) -> Vec<u64> {
    events.iter().map(|event| event.id).collect()
}

/// Whether a file has stopped growing.
async fn stands_still(path: &std::path::Path) -> bool {
    let length = || std::fs::metadata(path).map_or(0, |found| found.len());
    let before = length();
    tokio::time::sleep(Duration::from_millis(300)).await;
    length() == before
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_here_is_seen_and_steered_from_there() {
    let Some(Pair { here, there, upstream, postgres: _postgres }) = Pair::start().await else { return };
    let tools = json!({"tools": [{"type": "function", "function": {"name": "lookup", "description": "Looks up.",
        "parameters": {"type": "object"}}}]});
    let session = here.session(tools).await;
    assert_eq!(there.get(&format!("/v1/sessions/{session}")).await["id"], session.as_str());

    // Read there while it runs here.
    let gate = Gate::new();
    upstream.push(Answer::stream().say("one").wait(&gate).say(" two").done());
    let mut stream = here.send(&session, "go").await;
    let mut reader = follow(&there, &session, &stream.turn).await;
    let mut seen = reader.until("text.delta").await;
    let busy = there
        .request(Method::POST, &format!("/v1/sessions/{session}/messages"))
        .json(&json!({"message": "me too"}));
    assert_eq!(there.refused(busy).await, (409, "session.busy".into()));
    gate.open();
    seen.extend(reader.rest().await);
    assert_eq!(seen, stream.rest().await, "the same bytes on both");

    // Answered there.
    upstream.push(Answer::calls([Call::new("lookup", json!({})).with_id("call_a")]));
    upstream.push(Answer::text("thanks"));
    let mut stream = here.send(&session, "and now?").await;
    stream.until("tool_call.requested").await;
    let results = there.request(Method::POST, &format!("/v1/sessions/{session}/tool_results"));
    there.json(results.json(&json!({"call_id": "call_a", "output": "42"}))).await;
    assert_eq!(joined(&stream.rest().await, "text.delta"), "thanks");

    // Cancelled there, in the middle of a command.
    upstream.push(Answer::tool_call("Bash", json!({"command": "echo on; sleep 600"})));
    let mut stream = here.send(&session, "sleep").await;
    stream.until("tool_use.output_delta").await;
    let began = Instant::now();
    let path = format!("/v1/sessions/{session}/responses/{}/cancel", stream.turn);
    let cancelled = there.request(Method::POST, &path).send().await.unwrap();
    assert_eq!(cancelled.status(), 202);
    assert_eq!(stream.rest().await.last().unwrap().kind, "message.cancelled");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());

    // Read here, and destroyed there: here it is soon gone, too, whatever is remembered of it.
    let doomed = here.session(json!({})).await;
    let listing = || here.request(Method::GET, &format!("/v1/sessions/{doomed}/files/"));
    assert_eq!(listing().send().await.unwrap().status(), 200);
    let deleted = there.request(Method::DELETE, &format!("/v1/sessions/{doomed}")).send().await.unwrap();
    assert_eq!(deleted.status(), 204);
    wait_for("its files to be out of reach", || async {
        (listing().send().await.unwrap().status() == 404).then_some(())
    })
    .await;

    // The next turn there: the conversation is one.
    upstream.push(Answer::text("here I am"));
    there.send(&session, "where are you?").await.until("message.completed").await;
    let asked = upstream.requests().last().unwrap().json["messages"].to_string();
    assert!(asked.contains("thanks") && asked.contains("where are you?"), "{asked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_deleted_there_ends_here() {
    let Some(Pair { here, there, upstream, postgres: _postgres }) = Pair::start().await else { return };
    let session = here.session(json!({})).await;
    let command = "while true; do echo . >> dots; sleep 0.05; done";
    upstream.push(Answer::tool_call("Bash", json!({"command": command})));
    let mut stream = here.send(&session, "go").await;
    stream.until("tool_use.executing").await;
    let dots = here.workspace().join("dots");
    wait_for("the command", async || dots.exists().then_some(())).await;
    let delete = there.request(Method::DELETE, &format!("/v1/sessions/{session}"));
    assert_eq!(delete.send().await.unwrap().status(), 204);
    let end = stream.rest().await;
    assert_eq!(end.last().unwrap().kind, "message.cancelled");
    wait_for("the end of the command", async || stands_still(&dots).await.then_some(())).await;
    for server in [&here, &there] {
        let record = server.request(Method::GET, &format!("/v1/sessions/{session}"));
        assert_eq!(record.send().await.unwrap().status(), 404);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_one_server_dies_the_other_goes_on_with_its_turns() {
    let Some(Pair { mut here, there, upstream, postgres: _postgres }) = Pair::start().await else { return };
    let session = here.session(json!({})).await;
    upstream.push(Answer::stream().say("half").stall());
    let mut stream = here.send(&session, "go").await;
    let seen = stream.until("text.delta").await;
    let mut reader = follow(&there, &session, &stream.turn).await;
    upstream.push(Answer::text("said anew"));
    let began = Instant::now();
    here.kill().await;
    let all = reader.rest().await;
    assert!(began.elapsed() < Duration::from_secs(8), "its lock is free: {:?}", began.elapsed());
    assert_eq!(all[..seen.len()], seen[..]);
    assert_eq!(numbers(&all), (0..all.len() as u64).collect::<Vec<_>>());
    assert_eq!(kinds(&all[seen.len()..])[..2], ["text.stop", "turn.attempt"]);
    assert_eq!(all.last().unwrap().kind, "message.completed");

    // And the other way round, in good order: at once, and no crash.
    here.restart().await;
    upstream.push(Answer::stream().say("half").stall());
    let (mut there, session) = (there, here.session(json!({})).await);
    let mut stream = there.send(&session, "go").await;
    stream.until("text.delta").await;
    let mut reader = follow(&here, &session, &stream.turn).await;
    upstream.push(Answer::text("said anew"));
    assert_eq!(there.terminate().await.code(), Some(0));
    let began = Instant::now();
    assert_eq!(reader.rest().await.last().unwrap().kind, "message.completed");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

/// Longer than a lease: the other takes over, ends what the first one left running, and the first one, when it goes
/// on, neither writes nor runs anything of that turn.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stood_still_for_longer_than_its_lease_lets_its_turn_go() {
    let Some(Pair { here, there, upstream, postgres: _postgres }) = Pair::start().await else { return };
    let session = here.session(json!({})).await;
    let command = "echo $$ >> begun; while true; do echo . >> dots; sleep 0.05; done";
    upstream.push(Answer::tool_call("Bash", json!({"command": command})));
    let mut stream = here.send(&session, "go").await;
    let mut seen = stream.until("tool_use.executing").await;
    let workspace = here.workspace();
    wait_for("the command", async || workspace.join("dots").exists().then_some(())).await;
    let pid = here.pid().unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    upstream.push(Answer::text("I see"));
    let mut reader = follow(&there, &session, &stream.turn).await;
    let all = reader.rest().await;
    assert_eq!(all.last().unwrap().kind, "message.completed");
    let result = all.iter().find(|event| event.kind == "tool_result").unwrap();
    assert_eq!(result.data["code"], "tool.outcome_unknown");
    assert!(stands_still(&workspace.join("dots")).await, "the first one's sandbox was ended");

    kill_process(pid, Signal::CONT).unwrap();
    seen.extend(stream.rest().await);
    assert_eq!(seen, all, "who reads at the first one sees what the other has done");
    wait_for("the first one to begin anew", async || {
        here.log().contains("it lets its turns go").then_some(())
    })
    .await;
    upstream.push(Answer::tool_call("Bash", json!({"command": "cat begun | wc -l"})));
    upstream.push(Answer::text("ok"));
    let session = wait_for("a session", async || {
        let created = here.request(Method::POST, "/v1/sessions").json(&json!({})).send().await.unwrap();
        let record: serde_json::Value = created.json().await.unwrap();
        record["id"].as_str().map(str::to_owned)
    })
    .await;
    let events = here.send(&session, "go").await.rest().await;
    assert_eq!(events.last().unwrap().kind, "message.completed", "it works as before");
    let result = events.iter().find(|event| event.kind == "tool_result").unwrap();
    assert_eq!(result.data["content"].as_str().unwrap().trim(), "1", "nothing was run twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_started_again_ends_no_turn() {
    let Some(Pair { here, there, upstream, mut postgres }) = Pair::start().await else { return };
    let session = here.session(json!({})).await;
    let gate = Gate::new();
    upstream.push(Answer::stream().say("before").wait(&gate).say(" and after").done());
    let mut stream = here.send(&session, "go").await;
    stream.until("text.delta").await;
    postgres = tokio::task::spawn_blocking(move || {
        postgres.stop();
        postgres
    })
    .await
    .unwrap();
    let refused = here.request(Method::POST, "/v1/sessions").json(&json!({}));
    gate.open();
    let _postgres = tokio::task::spawn_blocking(move || {
        postgres.launch();
        postgres
    })
    .await
    .unwrap();
    // Whoever asked in between has waited, and nothing else.
    assert_eq!(refused.send().await.unwrap().status(), 201);
    let events = wait_for("the turn's end", async || {
        let path = format!("/v1/sessions/{session}/responses/{}/events", stream.turn);
        let response = there.request(Method::GET, &path).send().await.ok()?;
        if response.status() != 200 {
            return None;
        }
        Some(TurnStream::of(response).await.rest().await)
    })
    .await;
    assert_eq!(events.last().unwrap().kind, "message.completed");
    assert_eq!(joined(&events, "text.delta"), "before and after");
    assert_eq!(upstream.requests().len(), 1, "nothing was asked again");
}

/// The one database that the servers use.
/// The database is away for good: a stop ends soon, says why, and does not call itself a good one. Turns go on later.
#[tokio::test]
async fn a_stop_without_a_database_says_so_and_loses_no_turn() {
    let Some(Pair { mut here, there, upstream, mut postgres }) = Pair::start().await else { return };
    drop(there);
    let session = here.session(json!({"persistent": true})).await;
    upstream.push(Answer::never());
    let stream = here.send(&session, "go").await;
    upstream.wait_for_requests(1).await;
    postgres = tokio::task::spawn_blocking(move || {
        postgres.stop();
        postgres
    })
    .await
    .unwrap();
    assert_eq!(here.terminate().await.code(), Some(1));
    let log = here.log();
    assert!(log.contains("the database could not be reached while the server stopped"), "{log}");
    assert!(!log.contains("did not end within"), "it waits no longer than it has to: {log}");
    let _postgres = tokio::task::spawn_blocking(move || {
        postgres.launch();
        postgres
    })
    .await
    .unwrap();
    upstream.push(Answer::text("done"));
    here.restart().await;
    assert_eq!(ended(&here, &session, &stream.turn).await.last().unwrap().kind, "message.completed");
}

fn database(postgres: &Postgres) -> String {
    postgres.sql("postgres", r"SELECT datname FROM pg_database WHERE datname LIKE 't\_%'").trim().to_owned()
}

/// Holds the rows of all sessions for some seconds, so that a turn is about to start for as long.
async fn hold_sessions(
    postgres: &std::sync::Arc<Postgres>,
    database: &str,
    seconds: u32,
) -> tokio::task::JoinHandle<String> {
    let (server, database) = (postgres.clone(), database.to_owned());
    let sql = format!("BEGIN; SELECT id FROM session FOR UPDATE; SELECT pg_sleep({seconds}); COMMIT");
    let holding = tokio::task::spawn_blocking(move || server.sql(&database, &sql));
    wait_for("the rows to be held", async || (count(postgres, "wait_event = 'PgSleep'") > 0).then_some(()))
        .await;
    holding
}

fn is_starting(postgres: &Postgres) -> bool {
    count(postgres, "wait_event_type = 'Lock' AND query LIKE '%UPDATE session%'") > 0
}

/// The database's connections that are so.
fn count(postgres: &Postgres, are: &str) -> u32 {
    let sql = format!("SELECT COUNT(*) FROM pg_stat_activity WHERE {are}");
    postgres.sql("postgres", &sql).trim().parse().unwrap()
}

/// The events of a turn, once there is a terminal one.
async fn ended(server: &Server, session: &str, turn: &str) -> Vec<TurnEvent> {
    wait_for("the turn's end", async || {
        let path = format!("/v1/sessions/{session}/responses/{turn}/events");
        let response = server.request(Method::GET, &path).send().await.ok()?;
        if response.status() != 200 {
            return None;
        }
        let events = TurnStream::of(response).await.rest().await;
        let last = events.last()?;
        ["message.completed", "message.cancelled", "message.error"].contains(&&*last.kind).then_some(events)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_nobody_drives_is_found_though_its_server_lives() {
    let Some(Pair { here, there: _there, upstream, postgres }) = Pair::start().await else { return };
    let session = here.session(json!({})).await;
    upstream.push(Answer::text("first"));
    let mut stream = here.send(&session, "go").await;
    stream.until("message.completed").await;
    // As a driver leaves it whose every write fails, the last one too, which would have let the turn go.
    upstream.push(Answer::text("second"));
    let turn = &stream.turn;
    postgres.sql(
        &database(&postgres),
        &format!(
            "DELETE FROM item WHERE turn_id = '{turn}' AND idx > (SELECT MIN(idx) FROM item WHERE turn_id = '{turn}');
             DELETE FROM event WHERE turn_id = '{turn}' AND seq > 0;
             DELETE FROM evictable_turn WHERE turn_id = '{turn}';
             DELETE FROM metered_call WHERE turn_id = '{turn}';
             DELETE FROM audit_event WHERE response_id = '{turn}';
             DELETE FROM ledger_entry WHERE posting LIKE 'call/{turn}/%';
             UPDATE turn SET state = 'running', ended_at = NULL WHERE id = '{turn}'"
        ),
    );
    let events = ended(&here, &session, turn).await;
    assert_eq!(events.last().unwrap().kind, "message.completed");
    assert_eq!(joined(&events, "text.delta"), "second");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_outlives_reads_that_the_database_did_not_answer() {
    let Some(Pair { here, there: _there, upstream, postgres }) = Pair::start().await else { return };
    let session = here.session(json!({})).await;
    // Every connection that reads is made, so that there is a dead one for every read that follows.
    let path = format!("/v1/sessions/{session}");
    let reads = (0..64).map(|_| here.request(Method::GET, &path).send());
    futures_util::future::join_all(reads).await;
    let (database, postgres) = (database(&postgres), std::sync::Arc::new(postgres));
    let holding = hold_sessions(&postgres, &database, 2).await;
    upstream.push(Answer::text("as asked"));
    let breaking = async {
        wait_for("the turn to be about to start", async || is_starting(&postgres).then_some(())).await;
        let all = "SELECT COUNT(pg_terminate_backend(pid)) > 2 FROM pg_stat_activity WHERE application_name = 'palisade'";
        assert_eq!(postgres.sql("postgres", all).trim(), "t");
    };
    let (stream, ()) = tokio::join!(here.send(&session, "go"), breaking);
    holding.await.unwrap();
    let events = ended(&here, &session, &stream.turn).await;
    assert_eq!(events.last().unwrap().kind, "message.completed", "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_is_just_starting_is_not_cancelled_by_a_lost_connection() {
    let Some(Pair { here, there: _there, upstream, postgres }) = Pair::start().await else { return };
    let (session, postgres) = (here.session(json!({})).await, std::sync::Arc::new(postgres));
    let database = database(&postgres);
    let holding = hold_sessions(&postgres, &database, 4).await;
    upstream.push(Answer::text("as asked"));
    let sending = here.send(&session, "go");
    let breaking = async {
        wait_for("the turn to be about to start", async || is_starting(&postgres).then_some(())).await;
        let broken =
            "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'";
        assert_eq!(postgres.sql("postgres", broken).trim(), "2");
    };
    let (mut stream, ()) = tokio::join!(sending, breaking);
    assert_eq!(stream.rest().await.last().unwrap().kind, "message.completed");
    holding.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_lease_is_over_comes_back_though_a_turn_of_its_cannot_be_ended() {
    let Some(Pair { here, mut there, upstream, postgres }) = Pair::start().await else { return };
    let database = database(&postgres);
    let names = || postgres.sql(&database, "SELECT id FROM server");
    // Nobody else takes the turn over, which would end its end.
    there.kill().await;
    wait_for("the other server to be off the list", async || (names().lines().count() == 1).then_some(()))
        .await;
    let session = here.session(json!({})).await;
    upstream.push(Answer::text("done"));
    let refuse = "CREATE FUNCTION refuse() RETURNS trigger AS $$ BEGIN RAISE EXCEPTION 'no'; END $$ LANGUAGE plpgsql;
        CREATE TRIGGER refuse BEFORE UPDATE ON turn FOR EACH ROW WHEN (NEW.state <> 'running') EXECUTE FUNCTION refuse()";
    postgres.sql(&database, refuse);
    let _stream = here.send(&session, "go").await;
    wait_for("a refused end", async || {
        here.log().contains("could not be written; trying again").then_some(())
    })
    .await;
    let owner = names();
    postgres.sql(&database, &format!("DELETE FROM server WHERE id = '{}'", owner.trim()));
    wait_for("its next name", async || (names().lines().count() == 1).then_some(())).await;
    assert_ne!(names(), owner, "under another one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_session_leaves_no_process_though_the_server_that_has_its_sandbox_stands_still() {
    let Some(Pair { here, there, upstream, postgres: _postgres }) = Pair::start().await else { return };
    let session = here.session(json!({})).await;
    let sleep = a_sleep(7);
    upstream.push(Answer::tool_call("Bash", json!({"command": sleep, "background": true})));
    upstream.push(Answer::text("done"));
    here.send(&session, "go").await.until("message.completed").await;
    wait_for("the command to run", async || process_runs(&sleep).then_some(())).await;
    kill_process(here.pid().unwrap(), Signal::STOP).unwrap();
    let delete = there.request(Method::DELETE, &format!("/v1/sessions/{session}"));
    let deleted = delete.send().await.unwrap().status();
    let outlives = process_runs(&sleep);
    kill_process(here.pid().unwrap(), Signal::CONT).unwrap();
    assert_eq!(deleted, 204);
    assert!(!outlives, "no process outlives its session");
    assert!(!there.workspace().join(".sessions").join(&session).exists());
}
