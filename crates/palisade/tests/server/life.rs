//! First start, restart, kill, SIGTERM, and configurations that cannot work.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::process::Stdio;

use palisade_testkit::stream::{TurnStream, kinds};
use palisade_testkit::upstream::{Answer, Call, Gate};
use palisade_testkit::{Server, server, wait_for};
use reqwest::Method;
use serde_json::json;
use tokio::process::Command;

use crate::start;

#[tokio::test]
async fn a_first_start_needs_nothing_and_makes_a_key() {
    let server = Server::with_config(env!("CARGO_BIN_EXE_palisade"), "").await;
    let file = server.folder.path().join("data/admin.key");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let key = std::fs::read_to_string(&file).unwrap().trim().to_owned();
    assert!(key.starts_with("pk_default_"));
    let models = server.json(server.anonymous(Method::GET, "/v1/models").bearer_auth(&key)).await;
    let kinds: Vec<_> = models["data"].as_array().unwrap().iter().map(|m| m["kind"].clone()).collect();
    assert_eq!(kinds, [json!("demo-planner"), json!("demo-planner")], "a stand-in is called one");
    assert!(!server.log().contains(&key), "the key is not in the log");
}

#[tokio::test]
async fn after_kill_9_a_turn_goes_on_by_itself_and_nothing_seen_is_lost() {
    let (mut server, upstream) = start().await;
    let id = server.session(json!({"persistent": true, "metadata": {"a": 1}})).await;
    upstream.push(Answer::text("first answer"));
    server.send(&id, "one").await.until("message.completed").await;
    let gate = Gate::new();
    upstream.push(Answer::stream().say("half").wait(&gate));
    let mut stream = server.send(&id, "two").await;
    let seen = stream.until("text.delta").await;
    upstream.push(Answer::text("said anew"));
    server.kill_and_restart().await;

    // Nobody asks for it: it goes on all the same.
    upstream.wait_for_requests(3).await;
    let path = format!("/v1/sessions/{id}/responses/{}/events", stream.turn);
    let replay = server.request(Method::GET, &path).send().await.unwrap();
    let events = TurnStream::of(replay).await.rest().await;
    assert_eq!(events[..seen.len()], seen, "what a client saw is still there, byte for byte");
    let after: Vec<&str> = kinds(&events[seen.len()..]);
    assert_eq!(after[..3], ["text.stop", "turn.attempt", "text.start"]);
    assert_eq!(events.last().unwrap().kind, "message.completed");
    let attempt = events.iter().find(|event| event.kind == "turn.attempt").unwrap();
    assert_eq!(
        (&attempt.data["attempt"], &attempt.data["after"]),
        (&json!(2), &json!(0)),
        "all but the message"
    );
    let record = server.get(&format!("/v1/sessions/{id}")).await;
    assert_eq!((&record["busy"], &record["metadata"]), (&json!(false), &json!({"a": 1})));
    upstream.push(Answer::text("back"));
    server.send(&id, "three").await.until("message.completed").await;
    let asked = upstream.requests().last().unwrap().json["messages"].to_string();
    assert!(
        asked.contains("first answer") && asked.contains("said anew") && !asked.contains("half"),
        "{asked}"
    );
}

#[tokio::test]
async fn a_command_that_ran_at_the_kill_is_not_repeated_and_the_model_is_told() {
    let (mut server, upstream) = start().await;
    let id = server.session(json!({})).await;
    upstream.push(Answer::calls([
        Call::new("Bash", json!({"command": "echo once >> effects; echo on; sleep 600"})),
        Call::new("Bash", json!({"command": "echo second >> effects"})),
    ]));
    let mut stream = server.send(&id, "go").await;
    stream.until("tool_use.output_delta").await;
    upstream.push(Answer::text("I see"));
    server.kill_and_restart().await;
    let path = format!("/v1/sessions/{id}/responses/{}/events", stream.turn);
    let replay = server.request(Method::GET, &path).send().await.unwrap();
    let events = TurnStream::of(replay).await.rest().await;
    let results: Vec<_> =
        events.iter().filter(|event| event.kind == "tool_result").map(|e| e.data.clone()).collect();
    assert_eq!(results[0]["code"], "tool.outcome_unknown");
    assert_eq!((&results[0]["is_error"], &results[1]["is_error"]), (&json!(true), &json!(false)));
    assert_eq!(events.last().unwrap().kind, "message.completed");
    assert_eq!(std::fs::read_to_string(server.workspace().join("effects")).unwrap(), "once\nsecond\n");
    let told = upstream.requests().last().unwrap().json["messages"].to_string();
    assert!(told.contains("is not known"), "{told}");
}

