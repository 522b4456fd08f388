//! Disasters that need no seed: a turn whose every attempt dies, a machine that sleeps, a disk that is full, a
//! data directory that cannot be written. What needs root or a mount namespace says so by name when it is skipped.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use palisade_testkit::stream::joined;
use palisade_testkit::upstream::{Answer, Gate, ScriptedUpstream};
use palisade_testkit::{Server, server, wait_for};
use reqwest::Method;
use serde_json::json;
use tokio::process::Command;

use crate::tally::Tally;
use crate::verdict::{Expected, check_turn};
use crate::world::{Engine, World, all_ended};

/// Attempts that a turn has; the server is killed in each of them.
const ATTEMPTS: usize = 5;

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_that_dies_in_every_attempt_is_given_up_and_the_session_is_usable() {
    let mut world = World::start(8, Engine::Sqlite, Arc::new(Tally::default())).await;
    world.model.stall(true);
    let clients = world.clients(0, 1).await;
    for attempt in 0..ATTEMPTS {
        let seen = clients[0].seen().len();
        let mut readers = world.read_on(&clients);
        // The first event of the recovery is enough in every other attempt.
        clients[0].has_seen(seen + if attempt % 2 == 0 { 3 } else { 1 }).await;
        world.kill().await;
        all_ended(&mut readers).await;
        world.server.restart().await;
    }
    all_ended(&mut world.read_on(&clients)).await;
    world.model.stall(false);
    check_turn(&mut world, &clients[0], Expected::GivenUp).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_slept_goes_on_where_it_was() {
    let (upstream, gate) = (ScriptedUpstream::start().await.unwrap(), Gate::new());
    let server = Server::start(env!("CARGO_BIN_EXE_palisade"), &upstream, "").await;
    let session = server.session(json!({})).await;
    upstream.push(Answer::stream().say("before").wait(&gate).say(" and after").done());
    let mut stream = server.send(&session, "go").await;
    let mut events = stream.until("text.delta").await;
    let pid = server.pid().unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    gate.open();
    // Longer than any lease in the long form.
    tokio::time::sleep(Duration::from_secs(if crate::is_long() { 20 } else { 2 })).await;
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    events.extend(stream.rest().await);
    assert_eq!(joined(&events, "text.delta"), "before and after");
    assert_eq!(events.last().unwrap().kind, "message.completed");
    assert_eq!(upstream.requests().len(), 1, "nothing was asked again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told_and_survived() {
    // Room for the programs that the server installs, and a little more.
    let Some(wrapper) = Wrapper::new("mount -t tmpfs -o size=48m,mode=755 tmpfs \"$DATA\"") else { return };
    let (upstream, gate) = (ScriptedUpstream::start().await.unwrap(), Gate::new());
    let server = Server::start(&wrapper.path(), &upstream, "").await;
    let session = server.session(json!({})).await;
    let long = json!({"content": "x".repeat(100_000)});
    let answer = Answer::stream().say("before").wait(&gate);
    upstream.push((0..40).fold(answer, |answer, _| answer.delta(&long)).done());
    let mut stream = server.send(&session, "go").await;
    stream.until("text.delta").await;
    let filler = fill(&server).await;
    gate.open();

    let create = server.request(Method::POST, "/v1/sessions").json(&json!({}));
    assert_eq!(server.refused(create).await, (507, "storage.full".to_owned()));
    assert_eq!(server.anonymous(Method::GET, "/health").send().await.unwrap().status(), 200);
    let record = server.get(&format!("/v1/sessions/{session}")).await;
    assert_eq!(record["id"], session.as_str(), "what is there can be read");
    let upload =
        server.request(Method::PUT, &format!("/v1/sessions/{session}/files/a")).body(vec![7; 300_000]);
    assert_eq!(server.refused(upload).await.0, 507);

    std::fs::remove_file(&filler).unwrap();
    let events = stream.rest().await;
    let end = events.last().unwrap();
    assert_eq!(
        (end.kind.as_str(), &end.data["code"]),
        ("message.error", &json!("storage.full")),
        "{}",
        end.frame
    );
    upstream.push(Answer::text("ok"));
    server.send(&session, "and now?").await.until("message.completed").await;
    server.session(json!({})).await;
}

/// Writes what is small and always taken until it is refused: a database has a little room of its own.
async fn use_up_the_database(server: &Server) {
    for number in 0..5_000 {
        let secret = format!("{number:08}{}", "s".repeat(8_000));
        let body = json!({"value": secret, "allowed_hosts": ["x.example"], "injection": {"type": "bearer"}});
        let put = server.request(Method::PUT, "/v1/vault/one").json(&body).send().await.unwrap();
        if put.status() == 507 {
            return;
        }
        assert!(put.status().is_success(), "{}", put.text().await.unwrap());
    }
    panic!("a full disk refused nothing");
}

/// Takes all the room there is, the server's reserve too; whoever removes this file gives it back.
async fn fill(server: &Server) -> PathBuf {
    let file = fill_once(server);
    wait_for("the reserve", || async { (!seen_by(server).join("data/reserve").exists()).then_some(()) })
        .await;
    fill_once(server);
    file
}

/// Leaves the server its reserve.
pub(crate) fn fill_once(server: &Server) -> PathBuf {
    use std::io::Write as _;
    let file = seen_by(server).join("data/filler");
    let mut filler = std::fs::File::options().create(true).append(true).open(&file).unwrap();
    for size in [1024 * 1024, 4096] {
        while filler.write_all(&vec![0; size]).is_ok() {}
    }
    file
}

/// The server's folder as it sees it: the mount is the server's alone.
pub(crate) fn seen_by(server: &Server) -> PathBuf {
    let root = PathBuf::from(format!("/proc/{}/root", server.pid().unwrap().as_raw_nonzero()));
    root.join(server.folder.path().strip_prefix("/").unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_a_full_disk_keeps_goes_by_itself_once_there_is_room() {
    let Some(wrapper) = Wrapper::new("mount -t tmpfs -o size=48m,mode=755 tmpfs \"$DATA\"") else { return };
    let (upstream, gate) = (ScriptedUpstream::start().await.unwrap(), Gate::new());
    let server = Server::start(&wrapper.path(), &upstream, "").await;
    let (busy, idle) = (server.session(json!({})).await, server.session(json!({})).await);
    let long = json!({"content": "x".repeat(100_000)});
    let answer = Answer::stream().say("before").wait(&gate);
    upstream.push((0..40).fold(answer, |answer, _| answer.delta(&long)).done());
    let mut stream = server.send(&busy, "go").await;
    stream.until("text.delta").await;
    let filler = fill(&server).await;
    use_up_the_database(&server).await;
    gate.open();
    wait_for("an end that cannot be written", || async {
        server.log().contains("a turn's end could not be written").then_some(())
    })
    .await;

    let delete = |id: &str| server.request(Method::DELETE, &format!("/v1/sessions/{id}"));
    let began = Instant::now();
    let refused = join_all([&busy, &busy, &busy, &idle].map(|id| server.refused(delete(id)))).await;
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    for refused in refused {
        assert_eq!(refused, (507, "storage.full".to_owned()));
    }
    std::fs::remove_file(&filler).unwrap();
    for id in [&busy, &idle] {
        wait_for("the session's end", || async {
            let response = server.request(Method::GET, &format!("/v1/sessions/{id}")).send().await.unwrap();
            (response.status() == 404).then_some(())
        })
        .await;
        assert_eq!(delete(id).send().await.unwrap().status(), 404);
        let destroyed = || {
            let log = server.log();
            log.lines()
                .filter(|line| line.contains("session destroyed") && line.contains(id.as_str()))
                .count()
        };
        wait_for("the end of its folder", || async { (destroyed() > 0).then_some(()) }).await;
        assert_eq!(destroyed(), 1, "however many asked");
    }
    server.session(json!({})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_data_directory_is_refused_with_what_to_do() {
    let Some(wrapper) =
        Wrapper::new("mount --bind \"$DATA\" \"$DATA\" && mount -o remount,ro,bind \"$DATA\"")
    else {
        return;
    };
    let folder = tempfile::Builder::new().prefix("palisade-test-").tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let config = folder.path().join("palisade.toml");
    std::fs::write(&config, format!("[sandbox]\nhand = {:?}\n", server::hand())).unwrap();
    let mut used = Server::with_config(env!("CARGO_BIN_EXE_palisade"), "").await;
    used.terminate().await;
    for data in [folder.path().join("data"), used.folder.path().join("data")] {
        let output = Command::new(wrapper.path())
            .args(["serve", "--listen", "127.0.0.1:0", "--config"])
            .arg(&config)
            .arg("--data-dir")
            .arg(&data)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(Duration::from_secs(30), output).await.unwrap().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains(data.to_str().unwrap()) && told.contains("Read-only file system"), "{told}");
    }
}

/// The server's binary behind a script that first changes what `$DATA`, its data directory, is mounted on, in a
/// mount namespace of its own.
pub(crate) struct Wrapper {
    folder: tempfile::TempDir,
}

impl Wrapper {
    /// `None`, with a word on why, where this cannot be done.
    #[expect(clippy::print_stderr, reason = "a test that cannot run here says so")]
    pub(crate) fn new(mount: &str) -> Option<Self> {
        let allowed =
            std::process::Command::new("unshare").args(["--mount", "true"]).stderr(Stdio::null()).status();
        if !rustix::process::getuid().is_root() || !allowed.is_ok_and(|status| status.success()) {
            eprintln!("skipped: needs root and a mount namespace to run: {mount}");
            return None;
        }
        let folder = tempfile::Builder::new().prefix("palisade-test-").tempdir_in("/tmp").unwrap();
        // The data directory is the last argument.
        let script = format!(
            "#!/bin/sh\nfor DATA; do :; done\nexport DATA\nmkdir -p \"$DATA\"\n\
             exec unshare --mount sh -c '{mount} && exec \"$@\"' sh {:?} \"$@\"\n",
            env!("CARGO_BIN_EXE_palisade")
        );
        std::fs::write(folder.path().join("palisade"), script).unwrap();
        std::fs::set_permissions(folder.path().join("palisade"), Permissions::from_mode(0o755)).unwrap();
        Some(Self { folder })
    }

    pub(crate) fn path(&self) -> String {
        self.folder.path().join("palisade").to_str().unwrap().to_owned()
    }
}
