//! `cargo xtask scoreboard`: the raw probes of `testkit`, sent to the egress proxy and to others, each with an allowlist of one host and one
//! port. Writes docs/egress-scoreboard.md. It judges by what reached a recording origin, never by what a proxy said.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, Result, ensure};
use palisade_testkit::probes::{CONTROLS, HOST, Origins, Outcome, PROBES, Probe, send};
use palisade_testkit::resolver::FakeResolver;

use crate::build::{root, say};
use crate::peers::{Allowed, Ours, RunningProxy, build_ours, sandbox_runtime, squid, tinyproxy};

const FILE: &str = "docs/egress-scoreboard.md";
/// Names that lead to loopback beside the allowed one: whoever lets them through reaches an origin.
const NAMES: [&str; 3] = ["evil.test", "evillocalhost", "localhost.evil.test"];

/// One proxy's outcomes, or why there are none.
struct Column {
    name: String,
    outcomes: Result<Vec<Outcome>>,
}

pub(crate) fn scoreboard() -> Result<()> {
    let program = build_ours()?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the executor")?;
    let columns = runtime.block_on(async {
        let origins = Origins::start().await.context("starting the origins")?;
        let resolver = FakeResolver::start().await.context("starting a name server")?;
        let names: Vec<String> = NAMES.map(str::to_owned).into();
        for name in names.iter().map(String::as_str).chain([HOST]) {
            resolver.set_addresses(name, &["127.0.0.1"]);
        }
        let allowed = Allowed { host: HOST.to_owned(), port: origins.allowed.port(), names };
        let ours = Ours { program: &program, resolver: resolver.address(), intercept: None };
        let proxies = [
            ("palisade", ours.start(&allowed)),
            ("squid", squid(&allowed)),
            ("tinyproxy", tinyproxy(&allowed)),
            ("sandbox-runtime", sandbox_runtime(&allowed)),
        ];
        let mut columns = Vec::with_capacity(proxies.len());
        for (name, proxy) in proxies {
            columns.push(column(name, proxy, &origins).await);
        }
        anyhow::Ok(columns)
    })?;
    let file = root().join(FILE);
    fs::write(&file, text(&columns)).with_context(|| format!("cannot write {}", file.display()))?;
    say(&format!("wrote {FILE}"));
    Ok(())
}

async fn column(name: &str, proxy: Result<RunningProxy>, origins: &Origins) -> Column {
    match proxy {
        Ok(proxy) => {
            say(&format!("scoreboard: {}", proxy.name));
            Column { name: proxy.name.clone(), outcomes: probe(&proxy, origins).await }
        }
        Err(error) => Column { name: name.to_owned(), outcomes: Err(error) },
    }
}

async fn probe(proxy: &RunningProxy, origins: &Origins) -> Result<Vec<Outcome>> {
    let ask = async |probe: &Probe| {
        send(proxy.address, origins, probe).await.with_context(|| format!("sending {}", probe.sends))
    };
    for control in &CONTROLS {
        let outcome = ask(control).await?;
        ensure!(outcome == Outcome::LetThrough, "it refuses {}", control.sends);
    }
    let mut outcomes = Vec::with_capacity(PROBES.len());
    for probe in &PROBES {
        outcomes.push(ask(probe).await?);
    }
    Ok(outcomes)
}

const INTRODUCTION: &str = "\
# Raw probes of forward proxies

`cargo xtask scoreboard` writes this file. Each proxy runs on loopback with an allowlist of exactly one host and one port
(`localhost:PORT`), and a recording origin stands at that port and at another. The probes are bytes, written as they stand here and in
`crates/testkit/src/probes.rs`; they are ways in which some proxy was got through, numbered as in `crates/egress/CASES.md`. The same list is a
test of ours.

✔ nothing reached an origin · ✔ norm. what reached it was not what was tried any more · ✘ let through · — not applicable: the proxy
could not be tried. What a proxy answers does not count. Each lets the allowed tunnel and the allowed request through.

";

fn text(columns: &[Column]) -> String {
    let mut text = INTRODUCTION.to_owned();
    let names = columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(" | ");
    // Writing to a String does not fail.
    let _ = writeln!(
        text,
        "Measured on {}.\n\n| case | sent | {names} |\n| --- | --- |{}",
        today(),
        " --- |".repeat(columns.len())
    );
    let mut last = "";
    for (at, probe) in PROBES.iter().enumerate() {
        let case = if probe.case == last { "" } else { probe.case };
        last = probe.case;
        let cells: Vec<&str> = columns.iter().map(|column| cell(column, at)).collect();
        let _ = writeln!(text, "| {case} | {} | {} |", probe.sends, cells.join(" | "));
    }
    let totals: Vec<String> = columns.iter().map(total).collect();
    let _ = writeln!(text, "| | **held, of {}** | {} |\n", PROBES.len(), totals.join(" | "));
    text += CONFIGURATIONS;
    for column in columns {
        if let Err(error) = &column.outcomes {
            let _ = writeln!(text, "\n{} could not be tried: {error:#}", column.name);
        }
    }
    text
}

const CONFIGURATIONS: &str = "\
How each is set up (`xtask/src/peers`): ours is `crates/egress/examples/proxy.rs`, the whole pipeline behind one port. squid has one
`http_access allow` of a `dstdomain -n` and a `port`, tinyproxy a `Filter` with `FilterDefaultDeny` and a `ConnectPort`; both are Debian's.
sandbox-runtime is npm's package as a proxy alone: `createHttpProxyServer` with the checks of the host that its sandbox manager makes by
default, and without TLS termination. Its stricter options, `requireHostMatch` and `refuseOpaqueTunnels`, are off by default. `/etc/hosts`
of each peer, and the name server of ours, lead every name above to loopback, so that a name which passes is seen to.
";

fn cell(column: &Column, at: usize) -> &'static str {
    match column.outcomes.as_ref().map(|outcomes| outcomes[at]) {
        Ok(Outcome::Refused) => "✔",
        Ok(Outcome::Normalised) => "✔ norm.",
        Ok(Outcome::LetThrough) => "✘",
        Err(_) => "—",
    }
}

fn total(column: &Column) -> String {
    let held = |outcomes: &Vec<Outcome>| {
        outcomes.iter().filter(|outcome| **outcome != Outcome::LetThrough).count().to_string()
    };
    column.outcomes.as_ref().map_or_else(|_| "—".to_owned(), held)
}

/// The date, without a calendar of our own.
fn today() -> String {
    let output = std::process::Command::new("date").args(["-u", "+%-d %B %Y"]).env("LC_ALL", "C").output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}
