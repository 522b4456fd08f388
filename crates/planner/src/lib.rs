//! The built-in demo planner: a deterministic, clearly labelled stand-in for a model, for a server that has none
//! configured. It speaks the chat-completions wire, so that everything around it is the production path.
//!
//! [`plan`] is pure: a request in, an answer out, the same bytes for the same request. It sees nothing but the
//! request, remembers nothing between requests, and invents no facts: what it cannot know it leaves to be filled
//! in and says so.

mod answer;
mod brief;
mod catalog;
mod chart;
mod chores;
mod conversation;
mod deck;
mod drive;
mod edit;
mod error;
mod figures;
mod json_path;
mod lexer;
mod mentions;
mod outline;
mod places;
mod prompts;
mod repair;
mod report;
mod server;
mod skill_doc;
mod sources;
mod table;
mod text;
mod wire;
mod wish;

pub use answer::{Answer, Call};
pub use error::PlannerError;
pub use server::{MODEL_NAME, serve};
pub use wire::{ChatRequest, completion, frames};

use conversation::Conversation;
use wish::Wish;

/// The first sentence of every turn: nobody shall take this for a model.
pub const LABEL: &str = "No model is configured, so this is Palisade's built-in demo planner, a fixed program and not a \
language model; to use a real one, set `[[upstream]]` and `[model.\"…\"]` in palisade.toml (see the README).";

/// The answer to a request.
pub fn plan(request: &ChatRequest) -> Answer {
    let conversation = Conversation::of(request);
    let mut answer = match wish::of(&conversation) {
        Wish::Deck(brief) => drive::deck(&conversation, &brief),
        Wish::Edit(edit) => drive::edit(&conversation, &edit),
        Wish::Chore(chore) => chores::carry_out(&conversation, &chore),
        Wish::Refuse(reason) => Answer::say(reason),
    };
    if conversation.turn.is_empty() {
        answer.text = format!("{LABEL}\n\n{}", answer.text);
    }
    answer.number_calls(conversation.fingerprint);
    answer
}
