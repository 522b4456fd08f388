//! EG-K2: keys are replaced step by step, and the server is killed after each.

use super::rotate::Rotation;
use super::*;

/// A killed server leaves its rows and its files; this is the next start, which finds what is where the configuration says.
async fn restarted(world: &World, source: KeySource) -> Vault {
    world.open(source).await.unwrap()
}

async fn check(vault: &Vault, when: &str) {
    for tenant in [acme(), tenant("other")] {
        for n in 0..20 {
            let secret = secret_of(vault, &tenant, &format!("c{n}")).await;
            assert_eq!(secret.as_deref(), Ok(format!("secret {n} of {tenant}").as_str()), "{when}");
        }
    }
}

async fn fill(vault: &Vault) {
    for tenant in [acme(), tenant("other")] {
        for n in 0..20 {
            let text = format!("secret {n} of {tenant}");
            vault.put(&tenant, &name(&format!("c{n}")), value(&text)).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_kept_key_is_replaced_whenever_the_server_is_killed() {
    // Killed after so many steps; in the end none is left to be killed after.
    for killed_after in 0.. {
        let world = World::new();
        let vault = world.open_kept().await;
        fill(&vault).await;
        let old = read(&world.key_file());
        let staged = vault.inner.source.stage().unwrap().unwrap();
        let mut rotation = Rotation { material: staged, next: None };
        let mut is_finished = false;
        for _ in 0..killed_after {
            if !vault.advance(&mut rotation).await.unwrap() {
                is_finished = true;
                break;
            }
            check(&vault, "between steps").await;
        }
        drop(vault);
        let vault = world.open_kept().await;
        check(&vault, "after the kill").await;
        vault.put(&acme(), &name("new"), value("new")).await.unwrap();
        vault.finish_rotations().await;
        check(&vault, "after the rest").await;
        vault.finish_rotations().await;
        let state = vault.state().await.unwrap();
        assert_eq!(
            (state.generation, state.is_rotating, state.is_sealed),
            (2, false, false),
            "{killed_after}"
        );
        assert_ne!(read(&world.key_file()), old);
        assert!(!world.folder.path().join("vault.key.next").exists());
        let vault = world.open_kept().await;
        check(&vault, "with the new key").await;
        std::fs::write(world.key_file(), old).unwrap();
        assert!(world.open(KeySource::Kept(world.key_file())).await.is_err(), "the old key is worth nothing");
        if is_finished {
            assert!(killed_after > 3, "there are steps to be killed after");
            break;
        }
    }
}

#[tokio::test]
async fn a_given_key_is_replaced_whenever_the_server_is_killed() {
    for killed_after in 0.. {
        let world = World::new();
        let vault = world.open(named(1)).await.unwrap();
        fill(&vault).await;
        let mut rotation = Rotation { material: material(2), next: None };
        let mut is_finished = false;
        for _ in 0..killed_after {
            if !vault.advance(&mut rotation).await.unwrap() {
                is_finished = true;
                break;
            }
        }
        let is_switched = vault.inner.store.vault().await.unwrap().unwrap().kek == 2;
        drop(vault);
        // Before the switch the old key opens everything, after it the new one, and never neither.
        let (right, wrong) = if is_switched { (2, 1) } else { (1, 2) };
        assert!(world.open(named(wrong)).await.is_err(), "{killed_after}");
        let vault = restarted(&world, named(right)).await;
        check(&vault, "after the kill").await;
        if is_finished {
            assert!(is_switched);
            break;
        }
        if !is_switched {
            let typed = material(2).to_hex().unwrap();
            let state = vault.rotate_key(Some((None, typed))).await.unwrap();
            assert_eq!(
                (state.generation, state.is_rotating),
                (2, false),
                "the same key goes on where it was"
            );
        } else {
            vault.finish_rotations().await;
        }
        check(&vault, "after the rest").await;
        assert_eq!(vault.state().await.unwrap().generation, 2);
        let vault = restarted(&world, named(2)).await;
        check(&vault, "with the new key").await;
        assert!(world.open(named(1)).await.is_err());
    }
}

#[tokio::test]
async fn a_rotation_that_was_begun_gives_way_to_another_key() {
    let world = World::new();
    let vault = world.open(named(1)).await.unwrap();
    fill(&vault).await;
    let mut begun = Rotation { material: material(2), next: None };
    while vault.state().await.unwrap().generation == 1 && begun.next.is_none() {
        assert!(vault.advance(&mut begun).await.unwrap());
    }
    assert!(vault.advance(&mut begun).await.unwrap(), "some are wrapped by it");
    let same = vault.rotate_key(Some((None, material(1).to_hex().unwrap()))).await;
    assert_eq!(same.unwrap_err().code, "vault.key_in_use");
    let passphrase = SecretString::from("correct horse battery");
    let state =
        vault.rotate_key(Some((Some(palisade_vault::KekKind::Passphrase), passphrase))).await.unwrap();
    assert_eq!((state.kind.as_str(), state.is_rotating), ("passphrase", false));
    assert!(vault.advance(&mut begun).await.is_err(), "what was begun with is over");
    check(&vault, "after it").await;
    let named =
        KeySource::Named(Arc::new(|| Ok(KeyMaterial::passphrase("correct horse battery".into()).unwrap())));
    check(&restarted(&world, named).await, "after a start").await;
}

#[tokio::test]
async fn what_the_configuration_names_now_is_the_next_key() {
    let world = World::new();
    let key = Arc::new(std::sync::atomic::AtomicU8::new(1));
    let reading = key.clone();
    let source = KeySource::Named(Arc::new(move || Ok(material(reading.load(Ordering::SeqCst)))));
    let vault = world.open(source).await.unwrap();
    fill(&vault).await;
    assert_eq!(vault.rotate_key(None).await.unwrap_err().code, "vault.key_in_use");
    key.store(2, Ordering::SeqCst);
    assert_eq!(vault.rotate_key(None).await.unwrap().generation, 2);
    check(&vault, "after it").await;
}

#[tokio::test]
async fn a_data_key_is_replaced_whenever_the_server_is_killed() {
    for killed_after in 0.. {
        let world = World::new();
        let vault = world.open(named(1)).await.unwrap();
        fill(&vault).await;
        let versions = vault
            .list(&acme())
            .await
            .unwrap()
            .iter()
            .map(|credential| credential.version)
            .collect::<Vec<_>>();
        vault
            .change(&acme(), |_| Ok((change::Edit { new_data_key: true, ..change::Edit::default() }, ())))
            .await
            .unwrap();
        let mut is_finished = false;
        for _ in 0..killed_after {
            check(&vault, "between steps").await;
            if !vault.reseal_batch(&acme()).await.unwrap() {
                is_finished = true;
                break;
            }
        }
        drop(vault);
        let vault = restarted(&world, named(1)).await;
        check(&vault, "after the kill").await;
        vault.finish_rotations().await;
        check(&vault, "after the rest").await;
        let keys = vault.inner.store.data_keys(&acme(), 1).await.unwrap();
        assert_eq!(keys.iter().map(|key| key.version).collect::<Vec<_>>(), [2], "{killed_after}");
        let after = vault
            .list(&acme())
            .await
            .unwrap()
            .iter()
            .map(|credential| credential.version)
            .collect::<Vec<_>>();
        assert_eq!(after, versions, "only the key is another");
        if is_finished {
            assert!(killed_after > 1);
            break;
        }
    }
}

/// Both kinds at once, with everything else going on.
#[tokio::test]
async fn rotations_disturb_nobody() {
    let world = World::new();
    let vault = world.open_kept().await;
    fill(&vault).await;
    let using = async {
        for round in 0..10 {
            check(&vault, "while rotating").await;
            vault.put(&acme(), &name("busy"), value(&format!("round {round}"))).await.unwrap();
            let late = tenant(&format!("late{round}"));
            vault.put(&late, &name("c"), value("late")).await.unwrap();
            assert_eq!(secret_of(&vault, &late, "c").await.as_deref(), Ok("late"));
        }
    };
    let rotating = async {
        for _ in 0..3 {
            vault.rotate_key(None).await.unwrap();
            vault.rotate_data_keys(None).await.unwrap();
        }
    };
    tokio::join!(using, rotating);
    vault.reseal().await;
    check(&vault, "after all").await;
    drop(vault);
    let vault = world.open_kept().await;
    check(&vault, "after a start").await;
    assert_eq!(vault.state().await.unwrap().generation, 4);
    assert_eq!(vault.inner.store.tenants_to_reseal().await.unwrap(), []);
}
