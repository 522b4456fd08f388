//! Custom skills: which folders are skills, and snapshots that never change.

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use palisade_workspace::{
    Amount, Footprint, SKILL_ENTRIES_MAX, SKILL_FILE_BYTES_MAX, WorkspaceError, is_skill_name,
};

use crate::support::{Tenant, code};

/// With room for everything.
fn snapshot_of(tenant: &Tenant, name: &str, into: &Path) -> Result<PathBuf, WorkspaceError> {
    tenant.workspace.snapshot_skill(name, into, |_| Ok(()))
}

#[test]
fn names_follow_the_contract() {
    for right in ["a", "a-b_c", "0x", &"x".repeat(64)] {
        assert!(is_skill_name(right), "{right}");
    }
    for wrong in ["", "-a", "_a", "A", "a.b", "a/b", "..", "custom-x", &"x".repeat(65), "é"] {
        assert!(!is_skill_name(wrong), "{wrong}");
    }
}

#[test]
fn a_skill_is_a_folder_with_skill_md() {
    let tenant = Tenant::new();
    tenant.write("skills/beta/SKILL.md", "12345");
    tenant.write("skills/alpha/SKILL.md", "1");
    tenant.write("skills/no-md/README.md", "x");
    tenant.write("skills/Bad Name/SKILL.md", "x");
    tenant.write("skills/custom-x/SKILL.md", "x");
    tenant.write("skills/file", "x");
    tenant.write("elsewhere/SKILL.md", "ELSEWHERE");
    tenant.link("skills/linked", "../elsewhere");
    tenant.link("skills/md-out/SKILL.md", "../../elsewhere/SKILL.md");
    std::fs::create_dir_all(tenant.at("skills/md-dir/SKILL.md")).unwrap();
    let skills = tenant.workspace.custom_skills().unwrap();
    let found: Vec<_> =
        skills.iter().map(|s| (s.name.as_str(), s.dir.to_string(), s.skill_md_size)).collect();
    assert_eq!(found, [("alpha", "skills/alpha".to_owned(), 1), ("beta", "skills/beta".to_owned(), 5)]);
    assert!(skills[0].modified > 1.6e9);
}

#[test]
fn a_snapshot_is_made_once_for_each_content() {
    let tenant = Tenant::new();
    let into = tempfile::tempdir().unwrap();
    let snapshot = || snapshot_of(&tenant, "one", into.path()).unwrap();
    tenant.write("skills/one/SKILL.md", "first");
    tenant.write("skills/one/scripts/run.sh", "#!/bin/sh");
    tenant.link("skills/one/inside.md", "SKILL.md");
    tenant.link("skills/one/out", tenant.outside().join("secret"));
    tenant.fifo("skills/one/fifo");
    std::fs::set_permissions(tenant.at("skills/one/scripts/run.sh"), std::fs::Permissions::from_mode(0o755))
        .unwrap();

    let first = snapshot();
    assert_eq!(first.parent().unwrap(), into.path());
    let read = |path: &str| std::fs::read_to_string(first.join(path)).unwrap();
    assert_eq!((read("SKILL.md"), read("inside.md")), ("first".to_owned(), "first".to_owned()));
    assert!(!first.join("out").exists() && !first.join("fifo").exists());
    let mode = |path: &str| std::fs::metadata(first.join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("SKILL.md"), mode("scripts/run.sh")), (0o444, 0o555));

    assert_eq!(snapshot(), first, "unchanged");
    tenant.write("skills/one/SKILL.md", "other");
    let second = snapshot();
    assert_ne!(second, first);
    assert_eq!(read("SKILL.md"), "first", "the first stays as it was");
    tenant.write("skills/one/SKILL.md", "first");
    assert_eq!(snapshot(), first, "the same content again");
    assert_eq!(std::fs::read_dir(into.path()).unwrap().count(), 2, "nothing unfinished is left");
}

#[test]
fn a_lost_snapshot_is_made_again() {
    let tenant = Tenant::new();
    let into = tempfile::tempdir().unwrap();
    tenant.write("skills/one/SKILL.md", "x");
    let first = snapshot_of(&tenant, "one", into.path()).unwrap();
    std::fs::remove_dir_all(&first).unwrap();
    assert_eq!(snapshot_of(&tenant, "one", into.path()).unwrap(), first);
    assert!(first.join("SKILL.md").exists());
}

