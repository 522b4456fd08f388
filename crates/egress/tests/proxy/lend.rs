//! A server's vault behind a proxy of another process: who may put it there, what is asked of it, and what is left when it is gone.

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use futures_util::future::BoxFuture;
use palisade_egress::{
    AuditLog, AuditSettings, CredentialFault, CredentialSource, DoorLimits, EgressError, LentVault, PassKey,
    Proxy, ProxyAddress, ProxyParts, ProxySettings, RemoteProxy, Resolver, Secrets, VaultRules,
};
use palisade_protocol::{CredentialName, CredentialRule, Injection, id::TenantName};
use palisade_testkit::wait_for;
use secrecy::{ExposeSecret as _, SecretString};

use crate::world::{Setup, parts, session};

const SECRET: &str = "sk-live-q1W2e3R4t5";

/// What one server's vault says.
struct Vault(HashMap<&'static str, Result<&'static str, CredentialFault>>);

impl CredentialSource for Vault {
    fn secret(
        &self,
        tenant: &TenantName,
        name: &CredentialName,
    ) -> BoxFuture<'static, Result<SecretString, CredentialFault>> {
        let asked = format!("{tenant}/{name}");
        let told = self.0.get(asked.as_str()).copied().unwrap_or(Err(CredentialFault::Missing));
        Box::pin(std::future::ready(told.map(Into::into)))
    }

    fn known(
        &self,
        tenant: &TenantName,
        names: Vec<CredentialName>,
    ) -> BoxFuture<'static, Result<Secrets, CredentialFault>> {
        let value = |name: CredentialName| {
            let told = self.0.get(format!("{tenant}/{name}").as_str()).copied();
            told.unwrap_or(Err(CredentialFault::Missing)).map(|value| (name, value.into()))
        };
        Box::pin(std::future::ready(names.into_iter().map(value).collect()))
    }
}

fn vault() -> Arc<dyn CredentialSource> {
    Arc::new(Vault(HashMap::from([
        ("acme/thing", Ok(SECRET)),
        ("acme/shut", Err(CredentialFault::Sealed)),
        // Line ends within a secret are not the line's.
        ("acme/lines", Ok("a\r\nb\u{0}\"")),
    ])))
}

fn rules(host: &str) -> VaultRules {
    let rule = CredentialRule {
        name: CredentialName::parse("thing").expect("a name"),
        allowed_hosts: vec![host.to_owned()],
        injection: Injection::Bearer,
        env: None,
        placeholder: "palisade_credential_00000000000000000000000000000001".to_owned(),
    };
    VaultRules { credentials: vec![(acme(), vec![rule])], token_endpoints: Vec::new() }
}

fn acme() -> TenantName {
    TenantName::parse("acme").expect("a name")
}

fn key() -> PassKey {
    PassKey::new(&"k".repeat(32).into()).expect("long enough")
}

/// A proxy that has nobody's vault yet, or one of its own.
struct Borrower {
    proxy: Proxy,
    lent: LentVault,
    folder: tempfile::TempDir,
}

