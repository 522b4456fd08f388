//! Who may reach what: judged by principal, name and port, before any name is looked up. Pure: it sees no socket, and whoever wants a
//! new policy builds it whole and swaps it. What is not allowed is refused; a deny wins.

mod pattern;

use std::{collections::HashMap, sync::Arc};

use palisade_protocol::{
    CredentialRule,
    id::{SessionId, TenantName},
};
pub use pattern::check_host_pattern;
use pattern::{Patterns, Ports, Width};
use serde::{Deserialize, Serialize};

use crate::{
    Destination, EgressError, Host, Reason, Scheme,
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
    /// Every upstream.
    pub upstreams: Vec<Endpoint>,
    /// Every endpoint of the server's services.
    pub services: Vec<Endpoint>,
    /// Endpoints that tenants have named, such as those that give out tokens: the server calls them, and only where a sandbox of theirs
    /// could have gone by its address.
    pub tenant_services: Vec<Endpoint>,
    /// Private networks that sandboxes may reach.
    pub allow_addresses: Vec<String>,
    /// The tenants; one that is not here reaches nothing.
    pub tenants: Vec<(TenantName, TenantSpec)>,
}

/// The vault's part of a policy. It may come from another process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultRules {
    /// Each tenant's credentials.
    pub credentials: Vec<(TenantName, Vec<CredentialRule>)>,
    /// Where the server asks for tokens.
    pub token_endpoints: Vec<Endpoint>,
}

/// Where an operator's own calls go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// One host and one port.
    pub host_port: String,
    /// Whether it is spoken to over TLS.
    pub tls: bool,
}

/// What is special about some hosts. It allows nothing by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostRule {
    /// Which: a name or `*.suffix`.
    pub name: String,
    /// Tunnels may carry something else than TLS.
    pub raw: bool,
    /// What is asked for as `http://` is sent over TLS, port 80 as 443.
    pub upgrade: bool,
    /// The proxy opens the TLS of tunnels, so that each request is recorded.
    pub intercept: bool,
    /// Tunnels may begin with an Encrypted Client Hello.
    pub allow_ech: bool,
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
    /// What is special about some hosts.
    pub hosts: Vec<HostRule>,
    /// Credentials, and where each may go: those hosts are managed, and nobody brings one of his own there.
    pub credentials: Vec<CredentialRule>,
}

impl PolicySpec {
    /// The operator's part and the vault's.
    pub(crate) fn with(mut self, vault: &VaultRules) -> Self {
        for (tenant, its) in &mut self.tenants {
            let of_tenant = vault.credentials.iter().filter(|(name, _)| name == tenant);
            its.credentials.extend(of_tenant.flat_map(|(_, rules)| rules).cloned());
        }
        self.tenant_services.extend(vault.token_endpoints.iter().cloned());
        self
    }
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
    /// Whether the proxy opens the tunnel's TLS.
    pub intercept: bool,
    /// The credentials for this destination: those for its very name first.
    pub credentials: Vec<Arc<CredentialRule>>,
    pub(crate) addresses: AddressRule,
}

/// A policy that was found good.
#[derive(Debug)]
pub struct Policy {
    upstreams: Endpoints,
    services: Endpoints,
    tenant_services: Endpoints,
    networks: Arc<OpenNetworks>,
    tenants: HashMap<TenantName, Tenant>,
}

#[derive(Debug)]
struct Tenant {
    offline: bool,
    allow: Option<Patterns>,
    deny: Patterns,
    raw: Patterns,
    upgrade: Patterns,
    intercept: Patterns,
    allow_ech: Patterns,
    credentials: Vec<(Arc<CredentialRule>, Patterns)>,
    intercepted: Vec<String>,
}

/// An operator's endpoints, and which of them are spoken to over TLS.
#[derive(Debug)]
struct Endpoints {
    all: Patterns,
    tls: Patterns,
}

impl Policy {
    /// Reads a policy; anything wrong in it fails the whole.
    pub fn build(spec: &PolicySpec) -> Result<Self, EgressError> {
        let mut tenants = HashMap::with_capacity(spec.tenants.len());
        for (name, tenant) in &spec.tenants {
            tenants.insert(name.clone(), Tenant::build(tenant)?);
        }
        Ok(Self {
            upstreams: Endpoints::build(&spec.upstreams)?,
            services: Endpoints::build(&spec.services)?,
            tenant_services: Endpoints::build(&spec.tenant_services)?,
            networks: Arc::new(OpenNetworks::parse(&spec.allow_addresses)?),
            tenants,
        })
    }

    /// Whether the principal may go there, and on which terms.
    pub fn judge(&self, principal: &Principal, destination: &Destination) -> Result<Grant, Reason> {
        let tenant = match principal {
            Principal::Router => return self.upstreams.judge(destination),
            Principal::Service => return self.judge_service(destination),
            Principal::Session { tenant, .. } => self.tenants.get(tenant).ok_or(Reason::NotAllowed)?,
        };
        if self.upstreams.all.names_host(&destination.host) {
            return Err(Reason::RouterOnly);
        }
        let (rule, wildcard) = tenant.judge(destination)?;
        let credentials = tenant.credentials_for(destination)?;
        let is = |patterns: &Patterns| patterns.find(destination, Ports::All).is_some();
        Ok(Grant {
            rule,
            wildcard,
            raw: is(&tenant.raw),
            allow_ech: is(&tenant.allow_ech),
            intercept: !credentials.is_empty() || is(&tenant.intercept),
            credentials,
            addresses: AddressRule::PublicAnd(self.networks.clone()),
        })
    }

