//! The listener that a sandbox passes out. It comes from inside, so it is looked at before anybody waits on it; what it is good for
//! is its own sandbox's traffic, whatever it is.

use std::net::TcpListener;
use std::os::fd::OwnedFd;

use rustix::net::sockopt::{socket_acceptconn, socket_domain, socket_type};
use rustix::net::{AddressFamily, SocketType};

use crate::SandboxError;

/// A listening TCP socket that never blocks, or an error.
pub(crate) fn check(passed: Option<OwnedFd>) -> Result<TcpListener, SandboxError> {
    let wrong = |what: &str| SandboxError::Died(format!("it passed out {what} instead of a listener"));
    let fd = passed.ok_or_else(|| wrong("nothing"))?;
    let is_listener = socket_acceptconn(&fd).is_ok_and(|listens| listens)
        && socket_domain(&fd).is_ok_and(|domain| domain == AddressFamily::INET)
        && socket_type(&fd).is_ok_and(|kind| kind == SocketType::STREAM);
    if !is_listener {
        return Err(wrong("something"));
    }
    let listener = TcpListener::from(fd);
    listener.set_nonblocking(true).map_err(SandboxError::at("taking the sandbox's listener"))?;
    Ok(listener)
}
