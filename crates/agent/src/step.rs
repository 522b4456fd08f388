//! What comes next. A function of the items alone, so that it gives the same answer after a crash as before.

use std::collections::HashSet;

use palisade_protocol::limits::MODEL_CALLS_PER_TURN_MAX;
use palisade_protocol::{Item, ToolCall};

use crate::{SessionContext, tools};

/// The next thing to do in the current turn.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Ask the model.
    CallModel,
    /// Write down the intent, run the call, write down the outcome.
    RunTool(ToolCall),
    /// The call was started, and nobody knows what came of it: tell the model so, never repeat it in silence.
    OutcomeUnknown(ToolCall),
    /// Show the call to the client, who runs this tool.
    RequestTool(ToolCall),
    /// Wait for the client's answer to any of these calls.
    AwaitClient(Vec<ToolCall>),
    /// The model has answered and asked for nothing more.
    Finish,
    /// The turn has reached the bound of the loop.
    TooManyModelCalls,
    /// No turn is open: there is nothing to do.
    Idle,
}

/// Looks at the open turn's items, which are those after the last end of a turn.
pub fn step(context: &SessionContext, items: &[Item]) -> Step {
    let turn = open_turn(items);
    if turn.is_empty() {
        return Step::Idle;
    }
    let Some((last_answer, calls)) = turn.iter().enumerate().rev().find_map(|(at, item)| match item {
        Item::AssistantMessage { calls, .. } => Some((at, calls)),
        _ => None,
    }) else {
        return Step::CallModel;
    };
    let since = &turn[last_answer..];
    let finished = ids(since, |item| match item {
        Item::ToolFinished { call_id, .. } => Some(call_id),
        _ => None,
    });
    let started = ids(since, |item| match item {
        Item::ToolStarted { call_id } => Some(call_id),
        _ => None,
    });
    let requested = ids(since, |item| match item {
        Item::ToolRequested { call_id, .. } => Some(call_id),
        _ => None,
    });
    let open: Vec<&ToolCall> = calls.iter().filter(|call| !finished.contains(call.id.as_str())).collect();
    // In the model's order; a call that waits for the client does not hold up those after it.
    match open.iter().find(|call| !requested.contains(call.id.as_str())) {
        Some(call) if context.is_client_tool(&call.name) => Step::RequestTool((*call).clone()),
        Some(call) if started.contains(call.id.as_str()) && !tools::is_read_only(&call.name) => {
            Step::OutcomeUnknown((*call).clone())
        }
        Some(call) => Step::RunTool((*call).clone()),
        None if !open.is_empty() => Step::AwaitClient(open.into_iter().cloned().collect()),
        None if calls.is_empty() => Step::Finish,
        None if model_calls(turn) >= MODEL_CALLS_PER_TURN_MAX => Step::TooManyModelCalls,
        None => Step::CallModel,
    }
}

fn open_turn(items: &[Item]) -> &[Item] {
    let start =
        items.iter().rposition(|item| matches!(item, Item::TurnEnded { .. })).map_or(0, |end| end + 1);
    &items[start..]
}

fn model_calls(turn: &[Item]) -> usize {
    turn.iter().filter(|item| matches!(item, Item::AssistantMessage { .. })).count()
}

