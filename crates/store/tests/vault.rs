//! The vault's rows through the store's public face, on both engines: a change is whole or not at all, is made from what is there,
//! and nothing that could be opened before a step of a rotation cannot be opened after it.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy takes only test functions for tests, not what they call"
)]

mod engines;

use palisade_protocol::{CredentialName, TenantName};
use palisade_store::{
    Notice, OpenStore, Store, StoreError, StoreUrl, StoredCredential, StoredDataKey, StoredKek, VaultChange,
};
use palisade_testkit::postgres::Postgres;
use tokio::task::JoinSet;

use engines::{Engine, on_both_engines};

on_both_engines!(
    a_vault_is_made_once,
    a_change_is_made_from_what_is_there_or_not_at_all,
    what_is_read_belongs_together,
    a_version_only_grows,
    a_key_is_switched_when_everything_is_wrapped_by_the_next,
    an_old_data_key_goes_when_nothing_is_under_it,
    one_server_renews_a_credential,
);

fn tenant() -> TenantName {
    TenantName::parse("acme").unwrap()
}

fn name(text: &str) -> CredentialName {
    CredentialName::parse(text).unwrap()
}

fn kek(generation: i64) -> StoredKek {
    StoredKek {
        generation,
        kind: "key".into(),
        salt: String::new(),
        iterations: 0,
        check: format!("check {generation}"),
    }
}

fn data_key(version: i64, kek: i64) -> StoredDataKey {
    StoredDataKey { tenant: tenant(), version, kek, wrapped: format!("wrapped {version} {kek}") }
}

fn credential(of: &str, version: i64, data_key: i64) -> StoredCredential {
    StoredCredential {
        name: name(of),
        version,
        data_key,
        settings: format!("settings {version}"),
        fields: format!("fields {version}"),
    }
}

/// The change that makes the version after `from` out of it, under data key 1.
fn change(from: i64, put: Vec<StoredCredential>) -> VaultChange {
    VaultChange {
        tenant: tenant(),
        from_version: from,
        data_key: 1,
        manifest: format!("manifest {}", from + 1),
        new_data_key: (from == 0).then(|| data_key(1, 1)),
        put,
        delete: Vec::new(),
    }
}

async fn open(engine: &Engine) -> Store {
    let store = engine.open().await;
    store.register_server("here").await.unwrap();
    store.create_vault("aa", kek(1)).await.unwrap();
    store
}

async fn a_vault_is_made_once(engine: Engine) {
    let store = engine.open().await;
    assert_eq!(store.vault().await.unwrap(), None);
    let made = (0..8).map(|n| {
        let (store, name) = (store.clone(), format!("a{n}"));
        async move { store.create_vault(&name, kek(1)).await }
    });
    for made in futures_util::future::join_all(made).await {
        made.unwrap();
    }
    let vault = store.vault().await.unwrap().unwrap();
    assert_eq!((vault.kek, vault.is_sealed), (1, false));
    assert_eq!(store.vault_keks().await.unwrap(), [kek(1)]);
    store.seal_vault(true).await.unwrap();
    assert!(store.vault().await.unwrap().unwrap().is_sealed);
    store.close().await;
    let again = engine.open().await;
    assert!(again.vault().await.unwrap().unwrap().is_sealed, "it stays sealed");
    assert_eq!(again.vault().await.unwrap().unwrap().name, vault.name);
}

async fn a_change_is_made_from_what_is_there_or_not_at_all(engine: Engine) {
    let store = open(&engine).await;
    assert_eq!(store.vault_of(&tenant()).await.unwrap().version, 0);
    store.change_vault(change(0, vec![credential("github", 1, 1)])).await.unwrap();
    for stale in [change(0, vec![credential("stale", 1, 1)]), change(2, vec![credential("stale", 3, 1)])] {
        assert!(matches!(store.change_vault(stale).await, Err(StoreError::VaultChanged(_))));
    }
    let wrapped_by_another =
        VaultChange { new_data_key: Some(data_key(2, 7)), ..change(1, vec![credential("stale", 2, 1)]) };
    assert!(matches!(store.change_vault(wrapped_by_another).await, Err(StoreError::VaultKeyChanged)));
    let found = store.vault_of(&tenant()).await.unwrap();
    assert_eq!((found.version, found.data_key, found.manifest.as_str()), (1, 1, "manifest 1"));
    assert_eq!(found.credentials, [credential("github", 1, 1)]);
    assert_eq!(store.data_keys(&tenant(), 1).await.unwrap(), [data_key(1, 1)]);
    store.change_vault(VaultChange { delete: vec![name("github")], ..change(1, vec![]) }).await.unwrap();
    assert_eq!(store.vault_of(&tenant()).await.unwrap().credentials, []);
    assert_eq!(store.vault_of(&tenant()).await.unwrap().version, 2, "the count goes on");
    let other = TenantName::parse("other").unwrap();
    assert_eq!(store.vault_of(&other).await.unwrap().version, 0);
}

