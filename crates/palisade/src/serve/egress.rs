//! The proxy from the configuration: in this process, or the way to the one in another. Where it is in another, this process has no
//! upstream's key and no policy.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use palisade_egress::{
    AuditLog, AuditSettings, Bucket, BucketSpec, CredentialSource, Credentials, DoorLimits, LentVault,
    PassKey, PolicySpec, Principal, Proxy, ProxyAddress, ProxyClient, ProxyParts, ProxySettings, RemoteProxy,
    Resolver, ShipTarget, Trust, WayOut, anchor_of,
};
use palisade_runtime::VaultSource;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::models::Upstreams;
use super::policy::PolicySource;
use crate::config::{Config, EgressSection};

/// The key between a server and a proxy in another process, where there is one.
pub(crate) fn read_key(section: &EgressSection) -> Result<Option<PassKey>> {
    let key = section.key.as_ref().map(|key| Ok::<_, anyhow::Error>(PassKey::new(&key.read()?)?)).transpose();
    key.context("reading [egress] key")
}

/// Whose vault the proxy in this process attaches credentials of.
pub(crate) enum VaultOf {
    /// Its own server's.
    ThisServer(VaultSource),
    /// That of the servers that go through it.
    OtherServers,
}

/// Whether this server lends its vault: to a proxy on this machine, for secrets cross no network in the clear.
pub(crate) fn lends(config: &Config) -> bool {
    config.egress.via.as_ref().is_some_and(|via| matches!(via.0, ProxyAddress::Unix(_)))
}

/// The way out of this server, and what keeps it.
pub(crate) struct Egress {
    way_out: WayOut,
    source: PolicySource,
    /// Where copies of the log go, if anywhere.
    shipping: Option<Shipping>,
}

/// A log on its way.
struct Shipping {
    log: Arc<AuditLog>,
    target: ShipTarget,
    every: Duration,
}

impl Egress {
    /// Makes a proxy in this process, or finds the one in another.
    pub(crate) async fn start(
        config: &Config,
        upstreams: &Upstreams,
        key: Option<PassKey>,
        bucket: Option<BucketSpec>,
        vault: VaultOf,
    ) -> Result<Self> {
        let source = PolicySource::new(config, upstreams.planner_endpoint()?)?;
        if let (Some(via), Some(key)) = (&config.egress.via, &key) {
            if !lends(config) {
                tracing::warn!(
                    "egress.via: a proxy over the network attaches no credentials of the vault; one at a unix: socket does"
                );
            }
            let way_out = WayOut::There(RemoteProxy::new(via.0.clone(), key.clone()));
            return Ok(Self { way_out, source, shipping: None });
        }
        let log = Arc::new(audit_log(config)?);
        let (vault, lent): (Arc<dyn CredentialSource>, _) = match vault {
            VaultOf::ThisServer(vault) => (Arc::new(vault), None),
            VaultOf::OtherServers => {
                let lent = LentVault::default();
                (Arc::new(lent.clone()), Some(lent))
            }
        };
        let settings = proxy_settings(lent.is_some());
        let proxy = proxy(config, source.spec(), log.clone(), upstreams.credentials(), vault, settings)?;
        let shipping = Shipping::of(config, bucket, &proxy, log)?;
        if let (Some(listen), Some(key)) = (&config.egress.listen, key) {
            listen_at(&proxy, &listen.0, key, lent).await?;
        }
        Ok(Self { way_out: WayOut::Here(proxy), source, shipping })
    }

    /// What everything leaves through.
    pub(crate) fn way_out(&self) -> WayOut {
        self.way_out.clone()
    }

    /// What a reload may change.
    pub(crate) fn policy(&self) -> OperatorPolicy {
        OperatorPolicy { way_out: self.way_out.clone(), source: self.source.clone() }
    }

    /// Ships the log until told to stop.
    pub(crate) async fn keep(self, stop: CancellationToken) {
        if let Some(Shipping { log, target, every }) = self.shipping {
            palisade_egress::ship(log, target, every, stop).await;
        }
    }
}

