//! Deleting: what is held stays, what has content is asked for, and no depth is too deep.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Instant;

use palisade_beneath::Root;

use crate::support::{Tenant, at, code, is_long, scope, whole};

#[test]
fn files_and_directories() {
    let tenant = Tenant::new();
    tenant.write("d/sub/file", "x");
    tenant.write("d/file", "x");
    std::fs::create_dir(tenant.at("empty")).unwrap();
    assert_eq!(code(tenant.delete(&whole(), "d/missing")), "file.not_found");
    assert_eq!(code(tenant.delete(&whole(), "d/file/below")), "file.not_found");
    assert_eq!(code(tenant.delete(&whole(), "d")), "directory.not_empty");
    tenant.delete(&whole(), "d/file").unwrap();
    tenant.delete(&whole(), "empty").unwrap();
    assert_eq!(code(tenant.delete(&whole(), "empty")), "file.not_found");
    tenant.workspace.delete(&whole(), &at("d"), true).unwrap();
    assert!(!tenant.at("d").exists());
}

#[test]
fn what_is_held_cannot_be_deleted() {
    let tenant = Tenant::new();
    tenant.workspace.ensure_scope(&scope(&[], &["a/b"])).unwrap();
    let before = tenant.names();
    for recursive in [false, true] {
        let delete = |scope, path| code(tenant.workspace.delete(&scope, &at(path), recursive));
        assert_eq!(delete(whole(), ""), "directory.held");
        assert_eq!(delete(whole(), ".sessions"), "directory.held");
        assert_eq!(delete(whole(), ".sessions/sess_070707070707"), "directory.held");
        assert_eq!(delete(scope(&[], &["a/b"]), "a/b"), "directory.held");
        assert_eq!(delete(scope(&[], &["a/b"]), "a"), "scope.denied");
    }
    assert_eq!(tenant.names(), before);
}

#[test]
fn links_below_a_deleted_directory_are_removed_and_not_followed() {
    let tenant = Tenant::new();
    tenant.write("keep/file", "keep");
    tenant.link("d/out", tenant.outside());
    tenant.link("d/sub/in", "../../keep");
    tenant.fifo("d/sub/fifo");
    tenant.workspace.delete(&whole(), &at("d"), true).unwrap();
    assert!(!tenant.at("d").exists());
    assert_eq!(std::fs::read_to_string(tenant.at("keep/file")).unwrap(), "keep");
    assert_eq!(std::fs::read_to_string(tenant.outside().join("secret")).unwrap(), "OUTSIDE");
}

#[test]
fn twenty_thousand_levels() {
    let levels = if is_long() { 20_000 } else { 3_000 };
    let tenant = Tenant::new();
    std::fs::create_dir(tenant.at("d")).unwrap();
    let mut level = Root::open(&tenant.at("d")).unwrap().directory(Path::new("")).unwrap();
    for _ in 0..levels {
        level.create_file(OsStr::new("f"), 0o600).unwrap();
        level = level.make_and_enter(OsStr::new("n")).unwrap();
    }
    drop(level);
    assert_eq!(tenant.get(&whole(), "d").unwrap(), "f n");
    assert_eq!(code(tenant.workspace.archive(&whole(), &at("d"))), "archive.too_large");
    let begun = Instant::now();
    // A small stack, so that anything that grows with the depth would overflow it.
    std::thread::scope(|threads| {
        let delete = || tenant.workspace.delete(&whole(), &at("d"), true).unwrap();
        std::thread::Builder::new().stack_size(256 * 1024).spawn_scoped(threads, delete).unwrap();
    });
    assert!(!tenant.at("d").exists());
    println!("{levels} levels removed in {:?}", begun.elapsed());
}

#[test]
fn wide_and_nested() {
    let tenant = Tenant::new();
    for outer in 0..60 {
        for inner in 0..20 {
            tenant.write(&format!("d/{outer}/{inner}/file"), "x");
        }
    }
    tenant.workspace.delete(&whole(), &at("d"), true).unwrap();
    assert!(!tenant.at("d").exists());
}
