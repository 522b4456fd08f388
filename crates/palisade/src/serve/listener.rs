//! The port that clients come to. It is taken while root still may take any, and listened on only once there is somebody to answer.

use std::io::ErrorKind;
use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// Connections that wait to be accepted; the system may allow fewer.
const BACKLOG: i32 = 1024;

/// A port that is ours, and at which nobody answers yet.
pub(crate) struct Taken {
    socket: Socket,
    address: SocketAddr,
}

impl Taken {
    /// Takes it.
    pub(crate) fn take(address: SocketAddr) -> Result<Self> {
        let take = || {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
            // A server that was just stopped leaves connections behind that hold the port.
            socket.set_reuse_address(true)?;
            socket.set_nonblocking(true)?;
            socket.bind(&address.into())?;
            Ok(socket)
        };
        let socket = take().map_err(|error| refused(error, address))?;
        Ok(Self { socket, address })
    }

    /// Begins to take connections.
    pub(crate) fn listen(self) -> Result<TcpListener> {
        self.socket.listen(BACKLOG).map_err(|error| refused(error, self.address))?;
        TcpListener::from_std(self.socket.into()).context("listening")
    }
}

/// What the system says, and what an operator can do about it.
fn refused(error: std::io::Error, address: SocketAddr) -> anyhow::Error {
    let port = address.port();
    let cure = match error.kind() {
        ErrorKind::AddrInUse => {
            "another program has this port: stop it, or choose another one with listen in the configuration or with --listen".to_owned()
        }
        ErrorKind::PermissionDenied => format!(
            "a port below 1024 needs root, CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE) or \
             sysctl net.ipv4.ip_unprivileged_port_start={port}; or choose a higher one and put a proxy before it"
        ),
        ErrorKind::AddrNotAvailable => {
            "this machine has no such address: 127.0.0.1 is this machine alone, 0.0.0.0 is every address that it has".to_owned()
        }
        _ => "choose another address with listen in the configuration or with --listen".to_owned(),
    };
    anyhow::Error::new(error).context(format!("cannot listen on {address} ({cure})"))
}