#[tokio::test]
async fn a_cancel_that_was_acknowledged_holds_through_a_kill() {
    let (mut server, upstream) = start().await;
    let id = server.session(json!({})).await;
    upstream.respond_with(|_| Answer::tool_call("Bash", json!({"command": "echo on; sleep 600"})));
    for _ in 0..5 {
        let mut stream = server.send(&id, "go").await;
        stream.until("tool_use.output_delta").await;
        let turn = format!("/v1/sessions/{id}/responses/{}", stream.turn);
        let cancelled = server.request(Method::POST, &format!("{turn}/cancel")).send().await.unwrap();
        assert_eq!(cancelled.status(), 202);
        server.kill_and_restart().await;
        let replay = server.request(Method::GET, &format!("{turn}/events")).send().await.unwrap();
        let events = TurnStream::of(replay).await.rest().await;
        assert_eq!(events.last().unwrap().kind, "message.cancelled");
    }
}

#[tokio::test]
async fn a_turn_that_never_gets_through_is_given_up_and_the_session_is_usable() {
    let (mut server, upstream) = start().await;
    let id = server.session(json!({})).await;
    upstream.respond_with(|_| Answer::never());
    let stream = server.send(&id, "go").await;
    for attempt in 2..=5 {
        upstream.wait_for_requests(attempt - 1).await;
        server.kill_and_restart().await;
    }
    upstream.wait_for_requests(5).await;
    server.kill_and_restart().await;
    let path = format!("/v1/sessions/{id}/responses/{}/events", stream.turn);
    let events = TurnStream::of(server.request(Method::GET, &path).send().await.unwrap()).await.rest().await;
    let end = events.last().unwrap();
    assert_eq!(
        (end.kind.as_str(), end.data["code"].as_str()),
        ("message.error", Some("turn.too_many_attempts"))
    );
    upstream.respond_with(|_| Answer::text("ok"));
    server.send(&id, "and now?").await.until("message.completed").await;
}

#[tokio::test]
async fn stopping_in_good_order_is_no_crash_however_often() {
    let (mut server, upstream) = start().await;
    let id = server.session(json!({})).await;
    upstream.respond_with(|_| Answer::never());
    let stream = server.send(&id, "go").await;
    for attempt in 1..=7 {
        upstream.wait_for_requests(attempt).await;
        assert_eq!(server.terminate().await.code(), Some(0));
        server.restart().await;
    }
    upstream.wait_for_requests(8).await;
    upstream.respond_with(|_| Answer::text("at last"));
    server.kill_and_restart().await;
    let path = format!("/v1/sessions/{id}/responses/{}/events", stream.turn);
    let events = TurnStream::of(server.request(Method::GET, &path).send().await.unwrap()).await.rest().await;
    assert_eq!(events.last().unwrap().kind, "message.completed");
}

/// Whoever copies the database after a clean stop has all of it in one file.
#[tokio::test]
async fn after_a_clean_stop_the_database_file_alone_has_everything() {
    let (mut server, upstream) = start().await;
    let id = server.session(json!({"persistent": true})).await;
    upstream.respond_with(|_| Answer::text("ok"));
    for _ in 0..20 {
        server.send(&id, "go").await.rest().await;
    }
    assert_eq!(server.terminate().await.code(), Some(0));
    let data = server.folder.path().join("data");
    let in_wal = std::fs::metadata(data.join("palisade.db-wal")).map_or(0, |found| found.len());
    assert_eq!(in_wal, 0, "nothing is left beside the database");
    let copy = tempfile::tempdir().unwrap();
    let file = copy.path().join("copy.db");
    std::fs::copy(data.join("palisade.db"), &file).unwrap();
    let store = sqlx::SqlitePool::connect(&format!("sqlite://{}", file.display())).await.unwrap();
    let ended: (i64,) =
        sqlx::query_as("SELECT COUNT(*) FROM turn WHERE state <> 'running'").fetch_one(&store).await.unwrap();
    assert_eq!(ended.0, 20);
}

#[tokio::test]
async fn a_second_server_on_the_same_folder_is_refused_and_disturbs_nothing() {
    let (server, upstream) = start().await;
    let id = server.session(json!({})).await;
    let gate = Gate::new();
    upstream.push(Answer::stream().say("on").wait(&gate).say("!").done());
    let mut stream = server.send(&id, "go").await;
    stream.until("text.delta").await;
    let told = gives_up("", Some(&server.folder.path().join("data"))).await;
    assert!(told.contains("in use by another server"), "{told}");
    gate.open();
    stream.until("message.completed").await;
}