fn ids<'a>(items: &'a [Item], id: impl Fn(&'a Item) -> Option<&'a String>) -> HashSet<&'a str> {
    items.iter().filter_map(id).map(String::as_str).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use palisade_protocol::item::TurnOutcome;
    use palisade_protocol::{ToolOutput, Usage};
    use proptest::prelude::*;

    fn user() -> Item {
        Item::UserMessage { text: "do it".into() }
    }

    fn call(id: &str, name: &str) -> ToolCall {
        ToolCall { id: id.into(), name: name.into(), arguments: "{}".into() }
    }

    fn answer(calls: &[ToolCall]) -> Item {
        Item::AssistantMessage {
            text: String::new(),
            reasoning: String::new(),
            calls: calls.to_vec(),
            usage: Usage::default(),
        }
    }

    fn started(id: &str) -> Item {
        Item::ToolStarted { call_id: id.into() }
    }

    fn finished(id: &str) -> Item {
        Item::ToolFinished { call_id: id.into(), output: ToolOutput::ok("") }
    }

    fn requested(id: &str) -> Item {
        Item::ToolRequested { call_id: id.into(), at: 0.0 }
    }

    /// The client runs `ask`.
    fn context() -> SessionContext {
        let parameters = serde_json::json!({"type": "object"});
        let ask =
            palisade_protocol::ToolDefinition { name: "ask".into(), description: String::new(), parameters };
        SessionContext { client_tools: vec![ask], ..SessionContext::default() }
    }

    fn ended() -> Item {
        Item::TurnEnded { outcome: TurnOutcome::Completed }
    }

    #[test]
    fn the_table() {
        let (bash, read) = (call("1", "Bash"), call("2", "Read"));
        let both = answer(&[bash.clone(), read.clone()]);
        let cases: Vec<(&str, Vec<Item>, Step)> = vec![
            ("nothing yet", vec![], Step::Idle),
            ("a message", vec![user()], Step::CallModel),
            ("an answer without calls", vec![user(), answer(&[])], Step::Finish),
            ("two calls: the first", vec![user(), both.clone()], Step::RunTool(bash.clone())),
            (
                "the first is done",
                vec![user(), both.clone(), started("1"), finished("1")],
                Step::RunTool(read.clone()),
            ),
            (
                "both are done",
                vec![user(), both.clone(), started("1"), finished("1"), started("2"), finished("2")],
                Step::CallModel,
            ),
            (
                "a command was interrupted",
                vec![user(), both.clone(), started("1")],
                Step::OutcomeUnknown(bash.clone()),
            ),
            (
                "a read was interrupted",
                vec![user(), both.clone(), started("1"), finished("1"), started("2")],
                Step::RunTool(read),
            ),
            ("an ended turn", vec![user(), both.clone(), started("1"), ended()], Step::Idle),
            ("the turn after one that ended early", vec![user(), both, ended(), user()], Step::CallModel),
            (
                "an id used again in a later turn",
                vec![
                    user(),
                    answer(std::slice::from_ref(&bash)),
                    started("1"),
                    finished("1"),
                    answer(&[]),
                    ended(),
                    user(),
                    answer(std::slice::from_ref(&bash)),
                ],
                Step::RunTool(bash),
            ),
        ];
        for (name, items, expected) in cases {
            assert_eq!(step(&context(), &items), expected, "{name}");
        }
    }

    #[test]
    fn client_tools_do_not_hold_up_the_others_and_are_awaited_together() {
        let (one, bash, two) = (call("1", "ask"), call("2", "Bash"), call("3", "ask"));
        let mut items = vec![user(), answer(&[one.clone(), bash.clone(), two.clone()])];
        let mut next = |item: Option<Item>| {
            items.extend(item);
            step(&context(), &items)
        };
        assert_eq!(next(None), Step::RequestTool(one.clone()));
        assert_eq!(next(Some(requested("1"))), Step::RunTool(bash));
        next(Some(started("2")));
        assert_eq!(next(Some(finished("2"))), Step::RequestTool(two.clone()));
        assert_eq!(next(Some(requested("3"))), Step::AwaitClient(vec![one.clone(), two]));
        assert_eq!(next(Some(finished("3"))), Step::AwaitClient(vec![one]));
        assert_eq!(next(Some(finished("1"))), Step::CallModel);
    }

    #[test]
    fn the_loop_is_bounded() {
        let mut items = vec![user()];
        for n in 0..MODEL_CALLS_PER_TURN_MAX {
            let id = n.to_string();
            items.extend([answer(&[call(&id, "Bash")]), started(&id), finished(&id)]);
        }
        assert_eq!(step(&context(), &items), Step::TooManyModelCalls);
    }

    proptest! {
        /// Whatever prefix of a legal conversation survives, the next step is legal: it names a call that the
        /// model made and nobody answered, or asks the model, or is done.
        #[test]
        fn any_prefix_leads_to_a_legal_step(answers in prop::collection::vec(0..3usize, 1..5), cut in 0..40usize) {
            let mut items = vec![user()];
            for (round, calls) in answers.iter().enumerate() {
                let made: Vec<_> = (0..*calls).map(|n| call(&format!("{round}-{n}"), "Bash")).collect();
                items.push(answer(&made));
                for one in &made {
                    items.extend([started(&one.id), finished(&one.id)]);
                }
            }
            items.truncate(cut);
            let answered = |id: &str| items.contains(&finished(id));
            let begun = |id: &str| items.contains(&started(id));
            match step(&context(), &items) {
                Step::RunTool(next) => prop_assert!(!answered(&next.id) && !begun(&next.id)),
                Step::OutcomeUnknown(next) => prop_assert!(!answered(&next.id) && begun(&next.id)),
                Step::Idle => prop_assert!(items.is_empty()),
                Step::Finish => {
                    let done = matches!(items.last(), Some(Item::AssistantMessage { calls, .. }) if calls.is_empty());
                    prop_assert!(done);
                }
                Step::CallModel => {
                    let open = matches!(items.last(), Some(Item::ToolStarted { .. }));
                    prop_assert!(!open);
                }
                Step::RequestTool(_) | Step::AwaitClient(_) => prop_assert!(false, "no client tool was called"),
                Step::TooManyModelCalls => prop_assert!(false, "far from the bound"),
            }
        }
    }
}
