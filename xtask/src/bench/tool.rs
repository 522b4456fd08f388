//! Tool calls, the model's time excluded: from the client's reading of `tool_use.executing` to its reading of
//! `tool_result`. Warm ones run in a sandbox that is there, cold ones are the first of their session.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use http::Method;
use palisade_testkit::Server;
use palisade_testkit::stream::TurnStream;
use palisade_testkit::upstream::{Answer, ScriptedUpstream};
use serde_json::json;

use super::row::Row;

/// First calls of a session that are not counted.
const WARM_UP: usize = 5;
/// Below the bound of a turn's model calls, and with a conversation that stays short.
const CALLS_PER_TURN: usize = 50;

/// Calls in a sandbox that is awake, each asked for by a model's answer of its own.
pub(super) async fn warm(
    server: &Server,
    upstream: &ScriptedUpstream,
    count: usize,
    spawn: &Row,
) -> Result<[Row; 2]> {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (mut samples, mut steps) = (Vec::new(), Vec::new());
    while samples.len() < count {
        let calls = CALLS_PER_TURN.min(count - samples.len()) + WARM_UP;
        answer_with_calls(upstream, calls, &asked);
        let session = server.session(json!({})).await;
        let times = call_times(&mut server.send(&session, "go").await).await?;
        samples.extend(times.into_iter().skip(WARM_UP));
        let asked = std::mem::take(&mut *asked.lock().unwrap_or_else(PoisonError::into_inner));
        steps.extend(asked.windows(2).skip(WARM_UP).map(|pair: &[Instant]| pair[1] - pair[0]));
        delete(server, &session).await?;
    }
    let call = Row::times("warm Bash true", samples).goal(3.0).above(&[spawn]);
    let step = Row::times("a step with a warm Bash true", steps).above(&[spawn]);
    Ok([call, step.note("from one request at the upstream to the next; the upstream answers at once".into())])
}

/// First calls, with the start of the sandbox.
pub(super) async fn cold(
    server: &Server,
    upstream: &ScriptedUpstream,
    count: usize,
    spawn: &Row,
    cage: &Row,
) -> Result<[Row; 2]> {
    let mut samples = Vec::with_capacity(count);
    for _ in 0..count {
        answer_with_calls(upstream, 1, &Arc::default());
        let session = server.session(json!({})).await;
        samples.extend(call_times(&mut server.send(&session, "go").await).await?);
        delete(server, &session).await?;
    }
    let bare = Duration::from_secs_f64(spawn.p50 / 1e3);
    let over = samples.iter().map(|time| time.saturating_sub(bare)).collect();
    Ok([
        Row::times("cold Bash true", samples).above(&[cage]),
        Row::times("cold Bash true, over the bare command", over).goal(25.0),
    ])
}

/// The upstream calls `Bash true` so many times, one answer each, and is done; when it was asked is noted.
fn answer_with_calls(upstream: &ScriptedUpstream, calls: usize, asked: &Arc<Mutex<Vec<Instant>>>) {
    let asked = asked.clone();
    upstream.respond_with(move |request| {
        asked.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
        let messages = request.json["messages"].as_array().map_or(&[][..], Vec::as_slice);
        if messages.iter().filter(|message| message["role"] == "tool").count() < calls {
            Answer::tool_call("Bash", json!({"command": "true"}))
        } else {
            Answer::text("done")
        }
    });
}

async fn call_times(stream: &mut TurnStream) -> Result<Vec<Duration>> {
    let (mut executing, mut times) = (None, Vec::new());
    while let Some(event) = stream.next().await {
        match event.kind.as_str() {
            "tool_use.executing" => executing = Some(Instant::now()),
            "tool_result" if event.data["is_error"] == true => {
                bail!("a call failed: {}", event.data["content"])
            }
            "tool_result" => times.push(executing.take().context("a result without a call")?.elapsed()),
            "message.completed" => return Ok(times),
            "message.error" => bail!("a turn failed: {}", event.data["error"]),
            _ => {}
        }
    }
    bail!("a stream broke off")
}

async fn delete(server: &Server, session: &str) -> Result<()> {
    let request = server.request(Method::DELETE, &format!("/v1/sessions/{session}"));
    request.send().await.context("deleting a session")?.error_for_status().context("deleting a session")?;
    Ok(())
}
