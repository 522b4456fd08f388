//! `[http]`: what an operator says about clients' connections.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use ipnet::IpNet;
use palisade_gateway::HttpConfig;
use palisade_protocol::limits;
use serde::Deserialize;

/// Every key has a default.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct HttpSection {
    /// How long a connection may be open without a request: longer than a load balancer in front keeps its own.
    pub(crate) idle_s: u64,
    /// Load balancers, whose connections are those of many clients: addresses or networks.
    pub(crate) trusted_peers: Vec<String>,
}

impl Default for HttpSection {
    fn default() -> Self {
        Self { idle_s: limits::CONNECTION_IDLE_DEFAULT_S, trusted_peers: Vec::new() }
    }
}

impl HttpSection {
    /// For the listener.
    pub(crate) fn connections(&self) -> Result<HttpConfig> {
        const IDLE_S_MAX: u64 = 86_400;
        if !(1..=IDLE_S_MAX).contains(&self.idle_s) {
            bail!("[http] idle_s = {}: from 1 to {IDLE_S_MAX} seconds are possible", self.idle_s);
        }
        let trusted_peers = self.trusted_peers.iter().map(|text| network(text)).collect::<Result<_>>()?;
        Ok(HttpConfig { idle: Duration::from_secs(self.idle_s), trusted_peers, origins: Vec::new() })
    }
}

fn network(text: &str) -> Result<IpNet> {
    let address = text.parse::<std::net::IpAddr>().map(IpNet::from);
    address.or_else(|_| text.parse::<IpNet>()).with_context(|| {
        format!(
            "[http] trusted_peers: {text:?} is neither an address nor a network; write 10.0.0.7 or 10.0.0.0/8"
        )
    })
}
