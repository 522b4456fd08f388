//! The agent renames while the API works: a directory and a link that leads out change places for ever. No
//! read may ever give what is outside, and no write, delete or new directory may ever land there.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::support::{Tenant, at, code, first, names_below, race_rounds, scope, whole, zip_of};

/// Runs `round` while `one` and `other` change places, until it has run its number and both kinds of answer
/// were seen: otherwise nothing was raced.
fn while_swapping(one: &Path, other: &Path, mut round: impl FnMut() -> &'static str) {
    let done = AtomicBool::new(false);
    let swaps = AtomicU64::new(0);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
                swaps.fetch_add(1, Ordering::Relaxed);
            }
        });
        // Also when a round panics, or the scope would wait for the swapper for ever.
        let _stop = StopOnDrop(&done);
        let (mut through, mut refused) = (0, 0);
        let deadline = Instant::now() + Duration::from_secs(300);
        while through + refused < race_rounds() || through == 0 || refused == 0 {
            match round() {
                "ok" => through += 1,
                "file.not_found" | "file.changing" => refused += 1,
                other => panic!("{other}"),
            }
            assert!(Instant::now() < deadline, "{through} through and {refused} refused: no race");
        }
        println!("{through} through, {refused} refused, {} swaps", swaps.load(Ordering::Relaxed));
    });
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn reading_through_a_swapped_directory() {
    for target in ["../outside", "absolute"] {
        let tenant = Tenant::new();
        tenant.write("dir/secret", "inside");
        let absolute = tenant.outside();
        tenant.link("link", if target == "absolute" { &absolute } else { Path::new(target) });
        while_swapping(&tenant.at("dir"), &tenant.at("link"), || {
            let got = tenant.get(&whole(), "dir/secret");
            if let Ok(text) = &got {
                assert_eq!(text, "inside");
            }
            code(got)
        });
    }
}

#[test]
fn reading_a_swapped_file() {
    let tenant = Tenant::new();
    tenant.write("file", "inside");
    tenant.link("link", "../outside/secret");
    while_swapping(&tenant.at("file"), &tenant.at("link"), || {
        let got = tenant.get(&whole(), "file");
        if let Ok(text) = &got {
            assert_eq!(text, "inside");
        }
        code(got)
    });
}

/// Listing and zip: neither shows a name or a byte of what the link leads to.
#[test]
fn listing_and_archiving_through_a_swapped_directory() {
    let tenant = Tenant::new();
    tenant.write("d/dir/inside", "inside");
    tenant.link("d/link", "../../outside");
    let mut number = 0;
    while_swapping(&tenant.at("d/dir"), &tenant.at("d/link"), || {
        number += 1;
        if number % 8 > 0 {
            let listing = tenant.workspace.list(&whole(), &at("d/dir"), &first(10));
            if let Ok(listing) = &listing {
                assert!(listing.entries.iter().all(|entry| entry.name == "inside"), "{listing:?}");
            }
            return code(listing);
        }
        let archive = tenant.workspace.archive(&whole(), &at("d"));
        let Ok(archive) = archive else { return code(archive) };
        assert!(!zip_of(archive).windows(6).any(|found| found == b"secret"), "a name of the other side");
        "ok"
    });
}

#[test]
fn reading_below_a_swapped_scope_root() {
    let tenant = Tenant::new();
    tenant.write("mine/secret", "inside");
    tenant.write("theirs/secret", "THEIRS");
    tenant.link("link", "theirs");
    let scope = scope(&["mine"], &[]);
    while_swapping(&tenant.at("mine"), &tenant.at("link"), || {
        let got = tenant.get(&scope, "mine/secret");
        if let Ok(text) = &got {
            assert_eq!(text, "inside");
        }
        code(got)
    });
}

#[test]
fn a_file_swapped_for_a_fifo_never_blocks() {
    let tenant = Tenant::new();
    tenant.write("file", "inside");
    tenant.fifo("fifo");
    while_swapping(&tenant.at("file"), &tenant.at("fifo"), || match code(tenant.get(&whole(), "file")) {
        "file.not_regular" => "file.not_found",
        other => other,
    });
}

#[test]
fn writing_and_deleting_through_a_swapped_directory() {
    let tenant = Tenant::new();
    tenant.write("dir/kept", "x");
    std::fs::create_dir_all(tenant.outside().join("tree/sub")).unwrap();
    std::fs::write(tenant.outside().join("file"), "OUTSIDE").unwrap();
    tenant.link("link", "../outside");
    let before = names_below(&tenant.outside());
    let mut number = 0;
    while_swapping(&tenant.at("dir"), &tenant.at("link"), || {
        number += 1;
        match number % 4 {
            0 => code(tenant.workspace.begin_upload(&whole(), &at("dir/file"), 10)),
            1 => code(tenant.workspace.begin_upload(&whole(), &at(&format!("dir/new/{}/x", number % 7)), 10)),
            2 => code(tenant.delete(&whole(), "dir/file")),
            _ => code(tenant.workspace.delete(&whole(), &at("dir/tree"), true)),
        }
    });
    assert_eq!(names_below(&tenant.outside()), before);
    assert_eq!(std::fs::read_to_string(tenant.outside().join("file")).unwrap(), "OUTSIDE");
}

#[test]
fn finished_uploads_land_inside() {
    let tenant = Tenant::new();
    tenant.write("dir/file", "inside");
    tenant.link("link", "../outside");
    let before = names_below(&tenant.outside());
    while_swapping(&tenant.at("dir"), &tenant.at("link"), || code(tenant.put(&whole(), "dir/file", "new")));
    assert_eq!(names_below(&tenant.outside()), before);
    assert_eq!(std::fs::read_to_string(tenant.outside().join("secret")).unwrap(), "OUTSIDE");
}

#[test]
fn removing_a_tree_whose_directories_are_swapped_for_links() {
    let tenant = Tenant::new();
    std::fs::create_dir_all(tenant.outside().join("tree/sub")).unwrap();
    let before = names_below(&tenant.outside());
    tenant.link("link", "../../outside");
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            let (sub, link) = (tenant.at("d/sub"), tenant.at("link"));
            while !done.load(Ordering::Relaxed) {
                // Fails while there is no such tree.
                let _ = renameat_with(CWD, &sub, CWD, &link, RenameFlags::EXCHANGE);
            }
        });
        let _stop = StopOnDrop(&done);
        for _ in 0..race_rounds() / 20 {
            let _ = std::fs::create_dir_all(tenant.at("d/sub/tree/sub"));
            let _ = std::fs::write(tenant.at("d/sub/tree/file"), "x");
            let deleted = code(tenant.workspace.delete(&whole(), &at("d"), true));
            let expected = ["ok", "file.not_found", "file.changing", "directory.not_empty"];
            assert!(expected.contains(&deleted), "{deleted}");
        }
    });
    // The link itself may have been moved into the tree; what it led to is untouched by the removal. What the
    // test made through the link while it stood at `d/sub` is its own doing.
    let after = names_below(&tenant.outside());
    assert!(before.iter().all(|name| after.contains(name)), "{before:?} {after:?}");
}
