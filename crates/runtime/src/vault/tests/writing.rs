//! What is taken and what is not, who sees what, and sealing.

use palisade_protocol::limits;

use super::*;

async fn refused(vault: &Vault, draft: CredentialDraft) -> &'static str {
    vault.put(&acme(), &name("github"), draft).await.unwrap_err().code
}

fn with(change: impl FnOnce(&mut CredentialDraft)) -> CredentialDraft {
    let mut draft = value("hunter2");
    change(&mut draft);
    draft
}

/// EG-F5, EG-H11 and their like.
#[tokio::test]
async fn what_could_do_harm_is_not_taken() {
    let world = World::new();
    let vault = world.open(named(1)).await.unwrap();
    let long = "v".repeat(limits::VAULT_SECRET_BYTES_MAX + 1);
    for wrong in
        ["", "a\r\nX-Evil: 1", "a\nb", "a\0b", "a\u{7f}", "tab\tbed", " padded", "padded ", "nö", &long]
    {
        let error = vault.put(&acme(), &name("github"), value(wrong)).await.unwrap_err();
        assert_eq!(error.code, "vault.bad_value", "{wrong:?}");
        assert!(wrong.len() < 3 || !error.message.contains(wrong), "{}", error.message);
    }
    for wrong in
        ["*", "*.com", "*.co.uk", "a.*.com", "10.0.0.1", "[::1]", "https://a.com", "a.com/x", "", "a b"]
    {
        let code = refused(&vault, with(|draft| draft.allowed_hosts = vec![wrong.into()])).await;
        assert_eq!(code, "vault.bad_hosts", "{wrong:?}");
    }
    for count in [0, limits::VAULT_HOSTS_MAX + 1] {
        let hosts = (0..count).map(|n| format!("h{n}.example.com")).collect();
        assert_eq!(refused(&vault, with(|draft| draft.allowed_hosts = hosts)).await, "vault.bad_hosts");
    }
    for wrong in [
        "Host",
        "connection",
        "Content-Length",
        "content-type",
        "Transfer-Encoding",
        "Proxy-Authorization",
        "TE",
        "Upgrade",
        "bad name",
        "",
        "x:y",
        "Palisade-Credential",
    ] {
        let injection = Injection::Header { name: wrong.into() };
        assert_eq!(
            refused(&vault, with(|draft| draft.injection = injection)).await,
            "vault.bad_injection",
            "{wrong}"
        );
    }
    for injection in [
        Injection::Basic { username: "a:b".into() },
        Injection::Basic { username: "a\nb".into() },
        Injection::Query { name: "a&b".into() },
        Injection::Query { name: String::new() },
    ] {
        assert_eq!(refused(&vault, with(|draft| draft.injection = injection)).await, "vault.bad_injection");
    }
    for wrong in [
        "PATH",
        "LD_PRELOAD",
        "HTTP_PROXY",
        "BASH_ENV",
        "lower",
        "1A",
        "A-B",
        "",
        "PYTHONPATH",
        &"A".repeat(65),
    ] {
        let env = Some(wrong.to_owned());
        assert_eq!(refused(&vault, with(|draft| draft.env = env)).await, "vault.bad_env", "{wrong}");
    }
    assert_eq!(vault.list(&acme()).await.unwrap(), []);
}

#[tokio::test]
async fn a_token_url_is_https_and_somebodys() {
    let world = World::new();
    let vault = world.open(named(1)).await.unwrap();
    let oauth = |token_url: &str, grant, refresh_token: Option<&str>| CredentialDraft {
        secret: SecretDraft::OAuth(OAuthDraft {
            grant,
            token_url: token_url.into(),
            client_id: "id".into(),
            client_secret: "secret".into(),
            refresh_token: refresh_token.map(Into::into),
            scope: None,
            client_auth: ClientAuth::Basic,
        }),
        ..value("")
    };
    for wrong in [
        "http://login.example.com/token",
        "https://169.254.169.254/token",
        "https://user:pw@login.example.com/token",
        "https://login.example.com/token#x",
        "ftp://login.example.com/",
        "/token",
        "https://*.example.com/",
        "nonsense",
    ] {
        let code = refused(&vault, oauth(wrong, OAuthGrant::ClientCredentials, None)).await;
        assert_eq!(code, "vault.bad_oauth", "{wrong}");
    }
    let good = "https://login.example.com/token";
    assert_eq!(refused(&vault, oauth(good, OAuthGrant::RefreshToken, None)).await, "vault.bad_oauth");
    assert_eq!(
        refused(&vault, oauth(good, OAuthGrant::ClientCredentials, Some("r"))).await,
        "vault.bad_oauth"
    );
    assert_eq!(refused(&vault, oauth(good, OAuthGrant::RefreshToken, Some("r\n"))).await, "vault.bad_value");
    vault.put(&acme(), &name("idp"), oauth(good, OAuthGrant::RefreshToken, Some("r"))).await.unwrap();
    assert_eq!(vault.token_endpoints().await.unwrap(), [("login.example.com:443".to_owned(), true)]);
}

