//! Raw probes of a forward proxy: what it is sent, byte for byte, and how to tell from what reached the origin whether it let that through.
//! One list for the egress proxy's own test and for the scoreboard beside its peers. A proxy under probe allows one host and one port,
//! and nothing else.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, crypto::aws_lc_rs};

use crate::origin::{Manner, Origin};

/// The one host that is allowed: every system resolves it, so that no peer needs a name server of ours.
pub const HOST: &str = "localhost";
/// Nothing more is expected of a proxy, or of what it lets through, when neither has said anything for so long.
const SILENCE: Duration = Duration::from_secs(1);
/// Between two looks at the origin.
const PAUSE: Duration = Duration::from_millis(5);

/// One probe. `PORT` in what is sent stands for the allowed port, `PAST` for that and 65,536 more, `OTHER` for a port that is not allowed and has
/// an origin too.
pub struct Probe {
    /// The case that it tries, of those in the egress proxy's `CASES.md`.
    pub case: &'static str,
    /// What is sent, in one line.
    pub sends: &'static str,
    head: &'static str,
    then: Then,
    let_through: fn(&str) -> bool,
}

/// What follows a 200 to a CONNECT.
enum Then {
    Nothing,
    Hello(&'static str),
    Bytes(&'static [u8]),
}

/// How a proxy took a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing reached an origin.
    Refused,
    /// Something did, and not what was tried.
    Normalised,
    /// It did.
    LetThrough,
}

/// The origins behind a proxy under probe.
pub struct Origins {
    /// At the port that is allowed.
    pub allowed: Origin,
    /// At one that is not.
    pub other: Origin,
}

impl Origins {
    /// Both, on ports of their own.
    pub async fn start() -> std::io::Result<Self> {
        Ok(Self {
            allowed: Origin::start(Manner::Silent).await?,
            other: Origin::start(Manner::Silent).await?,
        })
    }

    fn connections(&self) -> [usize; 2] {
        [self.allowed.seen().len(), self.other.seen().len()]
    }

