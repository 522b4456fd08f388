//! Any secret in any answer, in any pieces.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/egress/tests/parsers/scrubbing.rs"]
mod scrubbing;

fuzz_target!(|bytes: &[u8]| scrubbing::check(bytes));