#[test]
fn the_bounds_hold() {
    let tenant = Tenant::new();
    let into = tempfile::tempdir().unwrap();
    let snapshot = |name| code(snapshot_of(&tenant, name, into.path()));
    let large = |name: &str, file: &str, bytes| {
        tenant.write(&format!("skills/{name}/{file}"), "");
        let path = tenant.at(&format!("skills/{name}/{file}"));
        std::fs::File::options().write(true).open(path).unwrap().set_len(bytes).unwrap();
    };
    for name in ["file", "total", "entries"] {
        tenant.write(&format!("skills/{name}/SKILL.md"), "");
    }
    large("file", "f", SKILL_FILE_BYTES_MAX);
    assert_eq!(snapshot("file"), "ok");
    large("file", "f", SKILL_FILE_BYTES_MAX + 1);
    assert_eq!(snapshot("file"), "skill.too_large");
    for file in ["a", "b"] {
        large("total", file, SKILL_FILE_BYTES_MAX);
    }
    assert_eq!(snapshot("total"), "ok");
    large("total", "c", 1);
    assert_eq!(snapshot("total"), "skill.too_large");
    for number in 1..SKILL_ENTRIES_MAX {
        tenant.write(&format!("skills/entries/{number}"), "");
    }
    assert_eq!(snapshot("entries"), "ok");
    tenant.write("skills/entries/more", "");
    assert_eq!(snapshot("entries"), "skill.too_large");
    tenant.write("skills/no-md/x", "");
    for missing in ["missing", "..", "../x", "no-md"] {
        assert_eq!(snapshot(missing), "skill.not_found", "{missing}");
    }
}

/// A skill of one megabyte that says it has fifty is a snapshot of one megabyte.
#[test]
fn holes_stay_holes_and_room_is_asked_for_before() {
    const LENGTH: u64 = 24 << 20;
    let tenant = Tenant::new();
    let into = tempfile::tempdir().unwrap();
    tenant.write("skills/one/SKILL.md", "x");
    let sparse = |name: &str, content: &[(u64, &[u8])]| {
        use std::os::unix::fs::FileExt as _;
        let file = std::fs::File::create(tenant.at(&format!("skills/one/{name}"))).unwrap();
        file.set_len(LENGTH).unwrap();
        for (at, bytes) in content {
            file.write_all_at(bytes, *at).unwrap();
        }
    };
    sparse("empty", &[]);
    sparse("some", &[(1 << 20, b"in the middle"), (LENGTH - 3, b"end")]);
    let mut asked = Amount::default();
    let snapshot = tenant.workspace.snapshot_skill("one", into.path(), |amount| {
        asked = amount;
        Ok(())
    });
    let snapshot = snapshot.unwrap();
    assert!(asked.files == 3 && asked.bytes < 1 << 20, "{asked:?}");
    for name in ["empty", "some"] {
        let (copy, own) = (snapshot.join(name), tenant.at(&format!("skills/one/{name}")));
        assert!(std::fs::read(copy).unwrap() == std::fs::read(own).unwrap(), "{name}");
    }
    let taken = Footprint::new(into.path(), vec![into.path().to_owned()]).measure().unwrap();
    assert!(taken.bytes < 1 << 20, "{taken:?}");
    sparse("some", &[(2 << 20, b"in the middle"), (LENGTH - 3, b"end")]);
    let full = || WorkspaceError::WorkspaceFull { limit_bytes: 1 };
    let refused = tenant.workspace.snapshot_skill("one", into.path(), |_| Err(full()));
    assert_eq!(code(refused), "workspace.full");
    assert_eq!(std::fs::read_dir(into.path()).unwrap().count(), 1, "nothing was written");
    assert_ne!(snapshot_of(&tenant, "one", into.path()).unwrap(), snapshot, "the same bytes elsewhere");
}

#[test]
fn what_no_session_keeps_is_removed() {
    let tenant = Tenant::new();
    let into = tempfile::tempdir().unwrap();
    let version = |name: &str, text: &str| {
        tenant.write(&format!("skills/{name}/SKILL.md"), text);
        snapshot_of(&tenant, name, into.path()).unwrap()
    };
    let [first, second, third] = ["1", "2", "3"].map(|text| version("one", text));
    let other = version("other", "x");
    std::fs::create_dir(into.path().join("something")).unwrap();
    std::fs::create_dir(into.path().join(".unfinished-1")).unwrap();
    let kept = HashSet::from([second.file_name().unwrap().to_str().unwrap().to_owned()]);
    let sweep = |used_for| tenant.workspace.remove_unused_snapshots(into.path(), &kept, used_for).unwrap();
    assert!(sweep(Duration::from_secs(60)) && first.exists(), "it may be about to be used");
    assert!(sweep(Duration::ZERO), "the unfinished one may not be");
    assert!(!first.exists() && second.exists() && third.exists() && other.exists());
    assert!(into.path().join("something").exists() && into.path().join(".unfinished-1").exists());
    // The latest of a skill that is gone is nobody's.
    std::fs::remove_dir_all(tenant.at("skills/other")).unwrap();
    sweep(Duration::ZERO);
    assert!(!other.exists() && third.exists());
    assert_eq!(tenant.workspace.known_snapshot("one", into.path()).unwrap(), Some(third));
    tenant.write("skills/one/SKILL.md", "4");
    assert_eq!(tenant.workspace.known_snapshot("one", into.path()).unwrap(), None);
}