#[tokio::test]
async fn a_short_command_comes_to_its_end_though_the_server_stops() {
    let (mut server, upstream) = start().await;
    let id = server.session(json!({})).await;
    let command = "echo on; while [ ! -e go ]; do sleep 0.02; done; echo whole";
    upstream.push(Answer::tool_call("Bash", json!({"command": command})));
    let mut stream = server.send(&id, "go").await;
    stream.until("tool_use.output_delta").await;
    upstream.push(Answer::text("done"));
    let go = server.workspace().join("go");
    // The file comes once the server has begun to stop: it answers nothing new then.
    let health = format!("{}/health", server.url);
    let release = async {
        wait_for("the server to stop listening", || async {
            reqwest::get(&health).await.is_err().then_some(())
        })
        .await;
        std::fs::write(&go, "").unwrap();
    };
    let (status, ()) = tokio::join!(server.terminate(), release);
    assert_eq!(status.code(), Some(0));
    server.restart().await;
    let path = format!("/v1/sessions/{id}/responses/{}/events", stream.turn);
    let events = TurnStream::of(server.request(Method::GET, &path).send().await.unwrap()).await.rest().await;
    let result = events.iter().find(|event| event.kind == "tool_result").unwrap();
    assert_eq!(result.data["content"], "on\nwhole\n", "no outcome is unknown that could be known");
    assert_eq!(events.last().unwrap().kind, "message.completed");
}

#[tokio::test]
async fn sigterm_drains_and_exits_0() {
    let (mut server, upstream) = start().await;
    let id = server.session(json!({})).await;
    upstream.push(Answer::tool_call("Bash", json!({"command": "echo on; sleep 600"})));
    let mut stream = server.send(&id, "go").await;
    stream.until("tool_use.output_delta").await;
    let status = server.terminate().await;
    assert_eq!(status.code(), Some(0), "{}", server.log());
    assert!(
        stream.rest().await.iter().all(|event| !event.kind.starts_with("message.")),
        "cut without an end: clients resume"
    );
}

/// Runs the server until it gives up; what it said.
async fn gives_up(config: &str, data_dir: Option<&std::path::Path>) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("palisade.toml");
    std::fs::write(&file, format!("{config}\n[sandbox]\nhand = {:?}\n", server::hand())).unwrap();
    let data_dir = data_dir.map_or_else(|| folder.path().join("data"), std::path::Path::to_path_buf);
    let output = Command::new(env!("CARGO_BIN_EXE_palisade"))
        .args(["serve", "--listen", "127.0.0.1:0", "--config"])
        .arg(&file)
        .arg("--data-dir")
        .arg(data_dir)
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn a_configuration_that_cannot_work_is_refused_with_what_to_do() {
    for (config, said) in [
        ("lisen = \"127.0.0.1:1\"", "line 1"),
        (
            "[[tenant]]\nname = \"a\"\ntokens = [{ id = \"t\", key = \"env:PALISADE_TEST_UNSET\" }]",
            "PALISADE_TEST_UNSET",
        ),
        (
            "[[upstream]]\nname = \"u\"\ndialect = \"telepathy\"\nbase_url = \"http://127.0.0.1:1/v1\"\n[model.m]\nupstream = \"u\"\nupstream_model = \"x\"",
            "telepathy",
        ),
        (
            "[[upstream]]\nname = \"u\"\ndialect = \"openai-chat\"\nbase_url = \"http://127.0.0.1:1/v1\"\n[model.m]\nupstream = \"v\"\nupstream_model = \"x\"",
            "\"v\"",
        ),
    ] {
        let told = gives_up(config, None).await;
        assert!(told.contains("error:") && told.contains(said), "{config}: {told}");
    }
}

/// Root may take any port, and gives up root only then.
#[tokio::test]
async fn a_port_below_1024_is_taken_while_root_may() {
    if skipped_without_root("a_port_below_1024_is_taken_while_root_may") {
        return;
    }
    // An address that nobody else has.
    const AT: &str = "127.80.80.80:80";
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let file = folder.path().join("palisade.toml");
    std::fs::write(&file, format!("listen = \"{AT}\"\n[sandbox]\nhand = {:?}\n", server::hand())).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_palisade"))
        .args(["serve", "--config"])
        .arg(&file)
        .arg("--data-dir")
        .arg(folder.path().join("data"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    wait_for("the server to answer", || async {
        reqwest::get(format!("http://{AT}/health")).await.ok().filter(|answer| answer.status() == 200)
    })
    .await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id().unwrap())).unwrap();
    assert!(status.contains("Uid:\t10001\t10001"), "{status}");
    child.kill().await.unwrap();
}

#[tokio::test]
async fn a_server_that_may_open_few_files_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let file = folder.path().join("palisade.toml");
    std::fs::write(&file, format!("[sandbox]\nhand = {:?}\n", server::hand())).unwrap();
    let output = Command::new("sh")
        .args(["-c", "ulimit -n 512 && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_palisade")])
        .args(["serve", "--listen", "127.0.0.1:0", "--config"])
        .arg(&file)
        .arg("--data-dir")
        .arg(folder.path().join("data"))
        .output()
        .await
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(told.contains("may open 512 files") && told.contains("LimitNOFILE="), "{told}");
}

