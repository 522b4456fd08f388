//! The proxy from the configuration: in this process, or the way to the one in another. Where it is in another, this process has no
//! upstream's key and no policy.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use palisade_egress::{
    AuditLog, AuditSettings, CredentialSource, Credentials, DoorLimits, NoCredentials, PassKey, Policy,
    PolicySpec, Proxy, ProxyAddress, ProxyParts, ProxySettings, RemoteProxy, Resolver, Trust, WayOut,
};
use tokio::net::TcpListener;
use tokio::signal::unix::Signal;
use tokio_util::sync::CancellationToken;

use super::models::Upstreams;
use super::policy::{self, PolicySource};
use crate::config::{Config, EgressSection};

/// The key between a server and a proxy in another process, where there is one.
pub(crate) fn read_key(section: &EgressSection) -> Result<Option<PassKey>> {
    let key = section.key.as_ref().map(|key| Ok::<_, anyhow::Error>(PassKey::new(&key.read()?)?)).transpose();
    key.context("reading [egress] key")
}

/// The way out of this server, and what keeps it.
pub(crate) struct Egress {
    way_out: WayOut,
    source: PolicySource,
    hangups: Signal,
}

impl Egress {
    /// Makes a proxy in this process, or finds the one in another.
    pub(crate) async fn start(
        config: &Config,
        file: Option<&Path>,
        upstreams: &Upstreams,
        key: Option<PassKey>,
    ) -> Result<Self> {
        let source = PolicySource::new(config, file, upstreams.planner_endpoint()?)?;
        let hangups = policy::hangups()?;
        if let (Some(via), Some(key)) = (&config.egress.via, &key) {
            let way_out = WayOut::There(RemoteProxy::new(via.0.clone(), key.clone()));
            return Ok(Self { way_out, source, hangups });
        }
        let proxy = proxy(config, &source.spec(), upstreams.credentials(), Arc::new(NoCredentials))?;
        if let (Some(listen), Some(key)) = (&config.egress.listen, key) {
            listen_at(&proxy, &listen.0, key).await?;
        }
        Ok(Self { way_out: WayOut::Here(proxy), source, hangups })
    }

    /// What everything leaves through.
    pub(crate) fn way_out(&self) -> WayOut {
        self.way_out.clone()
    }

    /// Keeps the policy until told to stop; a proxy in another process keeps its own.
    pub(crate) async fn keep(self, stop: CancellationToken) {
        if let WayOut::Here(proxy) = self.way_out {
            policy::keep(proxy, self.source, self.hangups, stop).await;
        }
    }
}

/// Lets open connections come to their end, and cuts what does not in this time.
pub(crate) async fn shut_down(way_out: &WayOut, grace: Duration) {
    if let WayOut::Here(proxy) = way_out {
        proxy.shutdown(grace).await;
    }
}

/// A proxy of this process.
fn proxy(
    config: &Config,
    spec: &PolicySpec,
    credentials: Credentials,
    vault: Arc<dyn CredentialSource>,
) -> Result<Proxy> {
    let section = &config.egress;
    Ok(Proxy::new(ProxyParts {
        policy: Policy::build(spec)?,
        resolver: Resolver::new(section.resolver()?)?,
        audit: audit_log(config)?,
        trust: Trust::load(&section.ca_files)?,
        credentials,
        vault,
        settings: ProxySettings::default(),
    }))
}

/// Servers that share a database share the data directory, too.
fn audit_log(config: &Config) -> Result<AuditLog> {
    let folder = config.egress.audit_folder(&config.data_dir);
    let settings = AuditSettings::default();
    match config.store.is_shared() {
        true => Ok(AuditLog::open_free(&folder, settings)?),
        false => Ok(AuditLog::open(&folder, settings)?),
    }
}

/// Takes other servers' connections in.
async fn listen_at(proxy: &Proxy, at: &ProxyAddress, key: PassKey) -> Result<()> {
    let door = proxy.pass_door(key, DoorLimits::default());
    let told = || format!("[egress] listen: cannot listen on {at}");
    match at {
        ProxyAddress::Tcp(address) => {
            let listener = TcpListener::bind(address).await.with_context(told)?;
            tracing::info!(address = %listener.local_addr()?, "the egress proxy listens");
            door.listen(listener);
        }
        ProxyAddress::Unix(path) => {
            door.listen_at(path).with_context(told)?;
            tracing::info!(path = %path.display(), "the egress proxy listens");
        }
    }
    Ok(())
}
