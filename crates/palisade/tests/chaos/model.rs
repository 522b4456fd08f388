//! The model of these tests: a function of the request, so that it goes on across restarts of the server. It
//! says something new every time it is asked (each text and each command has a number of its own), counts what
//! it said, and notes every request that no model would accept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use palisade_testkit::upstream::{Answer, Call, RecordedRequest, ScriptedUpstream};
use serde_json::{Value, json};

use crate::rng::Rng;

/// What one conversation has been told so far.
#[derive(Debug, Default, Clone)]
pub(crate) struct Told {
    /// Requests.
    pub(crate) requests: usize,
    /// The texts of all answers, also of those that nobody heard to the end.
    pub(crate) texts: Vec<String>,
    /// The latest request's messages.
    pub(crate) latest: Vec<Value>,
}

#[derive(Default)]
struct State {
    by_message: HashMap<String, Told>,
    problems: Vec<String>,
    answers: u64,
    stalls: bool,
}

/// The scripted upstream, and what it has seen.
pub(crate) struct Model {
    pub(crate) upstream: ScriptedUpstream,
    state: Arc<Mutex<State>>,
}

impl Model {
    pub(crate) async fn start() -> Self {
        let upstream = ScriptedUpstream::start().await.unwrap();
        let state = Arc::<Mutex<State>>::default();
        upstream.respond_with({
            let state = state.clone();
            move |request| answer(&mut state.lock().unwrap(), request)
        });
        Self { upstream, state }
    }

    /// What the conversation that began with this message has been told.
    pub(crate) fn told(&self, message: &str) -> Told {
        self.lock().by_message.get(message).cloned().unwrap_or_default()
    }

    /// Requests that were not a conversation.
    pub(crate) fn problems(&self) -> Vec<String> {
        self.lock().problems.clone()
    }

    /// From now on every answer begins and never ends, or no longer so.
    pub(crate) fn stall(&self, stalls: bool) {
        self.lock().stalls = stalls;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

/// The message that starts a turn of `seed`; the model's plan is in it.
pub(crate) fn plan_message(seed: u64, session: u64) -> String {
    format!("plan {seed} {session}")
}

/// The message after it, answered with one word.
pub(crate) const FOLLOW_UP: &str = "and now?";

fn answer(state: &mut State, request: &RecordedRequest) -> Answer {
    let messages = request.json["messages"].as_array().cloned().unwrap_or_default();
    if let Some(problem) = malformed(&messages) {
        state.problems.push(format!("{problem}: {messages:?}"));
    }
    let users: Vec<usize> = (0..messages.len()).filter(|at| messages[*at]["role"] == "user").collect();
    let (Some(first), Some(last)) = (users.first(), users.last()) else {
        state.problems.push(format!("a request without a message: {messages:?}"));
        return Answer::text("?");
    };
    let key = messages[*first]["content"].as_str().unwrap_or_default().to_owned();
    let round = messages[*last..].iter().filter(|message| message["role"] == "assistant").count() as u64;
    let follows_up = messages[*last]["content"] == FOLLOW_UP;
    state.answers += 1;
    let number = state.answers;
    let told = state.by_message.entry(key.clone()).or_default();
    told.requests += 1;
    told.latest = messages;
    if state.stalls {
        return Answer::stream().delta(&json!({"content": format!("answer {number} ")})).stall();
    }
    if follows_up {
        return Answer::text("ok");
    }
    let numbers: Vec<u64> = key.split(' ').filter_map(|word| word.parse().ok()).collect();
    let plan = Rng::new(numbers.first().copied().unwrap_or(0), 100 + numbers.get(1).copied().unwrap_or(0));
    let (text, answer) = Saying { number, rng: plan.clone() }.round(plan, round);
    told.texts.push(text);
    answer
}

/// One answer in the making.
struct Saying {
    /// Which answer of this upstream, so that no two are alike.
    number: u64,
    rng: Rng,
}

impl Saying {
    /// What is done in a round is the plan's; its words and commands are this answer's own.
    fn round(mut self, mut plan: Rng, round: u64) -> (String, Answer) {
        let rounds = plan.within(2..5);
        for _ in 0..=round {
            self.rng = Rng::new(plan.within(0..u64::MAX), round);
        }
        let mut answer = Answer::stream().delay(self.pause());
        if self.rng.percent(30) {
            answer = answer.think(&format!("thinking of {}", self.number));
        }
        let is_last = round + 1 >= rounds;
        let mut text = String::new();
        if is_last || self.rng.percent(60) {
            for word in 0..self.rng.within(2..9) {
                let delta = format!("answer {} word {word}, ", self.number);
                answer = answer.delta(&json!({"content": delta})).delay(self.pause());
                text.push_str(&delta);
            }
        }
        if is_last {
            return (text, answer.done());
        }
        let calls = if self.rng.percent(40) { self.rng.within(2..4) } else { 1 };
        for index in 0..calls {
            let call = self.call(index);
            answer = answer.call(&call).delay(self.pause());
        }
        if self.rng.percent(15) {
            let late = format!("late words of {}", self.number);
            answer = answer.say(&late);
            text.push_str(&late);
        }
        (text, answer.done())
    }

    fn call(&mut self, index: u64) -> Call {
        let effect = format!("effect-{}-{index}", self.number);
        let seconds = self.rng.within(0..60) as f64 / 1000.0;
        match self.rng.within(0..10) {
            0..3 => Call::new("Bash", json!({"command": format!("echo {effect} >> effects")})),
            3..7 => Call::new(
                "Bash",
                json!({"command": format!("echo before; sleep {seconds}; echo {effect} >> effects; sleep {seconds}; echo after")}),
            ),
            7 => Call::new("Write", json!({"file_path": format!("{effect}.txt"), "content": effect})),
            8 => Call::new("Read", json!({"file_path": "effects"})),
            _ => Call::new("Glob", json!({"pattern": "*"})),
        }
    }

    fn pause(&mut self) -> Duration {
        Duration::from_micros(self.rng.within(200..8_000))
    }
}

/// What a strict server would refuse: a call without its one result, or a result without its call.
fn malformed(messages: &[Value]) -> Option<&'static str> {
    let mut open: Vec<&Value> = Vec::new();
    for message in messages {
        if message["role"] == "tool" {
            let Some(at) = open.iter().position(|id| **id == message["tool_call_id"]) else {
                return Some("a result without a call");
            };
            open.remove(at);
        } else {
            if !open.is_empty() {
                return Some("a call without a result");
            }
            let calls = message["tool_calls"].as_array();
            open = calls.into_iter().flatten().map(|call| &call["id"]).collect();
        }
    }
    (!open.is_empty()).then_some("a call without a result")
}
