//! Test tools: scripted upstream, whole-server harness, wait_for.

pub mod upstream;