#[tokio::test]
async fn a_credential_is_stored_replaced_shown_and_removed() {
    let world = World::new();
    let vault = world.open(named(1)).await.unwrap();
    let mut changes = vault.changes();
    let (made, is_new) = vault
        .put(&acme(), &name("github"), with(|draft| draft.env = Some("GITHUB_TOKEN".into())))
        .await
        .unwrap();
    assert!(is_new && changes.has_changed().unwrap());
    changes.mark_unchanged();
    assert_eq!(
        (made.kind, made.expires_at, made.created_at == made.updated_at),
        (CredentialKind::Static, None, true)
    );
    let (again, is_new) = vault
        .put(&acme(), &name("github"), with(|draft| draft.env = Some("GITHUB_TOKEN".into())))
        .await
        .unwrap();
    assert!(!is_new && again.version > made.version && again.created_at == made.created_at);
    let taken = vault.put(&acme(), &name("two"), with(|draft| draft.env = Some("GITHUB_TOKEN".into()))).await;
    assert_eq!(taken.unwrap_err().code, "vault.env_taken");
    let rules = vault.credential_rules(&acme()).await.unwrap();
    assert_eq!((rules.len(), rules[0].env.as_deref()), (1, Some("GITHUB_TOKEN")));
    assert_eq!(secret_of(&vault, &acme(), "github").await.as_deref(), Ok("hunter2"));
    // EG-H9: a name is its tenant's.
    assert_eq!(secret_of(&vault, &tenant("other"), "github").await, Err(VaultFault::Missing));
    assert_eq!(vault.list(&tenant("other")).await.unwrap(), []);
    assert_eq!(vault.delete(&tenant("other"), &name("github")).await.unwrap_err().code, "vault.not_found");
    vault.delete(&acme(), &name("github")).await.unwrap();
    assert!(changes.has_changed().unwrap());
    assert_eq!(secret_of(&vault, &acme(), "github").await, Err(VaultFault::Missing));
    assert_eq!(vault.delete(&acme(), &name("github")).await.unwrap_err().code, "vault.not_found");
    let (back, _) = vault.put(&acme(), &name("github"), value("hunter3")).await.unwrap();
    assert!(back.version > again.version, "a version grows beyond a delete");
}

#[tokio::test]
async fn of_many_at_once_exactly_as_many_are_stored_as_have_room() {
    let world = World::new();
    let vault = world.open(named(1)).await.unwrap();
    for n in 0..limits::VAULT_CREDENTIALS_MAX - 4 {
        vault.put(&acme(), &name(&format!("c{n}")), value("v")).await.unwrap();
    }
    let puts = (0..8).map(|n| {
        let vault = vault.clone();
        async move { vault.put(&acme(), &name(&format!("late{n}")), value("v")).await }
    });
    let done = futures_util::future::join_all(puts).await;
    assert_eq!(done.iter().filter(|put| put.is_ok()).count(), 4);
    assert!(done.into_iter().filter_map(Result::err).all(|error| error.code == "vault.limit"));
    assert_eq!(vault.list(&acme()).await.unwrap().len(), limits::VAULT_CREDENTIALS_MAX);
    vault.put(&acme(), &name("c0"), value("replaced")).await.unwrap();
}

/// EG-H9: a hundred sessions of many tenants at once get their own and nobody else's.
#[tokio::test]
async fn tenants_never_get_each_others() {
    let world = World::new();
    let vault = world.open(named(1)).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..100 {
        let vault = vault.clone();
        tasks.spawn(async move {
            let (own, other) = (tenant(&format!("t{}", n % 10)), tenant(&format!("t{}", (n + 1) % 10)));
            let credential = format!("of-{own}");
            for round in 0..3 {
                let text = format!("secret of {own} {n} {round}");
                vault.put(&own, &name(&credential), value(&text)).await.unwrap();
                let got = secret_of(&vault, &own, &credential).await.unwrap();
                assert!(got.starts_with(&format!("secret of {own} ")), "{got}");
                assert_eq!(secret_of(&vault, &other, &credential).await, Err(VaultFault::Missing));
            }
        });
    }
    tasks.join_all().await;
}

#[tokio::test]
async fn a_sealed_vault_gives_out_nothing_until_it_is_unsealed() {
    let world = World::new();
    let vault = world.open_kept().await;
    vault.put(&acme(), &name("github"), value("hunter2")).await.unwrap();
    vault.put(&acme(), &name("github"), value("hunter3")).await.unwrap();
    assert_eq!(
        known_of(&vault, "github").await.unwrap(),
        ["hunter2", "hunter3"],
        "for it may still be taken"
    );
    vault.put(&acme(), &name("github"), value("hunter2")).await.unwrap();
    let changes = vault.changes();
    vault.seal().await.unwrap();
    assert_eq!(known_of(&vault, "github").await, Err(VaultFault::Sealed));
    assert!(changes.has_changed().unwrap());
    assert_eq!(secret_of(&vault, &acme(), "github").await, Err(VaultFault::Sealed));
    assert_eq!(secret_of(&vault, &acme(), "nothing").await, Err(VaultFault::Sealed));
    assert_eq!(vault.put(&acme(), &name("x"), value("x")).await.unwrap_err().code, "vault.sealed");
    assert_eq!(vault.delete(&acme(), &name("github")).await.unwrap_err().code, "vault.sealed");
    // EG-H4 and EG-H7: its hosts stay managed, so that nothing goes there without it.
    assert_eq!(vault.credential_rules(&acme()).await.unwrap().len(), 1);
    assert_eq!(vault.list(&acme()).await.unwrap().len(), 1);
    let restarted = world.open_kept().await;
    assert!(restarted.state().await.unwrap().is_sealed, "a start does not unseal it");
    assert_eq!(secret_of(&restarted, &acme(), "github").await, Err(VaultFault::Sealed));
    let wrong = SecretString::from("00".repeat(32));
    assert_eq!(restarted.unseal(Some(wrong)).await.unwrap_err().code, "vault.wrong_key");
    assert!(restarted.state().await.unwrap().is_sealed);
    restarted.unseal(None).await.unwrap();
    assert_eq!(secret_of(&restarted, &acme(), "github").await.as_deref(), Ok("hunter2"));
    let typed = String::from_utf8(read(&world.key_file())).unwrap();
    vault.unseal(Some(typed.into())).await.unwrap();
    assert_eq!(secret_of(&vault, &acme(), "github").await.as_deref(), Ok("hunter2"));
}
