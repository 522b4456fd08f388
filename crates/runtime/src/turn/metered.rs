//! What a turn's steps use: set aside before a model call where credits are hard, written down with the answer. What
//! it comes to is posted with the turn's end, by the store.

use palisade_agent::tools::{Action, action, name_of};
use palisade_protocol::audit::EventType;
use palisade_protocol::{Event, Item, Prompt, ToolCall, ToolOutput, Usage};
use palisade_store::{MeteredCall, SkillUse, StoreError};

use super::{Driver, TurnEnd};
use crate::clock::now;

impl Driver {
    /// Sets the next call's credits aside, where its tenant pays in advance.
    pub(super) async fn reserve(&self, prompt: &Prompt) -> Result<(), TurnEnd> {
        if !self.job.is_prepaid {
            return Ok(());
        }
        let estimate = self.rooms.live().billing.estimate(&self.job.session.model, prompt);
        let start = &self.job.start;
        match self.job.share.store.reserve(&start.turn, start.generation, estimate).await {
            Ok(()) => Ok(()),
            Err(StoreError::CreditsExhausted { available, needed, .. }) => {
                let message = format!(
                    "The turn stopped because credits ran out: {available} are left to spend and {needed} are needed for it to go on. What it did so far is kept; an operator can add credits."
                );
                Err(TurnEnd::Failed { code: "credits.exhausted".to_owned(), message })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Keeps a whole answer, and what it cost, in one commit.
    pub(super) async fn keep_answer(
        &mut self,
        events: Vec<Event>,
        item: Item,
        usage: Usage,
    ) -> Result<(), TurnEnd> {
        if usage.total_tokens == 0 {
            tracing::warn!(turn = %self.job.start.turn, model = %self.job.session.model, "the upstream told no usage: the call costs nothing");
        }
        let metered = self.metered(usage);
        self.log.append_metered(events, vec![item.clone()], metered).await?;
        self.items.push(item);
        Ok(())
    }

    /// The number is the answer's place in the turn, so that it is the same whoever drives it.
    pub(super) fn metered(&self, usage: Usage) -> MeteredCall {
        let start = self.items.iter().rposition(|item| matches!(item, Item::UserMessage { .. })).unwrap_or(0);
        let answers = |item: &&Item| matches!(item, Item::AssistantMessage { .. });
        let model = self.job.session.model.clone();
        MeteredCall {
            call: self.items[start..].iter().filter(answers).count() as i64 + 1,
            kind: EventType::Turn,
            cost: self.rooms.live().billing.cost(&model, &usage),
            model,
            usage,
            at: now(),
        }
    }

    /// Whether a call was the use of a skill that there is.
    pub(super) fn skill_use(&self, call: &ToolCall, output: &ToolOutput) -> Option<SkillUse> {
        if name_of(&call.name) != Some("Skill") {
            return None;
        }
        let Action::Skill { name } = action(call) else { return None };
        self.job.keep.skill_dirs.iter().find(|(known, _)| *known == name)?;
        let call_id = call.id.clone();
        Some(SkillUse { call_id, name, succeeded: !output.is_error, at: now() })
    }
}
