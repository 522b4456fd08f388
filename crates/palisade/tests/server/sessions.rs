//! Create, show, list, delete, bulk delete (contract §3).

use palisade_testkit::upstream::{Answer, Gate};
use palisade_testkit::{Server, wait_for};
use reqwest::Method;
use serde_json::json;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, SqliteConnection};

use crate::start;

#[tokio::test]
async fn a_session_has_the_contracts_record() {
    let (server, _upstream) = start().await;
    let body = json!({"persistent": true, "ttl": 600, "metadata": {"case": 7}, "model": "pokee-isaac",
        "file_access": {"read": ["shared"], "write": ["out"]}});
    let response = server.request(Method::POST, "/v1/sessions").json(&body).send().await.unwrap();
    assert_eq!(response.status(), 201);
    let record: serde_json::Value = response.json().await.unwrap();
    let id = record["id"].as_str().unwrap();
    assert!(id.len() == 17 && id.starts_with("sess_"), "{id}");
    for (field, value) in [
        ("busy", json!(false)),
        ("persistent", json!(true)),
        ("ttl", json!(600)),
        ("status", json!("ready")),
        ("metadata", json!({"case": 7})),
        ("file_access", json!({"read": ["shared"], "write": ["out"]})),
        ("model", json!("pokee-isaac")),
    ] {
        assert_eq!(record[field], value, "{field}");
    }
    assert!(record["created_at"].as_f64().unwrap() > 1.7e9);
    assert_eq!(server.get(&format!("/v1/sessions/{id}")).await, record);
    assert_eq!(server.get("/v1/sessions").await, json!([record]));
}

#[tokio::test]
async fn every_field_has_a_default_and_an_empty_body_will_do() {
    let (server, _upstream) = start().await;
    let record = server.json(server.request(Method::POST, "/v1/sessions")).await;
    assert_eq!(record["ttl"], 14400);
    assert_eq!(record["persistent"], false);
    assert_eq!(record["metadata"], json!({}));
    assert_eq!(record["file_access"], json!({"read": [""], "write": [""]}));
}

#[tokio::test]
async fn a_deleted_session_is_gone_and_its_workspace_stays() {
    let (server, _upstream) = start().await;
    let id = server.session(json!({})).await;
    let file = format!("/v1/sessions/{id}/files/notes/a.txt");
    server.json(server.request(Method::PUT, &file).body("kept")).await;
    assert!(server.workspace().join(".sessions").join(&id).is_dir());
    // Read just before, so that whatever is remembered of it is fresh.
    assert_eq!(server.request(Method::GET, &file).send().await.unwrap().text().await.unwrap(), "kept");
    let session = format!("/v1/sessions/{id}");
    assert_eq!(server.request(Method::DELETE, &session).send().await.unwrap().status(), 204);
    assert_eq!(server.refused(server.request(Method::DELETE, &session)).await.0, 404);
    assert_eq!(server.refused(server.request(Method::GET, &session)).await.0, 404);
    assert_eq!(server.refused(server.request(Method::GET, &file)).await.0, 404);
    assert!(!server.workspace().join(".sessions").join(&id).exists());
    assert_eq!(std::fs::read_to_string(server.workspace().join("notes/a.txt")).unwrap(), "kept");
}

#[tokio::test]
async fn deleting_a_busy_session_ends_its_turn_and_its_processes() {
    let (server, upstream) = start().await;
    let id = server.session(json!({})).await;
    let sleep = a_sleep(1);
    upstream.push(Answer::tool_call("Bash", json!({"command": format!("echo started; {sleep}")})));
    let mut stream = server.send(&id, "go").await;
    stream.until("tool_use.output_delta").await;
    wait_for("the command to run", || async { process_runs(&sleep).then_some(()) }).await;
    let deleted = server.request(Method::DELETE, &format!("/v1/sessions/{id}")).send().await.unwrap();
    assert_eq!(deleted.status(), 204);
    assert!(!process_runs(&sleep), "no process outlives its session");
    assert_eq!(
        stream.rest().await.last().map(|event| event.kind.clone()).as_deref(),
        Some("message.cancelled")
    );
}

