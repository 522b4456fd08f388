//! The vault as a whole: over a real store, with a real endpoint behind it, tampered with and killed in between.

mod oauth;
mod rotation;
mod several;
mod tampering;
mod writing;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use palisade_egress::{
    AuditLog, AuditSettings, Credentials, DoorLimits, Endpoint, NoCredentials, PolicySpec, Principal, Proxy,
    ProxyParts, ProxySettings, Resolver, Trust,
};
use palisade_protocol::{CredentialName, Injection, TenantName};
use palisade_store::{OpenStore, Store, StoreUrl};
use palisade_vault::{ExposeSecret as _, KeyMaterial, SecretString};
use tokio_util::task::TaskTracker;

use super::*;
use crate::transport::ProxyServiceCalls;

fn tenant(name: &str) -> TenantName {
    TenantName::parse(name).unwrap()
}

fn acme() -> TenantName {
    tenant("acme")
}

fn name(text: &str) -> CredentialName {
    CredentialName::parse(text).unwrap()
}

fn value(text: &str) -> CredentialDraft {
    CredentialDraft {
        secret: SecretDraft::Value(text.to_owned().into()),
        allowed_hosts: vec!["api.example.com".into()],
        injection: Injection::Bearer,
        env: None,
    }
}

fn material(byte: u8) -> KeyMaterial {
    KeyMaterial::key(&[byte; 32]).unwrap()
}

fn named(byte: u8) -> KeySource {
    KeySource::Named(Arc::new(move || Ok(material(byte))))
}

/// A vault of one test's own.
struct World {
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn database(&self) -> PathBuf {
        self.folder.path().join("palisade.db")
    }

    fn key_file(&self) -> PathBuf {
        self.folder.path().join("vault.key")
    }

    /// A server's start, as far as the vault goes.
    async fn open(&self, source: KeySource) -> Result<Vault, VaultStartError> {
        open(&StoreUrl::Sqlite(self.database()), "here", source).await
    }

    async fn open_kept(&self) -> Vault {
        self.open(KeySource::Kept(self.key_file())).await.unwrap()
    }

    /// Writes to the rows behind the vault's back.
    async fn tamper(&self, sql: &'static str) {
        use sqlx::{ConnectOptions as _, Connection as _};
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(self.database());
        let mut connection = options.connect().await.unwrap();
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }
}

async fn open(url: &StoreUrl, server: &str, source: KeySource) -> Result<Vault, VaultStartError> {
    let OpenStore { store, tasks, notices } = Store::open(url).await.unwrap();
    for task in tasks {
        tokio::runtime::Handle::current().spawn(task);
    }
    // Listened to for as long as the process lives.
    std::mem::forget(notices);
    let _ = store.register_server(server).await;
    open_over(store, source).await
}

async fn open_over(store: Store, source: KeySource) -> Result<Vault, VaultStartError> {
    let calls = Arc::new(Way::new());
    let config = VaultConfig { source, key: None, calls, loopback_token_urls: true };
    Vault::open(store, config, TaskTracker::new()).await
}

/// A proxy that lets the vault's calls go wherever they go, which is one endpoint a test.
struct Way {
    proxy: Proxy,
    calls: ProxyServiceCalls,
    _audit: tempfile::TempDir,
}

impl Way {
    fn new() -> Self {
        let audit = tempfile::tempdir().unwrap();
        let proxy = Proxy::new(ProxyParts {
            policy: PolicySpec::default(),
            resolver: Resolver::new("127.0.0.1:9".parse().unwrap()).unwrap(),
            audit: Arc::new(AuditLog::open(audit.path(), AuditSettings::default()).unwrap()),
            trust: Trust::load(&[]).unwrap(),
            credentials: Credentials::new(),
            vault: Arc::new(NoCredentials),
            settings: ProxySettings::default(),
        })
        .unwrap();
        let door = proxy.door(Principal::Service, DoorLimits::default()).unwrap();
        Self { proxy, calls: ProxyServiceCalls::new(door), _audit: audit }
    }
}

impl ServiceCalls for Way {
    fn post_form(&self, call: FormPost) -> BoxFuture<'static, Result<(u16, Bytes), ServiceFault>> {
        let services = vec![Endpoint::of_url(&call.url).unwrap()];
        self.proxy.reload(PolicySpec { services, ..PolicySpec::default() }).unwrap();
        self.calls.post_form(call)
    }
}

/// What the proxy would get.
async fn secret_of(vault: &Vault, tenant: &TenantName, credential: &str) -> Result<String, VaultFault> {
    let secret = vault.credential_secret(tenant, &name(credential)).await;
    secret.map(|secret: SecretString| secret.expose_secret().to_owned())
}

/// What the proxy would look for in answers, sorted.
async fn known_of(vault: &Vault, credential: &str) -> Result<Vec<String>, VaultFault> {
    let known = vault.known_secrets(&acme(), &[name(credential)]).await?;
    let mut known: Vec<_> = known.into_iter().map(|(_, secret)| secret.expose_secret().to_owned()).collect();
    known.sort();
    Ok(known)
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}
