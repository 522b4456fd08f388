//! One server with its model and its clients, and the disasters that can befall it. Knows how to kill, restart
//! and freeze, and what must be left of a killed server: nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use palisade_testkit::postgres::Postgres;
use palisade_testkit::{Server, server, wait_for};
use rustix::process::{Signal, getuid, kill_process};
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::machine::{Process, descriptors_of, processes_of};
use crate::model::Model;
use crate::tally::Tally;

/// A turn goes on within this time after a start, with nobody asking for it.
const RESUMED_WITHIN: Duration = Duration::from_secs(5);

/// Connections to the proxy that are kept for one upstream.
const KEPT_TO_THE_MODEL_MAX: usize = 8;

/// Where the server's database is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    Sqlite,
    Postgres,
}

/// A server with a uid of its own.
pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) model: Model,
    pub(crate) tally: Arc<Tally>,
    /// Effects that some call was seen to start, over the world's whole life.
    pub(crate) effects: BTreeSet<String>,
    uid: u32,
    base: BTreeMap<String, usize>,
    /// Tokens of every turn that has ended well, by what its clients were told.
    pub(crate) tokens: u64,
    /// Where the server's database is, if not in a file.
    postgres: Option<Postgres>,
    /// What killed servers left running at first.
    orphans: BTreeSet<Process>,
}

impl World {
    /// `lane` tells worlds that live at the same time apart.
    pub(crate) async fn start(lane: u32, engine: Engine, tally: Arc<Tally>) -> Self {
        let postgres = match engine {
            Engine::Sqlite => None,
            Engine::Postgres => Some(Postgres::start().unwrap()),
        };
        let store = postgres.as_ref().map(|postgres| format!("[store]\nurl = {:?}\n", postgres.database()));
        let model = Model::start().await;
        // Another uid for each test program that runs now, within the range that containers usually map.
        let uid = 20_000 + std::process::id() % 2_000 * 16 + lane;
        let store = store.unwrap_or_default();
        let more = format!("{store}[sandbox]\nhand = {:?}\nrun_as = {uid}", server::hand());
        let server = Server::start(env!("CARGO_BIN_EXE_palisade"), &model.upstream, &more).await;
        let base = BTreeMap::new();
        let (effects, orphans) = (BTreeSet::new(), BTreeSet::new());
        let mut world = Self { server, model, tally, effects, uid, base, tokens: 0, postgres, orphans };
        if tells_processes_apart() {
            // The last thing that a server opens.
            let operators = world.server.folder.path().join("data/admin.sock");
            wait_for("the operator's socket", async || operators.exists().then_some(())).await;
            world.base = world.descriptors();
        }
        world
    }

    pub(crate) async fn clients(&self, seed: u64, count: u64) -> Vec<Client> {
        join_all((0..count).map(|number| Client::new(&self.server, seed, number))).await
    }

    /// Kills the server. What it leaves running is remembered, to be looked for later.
    pub(crate) async fn kill(&mut self) {
        self.server.kill().await;
        self.remember_orphans();
    }

    /// Starts the server and kills it before or soon after it listens.
    pub(crate) async fn die_at_start(&mut self, after: Duration) {
        self.server.restart_and_kill_after(after).await;
        self.remember_orphans();
    }

    /// Asks the server to end, which it does well.
    pub(crate) async fn terminate(&mut self) {
        let status = self.server.terminate().await;
        assert_eq!(status.code(), Some(0), "after SIGTERM");
        self.remember_orphans();
    }

    /// Stops the server's process for this time, as a machine that is suspended does.
    pub(crate) async fn freeze(&self, time: Duration) {
        kill_process(self.server.pid().unwrap(), Signal::STOP).unwrap();
        tokio::time::sleep(time).await;
        kill_process(self.server.pid().unwrap(), Signal::CONT).unwrap();
    }

