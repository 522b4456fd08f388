//! EG-K1 over real rows: whoever can write the database can break a vault and cannot make it give out anything else.

use super::*;

async fn two_tenants(world: &World) {
    let vault = world.open(named(1)).await.unwrap();
    for tenant in [acme(), tenant("other")] {
        vault.put(&tenant, &name("github"), value(&format!("first-of-{tenant}"))).await.unwrap();
        vault.put(&tenant, &name("jira"), value(&format!("jira-of-{tenant}"))).await.unwrap();
    }
}

#[tokio::test]
async fn no_change_of_the_rows_gives_out_something_else() {
    for (what, sql) in [
        (
            "two rows swapped",
            "UPDATE vault_credential SET name = 'x' WHERE tenant = 'acme' AND name = 'github';
             UPDATE vault_credential SET name = 'github' WHERE tenant = 'acme' AND name = 'jira';
             UPDATE vault_credential SET name = 'jira' WHERE tenant = 'acme' AND name = 'x'",
        ),
        (
            "two values swapped",
            "UPDATE vault_credential SET fields = (SELECT fields FROM vault_credential WHERE tenant = 'acme' AND name = 'jira')
             WHERE tenant = 'acme' AND name = 'github'",
        ),
        (
            "another tenant's row",
            "DELETE FROM vault_credential WHERE tenant = 'acme' AND name = 'github';
             UPDATE vault_credential SET tenant = 'acme' WHERE tenant = 'other' AND name = 'github'",
        ),
        (
            "another tenant's whole vault",
            "DELETE FROM vault_credential WHERE tenant = 'acme'; DELETE FROM vault_tenant WHERE tenant = 'acme';
             DELETE FROM vault_data_key WHERE tenant = 'acme';
             UPDATE vault_credential SET tenant = 'acme' WHERE tenant = 'other';
             UPDATE vault_tenant SET tenant = 'acme' WHERE tenant = 'other';
             UPDATE vault_data_key SET tenant = 'acme' WHERE tenant = 'other'",
        ),
        ("a row put in", "INSERT INTO vault_credential SELECT tenant, 'slack', version, data_key, settings, fields FROM vault_credential WHERE tenant = 'acme' AND name = 'github'"),
        ("a row taken out", "DELETE FROM vault_credential WHERE tenant = 'acme' AND name = 'jira'"),
        ("a value cut", "UPDATE vault_credential SET fields = replace(fields, substr(fields, -12), '\"}') WHERE tenant = 'acme'"),
        ("a value emptied", "UPDATE vault_credential SET fields = '{}' WHERE tenant = 'acme'"),
        ("another host", "UPDATE vault_credential SET settings = replace(settings, 'api.example.com', 'evil.test') WHERE tenant = 'acme'"),
        ("a version", "UPDATE vault_credential SET version = version + 1 WHERE tenant = 'acme'"),
        ("a planted data key", "UPDATE vault_data_key SET wrapped = (SELECT wrapped FROM vault_data_key WHERE tenant = 'other') WHERE tenant = 'acme'"),
        ("no data key", "DELETE FROM vault_data_key WHERE tenant = 'acme'"),
        ("the manifest of another", "UPDATE vault_tenant SET manifest = (SELECT manifest FROM vault_tenant WHERE tenant = 'other') WHERE tenant = 'acme'"),
        ("an earlier version's number", "UPDATE vault_tenant SET version = version - 1 WHERE tenant = 'acme'"),
        ("no head", "DELETE FROM vault_tenant WHERE tenant = 'acme'"),
    ] {
        let world = World::new();
        two_tenants(&world).await;
        world.tamper(sql).await;
        let vault = world.open(named(1)).await.unwrap();
        for credential in ["github", "jira", "slack"] {
            let secret = secret_of(&vault, &acme(), credential).await;
            assert_eq!(secret, Err(VaultFault::Unavailable), "{what}: {credential}");
        }
        let rules = vault.credential_rules(&acme()).await;
        assert_eq!(rules.unwrap_err().code, "vault.corrupt", "{what}");
        let put = vault.put(&acme(), &name("new"), value("new")).await;
        assert!(put.is_err(), "{what}: nothing is built on it");
        if !sql.contains("'other' ") && !sql.contains("tenant = 'acme' WHERE") {
            let others = secret_of(&vault, &tenant("other"), "github").await;
            assert_eq!(others.as_deref(), Ok("first-of-other"), "{what}");
        }
    }
}

#[tokio::test]
async fn an_older_version_that_is_put_back_is_refused() {
    let world = World::new();
    two_tenants(&world).await;
    world
        .tamper(
            "CREATE TABLE kept AS SELECT * FROM vault_credential WHERE tenant = 'acme' AND name = 'github'",
        )
        .await;
    world.tamper("CREATE TABLE kept_head AS SELECT * FROM vault_tenant WHERE tenant = 'acme'").await;
    let vault = world.open(named(1)).await.unwrap();
    vault.put(&acme(), &name("github"), value("second")).await.unwrap();
    assert_eq!(secret_of(&vault, &acme(), "github").await.as_deref(), Ok("second"));
    world
        .tamper(
            "DELETE FROM vault_credential WHERE tenant = 'acme' AND name = 'github';
             INSERT INTO vault_credential SELECT * FROM kept",
        )
        .await;
    let again = world.open(named(1)).await.unwrap();
    assert_eq!(secret_of(&again, &acme(), "github").await, Err(VaultFault::Unavailable));
    // With its manifest it is a backup to whoever starts now; who has seen more knows better.
    world.tamper("DELETE FROM vault_tenant WHERE tenant = 'acme'; INSERT INTO vault_tenant SELECT * FROM kept_head").await;
    vault.heed_change(&acme());
    assert_eq!(secret_of(&vault, &acme(), "github").await, Err(VaultFault::Unavailable));
    let restored = world.open(named(1)).await.unwrap();
    assert_eq!(secret_of(&restored, &acme(), "github").await.as_deref(), Ok("first-of-acme"));
}

#[tokio::test]
async fn a_vault_of_another_key_does_not_start() {
    let world = World::new();
    two_tenants(&world).await;
    assert!(matches!(world.open(named(2)).await, Err(VaultStartError::Key(VaultError::WrongKey))));
    let passphrase =
        KeySource::Named(Arc::new(|| Ok(KeyMaterial::passphrase("correct horse battery".into()).unwrap())));
    assert!(matches!(world.open(passphrase).await, Err(VaultStartError::Key(VaultError::WrongKind { .. }))));
    world.tamper("UPDATE vault_kek SET check_value = '00'").await;
    assert!(world.open(named(1)).await.is_err());
}

/// EG-K1 and EG-K3: no word of a secret is in the database.
#[tokio::test]
async fn nothing_readable_is_stored() {
    let world = World::new();
    two_tenants(&world).await;
    for file in ["palisade.db", "palisade.db-wal"] {
        let bytes = std::fs::read(world.folder.path().join(file)).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        for secret in ["first-of-acme", "jira-of", "66697273742d6f66"] {
            assert!(!text.contains(secret), "{secret} in {file}");
        }
    }
}
