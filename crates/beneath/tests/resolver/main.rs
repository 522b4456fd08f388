//! Any path against a hostile tree: the short form of what `fuzz/` does for as long as one likes.
#![expect(clippy::expect_used, reason = "a helper that fails fails the test")]

mod check;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

#[test]
fn no_path_leads_out() {
    let is_long = std::env::var_os("PALISADE_LONG_TESTS").is_some_and(|value| value == "1");
    let home = tempfile::tempdir().unwrap();
    let tree = check::Tree::new(home.path());
    // What was tried elsewhere, piece by piece: leaving, coming back, links in the middle and at the end.
    for seed in [
        &b"\x01../outside/secret"[..],
        b"\x01/etc/passwd",
        b"\x01out/secret",
        b"\x01dir/../../outside",
        b"\x01in-dir/sub/up/out/secret",
        b"\x01dir/up/dir/up/file",
        b"\x01magic/etc/passwd",
        b"\x01circle/x",
        b"\x01dangling",
        b"\x01up/root/file",
        b"\x01a\0b",
        b"",
        b"\x01",
        b"\x01.",
        b"\x01..",
        b"\x01./././",
        &[&b"\x01new/"[..], &[b'n'; 300], b"/x"].concat(),
    ] {
        tree.check(seed);
    }
    let config = Config {
        cases: if is_long { 500_000 } else { 10_000 },
        failure_persistence: None,
        ..Config::default()
    };
    let bytes = prop_oneof![
        // Pieces, for most of them.
        4 => prop::collection::vec(any::<u8>(), 0..20).prop_map(|mut bytes| { bytes.insert(0, 0); bytes }),
        1 => prop::collection::vec(any::<u8>(), 0..300),
    ];
    TestRunner::new(config)
        .run(&bytes, |bytes| {
            tree.check(&bytes);
            Ok(())
        })
        .unwrap();
}
