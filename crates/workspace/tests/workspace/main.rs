//! The workspace from outside, against a real directory with hostile content. One binary, a file per topic.
//! `PALISADE_LONG_TESTS=1` makes the races ten times as long.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a helper that fails fails the test"
)]

mod archive;
mod context;
mod delete;
mod environment;
mod folders;
mod homes;
mod links;
mod listing;
mod races;
mod reading;
mod skills;
mod support;
mod upload;
mod usage;
