//! Test tools: a scripted upstream, a whole server on a port of its own, and waiting for conditions.
//!
//! Only tests, benches and the project's own automation use it; nothing here may be linked into the product.

pub mod attack;
pub mod origin;
pub mod postgres;
pub mod probes;
pub mod resolver;
pub mod server;
pub mod stream;
pub mod tls_origin;
pub mod token_endpoint;
pub mod upstream;
pub mod wait;

pub use server::Server;
pub use wait::wait_for;
