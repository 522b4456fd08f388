//! Patterns of hosts: `name`, `*.suffix`, an address, each with or without a port. A pattern that would let in whoever registers a name is
//! refused when it is read.

use std::{collections::HashMap, sync::Arc};

use crate::{Destination, EgressError, Host, destination::parse_port};

/// How wide a pattern may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    /// For allowing: no suffix below which anybody can have a name.
    Narrow,
    /// For denying: `*.example` whole is fine.
    Any,
}

/// Which ports a pattern without a port means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ports {
    /// 443 and 80: for allowing.
    Web,
    /// 443: for credentials.
    Tls,
    /// All: for denying and for options.
    All,
}

/// A set of patterns. Exact names are looked up, suffixes by walking up the name; addresses never match a suffix.
#[derive(Debug, Default)]
pub(crate) struct Patterns {
    exact: HashMap<String, Vec<Entry>>,
    suffixes: HashMap<String, Vec<Entry>>,
}

#[derive(Debug, Clone)]
struct Entry {
    port: Option<u16>,
    text: Arc<str>,
}

/// A pattern that fits.
#[derive(Debug, Clone)]
pub(crate) struct Match {
    /// As it was written.
    pub(crate) text: Arc<str>,
    /// Whether it is a `*.suffix`.
    pub(crate) wildcard: bool,
}

impl Patterns {
    pub(crate) fn parse<'t>(
        patterns: impl IntoIterator<Item = &'t str>,
        width: Width,
    ) -> Result<Self, EgressError> {
        let mut found = Self::default();
        for text in patterns {
            found.insert(text, width)?;
        }
        Ok(found)
    }

    fn insert(&mut self, text: &str, width: Width) -> Result<(), EgressError> {
        let wrong = |why| EgressError::PolicyPattern { pattern: text.to_owned(), why };
        if text.contains('/') {
            return Err(wrong("write only the host, without a scheme and without a path: example.com"));
        }
        let (host, port) = split_port(text).ok_or_else(|| wrong("its port is not a port"))?;
        let entry = Entry { port, text: text.into() };
        let Some(suffix) = host.strip_prefix("*.") else {
            if host.contains('*') {
                return Err(wrong("a star stands alone in front: *.example.com"));
            }
            let host = Host::parse_setting(host).map_err(|_| wrong("it is not a host name or an address"))?;
            self.exact.entry(host.to_string()).or_default().push(entry);
            return Ok(());
        };
        let Ok(Host::Name(suffix)) = Host::parse_setting(suffix) else {
            return Err(wrong("what follows the star is not a host name"));
        };
        if width == Width::Narrow && psl::suffix_str(suffix.as_str()) == Some(suffix.as_str()) {
            return Err(wrong("anybody can have a name below it"));
        }
        self.suffixes.entry(suffix.to_string()).or_default().push(entry);
        Ok(())
    }

    /// The first pattern that fits, an exact one before a suffix.
    pub(crate) fn find(&self, destination: &Destination, ports: Ports) -> Option<Match> {
        let fits = |entry: &&Entry| match (entry.port, ports) {
            (Some(port), _) => port == destination.port,
            (None, Ports::All) => true,
            (None, Ports::Web) => matches!(destination.port, 80 | 443),
            (None, Ports::Tls) => destination.port == 443,
        };
        let found = |entries: Option<&Vec<Entry>>, wildcard| {
            let entry = entries?.iter().find(fits)?;
            Some(Match { text: entry.text.clone(), wildcard })
        };
        let name = match &destination.host {
            Host::Ip(_) => return found(self.exact.get(&destination.host.to_string()), false),
            Host::Name(name) => name,
        };
        found(self.exact.get(name.as_str()), false).or_else(|| {
            let mut parents = name.with_parents().skip(1);
            parents.find_map(|parent| found(self.suffixes.get(parent), true))
        })
    }

    /// Whether some pattern fits this host, with whichever port.
    pub(crate) fn covers_host(&self, host: &Host) -> bool {
        let below =
            |name: &crate::HostName| name.with_parents().skip(1).any(|it| self.suffixes.contains_key(it));
        self.names_host(host) || matches!(host, Host::Name(name) if below(name))
    }

    /// Whether this very host is named, with whichever port.
    pub(crate) fn names_host(&self, host: &Host) -> bool {
        self.exact.contains_key(&host.to_string())
    }
}

/// The name that a pattern is about, its star and its port off; none for an address.
pub(crate) fn name_of(pattern: &str) -> Option<String> {
    let (host, _) = split_port(pattern)?;
    match Host::parse_setting(host.strip_prefix("*.").unwrap_or(host)) {
        Ok(Host::Name(name)) => Some(name.to_string()),
        _ => None,
    }
}

/// Whether a credential may be bound to it: a name or a `*.suffix`, with or without a port, and none below which anybody can have a
/// name. An address has no name that a certificate could be checked for.
pub fn check_host_pattern(pattern: &str) -> Result<(), EgressError> {
    Patterns::default().insert(pattern, Width::Narrow)?;
    let host = split_port(pattern).map_or(pattern, |(host, _)| host);
    match Host::parse_setting(host) {
        Ok(Host::Ip(_)) => Err(EgressError::PolicyPattern {
            pattern: pattern.to_owned(),
            why: "it is an address and no name",
        }),
        _ => Ok(()),
    }
}

/// Takes the port off; a bare v6 address has none.
fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    if text.parse::<std::net::Ipv6Addr>().is_ok() || text.ends_with(']') {
        return Some((text, None));
    }
    match text.rsplit_once(':') {
        Some((host, port)) => Some((host, Some(parse_port(port).ok()?))),
        None => Some((text, None)),
    }
}
