//! A connected stream, TCP or unix, as the relay needs it: shared by both directions, read when there is something and never before, so
//! that a silent connection holds no buffer.

use std::{
    io,
    net::Shutdown,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bytes::BytesMut;
use socket2::SockRef;
use tokio::net::{TcpStream, UnixStream};

/// What one read of a head or a body makes room for.
const READ_BYTES: usize = 4 * 1024;

/// One leg of a connection.
#[derive(Debug)]
pub enum Stream {
    /// A client in a sandbox, or an upstream.
    Tcp(TcpStream),
    /// A client that is relayed by the server.
    Unix(UnixStream),
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        // Small writes must not wait for each other on either leg; a stream that is gone already shows at its first read.
        let _ = stream.set_nodelay(true);
        Self::Tcp(stream)
    }
}

impl From<UnixStream> for Stream {
    fn from(stream: UnixStream) -> Self {
        Self::Unix(stream)
    }
}

impl Stream {
    pub(crate) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.readable().await,
            Self::Unix(stream) => stream.readable().await,
        }
    }

    pub(crate) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read(buffer),
            Self::Unix(stream) => stream.try_read(buffer),
        }
    }

    /// Appends what there is, waiting until there is something. 0 is the end.
    pub(crate) async fn read_into(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        loop {
            self.readable().await?;
            buffer.reserve(READ_BYTES);
            let outcome = match self {
                Self::Tcp(stream) => stream.try_read_buf(buffer),
                Self::Unix(stream) => stream.try_read_buf(buffer),
            };
            match outcome {
                // Whoever waits for a first byte, and may wait for long, holds no room for it.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && buffer.is_empty() => {
                    *buffer = BytesMut::new();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return outcome,
            }
        }
    }

    /// Writes all of it, counting as it goes, so that the count is right wherever this is left off.
    pub(crate) async fn write_counted(&self, mut bytes: &[u8], written: &AtomicU64) -> io::Result<()> {
        while !bytes.is_empty() {
            let outcome = match self {
                Self::Tcp(stream) => stream.try_write(bytes),
                Self::Unix(stream) => stream.try_write(bytes),
            };
            match outcome {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    written.fetch_add(count as u64, Relaxed);
                    bytes = &bytes[count..];
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => match self {
                    Self::Tcp(stream) => stream.writable().await?,
                    Self::Unix(stream) => stream.writable().await?,
                },
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes what is not part of anybody's traffic.
    pub(crate) async fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        self.write_counted(bytes, &AtomicU64::new(0)).await
    }

    /// Says at once that no more is coming.
    pub(crate) fn finish_writing(&self) {
        // Whoever is gone already has nothing to be told.
        let _ = match self {
            Self::Tcp(stream) => SockRef::from(stream).shutdown(Shutdown::Write),
            Self::Unix(stream) => SockRef::from(stream).shutdown(Shutdown::Write),
        };
    }

    /// Lets the coming close be a reset, so that nobody takes half of something for the whole.
    pub(crate) fn reset_on_close(&self) {
        if let Self::Tcp(stream) = self {
            let _ = SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO));
        }
    }
}

const BUFFER_BYTES: usize = 64 * 1024;
const BUFFERS_KEPT_MAX: usize = 32;

/// Buffers for the moments in which bytes pass; kept for the next, so that memory follows what moves and not what is open.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    free: Mutex<Vec<Box<[u8]>>>,
}

impl Buffers {
    pub(crate) fn take(&self) -> Box<[u8]> {
        let kept = self.free.lock().ok().and_then(|mut free| free.pop());
        kept.unwrap_or_else(|| vec![0; BUFFER_BYTES].into_boxed_slice())
    }

    pub(crate) fn give_back(&self, buffer: Box<[u8]>) {
        if let Ok(mut free) = self.free.lock()
            && free.len() < BUFFERS_KEPT_MAX
        {
            free.push(buffer);
        }
    }
}
