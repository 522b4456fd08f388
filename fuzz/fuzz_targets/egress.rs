//! Any bytes where the egress proxy expects a host, a request's head or a ClientHello.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/egress/tests/parsers/check.rs"]
mod check;

fuzz_target!(|bytes: &[u8]| check::check(bytes));
