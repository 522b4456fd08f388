//! The one error of this room. What the proxy tells a client is a [`crate::Reason`] instead.

use std::{net::SocketAddr, path::PathBuf};

use crate::Reason;

/// Why a call did not leave or did not come back, or why the proxy could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    /// Configuration names a credential that was never loaded.
    #[error("no credential is named {name:?}")]
    UnknownCredential {
        /// The name that was looked for.
        name: String,
    },
    /// A key that cannot stand in a header.
    #[error("the credential {name:?} cannot be sent in a header: is there a line break in it?")]
    UnusableCredential {
        /// The name it is kept under.
        name: String,
    },
    /// The request itself is wrong: its URL.
    #[error("the call could not be built: its URL is not one")]
    Build {
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No connection: refused, unresolved, TLS failed.
    #[error("could not connect to {host}")]
    Connect {
        /// Where to.
        host: String,
        /// What the proxy said.
        #[source]
        reason: Reason,
    },
    /// The time for connecting ran out.
    #[error("connecting to {host} took too long")]
    ConnectTimeout {
        /// Where to.
        host: String,
        /// What the proxy said.
        #[source]
        reason: Reason,
    },
    /// The proxy's policy has it that this call does not leave.
    #[error("the egress proxy refused the call to {host}: {code}")]
    Refused {
        /// Where to.
        host: String,
        /// The reason's code.
        code: String,
    },
    /// What came back is no answer.
    #[error("the answer of {host} cannot be read")]
    Answer {
        /// Where from.
        host: String,
        /// What the proxy said.
        #[source]
        reason: Reason,
    },
    /// The connection broke before the head of the answer.
    #[error("the connection to {host} broke before an answer")]
    Send {
        /// Where to.
        host: String,
        /// What the client said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The connection broke within the body of the answer.
    #[error("the connection to {host} broke within the answer")]
    Body {
        /// Where to.
        host: String,
        /// What the client said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The proxy in another process would not have the vault's rules.
    #[error("the egress proxy at {proxy} did not take what the vault manages: {why}")]
    NotLent {
        /// Where it is.
        proxy: String,
        /// What it said.
        why: String,
    },
    /// The proxy's threads.
    #[error("the threads of the egress proxy could not be started")]
    Threads {
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// No certificate authority is trusted, so no upstream could be.
    #[error(
        "no certificate authority was found: install ca-certificates, or name a file in [egress] ca_files"
    )]
    NoAuthorities,
    /// A file of certificate authorities.
    #[error("the certificate authorities in {} cannot be used: {why}", path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A certificate of a session's own authority could not be made.
    #[error("could not make a certificate")]
    Certificate(#[source] rcgen::Error),
    /// TLS could not be set up.
    #[error("could not set up TLS")]
    Tls(#[source] rustls::Error),
    /// The key that passes are signed with is too short to be one.
    #[error("the key between server and egress proxy needs at least {bytes_min} characters")]
    PassKey {
        /// How many.
        bytes_min: usize,
    },
    /// The proxy in another process does not answer.
    #[error("the egress proxy at {proxy} cannot be reached")]
    Unreachable {
        /// Where it should be.
        proxy: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The proxy in another process has another key.
    #[error("the egress proxy at {proxy} refused this server: is the key the same on both sides?")]
    PassRefused {
        /// Where it is.
        proxy: String,
    },
    /// A pattern of a policy that is not one, or is too wide.
    #[error("the pattern {pattern:?} is refused: {why}")]
    PolicyPattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A network of a policy that is not one, or may not be opened.
    #[error("the network {network:?} is refused: {why}")]
    PolicyNetwork {
        /// The network.
        network: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The resolver's client could not be made.
    #[error("could not set up the resolver at {server}")]
    Resolver {
        /// The configured server.
        server: SocketAddr,
        /// What the client said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The audit log failed.
    #[error("could not {doing} the audit log in {}", path.display())]
    Audit {
        /// What was tried.
        doing: &'static str,
        /// The log's folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Somebody else writes the audit log.
    #[error("the audit log in {} is in use by another server; stop it, or choose another data directory with --data-dir", path.display())]
    AuditInUse {
        /// The log's folder.
        path: PathBuf,
    },
    /// A part of the audit log did not get where it is kept.
    #[error("could not {doing} the audit log")]
    Ship {
        /// What was tried.
        doing: &'static str,
        /// What went wrong.
        #[source]
        source: std::io::Error,
    },
    /// The file that says where the audit log ends.
    #[error("the anchor of the audit log, {}, cannot be used", path.display())]
    AuditAnchor {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Records are missing at the end of the audit log.
    #[error("the end of the audit log in {} is missing: record {written} was written, and the last one here is {last_seq}", path.display())]
    AuditCut {
        /// The log's folder.
        path: PathBuf,
        /// The last record that is there; 0 if none is.
        last_seq: u64,
        /// The last that was written, at least.
        written: u64,
    },
    /// Records are missing at the beginning of the audit log.
    #[error("the beginning of the audit log in {} is missing: the first record here is {first_seq}, and those before it were not shipped; if you took them away yourself, say so with --first {first_seq}", path.display())]
    AuditBeginning {
        /// The log's folder.
        path: PathBuf,
        /// The first record that is there.
        first_seq: u64,
    },
    /// The audit log is not what was written.
    #[error("{}, line {line}: {why}", path.display())]
    AuditBroken {
        /// The segment.
        path: PathBuf,
        /// The line, from 1; 0 for the segment as a whole.
        line: usize,
        /// What does not hold.
        why: &'static str,
    },
}

impl EgressError {
    /// Whether no connection came about: nothing of the call can have had an effect.
    pub fn is_connect(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::ConnectTimeout { .. })
    }

    /// What the proxy said of a call that got no answer, where it said something.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Self::Connect { reason, .. }
            | Self::ConnectTimeout { reason, .. }
            | Self::Answer { reason, .. } => Some(*reason),
            Self::Send { source, .. } => source.downcast_ref().copied(),
            _ => None,
        }
    }
}
