//! The client commands as a person starts them, against a small server of the contract that cuts streams, refuses
//! and remembers what it was asked.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy takes only test functions for tests, not what they call"
)]

mod client_server;

use std::fs;
use std::io::{BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use client_server::{Plan, SESSION, Server, TURN, turn_frames};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

fn palisade(server: &Server, folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_palisade"));
    command.args(args).current_dir(folder).stdin(Stdio::null());
    command.env("POKEE_API", &server.url).env("POKEE_KEY", "pk_test_key").env_remove("NO_COLOR");
    command
}

fn output(server: &Server, folder: &Path, args: &[&str]) -> Output {
    palisade(server, folder, args).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// The events of `--json`, and its last line.
fn json_lines(output: &Output) -> (Vec<Value>, Value) {
    let mut lines: Vec<Value> =
        stdout(output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = lines.pop().unwrap();
    (lines, last)
}

#[test]
fn run_shows_the_turn_and_fetches_what_it_made() {
    let server = Server::start(Plan::default());
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("deck.pptx"), "mine").unwrap();
    fs::write(folder.path().join("notes.txt"), "upload me").unwrap();
    let output = output(&server, folder.path(), &["run", "Build a deck", "--upload", "notes.txt:input/"]);
    assert!(output.status.success(), "{output:?}");

    let shown = stdout(&output);
    assert!(shown.contains("I build it.\n\n▸ Bash  python3 build.py\n  │ slide 1\n  ✓"), "{shown}");
    assert!(shown.contains("■ done · 12 tokens in, 5 out"), "{shown}");
    assert!(shown.contains("→ ./charts/a b.csv (3 B)\n→ ./deck (2).pptx (4 B)\n"), "{shown}");
    assert!(!shown.contains('\u{1b}'), "a pipe gets no colours: {}", shown.escape_debug());

    assert_eq!(names(folder.path()), ["charts", "deck (2).pptx", "deck.pptx", "notes.txt"]);
    assert_eq!(fs::read(folder.path().join("deck.pptx")).unwrap(), b"mine");
    assert_eq!(fs::read(folder.path().join("deck (2).pptx")).unwrap(), b"deck");
    assert_eq!(fs::read(folder.path().join("charts/a b.csv")).unwrap(), b"a,b");
    assert!(
        stderr(&output).contains("1 hidden or surplus files stay in the workspace, such as output/.bashrc")
    );

    let seen = server.seen();
    assert_eq!(seen[0], "POST /v1/sessions {\"persistent\":false}");
    assert_eq!(seen[1], format!("PUT /v1/sessions/{SESSION}/files/input/notes.txt upload me"));
    let told = "Build a deck\n\nUploaded with this message: input/notes.txt";
    assert!(seen.contains(&format!("POST /v1/sessions/{SESSION}/messages {}", json!({"message": told}))));
    assert_eq!(seen.last().unwrap(), &format!("DELETE /v1/sessions/{SESSION}"));
}

/// Names come from an agent: none is an option, a home or something else than it seems, here or in what is printed.
#[test]
fn names_of_files_mislead_nobody() {
    let hostile = || Server::start(Plan { hostile_names: true, ..Plan::default() });
    let folder = tempfile::tempdir().unwrap();
    let run = output(&hostile(), folder.path(), &["run", "x", "--out", "."]);
    assert!(run.status.success(), "{run:?}");
    let saved =
        ["_--checkpoint-action=exec=sh", "_-rf", "_~root", "a_2J_", "invoice_fdp.exe"].map(str::to_owned);
    assert_eq!(names(&folder.path().join("charts")), saved);
    let shown = stdout(&run);
    assert!(shown.contains("→ ./charts/_-rf (1 B, in the workspace output/charts/-rf)"), "{shown}");
    let misleads = |text: &str| text.contains(['\u{202e}', '\u{9b}', '\u{2028}']);
    assert!(!misleads(&shown) && !misleads(&stderr(&run)), "{shown}");

    let list = |args: &[&str]| stdout(&output(&hostile(), folder.path(), args));
    for args in [
        ["run", "x", "--json", "--out", "again"].as_slice(),
        &["files", SESSION, "ls", "output/charts", "--json"],
        &["files", SESSION, "ls", "output/charts"],
    ] {
        assert!(!misleads(&list(args)), "{args:?}");
    }
    let server = Server::start(Plan { hostile_names: true, after_turn: true, ..Plan::default() });
    let listed =
        stdout(&output(&server, folder.path(), &["files", SESSION, "ls", "output/charts", "--json"]));
    assert!(
        listed.contains("\\u202e") && listed.contains("\\u009b") && listed.contains("\\u2028"),
        "{listed}"
    );
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed[3]["name"], "invoice\u{202e}fdp.exe", "the value is the same");
}

#[test]
fn run_sends_what_a_session_needs_and_keeps_it_when_told() {
    let server = Server::start(Plan::default());
    let folder = tempfile::tempdir().unwrap();
    let args =
        ["run", "x", "--keep", "--persistent", "--read", "a", "--write", "b", "--write", "c", "--model", "m"];
    assert!(output(&server, folder.path(), &args).status.success());
    let seen = server.seen();
    let draft =
        json!({"persistent": true, "file_access": {"read": ["a"], "write": ["b", "c"]}, "model": "m"});
    let sent: Value = serde_json::from_str(seen[0].strip_prefix("POST /v1/sessions ").unwrap()).unwrap();
    assert_eq!(sent, draft);
    assert!(!seen.iter().any(|request| request.starts_with("DELETE")), "{seen:?}");

    let server = Server::start(Plan::default());
    assert!(output(&server, folder.path(), &["run", "x", "--session", SESSION]).status.success());
    assert!(
        !server
            .seen()
            .iter()
            .any(|request| request.starts_with("DELETE") || request.starts_with("POST /v1/sessions "))
    );
}

#[test]
fn json_is_every_event_as_it_came_and_the_files() {
    let server = Server::start(Plan::default());
    let folder = tempfile::tempdir().unwrap();
    let output = output(&server, folder.path(), &["run", "x", "--json", "--out", "made/here"]);
    let (events, last) = json_lines(&output);
    let expected: Vec<Value> = turn_frames()
        .iter()
        .enumerate()
        .map(|(id, (event, data))| json!({"id": id, "event": event, "data": data}))
        .collect();
    assert_eq!(events, expected);
    let files = json!([
        {"path": "output/charts/a%20b.csv", "saved": "made/here/charts/a b.csv", "size": 3},
        {"path": "output/deck.pptx", "saved": "made/here/deck.pptx", "size": 4},
    ]);
    assert_eq!(last, json!({"session": SESSION, "files": files}));
}

/// Wherever a stream is cut, in mid-frame or between frames, the events come once each and in order, and the message
/// is taken once.
#[test]
fn a_cut_stream_goes_on_without_gap_or_duplicate() {
    let length: usize =
        turn_frames().iter().enumerate().map(|(seq, frame)| client_server::frame(seq, frame).len()).sum();
    std::thread::scope(|scope| {
        // At once, because each waits before it reads on.
        for cut_bytes in (0..length).step_by(length / 7) {
            scope.spawn(move || check_cut(cut_bytes));
        }
    });
}

fn check_cut(cut_bytes: usize) {
    let plan = Plan { cuts_bytes: vec![cut_bytes, 70, 5], reconnects_refused: 1, ..Plan::default() };
    let server = Server::start(plan);
    let folder = tempfile::tempdir().unwrap();
    let output = output(&server, folder.path(), &["run", "x", "--json"]);
    assert!(output.status.success(), "cut after {cut_bytes} bytes: {output:?}");
    let (events, _) = json_lines(&output);
    let ids: Vec<u64> = events.iter().map(|event| event["id"].as_u64().unwrap()).collect();
    let expected: Vec<u64> = (0..turn_frames().len() as u64).collect();
    assert_eq!(ids, expected, "cut after {cut_bytes} bytes");
    let sent = server.seen().iter().filter(|request| request.contains("/messages")).count();
    let mut keys = server.keys();
    assert_eq!(keys.len(), sent, "every message has a key");
    keys.dedup();
    assert_eq!(keys.len(), 1, "a message that is sent again is the same message");
    // Where the answer was heard, it is not sent again.
    assert!(sent == 1 || cut_bytes < 200, "cut after {cut_bytes} bytes: sent {sent} times");
}

#[test]
fn a_stream_that_cannot_be_resumed_is_told_and_the_session_is_kept() {
    let server = Server::start(Plan { cuts_bytes: vec![300], resume_status: 404, ..Plan::default() });
    let folder = tempfile::tempdir().unwrap();
    let output = output(&server, folder.path(), &["run", "x"]);
    assert_eq!(output.status.code(), Some(1));
    let told = stderr(&output);
    assert!(told.contains(&format!("error: the stream of turn {TURN} broke off before event")), "{told}");
    assert!(told.contains("\n\nhint: ") && told.contains(&format!("palisade tail {SESSION}")), "{told}");
    assert!(!server.seen().iter().any(|request| request.starts_with("DELETE")));
}

#[test]
fn a_failed_turn_is_an_error_and_its_session_is_gone() {
    let failure = (
        "message.error",
        json!({"id": TURN, "error": "the model is\u{1b}[2J down", "code": "upstream.down"}),
    );
    let server = Server::start(Plan { last: failure, ..Plan::default() });
    let folder = tempfile::tempdir().unwrap();
    let output = output(&server, folder.path(), &["run", "x"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("error: the model is\\x1b[2J down (upstream.down)\n"),
        "{}",
        stderr(&output)
    );
    assert!(server.seen().iter().any(|request| request.starts_with("DELETE")));
}

#[test]
fn a_broken_download_leaves_nothing_behind() {
    let server = Server::start(Plan { broken_downloads: true, ..Plan::default() });
    let folder = tempfile::tempdir().unwrap();
    let output = output(&server, folder.path(), &["run", "x"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("error: fetching the file failed"), "{}", stderr(&output));
    assert_eq!(names(folder.path()), Vec::<String>::new());
}

/// Waits until the child's stdout has said something that contains `text`.
fn wait_for_line(reader: &mut impl std::io::BufRead, text: &str) {
    let mut line = String::new();
    while reader.read_line(&mut line).unwrap() > 0 {
        if line.contains(text) {
            return;
        }
        line.clear();
    }
    panic!("the command ended without saying '{text}'");
}

fn interrupt(child: &Child) {
    kill_process(Pid::from_child(child), Signal::INT).unwrap();
}

#[test]
fn an_interrupt_cancels_the_turn() {
    let server = Server::start(Plan { waits_for_cancel: true, ..Plan::default() });
    let folder = tempfile::tempdir().unwrap();
    let mut child = palisade(&server, folder.path(), &["run", "x"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap());
    wait_for_line(&mut said, "▸ Bash");
    interrupt(&child);
    wait_for_line(&mut said, "■ cancelled");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let cancel = format!("POST /v1/sessions/{SESSION}/responses/{TURN}/cancel ");
    assert_eq!(server.seen().iter().filter(|request| **request == cancel).count(), 1, "{:?}", server.seen());
    assert!(server.seen().last().unwrap().starts_with("DELETE"), "what run made, it removes");
}

#[test]
fn a_second_interrupt_leaves_and_keeps_the_session() {
    let server = Server::start(Plan { waits_for_cancel: true, ignores_cancel: true, ..Plan::default() });
    let folder = tempfile::tempdir().unwrap();
    let mut child = palisade(&server, folder.path(), &["run", "x"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for_line(&mut BufReader::new(child.stdout.take().unwrap()), "▸ Bash");
    let mut remarks = BufReader::new(child.stderr.take().unwrap());
    interrupt(&child);
    wait_for_line(&mut remarks, "cancelling");
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let mut rest = String::new();
    remarks.read_to_string(&mut rest).unwrap();
    assert!(rest.contains(&format!("palisade tail {SESSION}")), "{rest}");
    assert!(!server.seen().iter().any(|request| request.starts_with("DELETE")));
}

#[test]
fn refusals_come_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(Plan::default());
    let told = |command: &mut Command| {
        let output = command.output().unwrap();
        assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(1), ""), "{output:?}");
        stderr(&output)
    };
    let wrong_key = told(palisade(&server, folder.path(), &["sessions"]).env("POKEE_KEY", "pk_wrong"));
    assert!(
        wrong_key.starts_with("error: a valid key is needed\n\nhint: the key came from --key or POKEE_KEY"),
        "{wrong_key}"
    );

    let no_key = told(palisade(&server, folder.path(), &["sessions"]).env_remove("POKEE_KEY"));
    assert!(
        no_key.contains("palisade-data/admin.key cannot be read") && no_key.contains("hint: "),
        "{no_key}"
    );

    let gone = told(&mut palisade(&server, folder.path(), &["sessions", "show", "sess_000000000000"]));
    assert!(gone.contains("error: no such session\n\nhint: `palisade sessions` lists"), "{gone}");

    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{nobody}");
    let down = told(&mut palisade(&server, folder.path(), &["sessions", "--url", &url]));
    assert!(
        down.contains(&format!("error: cannot connect to {url}")) && down.contains("`palisade serve`"),
        "{down}"
    );

    let odd = told(&mut palisade(&server, folder.path(), &["sessions", "--url", "ftp://x"]));
    assert!(odd.starts_with("error: 'ftp://x' is not an http or https address"), "{odd}");
}

#[test]
fn the_key_of_a_server_on_this_machine_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(Plan::default());
    fs::create_dir(folder.path().join("data")).unwrap();
    fs::write(folder.path().join("data/admin.key"), "pk_test_key\n").unwrap();
    let mut command = palisade(&server, folder.path(), &["sessions", "list", "--data-dir", "data"]);
    assert!(command.env_remove("POKEE_KEY").output().unwrap().status.success());
}

#[test]
fn sessions_are_listed_shown_and_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(Plan::default());
    let said = |args: &[&str]| {
        let output = output(&server, folder.path(), args);
        assert!(output.status.success(), "{output:?}");
        stdout(&output)
    };
    let table = said(&["sessions"]);
    assert!(table.starts_with("SESSION") && table.contains(&format!("{SESSION}  busy")), "{table}");
    assert_eq!(serde_json::from_str::<Value>(&said(&["sessions", "--json"])).unwrap()[0]["id"], SESSION);
    let record = said(&["sessions", "show", SESSION]);
    assert!(
        record.contains("may read   everything\n")
            && record.contains("metadata   deck_status = \"drawing\"\n"),
        "{record}"
    );
    assert_eq!(said(&["sessions", "delete", SESSION]), format!("deleted {SESSION}\n"));
    assert_eq!(said(&["sessions", "delete", "--idle", "--older-than", "1h30m"]), "deleted 3 sessions\n");
    assert_eq!(server.seen().last().unwrap(), "DELETE /v1/sessions?status=idle&older_than=1h30m");
    assert_eq!(output(&server, folder.path(), &["sessions", "delete"]).status.code(), Some(2));
}

#[test]
fn files_go_there_and_back_under_any_name() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(Plan { after_turn: true, ..Plan::default() });
    let files = |args: &[&str]| output(&server, folder.path(), &[&["files", SESSION], args].concat());
    let said = |args: &[&str]| {
        let output = files(args);
        assert!(output.status.success(), "{output:?}");
        stdout(&output)
    };
    let table = said(&["ls", "output"]);
    assert!(table.contains("4 B") && table.contains("charts/\n") && !table.contains('\u{1b}'), "{table}");

    fs::write(folder.path().join("a#b ü.txt"), "body").unwrap();
    assert_eq!(said(&["put", "a#b ü.txt", "in put/"]), "→ in put/a#b ü.txt (4 B)\n");
    let put = format!("PUT /v1/sessions/{SESSION}/files/in%20put/a%23b%20%C3%BC.txt body");
    assert_eq!(server.seen().last().unwrap(), &put);

    for expected in ["deck.pptx", "deck (2).pptx"] {
        assert_eq!(said(&["get", "output/deck.pptx"]), format!("→ ./{expected} (4 B)\n"));
        assert_eq!(fs::read(folder.path().join(expected)).unwrap(), b"deck");
    }
    assert_eq!(said(&["get", "/workspace/output/deck.pptx", "-o", "deck.pptx"]), "→ deck.pptx (4 B)\n");
    assert_eq!(said(&["get", "output/deck.pptx", "-o", "-"]), "deck");
    let listing = files(&["get", "output"]);
    assert!(stderr(&listing).contains("error: 'output' is a folder\n\nhint: "), "{listing:?}");

    said(&["rm", "output", "--recursive"]);
    assert_eq!(
        server.seen().last().unwrap(),
        &format!("DELETE /v1/sessions/{SESSION}/files/output?recursive=true")
    );
    let outside = files(&["get", "../etc/passwd"]);
    assert!(stderr(&outside).contains("cannot contain '..'"), "{outside:?}");
    assert_eq!(names(folder.path()), ["a#b ü.txt", "deck (2).pptx", "deck.pptx"]);
}

