//! Groups D, F, H and I where the proxy opens TLS: a real TLS origin, real TLS clients, and a vault that says what a test wants.

use std::{
    collections::HashMap,
    io::Write as _,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::BoxFuture;
use palisade_egress::{
    AuditLog, AuditSettings, CredentialFault, CredentialSource, Credentials, Door, DoorLimits, HostRule,
    PolicySpec, Principal, Proxy, ProxyParts, ProxySettings, Resolver, Secrets, TenantSpec, Trust, verify,
};
use palisade_protocol::{
    CredentialName, CredentialRule, Injection,
    id::{SessionId, TenantName},
};
use palisade_testkit::{resolver::FakeResolver, tls_origin::TlsOrigin};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use secrecy::SecretString;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::world::{read_to_end, read_until};

pub(crate) const SECRET: &str = "sk-live/Very+Secret=42\"&";
const PLACEHOLDER: &str = "palisade_credential_00000000000000000000000000000001";
const SECOND_PLACEHOLDER: &str = "palisade_credential_22222222222222222222222222222222";
pub(crate) const SECOND_SECRET: &str = "sk-of-the-second-one";
pub(crate) const OLD_SECRET: &str = "sk-of-a-moment-ago";
const OTHERS_PLACEHOLDER: &str = "palisade_credential_99999999999999999999999999999999";

/// What the vault says, by tenant and name.
#[derive(Default)]
struct Vault(Mutex<HashMap<String, Result<String, CredentialFault>>>);

impl CredentialSource for Vault {
    fn secret(
        &self,
        tenant: &TenantName,
        name: &CredentialName,
    ) -> BoxFuture<'static, Result<SecretString, CredentialFault>> {
        let known = self.0.lock().expect("no panic").get(&format!("{tenant}/{name}")).cloned();
        Box::pin(std::future::ready(known.unwrap_or(Err(CredentialFault::Missing)).map(Into::into)))
    }

    /// What is there under the credential's name, and what was there before it, under the name with a stroke.
    fn known(
        &self,
        tenant: &TenantName,
        names: Vec<CredentialName>,
    ) -> BoxFuture<'static, Result<Secrets, CredentialFault>> {
        let vault = self.0.lock().expect("no panic");
        let of = |name: CredentialName| {
            ["", "'"].into_iter().filter_map({
                let (vault, tenant) = (&vault, tenant);
                move |stroke| {
                    let value = vault.get(&format!("{tenant}/{name}{stroke}"))?.clone().ok()?;
                    Some((name.clone(), value.into()))
                }
            })
        };
        Box::pin(std::future::ready(Ok(names.into_iter().flat_map(of).collect())))
    }
}

pub(crate) struct World {
    pub(crate) origin: TlsOrigin,
    proxy: Proxy,
    vault: Arc<Vault>,
    folder: tempfile::TempDir,
    _resolver: FakeResolver,
}

fn tenant(name: &str) -> TenantName {
    TenantName::parse(name).expect("a name")
}

fn session(of: &str) -> Principal {
    Principal::Session { tenant: tenant(of), session: SessionId::parse("sess_0123456789ab").expect("an id") }
}

fn credential(name: &str, host: String, placeholder: &str) -> CredentialRule {
    CredentialRule {
        name: CredentialName::parse(name).expect("a name"),
        allowed_hosts: vec![host],
        injection: Injection::Bearer,
        env: None,
        placeholder: placeholder.into(),
    }
}

fn spec(port: u16) -> PolicySpec {
    let rule = |name: &str, intercept, upgrade| HostRule {
        name: name.into(),
        intercept,
        upgrade,
        ..HostRule::default()
    };
    let acme = TenantSpec {
        hosts: vec![rule("seen.test", true, false), rule("up.test", false, true)],
        credentials: vec![
            credential("thing", format!("api.test:{port}"), PLACEHOLDER),
            credential("upped", format!("up.test:{port}"), PLACEHOLDER),
            credential("second", format!("api.test:{port}"), SECOND_PLACEHOLDER),
            credential("gone", format!("gone.test:{port}"), PLACEHOLDER),
            credential("shut", format!("shut.test:{port}"), PLACEHOLDER),
            credential("wrong", format!("wrong.test:{port}"), PLACEHOLDER),
        ],
        ..TenantSpec::default()
    };
    let other = TenantSpec {
        credentials: vec![credential("thing", format!("api.test:{port}"), OTHERS_PLACEHOLDER)],
        ..TenantSpec::default()
    };
    PolicySpec {
        allow_addresses: vec!["127.0.0.0/8".into()],
        tenants: vec![(tenant("acme"), acme), (tenant("other"), other)],
        ..PolicySpec::default()
    }
}

