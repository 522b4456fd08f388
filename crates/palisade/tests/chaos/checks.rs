//! What must be true of a whole stream, however often the server died while it was written.

use std::collections::{BTreeMap, BTreeSet};

use palisade_testkit::stream::TurnEvent;

use crate::client::is_terminal;

/// What a stream says about its tool calls and texts.
#[derive(Debug, Default)]
pub(crate) struct Account {
    pub(crate) calls: BTreeMap<String, CallAccount>,
    /// Text blocks that were said to their end.
    pub(crate) texts: Vec<String>,
    /// Text blocks of a step that a crash interrupted, which is said anew.
    pub(crate) cut_texts: Vec<String>,
    pub(crate) attempts: usize,
}

/// One call as a reader saw it.
#[derive(Debug, Default, Clone)]
pub(crate) struct CallAccount {
    pub(crate) name: String,
    pub(crate) input: String,
    /// How often it was seen to start.
    pub(crate) started: usize,
    /// Attempts of the turn that began after it had started and before it had a result.
    interrupted: usize,
    pub(crate) result: Option<(String, Option<String>)>,
    pub(crate) failed: bool,
}

/// The block that is open while a stream is read.
#[derive(Debug, Clone, PartialEq)]
enum Block {
    None,
    Text(String),
    Thinking,
    Tool(String),
}

/// Reads a whole stream and fails at the first thing that must not be.
pub(crate) fn check_stream(events: &[TurnEvent]) -> Account {
    let numbers: Vec<u64> = events.iter().map(|event| event.id).collect();
    assert_eq!(numbers, (0..events.len() as u64).collect::<Vec<_>>(), "numbers are gap-free from 0");
    assert_eq!(events[0].kind, "message.created");
    let terminal = events.iter().filter(|event| is_terminal(event)).count();
    assert!(
        terminal == 1 && is_terminal(events.last().unwrap()),
        "one terminal event, the last: {events:#?}"
    );
    let said_anew = said_anew(events);
    let mut account = Account::default();
    let mut block = Block::None;
    let mut attempt = 1;
    for (at, event) in events.iter().enumerate() {
        if event.kind == "turn.attempt" {
            check_attempt(events, at, &mut attempt);
            account.attempts += 1;
            match &block {
                Block::None => {}
                // A call that the model had asked for goes on in its block.
                Block::Tool(id) => {
                    let begun = |event: &&TurnEvent| {
                        event.kind == "tool_use.start" && event.data["id"] == id.as_str()
                    };
                    let start = events[..at].iter().rfind(begun).unwrap();
                    assert!(!said_anew.contains(&start.id), "it goes on, so it is not said anew: {start:?}");
                    let call = account.calls.get_mut(id).unwrap();
                    call.interrupted += usize::from(call.started > 0);
                }
                open => panic!("an attempt inside {open:?}"),
            }
            continue;
        }
        block = account.read(block, event, said_anew.contains(&event.id));
    }
    account
}

/// The events that belong to steps which a later attempt says from their beginning: what a client drops.
fn said_anew(events: &[TurnEvent]) -> BTreeSet<u64> {
    let attempts = events.iter().filter(|event| event.kind == "turn.attempt");
    attempts.flat_map(|event| event.data["after"].as_u64().unwrap() + 1..event.id).collect()
}

fn check_attempt(events: &[TurnEvent], at: usize, attempt: &mut u64) {
    let data = &events[at].data;
    let (number, after) = (data["attempt"].as_u64().unwrap(), data["after"].as_u64().unwrap() as usize);
    assert!(number > *attempt, "attempts count up: {data}");
    *attempt = number;
    let finishes_a_step = |event: &&TurnEvent| {
        matches!(event.kind.as_str(), "tool_use.executing" | "tool_result" | "tool_call.requested")
    };
    let lost = events[after + 1..at].iter().find(finishes_a_step);
    assert!(lost.is_none(), "a finished step is not said anew: {lost:?} after {after} at {data}");
    let latest = events[..at].iter().rfind(|event| event.kind == "turn.attempt");
    let latest = latest.and_then(|event| event.data["after"].as_u64()).unwrap_or_default() as usize;
    assert!(after >= latest, "what is finished stays so: {data}");
}

impl Account {
    fn read(&mut self, block: Block, event: &TurnEvent, said_anew: bool) -> Block {
        let text = |name: &str| event.data[name].as_str().unwrap_or_default().to_owned();
        match (event.kind.as_str(), block) {
            ("text.start", Block::None) => Block::Text(String::new()),
            ("text.delta", Block::Text(said)) => Block::Text(said + &text("content")),
            ("text.stop", Block::Text(said)) => {
                if said_anew { &mut self.cut_texts } else { &mut self.texts }.push(said);
                Block::None
            }
            ("thinking.start", Block::None) => Block::Thinking,
            ("thinking.delta", Block::Thinking) => Block::Thinking,
            ("thinking.stop", Block::Thinking) => Block::None,
            ("tool_use.start", Block::None) => {
                let call = CallAccount { name: text("name"), ..CallAccount::default() };
                assert!(self.calls.insert(text("id"), call).is_none(), "one block a call: {event:?}");
                Block::Tool(text("id"))
            }
            ("tool_use.input_delta", Block::Tool(id)) => Block::Tool(id),
            ("tool_use.executing", Block::Tool(id)) => {
                assert_eq!(text("id"), id);
                let call = self.calls.get_mut(&id).unwrap();
                call.started += 1;
                call.input = event.data["input"].to_string();
                Block::Tool(id)
            }
            ("tool_use.output_delta", Block::Tool(id)) => {
                assert_eq!(text("id"), id);
                Block::Tool(id)
            }
            ("tool_use.stop", Block::Tool(_)) => Block::None,
            ("tool_result", Block::None) => {
                let call = self.calls.get_mut(&text("id")).unwrap();
                let code = event.data["code"].as_str().map(str::to_owned);
                call.failed = event.data["is_error"] == true;
                assert!(call.result.replace((text("content"), code)).is_none(), "one result: {event:?}");
                Block::None
            }
            ("message.created", Block::None) => Block::None,
            // What ends a turn before its time ends the open block, too.
            ("message.cancelled" | "message.error", _) | ("message.completed", Block::None) => Block::None,
            (kind, block) => panic!("{kind} while the open block is {block:?}"),
        }
    }
}

impl CallAccount {
    /// Only reads may be repeated, and what is not known is said.
    pub(crate) fn check(&self, id: &str) {
        let repeats = matches!(self.name.as_str(), "Read" | "Glob");
        if !repeats {
            assert!(self.started <= 1, "{id} was started again: {self:?}");
        }
        let Some((content, code)) = &self.result else {
            assert_eq!(self.started, 0, "{id} was started and has no result: {self:?}");
            return;
        };
        let unknown = code.as_deref() == Some("tool.outcome_unknown");
        let lost = self.interrupted > 0 && !repeats;
        assert_eq!(unknown, lost, "{id}: {self:?}");
        if unknown {
            assert!(self.failed && content.contains("not known"), "{id}: {self:?}");
        }
    }
}
