//! The door out: the one room that opens connections to the world and attaches credentials to what leaves.
//!
//! Two things live here. The *proxy* takes CONNECT and absolute-form HTTP/1.1 from a session, the router or a service, and
//! goes through one order of steps: parse → judge by name → limits → record → resolve → judge the address → dial → relay → record.
//! The *client* ([`DirectClient`]) makes the server's own model calls. Keys enter here when the server starts and leave only in an
//! `Authorization` header of the call they belong to: no type of this crate prints one, no error carries one, nothing hands one back.

mod address;
mod audit;
mod client;
mod credentials;
mod destination;
mod error;
mod hello;
mod host;
mod http;
mod policy;
mod proxy;
mod reason;
mod resolver;
mod stream;

pub use address::AddressKind;
pub use audit::{AuditLog, AuditSettings, Kind, Record, Verified, verify};
pub use client::{ByteStream, DirectClient, OutboundRequest, OutboundResponse};
pub use credentials::Credentials;
pub use destination::{Destination, Scheme};
pub use error::EgressError;
pub use hello::{ClientHello, parse_client_hello};
pub use host::{Host, HostName};
pub use http::head::read_destination;
pub use policy::{Grant, Policy, PolicySpec, Principal, TenantSpec, check_host_pattern};
pub use proxy::{Door, DoorLimits, Proxy, ProxySettings, TokenDoor};
pub use reason::Reason;
pub use resolver::{Addresses, Resolver};
pub use stream::Stream;
