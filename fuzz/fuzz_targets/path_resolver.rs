//! Any bytes as a path, against a tree of links that lead out.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/beneath/tests/resolver/check.rs"]
mod check;

static TREE: LazyLock<(tempfile::TempDir, check::Tree)> = LazyLock::new(|| {
    let home = tempfile::tempdir().expect("a folder for the tree");
    let tree = check::Tree::new(home.path());
    (home, tree)
});

fuzz_target!(|bytes: &[u8]| TREE.1.check(bytes));
