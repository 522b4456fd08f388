//! A connected stream, TCP or unix, with or without TLS, as the relay needs it: shared by both directions, read when there is something
//! and never before, so that a silent connection holds no buffer.

use std::{
    io,
    net::Shutdown,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bytes::BytesMut;
use rustls::pki_types::ServerName;
use socket2::SockRef;
use tokio::net::{TcpStream, UnixStream};

use crate::tls::{Tls, TlsFault};

/// What one read of a head or a body makes room for.
const READ_BYTES: usize = 4 * 1024;

/// One leg of a connection: a socket, and TLS over it where that was agreed.
#[derive(Debug)]
pub struct Stream {
    socket: Socket,
    tls: Option<Box<Tls>>,
}

/// What bytes really pass.
#[derive(Debug)]
pub(crate) enum Socket {
    /// A client in a sandbox, or an upstream.
    Tcp(TcpStream),
    /// A client that is the server itself, or is relayed by it.
    Unix(UnixStream),
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        // Small writes must not wait for each other on either leg; a stream that is gone already shows at its first read.
        let _ = stream.set_nodelay(true);
        Self { socket: Socket::Tcp(stream), tls: None }
    }
}

impl From<UnixStream> for Stream {
    fn from(stream: UnixStream) -> Self {
        Self { socket: Socket::Unix(stream), tls: None }
    }
}

impl Socket {
    pub(crate) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.readable().await,
            Self::Unix(stream) => stream.readable().await,
        }
    }

    pub(crate) async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.writable().await,
            Self::Unix(stream) => stream.writable().await,
        }
    }

    pub(crate) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read(buffer),
            Self::Unix(stream) => stream.try_read(buffer),
        }
    }

    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
        }
    }
}

impl Stream {
    /// The same leg with TLS as its client, once the server has proved to be `name`. Nothing but the handshake has been sent when
    /// this fails.
    pub(crate) async fn into_tls_client(
        self,
        config: Arc<rustls::ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Self, TlsFault> {
        let tls = Tls::client(config, name)?;
        self.with_tls(tls, &mut BytesMut::new()).await
    }

    /// The same leg with TLS as its server; `read` is what was read of the client's already.
    pub(crate) async fn start_tls_server(
        &mut self,
        config: Arc<rustls::ServerConfig>,
        read: &mut BytesMut,
    ) -> Result<(), TlsFault> {
        let tls = Tls::server(config)?;
        tls.shake_hands(&self.socket, read).await?;
        self.tls = Some(Box::new(tls));
        Ok(())
    }

    async fn with_tls(mut self, tls: Tls, read: &mut BytesMut) -> Result<Self, TlsFault> {
        tls.shake_hands(&self.socket, read).await?;
        self.tls = Some(Box::new(tls));
        Ok(self)
    }

    pub(crate) async fn readable(&self) -> io::Result<()> {
        match &self.tls {
            Some(tls) if tls.has_plaintext() => Ok(()),
            _ => self.socket.readable().await,
        }
    }

    pub(crate) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.tls {
            Some(tls) => tls.try_read(&self.socket, buffer),
            None => self.socket.try_read(buffer),
        }
    }

    /// Appends what there is, waiting until there is something. 0 is the end.
    pub(crate) async fn read_into(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        loop {
            self.readable().await?;
            match self.try_read_into(buffer) {
                // Whoever waits for a first byte, and may wait for long, holds no room for it.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && buffer.is_empty() => {
                    *buffer = BytesMut::new();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return outcome,
            }
        }
    }

    fn try_read_into(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        buffer.reserve(READ_BYTES);
        match (&self.tls, &self.socket) {
            (None, Socket::Tcp(stream)) => stream.try_read_buf(buffer),
            (None, Socket::Unix(stream)) => stream.try_read_buf(buffer),
            (Some(tls), socket) => {
                let start = buffer.len();
                buffer.resize(start + READ_BYTES, 0);
                let outcome = tls.try_read(socket, &mut buffer[start..]);
                buffer.truncate(start + outcome.as_ref().copied().unwrap_or(0));
                outcome
            }
        }
    }

    /// Writes all of it, counting as it goes, so that the count is right wherever this is left off.
    pub(crate) async fn write_counted(&self, mut bytes: &[u8], written: &AtomicU64) -> io::Result<()> {
        while !bytes.is_empty() {
            let outcome = match &self.tls {
                Some(tls) => tls.try_write(&self.socket, bytes),
                None => self.socket.try_write(bytes),
            };
            match outcome {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    written.fetch_add(count as u64, Relaxed);
                    bytes = &bytes[count..];
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.socket.writable().await?,
                Err(error) => return Err(error),
            }
        }
        match &self.tls {
            Some(tls) => tls.flush(&self.socket).await,
            None => Ok(()),
        }
    }

    /// Writes what is not part of anybody's traffic.
    pub(crate) async fn write_all(&self, bytes: &[u8]) -> io::Result<()> {
        self.write_counted(bytes, &AtomicU64::new(0)).await
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether nothing has come and the other side is still there: what is kept for a next request must be so.
    pub(crate) fn is_quiet(&self) -> bool {
        matches!(self.try_read(&mut [0; 1]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Says at once that no more is coming.
    pub(crate) fn finish_writing(&self) {
        if let Some(tls) = &self.tls {
            tls.say_goodbye(&self.socket);
        }
        self.cut_off();
    }

    /// Ends the connection where it is. Within TLS nothing says that this was all.
    pub(crate) fn cut_off(&self) {
        // Whoever is gone already has nothing to be told.
        let _ = match &self.socket {
            Socket::Tcp(stream) => SockRef::from(stream).shutdown(Shutdown::Write),
            Socket::Unix(stream) => SockRef::from(stream).shutdown(Shutdown::Write),
        };
    }

    /// Lets the coming close be a reset, so that nobody takes half of something for the whole.
    pub(crate) fn reset_on_close(&self) {
        if let Socket::Tcp(stream) = &self.socket {
            let _ = SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO));
        }
    }
}

const BUFFER_BYTES: usize = 128 * 1024;
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
