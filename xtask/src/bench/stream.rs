//! From the upstream's chunk to the client's event. The upstream streams numbered deltas at a steady rate; each is
//! stamped when the upstream is told to write it and again when the client has read its number. The floor is the
//! same client reading the same upstream with nobody in between.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use palisade_testkit::Server;
use palisade_testkit::server::KEY;
use palisade_testkit::upstream::{Answer, Gate, ScriptedUpstream};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::marker::{Scanner, marker};
use super::row::Row;
use crate::process::cpu_time;

/// 50 events a second.
const EVERY: Duration = Duration::from_millis(20);
/// From the last reader's start to the first delta.
const LEAD: Duration = Duration::from_millis(100);
/// For everything; a run takes some ten seconds.
const LIMIT: Duration = Duration::from_secs(60);
const READ_BYTES: usize = 16 * 1024;

/// One stream: when each delta may go, and when it was told to.
struct Script {
    gates: Vec<Gate>,
    told: Vec<OnceLock<Instant>>,
}

impl Script {
    fn new(events: usize) -> Self {
        Self {
            gates: (0..events).map(|_| Gate::new()).collect(),
            told: (0..events).map(|_| OnceLock::new()).collect(),
        }
    }

    fn answer(&self) -> Answer {
        let deltas = self.gates.iter().enumerate();
        let delta = |answer: Answer, (number, gate): (usize, &Gate)| {
            answer.wait(gate).delta(&json!({"content": format!("{} and then", marker(number))}))
        };
        deltas.fold(Answer::stream(), delta).done()
    }
}

/// `streams` at once with `events` each: through the server, whose store is `on` something, and straight from the
/// upstream.
pub(super) async fn measure(
    server: &Server,
    upstream: &ScriptedUpstream,
    on: &str,
    streams: usize,
    events: usize,
    append: &Row,
) -> Result<(Row, Row)> {
    let name = if streams == 1 { "1 turn".to_owned() } else { format!("{streams} turns") };
    let straight = requests_to_upstream(upstream, streams);
    let straight = run(upstream, straight, events).await.context("reading straight from the upstream")?;
    let straight = Row::times(&format!("upstream → client, {name}"), straight);

    let requests = requests_to_server(server, streams).await?;
    let pid = server.pid().context("the server has no process")?;
    let (cpu, own_cpu, began) = (cpu_time(pid)?, cpu_time(rustix::process::getpid())?, Instant::now());
    let samples = run(upstream, requests, events).await.context("reading through the server")?;
    let share = |used: Duration| used.as_secs_f64() / began.elapsed().as_secs_f64();
    let note = format!(
        "{:.0} events/s; CPU of the server {:.2} cores, of upstream and clients {:.2} cores",
        samples.len() as f64 / began.elapsed().as_secs_f64(),
        share(cpu_time(pid)?.saturating_sub(cpu)),
        share(cpu_time(rustix::process::getpid())?.saturating_sub(own_cpu)),
    );
    let row = Row::times(&format!("upstream's chunk → client's event, {name}{on}"), samples);
    Ok((row.goal(1.0).goal_p99(5.0).above(&[&straight, append]).note(note), straight))
}

/// Where to send what, so that the answer is stream number so and so.
type Request = (String, String);

fn message(stream: usize) -> String {
    format!("stream {}", marker(stream))
}

fn requests_to_upstream(upstream: &ScriptedUpstream, streams: usize) -> Vec<Request> {
    let address = upstream.address().to_string();
    let body = |stream| {
        json!({"messages": [{"role": "user", "content": message(stream)}], "stream": true}).to_string()
    };
    (0..streams)
        .map(|stream| (address.clone(), post(&address, "/v1/chat/completions", &body(stream))))
        .collect()
}

async fn requests_to_server(server: &Server, streams: usize) -> Result<Vec<Request>> {
    let address = server.url.strip_prefix("http://").context("the server's address")?;
    let mut requests = Vec::with_capacity(streams);
    for stream in 0..streams {
        let path = format!("/v1/sessions/{}/messages", server.session(json!({})).await);
        requests.push((
            address.to_owned(),
            post(address, &path, &json!({"message": message(stream)}).to_string()),
        ));
    }
    Ok(requests)
}

fn post(host: &str, path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// Sends the requests, has the upstream answer them at their pace, and gives every event's time.
async fn run(upstream: &ScriptedUpstream, requests: Vec<Request>, events: usize) -> Result<Vec<Duration>> {
    let scripts: Arc<Vec<Script>> = Arc::new(requests.iter().map(|_| Script::new(events)).collect());
    let answers = scripts.clone();
    upstream.respond_with(move |request| {
        let asked =
            request.json["messages"].as_array().and_then(|messages| messages.last()).map(ToString::to_string);
        let stream = Scanner::default().take(asked.unwrap_or_default().as_bytes());
        stream
            .first()
            .and_then(|stream| answers.get(*stream))
            .map_or_else(|| Answer::text("?"), Script::answer)
    });
    let mut readers = JoinSet::new();
    for (stream, request) in requests.into_iter().enumerate() {
        let scripts = scripts.clone();
        readers.spawn(async move { read(request, &scripts[stream]).await });
    }
    for script in scripts.iter() {
        timeout(LIMIT, script.gates[0].reached()).await.context("a stream did not begin")?;
    }
    let start = Instant::now() + LEAD;
    let mut pacers = JoinSet::new();
    for stream in 0..scripts.len() {
        let scripts = scripts.clone();
        // Apart from each other, as real models are.
        let first = start + EVERY * stream as u32 / scripts.len() as u32;
        pacers.spawn(async move { pace(&scripts[stream], first).await });
    }
    let mut samples = Vec::new();
    while let Some(times) = timeout(LIMIT, readers.join_next()).await.context("a stream did not end")? {
        samples.extend(times.context("a reader failed")??);
    }
    Ok(samples)
}

async fn pace(script: &Script, first: Instant) {
    for (number, (gate, told)) in script.gates.iter().zip(&script.told).enumerate() {
        sleep_until(first + EVERY * number as u32).await;
        // Set once: a gate is opened once.
        let _ = told.set(Instant::now());
        gate.open();
    }
}

async fn read((address, request): Request, script: &Script) -> Result<Vec<Duration>> {
    let mut connection =
        TcpStream::connect(&address).await.with_context(|| format!("connecting to {address}"))?;
    connection.set_nodelay(true)?;
    connection.write_all(request.as_bytes()).await.context("sending a request")?;
    let mut buffer = vec![0; READ_BYTES];
    let (mut scanner, mut samples) = (Scanner::default(), Vec::with_capacity(script.told.len()));
    loop {
        let count = connection.read(&mut buffer).await.context("reading a stream")?;
        if count == 0 {
            break;
        }
        let now = Instant::now();
        for number in scanner.take(&buffer[..count]) {
            let told =
                script.told.get(number).and_then(OnceLock::get).context("a delta that was not sent")?;
            samples.push(now.saturating_duration_since(*told));
        }
    }
    ensure!(samples.len() == script.told.len(), "{} of {} deltas arrived", samples.len(), script.told.len());
    Ok(samples)
}