    /// What came on connections since then.
    fn arrived(&self, since: [usize; 2]) -> Vec<u8> {
        let seen = [&self.allowed, &self.other].into_iter().zip(since);
        let new = seen.flat_map(|(origin, since)| origin.seen().into_iter().skip(since));
        new.flat_map(|connection| connection.bytes).collect()
    }
}

/// Sends one probe and waits until it is clear what became of it.
pub async fn send(proxy: SocketAddr, origins: &Origins, probe: &Probe) -> std::io::Result<Outcome> {
    let since = origins.connections();
    let mut client = TcpStream::connect(proxy).await?;
    // Whoever refuses early may be gone before all of it was sent.
    let _ = client.write_all(&fill(probe.head, origins)).await;
    let mut told = Vec::new();
    if probe.head.starts_with("CONNECT ") {
        let end = b"\r\n\r\n";
        while !told.ends_with(end) && read_some(&mut client, &mut told).await {}
        if is_established(&told) {
            let bytes = match probe.then {
                Then::Nothing => Vec::new(),
                Then::Hello(name) => client_hello(name),
                Then::Bytes(bytes) => bytes.to_vec(),
            };
            let _ = client.write_all(&bytes).await;
        }
    }
    let arrived = settle(&mut client, origins, since, probe).await;
    Ok(match arrived.as_slice() {
        [] => Outcome::Refused,
        _ if (probe.let_through)(&String::from_utf8_lossy(&arrived)) => Outcome::LetThrough,
        _ => Outcome::Normalised,
    })
}

/// What arrived, once the proxy has ended the connection or nothing has moved for a while.
async fn settle(client: &mut TcpStream, origins: &Origins, since: [usize; 2], probe: &Probe) -> Vec<u8> {
    let mut ended = false;
    let mut last = (std::time::Instant::now(), 0);
    loop {
        let arrived = origins.arrived(since);
        let is_clear = (probe.let_through)(&String::from_utf8_lossy(&arrived)) && !arrived.is_empty()
            || is_harmless(&arrived, probe);
        if is_clear || ended || last.0.elapsed() > SILENCE {
            return arrived;
        }
        if arrived.len() != last.1 {
            last = (std::time::Instant::now(), arrived.len());
        }
        let mut piece = Vec::new();
        let read = tokio::time::timeout(PAUSE, client.read_buf(&mut piece)).await;
        ended = matches!(read, Ok(Ok(0) | Err(_)));
    }
}

/// A request without a body, all of which has come: nothing more will.
fn is_harmless(arrived: &[u8], probe: &Probe) -> bool {
    probe.head.starts_with("GET ") && arrived.ends_with(b"\r\n\r\n")
}

async fn read_some(client: &mut TcpStream, told: &mut Vec<u8>) -> bool {
    let read = tokio::time::timeout(10 * SILENCE, client.read_buf(told)).await;
    matches!(read, Ok(Ok(count)) if count > 0) && told.len() < 64 * 1024
}

fn is_established(told: &[u8]) -> bool {
    told.starts_with(b"HTTP/1.1 200 ") || told.starts_with(b"HTTP/1.0 200 ")
}

fn fill(text: &str, origins: &Origins) -> Vec<u8> {
    let port = origins.allowed.port();
    text.replace("PORT", &port.to_string())
        .replace("PAST", &(u32::from(port) + 65_536).to_string())
        .replace("OTHER", &origins.other.port().to_string())
        .into_bytes()
}

/// A ClientHello for this name, as a real library writes it.
pub fn client_hello(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map(|config| config.with_root_certificates(RootCertStore::empty()).with_no_client_auth());
    if let (Ok(config), Ok(name)) = (config, name.to_owned().try_into())
        && let Ok(mut client) = ClientConnection::new(config.into(), name)
    {
        // A vector takes whatever it is given.
        let _ = client.write_tls(&mut bytes);
    }
    bytes
}

/// Two requests that every proxy under probe must let through, or the rest would say nothing.
pub const CONTROLS: [Probe; 2] = [
    connect("", "the allowed tunnel", "CONNECT localhost:PORT HTTP/1.1\r\nHost: localhost:PORT\r\n\r\n"),
    request(
        "",
        "the allowed request",
        "GET http://localhost:PORT/ HTTP/1.1\r\nHost: localhost:PORT\r\nConnection: close\r\n\r\n",
        |_| true,
    ),
];

const fn connect(case: &'static str, sends: &'static str, head: &'static str) -> Probe {
    Probe { case, sends, head, then: Then::Hello(HOST), let_through: |_| true }
}

const fn tunnel(case: &'static str, sends: &'static str, then: Then) -> Probe {
    let head = "CONNECT localhost:PORT HTTP/1.1\r\nHost: localhost:PORT\r\n\r\n";
    Probe { case, sends, head, then, let_through: |_| true }
}

const fn request(
    case: &'static str,
    sends: &'static str,
    head: &'static str,
    let_through: fn(&str) -> bool,
) -> Probe {
    Probe { case, sends, head, then: Then::Nothing, let_through }
}

macro_rules! authority {
    ($case:literal, $authority:literal) => {
        connect(
            $case,
            concat!("`CONNECT ", $authority, "`"),
            concat!("CONNECT ", $authority, " HTTP/1.1\r\n\r\n"),
        )
    };
    ($case:literal, $authority:literal, $shown:literal) => {
        connect(
            $case,
            concat!("`CONNECT ", $shown, "`"),
            concat!("CONNECT ", $authority, " HTTP/1.1\r\n\r\n"),
        )
    };
}

macro_rules! post {
    ($case:literal, $sends:literal, $fields:literal, $body:literal, $through:expr) => {
        request(
            $case,
            $sends,
            concat!(
                "POST http://localhost:PORT/ HTTP/1.1\r\nHost: localhost:PORT\r\nConnection: close\r\n",
                $fields,
                "\r\n",
                $body
            ),
            $through,
        )
    };
}

macro_rules! get {
    ($case:literal, $sends:literal, $fields:literal, $through:expr) => {
        request(
            $case,
            $sends,
            concat!(
                "GET http://localhost:PORT/ HTTP/1.1\r\nHost: localhost:PORT\r\nConnection: close\r\n",
                $fields,
                "\r\n"
            ),
            $through,
        )
    };
}

/// How often a field's name stands at the beginning of a line.
fn count(arrived: &str, field: &str) -> usize {
    arrived.lines().filter(|line| line.to_ascii_lowercase().starts_with(field)).count()
}

fn has_both_framings(arrived: &str) -> bool {
    count(arrived, "content-length:") > 0 && count(arrived, "transfer-encoding:") > 0
}

/// Whether the length's field says this.
fn length_is(arrived: &str, value: &str) -> bool {
    let mut lengths = arrived.lines().filter(|line| line.to_ascii_lowercase().starts_with("content-length:"));
    lengths.any(|line| line.split_once(':').is_some_and(|(_, said)| said.trim() == value))
}

/// Every probe, in the order of the cases.
pub const PROBES: [Probe; 41] = [
    authority!("EG-A1", "localhost..:PORT"),
    authority!("EG-A2", "[localhost]:PORT"),
    authority!("EG-A3", "localhost\0.evil.test:PORT", "localhost<NUL>.evil.test:PORT"),
    authority!("EG-A3", "localhost%00.evil.test:PORT"),
    authority!("EG-A4", "[::ffff:127.0.0.1%25.localhost]:PORT"),
    authority!("EG-A5", "x@localhost:PORT"),
    request(
        "EG-A5",
        "`GET http://localhost:PORT@127.0.0.1:PORT/`",
        "GET http://localhost:PORT@127.0.0.1:PORT/ HTTP/1.1\r\nHost: localhost:PORT\r\nConnection: close\r\n\r\n",
        |_| true,
    ),
    authority!("EG-A6", "localhost:PAST", "localhost:(PORT + 65536)"),
    authority!("EG-A7", "localhost:+PORT"),
    authority!("EG-A7", "localhost:0PORT"),
    authority!("EG-A7", "localhost:PORT:PORT"),
    authority!("EG-A7", "localhost:OTHER", "localhost:(a port that is not listed)"),
    authority!("EG-A8", "127.0.0.1:PORT"),
    authority!("EG-A8", "127.1:PORT"),
    authority!("EG-A8", "2130706433:PORT"),
    authority!("EG-A8", "0x7f000001:PORT"),
    authority!("EG-A8", "0177.0.0.1:PORT"),
    authority!("EG-A8", "[::ffff:127.0.0.1]:PORT"),
    authority!("EG-A9", "evillocalhost:PORT"),
    authority!("EG-A9", "localhost.evil.test:PORT"),
    connect(
        "EG-A13",
        "`CONNECT localhost:PORT` with `Host: evil.test`",
        "CONNECT localhost:PORT HTTP/1.1\r\nHost: evil.test\r\n\r\n",
    ),
    connect(
        "EG-A13",
        "`CONNECT evil.test:PORT` with `Host: localhost:PORT`",
        "CONNECT evil.test:PORT HTTP/1.1\r\nHost: localhost:PORT\r\n\r\n",
    ),
    connect(
        "EG-A13",
        "`CONNECT localhost:PORT` with two `Host` fields",
        "CONNECT localhost:PORT HTTP/1.1\r\nHost: localhost:PORT\r\nHost: evil.test\r\n\r\n",
    ),
    tunnel(
        "EG-D1",
        "a tunnel to localhost, and in it a ClientHello for `evil.test`",
        Then::Hello("evil.test"),
    ),
    tunnel("EG-D6", "a tunnel, and in it `SSH-2.0-x`", Then::Bytes(b"SSH-2.0-x\r\n")),
    post!(
        "EG-E1",
        "`Content-Length: 5` and `Transfer-Encoding: chunked`",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "0\r\n\r\n",
        has_both_framings
    ),
    post!(
        "EG-E2",
        "`Content-Length: 5` and `Content-Length: 6`",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "hello!",
        |_| true
    ),
    post!(
        "EG-E2",
        "`Content-Length: 5`, twice",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "hello",
        |arrived| count(arrived, "content-length:") > 1
    ),
    post!(
        "EG-E3",
        "`Transfer-Encoding: CHUNKED` and `Content-Length: 5`",
        "Transfer-Encoding: CHUNKED\r\nContent-Length: 5\r\n",
        "0\r\n\r\n",
        has_both_framings
    ),
    post!(
        "EG-E3",
        "`Transfer-Encoding: chunked, identity`",
        "Transfer-Encoding: chunked, identity\r\n",
        "0\r\n\r\n",
        |arrived| arrived.contains("identity")
    ),
    post!(
        "EG-E3",
        "two `Transfer-Encoding` fields",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n",
        "0\r\n\r\n",
        |arrived| arrived.contains("identity")
    ),
    post!("EG-E4", "`Content-Length: +5`", "Content-Length: +5\r\n", "hello", |arrived| {
        length_is(arrived, "+5")
    }),
    post!(
        "EG-E4",
        "a chunk of size `0x5`",
        "Transfer-Encoding: chunked\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        |arrived| { arrived.contains("0x5\r\n") || arrived.ends_with("\r\n0\r\n\r\n") }
    ),
    request(
        "EG-E5",
        "HTTP/1.0 with `Transfer-Encoding: chunked`",
        "POST http://localhost:PORT/ HTTP/1.0\r\nHost: localhost:PORT\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        |arrived| arrived.contains(" HTTP/1.0\r\n") && count(arrived, "transfer-encoding:") > 0,
    ),
    get!("EG-E6", "a space before the colon: `X-A : b`", "X-A : b\r\n", |arrived| arrived
        .contains("X-A : b")),
    get!("EG-E6", "a line that ends with LF alone", "X-A: b\nX-B: c\r\n", |arrived| arrived
        .contains("b\nX-B")),
    get!("EG-E6", "a folded field", "X-A: b\r\n folded\r\n", |arrived| arrived.contains("\r\n folded")),
    get!("EG-E6", "a field without a name: `: b`", ": b\r\n", |arrived| arrived.contains("\r\n: b")),
    get!("EG-E6", "a NUL in a value", "X-A: b\0c\r\n", |arrived| arrived.contains('\0')),
    get!("EG-F2", "`Proxy-Authorization`", "Proxy-Authorization: Basic cHJvYmU6cHJvYmU=\r\n", |arrived| {
        arrived.contains("cHJvYmU6cHJvYmU=")
    }),
    get!(
        "EG-F2",
        "`Proxy_Authorization`, another spelling",
        "Proxy_Authorization: Basic cHJvYmU6cHJvYmU=\r\n",
        |arrived| { arrived.contains("cHJvYmU6cHJvYmU=") }
    ),
];
