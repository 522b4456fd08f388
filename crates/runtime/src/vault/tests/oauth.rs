//! EG-H7 and EG-H8, against a real endpoint over HTTP.

use std::time::Duration;

use palisade_testkit::token_endpoint::{Reply, TokenEndpoint};

use super::*;

const ROTATE: Reply = Reply::Rotate { expires_in: 3600 };

fn oauth(endpoint: &TokenEndpoint, grant: OAuthGrant) -> CredentialDraft {
    let refresh_token =
        (grant == OAuthGrant::RefreshToken).then(|| TokenEndpoint::first_refresh_token().into());
    CredentialDraft {
        secret: SecretDraft::OAuth(OAuthDraft {
            grant,
            token_url: endpoint.url(),
            client_id: "client".into(),
            client_secret: "client-secret".into(),
            refresh_token,
            scope: Some("read".into()),
            client_auth: ClientAuth::Basic,
        }),
        ..value("")
    }
}

async fn start(always: Reply, grant: OAuthGrant) -> (World, TokenEndpoint, Vault) {
    let endpoint = TokenEndpoint::start(always).await.unwrap();
    let world = World::new();
    let vault = world.open(named(1)).await.unwrap();
    vault.put(&acme(), &name("idp"), oauth(&endpoint, grant)).await.unwrap();
    (world, endpoint, vault)
}

#[tokio::test]
async fn many_who_want_a_token_make_one_call() {
    let (world, endpoint, vault) = start(ROTATE, OAuthGrant::RefreshToken).await;
    endpoint.slow_down(Duration::from_millis(50));
    let wants = (0..100).map(|_| {
        let vault = vault.clone();
        async move { secret_of(&vault, &acme(), "idp").await }
    });
    for token in futures_util::future::join_all(wants).await {
        assert_eq!(token.as_deref(), Ok("access-1"));
    }
    let asked = endpoint.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].body, "grant_type=refresh_token&refresh_token=refresh-0&scope=read");
    assert!(asked[0].authorization.as_deref().is_some_and(|field| field.starts_with("Basic ")));
    let shown = vault.list(&acme()).await.unwrap().remove(0);
    assert_eq!(shown.kind, CredentialKind::OAuth(OAuthGrant::RefreshToken));
    assert!(shown.expires_at.is_some_and(|at| at > crate::clock::now() + 3000.0));
    // It is stored, so a start asks nobody; and so is the refresh token that came with it.
    let restarted = world.open(named(1)).await.unwrap();
    assert_eq!(secret_of(&restarted, &acme(), "idp").await.as_deref(), Ok("access-1"));
    assert_eq!(endpoint.asked().len(), 1);
}

#[tokio::test]
async fn an_expired_token_is_replaced_and_the_refresh_token_with_it() {
    let (world, endpoint, vault) = start(ROTATE, OAuthGrant::RefreshToken).await;
    for round in 1..=3 {
        assert_eq!(secret_of(&vault, &acme(), "idp").await, Ok(format!("access-{round}")));
        expire(&vault, 0.0).await;
    }
    let bodies: Vec<_> = endpoint.asked().into_iter().map(|asked| asked.body).collect();
    assert!((0..3).all(|n| bodies[n].contains(&format!("refresh_token=refresh-{n}"))), "{bodies:?}");
    drop(vault);
    let restarted = world.open(named(1)).await.unwrap();
    assert_eq!(
        secret_of(&restarted, &acme(), "idp").await.as_deref(),
        Ok("access-4"),
        "the latest was stored"
    );
}

/// What a token was renewed with, and what it was a moment ago, must not come back in an answer either.
#[tokio::test]
async fn earlier_tokens_and_those_they_are_had_with_are_known() {
    let (_world, _endpoint, vault) = start(ROTATE, OAuthGrant::RefreshToken).await;
    assert_eq!(secret_of(&vault, &acme(), "idp").await.as_deref(), Ok("access-1"));
    expire(&vault, 0.0).await;
    assert_eq!(secret_of(&vault, &acme(), "idp").await.as_deref(), Ok("access-2"));
    let known = known_of(&vault, "idp").await.unwrap();
    for secret in ["access-1", "access-2", "refresh-0", "refresh-1", "refresh-2"] {
        assert!(known.iter().any(|it| it == secret), "{secret}: {known:?}");
    }
    assert_eq!(known_of(&vault, "nothing").await, Ok(Vec::new()));
}

