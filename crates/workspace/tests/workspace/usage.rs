//! What a workspace takes: measured whatever its agent does to be measured wrong.

use std::ffi::OsStr;
use std::path::Path;

use palisade_beneath::Root;

use crate::support::{Tenant, is_long};

fn mib(bytes: u64) -> u64 {
    bytes >> 20
}

#[test]
fn what_is_allocated_counts_once_and_holes_do_not() {
    let tenant = Tenant::new();
    let empty = tenant.workspace.measure().unwrap();
    std::fs::create_dir_all(tenant.at("a/b")).unwrap();
    std::fs::write(tenant.at("a/b/file"), vec![1; 8 << 20]).unwrap();
    std::fs::hard_link(tenant.at("a/b/file"), tenant.at("a/again")).unwrap();
    std::fs::hard_link(tenant.at("a/b/file"), tenant.at("third")).unwrap();
    std::fs::File::create(tenant.at("sparse")).unwrap().set_len(4 << 40).unwrap();
    std::fs::write(tenant.outside().join("large"), vec![1; 4 << 20]).unwrap();
    tenant.link("a/out", tenant.outside());
    tenant.link("a/circle", ".");
    assert_eq!(mib(tenant.workspace.measure().unwrap() - empty), 8);
    std::fs::remove_file(tenant.at("third")).unwrap();
    assert_eq!(mib(tenant.workspace.measure().unwrap() - empty), 8);
    std::fs::remove_dir_all(tenant.at("a")).unwrap();
    assert_eq!(mib(tenant.workspace.measure().unwrap() - empty), 0);
}

#[test]
fn depth_hides_nothing() {
    let levels = if is_long() { 20_000 } else { 2_000 };
    let tenant = Tenant::new();
    std::fs::create_dir(tenant.at("d")).unwrap();
    let mut level = Root::open(&tenant.at("d")).unwrap().directory(Path::new("")).unwrap();
    for number in 0..levels {
        // Beside the way down: what is read before it and behind it.
        level.create_file(OsStr::new(&format!("f{number}")), 0o600).unwrap();
        level = level.make_and_enter(OsStr::new("n")).unwrap();
    }
    let before = tenant.workspace.measure().unwrap();
    let mut file = level.create_file(OsStr::new("hidden"), 0o600).unwrap();
    std::io::Write::write_all(&mut file, &vec![1; 8 << 20]).unwrap();
    // Held open, the deepest folder would keep every removed one above it until the end.
    drop((file, level));
    let measured = || {
        let began = std::time::Instant::now();
        let bytes = tenant.workspace.measure().unwrap();
        println!("{levels} levels measured in {:?}", began.elapsed());
        bytes
    };
    std::thread::scope(|threads| {
        // A small stack, so that anything that grows with the depth would overflow it.
        let small = std::thread::Builder::new().stack_size(256 * 1024);
        let after = small.spawn_scoped(threads, measured).unwrap().join().unwrap();
        assert_eq!(mib(after - before), 8);
    });
    tenant.workspace.delete(&crate::support::whole(), &crate::support::at("d"), true).unwrap();
}

#[test]
fn a_tree_that_is_moved_about_is_measured_or_refused_and_never_small() {
    let tenant = Tenant::new();
    for number in 0..40 {
        std::fs::create_dir_all(tenant.at(&format!("one/{number}/sub"))).unwrap();
    }
    std::fs::create_dir(tenant.at("two")).unwrap();
    std::fs::write(tenant.at("kept"), vec![1; 8 << 20]).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                std::fs::rename(tenant.at("one"), tenant.at("two/one")).unwrap();
                std::fs::rename(tenant.at("two/one"), tenant.at("one")).unwrap();
            }
        });
        let count = if is_long() { 300 } else { 30 };
        let results: Vec<_> = (0..count).map(|_| tenant.workspace.measure()).collect();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        let measured = results.iter().flatten().filter(|bytes| mib(**bytes) >= 8).count();
        let refused = results.iter().filter(|result| result.is_err()).count();
        assert_eq!(measured + refused, count);
        println!("{measured} measured, {refused} refused");
    });
    assert!(tenant.workspace.measure().is_ok());
}
