//! The egress proxy beside other forward proxies: what a tunnel, a gigabyte and an idle tunnel cost, and what it costs to open TLS. Each is a
//! process of its own with a log, an allowlist of one host and one port, and the same clients and origin, in turn; what counts is the
//! processor time of the proxy's processes.

pub(crate) mod bare;
mod load;
mod origin;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use palisade_testkit::resolver::FakeResolver;
use palisade_testkit::tls_origin::TlsOrigin;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use self::load::{ANSWER, Intercepted, LANES, Target};
use self::origin::Origin;
use super::report::Report;
use super::row::{Row, Unit};
use crate::build::say;
use crate::peers::{Allowed, Ours, RunningProxy, bare, build_ours, envoy, squid};

/// The one host; a name of ours, looked up by each proxy in its own way.
const HOST: &str = "origin.test";
/// How often the proxies take turns.
const ROUNDS: usize = 5;
const GB: u64 = 1_000_000_000;
const TUNNEL_MS_MAX: f64 = 0.25;
const TUNNEL_TIMES_SQUID_MAX: f64 = 0.5;
const GB_MS_MAX: f64 = 500.0;
const INTERCEPTED_REQUEST_MS_MAX: f64 = 0.3;
const INTERCEPTED_TUNNEL_MS_MAX: f64 = 2.0;
/// 30 MB.
const RESIDENT_KIB_MAX: f64 = 29_297.0;
const IDLE_TUNNEL_KIB_MAX: f64 = 64.0;
/// Descriptors that are not tunnels'.
const DESCRIPTORS_LEFT: u64 = 1_000;
const IDLE_MAX: u64 = 10_000;
/// Idle tunnels that are opened at once.
const IDLE_AT_ONCE: usize = 64;

/// How often each thing is done, all rounds together.
pub(super) struct Counts {
    pub(super) tunnels: usize,
    pub(super) gigabytes: f64,
    pub(super) requests: usize,
    pub(super) idle: usize,
}

/// A proxy, and what was measured of it.
struct Measured {
    proxy: RunningProxy,
    target: Target,
    resident_kib: f64,
    tunnel_cpu: Duration,
    tunnel_time: Duration,
    gb_cpu: Duration,
    idle_kib: f64,
}

/// Adds the rows, and the peers' as floors.
pub(super) async fn measure(counts: &Counts, report: &mut Report) -> Result<()> {
    let program = build_ours()?;
    let idle = counts.idle.min(raise_descriptors()?);
    let resolver = FakeResolver::start().await.context("starting a name server")?;
    resolver.set_addresses(HOST, &["127.0.0.1"]);
    let origin = Origin::start().await?;
    let allowed = Allowed { host: HOST.to_owned(), port: origin.address.port(), names: Vec::new() };
    let ours = Ours { program: &program, resolver: resolver.address(), intercept: None };
    let mut all = vec![Measured::of(ours.start(&allowed)?, &allowed)?];
    let peers =
        [("squid", squid(&allowed)), ("Envoy", envoy(&allowed)), ("a bare relay", bare(origin.address))];
    for (name, peer) in peers {
        match peer {
            Ok(peer) => all.push(Measured::of(peer, &allowed)?),
            Err(error) => say(&format!("bench: {name} is not measured: {error:#}")),
        }
    }
    let tunnels = counts.tunnels.div_ceil(ROUNDS);
    let bytes = (counts.gigabytes * GB as f64) as u64 / ROUNDS as u64;
    // First a round that fills caches, then turn by turn: the machine's mood changes.
    for round in 0..=ROUNDS {
        for measured in &mut all {
            measured
                .take_turn(tunnels, bytes, round > 0)
                .await
                .with_context(|| measured.proxy.name.clone())?;
        }
    }
    for measured in &mut all {
        measured.idle_kib = idle_kib(&measured.proxy, &measured.target, idle).await?;
    }
    let carried_gb = bytes as f64 * ROUNDS as f64 / GB as f64;
    let mut rows = all.iter().map(|measured| measured.rows(tunnels * ROUNDS, carried_gb, idle));
    let own = rows.next().context("nothing was measured")?;
    let peers: Vec<Rows> = rows.collect();
    let squid = peers.iter().find(|rows| rows.tunnel.what.starts_with("squid"));
    report.figures(own.with_goals(squid));
    report.floors(peers.into_iter().flat_map(Rows::all));
    drop(all);
    report.figures(intercepted(&program, resolver.address(), counts).await?);
    Ok(())
}

impl Measured {
    fn of(proxy: RunningProxy, allowed: &Allowed) -> Result<Self> {
        let target = Target::new(proxy.address, &allowed.host, allowed.port);
        let resident_kib = proxy.resident_kib()?;
        Ok(Self {
            proxy,
            target,
            resident_kib,
            tunnel_cpu: Duration::ZERO,
            tunnel_time: Duration::ZERO,
            gb_cpu: Duration::ZERO,
            idle_kib: 0.0,
        })
    }

    async fn take_turn(&mut self, tunnels: usize, bytes: u64, counts: bool) -> Result<()> {
        let before = self.proxy.cpu_time()?;
        let took = self.target.tunnels(tunnels).await?;
        let between = self.proxy.cpu_time()?;
        self.target.relay(bytes).await?;
        let after = self.proxy.cpu_time()?;
        if counts {
            self.tunnel_cpu += between.saturating_sub(before);
            self.tunnel_time += took;
            self.gb_cpu += after.saturating_sub(between);
        }
        Ok(())
    }

