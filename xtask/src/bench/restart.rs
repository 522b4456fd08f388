//! From the start of the process to serving: with many sessions on the disk, and with a turn to go on with. The
//! server before it was killed.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use http::Method;
use palisade_testkit::Server;
use palisade_testkit::stream::TurnStream;
use palisade_testkit::upstream::{Answer, ScriptedUpstream, Step};
use serde_json::json;

use super::floor::health;
use super::row::Row;

/// Restarts of one turn: a turn is given up at its fifth attempt.
const RESTARTS_PER_TURN: usize = 3;

/// With so many sessions, each with a turn behind it, against a start with none.
pub(super) async fn sessions(
    palisade: &str,
    upstream: &ScriptedUpstream,
    sessions: usize,
    restarts: usize,
) -> Result<(Row, Row)> {
    let mut server = Server::start(palisade, upstream, "").await;
    let empty = Row::times("start with nothing on disk", starts(&mut server, restarts).await);
    super::memory::talk(&server, upstream, sessions).await?;
    let row = Row::times(&format!("restart with {sessions} sessions"), starts(&mut server, restarts).await);
    Ok((row.goal(1_000.0).above(&[&empty]), empty))
}

async fn starts(server: &mut Server, restarts: usize) -> Vec<Duration> {
    let mut samples = Vec::with_capacity(restarts);
    for _ in 0..restarts {
        server.kill().await;
        samples.push(start(server).await);
    }
    samples
}

/// From exec to the first answer.
async fn start(server: &mut Server) -> Duration {
    let began = Instant::now();
    server.restart().await;
    health(server).await;
    began.elapsed()
}

/// What a running turn of so many events adds to a start, until its readers see it go on.
pub(super) async fn turn(
    palisade: &str,
    upstream: &ScriptedUpstream,
    events: usize,
    turns: usize,
) -> Result<Row> {
    let mut server = Server::start(palisade, upstream, "").await;
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..turns {
        let (path, mut last) = leave_running(&server, upstream, events).await?;
        for _ in 0..RESTARTS_PER_TURN {
            server.kill().await;
            let began = Instant::now();
            server.restart().await;
            let request = server.request(Method::GET, &format!("{path}/events?last_event_id={last}"));
            let mut stream = TurnStream::of(request.send().await.context("following the turn")?).await;
            let attempt = stream.until("turn.attempt").await;
            with.push(began.elapsed());
            last = attempt.last().map_or(last, |event| event.id);
        }
        let cancel = server.request(Method::POST, &format!("{path}/cancel"));
        let request = server.request(Method::GET, &format!("{path}/events?last_event_id={last}"));
        let mut rest = TurnStream::of(request.send().await.context("following the turn")?).await;
        cancel.send().await.context("cancelling the turn")?.error_for_status()?;
        rest.until("message.cancelled").await;
        without.extend(starts(&mut server, RESTARTS_PER_TURN).await);
    }
    let plain = Row::times("start", without);
    let bare = Duration::from_secs_f64(plain.p50 / 1e3);
    let over = with.iter().map(|time| time.saturating_sub(bare)).collect();
    let note = format!("over a start without a running turn, of {:.0} ms", plain.p50);
    Ok(Row::times(&format!("recovery of a turn of {events} events"), over).goal(200.0).note(note))
}

/// A turn in the middle of an answer, with so many events behind it: its path and its last event.
async fn leave_running(server: &Server, upstream: &ScriptedUpstream, events: usize) -> Result<(String, u64)> {
    upstream.respond_with(|_| Answer::never());
    let delta = json!({"choices": [{"index": 0, "delta": {"content": "and then "}, "finish_reason": null}]});
    // At a pace: deltas that arrive together may become one event.
    let chunk = format!("data: {delta}\n\n").into();
    upstream.push(Answer::stream().step(Step::Repeat { chunk, every: Duration::from_millis(1) }));
    let session = server.session(json!({})).await;
    let mut stream = server.send(&session, "go").await;
    loop {
        let event = stream.next().await.context("a stream broke off")?;
        ensure!(event.kind != "message.error", "a turn failed: {}", event.data["error"]);
        if event.id >= events as u64 {
            return Ok((format!("/v1/sessions/{session}/responses/{}", stream.turn), event.id));
        }
    }
}
