//! One line of the audit log. It quotes a client's words cut to a length and as JSON text, never a query, a header or a body.

use std::net::IpAddr;

use palisade_protocol::limits::EGRESS_AUDIT_TEXT_BYTES_MAX;
use serde::Serialize;

use crate::{Destination, Principal, Reason};

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A connection is about to be made; written before its name is looked up.
    Open,
    /// What was opened is over.
    Close,
    /// A request that opened nothing.
    Refused,
    /// Something about the log itself, such as a start.
    Note,
}

/// What one record says; what does not apply is left out.
#[derive(Debug, Clone, Serialize)]
pub struct Record {
    /// What it is about.
    pub kind: Kind,
    /// Which connection: one open and one close record share it.
    pub conn: String,
    /// On whose behalf: `router`, `session` or `service`; `unknown` for a wrong token.
    pub principal: &'static str,
    /// The session's tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The canonical host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The address that was dialled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// The aliases that led to it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Addresses of the name that may not be dialled.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ips_refused: Vec<IpAddr>,
    /// The server name in the tunnel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sni: Option<String>,
    /// The rule that allowed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule_id: Option<String>,
    /// The credential that was attached, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cred_id: Option<String>,
    /// `allow` or `refuse`.
    pub decision: &'static str,
    /// Why it was refused, or what ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// The same in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<&'static str>,
    /// The status that the client got.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The path without its query; of what could not be read, the target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Whether some text was cut.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// Bytes that went to the upstream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_up: Option<u64>,
    /// Bytes that went to the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_down: Option<u64>,
    /// How long it took, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ms: Option<u64>,
}

impl Record {
    pub(crate) fn new(kind: Kind, conn: String, principal: Option<&Principal>) -> Self {
        let (name, tenant, session) = match principal {
            None => ("unknown", None, None),
            Some(Principal::Router) => ("router", None, None),
            Some(Principal::Service) => ("service", None, None),
            Some(Principal::Session { tenant, session }) => {
                ("session", Some(tenant.to_string()), Some(session.to_string()))
            }
        };
        Self {
            kind,
            conn,
            principal: name,
            tenant,
            session,
            host: None,
            port: None,
            ip: None,
            aliases: Vec::new(),
            ips_refused: Vec::new(),
            sni: None,
            rule_id: None,
            cred_id: None,
            decision: "allow",
            reason: None,
            why: None,
            status: None,
            method: None,
            path: None,
            truncated: false,
            bytes_up: None,
            bytes_down: None,
            ms: None,
        }
    }

    /// Something that is to stand in the log though nothing was asked for, such as that the proxy was started.
    pub fn of_note(what: &str) -> Self {
        Self::new(Kind::Note, "-".into(), Some(&Principal::Service)).asked("NOTE", what)
    }

    pub(crate) fn to(mut self, destination: &Destination) -> Self {
        self.host = Some(destination.host.to_string());
        self.port = Some(destination.port);
        self
    }

    /// What the client asked for, its query and fragment left out.
    pub(crate) fn asked(mut self, method: &str, target: &str) -> Self {
        let path = target.split(['?', '#']).next().unwrap_or_default();
        // Somebody's password may stand before the host.
        let path = match path.split_once("://") {
            Some((scheme, rest))
                if rest.split('/').next().is_some_and(|authority| authority.contains('@')) =>
            {
                format!("{scheme}://[userinfo]@{}", rest.split_once('@').map_or("", |(_, host)| host))
            }
            _ => path
                .rsplit_once('@')
                .filter(|_| !path.contains('/'))
                .map_or(path, |(_, host)| host)
                .to_owned(),
        };
        self.method = self.quote(method);
        self.path = self.quote(&path);
        self
    }

    /// What ended it; why goes with it in words, unless all was well.
    pub(crate) fn ended_by(&mut self, reason: Reason) {
        self.reason = Some(reason);
        self.why = (reason != Reason::Done).then(|| reason.why());
    }

    fn quote(&mut self, text: &str) -> Option<String> {
        if text.is_empty() {
            return None;
        }
        let end = text.floor_char_boundary(EGRESS_AUDIT_TEXT_BYTES_MAX);
        self.truncated |= end < text.len();
        Some(text[..end].to_owned())
    }
}
