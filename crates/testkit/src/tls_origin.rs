//! An HTTP origin behind TLS: it keeps every request as it came, and answers as a test wants. Its certificate is good for the names it
//! was started with, by an authority that nobody trusts unless told to.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Respond = dyn Fn(&str) -> Vec<u8> + Send + Sync;

/// The origin. It stops when it is dropped.
pub struct TlsOrigin {
    address: SocketAddr,
    authority_pem: String,
    seen: Arc<Seen>,
    _accepting: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Seen {
    requests: Mutex<Vec<String>>,
    connections: AtomicUsize,
    handshakes: AtomicUsize,
}

impl TlsOrigin {
    /// Listens on a port of its own, as these hosts; each request is answered with the bytes that `respond` makes of it.
    /// `Connection: close` in them ends the connection in good order, `Connection: cut` without TLS being told.
    pub async fn start(
        names: &[&str],
        respond: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static,
    ) -> Result<Self, BoxError> {
        Self::start_with(certified(CertificateParams::new(hosts(names))?)?, respond).await
    }

    /// The same with a certificate whose time is over.
    pub async fn start_expired(
        names: &[&str],
        respond: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static,
    ) -> Result<Self, BoxError> {
        let mut params = CertificateParams::new(hosts(names))?;
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        Self::start_with(certified(params)?, respond).await
    }

    async fn start_with(
        (config, authority_pem): (ServerConfig, String),
        respond: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static,
    ) -> Result<Self, BoxError> {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (seen, respond): (Arc<Seen>, Arc<Respond>) = (Arc::default(), Arc::new(respond));
        let (kept, tasks) = (seen.clone(), TaskTracker::new());
        let accepting = tasks.clone().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, seen, respond) = (acceptor.clone(), seen.clone(), respond.clone());
                seen.connections.fetch_add(1, Relaxed);
                tasks.spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        seen.handshakes.fetch_add(1, Relaxed);
                        // A test looks at what came, and not at how it ended.
                        let _ = serve(stream, &seen, &*respond).await;
                    }
                });
            }
        });
        let accepting = AbortOnDropHandle::new(accepting);
        Ok(Self { address, authority_pem, seen: kept, _accepting: accepting })
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Who has to be trusted to believe it.
    pub fn authority_pem(&self) -> &str {
        &self.authority_pem
    }

    /// Every request so far, head and body.
    pub fn requests(&self) -> Vec<String> {
        self.seen.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.seen.connections.load(Relaxed)
    }

    /// Connections that came to TLS.
    pub fn handshakes(&self) -> usize {
        self.seen.handshakes.load(Relaxed)
    }
}

fn hosts(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

fn certified(leaf: CertificateParams) -> Result<(ServerConfig, String), BoxError> {
    let (authority_key, key) = (KeyPair::generate()?, KeyPair::generate()?);
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_pem = params.self_signed(&authority_key)?.pem();
    let issuer = Issuer::new(params, authority_key);
    let leaf = leaf.signed_by(&key, &issuer)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![leaf.into()], key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok((config, authority_pem))
}

/// One request after the other, until one side closes.
async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    seen: &Seen,
    respond: &Respond,
) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    loop {
        let length = loop {
            if let Some(length) = whole_request(&bytes) {
                break length;
            }
            let mut piece = [0; 4096];
            match stream.read(&mut piece).await? {
                0 => return Ok(()),
                count => bytes.extend_from_slice(&piece[..count]),
            }
        };
        let request: Vec<u8> = bytes.drain(..length).collect();
        let request = String::from_utf8_lossy(&request).into_owned();
        let answer = respond(&request);
        seen.requests.lock().unwrap_or_else(PoisonError::into_inner).push(request);
        stream.write_all(&answer).await?;
        stream.flush().await?;
        // Gone without a goodbye, as many servers go.
        if answer.windows(15).any(|window| window.eq_ignore_ascii_case(b"connection: cut")) {
            return Ok(());
        }
        if answer.windows(17).any(|window| window.eq_ignore_ascii_case(b"connection: close")) {
            return stream.shutdown().await;
        }
    }
}

/// The length of the request at the front, when all of it is there.
fn whole_request(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    if text.contains("transfer-encoding: chunked") {
        let end = bytes[head..].windows(5).position(|window| window == b"0\r\n\r\n")?;
        return Some(head + end + 5);
    }
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    Some(head + length.unwrap_or(0)).filter(|length| *length <= bytes.len())
}