    /// Starts the server after a disaster and sees every running turn go on before anybody asks for it.
    pub(crate) async fn restart(&mut self, clients: &[Client]) {
        let log_before = self.server.log().len();
        let asked_before: Vec<usize> = clients.iter().map(|client| self.asked(client)).collect();
        let began = Instant::now();
        self.server.restart().await;
        self.tally.at_most("ms at most from start to serving", began.elapsed().as_millis() as u64);
        for (client, before) in clients.iter().zip(asked_before) {
            let Some(turn) = client.turn().filter(|_| !client.has_seen_the_end()) else { continue };
            let logged =
                |log: &str, what: &str| log.lines().any(|line| line.contains(what) && line.contains(&turn));
            if logged(&self.server.log()[..log_before], "turn ended") {
                self.tally.count("turns that had ended before the kill, unheard");
                continue;
            }
            let goes_on =
                || logged(&self.server.log()[log_before..], "turn taken over") || self.asked(client) > before;
            while !goes_on() && began.elapsed() < RESUMED_WITHIN {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            if goes_on() {
                self.tally.count("turns that went on by themselves");
                self.tally.at_most(
                    "ms at most from start to a turn that goes on",
                    began.elapsed().as_millis() as u64,
                );
            } else {
                // Then it had ended, and only the client did not hear of it.
                let record = self.server.get(&format!("/v1/sessions/{}", client.session)).await;
                assert_eq!(record["busy"], false, "a turn does not go on: {}", client.message);
                self.tally.count("turns that had ended before the kill, unheard");
            }
        }
    }

    /// Every client reads until its stream ends or breaks.
    pub(crate) fn read_on(&self, clients: &[Client]) -> JoinSet<()> {
        let mut readers = JoinSet::new();
        for client in clients.iter().filter(|client| !client.has_seen_the_end()) {
            readers.spawn(client.read_on(&self.server));
        }
        readers
    }

    /// What was debited is what the clients were told, each turn once, and the books add up.
    pub(crate) async fn has_paid_once(&self) {
        let usage = self.server.get("/v1/usage").await;
        let paid = f64::from(server::CREDITS) - usage["credits"]["balance"].as_f64().unwrap();
        let told = self.tokens as f64 * server::CREDITS_PER_TOKEN;
        assert!((paid - told).abs() < server::CREDITS_PER_TOKEN / 10.0, "{paid} credits paid for {told}");
        let data = self.server.folder.path().join("data");
        // Of two servers one has the socket, and the other takes it up when that one is gone.
        wait_for("books that add up", async || {
            let mut check = Command::new(env!("CARGO_BIN_EXE_palisade"));
            let check = check.args(["admin", "credits", "check", "--data-dir"]).arg(&data);
            check.output().await.unwrap().status.success().then_some(())
        })
        .await;
    }

    /// Nothing of the killed servers runs any more, and this one holds what it held when it was new.
    pub(crate) async fn is_as_new(&mut self) {
        if !tells_processes_apart() {
            return;
        }
        let pid = self.pid();
        let (uid, orphans) = (self.uid, std::mem::take(&mut self.orphans));
        self.tally.add("processes alive just after a kill", orphans.len() as u64);
        wait_for("the killed servers' processes to end", async || {
            processes_of(uid).is_disjoint(&orphans).then_some(())
        })
        .await;
        wait_for("the server to have no children", async || {
            processes_of(uid).iter().all(|process| process.pid == pid).then_some(())
        })
        .await;
        let mut held = BTreeMap::new();
        for _ in 0..500 {
            held = self.descriptors();
            if self.is_base(&held) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(held, self.base, "descriptors are back at the base");
    }

    /// Whether no more is held than at first, but for connections to the proxy that are kept for the next call to the model: of
    /// such a connection both ends are here, of one to a sandbox only one.
    fn is_base(&self, held: &BTreeMap<String, usize>) -> bool {
        let mut base = self.base.clone();
        if let (Some(sockets), Some(at_first)) = (held.get("socket"), base.get_mut("socket")) {
            let more = sockets.saturating_sub(*at_first);
            if more % 2 == 0 && more / 2 <= KEPT_TO_THE_MODEL_MAX {
                *at_first += more;
            }
        }
        *held == base
    }

    /// Without the connections to a database, which come and go: they are sockets like those to sandboxes.
    fn descriptors(&self) -> BTreeMap<String, usize> {
        let mut held = descriptors_of(self.pid());
        if self.postgres.is_some() {
            held.remove("socket");
        }
        held
    }

    fn asked(&self, client: &Client) -> usize {
        self.model.told(&client.message).requests
    }

    fn remember_orphans(&mut self) {
        if tells_processes_apart() {
            self.orphans.extend(processes_of(self.uid));
        }
    }

    fn pid(&self) -> i32 {
        self.server.pid().unwrap().as_raw_nonzero().get()
    }
}

/// Whether a server can be given a uid of its own, by which its processes are told from others.
fn tells_processes_apart() -> bool {
    getuid().is_root()
}

/// Waits until every stream has ended or broken; what failed in a reader fails the test.
pub(crate) async fn all_ended(readers: &mut JoinSet<()>) {
    while let Some(ended) = readers.join_next().await {
        ended.unwrap();
    }
}