async fn what_is_read_belongs_together(engine: Engine) {
    let store = open(&engine).await;
    store.change_vault(change(0, vec![credential("a", 1, 1), credential("b", 1, 1)])).await.unwrap();
    let mut tasks = JoinSet::new();
    for _ in 0..4 {
        let store = store.clone();
        // Each wins for as long as it makes its change from the latest.
        tasks.spawn(async move {
            let mut won = 0;
            while won < 25 {
                let seen = store.vault_of(&tenant()).await.unwrap();
                assert_eq!(seen.manifest, format!("manifest {}", seen.version));
                for found in &seen.credentials {
                    assert_eq!(found.version, seen.version, "both rows were written with that version");
                }
                let next = seen.version + 1;
                let both = vec![credential("a", next, 1), credential("b", next, 1)];
                match store.change_vault(change(seen.version, both)).await {
                    Ok(()) => won += 1,
                    Err(StoreError::VaultChanged(_)) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(store.vault_of(&tenant()).await.unwrap().version, 101);
}

async fn a_version_only_grows(engine: Engine) {
    let store = open(&engine).await;
    store.change_vault(change(0, vec![credential("github", 1, 1)])).await.unwrap();
    store.change_vault(change(1, vec![credential("github", 2, 1)])).await.unwrap();
    let back = store.change_vault(change(2, vec![credential("github", 1, 1)])).await;
    assert!(matches!(back, Err(StoreError::VaultChanged(_))), "{back:?}");
    let found = store.vault_of(&tenant()).await.unwrap();
    assert_eq!((found.version, found.credentials), (2, vec![credential("github", 2, 1)]));
}

/// EG-K2, the rows' part: at no point is a data key without the key that is in use.
async fn a_key_is_switched_when_everything_is_wrapped_by_the_next(engine: Engine) {
    let store = open(&engine).await;
    store.change_vault(change(0, vec![credential("github", 1, 1)])).await.unwrap();
    assert!(matches!(store.enter_next_kek(kek(1)).await, Err(StoreError::VaultKeyChanged)));
    store.enter_next_kek(kek(2)).await.unwrap();
    assert!(!store.switch_kek(1, &kek(2)).await.unwrap(), "nothing is wrapped by it yet");
    assert_eq!(store.data_keys_to_wrap(1, 2, 10).await.unwrap(), [data_key(1, 1)]);
    // Another key instead: what the first wrapped goes with it.
    store.add_wrapped(&kek(2), vec![data_key(1, 2)]).await.unwrap();
    store.enter_next_kek(kek(2)).await.unwrap();
    assert_eq!(store.data_keys(&tenant(), 2).await.unwrap(), []);
    for _ in 0..2 {
        store.add_wrapped(&kek(2), vec![data_key(1, 2)]).await.unwrap();
    }
    assert_eq!(store.data_keys_to_wrap(1, 2, 10).await.unwrap(), []);
    let namesake = StoredKek { check: "another key".into(), ..kek(2) };
    assert!(matches!(
        store.add_wrapped(&namesake, vec![data_key(1, 2)]).await,
        Err(StoreError::VaultKeyChanged)
    ));
    assert!(matches!(store.switch_kek(1, &namesake).await, Err(StoreError::VaultKeyChanged)));
    // A data key that comes in between holds it up.
    let late = VaultChange { data_key: 2, new_data_key: Some(data_key(2, 1)), ..change(1, vec![]) };
    store.change_vault(late).await.unwrap();
    assert!(!store.switch_kek(1, &kek(2)).await.unwrap());
    store.retire_keks().await.unwrap();
    assert_eq!(store.data_keys(&tenant(), 1).await.unwrap().len(), 2, "the key in use stays");
    store.add_wrapped(&kek(2), vec![data_key(2, 2)]).await.unwrap();
    assert!(store.switch_kek(1, &kek(2)).await.unwrap());
    assert!(matches!(store.switch_kek(1, &kek(2)).await, Err(StoreError::VaultKeyChanged)), "it was done");
    assert_eq!(
        store.data_keys(&tenant(), 1).await.unwrap().len(),
        2,
        "both wrap it until the old one is retired"
    );
    for _ in 0..2 {
        store.retire_keks().await.unwrap();
    }
    assert_eq!(store.data_keys(&tenant(), 1).await.unwrap(), []);
    assert_eq!(store.data_keys(&tenant(), 2).await.unwrap(), [data_key(1, 2), data_key(2, 2)]);
    assert_eq!(store.vault_keks().await.unwrap(), [kek(2)]);
}

async fn an_old_data_key_goes_when_nothing_is_under_it(engine: Engine) {
    let store = open(&engine).await;
    store.change_vault(change(0, vec![credential("a", 1, 1), credential("b", 1, 1)])).await.unwrap();
    assert_eq!(store.tenants_to_reseal().await.unwrap(), []);
    let begun = VaultChange { data_key: 2, new_data_key: Some(data_key(2, 1)), ..change(1, vec![]) };
    store.change_vault(begun).await.unwrap();
    assert_eq!(store.tenants_to_reseal().await.unwrap(), [tenant()]);
    for (from, resealed, left) in [(2, "a", 2), (3, "b", 1)] {
        let resealed = VaultChange { data_key: 2, ..change(from, vec![credential(resealed, 1, 2)]) };
        store.change_vault(resealed).await.unwrap();
        store.sweep_data_keys(&tenant()).await.unwrap();
        assert_eq!(store.data_keys(&tenant(), 1).await.unwrap().len(), left);
    }
    assert_eq!(store.tenants_to_reseal().await.unwrap(), []);
    assert_eq!(store.tenants_of_vault().await.unwrap(), [tenant()]);
}

async fn one_server_renews_a_credential(engine: Engine) {
    let store = open(&engine).await;
    let github = name("github");
    assert!(store.claim_renewal(&tenant(), &github, 10.0, 20.0).await.unwrap());
    assert!(store.claim_renewal(&tenant(), &github, 11.0, 21.0).await.unwrap(), "its own it may prolong");
    let Engine::Postgres { .. } = engine else { return };
    let other = engine.open().await;
    other.register_server("there").await.unwrap();
    assert!(!other.claim_renewal(&tenant(), &github, 12.0, 22.0).await.unwrap());
    assert!(other.claim_renewal(&tenant(), &name("jira"), 12.0, 22.0).await.unwrap(), "another one is free");
    other.release_renewal(&tenant(), &github).await.unwrap();
    assert!(!other.claim_renewal(&tenant(), &github, 12.0, 22.0).await.unwrap(), "it was not its to release");
    store.release_renewal(&tenant(), &github).await.unwrap();
    assert!(other.claim_renewal(&tenant(), &github, 12.0, 22.0).await.unwrap());
    assert!(!store.claim_renewal(&tenant(), &github, 21.0, 31.0).await.unwrap());
    assert!(store.claim_renewal(&tenant(), &github, 23.0, 33.0).await.unwrap(), "the other took too long");
    store.leave().await.unwrap();
    assert!(other.claim_renewal(&tenant(), &github, 24.0, 34.0).await.unwrap(), "its server is gone");
}

#[tokio::test]
async fn one_server_hears_of_the_others_changes() {
    let Some(postgres) = Postgres::start() else { return };
    let url = StoreUrl::Postgres(postgres.database());
    let mut servers = Vec::new();
    for server in ["here", "there"] {
        let OpenStore { store, tasks, mut notices } = Store::open(&url).await.unwrap();
        for task in tasks {
            tokio::runtime::Handle::current().spawn(task);
        }
        store.register_server(server).await.unwrap();
        assert_eq!(notices.recv().await, Some(Notice::Missed), "it listens from here on");
        servers.push((store, notices));
    }
    let (mut there, here) = (servers.remove(1).1, servers.remove(0).0);
    here.create_vault("aa", kek(1)).await.unwrap();
    here.change_vault(change(0, vec![credential("github", 1, 1)])).await.unwrap();
    assert_eq!(there.recv().await, Some(Notice::VaultChanged(tenant())));
    here.seal_vault(true).await.unwrap();
    assert_eq!(there.recv().await, Some(Notice::VaultKeys));
    here.enter_next_kek(kek(2)).await.unwrap();
    here.add_wrapped(&kek(2), vec![data_key(1, 2)]).await.unwrap();
    assert!(here.switch_kek(1, &kek(2)).await.unwrap());
    assert_eq!(there.recv().await, Some(Notice::VaultKeys));
}