/// Moves the end of the access token, as time would: it is to be replaced, and is good for so long.
async fn expire(vault: &Vault, left_s: f64) {
    let expires_at = crate::clock::now() + left_s;
    vault
        .change(&acme(), |opened| {
            let mut settings = opened.credentials[&name("idp")].settings.clone();
            settings.access = Some(settings::Access { expires_at, renew_at: 0.0 });
            let secrets = opened.secrets(&acme(), &name("idp"))?;
            let put = change::Put { name: name("idp"), version: None, settings, secrets };
            Ok((change::Edit { put: vec![put], ..change::Edit::default() }, ()))
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn whoever_leaves_does_not_break_the_call_off() {
    let (_world, endpoint, vault) = start(ROTATE, OAuthGrant::RefreshToken).await;
    endpoint.slow_down(Duration::from_millis(100));
    let credential = name("idp");
    let tenant = acme();
    let wanted = vault.credential_secret(&tenant, &credential);
    let left = tokio::time::timeout(Duration::from_millis(20), wanted).await;
    assert!(left.is_err(), "it left before the answer");
    vault.settle().await;
    assert_eq!(secret_of(&vault, &acme(), "idp").await.as_deref(), Ok("access-1"));
    assert_eq!(endpoint.asked().len(), 1, "and what it had asked for was not lost");
}

#[tokio::test]
async fn a_refusal_is_remembered_and_says_nothing_to_anybody() {
    let refusal = r#"{"error":"invalid_grant","error_description":"the-endpoint-says-this"}"#;
    let (_world, endpoint, vault) = start(Reply::Say(400, refusal.into()), OAuthGrant::RefreshToken).await;
    for _ in 0..20 {
        assert_eq!(secret_of(&vault, &acme(), "idp").await, Err(VaultFault::Unavailable));
    }
    assert_eq!(endpoint.asked().len(), 1, "it is not asked again at once");
    // Another credential is another matter, and so is the same one anew.
    endpoint.always(ROTATE);
    vault.put(&acme(), &name("two"), oauth(&endpoint, OAuthGrant::RefreshToken)).await.unwrap();
    assert_eq!(secret_of(&vault, &acme(), "two").await.as_deref(), Ok("access-1"));
    endpoint.always(Reply::Say(200, r#"{"access_token":"fresh"}"#.into()));
    vault.put(&acme(), &name("idp"), oauth(&endpoint, OAuthGrant::RefreshToken)).await.unwrap();
    assert_eq!(secret_of(&vault, &acme(), "idp").await.as_deref(), Ok("fresh"));
}

#[tokio::test]
async fn a_passing_fault_is_tried_again_a_few_times() {
    let (_world, endpoint, vault) =
        start(Reply::Say(503, String::new()), OAuthGrant::ClientCredentials).await;
    assert_eq!(secret_of(&vault, &acme(), "idp").await, Err(VaultFault::Unavailable));
    assert_eq!(endpoint.asked().len(), palisade_protocol::limits::TOKEN_CALLS_MAX as usize);
    endpoint.push(Reply::Say(500, String::new()));
    endpoint.always(Reply::Say(200, r#"{"access_token":"at-last"}"#.into()));
    vault.put(&acme(), &name("idp"), oauth(&endpoint, OAuthGrant::ClientCredentials)).await.unwrap();
    assert_eq!(secret_of(&vault, &acme(), "idp").await.as_deref(), Ok("at-last"));
    assert!(endpoint.asked().last().unwrap().body.starts_with("grant_type=client_credentials&"));
}

#[tokio::test]
async fn a_token_that_is_still_good_outlives_a_failed_replacement_and_no_longer() {
    let (_world, endpoint, vault) = start(ROTATE, OAuthGrant::RefreshToken).await;
    assert_eq!(secret_of(&vault, &acme(), "idp").await.as_deref(), Ok("access-1"));
    endpoint.always(Reply::Say(400, "{}".into()));
    expire(&vault, 1000.0).await;
    assert_eq!(secret_of(&vault, &acme(), "idp").await.as_deref(), Ok("access-1"));
    assert_eq!(endpoint.asked().len(), 2);
    expire(&vault, -1.0).await;
    assert_eq!(secret_of(&vault, &acme(), "idp").await, Err(VaultFault::Unavailable));
}

#[tokio::test]
async fn what_no_header_takes_and_what_is_endless_is_no_token() {
    let long = format!(r#"{{"access_token":"{}"}}"#, "a".repeat(ANSWER_BYTES_MAX));
    for body in [r#"{"access_token":"a\r\nX-Evil: 1"}"#, r#"{"access_token":""}"#, "<html>", &long] {
        let (_world, _endpoint, vault) =
            start(Reply::Say(200, body.into()), OAuthGrant::ClientCredentials).await;
        assert_eq!(secret_of(&vault, &acme(), "idp").await, Err(VaultFault::Unavailable));
    }
}

#[tokio::test]
async fn tokens_of_a_credential_that_was_replaced_meanwhile_are_dropped() {
    let (_world, endpoint, vault) = start(ROTATE, OAuthGrant::RefreshToken).await;
    endpoint.slow_down(Duration::from_millis(100));
    let wanting = async { secret_of(&vault, &acme(), "idp").await };
    let replacing = async {
        palisade_testkit::wait_for("the call", async || (!endpoint.asked().is_empty()).then_some(())).await;
        vault.put(&acme(), &name("idp"), value("a-value-now")).await.unwrap();
    };
    let (wanted, ()) = tokio::join!(wanting, replacing);
    assert_eq!(wanted, Err(VaultFault::Unavailable));
    assert_eq!(secret_of(&vault, &acme(), "idp").await.as_deref(), Ok("a-value-now"));
}

#[tokio::test]
async fn a_sealed_vault_asks_nobody() {
    let (_world, endpoint, vault) = start(ROTATE, OAuthGrant::RefreshToken).await;
    vault.seal().await.unwrap();
    assert_eq!(secret_of(&vault, &acme(), "idp").await, Err(VaultFault::Sealed));
    assert_eq!(endpoint.asked().len(), 0);
}
