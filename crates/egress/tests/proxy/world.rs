//! A proxy with a name server, an origin and a log of its own.

use std::{net::SocketAddr, time::Duration};

use palisade_egress::{
    AuditLog, AuditSettings, Credentials, Door, DoorLimits, Endpoint, HostRule, NoCredentials, PolicySpec,
    Principal, Proxy, ProxyParts, ProxySettings, Resolver, TenantSpec, Trust, verify,
};
use palisade_protocol::id::{SessionId, TenantName};
use palisade_testkit::{
    origin::{Manner, Origin},
    resolver::FakeResolver,
    wait_for,
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Only ever used up by a test that fails.
const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) struct World {
    pub(crate) resolver: FakeResolver,
    pub(crate) origin: Origin,
    pub(crate) proxy: Proxy,
    pub(crate) door: Door,
    pub(crate) entrance: SocketAddr,
    pub(crate) folder: tempfile::TempDir,
}

pub(crate) struct Setup {
    pub(crate) manner: Manner,
    pub(crate) settings: ProxySettings,
    pub(crate) limits: DoorLimits,
    pub(crate) principal: Principal,
    /// Loopback is what tests have for an internet.
    pub(crate) allow_addresses: Vec<String>,
    pub(crate) upstreams: Vec<String>,
    pub(crate) tenant: fn(u16) -> TenantSpec,
}

pub(crate) fn session() -> Principal {
    Principal::Session {
        tenant: TenantName::parse("acme").expect("a name"),
        session: SessionId::parse("sess_0123456789ab").expect("an id"),
    }
}

/// A proxy without a vault.
pub(crate) fn parts(
    policy: PolicySpec,
    resolver: Resolver,
    audit: AuditLog,
    settings: ProxySettings,
) -> ProxyParts {
    let trust = Trust::load(&[]).expect("the system's authorities");
    let audit = std::sync::Arc::new(audit);
    let (credentials, vault) = (Credentials::new(), std::sync::Arc::new(NoCredentials));
    ProxyParts { policy, resolver, audit, trust, credentials, vault, settings }
}

fn plain_endpoint(name: &str, port: u16) -> Endpoint {
    Endpoint { host_port: format!("{name}:{port}"), tls: false }
}

pub(crate) fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

/// What most tests allow: one name, and what is below another.
pub(crate) fn usual_tenant(port: u16) -> TenantSpec {
    TenantSpec {
        allow: Some(vec![
            format!("allowed.test:{port}"),
            format!("raw.test:{port}"),
            format!("ech.test:{port}"),
            format!("*.wild.test:{port}"),
            format!("127.0.0.5:{port}"),
        ]),
        hosts: vec![
            HostRule { name: "raw.test".into(), raw: true, ..HostRule::default() },
            HostRule { name: "ech.test".into(), allow_ech: true, ..HostRule::default() },
        ],
        ..TenantSpec::default()
    }
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            manner: Manner::Silent,
            settings: ProxySettings::default(),
            limits: DoorLimits::default(),
            principal: session(),
            allow_addresses: strings(&["127.0.0.0/8"]),
            upstreams: Vec::new(),
            tenant: usual_tenant,
        }
    }
}

impl Setup {
    pub(crate) fn with(manner: Manner) -> Self {
        Self { manner, ..Self::default() }
    }

    pub(crate) async fn start(self) -> World {
        let resolver = FakeResolver::start().await.expect("a name server");
        let origin = Origin::start(self.manner.clone()).await.expect("an origin");
        for name in ["allowed.test", "raw.test", "ech.test", "a.wild.test"] {
            resolver.set_addresses(name, &["127.0.0.1"]);
        }
        let folder = tempfile::tempdir().expect("a folder");
        let policy = self.spec(origin.port());
        let asks = Resolver::with_timeout(resolver.address(), Duration::from_secs(2)).expect("a resolver");
        let audit = AuditLog::open(folder.path(), AuditSettings::default()).expect("a log");
        let proxy = Proxy::new(parts(policy, asks, audit, self.settings)).expect("a proxy");
        let door = proxy.door(self.principal.clone(), self.limits).expect("a door");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let entrance = listener.local_addr().expect("an address");
        door.listen(listener);
        World { resolver, origin, proxy, door, entrance, folder }
    }

    pub(crate) fn spec(&self, port: u16) -> PolicySpec {
        PolicySpec {
            upstreams: self.upstreams.iter().map(|name| plain_endpoint(name, port)).collect(),
            services: vec![plain_endpoint("service.test", port)],
            tenant_services: Vec::new(),
            allow_addresses: self.allow_addresses.clone(),
            tenants: vec![(TenantName::parse("acme").expect("a name"), (self.tenant)(port))],
        }
    }
}

