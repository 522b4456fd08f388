//! The clients: tunnels one after the other on some lanes at once, tunnels that carry much, tunnels that carry nothing, and TLS with
//! requests through a proxy that opens it. The same for every proxy.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;
use palisade_testkit::probes::client_hello;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::origin::ask;

/// Clients at a time.
pub(super) const LANES: usize = 16;
/// What a short tunnel brings back.
const FEW_BYTES: u64 = 16;
const HEAD_BYTES_MAX: usize = 4096;
const PIECE_BYTES: usize = 256 * 1024;

/// Where clients go: a proxy, and a host behind it.
pub(super) struct Target {
    pub(super) proxy: SocketAddr,
    pub(super) host: String,
    pub(super) port: u16,
    hello: Vec<u8>,
}

impl Target {
    pub(super) fn new(proxy: SocketAddr, host: &str, port: u16) -> Self {
        Self { proxy, host: host.to_owned(), port, hello: client_hello(host) }
    }

    /// So many tunnels, each with a ClientHello, a few bytes back, and a close. Returns the time of all.
    pub(super) async fn tunnels(&self, count: usize) -> Result<Duration> {
        let began = Instant::now();
        let lane = async || {
            for _ in 0..count.div_ceil(LANES) {
                self.fetch(FEW_BYTES).await?;
            }
            anyhow::Ok(())
        };
        try_join_all((0..LANES).map(|_| lane())).await?;
        Ok(began.elapsed())
    }

    /// So many bytes through one tunnel.
    pub(super) async fn relay(&self, bytes: u64) -> Result<Duration> {
        let began = Instant::now();
        self.fetch(bytes).await?;
        Ok(began.elapsed())
    }

    /// A tunnel that brings so many bytes; they are read, and it stays.
    pub(super) async fn fetch(&self, bytes: u64) -> Result<TcpStream> {
        let mut stream = self.connect().await?;
        stream.write_all(&ask(&self.hello, bytes)).await.context("sending through a tunnel")?;
        read_through(&mut stream, bytes).await?;
        Ok(stream)
    }

    /// A tunnel that is established.
    async fn connect(&self) -> Result<TcpStream> {
        let mut stream = TcpStream::connect(self.proxy).await.context("connecting to a proxy")?;
        stream.set_nodelay(true).context("setting TCP_NODELAY")?;
        let (host, port) = (&self.host, self.port);
        let head = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.context("asking for a tunnel")?;
        read_answer(&mut stream, 0).await.context("asking for a tunnel")?;
        Ok(stream)
    }
}

/// Clients of a host whose TLS the proxy opens.
pub(super) struct Intercepted {
    target: Target,
    connector: TlsConnector,
}

impl Intercepted {
    pub(super) fn new(target: Target, trust_anchor: &Path) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        let anchor = CertificateDer::from_pem_file(trust_anchor).context("reading the proxy's authority")?;
        roots.add(anchor).context("believing the proxy's authority")?;
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .context("setting TLS up")?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // Each tunnel is a new one.
        config.resumption = Resumption::disabled();
        Ok(Self { target, connector: Arc::new(config).into() })
    }

    /// So many new tunnels with one request each.
    pub(super) async fn tunnels(&self, count: usize) -> Result<()> {
        let lane = async || {
            for _ in 0..count.div_ceil(LANES) {
                self.get(&mut self.open().await?).await?;
            }
            anyhow::Ok(())
        };
        try_join_all((0..LANES).map(|_| lane())).await.map(drop)
    }

    /// A tunnel on each lane, on which one request was made already.
    pub(super) async fn open_all(&self) -> Result<Vec<TlsStream<TcpStream>>> {
        try_join_all((0..LANES).map(|_| async {
            let mut stream = self.open().await?;
            self.get(&mut stream).await?;
            anyhow::Ok(stream)
        }))
        .await
    }

    /// So many requests on tunnels that are open.
    pub(super) async fn requests(&self, tunnels: &mut [TlsStream<TcpStream>], count: usize) -> Result<()> {
        let each = count.div_ceil(LANES);
        let lane = async |stream: &mut TlsStream<TcpStream>| {
            for _ in 0..each {
                self.get(stream).await?;
            }
            anyhow::Ok(())
        };
        try_join_all(tunnels.iter_mut().map(lane)).await.map(drop)
    }

    async fn open(&self) -> Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(self.target.host.clone()).context("the host's name")?;
        let stream = self.target.connect().await?;
        self.connector.connect(name, stream).await.context("TLS with the proxy")
    }

    async fn get(&self, stream: &mut TlsStream<TcpStream>) -> Result<()> {
        let (host, port) = (&self.target.host, self.target.port);
        let request = format!("GET / HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.context("asking in a tunnel")?;
        read_answer(stream, ANSWER.len()).await
    }
}

/// What the origin whose TLS is opened answers with.
pub(super) const ANSWER: &str = "as many words as a short answer has";

/// Reads a 200 and so many bytes behind its head.
async fn read_answer(stream: &mut (impl AsyncRead + Unpin), body: usize) -> Result<()> {
    let mut answer = Vec::with_capacity(HEAD_BYTES_MAX);
    let head = loop {
        let count = stream.read_buf(&mut answer).await.context("reading an answer")?;
        if let Some(end) = answer.windows(4).position(|end| end == b"\r\n\r\n") {
            break end + 4;
        }
        ensure!(count > 0 && answer.len() < HEAD_BYTES_MAX, "the head has no end");
    };
    ensure!(answer.starts_with(b"HTTP/1.1 200 "), "refused: {}", answer.escape_ascii());
    let left = (head + body).checked_sub(answer.len()).context("an answer is longer than it should be")?;
    read_through(stream, left as u64).await
}

async fn read_through(stream: &mut (impl AsyncRead + Unpin), mut left: u64) -> Result<()> {
    let mut piece = vec![0; PIECE_BYTES.min(usize::try_from(left).unwrap_or(PIECE_BYTES))];
    while left > 0 {
        let count = stream.read(&mut piece).await.context("reading through a tunnel")? as u64;
        ensure!(count > 0 && count <= left, "a tunnel brought other bytes than it was asked for");
        left -= count;
    }
    Ok(())
}
