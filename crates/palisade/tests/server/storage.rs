//! Everything that takes disk is counted for its tenant, whatever way it takes it, and a tenant at its limit is stopped
//! whatever writes for it.

use std::time::Duration;

use palisade_testkit::upstream::{Answer, Call};
use palisade_testkit::wait_for;
use reqwest::Method;
use serde_json::{Value, json};

use crate::files_limits::{Tenant, bash, zeros};

const MIB: u64 = 1024 * 1024;

fn python(program: &str) -> Call {
    bash(&format!("/usr/bin/python3 - <<'END'\n{program}\nEND"))
}

fn code(result: &Value) -> Option<&str> {
    result["code"].as_str()
}

fn used(headroom: &Value, what: &str) -> u64 {
    headroom[what].as_u64().unwrap()
}

/// Waits until what is measured satisfies `is_so`.
async fn measured(tenant: &Tenant, what: &str, is_so: impl Fn(&Value) -> bool) {
    wait_for(what, || async { is_so(&tenant.headroom().await).then_some(()) }).await;
}

#[tokio::test]
async fn files_are_counted_and_limited_like_bytes() {
    let tenant = Tenant::with("workspace_files = 2000").await;
    measured(&tenant, "the first measurement", |it| used(it, "used_files") > 0).await;
    assert_eq!(tenant.headroom().await["limit_files"], 2000);
    let results = tenant
        .calls([bash(
            "mkdir d; cd d; while :; do seq 100 | sed s/^/$RANDOM-/ | xargs touch; sleep 0.01; done",
        )])
        .await;
    assert_eq!(code(&results[0]), Some("workspace.full"), "{results:?}");
    let said = results[0]["content"].as_str().unwrap();
    assert!(said.contains("2000 files"), "{said}");
    assert_eq!(tenant.put("new", zeros(0)).await, Err("507 workspace.too_many_files".to_owned()));
    assert!(used(&tenant.headroom().await, "used_files") >= 2000);
    assert_eq!(used(&tenant.headroom().await, "free_files"), 0);
    let results = tenant.calls([bash("rm -r d && echo removed")]).await;
    assert_eq!(results[0]["content"], "removed\n");
    measured(&tenant, "room for files", |it| used(it, "free_files") > 1000).await;
    tenant.put("new", zeros(0)).await.unwrap();
}

#[tokio::test]
async fn a_file_without_a_name_counts_while_it_is_open() {
    let tenant = Tenant::with("workspace_gb = 0.05").await;
    let hidden = |open: &str| {
        python(&format!(
            "import os, time\n{open}\nwhile True:\n    os.write(fd, b'x' * 1048576)\n    time.sleep(0.01)"
        ))
    };
    let ways = [
        hidden("fd = os.open('gone', os.O_CREAT | os.O_RDWR); os.unlink('gone')"),
        hidden("fd = os.open('.', os.O_TMPFILE | os.O_RDWR)"),
    ];
    for way in ways {
        let results = tenant.calls([way]).await;
        assert_eq!(code(&results[0]), Some("workspace.full"), "{results:?}");
        wait_for("room", || async { tenant.put("new", zeros(40)).await.ok() }).await;
        tenant.put("new", zeros(0)).await.unwrap();
    }
}

#[tokio::test]
async fn a_writer_of_its_own_session_is_ended_while_a_client_tool_waits() {
    let tenant = Tenant::with("workspace_gb = 0.02").await;
    let tools = json!({"tools": [{"type": "function", "function": {"name": "ask", "parameters": {"type": "object", "properties": {}}}}]});
    let session = tenant.server.session(tools).await;
    let flood =
        "setsid sh -c 'while head -c 1M /dev/zero >> flood; do sleep 0.01; done' >/dev/null 2>&1 & sleep 0.1";
    tenant.upstream.push(Answer::calls([bash(flood)]));
    tenant.upstream.push(Answer::calls([Call::new("ask", json!({}))]));
    let mut stream = tenant.server.send(&session, "go").await;
    stream.until("tool_call.requested").await;
    wait_for("the writer's end", || async {
        tenant.server.log().contains("sandbox ended: its workspace is full").then_some(())
    })
    .await;
    let flood = tenant.server.workspace().join("flood");
    let length = || std::fs::metadata(&flood).unwrap().len();
    let mut lengths = Vec::new();
    for _ in 0..2 {
        let results = tenant.calls([bash("sleep 0.3")]).await;
        assert_eq!(results[0]["is_error"], false, "{results:?}");
        lengths.push(length());
    }
    assert_eq!(lengths[0], lengths[1], "nothing writes any more");
}

/// Pages of a file's holes take blocks when they are written to, and no limit of a file's size is in the way.
#[tokio::test]
async fn who_keeps_writing_to_a_full_workspace_runs_no_more_commands() {
    let tenant = Tenant::with("workspace_gb = 0.02").await;
    let by_pages = |number: usize| {
        python(&format!(
            "import mmap, os, time\nfd = os.open('sparse', os.O_RDWR)\npages = mmap.mmap(fd, 1 << 30)\n\
             for at in range({number} << 25, {number} + 1 << 25, 4096):\n    pages[at] = 1\ntime.sleep(60)"
        ))
    };
    let mut calls = vec![bash("truncate -s 1G sparse; head -c 100M /dev/zero > full")];
    calls.extend((0..10).map(by_pages));
    let results = tenant.calls(calls).await;
    let last = results.last().unwrap()["content"].as_str().unwrap();
    assert!(last.contains("Nothing was run") && last.contains("file API"), "{results:?}");
    for name in ["sparse", "full"] {
        let path = format!("/v1/sessions/{}/files/{name}", tenant.session);
        assert_eq!(tenant.server.request(Method::DELETE, &path).send().await.unwrap().status(), 204);
    }
    wait_for("room", || async { tenant.put("new", zeros(1)).await.ok() }).await;
    let results = tenant.calls([bash("echo x > y && echo written")]).await;
    assert_eq!(results[0]["content"], "written\n");
}

