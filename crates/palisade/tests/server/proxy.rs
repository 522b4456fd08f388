//! A turn behind Debian's nginx with compression and buffering on, as operators run it: what is written comes
//! through as it is written, whole, and can be resumed. The nginx is a real one with files of the test's own; it
//! must never read or write the machine's.

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use axum::http;
use flate2::write::GzDecoder;
use futures_util::StreamExt as _;
use palisade_testkit::Server;
use palisade_testkit::server::KEY;
use palisade_testkit::stream::{TurnEvent, TurnStream, joined};
use palisade_testkit::upstream::{Answer, Gate};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::json;
use tokio::process::{Child, Command};

use crate::{is_long, start};

/// Another program may take the port between our look and nginx's.
const PORTS_TRIED_MAX: usize = 5;
/// Until nginx listens or has ended; it tries to bind for some seconds of its own.
const START_MAX: Duration = Duration::from_secs(30);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(10);
/// More than one keep-alive's interval and less than two: a longer silence is survived only with them.
const READ_TIMEOUT_S: u64 = 20;
const PIECES: [&str; 5] = ["one ", "two ", "three ", "four ", "five"];

/// Debian's nginx in front of a server. Ends with the value.
struct Nginx {
    url: String,
    client: reqwest::Client,
    child: Child,
    folder: tempfile::TempDir,
}

impl Nginx {
    async fn before(server: &Server) -> Self {
        for _ in 0..PORTS_TRIED_MAX {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
            let folder = tempfile::Builder::new().prefix("palisade-nginx-").tempdir().unwrap();
            let config = configuration(folder.path(), port, &server.url);
            std::fs::write(folder.path().join("nginx.conf"), config).unwrap();
            let (url, client) = (format!("http://127.0.0.1:{port}"), reqwest::Client::new());
            let mut nginx = Self { url, client, child: spawn(folder.path()), folder };
            if nginx.is_up().await {
                return nginx;
            }
            assert!(nginx.log().contains("Address already in use"), "nginx did not start: {}", nginx.log());
        }
        panic!("{PORTS_TRIED_MAX} free ports were taken by others before nginx had them");
    }

    /// Once it listens, or has ended. Whoever else listens there does not know this folder's name.
    async fn is_up(&mut self) -> bool {
        let began = Instant::now();
        while began.elapsed() < START_MAX {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            if let Ok(answer) = self.client.get(format!("{}/folder", self.url)).send().await
                && answer.text().await.is_ok_and(|text| Path::new(&text) == self.folder.path())
            {
                return true;
            }
            tokio::time::sleep(PAUSE).await;
        }
        panic!("nginx did not listen: {}", self.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("error.log")).unwrap_or_default()
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url)).bearer_auth(KEY)
    }

    fn message(&self, session: &str) -> RequestBuilder {
        self.request(Method::POST, &format!("/v1/sessions/{session}/messages"))
            .json(&json!({"message": "go"}))
    }
}

/// Debian's own settings, compression of everything, buffering as it comes, and no path outside the folder.
fn configuration(folder: &Path, port: u16, server: &str) -> String {
    let folder = folder.display();
    format!(
        r#"
        daemon off;
        # One process, as the caller's user: it has no workers that outlive it.
        master_process off;
        pid {folder}/nginx.pid;
        error_log {folder}/error.log;
        events {{ worker_connections 256; }}
        http {{
            sendfile on;
            tcp_nopush on;
            access_log off;
            client_body_temp_path {folder}/body;
            proxy_temp_path {folder}/proxy;
            fastcgi_temp_path {folder}/fastcgi;
            uwsgi_temp_path {folder}/uwsgi;
            scgi_temp_path {folder}/scgi;
            gzip on;
            gzip_types *;
            gzip_proxied any;
            proxy_buffering on;
            proxy_read_timeout {READ_TIMEOUT_S}s;
            server {{
                listen 127.0.0.1:{port};
                location / {{ proxy_pass {server}; }}
                location = /folder {{ return 200 "{folder}"; }}
            }}
        }}
        "#
    )
}

