//! The proxy from the configuration: in this process, or the way to the one in another. Where it is in another, this process has no
//! upstream's key and no policy.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use palisade_egress::{
    AuditLog, AuditSettings, CredentialSource, Credentials, DoorLimits, PassKey, Policy, PolicySpec, Proxy,
    ProxyAddress, ProxyParts, ProxySettings, RemoteProxy, Resolver, Trust, WayOut,
};
use tokio::net::TcpListener;

use crate::config::{Config, EgressSection};

/// The key between a server and a proxy in another process, where there is one.
pub(crate) fn read_key(section: &EgressSection) -> Result<Option<PassKey>> {
    let key = section.key.as_ref().map(|key| Ok::<_, anyhow::Error>(PassKey::new(&key.read()?)?)).transpose();
    key.context("reading [egress] key")
}

/// What everything of this server leaves through.
pub(crate) fn way_out(
    config: &Config,
    key: Option<PassKey>,
    make: impl FnOnce() -> Result<Proxy>,
) -> Result<WayOut> {
    match (&config.egress.via, key) {
        (Some(address), Some(key)) => Ok(WayOut::There(RemoteProxy::new(address.0.clone(), key))),
        _ => make().map(WayOut::Here),
    }
}

/// A proxy of this process.
pub(crate) fn proxy(
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

/// Takes other servers' connections in, if the configuration says where.
pub(crate) async fn listen(proxy: &Proxy, section: &EgressSection, key: Option<PassKey>) -> Result<()> {
    let (Some(listen), Some(key)) = (&section.listen, key) else { return Ok(()) };
    let door = proxy.pass_door(key, DoorLimits::default());
    let told = || format!("[egress] listen: cannot listen on {}", listen.0);
    match &listen.0 {
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
