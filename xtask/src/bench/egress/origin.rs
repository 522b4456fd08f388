//! What stands behind the proxies: an origin that takes a ClientHello for what it is, the beginning of a tunnel, then reads how many bytes it
//! is to send. It keeps nothing, because it shares the cores with what is measured.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const PIECE_BYTES: usize = 256 * 1024;
/// The head of a TLS record.
const RECORD_HEAD_BYTES: usize = 5;

/// The origin. It stops when it is dropped.
pub(super) struct Origin {
    pub(super) address: SocketAddr,
    _accepting: JoinSet<()>,
}

impl Origin {
    pub(super) async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("starting an origin")?;
        let address = listener.local_addr().context("starting an origin")?;
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut tunnels = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                // How a tunnel ends is its client's affair.
                tunnels.spawn(async move { serve(stream).await.is_ok() });
                while tunnels.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, _accepting: accepting })
    }
}

/// What a client sends through a tunnel to get so many bytes.
pub(super) fn ask(hello: &[u8], length: u64) -> Vec<u8> {
    [hello, &length.to_be_bytes()].concat()
}

async fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut head = [0; RECORD_HEAD_BYTES];
    stream.read_exact(&mut head).await?;
    let mut record = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
    stream.read_exact(&mut record).await?;
    let mut left = stream.read_u64().await?;
    let piece = vec![b'x'; PIECE_BYTES.min(usize::try_from(left).unwrap_or(PIECE_BYTES))];
    while left > 0 {
        let count = piece.len().min(usize::try_from(left).unwrap_or(PIECE_BYTES));
        stream.write_all(&piece[..count]).await?;
        left -= count as u64;
    }
    // Until the client goes.
    stream.read(&mut head).await.map(drop)
}