const NAMES: [&str; 6] = ["api.test", "seen.test", "up.test", "gone.test", "shut.test", "plain.test"];

impl World {
    pub(crate) async fn start(respond: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::over(TlsOrigin::start(&NAMES, respond).await.expect("an origin")).await
    }

    async fn over(origin: TlsOrigin) -> Self {
        let resolver = FakeResolver::start().await.expect("a name server");
        for name in NAMES.into_iter().chain(["wrong.test"]) {
            resolver.set_addresses(name, &["127.0.0.1"]);
        }
        let folder = tempfile::tempdir().expect("a folder");
        let authority: PathBuf = folder.path().join("origin.pem");
        std::fs::write(&authority, origin.authority_pem()).expect("written");
        let vault = Arc::new(Vault::default());
        for (name, value) in [
            ("acme/thing", Ok(SECRET.to_owned())),
            ("acme/second", Ok(SECOND_SECRET.to_owned())),
            ("acme/second'", Ok(OLD_SECRET.to_owned())),
            ("acme/upped", Ok(SECRET.to_owned())),
            ("acme/wrong", Ok(SECRET.to_owned())),
            ("acme/shut", Err(CredentialFault::Sealed)),
            ("other/thing", Ok("sk-of-the-other".to_owned())),
        ] {
            vault.0.lock().expect("no panic").insert(name.into(), value);
        }
        let proxy = Proxy::new(ProxyParts {
            policy: spec(origin.port()),
            resolver: Resolver::with_timeout(resolver.address(), Duration::from_secs(2)).expect("a resolver"),
            audit: Arc::new(
                AuditLog::open(&folder.path().join("audit"), AuditSettings::default()).expect("a log"),
            ),
            trust: Trust::load(&[authority]).expect("authorities"),
            credentials: Credentials::new(),
            vault: vault.clone(),
            settings: ProxySettings::default(),
        })
        .expect("a proxy");
        Self { origin, proxy, vault, folder, _resolver: resolver }
    }

    pub(crate) fn door(&self, of: &str) -> Door {
        self.proxy.door(session(of), DoorLimits::default()).expect("a door")
    }

    /// A tunnel to this host at the origin's port, as far as the proxy's 200.
    async fn tunnel(&self, door: &Door, host: &str) -> TcpStream {
        let mut stream = connect(door).await;
        let port = self.origin.port();
        stream.write_all(format!("CONNECT {host}:{port} HTTP/1.1\r\n\r\n").as_bytes()).await.expect("sent");
        let answer = read_until(&mut stream, "\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        stream
    }

    /// TLS within it, for a client that trusts the door's authority and nobody else.
    pub(crate) async fn opened(&self, door: &Door, host: &str) -> TlsStream<TcpStream> {
        let stream = self.tunnel(door, host).await;
        handshake(stream, host, door.trust_anchor().expect("an authority"), &[b"http/1.1"])
            .await
            .expect("trusted")
    }

    /// One request through it, and everything that comes back.
    pub(crate) async fn ask(&self, host: &str, request: impl AsRef<[u8]>) -> String {
        self.ask_as("acme", host, request).await
    }

    async fn ask_as(&self, of: &str, host: &str, request: impl AsRef<[u8]>) -> String {
        let mut stream = self.opened(&self.door(of), host).await;
        stream.write_all(request.as_ref()).await.expect("sent");
        read_all(&mut stream).await
    }

    pub(crate) fn get(&self, host: &str, fields: &str) -> String {
        format!(
            "GET /x?a=b HTTP/1.1\r\nHost: {host}:{}\r\n{fields}Connection: close\r\n\r\n",
            self.origin.port()
        )
    }

    pub(crate) fn records(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.folder.path().join("audit/current.jsonl")).expect("a log");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Refused with this reason, and nothing asked of the origin.
    async fn refuses(&self, host: &str, request: impl AsRef<[u8]>, reason: &str) {
        let before = self.origin.requests().len();
        let answer = self.ask(host, request).await;
        assert!(answer.contains(&format!("\"egress.{reason}\"")), "{reason}: {answer}");
        assert_eq!(self.origin.requests().len(), before, "{reason}");
        let refused = |record: &Value| record["reason"] == reason && record["decision"] == "refuse";
        assert!(self.records().iter().any(refused), "{reason} is not in the log");
    }

    /// The log is whole, and holds no secret.
    pub(crate) async fn stop(self) {
        self.proxy.shutdown(Duration::from_secs(5)).await;
        let folder = self.folder.path().join("audit");
        drop(self.proxy);
        verify(&folder).expect("a whole log");
        let text = std::fs::read_to_string(folder.join("current.jsonl")).expect("a log");
        assert!(!text.contains("sk-live"), "{text}");
    }
}

async fn connect(door: &Door) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let entrance = listener.local_addr().expect("an address");
    door.listen(listener);
    TcpStream::connect(entrance).await.expect("it listens")
}

