//! The agent as pure functions: what comes next ([`step`]), what the model is asked ([`prompt`]), which tools it
//! has ([`tools`]) and what a skill says of itself ([`skill`]).
//!
//! No I/O, no clock, no randomness, no async. A crash is the same thing as a slow reader: load the items, ask
//! for the next step.

pub mod client_tools;
pub mod context;
pub mod output;
pub mod prompt;
mod quote;
pub mod screen;
pub mod skill;
pub mod step;
pub mod tools;
mod web_fetch;

pub use context::{Network, SessionContext, SkillEntry};
pub use prompt::prompt;
pub use step::{Step, step};
