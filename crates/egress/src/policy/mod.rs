//! Who may reach what: judged by principal, name and port, before any name is looked up. Pure: it sees no socket, and whoever wants a
//! new policy builds it whole and swaps it. What is not allowed is refused; a deny wins.

mod pattern;

use std::{collections::HashMap, sync::Arc};

use palisade_protocol::id::{SessionId, TenantName};
pub use pattern::check_host_pattern;
use pattern::{Patterns, Ports, Width};

use crate::{
    Destination, EgressError, Host, Reason,
    address::{AddressRule, OpenNetworks},
};

/// On whose behalf a connection is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Principal {
    /// The server's own model calls: the upstreams, and nothing else.
    Router,
    /// A session's sandbox: what its tenant allows, never an upstream.
    Session {
        /// Whose session.
        tenant: TenantName,
        /// Which.
        session: SessionId,
    },
    /// The server's other calls, such as OAuth and the shipping of logs: their endpoints, and nothing else.
    Service,
}

/// A policy as an operator writes it.
#[derive(Debug, Clone, Default)]
pub struct PolicySpec {
    /// `host:port` of every upstream.
    pub upstreams: Vec<String>,
    /// `host:port` of every endpoint of the server's services.
    pub services: Vec<String>,
    /// Private networks that sandboxes may reach.
    pub allow_addresses: Vec<String>,
    /// The tenants; one that is not here reaches nothing.
    pub tenants: Vec<(TenantName, TenantSpec)>,
}

/// What one tenant's sessions may reach.
#[derive(Debug, Clone, Default)]
pub struct TenantSpec {
    /// Whether the tenant is an offline one: without `allow` it reaches nothing.
    pub offline: bool,
    /// The whole list of what may be reached; an empty one lets nothing through. None: every public name, unless the tenant is
    /// offline.
    pub allow: Option<Vec<String>>,
    /// What may not be reached, whatever `allow` says.
    pub deny: Vec<String>,
    /// Tunnels to these hosts may carry something else than TLS.
    pub raw: Vec<String>,
    /// Tunnels to these hosts may begin with an Encrypted Client Hello.
    pub allow_ech: Vec<String>,
}

/// What a policy says about one destination that may be reached.
#[derive(Debug, Clone)]
pub struct Grant {
    /// The rule that allowed it, for the record.
    pub rule: Arc<str>,
    /// Whether the rule is a wildcard, so that the client chose the name.
    pub wildcard: bool,
    /// Whether the tunnel may carry something else than TLS.
    pub raw: bool,
    /// Whether the tunnel may begin with an Encrypted Client Hello.
    pub allow_ech: bool,
    pub(crate) addresses: AddressRule,
}

/// A policy that was found good.
#[derive(Debug)]
pub struct Policy {
    upstreams: Patterns,
    services: Patterns,
    networks: Arc<OpenNetworks>,
    tenants: HashMap<TenantName, Tenant>,
}

#[derive(Debug)]
struct Tenant {
    offline: bool,
    allow: Option<Patterns>,
    deny: Patterns,
    raw: Patterns,
    allow_ech: Patterns,
}

impl Policy {
    /// Reads a policy; anything wrong in it fails the whole.
    pub fn build(spec: &PolicySpec) -> Result<Self, EgressError> {
        let mut tenants = HashMap::with_capacity(spec.tenants.len());
        for (name, tenant) in &spec.tenants {
            tenants.insert(name.clone(), Tenant::build(tenant)?);
        }
        Ok(Self {
            upstreams: endpoints(&spec.upstreams)?,
            services: endpoints(&spec.services)?,
            networks: Arc::new(OpenNetworks::parse(&spec.allow_addresses)?),
            tenants,
        })
    }

    /// Whether the principal may go there, and on which terms.
    pub fn judge(&self, principal: &Principal, destination: &Destination) -> Result<Grant, Reason> {
        let tenant = match principal {
            Principal::Router => return operators(&self.upstreams, destination),
            Principal::Service => return operators(&self.services, destination),
            Principal::Session { tenant, .. } => self.tenants.get(tenant).ok_or(Reason::NotAllowed)?,
        };
        if self.upstreams.names_host(&destination.host) {
            return Err(Reason::RouterOnly);
        }
        let (rule, wildcard) = tenant.judge(destination)?;
        Ok(Grant {
            rule,
            wildcard,
            raw: tenant.raw.find(destination, Ports::All).is_some(),
            allow_ech: tenant.allow_ech.find(destination, Ports::All).is_some(),
            addresses: AddressRule::PublicAnd(self.networks.clone()),
        })
    }
}

impl Tenant {
    fn build(spec: &TenantSpec) -> Result<Self, EgressError> {
        let allow = match (&spec.allow, spec.offline) {
            (None, false) => None,
            (None, true) => Some(Patterns::default()),
            (Some(patterns), _) => Some(list(patterns, Width::Narrow)?),
        };
        Ok(Self {
            offline: spec.offline,
            allow,
            deny: list(&spec.deny, Width::Any)?,
            raw: list(&spec.raw, Width::Narrow)?,
            allow_ech: list(&spec.allow_ech, Width::Narrow)?,
        })
    }

    fn judge(&self, destination: &Destination) -> Result<(Arc<str>, bool), Reason> {
        if self.deny.find(destination, Ports::All).is_some() {
            return Err(Reason::Denied);
        }
        match (&self.allow, &destination.host) {
            (Some(allow), host) => match allow.find(destination, Ports::Web) {
                Some(found) => Ok((found.text, found.wildcard)),
                None if self.offline => Err(Reason::Offline),
                None if matches!(host, Host::Ip(_)) => Err(Reason::LiteralRefused),
                None => Err(Reason::NotAllowed),
            },
            (None, Host::Ip(_)) => Err(Reason::LiteralRefused),
            (None, Host::Name(_)) => Ok(("public".into(), false)),
        }
    }
}

fn list(patterns: &[String], width: Width) -> Result<Patterns, EgressError> {
    Patterns::parse(patterns.iter().map(String::as_str), width)
}

/// Endpoints of an operator's own are one host and one port each.
fn endpoints(patterns: &[String]) -> Result<Patterns, EgressError> {
    for pattern in patterns {
        if Destination::from_authority(pattern).is_err() {
            let why = "an endpoint is one host and one port";
            return Err(EgressError::PolicyPattern { pattern: pattern.clone(), why });
        }
    }
    list(patterns, Width::Narrow)
}

fn operators(endpoints: &Patterns, destination: &Destination) -> Result<Grant, Reason> {
    let found = endpoints.find(destination, Ports::Web).ok_or(Reason::NotAllowed)?;
    Ok(Grant {
        rule: found.text,
        wildcard: false,
        raw: false,
        allow_ech: false,
        addresses: AddressRule::Operators,
    })
}

#[cfg(test)]
mod tests;