    fn judge_service(&self, destination: &Destination) -> Result<Grant, Reason> {
        let reason = match self.services.judge(destination) {
            Err(reason) => reason,
            granted => return granted,
        };
        if self.upstreams.all.names_host(&destination.host) {
            return Err(reason);
        }
        let grant = self.tenant_services.judge(destination).map_err(|_| reason)?;
        Ok(Grant { addresses: AddressRule::PublicAnd(self.networks.clone()), ..grant })
    }

    /// Where a request that was read as plain HTTP really goes: over TLS where the policy says so.
    pub(crate) fn outward(&self, principal: &Principal, mut destination: Destination) -> Destination {
        let is_tls = match principal {
            Principal::Router => self.upstreams.tls.find(&destination, Ports::All).is_some(),
            Principal::Service => [&self.services, &self.tenant_services]
                .iter()
                .any(|endpoints| endpoints.tls.find(&destination, Ports::All).is_some()),
            Principal::Session { tenant, .. } => self
                .tenants
                .get(tenant)
                .is_some_and(|tenant| tenant.upgrade.find(&destination, Ports::All).is_some()),
        };
        if is_tls && destination.scheme == Scheme::Http {
            destination.scheme = Scheme::Https;
            if destination.port == 80 {
                destination.port = 443;
            }
        }
        destination
    }

    /// The names of the hosts whose tunnels the proxy opens for a tenant's sessions, as a certificate authority is told of them:
    /// each stands for itself and for what is below it. In order, each once.
    pub(crate) fn intercepted(&self, principal: &Principal) -> &[String] {
        match principal {
            Principal::Session { tenant, .. } => {
                self.tenants.get(tenant).map_or(&[], |tenant| &tenant.intercepted)
            }
            Principal::Router | Principal::Service => &[],
        }
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
            raw: marked(&spec.hosts, |host| host.raw)?,
            upgrade: marked(&spec.hosts, |host| host.upgrade)?,
            intercept: marked(&spec.hosts, |host| host.intercept)?,
            allow_ech: marked(&spec.hosts, |host| host.allow_ech)?,
            credentials: spec.credentials.iter().map(managed).collect::<Result<_, _>>()?,
            intercepted: intercepted(spec),
        })
    }

    /// A credential goes to the hosts and ports that it names and over TLS; to what it manages there is no other way.
    fn credentials_for(&self, destination: &Destination) -> Result<Vec<Arc<CredentialRule>>, Reason> {
        let mut found = Vec::new();
        for (credential, hosts) in &self.credentials {
            match hosts.find(destination, Ports::Tls) {
                Some(_) if destination.scheme == Scheme::Http => return Err(Reason::ManagedHost),
                Some(host) => found.push((host.wildcard, credential.clone())),
                None if hosts.covers_host(&destination.host) => return Err(Reason::ManagedHost),
                None => {}
            }
        }
        found.sort_by_key(|(wildcard, _)| *wildcard);
        Ok(found.into_iter().map(|(_, credential)| credential).collect())
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

fn marked(hosts: &[HostRule], is: fn(&HostRule) -> bool) -> Result<Patterns, EgressError> {
    Patterns::parse(hosts.iter().filter(|host| is(host)).map(|host| host.name.as_str()), Width::Narrow)
}

fn managed(credential: &CredentialRule) -> Result<(Arc<CredentialRule>, Patterns), EgressError> {
    Ok((Arc::new(credential.clone()), list(&credential.allowed_hosts, Width::Narrow)?))
}

/// Of patterns that were found good.
fn intercepted(spec: &TenantSpec) -> Vec<String> {
    let marked = spec.hosts.iter().filter(|host| host.intercept).map(|host| &host.name);
    let managed = spec.credentials.iter().flat_map(|credential| &credential.allowed_hosts);
    let mut names: Vec<String> =
        marked.chain(managed).filter_map(|pattern| pattern::name_of(pattern)).collect();
    names.sort_unstable();
    names.dedup();
    names
}

impl Endpoints {
    /// Each is one host and one port.
    fn build(endpoints: &[Endpoint]) -> Result<Self, EgressError> {
        for Endpoint { host_port, .. } in endpoints {
            if Destination::from_authority(host_port).is_err() {
                let why = "an endpoint is one host and one port";
                return Err(EgressError::PolicyPattern { pattern: host_port.clone(), why });
            }
        }
        let all =
            |tls: bool| endpoints.iter().filter(move |it| it.tls || !tls).map(|it| it.host_port.as_str());
        Ok(Self {
            all: Patterns::parse(all(false), Width::Narrow)?,
            tls: Patterns::parse(all(true), Width::Narrow)?,
        })
    }

    fn judge(&self, destination: &Destination) -> Result<Grant, Reason> {
        let found = self.all.find(destination, Ports::Web).ok_or(Reason::NotAllowed)?;
        Ok(Grant {
            rule: found.text,
            wildcard: false,
            raw: false,
            allow_ech: false,
            intercept: false,
            credentials: Vec::new(),
            addresses: AddressRule::Operators,
        })
    }
}

#[cfg(test)]
mod tests;
