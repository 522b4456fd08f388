//! The nouns of Palisade: ids, sessions, events, items, scopes, usage, limits and error kinds.
//!
//! Pure: no I/O, no clock, no randomness, no async. Everything here may be named by any other room, and
//! nothing here may name one. Where a type is part of the wire, its serde form *is* the wire form.

pub mod audit;
pub mod credential;
pub mod error;
pub mod event;
pub mod id;
pub mod item;
pub mod limits;
pub mod lines;
pub mod money;
pub mod path;
pub mod prompt;
pub mod rate;
pub mod scope;
pub mod session;
pub mod usage;

pub use credential::{CredentialName, CredentialRule, Injection};
pub use error::{Error, ErrorKind, chain};
pub use event::Event;
pub use id::{SessionId, TenantName, TurnId};
pub use item::{Item, ToolCall, ToolOutput};
pub use money::{LedgerName, MicroCredits};
pub use path::WorkspacePath;
pub use prompt::{Prompt, ToolDefinition};
pub use scope::{Access, FileAccess};
pub use session::{Session, SessionDraft};
pub use usage::Usage;
