//! The least that a tunnel can cost: a relay that reads a CONNECT to its empty line, looks at none of it, and connects to the one place it
//! knows. No policy, no look-up, no log, one thread. It is a process of its own, like what is held against it.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional_with_sizes};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const HEAD_BYTES_MAX: usize = 4096;
const BUFFER_BYTES: usize = 64 * 1024;

/// What the child is told, and nobody else has a use for.
#[derive(Debug, clap::Args)]
pub(crate) struct RelayArgs {
    listen: SocketAddr,
    origin: SocketAddr,
}

/// Runs until it is killed.
pub(crate) fn child(args: &RelayArgs) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting")?;
    runtime.block_on(async {
        let listener = TcpListener::bind(args.listen).await.context("listening")?;
        let mut tunnels = JoinSet::new();
        loop {
            let (client, _) = listener.accept().await.context("accepting")?;
            let origin = args.origin;
            // How a tunnel ends is its client's affair.
            tunnels.spawn(async move { relay(client, origin).await.is_ok() });
            while tunnels.try_join_next().is_some() {}
        }
    })
}

async fn relay(mut client: TcpStream, origin: SocketAddr) -> Result<()> {
    let mut head = Vec::with_capacity(HEAD_BYTES_MAX);
    while !head.ends_with(b"\r\n\r\n") {
        let count = client.read_buf(&mut head).await.context("reading")?;
        ensure!(count > 0 && head.len() < HEAD_BYTES_MAX, "the head has no end");
    }
    let mut upstream = TcpStream::connect(origin).await.context("connecting")?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.context("answering")?;
    for stream in [&client, &upstream] {
        stream.set_nodelay(true).context("setting TCP_NODELAY")?;
    }
    copy_bidirectional_with_sizes(&mut client, &mut upstream, BUFFER_BYTES, BUFFER_BYTES)
        .await
        .context("relaying")
        .map(drop)
}