#[test]
fn put_takes_stdin() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(Plan::default());
    fs::write(folder.path().join("x"), "from stdin").unwrap();
    let mut cat =
        Command::new("cat").arg("x").current_dir(folder.path()).stdout(Stdio::piped()).spawn().unwrap();
    let mut put = palisade(&server, folder.path(), &["files", SESSION, "put", "-", "y"]);
    let output = put.stdin(cat.stdout.take().unwrap()).output().unwrap();
    cat.wait().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(server.seen().last().unwrap(), &format!("PUT /v1/sessions/{SESSION}/files/y from stdin"));
}

#[test]
fn tail_reads_the_latest_turn_from_where_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(Plan::default());
    let output = output(&server, folder.path(), &["tail", SESSION, "--from", "4", "--json"]);
    assert!(output.status.success(), "{output:?}");
    let ids: Vec<Value> = stdout(&output)
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].clone())
        .collect();
    assert_eq!(ids, (4..turn_frames().len()).map(Value::from).collect::<Vec<_>>());

    let server = Server::start(Plan { nothing_ran: true, ..Plan::default() });
    let output = self::output(&server, folder.path(), &["tail", SESSION]);
    assert_eq!(stderr(&output), format!("error: nothing has run in session {SESSION} yet\n"));
}

/// A reader that goes away, like `head`, is no failure.
#[test]
fn a_closed_pipe_ends_quietly() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(Plan::default());
    let mut child = palisade(&server, folder.path(), &["sessions"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut remarks = String::new();
    child.stderr.take().unwrap().read_to_string(&mut remarks).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(remarks, "");
}
