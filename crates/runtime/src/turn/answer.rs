//! One answer of a model on its way to the log: events for the readers as it comes, and one item in the end.
//!
//! Blocks never interleave (decision 10), whatever the upstream does: the first call's arguments stream live,
//! those of later calls wait for their turn, and text that comes after a call has begun waits for the calls.

use palisade_inference::ModelEvent;
use palisade_protocol::{Event, Item, ToolCall, Usage};

/// What has come so far.
#[derive(Debug, Default)]
pub(super) struct Answer {
    text: String,
    reasoning: String,
    calls: Vec<(usize, ToolCall)>,
    usage: Usage,
    open: Block,
    late_text: String,
}

/// The block that readers see as open.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
enum Block {
    #[default]
    None,
    Thinking,
    Text,
    FirstCall,
}

/// A whole answer.
pub(super) struct Finished {
    pub(super) item: Item,
    /// As the upstream counted.
    pub(super) usage: Usage,
    /// The first call, whose block is open and has its whole input.
    pub(super) open_call: Option<ToolCall>,
    /// To be shown once the calls are done.
    pub(super) late_text: String,
}

impl Answer {
    /// Takes one event of the model; what readers should see of it is appended to `events`.
    pub(super) fn take(&mut self, event: ModelEvent, events: &mut Vec<Event>) {
        match event {
            ModelEvent::ReasoningDelta(content) => {
                self.reasoning.push_str(&content);
                // Thinking that comes after a call has begun stays in the item.
                if self.open != Block::FirstCall {
                    self.switch(Block::Thinking, events);
                    push_delta(events, Event::ThinkingDelta { content });
                }
            }
            ModelEvent::TextDelta(content) => {
                self.text.push_str(&content);
                if self.open == Block::FirstCall {
                    self.late_text.push_str(&content);
                } else {
                    self.switch(Block::Text, events);
                    push_delta(events, Event::TextDelta { content });
                }
            }
            ModelEvent::CallStart { index, id, name } => {
                if self.calls.is_empty() {
                    self.switch(Block::FirstCall, events);
                    events.push(Event::ToolStart { name: name.clone(), id: id.clone() });
                }
                self.calls.push((index, ToolCall { id, name, arguments: String::new() }));
            }
            ModelEvent::CallDelta { index, arguments } => {
                let first = self.calls.first().is_some_and(|(first, _)| *first == index);
                if let Some((_, call)) = self.calls.iter_mut().find(|(known, _)| *known == index) {
                    call.arguments.push_str(&arguments);
                }
                if first {
                    push_delta(events, Event::ToolInputDelta { content: arguments });
                }
            }
            ModelEvent::Usage(usage) => self.usage = usage,
            ModelEvent::Done { .. } => {}
        }
    }

    /// Closes what can be closed, and hands over the item.
    pub(super) fn finish(mut self, events: &mut Vec<Event>) -> Finished {
        if self.open != Block::FirstCall {
            self.switch(Block::None, events);
        }
        let calls: Vec<ToolCall> = self.calls.into_iter().map(|(_, call)| call).collect();
        let open_call = calls.first().cloned();
        let item =
            Item::AssistantMessage { text: self.text, reasoning: self.reasoning, calls, usage: self.usage };
        Finished { item, usage: self.usage, open_call, late_text: self.late_text }
    }

    /// Closes the open block of an answer that broke off; what it had used, as far as the upstream has said.
    pub(super) fn break_off(mut self, events: &mut Vec<Event>) -> Usage {
        self.switch(Block::None, events);
        self.usage
    }

    fn switch(&mut self, to: Block, events: &mut Vec<Event>) {
        if self.open == to {
            return;
        }
        match self.open {
            Block::None => {}
            Block::Thinking => events.push(Event::ThinkingStop {}),
            Block::Text => events.push(Event::TextStop {}),
            Block::FirstCall => events.push(Event::ToolStop {}),
        }
        match to {
            Block::None | Block::FirstCall => {}
            Block::Thinking => events.push(Event::ThinkingStart {}),
            Block::Text => events.push(Event::TextStart {}),
        }
        self.open = to;
    }
}

/// Deltas of one kind that arrived together become one event.
fn push_delta(events: &mut Vec<Event>, delta: Event) {
    match (events.last_mut(), delta) {
        (Some(Event::TextDelta { content: last }), Event::TextDelta { content })
        | (Some(Event::ThinkingDelta { content: last }), Event::ThinkingDelta { content })
        | (Some(Event::ToolInputDelta { content: last }), Event::ToolInputDelta { content }) => {
            last.push_str(&content)
        }
        (_, delta) => events.push(delta),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(content: &str) -> ModelEvent {
        ModelEvent::TextDelta(content.into())
    }

    fn start(index: usize) -> ModelEvent {
        ModelEvent::CallStart { index, id: format!("call_{index}"), name: "Bash".into() }
    }

    fn arguments(index: usize, arguments: &str) -> ModelEvent {
        ModelEvent::CallDelta { index, arguments: arguments.into() }
    }

    fn kinds(events: &[Event]) -> Vec<String> {
        events.iter().map(|event| event.render(0).kind).collect()
    }

    #[test]
    fn blocks_open_and_close_in_order() {
        let (mut answer, mut events) = (Answer::default(), Vec::new());
        for event in
            [ModelEvent::ReasoningDelta("hm".into()), text("a"), text("b"), start(0), arguments(0, "{}")]
        {
            answer.take(event, &mut events);
        }
        let finished = answer.finish(&mut events);
        assert_eq!(
            kinds(&events),
            [
                "thinking.start",
                "thinking.delta",
                "thinking.stop",
                "text.start",
                "text.delta",
                "text.stop",
                "tool_use.start",
                "tool_use.input_delta",
            ]
        );
        assert_eq!(finished.open_call.unwrap().arguments, "{}");
    }

    #[test]
    fn interleaved_calls_and_late_text_wait_for_their_turn() {
        let (mut answer, mut events) = (Answer::default(), Vec::new());
        for event in [
            start(0),
            arguments(0, "{\"a\""),
            start(1),
            arguments(1, "{\"b\""),
            arguments(0, ":1}"),
            text("late"),
            arguments(1, ":2}"),
        ] {
            answer.take(event, &mut events);
        }
        let finished = answer.finish(&mut events);
        assert_eq!(
            kinds(&events),
            ["tool_use.start", "tool_use.input_delta"],
            "what arrived together is one event"
        );
        assert_eq!(finished.late_text, "late");
        let Item::AssistantMessage { calls, text, .. } = finished.item else { panic!("not an answer") };
        assert_eq!(
            calls.iter().map(|c| c.arguments.as_str()).collect::<Vec<_>>(),
            ["{\"a\":1}", "{\"b\":2}"]
        );
        assert_eq!(text, "late");
    }

    #[test]
    fn an_empty_answer_has_no_blocks() {
        let mut events = Vec::new();
        let finished = Answer::default().finish(&mut events);
        assert!(events.is_empty() && finished.open_call.is_none());
    }
}
