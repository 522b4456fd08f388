//! Large files and full disks over HTTP: memory stays flat, refusals change nothing, and a full workspace stops its
//! writers and nobody else.

use std::time::{Duration, Instant};

use palisade_testkit::Server;
use palisade_testkit::upstream::{Answer, Call, ScriptedUpstream};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::usage::start_as;

const MIB: usize = 1024 * 1024;

/// The most memory that the server has ever had, in KiB.
fn peak_kib(server: &Server) -> u64 {
    let pid = server.pid().unwrap().as_raw_nonzero();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

pub(crate) fn zeros(mebibytes: usize) -> reqwest::Body {
    let chunks = futures_util::stream::iter((0..mebibytes).map(|_| Ok::<_, std::io::Error>(vec![0; MIB])));
    reqwest::Body::wrap_stream(chunks)
}

#[tokio::test]
async fn a_hundred_mebibytes_in_flat_memory() {
    let (server, _upstream) = start_as("", "").await;
    let files = format!("/v1/sessions/{}/files", server.session(json!({})).await);
    let put = |name: &str, body| server.request(Method::PUT, &format!("{files}/{name}")).body(body);
    server.json(put("d/small", zeros(1))).await;
    let before_kib = peak_kib(&server);
    assert_eq!(server.json(put("d/large", zeros(100))).await["size"], 100 * MIB);
    for path in ["d/large", "d?archive=zip"] {
        let mut answer = server
            .request(Method::GET, &format!("{files}/{path}"))
            .send()
            .await
            .unwrap()
            .error_for_status()
            .unwrap();
        let mut bytes = 0;
        while let Some(chunk) = answer.chunk().await.unwrap() {
            bytes += chunk.len();
        }
        assert!(path != "d/large" || bytes == 100 * MIB, "{path}: {bytes}");
    }
    let grown_kib = peak_kib(&server) - before_kib;
    assert!(grown_kib < 24 * 1024, "{grown_kib} KiB more for a file of 100 MiB");
    // One byte more, announced and not.
    for body in [reqwest::Body::from(vec![0; 100 * MIB + 1]), zeros(101)] {
        assert_eq!(server.refused(put("d/large", body)).await, (413, "upload.too_large".to_owned()));
    }
    // Who asks before he sends is refused before he sends.
    let address = server.url.strip_prefix("http://").unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let key = palisade_testkit::server::KEY;
    let head = format!(
        "PUT {files}/d/large HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nExpect: 100-continue\r\nContent-Length: 999999999999\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 413");
    let listed = server.get(&format!("{files}?path=d")).await;
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]["size"]), (2, &json!(100 * MIB)));
}

/// Reads an answer's head and the first bytes of its body, then lets `change` happen, then reads on.
async fn read_while(server: &Server, path: &str, change: impl FnOnce()) -> (usize, usize) {
    let address = server.url.strip_prefix("http://").unwrap();
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    // So that little of the file is on its way before the change.
    socket.set_recv_buffer_size(64 * 1024).unwrap();
    let mut stream = socket.connect(address.parse().unwrap()).await.unwrap();
    let key = palisade_testkit::server::KEY;
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = vec![0; 16 * 1024];
    let mut read = stream.read(&mut bytes).await.unwrap();
    let head = bytes.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
    let promised =
        text.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap().parse().unwrap();
    read -= head;
    change();
    // The connection would stay open if the whole had come, so the promise is the end.
    while read < promised {
        match stream.read(&mut bytes).await {
            Ok(0) | Err(_) => break,
            Ok(more) => read += more,
        }
    }
    (promised, read)
}

/// Case D08: a length that was promised is kept, or the connection is closed before it.
#[tokio::test]
async fn a_file_that_changes_while_it_is_sent() {
    let (server, _upstream) = start_as("", "").await;
    let files = format!("/v1/sessions/{}/files", server.session(json!({})).await);
    let at = server.workspace().join("file");
    let open = || std::fs::File::options().write(true).open(&at).unwrap();
    std::fs::write(&at, vec![b'x'; 64 * MIB]).unwrap();
    let (promised, read) =
        read_while(&server, &format!("{files}/file"), || open().set_len(65 << 20).unwrap()).await;
    assert_eq!((promised, read), (64 * MIB, 64 * MIB), "a file that grows is cut at what was promised");
    let (promised, read) =
        read_while(&server, &format!("{files}/file"), || open().set_len(1000).unwrap()).await;
    assert!(promised == 65 * MIB && read < promised, "{read} of {promised}: the connection is closed");
    std::fs::write(&at, vec![b'x'; 64 * MIB]).unwrap();
    let replaced = || {
        std::fs::remove_file(&at).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &at,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
    };
    let (promised, read) = read_while(&server, &format!("{files}/file"), replaced).await;
    assert_eq!((promised, read), (64 * MIB, 64 * MIB), "what was opened is what is sent");
}

