//! The first thing a new attempt of a turn does: makes the stream whole again, in the open. What was being said
//! when the server died is closed, an event names the attempt, and what follows is said anew.
//!
//! `after` is the last event of the latest finished step, however many attempts have died since: every block that
//! stands closed after it belongs to the interrupted step, and a reader may drop it, for the new attempt says that
//! step from its beginning. A block that is still open has begun in a finished step and goes on. So nothing here
//! may be written with an item: it would count as a finished step, and a second crash would name a later `after`,
//! behind the broken words that the first attempt has left.

use palisade_agent::Step;
use palisade_protocol::event::RenderedEvent;
use palisade_protocol::{Event, Item};

use super::{Driver, TurnEnd};

impl Driver {
    /// For an attempt after the first, once the items are loaded.
    pub(super) async fn reopen(&mut self) -> Result<(), TurnEnd> {
        let last = self.job.share.store.last_boundary(&self.job.start.turn).await?;
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
        self.late_text = self.late_text_of_latest().await?;
        events.push(Event::Attempt { attempt: self.job.start.generation, after: self.job.start.step_seq });
        self.append(events, Vec::new()).await
    }

    /// What the latest answer said after it had begun its calls. It is shown at the beginning of the step that
    /// follows the calls, so that readers who have seen it see it again with that step.
    async fn late_text_of_latest(&self) -> Result<String, TurnEnd> {
        let said = |item: &&Item| matches!(item, Item::AssistantMessage { .. } | Item::UserMessage { .. });
        let Some(Item::AssistantMessage { text, calls, .. }) = self.items.iter().rfind(said) else {
            return Ok(String::new());
        };
        let Some(first) = calls.first().filter(|_| !text.is_empty()) else { return Ok(String::new()) };
        let events = self.job.share.store.texts_and_marks(&self.job.start.turn).await?;
        Ok(late_text(text, &first.id, &events))
    }
}

/// The part of an answer's text that does not stand before its first call.
fn late_text(text: &str, first_call: &str, events: &[RenderedEvent]) -> String {
    let begins = |event: &RenderedEvent| {
        event.kind == "tool_use.start" && call_id(event).as_deref() == Some(first_call)
    };
    let Some(call) = events.iter().rposition(begins) else { return String::new() };
    let before = &events[..call];
    let start = before.iter().rposition(|event| event.kind != "text.delta").map_or(0, |mark| mark + 1);
    let before = joined(&before[start..]);
    // Late words of the answer before may stand there, too.
    let early = (0..=text.len()).rev().filter(|end| text.is_char_boundary(*end));
    let early = early.map(|end| &text[..end]).find(|early| before.ends_with(early)).unwrap_or_default();
    text[early.len()..].to_owned()
}

fn joined(events: &[RenderedEvent]) -> String {
    let deltas = events.iter().filter(|event| event.kind == "text.delta");
    let contents = deltas.filter_map(|event| serde_json::from_str::<serde_json::Value>(&event.data).ok());
    contents.filter_map(|data| data["content"].as_str().map(str::to_owned)).collect()
}

fn call_id(event: &RenderedEvent) -> Option<String> {
    let data: serde_json::Value = serde_json::from_str(&event.data).ok()?;
    data["id"].as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_after_the_calls_is_told_from_text_before_them() {
        let text = |content: &str| Event::TextDelta { content: content.into() };
        let start = |id: &str| Event::ToolStart { name: "Bash".into(), id: id.into() };
        let result = |id: &str| Event::ToolResult {
            id: id.into(),
            content: String::new(),
            is_error: false,
            code: None,
        };
        let attempt = || Event::Attempt { attempt: 2, after: 0 };
        for (name, events, expected) in [
            ("nothing was late", vec![text("early and"), text(" late"), start("1")], ""),
            ("the call runs", vec![text("early"), start("1")], " and late"),
            ("nothing was early", vec![start("1")], "early and late"),
            (
                "it was shown in the step that was interrupted",
                vec![text("early"), start("1"), result("1"), text(" and late"), text("next")],
                " and late",
            ),
            ("it was not yet", vec![text("early"), start("1"), result("1"), attempt()], " and late"),
            (
                "late words of the answer before",
                vec![start("0"), result("0"), text("and more"), text("early"), start("1")],
                " and late",
            ),
            (
                "an answer was cut before",
                vec![text("ear"), attempt(), text("early"), start("1")],
                " and late",
            ),
            (
                "there was a call before",
                vec![text("x"), start("0"), result("0"), text("early"), start("1")],
                " and late",
            ),
        ] {
            let events: Vec<RenderedEvent> = events.iter().map(|event| event.render(0)).collect();
            assert_eq!(late_text("early and late", "1", &events), expected, "{name}");
        }
    }
}