/// The operator's part of the policy and the upstreams' keys, in force in this process. A proxy in another process keeps its own.
pub(crate) struct OperatorPolicy {
    way_out: WayOut,
    source: PolicySource,
}

/// What a new policy did.
#[derive(Default)]
pub(crate) struct Applied {
    pub(crate) connections_closed: usize,
    /// Upstreams whose key is another one.
    pub(crate) new_keys: Vec<String>,
}

impl OperatorPolicy {
    /// Looks whether this configuration has a policy that can be put in force.
    pub(crate) fn prepare(&self, config: &Config) -> Result<PolicySource> {
        self.source.renewed(config)
    }

    /// Puts it in force.
    pub(crate) fn apply(&mut self, source: PolicySource, keys: Credentials) -> Result<Applied> {
        self.source = source;
        let WayOut::Here(proxy) = &self.way_out else { return Ok(Applied::default()) };
        let connections_closed = proxy.reload(self.source.spec())?;
        Ok(Applied { connections_closed, new_keys: proxy.renew_keys(keys) })
    }
}

impl Shipping {
    fn of(
        config: &Config,
        bucket: Option<BucketSpec>,
        proxy: &Proxy,
        log: Arc<AuditLog>,
    ) -> Result<Option<Self>> {
        let Some(section) = &config.egress.ship else { return Ok(None) };
        let target = match (bucket, &section.folder) {
            (Some(bucket), _) => {
                let door = proxy.door(Principal::Service, DoorLimits::default())?;
                ShipTarget::Bucket(Box::new(Bucket::new(&bucket, ProxyClient::new(door))?))
            }
            (None, Some(folder)) => ShipTarget::Folder(folder.clone()),
            (None, None) => return Ok(None),
        };
        Ok(Some(Self { log, target, every: Duration::from_secs(section.every_s) }))
    }
}

/// The key to the bucket that copies of the log go to, where there is one.
pub(crate) fn read_bucket(section: &EgressSection) -> Result<Option<BucketSpec>> {
    let bucket = section.ship.as_ref().and_then(|ship| ship.bucket.as_ref());
    bucket.map(|bucket| bucket.read()).transpose().context("reading the keys of [egress.ship] bucket")
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
    spec: PolicySpec,
    audit: Arc<AuditLog>,
    credentials: Credentials,
    vault: Arc<dyn CredentialSource>,
    settings: ProxySettings,
) -> Result<Proxy> {
    let section = &config.egress;
    Ok(Proxy::new(ProxyParts {
        policy: spec,
        resolver: Resolver::new(section.resolver()?)?,
        audit,
        trust: Trust::load(&section.ca_files)?,
        credentials,
        vault,
        settings,
    })?)
}

/// A connection takes two of the files that this process may open. Connections of sandboxes take a quarter of them, or four
/// fifths in a process that does nothing else; those of one tenant at most half of that.
fn proxy_settings(is_alone: bool) -> ProxySettings {
    let open_files_max = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let files = open_files_max.and_then(|max| usize::try_from(max).ok()).unwrap_or(usize::MAX);
    let settings = ProxySettings::default();
    let connections_max = settings.connections_max.min(if is_alone { files / 5 * 2 } else { files / 8 });
    let tenant_connections_max = settings.tenant_connections_max.min(connections_max / 2);
    ProxySettings { connections_max, tenant_connections_max, ..settings }
}

/// Servers that share a database share the data directory, too.
fn audit_log(config: &Config) -> Result<AuditLog> {
    let folder = config.egress.audit_folder(&config.data_dir);
    let (anchors, settings) = (config.egress.anchor_folder(&config.data_dir), AuditSettings::default());
    match config.store.is_shared() {
        true => Ok(AuditLog::open_free(&folder, &anchors, settings)?),
        false => Ok(AuditLog::open_anchored(&folder, &anchor_of(&folder, &anchors), settings)?),
    }
}

/// Takes other servers' connections in.
async fn listen_at(proxy: &Proxy, at: &ProxyAddress, key: PassKey, lent: Option<LentVault>) -> Result<()> {
    let door = proxy.pass_door(key, DoorLimits::default(), lent);
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
