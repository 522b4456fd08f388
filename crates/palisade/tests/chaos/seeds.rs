//! Goal: whatever moment the server dies at, a client that comes back sees one whole turn. Method: turns whose
//! plan, kill point and further disasters all come from a seed; a failing seed is run again by
//! `PALISADE_CHAOS_SEED=n`. `PALISADE_LONG_TESTS=1` runs five times as many.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use palisade_testkit::postgres::Postgres;
use reqwest::Method;

use crate::client::Client;
use crate::rng::Rng;
use crate::tally::Tally;
use crate::verdict::{Expected, check_no_effect_is_unaccounted_for, check_turn};
use crate::world::{Engine, World, all_ended};

/// On each engine.
const SEEDS: u64 = 30;
const SEEDS_LONG: u64 = 240;
/// Of two servers.
const PAIRS: u64 = 5;
const PAIRS_LONG: u64 = 60;
/// Worlds side by side: most of a seed is waiting.
const LANES: u64 = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whenever_the_server_dies_every_turn_goes_on_and_nothing_is_doubled() {
    run(Engine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_same_on_postgres() {
    if Postgres::start().is_some() {
        run(Engine::Postgres).await;
    }
}

/// Nobody starts the dead one again before the turns have ended: the other one goes on with them.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_servers_either_goes_on_when_the_other_dies() {
    if Postgres::start().is_none() {
        return;
    }
    let mut world = World::start(9, Engine::Postgres, Arc::new(Tally::default())).await;
    let mut dead = world.server.beside().await;
    for seed in 0..if crate::is_long() { PAIRS_LONG } else { PAIRS } {
        eprintln!("pair {seed}");
        let mut rng = Rng::new(seed, 2);
        let sessions = rng.within(1..4);
        let clients = world.clients(1_000 + seed, sessions).await;
        let mut readers = world.read_on(&clients);
        tokio::select! {
            () = clients[0].has_seen(rng.within(0..50) as usize) => {}
            () = all_ended(&mut readers) => {}
        }
        precisely(delay(&mut rng)).await;
        match rng.percent(75) {
            true => world.server.kill().await,
            false => assert_eq!(world.server.terminate().await.code(), Some(0)),
        }
        all_ended(&mut readers).await;
        std::mem::swap(&mut world.server, &mut dead);
        all_ended(&mut world.read_on(&clients)).await;
        for client in &clients {
            check_turn(&mut world, client, Expected::Completed).await;
        }
        check_no_effect_is_unaccounted_for(&world);
        world.has_paid_once().await;
        dead.restart().await;
    }
    eprintln!("{}", world.tally);
}

#[expect(clippy::print_stderr, reason = "the tally is for whoever runs the tests")]
async fn run(engine: Engine) {
    let tally = Arc::new(Tally::default());
    let seeds: Vec<u64> = match std::env::var("PALISADE_CHAOS_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..if crate::is_long() { SEEDS_LONG } else { SEEDS }).collect(),
    };
    let lanes = (0..LANES).map(|lane| {
        let seeds: Vec<u64> = seeds.iter().copied().filter(|seed| seed % LANES == lane).collect();
        run_lane(lane as u32, engine, seeds, tally.clone())
    });
    let failed: Vec<u64> = join_all(lanes).await.into_iter().flatten().collect();
    eprintln!("{tally}");
    assert!(failed.is_empty(), "seeds that failed, to be run again by PALISADE_CHAOS_SEED=n: {failed:?}");
    assert_eq!(tally.of("seeds"), seeds.len() as u64);
}

/// Runs seeds one after another on one world, and on a new one after a failure.
#[expect(clippy::print_stderr, reason = "which seed failed is for whoever runs the tests")]
async fn run_lane(lane: u32, engine: Engine, seeds: Vec<u64>, tally: Arc<Tally>) -> Vec<u64> {
    let (mut failed, mut world) = (Vec::new(), None);
    for seed in seeds {
        let mut current = match world.take() {
            Some(world) => world,
            None => World::start(lane, engine, tally.clone()).await,
        };
        match std::panic::AssertUnwindSafe(run_seed(&mut current, seed)).catch_unwind().await {
            Ok(()) => world = Some(current),
            Err(_) => {
                let log = current.server.log();
                let told = log.lines().filter(|line| !line.contains("\"message\":\"request\""));
                let told: Vec<&str> = told.collect();
                let end = told[told.len().saturating_sub(30)..].join("\n");
                eprintln!("seed {seed} failed; the end of the server's log:\n{end}");
                failed.push(seed);
            }
        }
        tally.count("seeds");
    }
    failed
}

async fn run_seed(world: &mut World, seed: u64) {
    let mut rng = Rng::new(seed, 1);
    let sessions = rng.within(1..4);
    let clients = world.clients(seed, sessions).await;
    let mut readers = world.read_on(&clients);
    tokio::select! {
        () = clients[0].has_seen(rng.within(0..50) as usize) => {}
        () = all_ended(&mut readers) => {}
    }
    precisely(delay(&mut rng)).await;
    let is_cancelled = rng.percent(25) && clients[0].cancel(&world.server).await;
    if is_cancelled {
        world.tally.count("cancels that were acknowledged just before");
    }
    let phase = clients[0].seen().last().map_or("nothing was seen".to_owned(), |event| event.kind.clone());
    match rng.within(0..100) {
        0..10 => {
            world.tally.count("frozen and thawed");
            world.freeze(Duration::from_millis(rng.within(100..600))).await;
        }
        10..22 => {
            world.tally.count(format!("SIGTERM when {phase}"));
            world.terminate().await;
            world.restart(&clients).await;
        }
        way => {
            world.tally.count(format!("kill -9 when {phase}"));
            world.kill().await;
            let again = if way < 60 { 0 } else { rng.within(1..4) };
            for _ in 0..again {
                die_again(world, &clients, &mut rng).await;
            }
            world.restart(&clients).await;
        }
    }
    all_ended(&mut readers).await;
    // A client whose first stream was cut comes back once; there is nothing more to cut it.
    all_ended(&mut world.read_on(&clients)).await;
    for (number, client) in clients.iter().enumerate() {
        let expected = if is_cancelled && number == 0 { Expected::Cancelled } else { Expected::Completed };
        check_turn(world, client, expected).await;
    }
    check_no_effect_is_unaccounted_for(world);
    world.has_paid_once().await;
    let problems = world.model.problems();
    assert!(problems.is_empty(), "requests that no model takes: {problems:#?}");
    for client in &clients {
        let path = format!("/v1/sessions/{}", client.session);
        let deleted = world.server.request(Method::DELETE, &path).send().await.unwrap();
        assert_eq!(deleted.status(), 204);
    }
    world.is_as_new().await;
}

/// Another death, while the server starts or just after a turn went on.
async fn die_again(world: &mut World, clients: &[Client], rng: &mut Rng) {
    if rng.percent(40) {
        world.tally.count("kill -9 at the start");
        world.die_at_start(Duration::from_millis(rng.within(1..400))).await;
        return;
    }
    world.tally.count("kill -9 just after a turn went on");
    world.restart(clients).await;
    let seen = clients[0].seen().len();
    let mut readers = world.read_on(clients);
    tokio::select! {
        () = clients[0].has_seen(seen + 1) => {}
        () = all_ended(&mut readers) => {}
    }
    precisely(delay(rng)).await;
    world.kill().await;
    all_ended(&mut readers).await;
}

/// Mostly at once; sometimes in the middle of what takes a while.
fn delay(rng: &mut Rng) -> Duration {
    let most = if rng.percent(30) { 80_000 } else { 3_000 };
    Duration::from_micros(rng.within(0..most))
}

/// Timers of the executor are too coarse for microseconds.
async fn precisely(time: Duration) {
    tokio::task::spawn_blocking(move || std::thread::sleep(time)).await.unwrap();
}
