//! Many turns at once, read by many, of whom some stop reading: nobody slows another, memory stays flat, everybody
//! gets every event once, in order. `PALISADE_LONG_TESTS=1` runs the size that is promised.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use palisade_testkit::Server;
use palisade_testkit::server::KEY;
use palisade_testkit::upstream::{Answer, Gate};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::{is_long, start};

const READERS_PER_TURN: usize = 5;
/// 50 events a second.
const EVERY: Duration = Duration::from_millis(20);
/// What a reader takes into its socket before it stalls, in bytes: the kernel's least.
const STALLED_SOCKET_BYTES: u32 = 4 * 1024;
/// Its segments, in bytes, as on a poor line. Loopback's own are of 64 KiB, of which the
/// server's kernel holds some forty for one who does not read; of these it holds 130 KiB.
const STALLED_SEGMENT_BYTES: u32 = 536;

/// How much of it.
struct Size {
    turns: usize,
    events: usize,
    /// One for each of the first turns.
    stalled: usize,
    delta_bytes: usize,
    /// What the server may grow by, in KiB. A model's answer is held until its end, and readers have their pages.
    growth_kib_max: u64,
    /// Until all who read have all. Who is held back by one who stalls waits for ever.
    complete_max: Duration,
}

impl Size {
    fn chosen() -> Self {
        if is_long() {
            Self {
                turns: 100,
                events: 6_000,
                stalled: 50,
                delta_bytes: 60,
                growth_kib_max: 192 * 1024,
                complete_max: Duration::from_secs(900),
            }
        } else {
            Self {
                turns: 20,
                events: 200,
                stalled: 10,
                delta_bytes: 1_800,
                growth_kib_max: 64 * 1024,
                complete_max: Duration::from_secs(150),
            }
        }
    }

    /// The text of a delta, which says which it is.
    fn delta(&self, turn: usize, number: usize) -> String {
        format!("{turn}/{number} {}", "x".repeat(self.delta_bytes))
    }

    fn answer(&self, turn: usize, start: &Gate) -> Answer {
        let deltas = (0..self.events).map(|number| json!({"content": self.delta(turn, number)}));
        let stream = Answer::stream().wait(start);
        deltas.fold(stream, |answer, delta| answer.delay(EVERY).delta(&delta)).done()
    }
}

/// A turn that waits at its gate, with all its readers.
struct Followed {
    /// Where its events are.
    path: String,
    readers: JoinSet<String>,
    stalled: Option<TcpStream>,
}

/// Each the first reader's own answer and four that follow; one of the four may stall.
async fn follow(server: &Server, size: &Size, turn: usize) -> Followed {
    let session = server.session(json!({})).await;
    let message = server
        .request(Method::POST, &format!("/v1/sessions/{session}/messages"))
        .json(&json!({"message": turn.to_string()}));
    let first = message.send().await.unwrap();
    assert_eq!(first.status(), 200);
    let id = first.headers()["x-response-id"].to_str().unwrap();
    let path = format!("/v1/sessions/{session}/responses/{id}/events");
    let mut readers = JoinSet::new();
    let is_stalled = turn < size.stalled;
    for _ in 0..READERS_PER_TURN - 1 - usize::from(is_stalled) {
        readers.spawn(read(server.request(Method::GET, &path)));
    }
    readers.spawn(text(first));
    let stalled = if is_stalled { Some(stall(server, &path).await) } else { None };
    Followed { path, readers, stalled }
}

async fn read(request: RequestBuilder) -> String {
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    text(response).await
}

async fn text(response: reqwest::Response) -> String {
    let mut bytes = Vec::new();
    let mut pieces = response.bytes_stream();
    while let Some(piece) = pieces.next().await {
        bytes.extend_from_slice(&piece.unwrap());
    }
    String::from_utf8(bytes).unwrap()
}

/// Asks for the stream, gets its head, and reads no further.
async fn stall(server: &Server, path: &str) -> TcpStream {
    let address: SocketAddr = server.url.trim_start_matches("http://").parse().unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(STALLED_SOCKET_BYTES).unwrap();
    SockRef::from(&socket).set_tcp_mss(STALLED_SEGMENT_BYTES).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    // HTTP/1.0: the body is the stream itself, without chunks.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nAuthorization: Bearer {KEY}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.0 200"), "{}", String::from_utf8_lossy(&head));
    stream
}

/// What of this stream lies in the kernel: sent by the server, not read by its reader.
fn bytes_in_sockets(stream: &TcpStream) -> u64 {
    let (own, server) = (stream.local_addr().unwrap().port(), stream.peer_addr().unwrap().port());
    let queue = |local: u16, remote: u16, at: usize| {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let ends = |line: &&str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            fields[1].ends_with(&format!(":{local:04X}")) && fields[2].ends_with(&format!(":{remote:04X}"))
        };
        let line = table.lines().skip(1).find(ends).unwrap_or_else(|| panic!("no socket {local} → {remote}"));
        let queues = line.split_whitespace().nth(4).unwrap();
        u64::from_str_radix(queues.split(':').nth(at).unwrap(), 16).unwrap()
    };
    queue(server, own, 0) + queue(own, server, 1)
}

/// Reads on where it had stopped. The server may have given it up meanwhile: then it resumes, as clients do.
async fn wake_up(server: &Server, path: &str, mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    // An error is a connection given up, and what came before it counts.
    let _ = stream.read_to_end(&mut bytes).await;
    let mut events = String::from_utf8_lossy(&bytes).into_owned();
    let whole = events.rfind("\n\n").map_or(0, |end| end + 2);
    events.truncate(whole);
    if !events.contains("\nevent: message.completed\n") {
        let last = frames(&events).last().map(|frame| number(frame));
        let request = server.request(Method::GET, path);
        let request = last.iter().fold(request, |request, last| request.header("Last-Event-ID", *last));
        events += &read(request).await;
    }
    events
}

