//! The server's end of the control socket. The other end may be lying: everything received is bounded, and
//! nothing received is believed beyond its own sandbox.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use palisade_hand_protocol::{MESSAGE_BYTES_MAX, MESSAGE_FDS_MAX, Reply, Request};
use rustix::net::sockopt::set_socket_passcred;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use rustix::process::Pid;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// tokio has no SEQPACKET socket, so this is one over its readiness.
#[derive(Debug)]
pub(crate) struct Control {
    socket: AsyncFd<OwnedFd>,
}

/// A reply, and what came with it.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) reply: Reply,
    /// Who sent it, as the kernel attests it.
    pub(crate) sender: Option<Pid>,
    pub(crate) fd: Option<OwnedFd>,
}

impl Control {
    /// Our end, and the end for the launcher.
    pub(crate) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        set_socket_passcred(&ours, true)?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        Ok((Self { socket: watch(ours, Interest::READABLE | Interest::WRITABLE)? }, theirs))
    }

    /// The next reply; `None` at the end.
    pub(crate) async fn receive(&self, buffer: &mut Vec<u8>) -> io::Result<Option<Received>> {
        self.socket.async_io(Interest::READABLE, |socket| receive_now(socket, buffer)).await
    }

    /// Waits for room.
    pub(crate) async fn send(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let text = serde_json::to_vec(request)?;
        self.socket.async_io(Interest::WRITABLE, |socket| send_now(socket, &text, fds)).await
    }

    /// For destructors: fails when there is no room.
    pub(crate) fn try_send(&self, request: &Request) -> io::Result<()> {
        send_now(self.socket.get_ref(), &serde_json::to_vec(request)?, &[])
    }
}

/// A descriptor that tokio tells the readiness of.
pub(crate) fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    #[expect(unsafe_code, reason = "tokio asks its callers to vouch for the descriptor's lifetime")]
    // SAFETY: an OwnedFd is open, always the same descriptor, and closed only when the AsyncFd drops it.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(|e| e.into_parts().1)
}

fn receive_now(socket: &OwnedFd, buffer: &mut Vec<u8>) -> io::Result<Option<Received>> {
    buffer.resize(MESSAGE_BYTES_MAX, 0);
    // Room for one descriptor: what a hand sends beyond it the kernel closes.
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1), ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let message = match recvmsg(
        socket,
        &mut [IoSliceMut::new(buffer)],
        &mut ancillary,
        RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC,
    ) {
        Err(rustix::io::Errno::CONNRESET) => return Ok(None),
        other => other?,
    };
    if message.bytes == 0 {
        return Ok(None);
    }
    let (mut sender, mut fd) = (None, None);
    for message in ancillary.drain() {
        match message {
            RecvAncillaryMessage::ScmCredentials(credentials) => sender = Some(credentials.pid),
            RecvAncillaryMessage::ScmRights(mut fds) => fd = fds.next(),
            _ => {}
        }
    }
    let reply = serde_json::from_slice(&buffer[..message.bytes])?;
    Ok(Some(Received { reply, sender, fd }))
}

fn send_now(socket: &OwnedFd, text: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    if text.len() > MESSAGE_BYTES_MAX || fds.len() > MESSAGE_FDS_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the message is over the control socket's limits",
        ));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MESSAGE_FDS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(fds));
    }
    sendmsg(socket, &[IoSlice::new(text)], &mut ancillary, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
    Ok(())
}
