//! The port that clients come to. It is taken while root still may take any, and listened on only once there is somebody to answer.

use std::io::ErrorKind;
use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use palisade_runtime::Runtime;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::config::Config;

/// Connections that wait to be accepted; the system may allow fewer.
const BACKLOG: i32 = 1024;

/// A port that is ours, and at which nobody answers yet.
pub(crate) struct Taken {
    socket: Socket,
    /// Which setting names it.
    setting: &'static str,
    address: SocketAddr,
}

impl Taken {
    /// Takes it.
    pub(crate) fn take(setting: &'static str, address: SocketAddr) -> Result<Self> {
        let take = || {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
            // A server that was just stopped leaves connections behind that hold the port.
            socket.set_reuse_address(true)?;
            socket.set_nonblocking(true)?;
            socket.bind(&address.into())?;
            Ok(socket)
        };
        let socket = take().map_err(|error| refused(error, setting, address))?;
        Ok(Self { socket, setting, address })
    }

    /// Begins to take connections.
    pub(crate) fn listen(self) -> Result<TcpListener> {
        self.socket.listen(BACKLOG).map_err(|error| refused(error, self.setting, self.address))?;
        TcpListener::from_std(self.socket.into()).context("listening")
    }
}

/// The one for metrics, where there is one.
pub(crate) fn take_metrics(config: &Config) -> Result<Option<Taken>> {
    config.metrics.listen.map(|address| Taken::take("[metrics] listen", address)).transpose()
}

/// Where an operator collects metrics without a key.
pub(crate) async fn serve_metrics(listener: Option<TcpListener>, runtime: Runtime, stop: CancellationToken) {
    let Some(listener) = listener else { return };
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, "metrics are answered without a key");
        if !address.ip().is_loopback() {
            tracing::warn!(%address, "whoever reaches this address reads the metrics: models, routes and counts, and nothing of tenants");
        }
    }
    palisade_gateway::serve_metrics(listener, runtime, stop.cancelled_owned()).await;
}

/// What the system says, and what an operator can do about it.
fn refused(error: std::io::Error, setting: &str, address: SocketAddr) -> anyhow::Error {
    let port = address.port();
    let cure = match error.kind() {
        ErrorKind::AddrInUse => {
            format!("another program has this port: stop it, or choose another one with {setting} in the configuration (or --listen)")
        }
        ErrorKind::PermissionDenied => format!(
            "a port below 1024 needs root, CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE) or \
             sysctl net.ipv4.ip_unprivileged_port_start={port}; or choose a higher one and put a proxy before it"
        ),
        ErrorKind::AddrNotAvailable => {
            "this machine has no such address: 127.0.0.1 is this machine alone, 0.0.0.0 is every address that it has".to_owned()
        }
        _ => format!("choose another address with {setting} in the configuration (or --listen)"),
    };
    anyhow::Error::new(error).context(format!("cannot listen on {address} ({cure})"))
}
