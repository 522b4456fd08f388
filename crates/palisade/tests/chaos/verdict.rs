//! The questions that are asked after every disaster, of one client's turn: is everything that was seen still
//! there, did every effect happen at most once, was the model told the truth, is the session usable.

use palisade_testkit::stream::{TurnEvent, TurnStream};
use serde_json::Value;

use crate::checks::{Account, CallAccount, check_stream};
use crate::client::Client;
use crate::model::FOLLOW_UP;
use crate::world::World;

/// How the turn must have ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Expected {
    Completed,
    /// An acknowledged cancel allows no other end, and costs nothing.
    Cancelled,
    GivenUp,
}

/// Asks everything about a turn that the client has read to its end.
pub(crate) async fn check_turn(world: &mut World, client: &Client, expected: Expected) {
    let seen = client.seen();
    let record = world.server.get(&format!("/v1/sessions/{}", client.session)).await;
    assert_eq!(record["busy"], false, "after its end: {}", client.message);
    check_replays(world, client, &seen).await;
    let account = check_stream(&seen);
    check_end(&seen, expected);
    check_effects(world, &account, expected);
    // The session is usable, and what the model is told is what the client has seen.
    let follow_up = world.server.send(&client.session, FOLLOW_UP).await.until("message.completed").await;
    let own = seen.last().filter(|_| expected != Expected::Cancelled);
    for end in [own, follow_up.last()].into_iter().flatten() {
        world.tokens += end.data["usage"]["total_tokens"].as_u64().unwrap_or_default();
    }
    let messages = world.model.told(&client.message).latest;
    check_conversation(world, &messages, client, &account, expected);
    if expected == Expected::Completed {
        check_texts(world, client, &account, &messages);
    }
    count(world, &account, seen.len());
}

/// Every text is one that the model said, a cut one the beginning of it, and the last is its last answer's.
fn check_texts(world: &World, client: &Client, account: &Account, messages: &[Value]) {
    let produced = world.model.told(&client.message).texts;
    for text in &account.texts {
        assert!(produced.iter().any(|whole| whole.contains(text)), "never said by the model: {text:?}");
    }
    for text in &account.cut_texts {
        // Late words stand at an answer's end.
        let was_said = |whole: &String| whole.starts_with(text) || whole.ends_with(text);
        assert!(produced.iter().any(was_said), "never begun by the model: {text:?}");
    }
    let answer = messages.iter().rfind(|message| message["role"] == "assistant");
    let answer = answer.and_then(|message| message["content"].as_str());
    assert_eq!(account.texts.last().map(String::as_str), answer, "the last text is the answer");
    assert_eq!(produced.last().map(String::as_str), answer, "the answer is of the last attempt");
}

/// A replay from the beginning, and a retry of the request under its key, are what was seen, byte for byte.
async fn check_replays(world: &World, client: &Client, seen: &[TurnEvent]) {
    let turn = client.turn().unwrap();
    for request in [client.events(&world.server, &turn, None), client.send(&world.server)] {
        let mut stream = TurnStream::of(request.send().await.unwrap()).await;
        assert_eq!(stream.turn, turn, "the same key, the same turn");
        let again = stream.rest().await;
        let bytes = |events: &[TurnEvent]| events.iter().map(|event| event.frame.clone()).collect::<Vec<_>>();
        assert_eq!(bytes(&again), bytes(seen), "replayed and seen: {}", client.message);
    }
}

fn check_end(seen: &[TurnEvent], expected: Expected) {
    let end = seen.last().unwrap();
    let how = (end.kind.as_str(), end.data["code"].as_str());
    match expected {
        Expected::Completed => assert_eq!(how, ("message.completed", None), "{}", end.frame),
        Expected::Cancelled => assert_eq!(how, ("message.cancelled", None), "{}", end.frame),
        Expected::GivenUp => {
            assert_eq!(how, ("message.error", Some("turn.too_many_attempts")), "{}", end.frame)
        }
    }
}

