//! What the server needs besides sandboxes: the secrets that its configuration names, and what stands at its one door. Of the network it
//! asks the one resolver for one upstream's name, and the proxy elsewhere whether it is there.

use std::time::Duration;

use anyhow::Result;
use palisade_egress::{Endpoint, Host, HostName, PassKey, Reason, RemoteProxy, Resolver, Trust, WayOut};

use super::Check;
use crate::config::Config;
use crate::serve::{egress, keys, models, vault};

/// For the resolver to answer.
const RESOLVER_PATIENCE: Duration = Duration::from_secs(3);

/// Every secret that the configuration names, read as `serve` reads them. To be called while root still may.
pub(super) fn secrets(config: &Config) -> Check {
    const NAME: &str = "secrets";
    let read = || -> Result<()> {
        keys::Admission::read(config)?;
        models::Upstreams::read(config)?;
        egress::read_key(&config.egress)?;
        egress::read_bucket(&config.egress)?;
        vault::VaultKey::read(config)?;
        config.store.url().map(drop)
    };
    match read() {
        Ok(()) => Check::good(NAME, "each one that the configuration names can be read"),
        Err(error) => Check::broken(
            NAME,
            format!("{error:#}"),
            "set the variable or write the file, for this process as for the server",
        ),
    }
}

/// The way out: a proxy elsewhere, to which this is the key, or what the one in this process needs. To be called as the server's user.
pub(super) fn checks(config: &Config, key: Result<Option<PassKey>>) -> Vec<Check> {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return vec![Check::broken("egress", error.to_string(), "look at the limits of this process")];
        }
    };
    match (&config.egress.via, key) {
        (Some(via), Ok(Some(key))) => {
            let proxy = RemoteProxy::new(via.0.clone(), key);
            vec![runtime.block_on(elsewhere(&proxy))]
        }
        // What is wrong with the key is told with the secrets.
        (Some(_), _) => Vec::new(),
        (None, _) => vec![authorities(config), runtime.block_on(resolver(config))],
    }
}

async fn elsewhere(proxy: &RemoteProxy) -> Check {
    const NAME: &str = "egress proxy";
    match WayOut::There(proxy.clone()).answers().await {
        Ok(()) => Check::good(NAME, format!("the one at {} answers", proxy.address())),
        Err(error) => Check::weaker(
            NAME,
            palisade_protocol::chain(&error).to_string(),
            "start `palisade egress` with the same key; the server starts without it, and nothing leaves",
        ),
    }
}

fn authorities(config: &Config) -> Check {
    const NAME: &str = "authorities";
    match Trust::load(&config.egress.ca_files) {
        Ok(_) => Check::good(NAME, "the system's, and those of [egress] ca_files"),
        Err(error) => Check::broken(
            NAME,
            palisade_protocol::chain(&error).to_string(),
            "install the package `ca-certificates`, or correct [egress] ca_files",
        ),
    }
}

async fn resolver(config: &Config) -> Check {
    const NAME: &str = "resolver";
    let asked = config
        .egress
        .resolver()
        .and_then(|address| Ok((address, Resolver::with_timeout(address, RESOLVER_PATIENCE)?)));
    let (address, resolver) = match asked {
        Ok(asked) => asked,
        Err(error) => return Check::broken(NAME, format!("{error:#}"), "correct [egress] resolver"),
    };
    let Some(name) = config.upstream.iter().find_map(|upstream| name_of(&upstream.base_url)) else {
        return Check::good(NAME, format!("{address}, which was not asked: no upstream has a name"));
    };
    let mend = "name another with [egress] resolver; until then names are not reached";
    match resolver.resolve(&name).await {
        Ok(_) => Check::good(NAME, format!("{address} knows {name}")),
        Err(Reason::ResolveTimeout) => Check::weaker(NAME, format!("{address} does not answer"), mend),
        Err(_) => Check::weaker(NAME, format!("{address} does not know the upstream {name}"), mend),
    }
}

fn name_of(url: &str) -> Option<HostName> {
    let endpoint = Endpoint::of_url(url).ok()?;
    match Host::parse(endpoint.host_port.rsplit_once(':')?.0).ok()? {
        Host::Name(name) => Some(name),
        Host::Ip(_) => None,
    }
}
