//! One turn's end of the log: numbers events, keeps them within their bound, and appends them with items.

use palisade_protocol::event::RenderedEvent;
use palisade_protocol::limits::EVENT_DATA_BYTES_MAX;
use palisade_protocol::{Event, Item, SessionId, TurnId};
use palisade_store::{Commit, MeteredCall, SkillUse, Store, StoreError};

use super::TurnStart;

/// Room for JSON escapes: a control character becomes six bytes.
const DELTA_BYTES_MAX: usize = EVENT_DATA_BYTES_MAX / 8;

pub(super) struct TurnLog {
    store: Store,
    session: SessionId,
    turn: TurnId,
    generation: i64,
    next_seq: u64,
}

impl TurnLog {
    pub(super) fn new(store: &Store, session: &SessionId, start: &TurnStart) -> Self {
        Self {
            store: store.clone(),
            session: session.clone(),
            turn: start.turn.clone(),
            generation: start.generation,
            next_seq: start.next_seq,
        }
    }

    /// Durable, and visible to every reader, when this returns. Must be awaited to its end: a number is used as
    /// soon as it is given out.
    pub(super) async fn append(&mut self, events: Vec<Event>, items: Vec<Item>) -> Result<(), StoreError> {
        self.append_all(events, items, None, None).await
    }

    /// The same for an answer, whole or broken off, with what it cost.
    pub(super) async fn append_metered(
        &mut self,
        events: Vec<Event>,
        items: Vec<Item>,
        metered: MeteredCall,
    ) -> Result<(), StoreError> {
        self.append_all(events, items, Some(metered), None).await
    }

    /// The same for a call's outcome, with the skill that it was.
    pub(super) async fn append_skill(
        &mut self,
        events: Vec<Event>,
        items: Vec<Item>,
        skill: Option<SkillUse>,
    ) -> Result<(), StoreError> {
        self.append_all(events, items, None, skill).await
    }

    async fn append_all(
        &mut self,
        events: Vec<Event>,
        items: Vec<Item>,
        metered: Option<MeteredCall>,
        skill: Option<SkillUse>,
    ) -> Result<(), StoreError> {
        if events.is_empty() && items.is_empty() && metered.is_none() {
            return Ok(());
        }
        let from = self.next_seq;
        let events: Vec<RenderedEvent> =
            events.into_iter().flat_map(bounded).map(|event| self.number(&event)).collect();
        let (session, turn) = (self.session.clone(), self.turn.clone());
        let generation = self.generation;
        let commit = Commit { session, turn, generation, events, items, metered, skill, end: None };
        let appended = self.store.commit(commit).await;
        if appended.is_err() {
            // Nothing of it was written: the numbers are free again.
            self.next_seq = from;
        }
        appended
    }

    fn number(&mut self, event: &Event) -> RenderedEvent {
        let rendered = event.render(self.next_seq);
        self.next_seq += 1;
        rendered
    }
}

/// Splits deltas that are longer than an event may be, so that nothing of them is cut.
fn bounded(event: Event) -> Vec<Event> {
    match event {
        Event::TextDelta { content } => split(content, |content| Event::TextDelta { content }),
        Event::ThinkingDelta { content } => split(content, |content| Event::ThinkingDelta { content }),
        Event::ToolInputDelta { content } => split(content, |content| Event::ToolInputDelta { content }),
        Event::ToolOutputDelta { id, content } => {
            split(content, |content| Event::ToolOutputDelta { id: id.clone(), content })
        }
        other => vec![other],
    }
}

fn split(mut content: String, event: impl Fn(String) -> Event) -> Vec<Event> {
    let mut events = Vec::with_capacity(1);
    while content.len() > DELTA_BYTES_MAX {
        let mut at = DELTA_BYTES_MAX;
        while !content.is_char_boundary(at) {
            at -= 1;
        }
        let rest = content.split_off(at);
        events.push(event(std::mem::replace(&mut content, rest)));
    }
    events.push(event(content));
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_delta_is_split_between_characters_and_loses_nothing() {
        let text = "é".repeat(DELTA_BYTES_MAX);
        let parts = bounded(Event::TextDelta { content: text.clone() });
        assert!(parts.len() > 1);
        let mut whole = String::new();
        for part in parts {
            assert!(part.render(0).data.len() <= EVENT_DATA_BYTES_MAX);
            if let Event::TextDelta { content } = part {
                whole.push_str(&content);
            }
        }
        assert_eq!(whole, text);
    }
}
