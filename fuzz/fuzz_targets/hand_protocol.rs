//! Any bytes where a message between server and hand is expected.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/hand-protocol/tests/wire/check.rs"]
mod check;

fuzz_target!(|bytes: &[u8]| check::check(bytes));