/// Case D09: nobody can have written it, so nobody is sent it whole.
#[tokio::test]
async fn a_sparse_giant_is_read_in_ranges_only() {
    let (server, _upstream) = start_as("", "").await;
    let files = format!("/v1/sessions/{}/files", server.session(json!({})).await);
    let giant = std::fs::File::create(server.workspace().join("giant")).unwrap();
    giant.set_len(4 << 40).unwrap();
    let get = |path: &str| server.request(Method::GET, &format!("{files}/{path}"));
    assert_eq!(server.refused(get("giant")).await, (413, "file.too_large".to_owned()));
    assert_eq!(
        server.refused(get("giant").header("range", "bytes=1-")).await,
        (413, "file.too_large".to_owned())
    );
    assert_eq!(server.refused(get("?archive=zip")).await, (413, "archive.too_large".to_owned()));
    let part = get("giant").header("range", "bytes=4398046511000-").send().await.unwrap();
    assert_eq!((part.status().as_u16(), part.bytes().await.unwrap().len()), (206, 104));
    let head = server.request(Method::HEAD, &format!("{files}/giant")).send().await.unwrap();
    assert_eq!(head.headers()["content-length"], "4398046511104");
    assert_eq!(server.request(Method::DELETE, &format!("{files}/giant")).send().await.unwrap().status(), 204);
}

pub(crate) struct Tenant {
    pub(crate) server: Server,
    pub(crate) upstream: ScriptedUpstream,
    pub(crate) session: String,
}

impl Tenant {
    /// A workspace of some 20 MB.
    async fn small() -> Self {
        Self::with("workspace_gb = 0.02").await
    }

    pub(crate) async fn with(settings: &str) -> Self {
        let (server, upstream) = start_as(settings, "").await;
        let session = server.session(json!({})).await;
        Self { server, upstream, session }
    }

    pub(crate) async fn put(&self, name: &str, body: reqwest::Body) -> Result<(), String> {
        let path = format!("/v1/sessions/{}/files/{name}", self.session);
        let response = self.server.request(Method::PUT, &path).body(body).send().await.unwrap();
        let status = response.status().as_u16();
        let answer: Value = response.json().await.unwrap();
        if status == 201 { Ok(()) } else { Err(format!("{status} {}", answer["code"].as_str().unwrap())) }
    }

    /// One turn with these calls; their results.
    pub(crate) async fn calls(&self, calls: impl IntoIterator<Item = Call>) -> Vec<Value> {
        self.upstream.push(Answer::calls(calls));
        self.upstream.push(Answer::text("done"));
        let events = self.server.send(&self.session, "go").await.rest().await;
        events.into_iter().filter(|event| event.kind == "tool_result").map(|event| event.data).collect()
    }

    pub(crate) async fn headroom(&self) -> Value {
        self.server.get("/ready").await["parts"]["storage"]["workspace"].clone()
    }

