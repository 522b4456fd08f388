//! squid and tinyproxy, as Debian has them. Neither package's own service or settings are used.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{Allowed, DESCRIPTORS_MAX, RunningProxy, Start, folder, free_address, version, with_hosts};
use crate::test::install;

/// squid with one access rule: the host and the port. Its log is written by itself, as ours is.
pub(crate) fn squid(allowed: &Allowed) -> Result<RunningProxy> {
    let program = program("squid")?;
    let (folder, address) = (folder("squid")?, free_address()?);
    let (at, Allowed { host, port, .. }) = (folder.display(), allowed);
    let settings = format!(
        "http_port {address}\nvisible_hostname bench\nhosts_file {at}/hosts\n\
         acl allowed_host dstdomain -n {host}\nacl allowed_port port {port}\n\
         http_access allow allowed_host allowed_port\nhttp_access deny all\n\
         cache deny all\ncache_log {at}/cache.log\naccess_log stdio:{at}/access.log\npid_filename {at}/pid\n\
         coredump_dir {at}\npinger_enable off\nshutdown_lifetime 0 seconds\nmax_filedescriptors {DESCRIPTORS_MAX}\n"
    );
    let file = folder.join("squid.conf");
    fs::write(&file, settings).context("writing squid's settings")?;
    let mut command = with_hosts(&folder, allowed, &program)?;
    command.args(["-N", "-f"]).arg(file);
    let name = format!("squid {}", version(Command::new(&program).arg("-v")));
    Start { name, folder, address, command }.run()
}

/// tinyproxy with a filter for the host, a list of ports for tunnels, and everything else denied.
pub(crate) fn tinyproxy(allowed: &Allowed) -> Result<RunningProxy> {
    let program = program("tinyproxy")?;
    let (folder, address) = (folder("tinyproxy")?, free_address()?);
    let (at, Allowed { host, port, .. }) = (folder.display(), allowed);
    let settings = format!(
        "Port {}\nListen {}\nAllow 127.0.0.1\nTimeout 60\nMaxClients 1000\nLogFile \"{at}/log\"\nLogLevel Connect\n\
         PidFile \"{at}/pid\"\nConnectPort {port}\nFilter \"{at}/filter\"\nFilterExtended On\nFilterDefaultDeny Yes\n",
        address.port(),
        address.ip()
    );
    let file = folder.join("tinyproxy.conf");
    fs::write(&file, settings).context("writing tinyproxy's settings")?;
    fs::write(folder.join("filter"), format!("^{}$\n", host.replace('.', "\\.")))
        .context("writing tinyproxy's filter")?;
    let mut command = with_hosts(&folder, allowed, &program)?;
    command.args(["-d", "-c"]).arg(file);
    let name = format!("tinyproxy {}", version(Command::new(&program).arg("-v")));
    Start { name, folder, address, command }.run()
}

fn program(package: &str) -> Result<PathBuf> {
    let folders = ["/usr/sbin", "/usr/bin"];
    let find =
        || folders.iter().map(|folder| Path::new(folder).join(package)).find(|program| program.is_file());
    if find().is_none() {
        install(package, "the comparison")?;
    }
    find().with_context(|| format!("{package} is installed and nowhere to be found"))
}