async fn handshake(
    stream: TcpStream,
    host: &str,
    anchor: &str,
    protocols: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(anchor.as_bytes()) {
        roots.add(certificate.expect("a certificate")).expect("an authority");
    }
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let name = ServerName::try_from(host.to_owned()).expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

async fn read_all(stream: &mut TlsStream<TcpStream>) -> String {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut bytes)).await;
    // A connection that broke is cut without a goodbye.
    let _ = read.expect("an end");
    String::from_utf8_lossy(&bytes).into_owned()
}

pub(crate) fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// EG-D5, EG-F1: the secret goes to the host that was named, resolved, proved and asked, and to no other; what the client nominates
/// does not take it out again.
#[tokio::test]
async fn the_credential_goes_along_and_nobody_inside_sees_it() {
    let world = World::start(|_| ok("hi")).await;
    for fields in [
        String::new(),
        format!("Authorization: Bearer {PLACEHOLDER}\r\n"),
        "Connection: authorization, x-tenant\r\nX-Tenant: me\r\nCookie: a=b\r\nAccept-Encoding: br\r\n"
            .into(),
    ] {
        let answer = world.ask("api.test", world.get("api.test", &fields)).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("hi"), "{answer}");
        let requests = world.origin.requests();
        let sent = requests.last().expect("one");
        assert_eq!(sent.matches("Authorization").count(), 1, "{sent}");
        assert!(sent.contains(&format!("\r\nAuthorization: Bearer {SECRET}\r\n")), "{sent}");
        assert!(sent.contains("\r\nAccept-Encoding: identity\r\n"), "{sent}");
        assert!(
            !sent.contains("Cookie") && !sent.contains("X-Tenant") && !sent.contains("palisade"),
            "{sent}"
        );
        assert!(
            sent.starts_with(&format!("GET /x?a=b HTTP/1.1\r\nHost: api.test:{}\r\n", world.origin.port()))
        );
    }
    let closes: Vec<Value> = world
        .records()
        .into_iter()
        .filter(|record| record["kind"] == "close" && record["method"] == "GET")
        .collect();
    assert_eq!((closes[0]["cred_id"].as_str(), closes[0]["path"].as_str()), (Some("thing"), Some("/x")));
    assert_eq!((closes[0]["host"].as_str(), closes[0]["status"].as_u64()), (Some("api.test"), Some(200)));
    world.stop().await;
}

