//! Several servers on one PostgreSQL: what one does the others follow, and a refresh token that is good once is used once.

use std::time::Duration;

use palisade_store::Notice;
use palisade_testkit::postgres::Postgres;
use palisade_testkit::token_endpoint::{Reply, TokenEndpoint};
use palisade_testkit::wait_for;

use super::*;

/// A server that heeds the others, as the runtime does.
async fn join(url: &StoreUrl, server: &str, source: KeySource) -> Vault {
    let OpenStore { store, tasks, mut notices } = Store::open(url).await.unwrap();
    for task in tasks {
        tokio::runtime::Handle::current().spawn(task);
    }
    store.register_server(server).await.unwrap();
    let vault = open_over(store, source).await.unwrap();
    let heeding = vault.clone();
    tokio::runtime::Handle::current().spawn(async move {
        while let Some(notice) = notices.recv().await {
            match notice {
                Notice::VaultChanged(tenant) => heeding.heed_change(&tenant),
                Notice::VaultKeys => heeding.heed_keys().await,
                Notice::Missed => heeding.heed_missed().await,
                _ => {}
            }
        }
    });
    vault
}

async fn comes_to(vault: &Vault, expected: Result<&str, VaultFault>) {
    wait_for("the other server to follow", async || {
        (secret_of(vault, &acme(), "github").await.as_deref() == expected.as_ref().map(|text| &**text))
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_one_server_does_the_others_follow() {
    let Some(postgres) = Postgres::start() else { return };
    let url = StoreUrl::Postgres(postgres.database());
    let folder = tempfile::tempdir().unwrap();
    let kept = KeySource::Kept(folder.path().join("vault.key"));
    let (here, there) = tokio::join!(join(&url, "here", kept.clone()), join(&url, "there", kept));
    here.put(&acme(), &name("github"), value("one")).await.unwrap();
    comes_to(&there, Ok("one")).await;
    there.put(&acme(), &name("github"), value("two")).await.unwrap();
    comes_to(&here, Ok("two")).await;
    here.rotate_key(None).await.unwrap();
    here.rotate_data_keys(None).await.unwrap();
    there.put(&tenant("new"), &name("c"), value("new")).await.unwrap();
    assert_eq!(secret_of(&here, &tenant("new"), "c").await.as_deref(), Ok("new"));
    comes_to(&there, Ok("two")).await;
    here.seal().await.unwrap();
    comes_to(&there, Err(VaultFault::Sealed)).await;
    there.unseal(None).await.unwrap();
    comes_to(&here, Ok("two")).await;
    here.delete(&acme(), &name("github")).await.unwrap();
    comes_to(&there, Err(VaultFault::Missing)).await;
}

#[tokio::test]
async fn two_servers_use_a_refresh_token_once() {
    let Some(postgres) = Postgres::start() else { return };
    let url = StoreUrl::Postgres(postgres.database());
    let endpoint = TokenEndpoint::start(Reply::Rotate { expires_in: 3600 }).await.unwrap();
    endpoint.slow_down(Duration::from_millis(300));
    let (here, there) = tokio::join!(join(&url, "here", named(1)), join(&url, "there", named(1)));
    let draft = CredentialDraft {
        secret: SecretDraft::OAuth(OAuthDraft {
            grant: OAuthGrant::RefreshToken,
            token_url: endpoint.url(),
            client_id: "client".into(),
            client_secret: "client-secret".into(),
            refresh_token: Some(TokenEndpoint::first_refresh_token().into()),
            scope: None,
            client_auth: ClientAuth::Post,
        }),
        ..value("")
    };
    here.put(&acme(), &name("github"), draft).await.unwrap();
    wait_for("the other server to follow", async || {
        (there.list(&acme()).await.unwrap().len() == 1).then_some(())
    })
    .await;
    let tenant = acme();
    let (one, two) = tokio::join!(secret_of(&here, &tenant, "github"), secret_of(&there, &tenant, "github"));
    assert_eq!((one.as_deref(), two.as_deref()), (Ok("access-1"), Ok("access-1")));
    assert_eq!(endpoint.asked().len(), 1);
}