impl Borrower {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let lent = LentVault::default();
        let resolver = Resolver::new("127.0.0.1:9".parse().expect("an address")).expect("a resolver");
        let audit = AuditLog::open(&folder.path().join("audit"), AuditSettings::default()).expect("a log");
        let parts = parts(Setup::default().spec(443), resolver, audit, ProxySettings::default());
        let proxy = Proxy::new(ProxyParts { vault: Arc::new(lent.clone()), ..parts }).expect("a proxy");
        Self { proxy, lent, folder }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("egress.sock")
    }

    fn listen(&self, lent: Option<LentVault>) {
        self.proxy.pass_door(key(), DoorLimits::default(), lent).listen_at(&self.socket()).expect("a socket");
    }

    fn server(&self) -> RemoteProxy {
        RemoteProxy::new(ProxyAddress::Unix(self.socket()), key())
    }

    async fn asks(&self, name: &str) -> Result<String, CredentialFault> {
        let name = CredentialName::parse(name).expect("a name");
        self.lent.secret(&acme(), &name).await.map(|secret| secret.expose_secret().to_owned())
    }

    /// Whether sandboxes of the tenant have to trust an authority of the proxy's: it manages a host.
    fn manages(&self) -> bool {
        let door = self.proxy.door(session(), DoorLimits::default()).expect("a door");
        door.trust_anchor().is_some()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_asks_for_one_secret_at_a_time_and_keeps_none() {
    let proxy = Borrower::start();
    proxy.listen(Some(proxy.lent.clone()));
    assert_eq!(proxy.asks("thing").await, Err(CredentialFault::Unavailable), "nobody has lent anything");
    // A runtime of its own stands for the server, which goes with it.
    let server = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let server = server.expect("a runtime");
    let remote = proxy.server();
    let lent = server.spawn({
        let remote = remote.clone();
        async move { remote.lend(&vault(), rules("allowed.test")).await }
    });
    lent.await.expect("no panic").expect("lent");
    assert!(proxy.manages());
    assert_eq!(proxy.asks("thing").await.as_deref(), Ok(SECRET));
    assert_eq!(proxy.asks("lines").await.as_deref(), Ok("a\r\nb\u{0}\""));
    assert_eq!(proxy.asks("shut").await, Err(CredentialFault::Sealed));
    assert_eq!(proxy.asks("other").await, Err(CredentialFault::Missing));
    let names = |names: &[&str]| names.iter().map(|it| CredentialName::parse(it).expect("a name")).collect();
    let known = proxy.lent.known(&acme(), names(&["thing", "lines"])).await.expect("known");
    let known: Vec<_> = known.iter().map(|(name, secret)| (name.as_str(), secret.expose_secret())).collect();
    assert_eq!(known, [("thing", SECRET), ("lines", "a\r\nb\u{0}\"")]);
    let fault = proxy.lent.known(&acme(), names(&["thing", "shut"])).await;
    assert_eq!(fault.err(), Some(CredentialFault::Sealed), "a part of it is nothing");
    let many = (0..200).map(|_| proxy.asks("thing"));
    assert!(futures_util::future::join_all(many).await.iter().all(|told| told.as_deref() == Ok(SECRET)));

    // What is no rule changes nothing.
    let refused = remote.lend(&vault(), rules("*")).await;
    assert!(matches!(refused, Err(EgressError::NotLent { .. })), "{refused:?}");
    assert!(proxy.manages());

    server.shutdown_background();
    wait_for("the server's end to be seen", async || {
        (proxy.asks("thing").await == Err(CredentialFault::Unavailable)).then_some(())
    })
    .await;
    assert!(proxy.manages(), "what was managed is refused from here on, and not let through");
    proxy.proxy.shutdown(std::time::Duration::ZERO).await;
}

/// Sessions of a server that lends wait until the proxy knows what is managed.
#[tokio::test]
async fn no_session_is_faster_than_the_rules() {
    let proxy = Borrower::start();
    let remote = proxy.server();
    let lent = remote.lend(&vault(), rules("allowed.test")).await;
    assert!(matches!(lent, Err(EgressError::Unreachable { .. })), "{lent:?}");
    remote.lending_broke().await;
    let lending = async {
        proxy.listen(Some(proxy.lent.clone()));
        remote.lend(&vault(), rules("allowed.test")).await.expect("lent");
    };
    // The door is asked for first: had it not waited, it would have found nobody.
    let (door, ()) = tokio::join!(biased; remote.door(session()), lending);
    let door = door.expect("a door");
    assert!(door.trust_anchor().is_some());
}

/// A proxy within a server has that server's vault, and secrets cross no network.
#[tokio::test]
async fn a_vault_is_lent_on_the_same_machine_and_where_there_is_none() {
    let proxy = Borrower::start();
    proxy.listen(None);
    let remote = proxy.server();
    remote.lend(&vault(), rules("allowed.test")).await.expect("nothing to do");
    assert!(!proxy.manages());
    assert_eq!(proxy.asks("thing").await, Err(CredentialFault::Unavailable));
    remote.door(session()).await.expect("nothing to wait for");

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    proxy.proxy.pass_door(key(), DoorLimits::default(), Some(proxy.lent.clone())).listen(listener);
    let lent =
        RemoteProxy::new(ProxyAddress::Tcp(address), key()).lend(&vault(), rules("allowed.test")).await;
    assert!(matches!(lent, Err(EgressError::NotLent { .. })), "{lent:?}");
    assert!(!proxy.manages());
}
