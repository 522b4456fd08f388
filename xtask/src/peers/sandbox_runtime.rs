//! The proxy of npm's `@anthropic-ai/sandbox-runtime`, without the sandbox: its `createHttpProxyServer` with the checks of the host that its
//! sandbox manager makes by default, and without the token that tells its sandboxes from strangers.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::{Allowed, RunningProxy, Start, folder, free_address, version, with_hosts};
use crate::build::{root, run};

/// Its name at npm.
pub(crate) const PACKAGE: &str = "@anthropic-ai/sandbox-runtime";
/// Said, because npm would take an older one for an older Node.
const VERSION: &str = "0.0.83";

/// What the sandbox manager does with a host, and no more.
const SCRIPT: &str = r#"
const [library, settings] = [process.argv[2], JSON.parse(process.argv[3])];
const load = name => import(`${library}/sandbox/${name}.js`);
const { createHttpProxyServer } = await load('http-proxy');
const { canonicalizeHost, isValidHost } = await load('parent-proxy');
const { matchesDomainPatternWithPort } = await load('domain-pattern');
const { createResolvedAddressGuard } = await load('resolved-address-guard');
const guard = createResolvedAddressGuard({ allowedDomains: settings.allowed, deniedDomains: [] });
const filter = (port, host) => {
  if (!isValidHost(host)) return false;
  const name = canonicalizeHost(host) ?? host;
  return settings.allowed.some(pattern => matchesDomainPatternWithPort(name, port, pattern));
};
createHttpProxyServer({ filter, lookupFor: port => guard.lookupFor(port) }).listen(settings.port, '127.0.0.1');
"#;

pub(crate) fn sandbox_runtime(allowed: &Allowed) -> Result<RunningProxy> {
    let library = installed()?.join("node_modules").join(PACKAGE);
    let (folder, address) = (folder("sandbox-runtime")?, free_address()?);
    let script = folder.join("proxy.mjs");
    fs::write(&script, SCRIPT).context("writing the peer's start")?;
    let node = PathBuf::from("node");
    let mut command = with_hosts(&folder, allowed, &node)?;
    let settings = json!({"port": address.port(), "allowed": [format!("{}:{}", allowed.host, allowed.port)]});
    command.arg(script).arg(library.join("dist")).arg(settings.to_string());
    let name = format!("sandbox-runtime {VERSION} (Node {})", version(Command::new("node").arg("--version")));
    Start { name, folder, address, command }.run()
}

/// The folder it is installed in, its own `node_modules` below.
pub(crate) fn installed() -> Result<PathBuf> {
    let folder = root().join("target/bench-peers/sandbox-runtime");
    if !folder.join("node_modules").join(PACKAGE).join("package.json").is_file() {
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--silent", "--prefix"]).arg(&folder);
        run(npm.arg(format!("{PACKAGE}@{VERSION}")))?;
    }
    Ok(folder)
}
