//! The proxy's own threads, each an executor by itself. A connection stays on one: its two legs, its look-up and its record wake each other
//! all the time, and between threads each of these wakes costs more than what it is for. Nothing here may block.

use std::{
    io,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use tokio::{
    net::{TcpStream, UnixStream},
    runtime::{Builder, Handle, Runtime},
};

use crate::Stream;

/// More threads than this pass no more bytes: the network is slower.
const THREADS_MAX: usize = 16;

/// One executor for each core, in turn.
pub(super) struct Threads {
    executors: Vec<Runtime>,
    next: AtomicUsize,
}

impl Threads {
    pub(super) fn start() -> io::Result<Self> {
        let count = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        let start =
            |_| Builder::new_multi_thread().worker_threads(1).thread_name("egress").enable_all().build();
        Ok(Self { executors: (0..count).map(start).collect::<io::Result<_>>()?, next: AtomicUsize::new(0) })
    }

    /// Where the next connection goes.
    pub(super) fn next(&self) -> Option<&Handle> {
        let at = self.next.fetch_add(1, Relaxed) % self.executors.len().max(1);
        self.executors.get(at).map(Runtime::handle)
    }
}

impl Drop for Threads {
    /// The last clone of a proxy may go in a task, where nobody may wait.
    fn drop(&mut self) {
        self.executors.drain(..).for_each(Runtime::shutdown_background);
    }
}

/// A connection that was accepted on one thread, on its way to another.
pub(super) enum Arrived {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

impl TryFrom<TcpStream> for Arrived {
    type Error = io::Error;

    fn try_from(stream: TcpStream) -> io::Result<Self> {
        stream.into_std().map(Self::Tcp)
    }
}

impl TryFrom<UnixStream> for Arrived {
    type Error = io::Error;

    fn try_from(stream: UnixStream) -> io::Result<Self> {
        stream.into_std().map(Self::Unix)
    }
}

impl Arrived {
    /// Goes on on this thread.
    pub(super) fn here(self) -> io::Result<Stream> {
        Ok(match self {
            Self::Tcp(stream) => TcpStream::from_std(stream)?.into(),
            Self::Unix(stream) => UnixStream::from_std(stream)?.into(),
        })
    }
}