    /// What is freed is seen by the next look; asking for it is how a client waits.
    async fn put_in_the_end(&self, name: &str, mebibytes: usize) {
        let until = Instant::now() + Duration::from_secs(30);
        while let Err(refused) = self.put(name, zeros(mebibytes)).await {
            assert_eq!(refused, "507 workspace.full");
            assert!(Instant::now() < until, "it stays full");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

pub(crate) fn bash(command: &str) -> Call {
    Call::new("Bash", json!({"command": command}))
}

#[tokio::test]
async fn uploads_stop_at_the_workspaces_limit() {
    let tenant = Tenant::small().await;
    tenant.put("kept", zeros(10)).await.unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    while tenant.headroom().await["used_bytes"].as_u64().unwrap() < 10 << 20 {
        assert!(Instant::now() < until, "it was never measured");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let announced = reqwest::Body::from(vec![0; 15 * MIB]);
    assert_eq!(tenant.put("new", announced).await, Err("507 workspace.full".to_owned()));
    assert_eq!(tenant.put("d/e/new", zeros(15)).await, Err("507 workspace.full".to_owned()));
    assert_eq!(tenant.put("kept", zeros(15)).await, Err("507 workspace.full".to_owned()));
    let listed = tenant.server.get(&format!("/v1/sessions/{}/files", tenant.session)).await;
    let names: Vec<_> = listed.as_array().unwrap().iter().map(|entry| &entry["name"]).collect();
    assert_eq!(
        names,
        [".agents", ".memory", ".pokee", ".sessions", "kept", "skills"],
        "nothing half written"
    );
    assert_eq!(listed[4]["size"], 10 * MIB);
    let headroom = tenant.headroom().await;
    assert_eq!(headroom["limit_bytes"], 21_474_836);
    assert!(headroom["free_bytes"].as_u64().unwrap() <= 11 << 20, "{headroom}");
    let kept = format!("/v1/sessions/{}/files/kept", tenant.session);
    assert_eq!(tenant.server.request(Method::DELETE, &kept).send().await.unwrap().status(), 204);
    tenant.put_in_the_end("new", 15).await;
    let other =
        tenant.server.json(tenant.server.as_other(Method::POST, "/v1/sessions").json(&json!({}))).await;
    let path = format!("/v1/sessions/{}/files/x", other["id"].as_str().unwrap());
    let put = tenant.server.as_other(Method::PUT, &path).body(zeros(30)).send().await.unwrap();
    assert_eq!(put.status(), 201, "another tenant has its own limit");
}

#[tokio::test]
async fn a_command_that_fills_the_workspace_is_stopped_and_the_model_is_told() {
    let tenant = Tenant::small().await;
    let began = Instant::now();
    let results = tenant
        .calls([
            bash("echo begun; sleep 0.1; head -c 100M /dev/zero > big; sleep 100"),
            Call::new("Write", json!({"file_path": "/workspace/note", "content": "x"})),
            bash("echo more >> small || echo 'it cannot grow'; echo seen; du -m big | cut -f1"),
            bash("rm big && echo removed"),
        ])
        .await;
    assert!(began.elapsed() < Duration::from_secs(60), "the command was not stopped");
    let said = |at: usize| (results[at]["code"].as_str(), results[at]["content"].as_str().unwrap());
    assert_eq!(said(0).0, Some("workspace.full"));
    assert!(
        said(0).1.starts_with("begun\n") && said(0).1.contains("[The command was ended"),
        "{}",
        said(0).1
    );
    assert_eq!((said(1).0, &results[1]["is_error"]), (Some("workspace.full"), &json!(true)));
    let (_, size) = said(2).1.split_once("seen\n").unwrap();
    assert!(size.trim().parse::<u64>().unwrap() >= 20, "{}", said(2).1);
    assert!(!tenant.server.workspace().join("note").exists());
    assert_eq!(std::fs::metadata(tenant.server.workspace().join("small")).unwrap().len(), 0);
    assert_eq!(said(3).1, "removed\n");
    tenant.put_in_the_end("upload", 1).await;
    let results =
        tenant.calls([Call::new("Write", json!({"file_path": "/workspace/note", "content": "x"}))]).await;
    assert_eq!(results[0]["is_error"], json!(false), "{results:?}");
}

#[tokio::test]
async fn a_background_command_that_fills_the_workspace_is_ended() {
    let tenant = Tenant::small().await;
    let flood = "while head -c 1M /dev/zero >> flood; do sleep 0.01; done";
    tenant.calls([Call::new("Bash", json!({"command": flood, "background": true}))]).await;
    let flood = tenant.server.workspace().join("flood");
    let length = || std::fs::metadata(&flood).map_or(0, |found| found.len());
    let until = Instant::now() + Duration::from_secs(60);
    while !tenant.server.log().contains("sandbox ended: its workspace is full") {
        assert!(Instant::now() < until, "{} bytes and nobody minds", length());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let results = tenant.calls([bash("stat -c %s flood; sleep 0.3; stat -c %s flood; rm flood")]).await;
    let said = results[0]["content"].as_str().unwrap();
    let mut sizes = said.lines();
    assert_eq!(sizes.next(), sizes.next(), "it still grows: {said}");
}
