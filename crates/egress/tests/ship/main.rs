//! Shipping, against a real S3 server on loopback (`moto`, which `cargo xtask test` installs), through the proxy: in order, each number
//! once, whatever the bucket says and whenever the process is killed.
#![expect(clippy::expect_used, reason = "a helper that fails fails the test")]

mod world;

use std::{sync::Arc, time::Duration};

use palisade_egress::{AuditLog, AuditSettings, ShipTarget, ship_all, verify};
use palisade_testkit::wait_for;
use tokio_util::sync::CancellationToken;
use world::{Killed, World, write};

/// Segments of some twenty records.
const SMALL: AuditSettings = AuditSettings { segment_bytes_max: 5_000, sync_each: false };

/// Every number from 1 to the last, once, in what was shipped; verified as a log of its own.
fn whole(shipped: &std::path::Path) -> u64 {
    let verified = verify(shipped).expect("the copy is a whole log");
    assert!(verified.first_seq == 1 || verified.last_seq == 0, "{verified:?}");
    verified.last_seq
}

#[tokio::test]
async fn a_folder_gets_what_is_full_and_what_is_closed() {
    let world = World::new().await;
    let copy = tempfile::tempdir().expect("a folder");
    let target = ShipTarget::Folder(copy.path().to_owned());
    let log = Arc::new(AuditLog::open(world.audit(), SMALL).expect("a log"));
    write(&log, 100).await;
    let stop = CancellationToken::new();
    let shipping = palisade_egress::ship(log.clone(), target, Duration::from_millis(20), stop.clone());
    let arrived = async {
        wait_for("all of it", || async { (whole(copy.path()) == 100).then_some(()) }).await;
        write(&log, 7).await;
        wait_for("the rest", || async { (whole(copy.path()) == 107).then_some(()) }).await;
        stop.cancel();
    };
    tokio::join!(shipping, arrived);
}

/// A copy that was lost from memory is offered again and is the same; what is another log's is never written over.
#[tokio::test]
async fn what_is_there_is_compared_and_not_replaced() {
    let world = World::new().await;
    let copy = tempfile::tempdir().expect("a folder");
    for target in [ShipTarget::Folder(copy.path().to_owned()), world.bucket()] {
        let log = AuditLog::open(world.audit(), SMALL).expect("a log");
        write(&log, 60).await;
        log.close_segment().await.expect("closed");
        drop(log);
        let first = ship_all(world.audit(), &target).await.expect("shipped");
        assert!(first >= 3);
        assert_eq!(ship_all(world.audit(), &target).await.expect("nothing new"), 0);
        std::fs::remove_file(world.audit().join("shipped")).expect("forgotten");
        assert_eq!(ship_all(world.audit(), &target).await.expect("the same"), first);
        std::fs::remove_file(world.audit().join("shipped")).expect("forgotten");
        let foreign = tempfile::tempdir().expect("another log");
        let other = AuditLog::open(foreign.path(), SMALL).expect("a log");
        write(&other, 60).await;
        other.close_segment().await.expect("closed");
        drop(other);
        let failure = ship_all(foreign.path(), &target).await.expect_err("another log's place");
        let said = format!("{failure:?}");
        assert!(said.contains("another log's"), "{said}");
        std::fs::remove_dir_all(world.audit()).expect("the next target begins anew");
    }
}

/// EG-J9: a bucket that says 500 for as long as it likes: nothing is lost, nothing is twice, and the order stays.
#[tokio::test]
async fn a_bucket_that_fails_gets_everything_later() {
    let world = World::new().await;
    let log = AuditLog::open(world.audit(), SMALL).expect("a log");
    write(&log, 120).await;
    log.close_segment().await.expect("closed");
    drop(log);
    world.fail_next(5);
    let mut failures = 0;
    let target = world.bucket();
    while let Err(failure) = ship_all(world.audit(), &target).await {
        let said = format!("{failure:?}");
        assert!(!said.contains(world::SECRET_KEY), "{said}");
        failures += 1;
        assert!(failures < 20, "{said}");
    }
    assert!((1..=5).contains(&failures), "{failures}");
    let copy = world.download().await;
    assert_eq!(whole(copy.path()), 120);
}

/// EG-J9: killed wherever it happens to be, in writing, packing or shipping, over and over.
#[tokio::test]
async fn a_kill_loses_no_number_and_doubles_none() {
    let world = World::new().await;
    for round in 0..8_u64 {
        let mut process = Killed::start(&world).await;
        let more = (round + 1) * 40;
        process.wait_for_records(world.audit(), more).await;
        process.kill().await;
    }
    let log = AuditLog::open(world.audit(), SMALL).expect("a log");
    log.close_segment().await.expect("closed");
    drop(log);
    let target = world.bucket();
    ship_all(world.audit(), &target).await.expect("the rest");
    let last = verify(world.audit()).expect("a whole log").last_seq;
    assert!(last >= 320);
    let copy = world.download().await;
    assert_eq!(whole(copy.path()), last);
    println!(
        "{last} records, {} segments in the bucket after 8 kills",
        verify(copy.path()).expect("whole").segments
    );
}

/// Not a test: what the one above runs as a process of its own. It writes and ships until it is killed.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by another test of this file"]
async fn shipping_process() {
    world::write_and_ship_for_ever(SMALL).await;
}
