//! What a tenant notices of a hostile one: its create, message, PUT and tool call, quiet and under each attack, in pairs of
//! the same run: the machine's mood is in both. The attacks are `palisade_testkit::attack`'s, which the tests use, too.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use http::Method;
use palisade_testkit::Server;
use palisade_testkit::attack::{self, Attack, Kind};
use palisade_testkit::stream::TurnStream;
use palisade_testkit::upstream::{Answer, RecordedRequest, ScriptedUpstream};
use serde_json::{Value, json};

use super::row::Row;
use crate::build::say;

/// How many times its quiet 99th percentile the neighbour's may be.
const TIMES_QUIET_MAX: f64 = 5.0;
/// First rounds, which are not counted.
const WARM_UP: usize = 3;

/// The neighbour's four operations, quiet and under each attack.
pub(super) async fn measure(palisade: &str, rounds: usize) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for kind in Kind::ALL {
        say(&format!("bench: beside {}", kind.name()));
        let upstream = ScriptedUpstream::start().await.context("starting the scripted upstream")?;
        upstream.respond_with(model);
        let server = Server::start(palisade, &upstream, "").await;
        let neighbour = Neighbour::of(&server).await?;
        let quiet = neighbour.times(rounds).await?;
        let attack = Attack::begin(&server, kind).await;
        let attacked = neighbour.times(rounds).await?;
        drop(attack);
        for ((what, quiet), (_, attacked)) in quiet.into_iter().zip(attacked) {
            let quiet = Row::times(&format!("{what}, quiet"), quiet);
            let quiet_p99 = quiet.p99.unwrap_or_default();
            let row = Row::times(&format!("{what} beside {}", kind.name()), attacked).above(&[&quiet]);
            let times = row.p99.unwrap_or_default() / quiet_p99;
            rows.push(
                row.goal_p99(TIMES_QUIET_MAX * quiet_p99)
                    .note(format!("p99 {times:.1} × the quiet one's {quiet_p99:.2} ms")),
            );
        }
    }
    Ok(rows)
}

/// The neighbour's model runs a command and is done.
fn model(request: &RecordedRequest) -> Answer {
    attack::answer(request).unwrap_or_else(|| {
        let last = request.json["messages"].as_array().and_then(|messages| messages.last());
        match last.is_some_and(|last| last["role"] == "tool") {
            true => Answer::text("done"),
            false => Answer::tool_call("Bash", json!({"command": "true"})),
        }
    })
}

struct Neighbour<'s> {
    server: &'s Server,
    /// Its sandbox is awake.
    session: String,
}

impl<'s> Neighbour<'s> {
    async fn of(server: &'s Server) -> Result<Self> {
        let mut neighbour = Self { server, session: String::new() };
        neighbour.session = neighbour.create().await?;
        Ok(neighbour)
    }

    /// So many of each, one after the other.
    async fn times(&self, rounds: usize) -> Result<[(&'static str, Vec<Duration>); 4]> {
        let mut times = ["create", "message", "PUT", "tool call"].map(|what| (what, Vec::new()));
        for round in 0..WARM_UP + rounds {
            let began = Instant::now();
            let session = self.create().await?;
            let created = began.elapsed();
            self.call(Method::DELETE, &format!("/v1/sessions/{session}"), None).await?;
            let began = Instant::now();
            let file = format!("/v1/sessions/{}/files/small", self.session);
            self.call(Method::PUT, &file, Some(vec![b'x'; 1024])).await?;
            let put = began.elapsed();
            let (message, tool) = self.work().await?;
            if round >= WARM_UP {
                for ((_, times), time) in times.iter_mut().zip([created, message, put, tool]) {
                    times.push(time);
                }
            }
        }
        Ok(times)
    }

    async fn call(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<String> {
        let request = self.server.as_other(method, path);
        let request = body.into_iter().fold(request, |request, body| request.body(body));
        let response = request.send().await.context("asking")?;
        let status = response.status();
        let text = response.text().await.context("reading an answer")?;
        if !status.is_success() {
            bail!("the neighbour is refused: {status} {text}");
        }
        Ok(text)
    }

    async fn create(&self) -> Result<String> {
        let record = self.call(Method::POST, "/v1/sessions", Some(b"{}".to_vec())).await?;
        let record: Value = serde_json::from_str(&record).context("reading a session")?;
        Ok(record["id"].as_str().context("a session without an id")?.to_owned())
    }

    /// From the message to its first event, and from the tool's start to its result.
    async fn work(&self) -> Result<(Duration, Duration)> {
        let path = format!("/v1/sessions/{}/messages", self.session);
        let began = Instant::now();
        let message = self.server.as_other(Method::POST, &path).json(&json!({"message": "work"}));
        let mut stream = TurnStream::of(message.send().await.context("sending a message")?).await;
        let (mut first, mut executing, mut tool) = (None, None, None);
        while let Some(event) = stream.next().await {
            first.get_or_insert_with(|| began.elapsed());
            match event.kind.as_str() {
                "tool_use.executing" => executing = Some(Instant::now()),
                "tool_result" => tool = executing.map(|executing| executing.elapsed()),
                "message.error" => bail!("the neighbour's turn failed: {}", event.data["error"]),
                _ => {}
            }
        }
        first.zip(tool).context("a turn without a tool call")
    }
}