/// Every effect at most once; once if the call was told to have succeeded; never if it was not seen to start, or, but for a call that a
/// cancel ended, has no result.
fn check_effects(world: &mut World, account: &Account, expected: Expected) {
    let lines = std::fs::read_to_string(world.server.workspace().join("effects")).unwrap_or_default();
    for (id, call) in &account.calls {
        let is_cut = expected == Expected::Cancelled && call.result.is_none();
        if !is_cut {
            call.check(id);
        }
        let Some(effect) = effect_of(call) else { continue };
        world.effects.insert(effect.clone());
        let happened = match call.name.as_str() {
            "Write" => {
                let file = world.server.workspace().join(format!("{effect}.txt"));
                usize::from(std::fs::read_to_string(file).is_ok_and(|content| content == effect))
            }
            _ => lines.lines().filter(|line| *line == effect).count(),
        };
        assert!(happened <= 1, "{effect} happened {happened} times: {call:?}");
        match &call.result {
            Some((_, Some(code))) if code == "tool.outcome_unknown" => {
                world.tally.count(format!("outcomes told as unknown: had happened {happened} times"));
            }
            Some((content, code)) => {
                assert!(!call.failed, "{id} failed: {content} {code:?}");
                assert_eq!(happened, 1, "{effect} was told to have happened: {call:?}");
                world.tally.count("effects that happened once");
            }
            None if is_cut => {
                world.tally.count(format!("effects of calls that were cancelled: happened {happened} times"))
            }
            None => assert_eq!(happened, 0, "{effect} happened without a result: {call:?}"),
        }
    }
}

/// Effects on the disk that no call was ever seen to start.
pub(crate) fn check_no_effect_is_unaccounted_for(world: &World) {
    let lines = std::fs::read_to_string(world.server.workspace().join("effects")).unwrap_or_default();
    for line in lines.lines() {
        assert!(world.effects.contains(line), "{line} happened, and no client saw it start");
    }
}

/// The name that the model gave to what the call does; only of calls that were seen to start.
fn effect_of(call: &CallAccount) -> Option<String> {
    let at = call.input.find("effect-")?;
    let name = call.input[at..].split(|c: char| c != '-' && !c.is_ascii_alphanumeric()).next()?;
    matches!(call.name.as_str(), "Bash" | "Write").then(|| name.to_owned())
}

fn check_conversation(
    world: &World,
    messages: &[Value],
    client: &Client,
    account: &Account,
    expected: Expected,
) {
    let produced = world.model.told(&client.message).texts;
    let asked = messages.iter().filter(|message| message["content"] == client.message.as_str()).count();
    assert_eq!(asked, 1, "the message was taken once");
    let until = messages.iter().position(|message| message["content"] == FOLLOW_UP).unwrap();
    for message in &messages[..until] {
        let content = message["content"].as_str().unwrap_or_default();
        match message["role"].as_str() {
            Some("tool") => {
                let id = message["tool_call_id"].as_str().unwrap();
                match &account.calls.get(id).and_then(|call| call.result.clone()) {
                    Some((shown, _)) => assert_eq!(shown, content, "{id}: told to the model as shown"),
                    None => assert!(content.contains("ended before"), "{id}: {content}"),
                }
            }
            Some("assistant") if !content.is_empty() => {
                let was_shown = account.texts.iter().any(|text| text == content)
                    || account.texts.iter().any(|text| {
                        content
                            .strip_prefix(text.as_str())
                            .is_some_and(|rest| account.texts.iter().any(|t| t == rest))
                    });
                // The event after a cancel is the last, so that what stood behind a call in the same answer is not shown any more.
                let was_cut =
                    expected == Expected::Cancelled && produced.iter().any(|it| it.contains(content));
                assert!(
                    was_shown || was_cut,
                    "said to the model and never shown whole: {content:?}; shown: {:?}",
                    account.texts
                );
            }
            _ => {}
        }
    }
}

fn count(world: &World, account: &Account, events: usize) {
    world.tally.count("turns");
    world.tally.add("events seen", events as u64);
    world.tally.add("new attempts named on streams", account.attempts as u64);
    world.tally.add("texts cut and said anew", account.cut_texts.len() as u64);
    world.tally.add("tool calls", account.calls.len() as u64);
}
