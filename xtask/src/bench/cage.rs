//! The sandbox by itself, without a server around it: from start to ready, a command in a living one, two hundred that
//! idle, and the end of one with many processes. Beside it what peers do for each command.
//!
//! Measured in a child process, because sandboxes are never made as root and a benchmark may be.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use palisade_protocol::{FileAccess, SessionId, TenantName};
use palisade_sandbox::{
    Cgroups, Controller, Limits, Rootfs, RunExit, RunRequest, Sandbox, SandboxConfig, SandboxFactory,
    SandboxSpec,
};
use serde_json::{Value, json};

use super::floor::{self, SANDBOX_UID};
use super::row::{Row, Unit};
use crate::build::{run, say};
use crate::peers::{SANDBOX_RUNTIME, sandbox_runtime_folder};
use crate::test::install;

/// Processes of the sandbox that is killed.
const PROCESSES: usize = 64;
/// Long enough for anything here.
const COMMAND_MS: u64 = 60_000;

/// What the child is told, and nobody else has a use for.
#[derive(Debug, clap::Args)]
pub(crate) struct CageArgs {
    /// The hand
    hand: PathBuf,
    /// How many starts, and how many commands
    count: usize,
    /// How many sandboxes idle at once
    idle: usize,
}

/// The rows, with `spawn` and `cage` for floors.
pub(super) fn measure(hand: &Path, count: usize, idle: usize, spawn: &Row, cage: &Row) -> Result<Vec<Row>> {
    let mut child = Command::new(std::env::current_exe().context("finding this program")?);
    child.arg("bench-cage").arg(hand).args([count.to_string(), idle.to_string()]);
    let output = child.stderr(Stdio::inherit()).output().context("starting the part that gives up root")?;
    ensure!(output.status.success(), "the sandboxes' part ended with {}", output.status);
    let measured: Value = serde_json::from_slice(&output.stdout).context("reading its figures")?;
    let samples = |name: &str| -> Vec<Duration> {
        let all = measured[name].as_array().into_iter().flatten().filter_map(Value::as_f64);
        all.map(Duration::from_secs_f64).collect()
    };
    let bare = Duration::from_secs_f64(spawn.p50 / 1e3);
    let over = samples("warm").into_iter().map(|time| time.saturating_sub(bare)).collect();
    let total_ms = samples("idle").first().map_or(0.0, |time| time.as_secs_f64() * 1e3);
    let mut rows = vec![
        Row::times("sandbox: start to ready", samples("start")).goal(12.0).goal_p99(25.0).above(&[cage]),
        Row::times("sandbox: a command, over a plain one", over).goal(1.5),
        Row::mean(&format!("sandbox: {idle} made, one after the other"), Unit::Milliseconds, total_ms, idle)
            .goal(3_000.0 * idle as f64 / 200.0),
        Row::times(&format!("sandbox: the end of {PROCESSES} processes"), samples("kill")).goal(100.0),
    ];
    if let Some(kib) = measured["idle_kib"].as_f64() {
        let row = Row::mean("sandbox: memory of an idle one", Unit::Kibibytes, kib, idle).goal(0.8 * 1024.0);
        rows.push(
            row.note("what its memory control group is charged with, the kernel's own included".into()),
        );
    }
    Ok(rows)
}

/// `@anthropic-ai/sandbox-runtime` for each command, where it can be had.
pub(super) fn peer(count: usize) -> Option<Row> {
    let measured = install_peer().and_then(|folder| {
        let program = folder.join("node_modules").join(SANDBOX_RUNTIME).join("dist/cli.js");
        let samples = floor::timed(count, || {
            let mut command = Command::new("node");
            command.arg(&program).args(["bash", "-c", "true"]).env("HOME", "/tmp").current_dir("/tmp");
            floor::run_as_sandbox(&mut command)
        });
        std::fs::remove_dir_all(&folder).context("removing the peer's copy")?;
        Ok(Row::times("sandbox-runtime … bash -c true", samples?))
    });
    match measured {
        Ok(row) => Some(row),
        Err(error) => {
            say(&format!("bench: the peer sandbox-runtime is not measured: {error:#}"));
            None
        }
    }
}

fn install_peer() -> Result<PathBuf> {
    for (program, package) in [("socat", "socat"), ("rg", "ripgrep")] {
        if !is_on_path(program) {
            install(package, "the comparison")?;
        }
    }
    // Where the uid can look, whatever folders lie above.
    let reachable = std::env::temp_dir().join(format!("palisade-bench-peers-{}", std::process::id()));
    run(Command::new("cp").arg("-r").arg(sandbox_runtime_folder()?).arg(&reachable))?;
    run(Command::new("chmod").args(["-R", "a+rX"]).arg(&reachable))?;
    Ok(reachable)
}

fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// The child: gives up root, measures, prints JSON.
#[expect(clippy::print_stdout, reason = "this is what the parent reads")]
pub(crate) fn child(args: &CageArgs) -> Result<()> {
    let folder = std::env::temp_dir().join(format!("palisade-bench-cage-{}", std::process::id()));
    let making = || format!("making {}", folder.display());
    std::fs::create_dir(&folder).with_context(making)?;
    let [hand, home, workspace] = ["palisade-hand", "home", "workspace"].map(|name| folder.join(name));
    std::fs::copy(&args.hand, &hand).with_context(making)?;
    for folder in [&home, &workspace] {
        std::fs::create_dir(folder).with_context(making)?;
    }
    let cgroups = give_up_root(&[&folder, &home, &workspace, &hand])?;
    let config = SandboxConfig {
        hand,
        bwrap: "bwrap".into(),
        rootfs: Rootfs::HostUsr,
        python_packages: None,
        limits: Limits::default(),
        cgroups: cgroups.clone(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let factory = SandboxFactory::new(config)?;
    let measured = runtime.block_on(async {
        let bench = Bench { factory, home, workspace };
        let measured = bench.all(args, &cgroups).await;
        bench.factory.shutdown().await;
        measured
    });
    // What is left of it is in a folder for what is temporary.
    let _ = std::fs::remove_dir_all(&folder);
    println!("{}", measured?);
    Ok(())
}

/// Before the first thread, as the server does it.
fn give_up_root(given: &[&Path]) -> Result<Cgroups> {
    use rustix::process::{Gid, Uid, getuid};
    if !getuid().is_root() {
        return Ok(Cgroups::prepare(getuid().as_raw()));
    }
    let cgroups = Cgroups::prepare(SANDBOX_UID);
    for path in given {
        std::os::unix::fs::chown(path, Some(SANDBOX_UID), Some(SANDBOX_UID))
            .context("giving a folder away")?;
    }
    let (uid, gid) = (Uid::from_raw(SANDBOX_UID), Gid::from_raw(SANDBOX_UID));
    rustix::thread::set_thread_groups(&[]).context("giving up root")?;
    rustix::thread::set_thread_res_gid(gid, gid, gid).context("giving up root")?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).context("giving up root")?;
    Ok(cgroups)
}

struct Bench {
    factory: SandboxFactory,
    home: PathBuf,
    workspace: PathBuf,
}

impl Bench {
    async fn all(&self, args: &CageArgs, cgroups: &Cgroups) -> Result<Value> {
        let mut start = Vec::new();
        for _ in 0..args.count {
            let began = Instant::now();
            let sandbox = self.start().await?;
            start.push(began.elapsed().as_secs_f64());
            sandbox.shutdown().await;
        }
        let sandbox = self.start().await?;
        let mut warm = Vec::new();
        for _ in 0..args.count {
            let began = Instant::now();
            command(&sandbox, "true").await?;
            warm.push(began.elapsed().as_secs_f64());
        }
        sandbox.shutdown().await;
        let mut kill = Vec::new();
        for _ in 0..args.count.div_ceil(10) {
            let sandbox = self.start().await?;
            command(&sandbox, &format!("for i in $(seq {PROCESSES}); do setsid sleep 600 >/dev/null 2>&1 & done; until [ $(pgrep -c -x sleep) = {PROCESSES} ]; do :; done")).await?;
            let began = Instant::now();
            sandbox.shutdown().await;
            kill.push(began.elapsed().as_secs_f64());
        }
        let began = Instant::now();
        let mut idle = Vec::new();
        for _ in 0..args.idle {
            idle.push(self.start().await?);
        }
        let made = began.elapsed().as_secs_f64();
        let kib =
            cgroups.folder(Controller::Memory).map(|folder| charged_kib(&folder, args.idle)).transpose()?;
        for sandbox in idle {
            sandbox.shutdown().await;
        }
        Ok(json!({ "start": start, "warm": warm, "kill": kill, "idle": [made], "idle_kib": kib }))
    }

    async fn start(&self) -> Result<Sandbox> {
        let session = SessionId::from_random([0xbe; 6]);
        let scope = FileAccess::default().scope_for(&session)?;
        let workspace = self.workspace.clone();
        let spec = SandboxSpec {
            tenant: TenantName::parse("bench")?,
            session,
            home: self.home.clone(),
            workspace,
            scope,
            locked: vec![],
            skills: vec![],
            env: vec![],
            proxy: None,
        };
        Ok(self.factory.start(spec).await?)
    }
}

async fn command(sandbox: &Sandbox, text: &str) -> Result<()> {
    let request = RunRequest { command: text.to_owned(), timeout_ms: COMMAND_MS, background: false };
    match sandbox.run(request, |_| {}).await? {
        RunExit::Code(0) => Ok(()),
        other => bail!("{text:?} ended with {other:?}"),
    }
}

/// The mean over the groups of all living sandboxes.
fn charged_kib(folder: &Path, count: usize) -> Result<f64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder).context("reading the control groups")? {
        let group = entry?.path();
        for file in ["memory.usage_in_bytes", "memory.current"] {
            if let Ok(text) = std::fs::read_to_string(group.join(file)) {
                bytes += text.trim().parse::<u64>().unwrap_or(0);
            }
        }
    }
    Ok(bytes as f64 / 1024.0 / count as f64)
}
