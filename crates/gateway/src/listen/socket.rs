//! A client's socket, seen by its connection: when the bytes of a head come, and whether an answer is waiting for its reader.
//! What hyper refuses by itself gets the contract's shape here. It must never change an answer of ours.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use palisade_protocol::{Error, ErrorKind};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::state::Connection;
use crate::error::ApiError;

/// How hyper's own refusals end, after their date; ours say more.
const REFUSAL_END: &[u8] = b"\r\n\r\n";
/// How they begin, and their longest.
const REFUSAL_BEGIN: &[u8] = b"HTTP/1.1 4";
const REFUSAL_BYTES_MAX: usize = 160;
/// What stands in each of them and in no answer of ours that has this status.
const REFUSAL_MARK: &[u8] = b"\r\nconnection: close\r\ncontent-length: 0\r\ndate: ";

pub(super) struct Socket {
    stream: TcpStream,
    connection: Arc<Connection>,
    /// What is sent in place of a refusal of hyper's, and how much of it has been.
    refusal: Option<(Vec<u8>, usize)>,
}

impl Socket {
    pub(super) fn new(stream: TcpStream, connection: Arc<Connection>) -> Self {
        Self { stream, connection, refusal: None }
    }

    fn poll_refusal(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some((answer, sent)) = &mut self.refusal {
            if *sent == answer.len() {
                break;
            }
            *sent += ready!(Pin::new(&mut self.stream).poll_write(cx, &answer[*sent..]))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Takes hyper's refusal, if this is one: the number of its bytes, which are not sent.
    fn replaced(&mut self, written: &[u8]) -> Option<usize> {
        let status = status_of_refusal(written)?;
        if self.connection.is_busy() {
            return None;
        }
        self.refusal = Some((answer_to_the_unread(refused_head(status)), 0));
        Some(written.len())
    }

    fn noted(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.connection.has_written(written.is_ready());
        written
    }
}

fn status_of_refusal(written: &[u8]) -> Option<u16> {
    let is_refusal = written.len() <= REFUSAL_BYTES_MAX
        && written.starts_with(REFUSAL_BEGIN)
        && written.ends_with(REFUSAL_END)
        && written.windows(REFUSAL_MARK.len()).any(|part| part == REFUSAL_MARK);
    let digits = if is_refusal { written.get(9..12)? } else { return None };
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// What is wrong with a head that hyper did not take.
fn refused_head(status: u16) -> Error {
    match status {
        431 => crate::extract::head_too_large(),
        414 => Error::new(ErrorKind::HeadTooLarge, "request.uri_too_long", "the request's URI is too long"),
        _ => Error::new(
            ErrorKind::Malformed,
            "request.malformed_head",
            "the request's head is not HTTP/1.1 (RFC 9112)",
        ),
    }
}

/// An answer as bytes, for a request that never became one. The connection ends with it.
pub(super) fn answer_to_the_unread(error: Error) -> Vec<u8> {
    let (status, retry_after_s, body) = ApiError(error).into_parts();
    let reason = status.canonical_reason().unwrap_or("Error");
    let retry = retry_after_s.map_or(String::new(), |seconds| format!("retry-after: {seconds}\r\n"));
    format!(
        "HTTP/1.1 {} {reason}\r\nconnection: close\r\ncontent-type: application/json\r\n{retry}content-length: {}\r\n\r\n{body}",
        status.as_u16(),
        body.len()
    )
    .into_bytes()
}

impl Drop for Socket {
    fn drop(&mut self) {
        // As much as the system takes at once: the connection is at its end, and nobody waits for its reader.
        if let Some(error) = self.connection.farewell() {
            let _ = self.stream.try_write(&answer_to_the_unread(error));
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.connection.has_read();
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(length) = self.replaced(bytes) {
            return Poll::Ready(Ok(length));
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.noted(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [only] = parts
            && let Some(length) = self.replaced(only)
        {
            return Poll::Ready(Ok(length));
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.noted(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_refusal(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_refusal(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hypers_own_refusals_are_taken_for_such() {
        let own = "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\
                   date: Tue, 01 Dec 2026 09:00:00 GMT\r\n\r\n";
        assert_eq!(status_of_refusal(own.as_bytes()), Some(431));
        for other in [
            &own[..own.len() - 1],
            &own.replace("431", "200"),
            &own.replace("connection: close\r\n", "x-request-id: 1\r\n"),
            &format!("{own}{own}"),
            "",
        ] {
            assert_eq!(status_of_refusal(other.as_bytes()), None, "{other}");
        }
    }
}