fn spawn(folder: &Path) -> Child {
    Command::new(program())
        .arg("-p")
        .arg(folder)
        .arg("-c")
        .arg(folder.join("nginx.conf"))
        .arg("-e")
        .arg(folder.join("error.log"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

fn program() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian keeps it where only root's PATH looks.
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    let found = folders.map(|folder| folder.join("nginx")).find(|program| program.is_file());
    found.unwrap_or_else(|| panic!("nginx is not here: install Debian's package nginx-light"))
}

/// The same answer, unpacked as it comes: what stays in the packer stays unseen.
fn unpacked(response: Response) -> Response {
    assert_eq!(response.headers()["content-encoding"], "gzip", "nginx was to compress");
    let mut head = http::Response::builder().status(response.status());
    *head.headers_mut().unwrap() = response.headers().clone();
    let pieces = response.bytes_stream().scan(GzDecoder::new(Vec::new()), |decoder, piece| {
        let unpacked = piece.map_err(std::io::Error::other).and_then(|piece| {
            decoder.write_all(&piece)?;
            decoder.flush()?;
            Ok(std::mem::take(decoder.get_mut()))
        });
        std::future::ready(Some(unpacked))
    });
    head.body(reqwest::Body::wrap_stream(pieces)).unwrap().into()
}

/// Lets one piece go after the other, each only when the one before has been seen. What was seen.
async fn read_in_step(stream: &mut TurnStream, gates: &[Gate]) -> Vec<TurnEvent> {
    let mut seen = Vec::new();
    for (piece, gate) in PIECES.iter().zip(gates) {
        gate.reached().await;
        gate.open();
        seen.extend(stream.until("text.delta").await);
        assert_eq!(seen.last().unwrap().data["content"], *piece);
    }
    seen
}

fn gated(gates: &[Gate]) -> Answer {
    let pieces = PIECES.iter().zip(gates);
    pieces.fold(Answer::stream(), |answer, (piece, gate)| answer.wait(gate).say(piece)).done()
}

async fn logged(server: &Server, session: &str, turn: &str) -> Vec<TurnEvent> {
    let request = server.request(Method::GET, &format!("/v1/sessions/{session}/responses/{turn}/events"));
    TurnStream::of(request.send().await.unwrap()).await.rest().await
}

#[tokio::test]
async fn nginx_lets_every_event_through_before_the_next_is_written() {
    let (server, upstream) = start().await;
    let nginx = Nginx::before(&server).await;
    for is_packed in [false, true] {
        let id = server.session(json!({})).await;
        let gates = PIECES.map(|_| Gate::new());
        upstream.push(gated(&gates));
        let response = if is_packed {
            unpacked(nginx.message(&id).header("Accept-Encoding", "gzip").send().await.unwrap())
        } else {
            nginx.message(&id).send().await.unwrap()
        };
        assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
        assert_eq!(response.headers()["cache-control"], "no-cache, no-transform");
        let mut stream = TurnStream::of(response).await;
        assert!(stream.turn.starts_with("msg_"), "X-Response-Id passes: {:?}", stream.turn);
        let mut events = read_in_step(&mut stream, &gates).await;
        events.extend(stream.rest().await);
        assert_eq!(events.last().unwrap().kind, "message.completed", "nothing was cut");
        assert_eq!(events, logged(&server, &id, &stream.turn).await, "the same bytes as without nginx");
    }
}

#[tokio::test]
async fn a_stream_is_resumed_through_nginx_without_a_gap_or_a_duplicate() {
    let (server, upstream) = start().await;
    let nginx = Nginx::before(&server).await;
    let id = server.session(json!({})).await;
    let gates = PIECES.map(|_| Gate::new());
    upstream.push(gated(&gates));
    let mut stream = TurnStream::of(nginx.message(&id).send().await.unwrap()).await;
    gates[0].open();
    let seen = stream.until("text.delta").await;
    let turn = stream.turn.clone();
    drop(stream);

    let path = format!("/v1/sessions/{id}/responses/{turn}/events");
    let resume = nginx.request(Method::GET, &path).header("Last-Event-ID", seen.last().unwrap().id);
    let packed = resume.header("Accept-Encoding", "gzip").send().await.unwrap();
    let mut resumed = TurnStream::of(unpacked(packed)).await;
    assert_eq!(resumed.turn, turn);
    for gate in &gates {
        gate.open();
    }
    let rest = resumed.rest().await;
    let whole = [seen, rest].concat();
    assert_eq!(joined(&whole, "text.delta"), PIECES.concat());
    assert_eq!(whole, logged(&server, &id, &turn).await);
    let past = format!("{path}?last_event_id={}", whole.last().unwrap().id - 1);
    let last = TurnStream::of(nginx.request(Method::GET, &past).send().await.unwrap()).await.rest().await;
    assert_eq!(last, whole[whole.len() - 1..], "a finished turn too");
}

/// Takes half a minute by its nature: the interval of keep-alives is the contract's.
#[tokio::test]
async fn keep_alives_hold_a_silent_stream_open_behind_nginx() {
    if !is_long() {
        return;
    }
    let (server, upstream) = start().await;
    let nginx = Nginx::before(&server).await;
    let id = server.session(json!({})).await;
    let gate = Gate::new();
    upstream.push(Answer::stream().say("before ").wait(&gate).say("after").done());
    let request = nginx.message(&id).header("Accept-Encoding", "gzip");
    let response = unpacked(request.send().await.unwrap());
    let turn = response.headers()["x-response-id"].to_str().unwrap().to_owned();
    let (mut pieces, mut text) = (response.bytes_stream(), String::new());
    while let Some(piece) = pieces.next().await {
        text += std::str::from_utf8(&piece.unwrap()).unwrap();
        if text.matches(": keep-alive").count() == 2 {
            gate.open();
        }
    }
    let (comments, events): (Vec<&str>, Vec<&str>) =
        text.split_inclusive("\n\n").partition(|frame| frame.starts_with(':'));
    assert!(comments.len() >= 2);
    let logged: String = logged(&server, &id, &turn).await.into_iter().map(|event| event.frame).collect();
    assert_eq!(events.concat(), logged);
}