impl World {
    pub(crate) async fn usual(manner: Manner) -> Self {
        Setup::with(manner).start().await
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.entrance).await.expect("the proxy listens")
    }

    /// Sends these bytes, and returns whatever comes back until the end.
    pub(crate) async fn ask(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect().await;
        // It may be refused before all of it was sent.
        let _ = stream.write_all(bytes.as_ref()).await;
        read_to_end(&mut stream).await
    }

    /// The same, with `PORT` in the text standing for the origin's port.
    pub(crate) async fn ask_text(&self, text: &str) -> String {
        self.ask(self.fill(text)).await
    }

    pub(crate) fn fill(&self, text: &str) -> String {
        text.replace("PORT", &self.origin.port().to_string())
    }

    /// Refused with this reason: told so, recorded so once, and nothing at the origin.
    pub(crate) async fn refuses(&self, text: &str, reason: &str) {
        self.refuses_bytes(self.fill(text).as_bytes(), reason).await;
    }

    pub(crate) async fn refuses_bytes(&self, bytes: &[u8], reason: &str) {
        let before = self.refusals().len();
        let answer = self.ask(bytes).await;
        let shown = bytes[..bytes.len().min(300)].escape_ascii().to_string();
        assert!(answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.1 5"), "{shown}: {answer:?}");
        assert!(answer.contains(&format!("\"code\":\"egress.{reason}\"")), "{shown}: {answer:?}");
        let refusals = self.refusals();
        assert_eq!(refusals.len(), before + 1, "{shown}: one record, and not {refusals:#?}");
        assert_eq!(refusals[before]["reason"], reason, "{shown}");
        self.nothing_arrived(&shown);
    }

    /// A tunnel that was opened and ended for this reason before a byte went through.
    pub(crate) async fn ends_tunnel(&self, to: &str, bytes: &[u8], reason: &str) {
        let before = self.refusals().len();
        let mut stream = self.tunnel(to).await;
        stream.write_all(bytes).await.expect("sent");
        assert_eq!(read_to_end(&mut stream).await, "", "{reason}");
        let refusals = self.wait_for_refusals(before + 1).await;
        assert_eq!(refusals[before]["reason"], reason, "{}", bytes.escape_ascii());
        self.nothing_arrived(reason);
    }

    pub(crate) fn nothing_arrived(&self, why: &str) {
        let arrived = self.origin.bytes();
        assert!(arrived.is_empty(), "{why}: {} at the origin", arrived.escape_ascii());
    }

    /// A tunnel to this name at the origin's port, established.
    pub(crate) async fn tunnel(&self, name: &str) -> TcpStream {
        let mut stream = self.connect().await;
        let head = self.fill(&format!("CONNECT {name}:PORT HTTP/1.1\r\nHost: {name}:PORT\r\n\r\n"));
        stream.write_all(head.as_bytes()).await.expect("sent");
        let answer = read_until(&mut stream, "\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        stream
    }

    pub(crate) fn records(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.folder.path().join("current.jsonl")).expect("a log");
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    pub(crate) fn refusals(&self) -> Vec<Value> {
        self.records().into_iter().filter(|record| record["decision"] == "refuse").collect()
    }

    pub(crate) fn of_kind(&self, kind: &str) -> Vec<Value> {
        self.records().into_iter().filter(|record| record["kind"] == kind).collect()
    }

    pub(crate) async fn wait_for_refusals(&self, count: usize) -> Vec<Value> {
        let enough = || async { Some(self.refusals()).filter(|refusals| refusals.len() >= count) };
        wait_for("refusals in the log", enough).await
    }

    pub(crate) async fn wait_for_closes(&self, count: usize) -> Vec<Value> {
        let enough = || async { Some(self.of_kind("close")).filter(|closes| closes.len() >= count) };
        wait_for("close records in the log", enough).await
    }

    /// Stops the proxy; the log must be whole and every open record have its close.
    pub(crate) async fn stop(self) -> tempfile::TempDir {
        self.door.close();
        self.proxy.shutdown(Duration::from_secs(5)).await;
        drop(self.door);
        verify(self.folder.path()).expect("a whole log");
        self.folder
    }
}

/// Until the end, or a reset.
pub(crate) async fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut bytes)).await;
    let _ = read.expect("an end");
    String::from_utf8_lossy(&bytes).into_owned()
}

pub(crate) async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(end.as_bytes()) {
        let read = tokio::time::timeout(DEADLINE, stream.read(&mut byte)).await.expect("an answer in time");
        assert_eq!(read.expect("readable"), 1, "ended after {}", bytes.escape_ascii());
        bytes.push(byte[0]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A ClientHello as a real library writes it.
pub(crate) fn hello(name: &str) -> Vec<u8> {
    let config = rustls::ClientConfig::builder()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let server = name.to_owned().try_into().expect("a name");
    let mut client = rustls::ClientConnection::new(config.into(), server).expect("a client");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("a hello");
    bytes
}

pub(crate) fn get(url: &str, host: &str) -> String {
    format!("GET {url} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
}

pub(crate) fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}
