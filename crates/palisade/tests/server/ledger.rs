//! Money from outside: what a turn costs and who pays, through crashes, cancels and restarts; paired tenants; the
//! audit; and the operator's commands.

use std::process::Output;

use palisade_testkit::postgres::Postgres;
use palisade_testkit::stream::TurnStream;
use palisade_testkit::upstream::{Answer, Call, Gate};
use palisade_testkit::{Server, wait_for};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::ConnectOptions as _;
use sqlx::sqlite::SqliteConnectOptions;
use tokio::process::Command;

use crate::usage::{refused_message, start_as, start_in, turn};

/// 300,000 tokens of input at $1 a million and $0.01 a credit are 30 credits.
fn for_30_credits() -> Answer {
    Answer::stream().usage(300_000, 0, 0, 0)
}

async fn balance(server: &Server) -> f64 {
    server.get("/v1/usage").await["credits"]["balance"].as_f64().unwrap()
}

async fn admin(server: &Server, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_palisade"));
    command.arg("admin").arg("--data-dir").arg(server.folder.path().join("data")).args(args);
    command.output().await.unwrap()
}

async fn admin_ok(server: &Server, args: &[&str]) -> String {
    let output = admin(server, args).await;
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

async fn assert_adds_up(server: &Server) {
    admin_ok(server, &["credits", "check"]).await;
}

/// The records of the audit, oldest first.
async fn audit(server: &Server, more: &[&str]) -> Vec<Value> {
    let text = admin_ok(server, &[&["audit", "export"], more].concat()).await;
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_hard_ledger_refuses_a_turn_below_the_minimum_and_one_whose_next_call_cannot_be_paid() {
    let (server, upstream) = start_as("credits = { mode = \"hard\", balance = 40, minimum = 12 }", "").await;
    let id = server.session(json!({})).await;
    upstream.push(for_30_credits().call(&Call::new("TodoWrite", json!({"todos": []}))).done());
    // 10 credits are left, and the prompt alone is estimated below that: one call more may be made.
    upstream.push(
        Answer::stream().usage(95_000, 0, 0, 0).call(&Call::new("TodoWrite", json!({"todos": []}))).done(),
    );
    upstream.push(Answer::text("never asked"));
    let end = turn(&server, &id).await;
    assert_eq!(end["code"], "credits.exhausted", "{end}");
    assert!(end["error"].as_str().unwrap().contains("0.5"), "{end}");
    assert_eq!(upstream.requests().len(), 2, "the third call was not made");
    assert_eq!(balance(&server).await, 0.5, "what a failed turn has used is paid");

    let (status, body, _) = refused_message(&server, &id).await;
    assert_eq!(status, StatusCode::PAYMENT_REQUIRED);
    assert_eq!((&body["error"], &body["code"]), (&json!("Payment Required"), &json!("credits.exhausted")));
    assert_eq!(server.get(&format!("/v1/sessions/{id}")).await["busy"], false);
    let windows = &server.get("/v1/usage").await["rate_limit"]["buckets"]["session_turn"]["windows"];
    assert_eq!(windows[0]["turns"], 1, "what was refused is not counted");
    admin_ok(&server, &["credits", "add", "--ledger", "acme", "--amount", "11.5", "--reason", "bought"])
        .await;
    assert_eq!(balance(&server).await, 12.0);
    upstream.push(Answer::stream().usage(10, 0, 0, 0).say("on").done());
    assert_eq!(turn(&server, &id).await["error"], Value::Null, "at the minimum it starts");
    assert_adds_up(&server).await;
}

#[tokio::test]
async fn a_soft_ledger_may_be_overdrawn() {
    let (server, upstream) = start_as("credits = { balance = 1 }", "").await;
    let id = server.session(json!({})).await;
    for _ in 0..2 {
        upstream.push(for_30_credits().say("hi").done());
        assert_eq!(turn(&server, &id).await["status"], "completed");
    }
    assert_eq!(balance(&server).await, -59.0);
    assert_adds_up(&server).await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_costs_what_the_upstream_had_counted() {
    let (server, upstream) =
        start_as("credits = { balance = 1000 }", "[inference]\nidle_timeout_s = 1").await;
    let id = server.session(json!({})).await;
    let counted =
        json!({"choices": [], "usage": {"prompt_tokens": 300_000, "completion_tokens": 0}}).to_string();
    let breaking = || Answer::stream().say("half").data(&counted);
    let failing = json!({"error": {"message": "overloaded"}}).to_string();
    for (broken, paid) in [
        (breaking().reset(), 30.0),
        (breaking().data(&failing).done(), 30.0),
        (breaking().stall(), 30.0),
        (Answer::stream().say("half").reset(), 0.0),
    ] {
        let before = balance(&server).await;
        upstream.push(broken);
        let events = server.send(&id, "go").await.rest().await;
        assert_eq!(events.last().unwrap().kind, "message.error");
        assert_eq!(before - balance(&server).await, paid, "{}", events.last().unwrap().frame);
    }
    let windows = &server.get("/v1/usage").await["rate_limit"]["buckets"]["session_turn"]["windows"];
    assert_eq!(windows[0]["tokens"], 900_000);
    assert_adds_up(&server).await;
}

#[tokio::test]
async fn an_account_that_takes_no_debit_keeps_no_session_busy_and_is_named() {
    let (server, upstream) =
        start_as("credits = { mode = \"hard\", balance = 1000, minimum = 12 }", "").await;
    let file = server.folder.path().join("data/palisade.db");
    let mut database = SqliteConnectOptions::new().filename(file).connect().await.unwrap();
    let refuse =
        "CREATE TRIGGER refuse BEFORE INSERT ON audit_event BEGIN SELECT RAISE(ABORT, 'no more'); END";
    sqlx::raw_sql(refuse).execute(&mut database).await.unwrap();

    let id = server.session(json!({})).await;
    upstream.push(for_30_credits().say("hi").done());
    let mut stream = server.send(&id, "go").await;
    assert_eq!(stream.rest().await.last().unwrap().kind, "message.completed");
    assert_eq!(server.get(&format!("/v1/sessions/{id}")).await["busy"], false);
    let (held,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM hold").fetch_one(&mut database).await.unwrap();
    assert_eq!((held, balance(&server).await), (0, 1000.0), "nothing stays set aside, nothing was posted");
    let check = admin(&server, &["credits", "check"]).await;
    let said = [check.stdout, check.stderr].concat();
    assert!(!check.status.success() && String::from_utf8_lossy(&said).contains(&stream.turn), "{said:?}");

    upstream.push(Answer::stream().say("half").stall());
    let mut stream = server.send(&id, "again").await;
    stream.until("text.delta").await;
    let delete = server.request(Method::DELETE, &format!("/v1/sessions/{id}"));
    assert_eq!(delete.send().await.unwrap().status(), StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_turn_that_is_killed_in_the_middle_is_paid_once() {
    let (mut server, upstream) = start_as("credits = { mode = \"hard\", balance = 1000 }", "").await;
    let id = server.session(json!({})).await;
    let gate = Gate::new();
    upstream.push(for_30_credits().call(&Call::new("Bash", json!({"command": "sleep 600"}))).done());
    let mut stream = server.send(&id, "go").await;
    stream.until("tool_use.executing").await;
    assert_eq!(balance(&server).await, 1000.0, "paid at the end");
    upstream.push(for_30_credits().say("half").wait(&gate).done());
    server.kill_and_restart().await;
    upstream.wait_for_requests(2).await;
    // And once more, within the answer: what was said of it was never kept, and costs nothing here.
    upstream.push(for_30_credits().say("whole").done());
    server.kill_and_restart().await;
    let path = format!("/v1/sessions/{id}/responses/{}/events", stream.turn);
    let replay = server.request(Method::GET, &path).send().await.unwrap();
    let events = TurnStream::of(replay).await.rest().await;
    let end = events.last().unwrap();
    assert_eq!(end.kind, "message.completed");
    assert_eq!(end.data["usage"]["input_tokens"], 600_000);
    assert_eq!(balance(&server).await, 940.0);
    server.kill_and_restart().await;
    assert_eq!(balance(&server).await, 940.0, "and not again, nor is the ledger opened again");
    assert_adds_up(&server).await;
    let records = audit(&server, &[]).await;
    assert_eq!(records.len(), 1);
    assert_eq!(
        (&records[0]["micro_credits"], &records[0]["outcome"]),
        (&json!(60_000_000), &json!("completed"))
    );
}

#[tokio::test]
async fn a_cancelled_turn_and_one_that_goes_with_its_session_are_free() {
    let (mut server, upstream) = start_as("credits = { mode = \"hard\", balance = 100 }", "").await;
    let sleep = || for_30_credits().call(&Call::new("Bash", json!({"command": "sleep 600"}))).done();
    for delete in [false, true] {
        let id = server.session(json!({})).await;
        upstream.push(sleep());
        let mut stream = server.send(&id, "go").await;
        stream.until("tool_use.executing").await;
        let path = format!("/v1/sessions/{id}");
        let request = match delete {
            true => server.request(Method::DELETE, &path),
            false => server.request(Method::POST, &format!("{path}/responses/{}/cancel", stream.turn)),
        };
        assert!(request.send().await.unwrap().status().is_success());
        stream.until("message.cancelled").await;
    }
    // Acknowledged, and then killed.
    let id = server.session(json!({})).await;
    upstream.push(sleep());
    let mut stream = server.send(&id, "go").await;
    stream.until("tool_use.executing").await;
    let path = format!("/v1/sessions/{id}/responses/{}", stream.turn);
    assert_eq!(server.request(Method::POST, &format!("{path}/cancel")).send().await.unwrap().status(), 202);
    server.kill_and_restart().await;
    let replay = server.request(Method::GET, &format!("{path}/events")).send().await.unwrap();
    assert_eq!(TurnStream::of(replay).await.rest().await.last().unwrap().kind, "message.cancelled");
    assert_eq!(balance(&server).await, 100.0);
    assert_adds_up(&server).await;
    let shown: Value =
        serde_json::from_str(&admin_ok(&server, &["credits", "show", "--json"]).await).unwrap();
    assert_eq!(shown[0]["held_micro"], 0, "nothing stays set aside");
    let outcomes: Vec<Value> =
        audit(&server, &[]).await.into_iter().map(|record| record["outcome"].clone()).collect();
    assert_eq!(outcomes, [json!("cancelled"), json!("cancelled"), json!("cancelled")]);
}

/// The table of the offline tenant's page: one balance, and nothing else in common.
#[tokio::test]
async fn paired_tenants_have_one_balance_and_nothing_else_in_common() {
    let (server, upstream) =
        start_as("credits = { mode = \"hard\", balance = 100 }", "mode = \"offline\"\nledger = \"acme\"")
            .await;
    let other_usage = async || server.json(server.as_other(Method::GET, "/v1/usage")).await;
    let id = server.session(json!({})).await;
    server.json(server.request(Method::PUT, &format!("/v1/sessions/{id}/files/mine.txt")).body("mine")).await;
    upstream.push(for_30_credits().say("hi").done());
    assert_eq!(turn(&server, &id).await["status"], "completed");
    assert_eq!(other_usage().await["credits"], json!({"enabled": true, "mode": "hard", "balance": 70.0}));
    assert_eq!(other_usage().await["rate_limit"]["buckets"]["session_turn"]["windows"][0]["turns"], 0);

    let session = server.json(server.as_other(Method::POST, "/v1/sessions").json(&json!({}))).await;
    let theirs = session["id"].as_str().unwrap();
    upstream.push(for_30_credits().say("hi").done());
    let message = server.as_other(Method::POST, &format!("/v1/sessions/{theirs}/messages"));
    let stream = message.json(&json!({"message": "go"})).send().await.unwrap();
    TurnStream::of(stream).await.until("message.completed").await;
    assert_eq!(balance(&server).await, 40.0, "counted down across both");
    admin_ok(&server, &["credits", "add", "--ledger", "acme", "--amount", "60", "--reason", "r"]).await;
    assert_eq!((balance(&server).await, &other_usage().await["credits"]["balance"]), (100.0, &json!(100.0)));

    assert_eq!(server.get("/v1/sessions").await.as_array().unwrap().len(), 1);
    assert_eq!(server.refused(server.request(Method::GET, &format!("/v1/sessions/{theirs}"))).await.0, 404);
    assert_eq!(server.refused(server.as_other(Method::GET, &format!("/v1/sessions/{id}"))).await.0, 404);
    let file = server.as_other(Method::GET, &format!("/v1/sessions/{theirs}/files/mine.txt"));
    assert_eq!(server.refused(file).await.0, 404, "workspaces are apart");
    let tenants: Vec<Value> =
        audit(&server, &[]).await.into_iter().map(|record| record["tenant"].clone()).collect();
    assert_eq!(tenants, ["acme", "other"]);
}

#[tokio::test]
async fn the_audit_is_exported_in_both_forms() {
    let (server, upstream) = start_as("credits = {}", "").await;
    let id = server.session(json!({})).await;
    let skill = |name: &str| Answer::tool_call("Skill", json!({"name": name}));
    upstream.push(skill("pptx-builder"));
    upstream.push(skill("no-such-skill"));
    upstream.push(Answer::stream().usage(1000, 500, 100, 20).say("done").done());
    assert_eq!(turn(&server, &id).await["status"], "completed");
    let records = audit(&server, &[]).await;
    assert_eq!(records.len(), 2, "a skill that there is not was not used: {records:?}");
    let skill = &records[0];
    assert_eq!((&skill["event_type"], &skill["name"]), (&json!("skill"), &json!("pptx-builder")));
    let turn = &records[1];
    assert_eq!(
        (&turn["event_type"], &turn["name"], &turn["session_id"]),
        (&json!("turn"), &json!("pokee-isaac"), &json!(id))
    );
    // Two answers of 10 + 5 tokens before it.
    assert_eq!(
        (&turn["input_tokens"], &turn["cached_tokens"], &turn["output_tokens"]),
        (&json!(1020), &json!(500), &json!(110))
    );
    assert_eq!((&turn["caller"], &turn["outcome"]), (&json!("default"), &json!("completed")));
    let csv =
        admin_ok(&server, &["audit", "export", "--format", "csv", "--tenant", "acme", "--since", "1h"]).await;
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[0].starts_with("id,at,tenant,caller,event_type") && lines[2].contains(",turn,"), "{csv}");
    assert!(audit(&server, &["--until", "2020-01-01"]).await.is_empty());
    assert!(audit(&server, &["--tenant", "other"]).await.is_empty());
    let bad = admin(&server, &["audit", "export", "--since", "yesterday"]).await;
    assert!(!bad.status.success() && String::from_utf8_lossy(&bad.stderr).contains("2026-05-01"));
}

#[tokio::test]
async fn an_export_of_more_than_a_page_is_whole() {
    let (server, upstream) = start_as("", "").await;
    let id = server.session(json!({})).await;
    for _ in 0..8 {
        let skill = |_| Call::new("Skill", json!({"name": "pptx-builder"}));
        upstream.push(Answer::calls((0..64).map(skill)));
    }
    upstream.push(Answer::text("done"));
    assert_eq!(turn(&server, &id).await["status"], "completed");
    let records = audit(&server, &[]).await;
    let ids: std::collections::BTreeSet<&str> =
        records.iter().map(|record| record["id"].as_str().unwrap()).collect();
    assert_eq!((records.len(), ids.len()), (8 * 64 + 1, 8 * 64 + 1), "each once");
    let csv = admin_ok(&server, &["audit", "export", "--format", "csv"]).await;
    assert_eq!(csv.lines().count(), 8 * 64 + 2);
    let times: Vec<f64> = records.iter().map(|record| record["at"].as_f64().unwrap()).collect();
    assert!(times.is_sorted(), "oldest first");
}

#[tokio::test]
async fn an_operator_adds_and_corrects_credits_once_per_key() {
    let (mut server, _upstream) = start_as("credits = { balance = 10 }", "").await;
    let post = |kind: &'static str, amount: &'static str, key: &'static str| {
        vec!["credits", kind, "--ledger", "acme", "--amount", amount, "--reason", "invoice 7", "--key", key]
    };
    let said = admin_ok(&server, &post("add", "5.5", "inv-7")).await;
    assert!(said.contains("posted as inv-7") && said.contains("15.5"), "{said}");
    let said = admin_ok(&server, &post("add", "5.5", "inv-7")).await;
    assert!(said.contains("posted before") && said.contains("15.5"), "{said}");
    let refused = admin(&server, &post("add", "6", "inv-7")).await;
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("another posting"));
    for wrong in [
        post("add", "-1", "x"),
        post("add", "0", "x"),
        post("add", "1e3", "x"),
        post("add", "1.2345678", "x"),
    ] {
        assert!(!admin(&server, &wrong).await.status.success(), "{wrong:?}");
    }
    admin_ok(&server, &post("correct", "-0.5", "c-1")).await;
    assert_eq!(balance(&server).await, 15.0);
    let unknown = ["credits", "add", "--ledger", "nobody", "--amount", "1", "--reason", "r"];
    let refused = admin(&server, &unknown).await;
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("no ledger") && said.contains("--key "), "it can be repeated safely: {said}");
    let shown = admin_ok(&server, &["credits", "show", "--ledger", "acme"]).await;
    for part in ["soft", "opening/acme", "admin/acme/inv-7", "invoice 7", "correction"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(admin_ok(&server, &["usage"]).await.contains("nothing was used"));

    // A killed server leaves its socket, and the next one takes its place.
    server.kill_and_restart().await;
    assert_eq!(balance(&server).await, 15.0);
    assert_adds_up(&server).await;
    server.terminate().await;
    let gone = admin(&server, &["usage"]).await;
    assert!(String::from_utf8_lossy(&gone.stderr).contains("no server answers"), "{gone:?}");
}

/// Two servers on one PostgreSQL: one balance, one window, one operator's socket, which is handed on.
#[tokio::test(flavor = "multi_thread")]
async fn two_servers_have_one_ledger_and_one_window() {
    let Some(postgres) = Postgres::start() else { return };
    let store = format!("[store]\nurl = {:?}\n", postgres.database());
    let acme = "credits = { mode = \"hard\", balance = 100 }\nlimits = { turns_per_hour = 3 }";
    let (mut here, upstream) = start_in(&store, acme, "ledger = \"acme\"").await;
    let there = here.beside().await;
    let (mine, theirs) = (here.session(json!({})).await, there.session(json!({})).await);
    upstream.respond_with(|_| for_30_credits().say("hi").done());
    assert_eq!(turn(&here, &mine).await["status"], "completed");
    assert_eq!((balance(&here).await, balance(&there).await), (70.0, 70.0));
    assert_eq!(turn(&there, &theirs).await["status"], "completed");
    assert_eq!((balance(&here).await, balance(&there).await), (40.0, 40.0));
    let paired = there.json(there.as_other(Method::GET, "/v1/usage")).await;
    assert_eq!(paired["credits"]["balance"], 40.0);
    assert_eq!(turn(&here, &mine).await["status"], "completed");
    assert_eq!(refused_message(&there, &theirs).await.1["code"], "usage.limit", "counted by both");
    admin_ok(&here, &["credits", "correct", "--ledger", "acme", "--amount", "-10", "--reason", "all of it"])
        .await;
    assert_eq!(balance(&there).await, 0.0);
    // A token without the window: the other tenant's.
    let session = there.json(there.as_other(Method::POST, "/v1/sessions").json(&json!({}))).await;
    let path = format!("/v1/sessions/{}/messages", session["id"].as_str().unwrap());
    let message = there.as_other(Method::POST, &path).json(&json!({"message": "go"}));
    assert_eq!(there.refused(message).await, (402, "credits.exhausted".into()));
    assert_adds_up(&here).await;
    assert_eq!(audit(&here, &[]).await.len(), 3);

    here.kill().await;
    wait_for("the socket of the other server", async || {
        admin(&here, &["usage"]).await.status.success().then_some(())
    })
    .await;
    assert_adds_up(&here).await;
}
