//! From a name to its addresses, by the one resolver that is configured: no search list, no hosts file, no cache. It must never ask
//! anybody else, and only for a name that the policy has let through.

mod ask;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use hickory_resolver::{
    TokioResolver,
    config::{
        ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
    },
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::ResponseCode,
        rr::{Name, RData, Record, RecordType},
    },
};
use palisade_protocol::limits::{EGRESS_CNAMES_MAX, EGRESS_RESOLVE_TIMEOUT_MS};

use crate::{EgressError, HostName, Reason};

/// The one resolver.
pub struct Resolver {
    server: SocketAddr,
    timeout: Duration,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// The addresses, v4 first.
    pub addresses: Vec<IpAddr>,
    /// The aliases on the way, for the record.
    pub aliases: Vec<String>,
}

impl Resolver {
    /// Asks this server and no other.
    pub fn new(server: SocketAddr) -> Result<Self, EgressError> {
        Self::with_timeout(server, Duration::from_millis(EGRESS_RESOLVE_TIMEOUT_MS))
    }

    /// The same with another time for the whole look-up.
    pub fn with_timeout(server: SocketAddr, timeout: Duration) -> Result<Self, EgressError> {
        let resolver = Self { server, timeout };
        resolver.client().map_err(|source| EgressError::Resolver { server, source: source.into() })?;
        Ok(resolver)
    }

    /// A client for one look-up. One that is kept would let those who ask for the same name at the same time share an answer, be they
    /// of different tenants; here each connection has its own question and its own answer.
    fn client(&self) -> Result<TokioResolver, NetError> {
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
            connection.port = self.server.port();
            connection
        });
        let name_server = NameServerConfig::new(self.server.ip(), true, connections.into());
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![name_server]);
        let mut options = ResolverOpts::default();
        options.timeout = self.timeout / 2;
        options.attempts = 1;
        options.ndots = 0;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        options.num_concurrent_reqs = 1;
        options.preserve_intermediates = true;
        TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            .with_options(options)
            .build()
    }

    /// Looks A and AAAA up at once, and takes the addresses that the name or its chain of aliases leads to.
    pub async fn resolve(&self, name: &HostName) -> Result<Addresses, Reason> {
        // RFC 6761, 6.3: nobody is asked for this one.
        if name.to_string() == "localhost" {
            let addresses = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
            return Ok(Addresses { addresses, aliases: Vec::new() });
        }
        // The dot at the end says that the name is whole.
        let question = Name::from_ascii(format!("{name}.")).map_err(|_| Reason::HostInvalid)?;
        match tokio::time::timeout(self.timeout, self.records(&question)).await {
            Err(_) | Ok(Err(NetError::Timeout)) => Err(Reason::ResolveTimeout),
            Ok(Err(_)) => Err(Reason::ResolveFailed),
            Ok(Ok(records)) => follow(question, &records),
        }
    }

    /// The records of both kinds. What does not fit into a datagram is left to the whole client, which asks over TCP; it is not asked
    /// first, because for each look-up it makes sockets and starts tasks of its own.
    async fn records(&self, question: &Name) -> Result<Vec<Record>, NetError> {
        let kinds = [RecordType::A, RecordType::AAAA];
        let answers = ask::ask(self.server, question, kinds, self.timeout / 2).await?;
        if answers.is_empty() {
            return Err(NetError::Timeout);
        }
        if answers.iter().any(|answer| answer.metadata.truncation) {
            let answer = self.client()?.lookup_ip(question.clone()).await?;
            return Ok(answer.as_lookup().answers().to_vec());
        }
        let good = answers.into_iter().filter(|it| it.metadata.response_code == ResponseCode::NoError);
        Ok(good.flat_map(|answer| answer.answers).collect())
    }
}

/// Records that the chain does not lead to are not looked at, whatever they say.
fn follow(question: Name, records: &[Record]) -> Result<Addresses, Reason> {
    let mut name = question;
    let mut found = Addresses { addresses: Vec::new(), aliases: Vec::new() };
    loop {
        let mut alias = None;
        for record in records.iter().filter(|record| record.name == name) {
            match &record.data {
                RData::A(address) => found.addresses.push(IpAddr::V4(address.0)),
                RData::AAAA(address) => found.addresses.push(IpAddr::V6(address.0)),
                RData::CNAME(target) => alias = Some(target.0.clone()),
                _ => {}
            }
        }
        match alias {
            _ if !found.addresses.is_empty() => {
                found.addresses.sort_by_key(IpAddr::is_ipv6);
                found.addresses.dedup();
                return Ok(found);
            }
            Some(_) if found.aliases.len() == EGRESS_CNAMES_MAX => return Err(Reason::CnameChain),
            Some(target) => {
                found.aliases.push(target.to_ascii().trim_end_matches('.').to_ascii_lowercase());
                name = target;
            }
            None if found.aliases.is_empty() => return Err(Reason::ResolveFailed),
            None => return Err(Reason::CnameChain),
        }
    }
}
