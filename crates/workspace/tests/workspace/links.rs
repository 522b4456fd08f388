//! Links through every operation: followed where they stay beneath their scope root, not found otherwise, and
//! what they lead to outside is never touched.

use crate::support::{Tenant, at, code, first, names_below, scope, whole};

/// A scope `mine` with one link of each kind in it, beside a directory of the workspace that is out of scope.
fn planted() -> Tenant {
    let tenant = Tenant::new();
    tenant.write("mine/real/file", "inside");
    tenant.write("theirs/file", "THEIRS");
    let outside = tenant.outside();
    tenant.link("mine/absolute", &outside);
    tenant.link("mine/absolute-file", outside.join("secret"));
    tenant.link("mine/relative", "../../outside");
    tenant.link("mine/sibling", "../theirs");
    tenant.link("mine/sibling-file", "../theirs/file");
    tenant.link("mine/chain", "relative");
    tenant.link("mine/dangling", "nowhere");
    tenant.link("mine/circle", "circle");
    tenant.link("mine/real/up-and-out", "../../../outside");
    tenant.link("mine/magic", "/proc/self/cwd");
    tenant.link("mine/absolute-inside", tenant.at("mine/real"));
    tenant
}

const LEADING_OUT: [&str; 12] = [
    "mine/absolute/secret",
    "mine/absolute-file",
    "mine/relative/secret",
    "mine/sibling/file",
    "mine/sibling-file",
    "mine/chain/secret",
    "mine/dangling",
    "mine/dangling/below",
    "mine/circle",
    "mine/real/up-and-out/secret",
    "mine/magic/Cargo.toml",
    "mine/absolute-inside/file",
];

#[test]
fn a_link_that_leads_out_is_not_found_by_any_operation() {
    let tenant = planted();
    let scope = scope(&[], &["mine"]);
    let before = (tenant.names(), names_below(&tenant.outside()));
    for path in LEADING_OUT {
        assert_eq!(code(tenant.get(&scope, path)), "file.not_found", "GET {path}");
        assert_eq!(
            code(tenant.workspace.list(&scope, &at(path), &first(10))),
            "file.not_found",
            "list {path}"
        );
        assert_eq!(code(tenant.put(&scope, path, "EVIL")), "file.not_found", "PUT {path}");
        assert_eq!(code(tenant.delete(&scope, path)), "file.not_found", "DELETE {path}");
        assert_eq!(code(tenant.workspace.delete(&scope, &at(path), true)), "file.not_found", "rm -r {path}");
        assert_eq!(code(tenant.workspace.archive(&scope, &at(path))), "file.not_found", "zip {path}");
    }
    assert_eq!((tenant.names(), names_below(&tenant.outside())), before);
    assert_eq!(std::fs::read_to_string(tenant.outside().join("secret")).unwrap(), "OUTSIDE");
    assert_eq!(std::fs::read_to_string(tenant.at("theirs/file")).unwrap(), "THEIRS");
}

#[test]
fn a_link_that_stays_is_followed() {
    let tenant = planted();
    let scope = scope(&[], &["mine"]);
    tenant.link("mine/alias", "real");
    tenant.link("mine/real/back", "../real/./file");
    assert_eq!(tenant.get(&scope, "mine/alias/file").unwrap(), "inside");
    assert_eq!(tenant.get(&scope, "mine/real/back").unwrap(), "inside");
    assert_eq!(tenant.get(&scope, "mine/alias/").unwrap(), "back file");
    tenant.put(&scope, "mine/alias/new/deep", "put through the link").unwrap();
    assert_eq!(std::fs::read_to_string(tenant.at("mine/real/new/deep")).unwrap(), "put through the link");
    tenant.delete(&scope, "mine/alias/new/deep").unwrap();
    assert!(!tenant.at("mine/real/new/deep").exists());
}

#[test]
fn the_scope_decides_how_far_a_link_may_lead() {
    let tenant = Tenant::new();
    tenant.write("a/file", "A");
    tenant.link("b/link", "../a/file");
    for (scope, expected) in [
        (whole(), "ok"),
        (scope(&["a", "b"], &[]), "file.not_found"),
        (scope(&["b"], &[]), "file.not_found"),
        (scope(&[""], &["b"]), "file.not_found"),
    ] {
        assert_eq!(code(tenant.get(&scope, "b/link")), expected, "{scope:?}");
    }
}

#[test]
fn writing_and_deleting_at_a_link_is_about_the_link() {
    let tenant = planted();
    tenant.link("mine/to-file", "real/file");
    tenant.put(&whole(), "mine/to-file", "new").unwrap();
    assert_eq!(std::fs::read_to_string(tenant.at("mine/real/file")).unwrap(), "inside");
    assert_eq!(tenant.get(&whole(), "mine/to-file").unwrap(), "new");
    tenant.link("mine/to-dir", "real");
    assert_eq!(code(tenant.put(&whole(), "mine/to-dir", "x")), "file.is_directory");
    tenant.workspace.delete(&whole(), &at("mine/to-dir"), true).unwrap();
    assert_eq!(tenant.get(&whole(), "mine/real/file").unwrap(), "inside");
}

#[test]
fn a_scope_root_that_became_a_link_is_gone() {
    let tenant = Tenant::new();
    tenant.write("theirs/file", "THEIRS");
    tenant.link("mine", "theirs");
    let scope = scope(&[], &["mine"]);
    assert_eq!(code(tenant.get(&scope, "mine/file")), "file.not_found");
    assert_eq!(code(tenant.get(&scope, "mine")), "file.not_found");
    assert_eq!(code(tenant.put(&scope, "mine/file", "EVIL")), "file.not_found");
    assert_eq!(code(tenant.delete(&scope, "mine/file")), "file.not_found");
    assert_eq!(std::fs::read_to_string(tenant.at("theirs/file")).unwrap(), "THEIRS");
}
