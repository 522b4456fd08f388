//! The control socket as pid 1 has it, and bounded reading of what comes with a message.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use palisade_hand_protocol::{MESSAGE_BYTES_MAX, MESSAGE_FDS_MAX, Reply, Request};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

/// The one line to the server. When it closes, the sandbox has no reason to live.
pub(crate) struct Control {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

/// What one receive came to.
pub(crate) enum Received {
    /// A request and its descriptors.
    Request(Request, Vec<OwnedFd>),
    /// Nothing for now.
    Nothing,
    /// The server is gone.
    Closed,
}

impl Control {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self { socket, buffer: vec![0; MESSAGE_BYTES_MAX] }
    }

    /// Never blocks.
    pub(crate) fn receive(&mut self) -> Result<Received, String> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MESSAGE_FDS_MAX))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let message =
            match recvmsg(&self.socket, &mut [IoSliceMut::new(&mut self.buffer)], &mut ancillary, flags) {
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(Received::Nothing),
                Err(rustix::io::Errno::CONNRESET) => return Ok(Received::Closed),
                other => other.map_err(|e| format!("receive: {e}"))?,
            };
        if message.bytes == 0 {
            return Ok(Received::Closed);
        }
        let fds = ancillary.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        });
        let fds = fds.flatten().collect();
        let request =
            serde_json::from_slice(&self.buffer[..message.bytes]).map_err(|e| format!("parse: {e}"))?;
        Ok(Received::Request(request, fds))
    }

    /// Blocks while the server's buffer is full: there is nothing better to do for a server that does not listen.
    pub(crate) fn send(&self, reply: &Reply) -> Result<(), String> {
        self.send_with(reply, None)
    }

    /// The same, with a descriptor.
    pub(crate) fn send_with(&self, reply: &Reply, fd: Option<BorrowedFd<'_>>) -> Result<(), String> {
        let text = serde_json::to_vec(reply).map_err(|e| format!("render a reply: {e}"))?;
        let fds = fd.as_slice();
        loop {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if !fds.is_empty() {
                ancillary.push(SendAncillaryMessage::ScmRights(fds));
            }
            match sendmsg(&self.socket, &[IoSlice::new(&text)], &mut ancillary, SendFlags::NOSIGNAL) {
                Err(rustix::io::Errno::INTR) => {}
                other => return other.map(drop).map_err(|e| format!("send: {e}")),
            }
        }
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A memory file from its start, whatever its offset; an error when it is longer than `bytes_max`.
pub(crate) fn read_whole(file: impl AsFd, bytes_max: u64) -> io::Result<Vec<u8>> {
    let size = u64::try_from(rustix::fs::fstat(&file)?.st_size).unwrap_or(0);
    if size > bytes_max {
        return Err(io::Error::other(format!("{size} bytes; at most {bytes_max} are taken")));
    }
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::io::pread(&file, &mut bytes[filled..], filled as u64)? {
            0 => break,
            count => filled += count,
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}
