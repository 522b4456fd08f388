//! Our own proxy: the example of `egress` that opens one door on a TCP port.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use super::{Allowed, RunningProxy, folder};
use crate::build::{cargo, root, run};

/// Builds it, optimised.
pub(crate) fn build_ours() -> Result<PathBuf> {
    let mut command = cargo(&["build", "--release", "--package", "palisade-egress", "--example", "proxy"]);
    // Said, because CARGO_TARGET_DIR would put it where nobody looks for it.
    run(command.arg("--target-dir").arg(root().join("target")))?;
    Ok(root().join("target/release/examples/proxy"))
}

/// What ours is told beside the allowed host.
pub(crate) struct Ours<'a> {
    pub(crate) program: &'a Path,
    pub(crate) resolver: SocketAddr,
    /// An authority's PEM file, for an origin whose TLS is opened. The door's own authority is then in `trust-anchor` beside it.
    pub(crate) intercept: Option<&'a Path>,
}

impl Ours<'_> {
    /// Where the authority stands that clients of an intercepted host have to believe.
    pub(crate) fn trust_anchor(authority: &Path) -> PathBuf {
        authority.with_file_name("trust-anchor")
    }

    pub(crate) fn start(&self, allowed: &Allowed) -> Result<RunningProxy> {
        let folder = folder("proxy")?;
        let mut command = Command::new(self.program);
        command.args(["--resolver", &self.resolver.to_string(), "--connections", "20000"]);
        command.args(["--allow-addresses", "127.0.0.0/8", "--audit", "audit"]);
        command.args(["--allow", &format!("{}:{}", allowed.host, allowed.port)]);
        if let Some(authority) = self.intercept {
            command.args(["--intercept", &allowed.host]).arg("--trust").arg(authority);
            command.arg("--trust-anchor").arg(Self::trust_anchor(authority));
        }
        let mut child = command
            .current_dir(&folder)
            // It ends when this does, however this ends.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .context("starting our proxy")?;
        let output = child.stdout.take().context("our proxy has no output")?;
        let name = format!("palisade {}", env!("CARGO_PKG_VERSION"));
        let unknown = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut proxy = RunningProxy { name, address: unknown, child, folder };
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).context("reading our proxy's address")?;
        proxy.address = line.trim().parse().context("our proxy did not start")?;
        Ok(proxy)
    }
}
