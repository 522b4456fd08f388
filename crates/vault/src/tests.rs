//! EG-K1 and EG-K3 of the vault itself: everything that is not exactly what was sealed for exactly this place is an error, and
//! nothing prints what it holds.

use palisade_protocol::{CredentialName, TenantName};
use proptest::prelude::*;
use secrecy::{ExposeSecret as _, SecretString};

use crate::{DataKey, Field, Kek, KekKind, KekRecord, KeyMaterial, Manifest, RowDigest, VaultError};

fn tenant(name: &str) -> TenantName {
    TenantName::parse(name).unwrap()
}

fn credential(name: &str) -> CredentialName {
    CredentialName::parse(name).unwrap()
}

fn secret(text: &str) -> SecretString {
    text.to_owned().into()
}

fn material(byte: u8) -> KeyMaterial {
    KeyMaterial::key(&[byte; 32]).unwrap()
}

fn kek(byte: u8, vault: &str) -> (Kek, KekRecord) {
    Kek::create(&material(byte), vault, 1).unwrap()
}

fn data_key(kek: &Kek, of: &str, version: i64) -> DataKey {
    kek.new_data_key(&tenant(of), version).unwrap().0
}

/// EG-K1: a row that was put in another's place, whichever way they differ.
#[test]
fn what_was_sealed_for_one_place_opens_in_no_other() {
    let (kek, _) = kek(1, "aa");
    let wrapped = kek.new_data_key(&tenant("acme"), 1).unwrap().1;
    let key = kek.unwrap(&tenant("acme"), 1, &wrapped).unwrap();
    let github = credential("github");
    let sealed = key.seal(&github, Field::Value, 3, &secret("hunter2")).unwrap();
    assert_eq!(key.open(&github, Field::Value, 3, &sealed).unwrap().expose_secret(), "hunter2");
    for (what, opened) in [
        ("another credential", key.open(&credential("gitlab"), Field::Value, 3, &sealed)),
        ("another field", key.open(&github, Field::RefreshToken, 3, &sealed)),
        ("an older version", key.open(&github, Field::Value, 2, &sealed)),
        ("a newer version", key.open(&github, Field::Value, 4, &sealed)),
        ("another data key", data_key(&kek, "acme", 1).open(&github, Field::Value, 3, &sealed)),
    ] {
        assert!(matches!(opened, Err(VaultError::Open { .. })), "{what}: {opened:?}");
    }
    // The same bytes as a key of another tenant, version or vault, which nobody but a holder of the KEK can make.
    for (what, vault, of, version) in
        [("tenant", "aa", "other", 1), ("data key version", "aa", "acme", 2), ("vault", "bb", "acme", 1)]
    {
        let raw = [7; 32];
        let here = DataKey::new("aa", &tenant("acme"), 1, &raw).unwrap();
        let there = DataKey::new(vault, &tenant(of), version, &raw).unwrap();
        let sealed = here.seal(&github, Field::Value, 3, &secret("hunter2")).unwrap();
        assert!(there.open(&github, Field::Value, 3, &sealed).is_err(), "another {what}");
    }
}

/// EG-K1: a planted data key, one of another tenant, one of another version, generation or vault.
#[test]
fn a_wrapped_key_opens_in_its_own_place_only() {
    let (ours, _) = kek(1, "aa");
    let (_, wrapped) = ours.new_data_key(&tenant("acme"), 1).unwrap();
    ours.unwrap(&tenant("acme"), 1, &wrapped).unwrap();
    let (foreign, _) = kek(2, "aa");
    let (same_key_elsewhere, _) = kek(1, "bb");
    let (next, _) = Kek::create(&material(1), "aa", 2).unwrap();
    let planted = foreign.new_data_key(&tenant("acme"), 1).unwrap().1;
    for (what, opened) in [
        ("another tenant", ours.unwrap(&tenant("other"), 1, &wrapped)),
        ("another version", ours.unwrap(&tenant("acme"), 2, &wrapped)),
        ("another generation", next.unwrap(&tenant("acme"), 1, &wrapped)),
        ("another vault", same_key_elsewhere.unwrap(&tenant("acme"), 1, &wrapped)),
        ("planted", ours.unwrap(&tenant("acme"), 1, &planted)),
        ("nothing", ours.unwrap(&tenant("acme"), 1, "")),
        ("a sealed value", {
            let value = data_key(&ours, "acme", 1);
            let sealed = value.seal(&credential("github"), Field::Value, 1, &secret(&"k".repeat(32)));
            ours.unwrap(&tenant("acme"), 1, &sealed.unwrap())
        }),
    ] {
        assert!(matches!(opened, Err(VaultError::Unwrap { .. })), "{what}: {opened:?}");
    }
}