/// A command that nobody else runs on this machine: `which` tells those of one test program apart.
pub(crate) fn a_sleep(which: u32) -> String {
    format!("sleep {}{which:02}", 1_000_000 + u64::from(std::process::id()))
}

pub(crate) fn process_runs(command: &str) -> bool {
    let wanted: Vec<u8> = command.split(' ').flat_map(|word| [word.as_bytes(), b"\0"].concat()).collect();
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .any(|entry| std::fs::read(entry.path().join("cmdline")).is_ok_and(|found| found == wanted))
}

#[tokio::test]
async fn bulk_delete_takes_what_matches_and_nothing_when_it_is_wrong() {
    let (server, upstream) = start().await;
    let idle = server.session(json!({})).await;
    let busy = server.session(json!({})).await;
    let gate = Gate::new();
    upstream.push(Answer::stream().say("hm").wait(&gate).say("!").done());
    let mut stream = server.send(&busy, "think").await;
    stream.until("text.delta").await;
    for wrong in ["older_than=1d", "older_than=", "status=busy", "older_than=1h&status=all"] {
        let request = server.request(Method::DELETE, &format!("/v1/sessions?{wrong}"));
        assert_eq!(server.refused(request).await.0, 400, "{wrong}");
    }
    let bulk = |query: &str| server.json(server.request(Method::DELETE, &format!("/v1/sessions?{query}")));
    assert_eq!(bulk("status=idle&older_than=1h").await, json!({"deleted": 0}), "both are young");
    assert_eq!(bulk("status=idle").await, json!({"deleted": 1}));
    assert_eq!(server.refused(server.request(Method::GET, &format!("/v1/sessions/{idle}"))).await.0, 404);
    assert_eq!(server.get(&format!("/v1/sessions/{busy}")).await["busy"], true);
    gate.open();
    stream.until("message.completed").await;
    assert_eq!(bulk("older_than=0s").await, json!({"deleted": 1}));
}

async fn database_of(server: &Server) -> SqliteConnection {
    let file = server.folder.path().join("data/palisade.db");
    SqliteConnectOptions::new().filename(file).connect().await.unwrap()
}

#[tokio::test]
async fn older_than_takes_what_was_not_used_for_so_long_and_no_running_turn() {
    let (server, upstream) = start().await;
    let [old, young, busy] = [(); 3].map(|()| server.session(json!({"persistent": true})));
    let (old, young, busy) = (old.await, young.await, busy.await);
    let gate = Gate::new();
    upstream.push(Answer::stream().say("hm").wait(&gate).say("!").done());
    let mut stream = server.send(&busy, "think").await;
    stream.until("text.delta").await;
    let mut database = database_of(&server).await;
    let ago = "UPDATE session SET last_activity = last_activity - 7200 WHERE id IN ($1, $2)";
    sqlx::query(ago).bind(&old).bind(&busy).execute(&mut database).await.unwrap();

    let bulk = |query: &str| server.json(server.request(Method::DELETE, &format!("/v1/sessions?{query}")));
    assert_eq!(bulk("older_than=3h").await, json!({"deleted": 0}));
    assert_eq!(bulk("status=idle&older_than=1h59m").await, json!({"deleted": 1}));
    assert_eq!(bulk("older_than=1h59m").await, json!({"deleted": 0}), "what runs a turn is in use");
    let left = server.get("/v1/sessions").await;
    let mut left: Vec<&str> =
        left.as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
    left.sort_unstable();
    let mut expected = [young.as_str(), busy.as_str()];
    expected.sort_unstable();
    assert_eq!(left, expected);
    gate.open();
    stream.until("message.completed").await;
    sqlx::query(ago).bind(&busy).bind(&busy).execute(&mut database).await.unwrap();
    assert_eq!(bulk("older_than=1h59m").await, json!({"deleted": 1}), "and now it is not");
}

