//! The bare relay of the bench, which knows one origin and lets everything through to it.

use std::net::SocketAddr;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{RunningProxy, Start, folder, free_address};

pub(crate) fn bare(origin: SocketAddr) -> Result<RunningProxy> {
    let (folder, address) = (folder("bare")?, free_address()?);
    let mut command = Command::new(std::env::current_exe().context("finding this program")?);
    command.args(["bench-relay", &address.to_string(), &origin.to_string()]);
    Start { name: "bare relay".to_owned(), folder, address, command }.run()
}
