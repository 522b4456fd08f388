//! An upgrade in mid-turn: a database of an earlier schema, with a turn that was running, meets today's server. It
//! is migrated, and the turn goes on by itself.

use std::borrow::Cow;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::Path;

use palisade_testkit::stream::{TurnStream, joined};
use palisade_testkit::upstream::Answer;
use reqwest::Method;
use serde_json::json;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};

use crate::start;

const SESSION: &str = "sess_0123456789ab";
const TURN: &str = "msg_0123456789ab0123456789ab";

/// The database as it was after the first `count` migrations.
async fn old_database(file: &Path, count: usize) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(file).create_if_missing(true);
    let mut database = options.journal_mode(SqliteJournalMode::Wal).connect().await.unwrap();
    let all = sqlx::migrate!("../store/migrations");
    let earlier: Vec<_> = all.iter().take(count).cloned().collect();
    assert!(earlier.len() == count && all.iter().count() > count, "there is a next migration");
    Migrator { migrations: Cow::Owned(earlier), ..Migrator::DEFAULT }.run(&mut database).await.unwrap();
    database
}

#[tokio::test]
async fn a_turn_that_an_earlier_schema_started_is_finished_by_this_one() {
    let (mut server, upstream) = start().await;
    server.terminate().await;
    let data = server.folder.path().join("data");
    let owner = std::fs::metadata(&data).unwrap();
    for name in ["palisade.db", "palisade.db-wal", "palisade.db-shm"] {
        let _ = std::fs::remove_file(data.join(name));
    }

    let mut database = old_database(&data.join("palisade.db"), 2).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    let context = json!({"skill_dirs": [], "agent": {"date": "2026-01-31", "agent_context": "", "skills": [],
        "memory": true, "scope": null}});
    sqlx::query(
        "INSERT INTO session (id, tenant, created_at, last_activity, persistent, ttl, metadata, file_access, model, context)
         VALUES ($1, 'acme', $2, $2, TRUE, 3600, '{}', '{\"read\":[\"\"],\"write\":[\"\"]}', 'pokee-isaac', $3)",
    )
    .bind(SESSION)
    .bind(now)
    .bind(context.to_string())
    .execute(&mut database)
    .await
    .unwrap();
    sqlx::query(
        "INSERT INTO turn (id, session_id, state, generation, started_at) VALUES ($1, $2, 'running', 1, $3)",
    )
    .bind(TURN)
    .bind(SESSION)
    .bind(now)
    .execute(&mut database)
    .await
    .unwrap();
    let created = json!({"sequence_number": 0, "id": TURN, "session_id": SESSION, "status": "in_progress"});
    sqlx::query("INSERT INTO event (turn_id, seq, kind, data) VALUES ($1, 0, 'message.created', $2)")
        .bind(TURN)
        .bind(created.to_string())
        .execute(&mut database)
        .await
        .unwrap();
    sqlx::query("INSERT INTO item (session_id, idx, turn_id, body) VALUES ($1, 0, $2, $3)")
        .bind(SESSION)
        .bind(TURN)
        .bind(json!({"type": "user_message", "text": "Are you still there?"}).to_string())
        .execute(&mut database)
        .await
        .unwrap();
    database.close().await.unwrap();
    for name in ["palisade.db", "palisade.db-wal", "palisade.db-shm"] {
        // Written by whoever runs this test; the server has a user of its own.
        let _ = chown(data.join(name), Some(owner.uid()), Some(owner.gid()));
    }

    upstream.push(Answer::text("Yes, and newer."));
    server.restart().await;
    let path = format!("/v1/sessions/{SESSION}/responses/{TURN}/events");
    let replay = server.request(Method::GET, &path).send().await.unwrap();
    let events = TurnStream::of(replay).await.rest().await;
    assert_eq!(events[0].data, created, "what was there is there");
    assert_eq!(events[1].kind, "turn.attempt");
    assert_eq!(joined(&events, "text.delta"), "Yes, and newer.");
    assert_eq!(events.last().unwrap().kind, "message.completed");
    assert_eq!(server.get(&format!("/v1/sessions/{SESSION}")).await["busy"], false);
    let asked = upstream.requests()[0].json["messages"].to_string();
    assert!(asked.contains("Are you still there?"), "{asked}");
}
