//! The server dies, at any moment and in every way, and comes back. A scripted model and effects that can be
//! counted; the real binary, real sandboxes, real clients. Nothing here may rely on the server's own word where
//! the disk or the machine can be asked.
//!
//! One program on purpose: it links once.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test tool: what fails here fails the test")]

mod checks;
mod client;
mod disasters;
mod disk;
mod machine;
mod model;
mod rng;
mod seeds;
mod tally;
mod verdict;
mod world;

/// Whether the long form of the tests was asked for.
fn is_long() -> bool {
    std::env::var_os("PALISADE_LONG_TESTS").is_some_and(|value| value == "1")
}
