//! One connection to its end, HTTP/1.1 or HTTP/2, whichever the client begins with.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Version;
use axum::response::Response;
use hyper::Request;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::service::Service as _;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use palisade_protocol::limits;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::socket::Socket;
use super::state::{Connection, Overdue, Times};
use crate::admission::{Admission, Visit};

/// A reader that takes nothing for so long is gone (decision 33), in milliseconds.
const STALLED_READER_MS: u32 = 120_000;
/// What a connection may hold of a request's head, and of an answer that its reader does not take. Over the longest head that
/// is answered in the contract's shape.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// A peer of HTTP/2 that is gone without a word is noticed by its silence after this.
const PING_EVERY: Duration = Duration::from_secs(30);
/// What may be under way to us on one stream of HTTP/2, and on all of a connection, in bytes: what is not read yet is held.
const HTTP2_STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 512 * 1024;
/// Streams that were reset before they were looked at, and by us for the peer's mistakes; a peer with more is cut off.
const HTTP2_RESET_STREAMS_MAX: usize = 20;
const HTTP2_FAULTY_STREAMS_MAX: usize = 100;
/// How long a connection may take that was told that it is at its end.
const CLOSING: Duration = Duration::from_secs(1);

/// What all connections share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) router: Router,
    pub(super) admission: Arc<Admission>,
    pub(super) times: Times,
    pub(super) stopping: CancellationToken,
}

enum Happened {
    Ended(Result<(), Box<dyn std::error::Error + Send + Sync>>),
    Overdue(Overdue),
}

pub(super) async fn serve_connection(stream: TcpStream, state: Arc<Connection>, shared: Shared) {
    prepare(&stream);
    let Shared { router, admission, mut times, stopping } = shared;
    let routes = TowerToHyperService::new(router);
    let visited = Arc::clone(&state);
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        let is_http2 = request.version() == Version::HTTP_2;
        let visit = Visit::begin(Arc::clone(&admission), Arc::clone(&visited), is_http2);
        request.extensions_mut().insert(Arc::clone(&visit));
        let answer = routes.call(request);
        async move {
            let response: Response = answer.await?;
            Ok::<_, Infallible>(response.map(|body| Answer { body, _visit: visit }))
        }
    });
    let builder = builder();
    let socket = TokioIo::new(Socket::new(stream, Arc::clone(&state)));
    let mut connection = pin!(builder.serve_connection(socket, service));
    let mut timer = pin!(tokio::time::sleep_until(state.deadline(times).into()));
    let (mut is_running, mut is_closing) = (true, false);
    let ended = loop {
        let happens = poll_fn(|cx| {
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(Happened::Ended(ended));
            }
            // Only a nearer end is worth a change: one that has moved away is found when the timer fires.
            let deadline = state.deadline(times).into();
            if deadline < timer.deadline() {
                timer.as_mut().reset(deadline);
            }
            while timer.as_mut().poll(cx).is_ready() {
                if let Some(why) = state.overdue(times) {
                    return Poll::Ready(Happened::Overdue(why));
                }
                timer.as_mut().reset(state.deadline(times).into());
            }
            Poll::Pending
        });
        tokio::select! {
            biased;
            () = state.makes_room() => return,
            () = stopping.cancelled(), if is_running => {
                is_running = false;
                connection.as_mut().graceful_shutdown();
            }
            happened = happens => match happened {
                Happened::Ended(ended) => break ended,
                Happened::Overdue(Overdue::Head) => return state.gives_up_head(),
                Happened::Overdue(Overdue::Idle) if is_closing => return,
                Happened::Overdue(Overdue::Idle) => {
                    state.is_idle_for_too_long();
                    (is_running, is_closing) = (false, true);
                    times.idle = CLOSING;
                    state.touch();
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error, "a connection broke");
    }
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // Heads are timed by the connection's own clock, which knows a half head from an idle connection.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(BUFFER_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .max_concurrent_streams(limits::HTTP2_STREAMS_MAX)
        .max_header_list_size(2 * limits::REQUEST_HEAD_BYTES_MAX as u32)
        .max_pending_accept_reset_streams(HTTP2_RESET_STREAMS_MAX)
        .max_local_error_reset_streams(HTTP2_FAULTY_STREAMS_MAX)
        .initial_stream_window_size(HTTP2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(HTTP2_CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(BUFFER_BYTES_MAX);
    builder
}

fn prepare(stream: &TcpStream) {
    // An event is worth a packet of its own.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY was not set");
    }
    if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(stream, STALLED_READER_MS) {
        tracing::debug!(%error, "TCP_USER_TIMEOUT was not set");
    }
}

/// An answer's body, for whose length the request is in flight.
struct Answer {
    body: Body,
    _visit: Arc<Visit>,
}

impl hyper::body::Body for Answer {
    type Data = bytes::Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
