//! The proxy from outside, case by case: a recording origin, a fake name server, raw bytes in. What is refused leaves no byte at the origin and
//! one record with its reason. `CASES.md` beside the crate says which test stands for which case.
#![expect(clippy::expect_used, reason = "a helper that fails fails the test")]

mod addresses;
mod answers;
mod authority;
mod framing;
mod headers;
mod intercept;
mod lend;
mod lifecycle;
mod limits;
mod probes;
mod process;
mod tls;
mod world;
