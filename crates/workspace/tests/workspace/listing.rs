//! What a listing shows, in which order, and what it leaves out.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use palisade_protocol::limits::DIRECTORY_ENTRIES_MAX;
use palisade_workspace::EntryKind;

use crate::support::{Tenant, at, code, scope, whole};

#[test]
fn the_wire_form() {
    let tenant = Tenant::new();
    tenant.write("d/file.txt", "123");
    std::fs::create_dir(tenant.at("d/sub")).unwrap();
    let listing = tenant.workspace.list(&whole(), &at("d"), 10).unwrap();
    let json = serde_json::to_value(&listing.entries).unwrap();
    let modified = |n: usize| json[n]["modified"].as_f64().unwrap();
    assert_eq!(
        json,
        serde_json::json!([
            {"name": "file.txt", "type": "file", "size": 3, "modified": modified(0)},
            {"name": "sub", "type": "directory", "size": 0, "modified": modified(1)},
        ])
    );
    assert!(modified(0) > 1.6e9);
    assert!(!listing.truncated);
}

#[test]
fn a_scopes_ancestor_shows_only_what_leads_to_the_scope() {
    let tenant = Tenant::new();
    tenant.write("projects/p1/a", "");
    tenant.write("projects/p2/b", "");
    tenant.write("projects/file", "");
    tenant.write("other/c", "");
    let scope = scope(&["projects/p1", "projects/p1/deeper", "shared/templates"], &["projects/p3/out"]);
    tenant.workspace.ensure_scope(&scope).unwrap();
    assert_eq!(tenant.get(&scope, "").unwrap(), ".sessions projects shared");
    assert_eq!(tenant.get(&scope, "projects").unwrap(), "p1 p3");
    assert_eq!(tenant.get(&scope, "projects/p3").unwrap(), "out");
    assert_eq!(tenant.get(&scope, ".sessions").unwrap(), "sess_070707070707");
    assert_eq!(tenant.get(&scope, "projects/p1").unwrap(), "a deeper");
    let listing = tenant.workspace.list(&scope, &at("projects"), 10).unwrap();
    assert!(listing.entries.iter().all(|entry| entry.kind == EntryKind::Directory));
}

#[test]
fn an_ancestor_that_became_a_link_shows_nothing_of_its_target() {
    let tenant = Tenant::new();
    std::fs::create_dir_all(tenant.outside().join("mine")).unwrap();
    tenant.link("projects", tenant.outside());
    let scope = scope(&["projects/mine"], &[]);
    assert_eq!(code(tenant.get(&scope, "projects")), "file.not_found");
    assert_eq!(tenant.get(&scope, "").unwrap(), ".sessions", "the link itself is no way to the scope");
}

#[test]
fn names_that_are_not_utf8_can_still_be_named() {
    let tenant = Tenant::new();
    let name = OsStr::from_bytes(b"caf\xe9 1.txt");
    std::fs::write(tenant.workspace.dir().join(name), "latin").unwrap();
    let listing = tenant.workspace.list(&whole(), &at(""), 10).unwrap();
    let entry = listing.entries.iter().find(|entry| entry.name_percent.is_some()).unwrap();
    assert_eq!(entry.name, "caf\u{fffd} 1.txt");
    let percent = entry.name_percent.clone().unwrap();
    assert_eq!(percent, "caf%E9%201.txt");
    let bytes: Vec<u8> = percent_encoding::percent_decode_str(&percent).collect();
    let path = palisade_protocol::WorkspacePath::parse(bytes).unwrap();
    assert!(tenant.workspace.open_read(&whole(), &path).is_ok());
    tenant.workspace.delete(&whole(), &path, false).unwrap();
    assert!(!tenant.workspace.dir().join(name).exists());
}

#[test]
fn links_are_shown_as_what_they_lead_to_and_others_not_at_all() {
    let tenant = Tenant::new();
    tenant.write("real/file", "12");
    tenant.link("in/file", "../real/file");
    tenant.link("in/dir", "../real");
    tenant.link("in/dangling", "nowhere");
    tenant.link("in/out", tenant.outside().join("secret"));
    tenant.link("in/circle", "circle");
    let shown = |scope| {
        let listing = tenant.workspace.list(&scope, &at("in"), 10).unwrap();
        listing.entries.into_iter().map(|entry| (entry.name, entry.kind, entry.size)).collect::<Vec<_>>()
    };
    assert_eq!(
        shown(whole()),
        [("dir".to_owned(), EntryKind::Directory, 0), ("file".to_owned(), EntryKind::File, 2)]
    );
    assert_eq!(
        shown(scope(&["in", "real"], &[])),
        [],
        "another root of the same scope is not beneath this one"
    );
}

#[test]
fn a_large_directory_is_cut_by_name() {
    let tenant = Tenant::new();
    std::fs::create_dir(tenant.at("d")).unwrap();
    for number in 0..5_000 {
        std::fs::write(tenant.at(&format!("d/{number:05}")), "").unwrap();
    }
    let listing = tenant.workspace.list(&whole(), &at("d"), 100).unwrap();
    assert!(listing.truncated);
    let names: Vec<_> = listing.entries.iter().map(|entry| entry.name.clone()).collect();
    assert_eq!(names, (0..100).map(|number| format!("{number:05}")).collect::<Vec<_>>());
    let exact = tenant.workspace.list(&whole(), &at("d"), 5_000).unwrap();
    assert_eq!((exact.entries.len(), exact.truncated), (5_000, false));
    let all = tenant.workspace.list(&whole(), &at("d"), DIRECTORY_ENTRIES_MAX).unwrap();
    assert_eq!((all.entries.len(), all.truncated), (5_000, false));
}

#[test]
fn a_file_with_several_names_says_so() {
    let tenant = Tenant::new();
    tenant.write("a/one", "x");
    std::fs::hard_link(tenant.at("a/one"), tenant.at("a/two")).unwrap();
    tenant.write("a/single", "x");
    let listing = tenant.workspace.list(&whole(), &at("a"), 10).unwrap();
    let links: Vec<_> = listing.entries.iter().map(|entry| (entry.name.as_str(), entry.links)).collect();
    assert_eq!(links, [("one", Some(2)), ("single", None), ("two", Some(2))]);
}

#[test]
fn a_file_is_not_listed() {
    let tenant = Tenant::new();
    tenant.write("f", "x");
    assert_eq!(code(tenant.workspace.list(&whole(), &at("f"), 10)), "directory.is_file");
    assert_eq!(code(tenant.workspace.list(&whole(), &at("missing"), 10)), "file.not_found");
    assert_eq!(code(tenant.workspace.list(&scope(&["a"], &[]), &at("b"), 10)), "scope.denied");
}