#[test]
fn a_data_key_is_the_same_under_the_next_key() {
    let (old, _) = kek(1, "aa");
    let (next, _) = Kek::create(&material(2), "aa", 2).unwrap();
    let (key, wrapped) = old.new_data_key(&tenant("acme"), 1).unwrap();
    let sealed = key.seal(&credential("github"), Field::Value, 1, &secret("hunter2")).unwrap();
    let again = old.rewrap(&next, &tenant("acme"), 1, &wrapped).unwrap();
    for opened in [old.unwrap(&tenant("acme"), 1, &wrapped), next.unwrap(&tenant("acme"), 1, &again)] {
        let opened = opened.unwrap().open(&credential("github"), Field::Value, 1, &sealed).unwrap();
        assert_eq!(opened.expose_secret(), "hunter2");
    }
    assert!(next.rewrap(&old, &tenant("acme"), 1, &wrapped).is_err(), "it was not wrapped by that one");
}

#[test]
fn a_wrong_passphrase_is_told_at_once_and_a_right_one_opens() {
    let right = KeyMaterial::passphrase(secret("correct horse battery")).unwrap();
    let wrong = KeyMaterial::passphrase(secret("correct horse batterz")).unwrap();
    let (made, record) = Kek::create(&right, "aa", 1).unwrap();
    assert!(record.iterations >= 600_000 && record.salt.len() == 32, "{record:?}");
    let (_, wrapped) = made.new_data_key(&tenant("acme"), 1).unwrap();
    let opened = Kek::open(&right, &record).unwrap();
    opened.unwrap(&tenant("acme"), 1, &wrapped).unwrap();
    assert!(matches!(Kek::open(&wrong, &record), Err(VaultError::WrongKey)));
    assert!(matches!(Kek::open(&material(1), &record), Err(VaultError::WrongKind { .. })));
    let other_salt = Kek::create(&right, "aa", 1).unwrap().1.salt;
    assert_ne!(other_salt, record.salt);
    for (what, record) in [
        ("weakened", KekRecord { iterations: 1_000, ..record.clone() }),
        ("endless", KekRecord { iterations: u32::MAX, ..record.clone() }),
        ("another salt", KekRecord { salt: other_salt, ..record.clone() }),
        ("no salt", KekRecord { salt: String::new(), ..record.clone() }),
        ("another vault", KekRecord { vault: "bb".into(), ..record.clone() }),
        ("no check", KekRecord { check: String::new(), ..record.clone() }),
    ] {
        assert!(Kek::open(&right, &record).is_err(), "{what}");
    }
}

#[test]
fn a_key_is_read_in_its_two_forms_and_no_other() {
    let hex = "0f".repeat(32);
    let (upper, with_line_end) = (hex.to_uppercase(), format!("{hex}\n"));
    for good in [&[9; 32][..], hex.as_bytes(), upper.as_bytes(), with_line_end.as_bytes()] {
        assert_eq!(KeyMaterial::key(good).unwrap().kind(), KekKind::Key);
    }
    let (short, nonsense) = ("0f".repeat(31), "xy".repeat(32));
    for wrong in [&b""[..], &[9; 31], &[9; 33], short.as_bytes(), nonsense.as_bytes()] {
        assert!(matches!(KeyMaterial::key(wrong), Err(VaultError::KeyForm)), "{wrong:?}");
    }
    let written = KeyMaterial::generate().unwrap().to_hex().unwrap();
    assert!(KeyMaterial::key(written.expose_secret().as_bytes()).is_ok());
    assert!(KeyMaterial::passphrase(secret("elevenchars")).is_err());
}

fn manifest(rows: &[(CredentialName, i64, RowDigest)]) -> Manifest {
    let mut manifest = Manifest::default();
    for (name, version, digest) in rows {
        manifest.insert(name.clone(), *version, digest.clone());
    }
    manifest
}

