//! A way to PostgreSQL that can be cut at a COMMIT: before the database has it, or before its answer is heard.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use palisade_testkit::postgres::Postgres;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};

/// Where the connection breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    BeforeCommit = 1,
    AfterCommit = 2,
}

pub(crate) struct CuttingProxy {
    pub(crate) url: String,
    armed: Arc<AtomicU8>,
}

/// A simple query: its kind, its length, its text and a zero.
const COMMIT: &[u8] = b"Q\0\0\0\x0bCOMMIT\0";

impl CuttingProxy {
    /// On a free port of loopback.
    pub(crate) async fn start(postgres: &Postgres, url: &str) -> Self {
        let socket = postgres.socket();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let database = url.rsplit('/').next().unwrap();
        let armed = Arc::new(AtomicU8::new(0));
        let of_connections = armed.clone();
        tokio::runtime::Handle::current().spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::runtime::Handle::current().spawn(relay(
                    client,
                    socket.clone(),
                    of_connections.clone(),
                ));
            }
        });
        Self { url: format!("postgres://palisade@127.0.0.1:{port}/{database}?sslmode=disable"), armed }
    }

    /// Cuts the connection that sends the next COMMIT.
    pub(crate) fn cut_next(&self, cut: Cut) {
        self.armed.store(cut as u8, Ordering::SeqCst);
    }

    /// Whether the cut is still to come.
    pub(crate) fn is_armed(&self) -> bool {
        self.armed.load(Ordering::SeqCst) != 0
    }
}

async fn relay(mut client: TcpStream, socket: PathBuf, armed: Arc<AtomicU8>) {
    let mut server = UnixStream::connect(socket).await.unwrap();
    let (mut asked, mut answered) = ([0; 16 * 1024], [0; 16 * 1024]);
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let Ok(bytes @ 1..) = read else { return };
                let cut = if asked[..bytes].ends_with(COMMIT) { armed.swap(0, Ordering::SeqCst) } else { 0 };
                if cut == Cut::BeforeCommit as u8 {
                    return;
                }
                server.write_all(&asked[..bytes]).await.unwrap();
                if cut == Cut::AfterCommit as u8 {
                    // The database has answered, and nobody hears it.
                    let _ = server.read(&mut answered).await;
                    return;
                }
            }
            read = server.read(&mut answered) => {
                let Ok(bytes @ 1..) = read else { return };
                if client.write_all(&answered[..bytes]).await.is_err() {
                    return;
                }
            }
        }
    }
}
