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
        // A call that waits for an answer belongs to the latest turn; if that has ended, so has the call.
        let turn = session.last_response_id.ok_or_else(|| unknown(&answers[0].call_id))?;
        let store = self.rooms.store_of(ctx.tenant());
        let runs = store.turn(&turn).await?.is_some_and(|turn| turn.state == TurnState::Running);
        let of_turn = store.items_of_turn(id, &turn).await?;
        for answer in &answers {
            if runs && is_requested(&of_turn, &answer.call_id) {
                continue;
            }
            // Only to tell a call that was answered from one that never was.
            return Err(why_not(&store.items(id).await?, &answer.call_id));
        }
        let cut = |answer: ClientAnswer| ClientAnswer {
            content: palisade_agent::output::cut_middle(&answer.content, TOOL_OUTPUT_BYTES_MAX),
            ..answer
        };
        let first = answers[0].call_id.clone();
        match store.answer_calls(&turn, answers.into_iter().map(cut).collect()).await {
            // It ended while we were looking.
            Err(StoreError::Fenced(_)) => return Err(unknown(&first)),
            kept => kept?,
        }
        self.rooms.turns.answered(&turn);
        Ok(())
    }
}

/// Whether the call waits for an answer: the latest thing that is known of it decides.
fn is_requested(items: &[Item], call: &str) -> bool {
    let latest = items.iter().rev().find_map(|item| match item {
        Item::ToolFinished { call_id, .. } if call_id == call => Some(false),
        Item::ToolRequested { call_id, .. } if call_id == call => Some(true),
        _ => None,
    });
    latest == Some(true)
}

/// Of a call that waits for nobody.
fn why_not(items: &[Item], call: &str) -> Error {
    let is_answered =
        items.iter().any(|item| matches!(item, Item::ToolFinished { call_id, .. } if call_id == call));
    if !is_answered {
        return unknown(call);
    }
    let message = format!("the call {call:?} was answered before");
    Error::new(ErrorKind::Conflict, "tool.answered", message)
}

fn unknown(call: &str) -> Error {
    Error::new(
        ErrorKind::NotFound,
        "tool.unknown_call",
        format!("no call {call:?} waits for an answer in this session"),
    )
}