#[tokio::test]
async fn a_session_that_cannot_be_deleted_keeps_no_other() {
    let (server, _upstream) = start().await;
    let first = server.session(json!({})).await;
    let second = server.session(json!({})).await;
    let mut database = database_of(&server).await;
    let refuse = format!(
        "CREATE TRIGGER refuse BEFORE DELETE ON session WHEN OLD.id = '{first}' BEGIN SELECT RAISE(ABORT, 'no'); END"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(refuse)).execute(&mut database).await.unwrap();
    assert_eq!(server.refused(server.request(Method::DELETE, "/v1/sessions")).await.0, 500, "it says so");
    let gone = server.request(Method::GET, &format!("/v1/sessions/{second}"));
    assert_eq!(server.refused(gone).await.0, 404);
    assert_eq!(server.get("/v1/sessions").await.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn session_status_inside_shows_in_the_metadata() {
    let (server, upstream) = start().await;
    let id = server.session(json!({"metadata": {"mine": 1}})).await;
    upstream.push(Answer::tool_call("Bash", json!({"command": "session-status deck_status=building"})));
    upstream.push(Answer::text("done"));
    server.send(&id, "go").await.until("message.completed").await;
    let path = format!("/v1/sessions/{id}");
    wait_for("the status in the metadata", || async {
        let metadata = server.get(&path).await["metadata"].clone();
        (metadata == json!({"mine": 1, "deck_status": "building"})).then_some(())
    })
    .await;
}

/// Follows `Link` as a client does, until there is none.
async fn pages(server: &palisade_testkit::Server, first: &str) -> Vec<Vec<String>> {
    let (mut pages, mut next) = (Vec::new(), Some(first.to_owned()));
    while let Some(path) = next {
        let answer = server.request(Method::GET, &path).send().await.unwrap().error_for_status().unwrap();
        let link = answer.headers().get("link").map(|link| link.to_str().unwrap().to_owned());
        next = link
            .map(|link| link.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap().to_owned());
        let page: Vec<serde_json::Value> = answer.json().await.unwrap();
        let name = |entry: &serde_json::Value| {
            entry.get("id").or(entry.get("name")).unwrap().as_str().unwrap().to_owned()
        };
        pages.push(page.iter().map(name).collect());
    }
    pages
}

#[tokio::test]
async fn a_list_goes_on_where_its_link_says() {
    let (server, _upstream) = start().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(server.session(json!({})).await);
    }
    let whole = server.request(Method::GET, "/v1/sessions").send().await.unwrap();
    assert!(whole.headers().get("link").is_none(), "without limit there is one page");
    let sizes = |pages: &[Vec<String>]| pages.iter().map(Vec::len).collect::<Vec<_>>();
    let oldest = pages(&server, "/v1/sessions?limit=2").await;
    assert_eq!((sizes(&oldest), oldest.concat()), (vec![2, 2, 1], ids.clone()));
    let newest = pages(&server, "/v1/sessions?order=desc&limit=5").await;
    let reversed: Vec<String> = ids.iter().rev().cloned().collect();
    assert_eq!((sizes(&newest), newest.concat()), (vec![5], reversed.clone()));
    assert_eq!(pages(&server, "/v1/sessions?order=desc&limit=3").await.concat(), reversed);
    // The place where a page ended is one though its session is gone.
    let first = server.request(Method::GET, "/v1/sessions?limit=2").send().await.unwrap();
    let after = first.headers()["x-next-after"].to_str().unwrap().to_owned();
    let gone = format!("/v1/sessions/{}", ids[1]);
    assert_eq!(server.request(Method::DELETE, &gone).send().await.unwrap().status(), 204);
    assert_eq!(pages(&server, &format!("/v1/sessions?after={after}")).await.concat(), ids[2..]);
    for (query, code) in [
        ("limit=0", "sessions.bad_limit"),
        ("limit=10001", "sessions.bad_limit"),
        ("after=sess_0", "sessions.bad_after"),
        ("order=newest", "request.bad_query"),
    ] {
        let request = server.request(Method::GET, &format!("/v1/sessions?{query}"));
        assert_eq!(server.refused(request).await, (400, code.to_owned()), "{query}");
    }
    for name in ["a", "b c", "d%ff", "e"] {
        let path = format!("/v1/sessions/{}/files/many/{name}", ids[0]);
        server.json(server.request(Method::PUT, &path).body("x")).await;
    }
    for path in ["files?path=many&limit=1", "files/many?limit=3"] {
        let listed = pages(&server, &format!("/v1/sessions/{}/{path}", ids[0])).await.concat();
        assert_eq!(listed, ["a", "b c", "d\u{fffd}", "e"], "{path}");
    }
}
