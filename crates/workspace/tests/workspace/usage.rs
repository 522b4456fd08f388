//! What a workspace takes: measured whatever its agent does to be measured wrong.

use std::ffi::OsStr;
use std::path::Path;

use palisade_beneath::Root;
use palisade_workspace::{Amount, Footprint};

use crate::support::{Tenant, is_long};

fn mib(amount: Amount) -> u64 {
    amount.bytes >> 20
}

#[test]
fn what_is_allocated_counts_once_and_holes_do_not() {
    let tenant = Tenant::new();
    let empty = tenant.measure().unwrap();
    std::fs::create_dir_all(tenant.at("a/b")).unwrap();
    std::fs::write(tenant.at("a/b/file"), vec![1; 8 << 20]).unwrap();
    std::fs::hard_link(tenant.at("a/b/file"), tenant.at("a/again")).unwrap();
    std::fs::hard_link(tenant.at("a/b/file"), tenant.at("third")).unwrap();
    std::fs::File::create(tenant.at("sparse")).unwrap().set_len(4 << 40).unwrap();
    std::fs::write(tenant.outside().join("large"), vec![1; 4 << 20]).unwrap();
    tenant.link("a/out", tenant.outside());
    tenant.link("a/circle", ".");
    assert_eq!(mib(tenant.measure().unwrap().minus(empty)), 8);
    std::fs::remove_file(tenant.at("third")).unwrap();
    assert_eq!(mib(tenant.measure().unwrap().minus(empty)), 8);
    std::fs::remove_dir_all(tenant.at("a")).unwrap();
    assert_eq!(mib(tenant.measure().unwrap().minus(empty)), 0);
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
    let before = tenant.measure().unwrap();
    let mut file = level.create_file(OsStr::new("hidden"), 0o600).unwrap();
    std::io::Write::write_all(&mut file, &vec![1; 8 << 20]).unwrap();
    // Held open, the deepest folder would keep every removed one above it until the end.
    drop((file, level));
    let measured = || {
        let began = std::time::Instant::now();
        let amount = tenant.measure().unwrap();
        println!("{levels} levels measured in {:?}", began.elapsed());
        amount
    };
    std::thread::scope(|threads| {
        // A small stack, so that anything that grows with the depth would overflow it.
        let small = std::thread::Builder::new().stack_size(256 * 1024);
        let after = small.spawn_scoped(threads, measured).unwrap().join().unwrap();
        assert_eq!(mib(after.minus(before)), 8);
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
        let results: Vec<_> = (0..count).map(|_| tenant.measure()).collect();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        let measured = results.iter().flatten().filter(|amount| mib(**amount) >= 8).count();
        let refused = results.iter().filter(|result| result.is_err()).count();
        assert_eq!(measured + refused, count);
        println!("{measured} measured, {refused} refused");
    });
    assert!(tenant.measure().is_ok());
}

#[test]
fn everything_with_a_name_is_counted_once() {
    let tenant = Tenant::new();
    let empty = tenant.measure().unwrap();
    for number in 0..30 {
        tenant.write(&format!("d/{number}"), "");
        tenant.link(&format!("links/{number}"), "nowhere");
        tenant.fifo(&format!("fifo{number}"));
        std::fs::hard_link(tenant.at("d/0"), tenant.at(&format!("again{number}"))).unwrap();
    }
    assert_eq!(tenant.measure().unwrap().minus(empty).files, 30 * 3 + 2, "and the two folders");
}

#[test]
fn several_folders_are_one_sum_and_one_disk() {
    let tenant = Tenant::new();
    let (home, missing) = (tenant.outside(), tenant.outside().join("missing"));
    let alone = Footprint::new(home.clone(), vec![home.clone()]).measure().unwrap();
    let empty = tenant.measure().unwrap();
    let both = Footprint::new(home.clone(), vec![tenant.workspace.dir().to_owned(), home.clone(), missing]);
    assert_eq!(both.measure().unwrap(), empty.plus(alone));
    let volumes = both.volumes().unwrap();
    assert!(volumes.uses_shared && volumes.own.is_empty(), "{volumes:?}");
    assert!(volumes.shared.total.covers(volumes.shared.free) && volumes.shared.free.files > 0);
    // Another file system is the tenant's own, once for all of its folders there, and needs no measuring.
    let elsewhere = Footprint::new("/proc", vec![home.clone(), tenant.workspace.dir().to_owned()]);
    let volumes = elsewhere.volumes().unwrap();
    assert_eq!((volumes.uses_shared, volumes.own.len()), (false, 1));
    assert_eq!(elsewhere.measure().unwrap(), Amount::default());
}
