//! The whole server from outside: the real binary, a real sandbox, a scripted upstream, plain HTTP.
//!
//! One program on purpose: it links once, and its tests run side by side, each with a server of its own.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test tool: what fails here fails the test")]

mod attempts;
mod bad_input;
mod bodies;
mod client_tools;
mod clock;
mod connections;
mod conversation;
mod cookbook;
mod credentials;
mod egress;
mod endpoints;
mod files;
mod files_hostile;
mod files_limits;
mod idempotency;
mod ledger;
mod life;
mod lifetimes;
mod load;
mod log;
mod neighbour;
mod proxy;
mod reload;
mod scope;
mod sessions;
mod shared;
mod storage;
mod turns;
mod upgrade;
mod upstream_faults;
mod usage;
mod vault;

use palisade_testkit::Server;
use palisade_testkit::upstream::ScriptedUpstream;

/// A server with a scripted upstream.
async fn start() -> (Server, ScriptedUpstream) {
    start_with("").await
}

/// The same, with more configuration.
async fn start_with(more: &str) -> (Server, ScriptedUpstream) {
    let upstream = ScriptedUpstream::start().await.unwrap();
    (Server::start(env!("CARGO_BIN_EXE_palisade"), &upstream, more).await, upstream)
}

/// Whether tests may take minutes.
fn is_long() -> bool {
    std::env::var_os("PALISADE_LONG_TESTS").is_some_and(|value| value == "1")
}
