//! The first thing a new attempt of a turn does: makes the stream whole again, in the open. What was being said
//! when the server died is closed, an event names the attempt, and what follows is said anew.

use palisade_agent::Step;
use palisade_protocol::Event;
use palisade_protocol::event::RenderedEvent;

use super::{Driver, TurnEnd};

impl Driver {
    /// For an attempt after the first, once the items are loaded.
    pub(super) async fn reopen(&mut self) -> Result<(), TurnEnd> {
        let last = self.rooms.store.last_boundary(&self.job.start.turn).await?;
        let mut events = Vec::new();
        match last.as_ref().map(|event| event.kind.as_str()) {
            Some("text.start") => events.push(Event::TextStop {}),
            Some("thinking.start") => events.push(Event::ThinkingStop {}),
            Some("tool_use.start") => {
                let open = last.as_ref().and_then(call_id);
                // A call that the model had finished writing goes on in its block; one that it had not is lost.
                match palisade_agent::step(&self.job.keep.agent, &self.items) {
                    Step::RunTool(call) | Step::RequestTool(call) | Step::OutcomeUnknown(call)
                        if open.as_ref() == Some(&call.id) =>
                    {
                        self.open_call = open;
                    }
                    _ => events.push(Event::ToolStop {}),
                }
            }
            _ => {}
        }
        let after = self.job.start.next_seq.saturating_sub(1);
        events.push(Event::Attempt { attempt: self.job.start.generation, after });
        self.append(events, Vec::new()).await
    }
}

fn call_id(event: &RenderedEvent) -> Option<String> {
    let data: serde_json::Value = serde_json::from_str(&event.data).ok()?;
    data["id"].as_str().map(str::to_owned)
}