#[tokio::test]
async fn homes_and_snapshots_count_for_their_tenant() {
    let tenant = Tenant::with("workspace_gb = 0.02").await;
    let folder = tenant.server.workspace().parent().unwrap().to_owned();
    tenant.put("upload", zeros(15)).await.unwrap();
    tenant.put("upload", zeros(0)).await.unwrap();
    for (at, name) in ["home", "skills"].into_iter().enumerate() {
        let folder = folder.join(name).join("something");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("large"), vec![1; 10 << 20]).unwrap();
        let expected = (at as u64 + 1) * 10 * MIB;
        // Told to look: an upload that the last look has no room for is measured first.
        assert_eq!(tenant.put("upload", zeros(15)).await, Err("507 workspace.full".to_owned()), "{name}");
        assert!(used(&tenant.headroom().await, "used_bytes") >= expected, "{name}");
    }
}

/// Whoever sends nothing more holds nothing but what was written, and that counts.
#[tokio::test]
async fn uploads_on_their_way_count() {
    use tokio::io::AsyncWriteExt as _;
    let tenant = Tenant::with("workspace_gb = 0.02\nupload_mb = 100").await;
    measured(&tenant, "the first measurement", |it| used(it, "used_files") > 0).await;
    let address = tenant.server.url.strip_prefix("http://").unwrap();
    let mut unfinished = Vec::new();
    for number in 0..3 {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let head = format!(
            "PUT /v1/sessions/{}/files/u{number} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\r\n",
            tenant.session,
            palisade_testkit::server::KEY,
            7 * MIB
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // Refused in the middle is as good.
        let _ = tokio::time::timeout(Duration::from_secs(10), stream.write_all(&vec![1; 6 << 20])).await;
        unfinished.push(stream);
    }
    measured(&tenant, "what was written", |it| used(it, "used_bytes") > 11 * MIB).await;
    assert_eq!(tenant.put("new", zeros(10)).await, Err("507 workspace.full".to_owned()));
    drop(unfinished);
    wait_for("the end of the uploads", || async { tenant.put("new", zeros(10)).await.ok() }).await;
}

/// Every version of a skill that a session saw, as the disk has it.
fn snapshots(tenant: &Tenant) -> Vec<std::path::PathBuf> {
    let folder = tenant.server.workspace().parent().unwrap().join("skills");
    let names = std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
    names.filter(|path| path.file_name().unwrap().len() == 64).collect()
}

fn taken(folder: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let files = std::fs::read_dir(folder).unwrap().flatten();
    files.map(|file| file.metadata().unwrap().blocks() * 512).sum()
}

#[tokio::test]
async fn a_skill_is_copied_when_it_changes_and_its_holes_are_not() {
    let tenant = Tenant::with("workspace_gb = 0.02").await;
    let folder = tenant.server.workspace().join("skills/one");
    tenant.put("skills/one/notes", zeros(0)).await.unwrap();
    for name in ["a", "b"] {
        std::fs::File::create(folder.join(name)).unwrap().set_len(24 << 20).unwrap();
    }
    let skill = |version: &str| format!("---\nname: one\ndescription: {version}\n---\n");
    // The file API says that a skill has changed; no session is needed for its copy.
    tenant.put("skills/one/SKILL.md", skill("first").into()).await.unwrap();
    wait_for("the first copy", || async { (snapshots(&tenant).len() == 1).then_some(()) }).await;
    assert!(taken(&snapshots(&tenant)[0]) < MIB);
    let session = tenant.server.session(json!({})).await;
    // An uncopied change is copied before the session is answered for.
    std::fs::write(folder.join("SKILL.md"), skill("second")).unwrap();
    let newer = tenant.server.session(json!({})).await;
    assert_eq!(snapshots(&tenant).len(), 2);
    let show = |session: String| {
        let tenant = &tenant;
        async move {
            tenant.upstream.push(Answer::calls([bash("cat /skills/one/SKILL.md | grep desc")]));
            tenant.upstream.push(Answer::text("done"));
            let events = tenant.server.send(&session, "go").await.rest().await;
            events.iter().find(|event| event.kind == "tool_result").unwrap().data["content"].clone()
        }
    };
    assert_eq!(show(session).await, "description: first\n", "it keeps what it had at its start");
    assert_eq!(show(newer).await, "description: second\n");
}

#[tokio::test]
async fn a_workspace_without_room_copies_no_skill_and_makes_sessions_all_the_same() {
    let tenant = Tenant::with("workspace_gb = 0.02").await;
    measured(&tenant, "the first measurement", |it| used(it, "used_files") > 0).await;
    tenant.put("skills/large/data", zeros(15)).await.unwrap();
    let text = "---\nname: large\ndescription: x\n---\n";
    tenant.put("skills/large/SKILL.md", text.into()).await.unwrap();
    let session = tenant.server.session(json!({})).await;
    assert!(snapshots(&tenant).is_empty(), "15 MB and 15 MB are more than there may be");
    assert!(tenant.server.log().contains("custom skill skipped"));
    tenant.upstream.push(Answer::text("done"));
    tenant.server.send(&session, "go").await.until("message.completed").await;
}
