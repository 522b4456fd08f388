//! The operator's part of the proxy's policy, from the configuration in force and from one that is read later.

use anyhow::{Context as _, Result};
use palisade_egress::{Endpoint, Policy, PolicySpec, TenantSpec};
use palisade_protocol::TenantName;

use super::keys;
use crate::config::Config;

/// What a policy is made of.
#[derive(Clone)]
pub(crate) struct PolicySource {
    /// As the configuration has it.
    spec: PolicySpec,
    /// The demo planner, which no configuration names.
    planner: Option<Endpoint>,
}

impl PolicySource {
    /// From the configuration in force.
    pub(crate) fn new(config: &Config, planner: Option<Endpoint>) -> Result<Self> {
        Ok(Self { spec: configured(config)?, planner })
    }

    /// The whole policy.
    pub(crate) fn spec(&self) -> PolicySpec {
        let mut spec = self.spec.clone();
        spec.upstreams.extend(self.planner.clone());
        spec
    }

    /// The same from another configuration. Upstreams stay: what serves models is decided at the start.
    pub(crate) fn renewed(&self, config: &Config) -> Result<Self> {
        let spec = PolicySpec { upstreams: self.spec.upstreams.clone(), ..configured(config)? };
        Policy::build(&spec).context("[egress] or [tenant.egress]")?;
        Ok(Self { spec, planner: self.planner.clone() })
    }
}

fn configured(config: &Config) -> Result<PolicySpec> {
    let mut spec = config.egress_policy()?;
    if config.tenant.is_empty() {
        spec.tenants.push((TenantName::parse(keys::DEFAULT_TENANT)?, TenantSpec::default()));
    }
    Ok(spec)
}
