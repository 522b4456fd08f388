//! How a server lends its vault to a proxy in another process on its machine: over one connection, for as long as that lasts. The server
//! says what its vault manages, the proxy puts that in force and asks for the secrets of one request at a time. No secret is kept here. When the server is
//! gone the rules stay, so that what they manage is refused and nothing goes there without its credential.

mod borrower;
mod lender;

use std::io;

pub use borrower::LentVault;
pub(super) use borrower::serve;
pub(super) use lender::Lending;
use palisade_protocol::{CredentialName, id::TenantName};
use secrecy::zeroize::Zeroizing;
use serde::{Deserialize, Serialize};

use super::connection::Client;
use crate::{CredentialFault, VaultRules};

/// What a pass asks for that such a connection begins with.
pub(super) const VAULT: &str = "vault";
/// One line, in bytes: the rules of some ten thousand credentials, or a secret.
const LINE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Secrets that are asked for at a time.
const ASKS_MAX: usize = 256;

/// A line of the server's.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FromServer {
    /// What the vault manages from now on.
    Rules(VaultRules),
    Secrets {
        ask: u64,
        secrets: Vec<(CredentialName, String)>,
    },
    Fault {
        ask: u64,
        fault: CredentialFault,
    },
}

/// A line of the proxy's.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FromProxy {
    /// The rules are.
    InForce,
    /// The rules are not, and the ones before them stay.
    Refused {
        why: String,
    },
    /// The proxy is part of a server that has a vault, and needs nobody else's.
    OwnVault,
    Ask {
        ask: u64,
        tenant: TenantName,
        wanted: Wanted,
    },
}

/// What is asked of a vault.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Wanted {
    /// What is attached now of this one.
    Secret(CredentialName),
    /// Everything of these that must not come back.
    Known(Vec<CredentialName>),
}

/// The line that says it, with its end.
fn line(said: &impl Serialize) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut line = Zeroizing::new(serde_json::to_vec(said)?);
    line.extend_from_slice(b"\r\n");
    Ok(line)
}

/// A proxy that has a vault says so to whoever offers one.
pub(super) async fn decline(client: &mut Client) -> io::Result<()> {
    // A connection that is closed before it was read to the end loses what was said last.
    client.read_line(LINE_BYTES_MAX).await;
    client.stream.write_all(&line(&FromProxy::OwnVault)?).await
}
