//! A recording origin: a TCP server on loopback that keeps every byte of every connection, so that a test can say that nothing arrived.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::wait_for;

/// What the origin does with a connection.
#[derive(Debug, Clone)]
pub enum Manner {
    /// Reads, says nothing, and goes on reading.
    Silent,
    /// Sends back what it gets, and its end.
    Echo,
    /// Sends this as soon as it has something, and closes when the client does.
    Answer(Vec<u8>),
    /// Sends this as soon as it has something, and closes at once.
    AnswerAndClose(Vec<u8>),
    /// Sends this at once, before it has read anything.
    Greet(Vec<u8>),
    /// Resets as soon as it has something.
    Reset,
    /// Reads nothing at all.
    Stalled,
}

/// One connection, so far.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// What came.
    pub bytes: Vec<u8>,
    /// Whether it ended well.
    pub ended: bool,
    /// Whether it broke.
    pub broken: bool,
}

/// The origin. It stops when it is dropped.
pub struct Origin {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    _accepting: AbortOnDropHandle<()>,
}

impl Origin {
    /// Listens on a port of its own.
    pub async fn start(manner: Manner) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let connections = seen.clone();
        let tasks = TaskTracker::new();
        let accepting = tasks.clone().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let seen = connections.clone();
                let number = change(&seen, |seen| {
                    seen.push(Seen::default());
                    seen.len() - 1
                });
                let manner = manner.clone();
                tasks.spawn(async move {
                    let outcome = serve(stream, manner, &seen, number).await;
                    change(&seen, |seen| match outcome {
                        Ok(()) => seen[number].ended = true,
                        Err(_) => seen[number].broken = true,
                    });
                });
            }
        });
        Ok(Self { address, seen, _accepting: AbortOnDropHandle::new(accepting) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Every connection so far.
    pub fn seen(&self) -> Vec<Seen> {
        change(&self.seen, |seen| seen.clone())
    }

    /// All bytes of all connections.
    pub fn bytes(&self) -> Vec<u8> {
        self.seen().into_iter().flat_map(|seen| seen.bytes).collect()
    }

    /// Waits until this is among what came.
    pub async fn wait_for_text(&self, text: &str) {
        let arrived = || async { String::from_utf8_lossy(&self.bytes()).contains(text).then_some(()) };
        wait_for(text, arrived).await;
    }

    /// Waits until this many connections have ended, in whichever way.
    pub async fn wait_for_ends(&self, count: usize) {
        let ends = || async {
            let over = self.seen().iter().filter(|seen| seen.ended || seen.broken).count();
            (over >= count).then_some(())
        };
        wait_for("connections of the origin to end", ends).await;
    }
}

fn change<T>(seen: &Mutex<Vec<Seen>>, with: impl FnOnce(&mut Vec<Seen>) -> T) -> T {
    with(&mut seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
}

async fn serve(
    mut stream: TcpStream,
    manner: Manner,
    seen: &Mutex<Vec<Seen>>,
    number: usize,
) -> std::io::Result<()> {
    match &manner {
        Manner::Greet(greeting) => stream.write_all(greeting).await?,
        Manner::Stalled => return std::future::pending().await,
        _ => {}
    }
    let mut buffer = vec![0; 64 * 1024];
    let mut answered = false;
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        change(seen, |seen| seen[number].bytes.extend_from_slice(&buffer[..count]));
        match &manner {
            Manner::Echo => stream.write_all(&buffer[..count]).await?,
            Manner::Answer(answer) if !answered => stream.write_all(answer).await?,
            Manner::AnswerAndClose(answer) => {
                stream.write_all(answer).await?;
                return stream.shutdown().await;
            }
            Manner::Reset => return stream.set_zero_linger(),
            _ => {}
        }
        answered = true;
    }
}
