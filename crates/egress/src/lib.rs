//! The door out: the one room that opens connections to the world and attaches credentials to what leaves.
//!
//! Two things live here. The *proxy* takes CONNECT and absolute-form HTTP/1.1 from a session, the router or a service, and
//! goes through one order of steps: parse → judge by name → limits → record → resolve → judge the address → dial → relay → record.
//! The *client* ([`ProxyClient`]) makes the server's own calls through it. Keys enter here when the server starts and leave only in an
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
mod inject;
mod policy;
mod proxy;
mod reason;
mod resolver;
mod scrub;
mod ship;
mod stream;
mod tls;

pub use address::AddressKind;
pub use audit::{AuditLog, AuditSettings, Kind, Record, Verified, anchor_of, verify, verify_anchored};
pub use client::{ByteStream, OutboundRequest, OutboundResponse, ProxyClient};
pub use credentials::{CredentialFault, CredentialSource, Credentials, NoCredentials, Secrets};
pub use destination::{Destination, Scheme};
pub use error::EgressError;
pub use hello::{ClientHello, parse_client_hello};
pub use host::{Host, HostName};
pub use http::head::read_destination;
pub use policy::{
    Endpoint, Grant, HostRule, Policy, PolicySpec, Principal, TenantSpec, VaultRules, check_host_pattern,
};
pub use proxy::{
    Door, DoorLimits, LentVault, PassDoor, PassKey, Proxy, ProxyAddress, ProxyParts, ProxySettings,
    RemoteProxy, WayOut,
};
pub use reason::Reason;
pub use resolver::{Addresses, Resolver};
pub use scrub::Scrubber;
pub use ship::{Bucket, BucketSpec, ShipTarget, ship, ship_all};
pub use stream::Stream;
pub use tls::Trust;