#[tokio::test]
async fn a_data_directory_out_of_reach_is_refused_with_what_to_do() {
    // Without root the server keeps its user, who can reach what it made.
    if skipped_without_root("a_data_directory_out_of_reach_is_refused_with_what_to_do") {
        return;
    }
    let closed = tempfile::tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(closed.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let told = gives_up("", Some(&closed.path().join("data"))).await;
    assert!(told.contains("--data-dir") && told.contains("10001"), "{told}");
}

/// What only root can show is not shown to anybody else, and says so.
#[expect(clippy::print_stderr, reason = "whoever reads the test's output should know")]
fn skipped_without_root(test: &str) -> bool {
    let skipped = !rustix::process::getuid().is_root();
    if skipped {
        eprintln!("SKIPPED {test}: it needs root");
    }
    skipped
}

#[tokio::test]
async fn root_takes_over_no_folder_with_other_things_in_it() {
    if skipped_without_root("root_takes_over_no_folder_with_other_things_in_it") {
        return;
    }
    let other = tempfile::tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(other.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(other.path().join("somebodys.txt"), "here").unwrap();
    let told = gives_up("", Some(other.path())).await;
    assert!(told.contains("holds other things") && told.contains("--data-dir"), "{told}");
    let now = std::fs::metadata(other.path()).unwrap();
    assert_eq!((now.uid(), now.permissions().mode() & 0o777), (0, 0o755));
    assert_eq!(std::fs::read_dir(other.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn root_follows_no_link_that_the_servers_user_may_have_made() {
    if skipped_without_root("root_follows_no_link_that_the_servers_user_may_have_made") {
        return;
    }
    let roots = tempfile::tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(roots.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    chown(&data, Some(10001), Some(10001)).unwrap();
    std::os::unix::fs::symlink(roots.path(), data.join("runtime")).unwrap();
    let told = gives_up("", Some(&data)).await;
    assert!(told.contains("runtime") && told.contains("no link"), "{told}");
    assert_eq!(std::fs::read_dir(roots.path()).unwrap().count(), 0, "nothing was written through it");
    assert_eq!(std::fs::metadata(roots.path()).unwrap().permissions().mode() & 0o777, 0o700);

    std::fs::remove_file(data.join("runtime")).unwrap();
    std::fs::create_dir(data.join("runtime")).unwrap();
    chown(data.join("runtime"), Some(10001), Some(10001)).unwrap();
    let told = gives_up("", Some(&data)).await;
    assert!(told.contains("belongs to uid 10001"), "{told}");
    assert_eq!(std::fs::read_dir(data.join("runtime")).unwrap().count(), 0);

    std::fs::remove_dir(data.join("runtime")).unwrap();
    let key = folder.path().join("roots.key");
    std::fs::write(&key, "pk_default_0123456789abcdef0123456789abcdef").unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::symlink(&key, data.join("admin.key")).unwrap();
    let told = gives_up("", Some(&data)).await;
    assert!(told.contains("admin.key") && told.contains("Permission denied"), "{told}");
}

/// Starts a server without a configuration of keys, says what it wrote once it listens, and stops it.
async fn said_to(out: Stdio) -> (std::process::ExitStatus, tempfile::TempDir) {
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let (file, log) = (folder.path().join("palisade.toml"), folder.path().join("log"));
    std::fs::write(&file, format!("[sandbox]\nhand = {:?}\n", server::hand())).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_palisade"))
        .args(["serve", "--log-format", "json", "--listen", "127.0.0.1:0", "--config"])
        .arg(&file)
        .arg("--data-dir")
        .arg(folder.path().join("data"))
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(std::fs::File::create(&log).unwrap())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    wait_for("the server to listen", || async {
        std::fs::read_to_string(&log).unwrap().contains("\"listening\"").then_some(())
    })
    .await;
    let pid = rustix::process::Pid::from_raw(child.id().unwrap().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    (child.wait().await.unwrap(), folder)
}

#[tokio::test]
async fn a_standard_output_that_takes_nothing_stops_nothing() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let (status, _folder) = said_to(full.into()).await;
    assert_eq!(status.code(), Some(0));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let (status, _folder) = said_to(writer.into()).await;
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn the_key_itself_is_not_written_to_what_is_no_terminal() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let (status, folder) = said_to(writer.into()).await;
    assert_eq!(status.code(), Some(0));
    let mut said = String::new();
    std::io::Read::read_to_string(&mut reader, &mut said).unwrap();
    let key = std::fs::read_to_string(folder.path().join("data/admin.key")).unwrap();
    assert!(said.contains("listening on http://") && said.contains("data/admin.key"), "{said}");
    assert!(!said.contains(key.trim()) && !said.contains("pk_"), "{said}");
}