/// EG-K1: a row that was there before, one that was put here, one that is gone, and the manifest's own older version.
#[test]
fn the_manifest_sees_what_is_not_the_latest() {
    let (kek, _) = kek(1, "aa");
    let key = data_key(&kek, "acme", 1);
    let row = |name: &str, version, content| (credential(name), version, RowDigest::of(&[content]));
    let rows = [row("github", 2, "two"), row("jira", 1, "one")];
    let sealed = manifest(&rows).seal(&key, 5).unwrap();
    let opened = Manifest::open(&key, 5, &sealed).unwrap();
    opened.check(&key, &manifest(&rows)).unwrap();
    for (found, why) in [
        (vec![row("github", 1, "one"), rows[1].clone()], "older"),
        (vec![row("github", 2, "altered"), rows[1].clone()], "altered"),
        (vec![row("github", 3, "three"), rows[1].clone()], "altered"),
        (vec![rows[0].clone(), rows[1].clone(), row("slack", 1, "one")], "somebody else"),
        (vec![rows[1].clone()], "missing"),
        (vec![], "missing"),
    ] {
        let error = opened.check(&key, &manifest(&found)).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    for (version, sealed) in [(4, sealed.as_str()), (6, &sealed), (5, ""), (5, &sealed[..sealed.len() - 2])] {
        assert!(Manifest::open(&key, version, sealed).is_err());
    }
    assert!(Manifest::open(&data_key(&kek, "acme", 1), 5, &sealed).is_err(), "of another key");
    assert_ne!(RowDigest::of(&["ab", "c"]), RowDigest::of(&["a", "bc"]), "where a part ends counts");
}

/// EG-K3.
#[test]
fn nothing_here_shows_what_it_holds() {
    let passphrase = KeyMaterial::passphrase(secret("correct horse battery")).unwrap();
    let (kek, record) = kek(0x5a, "aa");
    let (key, wrapped) = kek.new_data_key(&tenant("acme"), 1).unwrap();
    let sealed = key.seal(&credential("github"), Field::Value, 1, &secret("hunter2")).unwrap();
    let opened = key.open(&credential("github"), Field::Value, 1, &sealed).unwrap();
    let shown = format!(
        "{passphrase:?} {:?} {kek:?} {record:?} {key:?} {opened:?} {wrapped} {sealed}",
        material(0x5a)
    );
    for held in ["correct horse", "hunter2", &"5a".repeat(8), "68756e746572"] {
        assert!(!shown.contains(held), "{held} in {shown}");
    }
}

/// EG-K3: what was opened is not left in memory when nobody has it any more. The needle is kept masked, or it would find itself.
#[test]
fn an_opened_value_is_gone_from_memory_when_it_is_dropped() {
    const MASK: u8 = 0x5a;
    let value: SecretString = crate::random_hex::<32>().unwrap().into();
    let masked: Vec<u8> = value.expose_secret().bytes().map(|byte| byte ^ MASK).collect();
    let key = DataKey::new("aa", &tenant("acme"), 1, &[3; 32]).unwrap();
    let sealed = key.seal(&credential("github"), Field::Value, 1, &value).unwrap();
    assert!(is_in_heap(&masked, MASK), "it is found while it is there");
    drop(value);
    for _ in 0..10 {
        let opened = key.open(&credential("github"), Field::Value, 1, &sealed).unwrap();
        assert_eq!(opened.expose_secret().len(), masked.len());
    }
    assert!(!is_in_heap(&masked, MASK));
}

fn is_in_heap(masked: &[u8], mask: u8) -> bool {
    use std::os::unix::fs::FileExt as _;
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let memory = std::fs::File::open("/proc/self/mem").unwrap();
    let is_heap = |line: &&str| {
        line.contains(" rw-p ") && (line.ends_with("[heap]") || line.split_whitespace().count() == 5)
    };
    maps.lines().filter(is_heap).any(|line| {
        let (from, to) = line.split_whitespace().next().unwrap().split_once('-').unwrap();
        let [from, to] = [from, to].map(|end| u64::from_str_radix(end, 16).unwrap());
        let mut bytes = vec![0; (to - from) as usize];
        let read = memory.read_at(&mut bytes, from).unwrap_or(0);
        bytes[..read]
            .windows(masked.len())
            .any(|window| window.iter().zip(masked).all(|(byte, other)| byte ^ mask == *other))
    })
}

proptest! {
    /// EG-K1: whatever is done to a sealed value, it opens as what it was, or not at all.
    #[test]
    fn no_altered_value_opens(
        value in "\\PC{1,200}",
        at in any::<prop::sample::Index>(),
        flip in 1u8..=255,
        cut in any::<prop::sample::Index>(),
    ) {
        let key = DataKey::new("aa", &tenant("acme"), 1, &[3; 32]).unwrap();
        let name = credential("github");
        let sealed = key.seal(&name, Field::Value, 1, &secret(&value)).unwrap();
        let opened = key.open(&name, Field::Value, 1, &sealed).unwrap();
        prop_assert_eq!(opened.expose_secret(), value.as_str());
        let mut altered = sealed.clone().into_bytes();
        let at = at.index(altered.len());
        altered[at] = altered[at].wrapping_add(flip);
        if let Ok(altered) = String::from_utf8(altered) {
            prop_assert!(key.open(&name, Field::Value, 1, &altered).is_err());
        }
        prop_assert!(key.open(&name, Field::Value, 1, &sealed[..cut.index(sealed.len())]).is_err());
        let longer = sealed.clone() + "00";
        prop_assert!(key.open(&name, Field::Value, 1, &longer).is_err());
        prop_assert!(key.open(&name, Field::Value, 1, &value).is_err());
    }

    /// Two places that differ in anything never open each other's.
    #[test]
    fn places_are_told_apart(
        a in ("[a-z0-9][a-z0-9_-]{0,8}", 0usize..4, 1i64..20),
        b in ("[a-z0-9][a-z0-9_-]{0,8}", 0usize..4, 1i64..20),
    ) {
        let key = DataKey::new("aa", &tenant("acme"), 1, &[3; 32]).unwrap();
        let sealed = key.seal(&credential(&a.0), Field::ALL[a.1], a.2, &secret("hunter2")).unwrap();
        let opened = key.open(&credential(&b.0), Field::ALL[b.1], b.2, &sealed);
        prop_assert_eq!(opened.is_ok(), a == b);
    }
}
