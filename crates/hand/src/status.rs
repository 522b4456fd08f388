//! `session-status key=value …`: how a program inside tells what it is doing.
//!
//! An abstract socket in the sandbox's own network namespace leads to pid 1; there is no file that could be
//! replaced. Pid 1 passes on at most one value per key and interval, the latest, so that nothing inside can
//! flood the server.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use palisade_hand_protocol::{STATUS_KEY_BYTES_MAX, STATUS_VALUE_BYTES_MAX, status_is_valid};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

const SOCKET_NAME: &[u8] = b"palisade-status";
const DATAGRAM_BYTES_MAX: usize = STATUS_KEY_BYTES_MAX + 1 + STATUS_VALUE_BYTES_MAX;
/// Between two rounds of updates to the server.
const INTERVAL: Duration = Duration::from_millis(100);
/// Different keys in one round; what is over is dropped.
const PENDING_MAX: usize = 64;
/// Datagrams taken in one go, so that a sender cannot keep pid 1 from its other work.
const DATAGRAMS_PER_ROUND_MAX: usize = 128;

/// The command: checks everything, then sends.
pub(crate) fn send(args: &[OsString]) -> Result<(), String> {
    let usage = "usage: session-status key=value [key=value …]";
    if args.is_empty() {
        return Err(usage.into());
    }
    let parse = |arg: &OsString| {
        let text = arg.to_str().ok_or("keys and values must be UTF-8")?;
        let (key, value) = text.split_once('=').ok_or_else(|| format!("{text:?} has no '='; {usage}"))?;
        if status_is_valid(key, value) {
            Ok(text.to_owned())
        } else {
            Err(format!(
                "{key:?}: a key is [A-Za-z0-9_.-]{{1,64}}, a value at most {STATUS_VALUE_BYTES_MAX} bytes"
            ))
        }
    };
    let updates = args.iter().map(parse).collect::<Result<Vec<_>, String>>()?;
    let socket = socket(SocketFlags::CLOEXEC).map_err(|e| format!("make a socket: {e}"))?;
    for update in updates {
        rustix::net::sendto(&socket, update.as_bytes(), SendFlags::NOSIGNAL, &address()?)
            .map_err(|e| format!("the sandbox takes no status updates: {e}"))?;
    }
    Ok(())
}

fn socket(flags: SocketFlags) -> rustix::io::Result<OwnedFd> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)
}

fn address() -> Result<SocketAddrUnix, String> {
    SocketAddrUnix::new_abstract_name(SOCKET_NAME).map_err(|e| format!("name the status socket: {e}"))
}

/// Pid 1's end.
pub(crate) struct StatusBoard {
    pub(crate) socket: OwnedFd,
    pending: BTreeMap<String, String>,
    passed_on: Option<Instant>,
}

impl StatusBoard {
    pub(crate) fn open() -> Result<Self, String> {
        let socket = socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
            .map_err(|e| format!("status socket: {e}"))?;
        rustix::net::bind(&socket, &address()?).map_err(|e| format!("bind the status socket: {e}"))?;
        Ok(Self { socket, pending: BTreeMap::new(), passed_on: None })
    }

    /// Takes what has arrived; the sender checked it, and is checked again here because anyone can send.
    pub(crate) fn receive(&mut self) {
        let mut buffer = [0; DATAGRAM_BYTES_MAX + 1];
        for _ in 0..DATAGRAMS_PER_ROUND_MAX {
            let Ok((_, length)) = rustix::net::recv(&self.socket, &mut buffer[..], RecvFlags::TRUNC) else {
                return;
            };
            let text = buffer.get(..length).and_then(|bytes| std::str::from_utf8(bytes).ok());
            let Some((key, value)) = text.and_then(|text| text.split_once('=')) else { continue };
            let has_room = self.pending.len() < PENDING_MAX || self.pending.contains_key(key);
            if status_is_valid(key, value) && has_room {
                self.pending.insert(key.to_owned(), value.to_owned());
            }
        }
    }

    /// When the next round is due; `None` when there is nothing to pass on.
    pub(crate) fn due(&self) -> Option<Instant> {
        if self.pending.is_empty() {
            return None;
        }
        Some(self.passed_on.map_or_else(Instant::now, |last| last + INTERVAL))
    }

    /// The updates of this round.
    pub(crate) fn take(&mut self) -> BTreeMap<String, String> {
        self.passed_on = Some(Instant::now());
        std::mem::take(&mut self.pending)
    }
}
