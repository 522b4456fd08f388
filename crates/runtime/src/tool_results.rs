//! A client answers calls of its own tools.

use palisade_protocol::limits::TOOL_OUTPUT_BYTES_MAX;
use palisade_protocol::{Error, ErrorKind, Item, SessionId};
use palisade_store::{ClientAnswer, StoreError, TurnState};

use crate::{OpCtx, Runtime};

/// Answers in one request.
const ANSWERS_MAX: usize = palisade_protocol::limits::CALLS_PER_ANSWER_MAX;

impl Runtime {
    /// Takes answers for the session's running turn: all of them or none. They are durable when this returns.
    pub async fn answer_calls(
        &self,
        ctx: &OpCtx,
        id: &SessionId,
        answers: Vec<ClientAnswer>,
    ) -> Result<(), Error> {
        if !(1..=ANSWERS_MAX).contains(&answers.len()) {
            let message = format!("from 1 to {ANSWERS_MAX} results are taken at once");
            return Err(Error::new(ErrorKind::Malformed, "tool.bad_results", message));
        }
        let session = self.rooms.session(ctx, id).await?;
        let items = self.rooms.store.items(id).await?;
        for answer in &answers {
            check(&items, &answer.call_id)?;
        }
        // A call that was asked for belongs to the latest turn; if that has ended, so has the call.
        let turn = session.last_response_id.ok_or_else(|| unknown(&answers[0].call_id))?;
        let runs = self.rooms.store.turn(&turn).await?.is_some_and(|turn| turn.state == TurnState::Running);
        if !runs {
            return Err(unknown(&answers[0].call_id));
        }
        let cut = |answer: ClientAnswer| ClientAnswer {
            content: palisade_agent::output::cut_middle(&answer.content, TOOL_OUTPUT_BYTES_MAX),
            ..answer
        };
        let first = answers[0].call_id.clone();
        match self.rooms.store.answer_calls(&turn, answers.into_iter().map(cut).collect()).await {
            // It ended while we were looking.
            Err(StoreError::Fenced(_)) => return Err(unknown(&first)),
            kept => kept?,
        }
        self.rooms.turns.answered(&turn);
        Ok(())
    }
}

/// The latest thing that is known of a call decides. One that was asked for in a turn that has ended waits for
/// nobody any more.
fn check(items: &[Item], call: &str) -> Result<(), Error> {
    let mut turn_ended = false;
    for item in items.iter().rev() {
        match item {
            Item::TurnEnded { .. } => turn_ended = true,
            Item::ToolFinished { call_id, .. } if call_id == call => {
                let message = format!("the call {call:?} was answered before");
                return Err(Error::new(ErrorKind::Conflict, "tool.answered", message));
            }
            Item::ToolRequested { call_id, .. } if call_id == call && !turn_ended => return Ok(()),
            Item::ToolRequested { call_id, .. } if call_id == call => break,
            _ => {}
        }
    }
    Err(unknown(call))
}

fn unknown(call: &str) -> Error {
    Error::new(
        ErrorKind::NotFound,
        "tool.unknown_call",
        format!("no call {call:?} waits for an answer in this session"),
    )
}
