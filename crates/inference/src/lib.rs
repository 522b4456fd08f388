//! The model catalog, the upstream dialects, streams in, usage out.
//!
//! This room knows neither keys nor sockets: it builds a call, names the credential that belongs to it, and
//! hands both to a [`Transport`]. What comes back it reads as bytes, and what it hands on are [`ModelEvent`]s,
//! the same whatever the upstream's habits.

mod call_id;
mod catalog;
mod error;
mod event;
mod head;
pub mod openai_chat;
mod router;
mod sse;
mod transport;

pub use call_id::CallIds;
pub use catalog::{Catalog, CatalogError, Dialect, Model, ModelConfig, Price, Upstream, UpstreamConfig};
pub use error::{InferenceError, Tried, WaitedFor};
pub use event::{FinishReason, ModelEvent};
pub use router::{ModelStream, Router, Timeouts};
pub use transport::{
    CredentialRef, Transport, TransportError, TransportFault, UpstreamCall, UpstreamResponse,
};