    fn rows(&self, tunnels: usize, gigabytes: f64, idle: usize) -> Rows {
        let name = self.proxy.name.trim_end_matches(|letter: char| !letter.is_ascii_alphabetic());
        let ms = |time: Duration, count: f64| time.as_secs_f64() * 1e3 / count;
        let row = |what: &str, unit, value, count| Row::mean(&format!("{name}: {what}"), unit, value, count);
        let per_second = tunnels as f64 / self.tunnel_time.as_secs_f64();
        let took = ms(self.tunnel_time, tunnels as f64);
        Rows {
            tunnel: row(
                "processor per tunnel",
                Unit::Milliseconds,
                ms(self.tunnel_cpu, tunnels as f64),
                tunnels,
            ),
            pace: row(&format!("a tunnel, {LANES} at a time"), Unit::Milliseconds, took, tunnels)
                .note(format!("{per_second:.0} tunnels a second")),
            gigabyte: row("processor per GB", Unit::Milliseconds, ms(self.gb_cpu, gigabytes), ROUNDS),
            resident: row("resident, nothing done yet", Unit::Kibibytes, self.resident_kib, 1),
            idle: row("an idle tunnel", Unit::Kibibytes, self.idle_kib, idle),
        }
    }
}

/// What is measured of every proxy.
struct Rows {
    tunnel: Row,
    pace: Row,
    gigabyte: Row,
    resident: Row,
    idle: Row,
}

impl Rows {
    fn all(self) -> [Row; 5] {
        [self.tunnel, self.pace, self.gigabyte, self.resident, self.idle]
    }

    /// Ours, beside squid where it was measured.
    fn with_goals(self, squid: Option<&Self>) -> [Row; 5] {
        let half = squid.map_or(f64::INFINITY, |squid| TUNNEL_TIMES_SQUID_MAX * squid.tunnel.p50);
        let to_the_microsecond = |ms: f64| (ms * 1e3).round() / 1e3;
        let rows = Self {
            tunnel: self.tunnel.goal(to_the_microsecond(half.min(TUNNEL_MS_MAX))),
            pace: squid.map_or(self.pace.clone(), |squid| self.pace.goal(to_the_microsecond(squid.pace.p50))),
            gigabyte: self.gigabyte.goal(GB_MS_MAX),
            resident: self.resident.goal(RESIDENT_KIB_MAX),
            idle: self.idle.goal(IDLE_TUNNEL_KIB_MAX),
        };
        let Some(squid) = squid else { return rows.all() };
        Self {
            tunnel: rows.tunnel.above(&[&squid.tunnel]),
            pace: rows.pace.above(&[&squid.pace]),
            gigabyte: rows.gigabyte.above(&[&squid.gigabyte]),
            resident: rows.resident.above(&[&squid.resident]),
            idle: rows.idle.above(&[&squid.idle]),
        }
        .all()
    }
}

/// What each of so many tunnels adds that have carried a byte and are left alone.
async fn idle_kib(proxy: &RunningProxy, target: &Target, count: usize) -> Result<f64> {
    let before = proxy.resident_kib()?;
    let mut tunnels = Vec::with_capacity(count);
    while tunnels.len() < count {
        let more = (0..IDLE_AT_ONCE.min(count - tunnels.len())).map(|_| target.fetch(1));
        tunnels.extend(futures_util::future::try_join_all(more).await.context("opening idle tunnels")?);
    }
    Ok((proxy.resident_kib()? - before) / count as f64)
}

/// What it costs to open TLS: an authority's check and two handshakes for a tunnel, decryption and encryption twice for a request.
async fn intercepted(program: &Path, resolver: SocketAddr, counts: &Counts) -> Result<[Row; 2]> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{ANSWER}", ANSWER.len());
    let origin = TlsOrigin::start(&[HOST], move |_| head.clone().into_bytes()).await;
    let origin = origin.map_err(|error| anyhow::anyhow!(error)).context("starting a TLS origin")?;
    let folder = std::env::temp_dir().join(format!("palisade-bench-tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder).context("a folder for authorities")?;
    let authority = folder.join("origin.pem");
    std::fs::write(&authority, origin.authority_pem()).context("writing the origin's authority")?;
    let allowed = Allowed { host: HOST.to_owned(), port: origin.port(), names: Vec::new() };
    let proxy = Ours { program, resolver, intercept: Some(&authority) }.start(&allowed)?;
    let target = Target::new(proxy.address, HOST, origin.port());
    let clients = Intercepted::new(target, &Ours::trust_anchor(&authority))?;
    std::fs::remove_dir_all(&folder).context("removing the authorities")?;

    let tunnels = counts.requests.div_ceil(ROUNDS);
    clients.tunnels(tunnels / ROUNDS).await?;
    let before = proxy.cpu_time()?;
    clients.tunnels(tunnels).await?;
    let tunnel = proxy.cpu_time()?.saturating_sub(before);

    let mut open = clients.open_all().await?;
    let before = proxy.cpu_time()?;
    clients.requests(&mut open, counts.requests).await?;
    let request = proxy.cpu_time()?.saturating_sub(before);
    let ms = |time: Duration, count: usize| time.as_secs_f64() * 1e3 / count as f64;
    let row = |what, time, count| Row::mean(what, Unit::Milliseconds, ms(time, count), count);
    Ok([
        row("palisade: processor per intercepted request", request, counts.requests)
            .goal(INTERCEPTED_REQUEST_MS_MAX),
        row("palisade: processor per intercepted tunnel", tunnel, tunnels).goal(INTERCEPTED_TUNNEL_MS_MAX),
    ])
}

/// Lets this process and what it starts have as many descriptors as they may; how many idle tunnels that is enough for.
fn raise_descriptors() -> Result<usize> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).context("raising the limit of descriptors")?;
    let tunnels = limit.maximum.map_or(IDLE_MAX, |most| most.saturating_sub(DESCRIPTORS_LEFT) / 2);
    Ok(usize::try_from(tunnels.min(IDLE_MAX)).unwrap_or_default())
}
