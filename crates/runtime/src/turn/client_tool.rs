//! Tools that the client runs: shown to it, then awaited. Its answers wait in the store, so that neither a restart
//! of ours nor the moment at which they come matters.

use std::time::Duration;

use palisade_protocol::{Event, Item, ToolCall, ToolOutput};
use palisade_store::{ClientAnswer, StoreError};

use super::{Driver, TurnEnd};
use crate::clock::now;

impl Driver {
    /// Shows a call to the client; its block is closed, because nothing of it runs here.
    pub(super) async fn request_tool(&mut self, call: ToolCall) -> Result<(), TurnEnd> {
        let mut events = self.opening(&call);
        events.push(Event::ToolStop {});
        if let Some(refused) = palisade_agent::tools::too_large(&call) {
            return self.tool_finished(&call, refused, events).await;
        }
        events.push(Event::ToolRequested {
            call_id: call.id.clone(),
            name: call.name.clone(),
            arguments: call.arguments.clone(),
        });
        self.rooms.metrics.tool_called(&call.name);
        self.append(events, vec![Item::ToolRequested { call_id: call.id, at: now() }]).await
    }

    /// Waits until at least one of these calls is answered, or its time is over, and takes up what there is.
    pub(super) async fn await_client(&mut self, calls: &[ToolCall]) -> Result<(), TurnEnd> {
        loop {
            // Before the look, so that an answer that comes after it wakes us.
            let answered = self.job.answered.clone();
            let wake = answered.notified();
            if self.take_answers(calls).await? {
                return Ok(());
            }
            let soonest = calls.iter().map(|call| self.time_left(call)).min().unwrap_or_default();
            if soonest.is_zero() {
                return self.give_up_waiting(calls).await;
            }
            // Whoever is woken by the time looks once more before giving up.
            let _ = self.or_interrupted(tokio::time::timeout(soonest, wake)).await?;
        }
    }

    async fn take_answers(&mut self, calls: &[ToolCall]) -> Result<bool, TurnEnd> {
        let answers = self.job.share.store.client_answers(&self.job.start.turn).await?;
        let mut taken = false;
        for answer in answers {
            if let Some(call) = calls.iter().find(|call| call.id == answer.call_id) {
                let output = ToolOutput { content: answer.content, is_error: answer.is_error, code: None };
                self.tool_finished(call, output, Vec::new()).await?;
                taken = true;
            }
        }
        Ok(taken)
    }

    /// Answers in the client's stead, and in the same place, so that of the two only one can be in time.
    async fn give_up_waiting(&mut self, calls: &[ToolCall]) -> Result<(), TurnEnd> {
        for call in calls.iter().filter(|call| self.time_left(call).is_zero()).cloned().collect::<Vec<_>>() {
            let seconds = self.rooms.live().client_tool_timeout.as_secs();
            let content = format!("The client did not answer this call within {seconds} s.");
            let ours = ClientAnswer { call_id: call.id.clone(), content: content.clone(), is_error: true };
            match self.job.share.store.answer_calls(&self.job.start.turn, vec![ours]).await {
                Ok(()) => {
                    let output = ToolOutput::error("tool.client_timeout", content);
                    self.tool_finished(&call, output, Vec::new()).await?;
                }
                // It was just in time after all: the next look takes it up.
                Err(StoreError::AnsweredTwice(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn time_left(&self, call: &ToolCall) -> Duration {
        let asked = self.items.iter().rev().find_map(|item| match item {
            Item::ToolRequested { call_id, at } if *call_id == call.id => Some(*at),
            _ => None,
        });
        let waited = Duration::try_from_secs_f64(now() - asked.unwrap_or_default()).unwrap_or_default();
        self.rooms.live().client_tool_timeout.saturating_sub(waited)
    }
}
