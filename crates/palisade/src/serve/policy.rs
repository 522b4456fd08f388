//! The operator's part of the proxy's policy while it runs: read again on SIGHUP. What is wrong changes nothing: the old policy stays,
//! and the log says why.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use palisade_egress::{Endpoint, PolicySpec, Proxy, TenantSpec};
use palisade_protocol::TenantName;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::keys;
use crate::config::Config;

/// What a policy is made of.
pub(crate) struct PolicySource {
    /// Read again on SIGHUP.
    file: Option<PathBuf>,
    /// As the configuration has it.
    spec: PolicySpec,
    /// The demo planner, which no configuration names.
    planner: Option<Endpoint>,
}

impl PolicySource {
    /// From the configuration in force, which was read from this file.
    pub(crate) fn new(config: &Config, file: Option<&Path>, planner: Option<Endpoint>) -> Result<Self> {
        Ok(Self { file: file.map(Path::to_owned), spec: configured(config)?, planner })
    }

    /// The whole policy.
    pub(crate) fn spec(&self) -> PolicySpec {
        let mut spec = self.spec.clone();
        spec.upstreams.extend(self.planner.clone());
        spec
    }

    /// Reads the file again. Upstreams stay: what serves models is decided at the start.
    fn read_again(&mut self) -> Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let new = configured(&Config::load(Some(file))?)?;
        self.spec = PolicySpec { upstreams: std::mem::take(&mut self.spec.upstreams), ..new };
        Ok(())
    }
}

fn configured(config: &Config) -> Result<PolicySpec> {
    let mut spec = config.egress_policy()?;
    if config.tenant.is_empty() {
        spec.tenants.push((TenantName::parse(keys::DEFAULT_TENANT)?, TenantSpec::default()));
    }
    Ok(spec)
}

/// SIGHUP, waited for from here on.
pub(crate) fn hangups() -> Result<Signal> {
    signal(SignalKind::hangup()).context("listening for SIGHUP")
}

/// Keeps the policy until told to stop.
pub(crate) async fn keep(
    proxy: &Proxy,
    mut source: PolicySource,
    mut hangups: Signal,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            _ = hangups.recv() => {}
            () = stop.cancelled() => return,
        }
        let reloaded = match source.read_again() {
            Ok(()) => proxy.reload(source.spec()).map_err(Into::into),
            Err(error) => Err(error),
        };
        match reloaded {
            Ok(closed) => tracing::info!(closed, "the egress policy was read again"),
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(error, "the egress policy was not read again: the old one stays");
            }
        }
    }
}