/// Requests of one tunnel share one connection to the upstream, and each has its records.
#[tokio::test]
async fn a_tunnel_keeps_its_upstream() {
    let world = World::start(|request| ok(request.lines().next().unwrap_or_default())).await;
    let door = world.door("acme");
    let mut stream = world.opened(&door, "seen.test").await;
    for number in 0..5 {
        let host = format!("seen.test:{}", world.origin.port());
        let body = if number % 2 == 0 {
            "Content-Length: 3\r\n\r\nabc"
        } else {
            "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        };
        let request = format!("POST /{number} HTTP/1.1\r\nHost: {host}\r\n{body}");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let expected = format!("POST /{number} HTTP/1.1");
        let mut answer = Vec::new();
        while !String::from_utf8_lossy(&answer).ends_with(&expected) {
            assert!(stream.read_buf(&mut answer).await.expect("read") > 0, "{}", answer.escape_ascii());
        }
    }
    drop(stream);
    assert_eq!((world.origin.connections(), world.origin.requests().len()), (1, 5));
    assert!(world.origin.requests()[0].ends_with("\r\n\r\nabc"), "{}", world.origin.requests()[0]);
    let posts =
        || world.records().into_iter().filter(|it| it["kind"] == "close" && it["method"] == "POST").count();
    palisade_testkit::wait_for("records", || async { (posts() == 5).then_some(()) }).await;
    door.close();
    world.stop().await;
}

/// EG-D4, EG-D8, EG-E9: within a tunnel there is one host, one protocol, and no tunnel.
#[tokio::test]
async fn a_tunnel_speaks_to_its_host_alone() {
    let world = World::start(|_| ok("hi")).await;
    let port = world.origin.port();
    for host in ["seen.test", "api.test"] {
        world.refuses(host, "GET / HTTP/1.1\r\nHost: plain.test\r\n\r\n", "misdirected").await;
        world.refuses(host, "GET / HTTP/1.1\r\n\r\n", "misdirected").await;
        world
            .refuses(
                host,
                format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n"),
                "method-refused",
            )
            .await;
        world
            .refuses(
                host,
                format!("GET http://plain.test/ HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n"),
                "target-refused",
            )
            .await;
        world.refuses(host, "GET / HTTP/1.0\r\nHost: plain.test\r\n\r\n", "misdirected").await;
        world.refuses(host, "GET / HTTP/0.9\r\n\r\n", "version-refused").await;
        world
            .refuses(host, format!("TRACE / HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n"), "method-refused")
            .await;
    }
    // The second request of a connection is judged like the first.
    let first = format!("GET / HTTP/1.1\r\nHost: seen.test:{port}\r\n\r\n");
    let both = format!("{first}GET / HTTP/1.1\r\nHost: plain.test\r\n\r\n");
    let answer = world.ask("seen.test", both).await;
    assert!(answer.contains("hi") && answer.contains("HTTP/1.1 421 "), "{answer}");
    // Ambiguous framing is as ambiguous in here.
    let smuggled = format!(
        "POST / HTTP/1.1\r\nHost: seen.test:{port}\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    world.refuses("seen.test", smuggled, "framing-ambiguous").await;
    let door = world.door("acme");
    let stream = world.tunnel(&door, "seen.test").await;
    let only_h2 = handshake(stream, "seen.test", door.trust_anchor().expect("one"), &[b"h2"]).await;
    assert!(only_h2.is_err(), "no HTTP/2 is spoken");
    world.stop().await;
}

/// EG-D7: an upstream that cannot prove who it is hears nothing.
#[tokio::test]
async fn an_upstream_proves_who_it_is() {
    let world = World::start(|_| ok("hi")).await;
    world.refuses("wrong.test", world.get("wrong.test", ""), "certificate-refused").await;
    assert_eq!(world.origin.handshakes(), 0);
    let why = "the certificate of the host is for another name";
    assert!(world.records().iter().any(|it| it["why"] == why), "{:#?}", world.records());
    let told = async |world: &World| world.ask("seen.test", world.get("seen.test", "")).await;
    world.stop().await;
    let expired = World::over(TlsOrigin::start_expired(&NAMES, |_| ok("hi")).await.expect("an origin")).await;
    let answer = told(&expired).await;
    assert!(answer.contains("certificate-refused") && answer.contains("has expired"), "{answer}");
    expired.stop().await;
    let mut strange = World::start(|_| ok("hi")).await;
    strange.origin = TlsOrigin::start(&NAMES, |_| ok("hi")).await.expect("another's origin");
    let answer = told(&strange).await;
    assert!(
        answer.contains("certificate-refused") && answer.contains("authority that is not trusted"),
        "{answer}"
    );
    assert_eq!((strange.origin.handshakes(), strange.origin.requests().len()), (0, 0));
    strange.stop().await;
}

/// EG-H1, EG-H2, EG-F3, EG-H9, EG-H10: nobody brings his own, and nobody another tenant's.
#[tokio::test]
async fn foreign_credentials_do_not_get_out() {
    let world = World::start(|_| ok("hi")).await;
    for fields in [
        "Authorization: Bearer attacker\r\n".to_owned(),
        format!("Authorization: Bearer {PLACEHOLDER}\r\nAuthorization: Bearer attacker\r\n"),
        "X-Api-Key: attacker\r\n".to_owned(),
        format!("Authorization: Bearer {OTHERS_PLACEHOLDER}\r\n"),
    ] {
        world.refuses("api.test", world.get("api.test", &fields), "foreign-credential").await;
    }
    let query = format!("GET /?key=attacker HTTP/1.1\r\nHost: api.test:{}\r\n\r\n", world.origin.port());
    world.refuses("api.test", query, "foreign-credential").await;
    let signed = "Authorization: AWS4-HMAC-SHA256 Credential=x\r\n";
    world.refuses("api.test", world.get("api.test", signed), "signed-request").await;
    let websocket = "Upgrade: websocket\r\nSec-WebSocket-Key: x\r\n".to_owned();
    let websocket = world.get("api.test", &websocket).replace("Connection: close", "Connection: upgrade");
    world.refuses("api.test", websocket, "upgrade-refused").await;
    let own = world.ask_as("other", "api.test", world.get("api.test", "")).await;
    assert!(own.contains("hi"));
    assert!(world.origin.requests()[0].contains("Bearer sk-of-the-other"));
    world.stop().await;
}

/// EG-H3: a placeholder stands for its credential in one place, and nowhere else is it passed on.
#[tokio::test]
async fn placeholders_do_not_get_out() {
    let world = World::start(|_| ok("hi")).await;
    let port = world.origin.port();
    for host in ["api.test", "seen.test"] {
        world
            .refuses(
                host,
                world.get(host, &format!("User-Agent: {PLACEHOLDER}\r\n")),
                "placeholder-misplaced",
            )
            .await;
        let path = format!("GET /{PLACEHOLDER} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n");
        world.refuses(host, path, "placeholder-misplaced").await;
        let body = format!("{{\"key\":\"{PLACEHOLDER}\"}}");
        let whole =
            format!("POST / HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        world.refuses(host, whole, "placeholder-misplaced").await;
        let (one, two) = body.split_at(15);
        let chunks = format!("{:x}\r\n{one}\r\n{:x}\r\n{two}\r\n0\r\n\r\n", one.len(), two.len());
        let chunked =
            format!("POST / HTTP/1.1\r\nHost: {host}:{port}\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
        world.refuses(host, chunked, "placeholder-misplaced").await;
    }
    world
        .refuses(
            "seen.test",
            world.get("seen.test", &format!("Authorization: Bearer {PLACEHOLDER}\r\n")),
            "placeholder-misplaced",
        )
        .await;
    world.stop().await;
}

/// EG-H4: to a managed host there is the managed way, or none.
#[tokio::test]
async fn a_managed_host_has_one_way() {
    let world = World::start(|_| ok("hi")).await;
    let (door, port) = (world.door("acme"), world.origin.port());
    for request in [
        format!("GET http://api.test:{port}/ HTTP/1.1\r\nHost: api.test:{port}\r\n\r\n"),
        "GET http://api.test/ HTTP/1.1\r\nHost: api.test\r\n\r\n".to_owned(),
        "CONNECT api.test:443 HTTP/1.1\r\n\r\n".to_owned(),
    ] {
        let mut stream = connect(&door).await;
        stream.write_all(request.as_bytes()).await.expect("sent");
        let answer = read_to_end(&mut stream).await;
        assert!(answer.contains("\"egress.managed-host\""), "{request}: {answer}");
    }
    assert_eq!(world.origin.connections(), 0);
    // A client that does not trust the session's authority does not go on, and neither does anything of its.
    let stream = world.tunnel(&door, "api.test").await;
    assert!(handshake(stream, "api.test", world.origin.authority_pem(), &[]).await.is_err());
    assert_eq!(world.origin.requests().len(), 0);
    world.stop().await;
}

/// `http://` inside, TLS outside; the client needs no authority.
#[tokio::test]
async fn an_upgraded_host_is_asked_over_tls() {
    let world = World::start(|_| ok("hi")).await;
    let (door, port) = (world.door("acme"), world.origin.port());
    let mut stream = connect(&door).await;
    let request =
        format!("GET http://up.test:{port}/p HTTP/1.1\r\nHost: up.test:{port}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let answer = read_to_end(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let sent = &world.origin.requests()[0];
    assert!(sent.starts_with("GET /p HTTP/1.1\r\n") && sent.contains(&format!("Bearer {SECRET}")), "{sent}");
    world.stop().await;
}

/// EG-H7: without the secret nothing leaves.
#[tokio::test]
async fn what_cannot_be_had_is_not_left_out() {
    let world = World::start(|_| ok("hi")).await;
    world.refuses("shut.test", world.get("shut.test", ""), "vault-sealed").await;
    world.refuses("gone.test", world.get("gone.test", ""), "credential-missing").await;
    let broken = [("Bearer\nx", "credential-unusable"), ("", "credential-unusable")];
    for (value, reason) in broken {
        world.vault.0.lock().expect("no panic").insert("acme/thing".into(), Ok(value.into()));
        world.refuses("api.test", world.get("api.test", ""), reason).await;
    }
    world.vault.0.lock().expect("no panic").insert("acme/thing".into(), Err(CredentialFault::Unavailable));
    world.refuses("api.test", world.get("api.test", ""), "credential-unavailable").await;
    world.stop().await;
}

/// EG-H5: a redirect is an answer; the next hop is the client's to ask for, and has no credential of this one.
#[tokio::test]
async fn redirects_are_passed_back() {
    let world = World::start(|_| {
        b"HTTP/1.1 302 Found\r\nLocation: https://plain.test/\r\nContent-Length: 0\r\n\r\n".to_vec()
    })
    .await;
    let answer = world.ask("api.test", world.get("api.test", "")).await;
    assert!(
        answer.starts_with("HTTP/1.1 302 ") && answer.contains("Location: https://plain.test/"),
        "{answer}"
    );
    assert_eq!(world.origin.requests().len(), 1);
    world.stop().await;
}

/// EG-I1: an origin that says what it was told; in every form, coding and framing.
#[tokio::test]
async fn an_echo_does_not_bring_the_secret_back() {
    let world = World::start(echo).await;
    for coding in ["plain", "gzip", "deflate", "zstd", "chunked", "to-end"] {
        let request = format!(
            "GET /{coding} HTTP/1.1\r\nHost: api.test:{}\r\nRange: bytes=3-9\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n",
            world.origin.port()
        );
        let answer = world.ask("api.test", request).await;
        let sent = world.origin.requests().pop().expect("one");
        assert!(sent.contains("\r\nRange: bytes=0-") && !sent.contains("bytes=0-9\r"), "{sent}");
        assert!(sent.contains("Accept-Encoding: identity"), "{sent}");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{coding}: {answer}");
        assert!(answer.contains("X-Echo: Bearer [redacted:thing]********\r\n"), "{coding}: {answer}");
        let body = body_of(&answer);
        assert!(body.starts_with("you said: Bearer [redacted:thing]********"), "{coding}: {answer}");
        for part in ["sk-live", "Very+Secret", "Secret=42", "c2stbGl2ZS9W", "736b2d6c697665"] {
            assert!(!answer.contains(part), "{coding} shows {part}: {answer}");
        }
        assert!(!answer.to_ascii_lowercase().contains("content-encoding"), "{answer}");
        let is_plain = coding == "plain";
        assert_eq!(answer.contains("\r\nContent-Length: "), is_plain, "{coding}: {answer}");
        assert!(
            answer.ends_with(if is_plain { "and so on. " } else { "0\r\n\r\n" }),
            "{coding}: the whole of it"
        );
        let is_coded = matches!(coding, "gzip" | "deflate" | "zstd");
        assert!(
            answer.contains(if is_coded { "ETag: W/\"1\"" } else { "ETag: \"1\"" }),
            "{coding}: {answer}"
        );
    }
    world.stop().await;
}

/// EG-I1: what cannot be read to its end is cut off, not passed on; what cannot be read at all is no answer.
#[tokio::test]
async fn what_cannot_be_read_is_not_passed_on() {
    let world = World::start(echo).await;
    let ask = async |what: &str| {
        let request = format!("GET /{what} HTTP/1.1\r\nHost: api.test:{}\r\n\r\n", world.origin.port());
        world.ask("api.test", request).await
    };
    let torn = ask("torn").await;
    assert!(!torn.ends_with("0\r\n\r\n") && !torn.contains("sk-live"), "{torn}");
    for what in ["twice", "unknown"] {
        let answer = ask(what).await;
        assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("answer-coding"), "{answer}");
    }
    world.stop().await;
}

/// The body of an answer, chunks put together.
fn body_of(answer: &str) -> String {
    let (head, mut rest) = answer.split_once("\r\n\r\n").expect("a head");
    if !head.contains("chunked") {
        return rest.to_owned();
    }
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a size");
        body.push_str(&after[..size]);
        rest = &after[size + 2..];
    }
    body
}

/// Says the request's credential back, in as many forms as there are.
fn echo(request: &str) -> Vec<u8> {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    let said = request.lines().find_map(|line| line.strip_prefix("Authorization: ")).unwrap_or_default();
    let secret = said.strip_prefix("Bearer ").unwrap_or_default();
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    let (json, base64) = (serde_json::to_string(secret).expect("JSON"), BASE64_STANDARD.encode(secret));
    let text =
        format!("you said: {said}, {json}, {base64}, {hex}, {}", "and so on. ".repeat(2000)).into_bytes();
    let what = request.split(['/', ' ']).nth(2).unwrap_or_default();
    let gzip = || {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        writer.write_all(&text).and_then(|()| writer.finish()).expect("written")
    };
    let (fields, body) = match what {
        "gzip" => ("Content-Encoding: gzip\r\n", gzip()),
        "torn" => ("Content-Encoding: gzip\r\n", gzip()[..40].to_vec()),
        "twice" => ("Content-Encoding: gzip, br\r\n", gzip()),
        "unknown" => ("Content-Encoding: compress\r\n", text),
        "deflate" => {
            let mut writer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
            (
                "Content-Encoding: deflate\r\n",
                writer.write_all(&text).and_then(|()| writer.finish()).expect("written"),
            )
        }
        "zstd" => ("Content-Encoding: zstd\r\n", zstd::encode_all(&text[..], 1).expect("written")),
        "chunked" => {
            let chunks = text
                .chunks(7)
                .flat_map(|piece| [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
            ("Transfer-Encoding: chunked\r\n", chunks.chain(*b"0\r\n\r\n").collect())
        }
        _ => ("", text),
    };
    let length = match what {
        "chunked" => String::new(),
        "to-end" => "Connection: close\r\n".into(),
        _ => format!("Content-Length: {}\r\n", body.len()),
    };
    let head = format!("HTTP/1.1 200 OK\r\nX-Echo: {said}\r\nETag: \"1\"\r\n{fields}{length}\r\n");
    [head.into_bytes(), body].concat()
}

/// Each session has an authority of its own, for its tenant's hosts and for nothing else.
#[tokio::test]
async fn an_authority_is_one_sessions_and_for_its_hosts() {
    let world = World::start(|_| ok("hi")).await;
    let (one, two) = (world.door("acme"), world.door("acme"));
    assert_ne!(one.trust_anchor(), two.trust_anchor());
    let stream = world.tunnel(&one, "api.test").await;
    assert!(handshake(stream, "api.test", two.trust_anchor().expect("one"), &[]).await.is_err());
    let nobody = world.proxy.door(Principal::Router, DoorLimits::default()).expect("a door");
    assert_eq!(nobody.trust_anchor(), None);
    // A host that becomes managed later is not reached by the old authority, and a new one is to be had.
    assert!(one.is_current().await);
    let mut changed = spec(world.origin.port());
    let later = credential("thing", format!("plain.test:{}", world.origin.port()), PLACEHOLDER);
    changed.tenants[0].1.credentials.push(later);
    world.proxy.reload(changed).expect("good");
    assert!(!one.is_current().await);
    let stream = world.tunnel(&one, "plain.test").await;
    assert!(handshake(stream, "plain.test", one.trust_anchor().expect("one"), &[]).await.is_err());
    let renewed = one.again().await.expect("a door");
    assert!(renewed.is_current().await);
    let mut stream = world.opened(&renewed, "plain.test").await;
    stream.write_all(world.get("plain.test", "").as_bytes()).await.expect("sent");
    assert!(read_all(&mut stream).await.contains("hi"));
    world.stop().await;
}
