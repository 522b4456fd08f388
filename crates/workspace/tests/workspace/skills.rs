//! Custom skills: which folders are skills, and snapshots that never change.

use std::os::unix::fs::PermissionsExt as _;

use palisade_workspace::{SKILL_ENTRIES_MAX, SKILL_FILE_BYTES_MAX, is_skill_name};

use crate::support::{Tenant, code};

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
    let snapshot = || tenant.workspace.snapshot_skill("one", into.path()).unwrap();
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
    let first = tenant.workspace.snapshot_skill("one", into.path()).unwrap();
    std::fs::remove_dir_all(&first).unwrap();
    assert_eq!(tenant.workspace.snapshot_skill("one", into.path()).unwrap(), first);
    assert!(first.join("SKILL.md").exists());
}

#[test]
fn the_bounds_hold() {
    let tenant = Tenant::new();
    let into = tempfile::tempdir().unwrap();
    let snapshot = |name| code(tenant.workspace.snapshot_skill(name, into.path()));
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