/// The events of a stream, without comments.
fn frames(stream: &str) -> Vec<&str> {
    stream.split_inclusive("\n\n").filter(|frame| !frame.starts_with(':')).collect()
}

fn number(frame: &str) -> u64 {
    frame.strip_prefix("id: ").and_then(|rest| rest.lines().next()).unwrap().parse().unwrap()
}

/// Every event once, in order, and all that the upstream said.
fn check_turn(size: &Size, turn: usize, stream: &str) {
    let frames = frames(stream);
    let numbers: Vec<u64> = frames.iter().map(|frame| number(frame)).collect();
    assert_eq!(numbers, (0..frames.len() as u64).collect::<Vec<_>>(), "turn {turn}: from 0, step 1");
    let deltas = frames.iter().filter(|frame| frame.contains("\nevent: text.delta\n"));
    let said: String = deltas
        .map(|frame| {
            let data = frame.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
            let data: Value = serde_json::from_str(data).unwrap();
            data["content"].as_str().unwrap().to_owned()
        })
        .collect();
    let asked: String = (0..size.events).map(|number| size.delta(turn, number)).collect();
    assert!(said == asked, "turn {turn}: {} of {} bytes, or others", said.len(), asked.len());
    assert!(frames.last().unwrap().contains("\nevent: message.completed\n"), "turn {turn}");
}

/// The server's own memory. Root may look, whoever the server runs as.
pub(crate) fn private_kib(server: &Server) -> Option<u64> {
    let path = format!("/proc/{}/smaps_rollup", server.pid()?.as_raw_nonzero());
    let rollup = std::fs::read_to_string(path).ok()?;
    let private = rollup.lines().filter(|line| line.starts_with("Private_"));
    Some(private.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum())
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_stall_cost_nobody_else_anything_and_lose_nothing() {
    let size = Size::chosen();
    let (server, upstream) = start().await;
    let gate = Gate::new();
    let answers: Vec<Answer> = (0..size.turns).map(|turn| size.answer(turn, &gate)).collect();
    upstream.respond_with(move |request| {
        let turn: usize = request.json["messages"].as_array().unwrap().last().unwrap()["content"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        answers[turn].clone()
    });
    let mut turns = join_all((0..size.turns).map(|turn| follow(&server, &size, turn))).await;
    upstream.wait_for_requests(size.turns).await;
    let before = private_kib(&server);
    gate.open();

    let all = turns.iter_mut().map(|turn| std::mem::take(&mut turn.readers).join_all());
    let streams = tokio::time::timeout(size.complete_max, join_all(all)).await;
    let streams = streams.unwrap_or_else(|_| panic!("who reads did not get all in {:?}", size.complete_max));
    let grown = before.zip(private_kib(&server)).map(|(before, after)| after.saturating_sub(before));
    match grown {
        Some(grown) => assert!(grown <= size.growth_kib_max, "the server grew by {grown} KiB"),
        None => eprintln!("skipped: the server's memory, which smaps_rollup shows to root only"),
    }
    for (turn, streams) in streams.iter().enumerate() {
        check_turn(&size, turn, &streams[0]);
        for other in &streams[1..] {
            assert!(frames(other) == frames(&streams[0]), "turn {turn}: readers differ");
        }
    }
    for (turn, followed) in turns.into_iter().enumerate() {
        let Some(stalled) = followed.stalled else { continue };
        let whole = frames(&streams[turn][0]);
        if !is_long() {
            let (taken, all) = (bytes_in_sockets(&stalled), streams[turn][0].len() as u64);
            assert!(
                taken < all * 3 / 4,
                "turn {turn}: {taken} of {all} bytes went out, so that it did not stall"
            );
        }
        let woken = wake_up(&server, &followed.path, stalled).await;
        assert!(frames(&woken) == whole, "turn {turn}: who stalled has every event once too");
    }
}

/// Readers of one turn that has ended, who all stop reading, and what each may cost the server, in KiB: a batch of
/// events, and what the connection takes before it asks for no more.
const STALLED_READERS: usize = 60;
const STALLED_KIB_MAX: u64 = 1024;

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stalls_costs_a_batch_of_bytes_however_long_the_events_are() {
    let (server, upstream) = start().await;
    let session = server.session(json!({})).await;
    // Each character is six on the wire, so that events are as long as they may be.
    let long = json!({"content": "\u{1}".repeat(40_000)});
    let answer = (0..30).fold(Answer::stream(), |answer, _| answer.delay(EVERY / 4).delta(&long));
    upstream.push(answer.done());
    let mut stream = server.send(&session, "go").await;
    stream.until("message.completed").await;
    let path = format!("/v1/sessions/{session}/responses/{}/events", stream.turn);
    let before = private_kib(&server);
    let readers = join_all((0..STALLED_READERS).map(|_| stall(&server, &path))).await;
    palisade_testkit::wait_for("every reader's first bytes", || async {
        readers.iter().all(|reader| bytes_in_sockets(reader) > 0).then_some(())
    })
    .await;
    let Some((before, after)) = before.zip(private_kib(&server)) else {
        eprintln!("skipped: the server's memory, which smaps_rollup shows to root only");
        return;
    };
    let each = after.saturating_sub(before) / STALLED_READERS as u64;
    assert!(each <= STALLED_KIB_MAX, "a reader who has stalled costs {each} KiB");
}
