//! One model call: the answer streams into the log as it comes, and becomes an item when it is whole.

use futures_util::{FutureExt as _, StreamExt as _};
use palisade_inference::{CallIds, InferenceError};
use palisade_protocol::{Event, Prompt};

use super::answer::{Answer, Finished};
use super::{Driver, TurnEnd};

/// Model events that may share one commit: what has already arrived when the log is ready for more.
const EVENTS_PER_COMMIT_MAX: usize = 256;

impl Driver {
    /// Asks the model. The first call it makes has its block open already when this returns.
    pub(super) async fn call_model(&mut self) -> Result<(), TurnEnd> {
        let prompt = palisade_agent::prompt(&self.job.keep.agent, &self.items);
        self.reserve(&prompt).await?;
        self.rooms.metrics.model_called(&self.job.session.model);
        let Finished { open_call, late_text, .. } = self.stream_answer(prompt).await?;
        self.open_call = open_call.map(|call| call.id);
        self.late_text = late_text;
        Ok(())
    }

    async fn stream_answer(&mut self, prompt: Prompt) -> Result<Finished, TurnEnd> {
        // Fused, because it is looked at once more after its end.
        let mut stream =
            self.rooms.router.stream(&self.job.session.model, &prompt, self.call_ids(&prompt)).fuse();
        let mut answer = Answer::default();
        let mut events = Vec::new();
        loop {
            match self.or_interrupted(stream.next()).await? {
                Some(Ok(event)) => answer.take(event, &mut events),
                Some(Err(error)) => return self.model_failed(error, answer, events).await,
                None => break,
            }
            // Whatever else has arrived in the meantime shares the commit.
            let mut broken = None;
            for _ in 0..EVENTS_PER_COMMIT_MAX {
                match stream.next().now_or_never() {
                    Some(Some(Ok(event))) => answer.take(event, &mut events),
                    Some(Some(Err(error))) => {
                        broken = Some(error);
                        break;
                    }
                    Some(None) | None => break,
                }
            }
            if let Some(error) = broken {
                return self.model_failed(error, answer, events).await;
            }
            self.append(std::mem::take(&mut events), Vec::new()).await?;
        }
        let finished = answer.finish(&mut events);
        self.keep_answer(events, finished.item.clone(), finished.usage).await?;
        Ok(finished)
    }

    /// An answer that an earlier attempt did not live to keep may have shown a call: none of the new attempt may
    /// have its id on the same stream. Which that was only the log knows, so the upstream's ids are not used then.
    fn call_ids(&self, prompt: &Prompt) -> CallIds {
        if self.job.start.generation > 1 { CallIds::ours() } else { CallIds::beside(&prompt.messages) }
    }

    /// What was streamed stays for the readers; the conversation is as it was before the call. What the upstream has
    /// counted it charges for, so it is paid here as well.
    async fn model_failed(
        &mut self,
        error: InferenceError,
        answer: Answer,
        mut events: Vec<Event>,
    ) -> Result<Finished, TurnEnd> {
        tracing::warn!(turn = %self.job.start.turn, code = error.code(), error = %palisade_protocol::chain(&error), "a model call failed");
        self.rooms.metrics.model_failed(&self.job.session.model, error.code());
        let usage = answer.break_off(&mut events);
        if usage.total_tokens > 0 {
            self.log.append_metered(events, Vec::new(), self.metered(usage)).await?;
        } else {
            self.append(events, Vec::new()).await?;
        }
        Err(TurnEnd::Failed { code: error.code().to_owned(), message: error.to_string() })
    }
}
