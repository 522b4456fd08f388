//! `session-status` from a program inside to the server.

use crate::support::{Bench, refused, stdout};

#[tokio::test]
async fn updates_arrive_before_their_command_ends() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    let mut updates = sandbox.take_status_updates().unwrap();
    assert!(sandbox.take_status_updates().is_none(), "they have one reader");
    stdout(&sandbox, "session-status deck_status=building 'note=a b=c ü'").await;
    let mut seen = vec![updates.try_recv().unwrap(), updates.try_recv().unwrap()];
    seen.sort();
    let expected =
        [("deck_status", "building"), ("note", "a b=c ü")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn what_is_not_a_status_is_refused() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    for (arguments, reason) in [
        ("", "usage"),
        ("no-equals-sign", "has no '='"),
        ("'a b=c'", "a key is"),
        ("k=$(head -c 1025 /dev/zero | tr '\\0' x)", "a value at most"),
        ("$(printf 'k=\\xff')", "UTF-8"),
    ] {
        refused(&sandbox, &format!("session-status {arguments}"), reason).await;
    }
}

#[tokio::test]
async fn a_flood_is_thinned_and_its_last_value_wins() {
    let bench = Bench::new();
    let sandbox = bench.whole().await;
    let mut updates = sandbox.take_status_updates().unwrap();
    stdout(&sandbox, "session-status $(seq -f 'step=%.0f' 1 5000)").await;
    let mut seen = Vec::new();
    while let Ok(update) = updates.try_recv() {
        seen.push(update);
    }
    assert!((1..200).contains(&seen.len()), "{} updates", seen.len());
    assert_eq!(seen.last().unwrap(), &("step".to_owned(), "5000".to_owned()));
}
