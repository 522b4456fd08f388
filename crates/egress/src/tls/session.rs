//! rustls over a socket that is read and written when it is ready: no task, no buffer of its own beyond what rustls holds.

use std::{
    io::{self, Read, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::{Buf as _, BytesMut};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection,
    pki_types::ServerName,
};

use crate::{Reason, stream::Socket};

/// Why there is no TLS with an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TlsFault(pub(crate) Reason);

impl TlsFault {
    /// The connection broke, or what is not worth a reason of its own.
    const HANDSHAKE: Self = Self(Reason::TlsFailed);

    fn of(error: &rustls::Error) -> Self {
        Self(match error {
            rustls::Error::InvalidCertificate(error) => why(error),
            rustls::Error::NoCertificatesPresented => Reason::CertificateRefused,
            rustls::Error::InvalidMessage(_) => Reason::TlsNotSpoken,
            rustls::Error::PeerIncompatible(_) => Reason::TlsVersion,
            rustls::Error::AlertReceived(_) => Reason::TlsAlert,
            _ => Reason::TlsFailed,
        })
    }
}

/// One side of a TLS connection. Shared by both directions of a relay.
pub(crate) struct Tls {
    connection: Mutex<Connection>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection: Mutex::new(connection) }
    }

    pub(crate) fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, TlsFault> {
        let connection = ClientConnection::new(config, name).map_err(|_| TlsFault::HANDSHAKE)?;
        Ok(Self::new(connection.into()))
    }

    pub(crate) fn server(config: Arc<ServerConfig>) -> Result<Self, TlsFault> {
        let connection = ServerConnection::new(config).map_err(|_| TlsFault::HANDSHAKE)?;
        Ok(Self::new(connection.into()))
    }

    /// Goes on until both sides are agreed. `read` is what was read of the other side already.
    pub(crate) async fn shake_hands(&self, socket: &Socket, read: &mut BytesMut) -> Result<(), TlsFault> {
        loop {
            self.flush(socket).await.map_err(|_| TlsFault::HANDSHAKE)?;
            if !self.lock().is_handshaking() {
                return Ok(());
            }
            if !read.is_empty() {
                let taken = self.lock().read_tls(&mut &read[..]);
                read.advance(taken.map_err(|_| TlsFault::HANDSHAKE)?);
            } else {
                socket.readable().await.map_err(|_| TlsFault::HANDSHAKE)?;
                match self.lock().read_tls(&mut Ready(socket)) {
                    Ok(0) => return Err(TlsFault::HANDSHAKE),
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                    Err(_) => return Err(TlsFault::HANDSHAKE),
                }
            }
            let processed = self.lock().process_new_packets();
            if let Err(error) = processed {
                // The other side is told why, if it still listens.
                let _ = self.flush_now(socket);
                return Err(TlsFault::of(&error));
            }
        }
    }

    /// Whether something can be read without the socket.
    pub(crate) fn has_plaintext(&self) -> bool {
        self.lock().process_new_packets().is_ok_and(|state| state.plaintext_bytes_to_read() > 0)
    }

    /// What there is; 0 only where the other side has said that it was all.
    pub(crate) fn try_read(&self, socket: &Socket, buffer: &mut [u8]) -> io::Result<usize> {
        let mut connection = self.lock();
        loop {
            match connection.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return outcome,
            }
            match connection.read_tls(&mut Ready(socket)) {
                Ok(_) => {}
                Err(error) => {
                    // Tickets and key updates wait to be answered; where there is no room they wait on.
                    let _ = flush_now(&mut connection, socket);
                    return Err(error);
                }
            }
            if let Err(error) = connection.process_new_packets() {
                let _ = flush_now(&mut connection, socket);
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
    }

    /// Takes what there is room for. What was taken may wait for the socket: see [`Self::flush`].
    pub(crate) fn try_write(&self, socket: &Socket, bytes: &[u8]) -> io::Result<usize> {
        let mut connection = self.lock();
        flush_now(&mut connection, socket)?;
        let taken = connection.writer().write(bytes)?;
        match flush_now(&mut connection, socket) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(taken),
        }
    }

    /// Returns when the socket has everything.
    pub(crate) async fn flush(&self, socket: &Socket) -> io::Result<()> {
        loop {
            match self.flush_now(socket) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.writable().await?,
                outcome => return outcome,
            }
        }
    }

    /// Says that no more is coming, as far as there is room for it.
    pub(crate) fn say_goodbye(&self, socket: &Socket) {
        let mut connection = self.lock();
        connection.send_close_notify();
        let _ = flush_now(&mut connection, socket);
    }

    fn flush_now(&self, socket: &Socket) -> io::Result<()> {
        flush_now(&mut self.lock(), socket)
    }

    // Nothing here panics half-way through a change.
    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is wrong with a certificate. Its own words are not repeated.
fn why(error: &CertificateError) -> Reason {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => Reason::CertificateExpired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            Reason::CertificateNotYetValid
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            Reason::CertificateName
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => Reason::CertificateIssuer,
        CertificateError::Revoked => Reason::CertificateRevoked,
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            Reason::CertificatePurpose
        }
        _ => Reason::CertificateRefused,
    }
}

fn flush_now(connection: &mut Connection, socket: &Socket) -> io::Result<()> {
    while connection.wants_write() {
        if connection.write_tls(&mut Ready(socket))? == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
    Ok(())
}

/// A socket as rustls wants it.
struct Ready<'s>(&'s Socket);

impl Read for Ready<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Ready<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
