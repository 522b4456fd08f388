//! What the same work costs without Palisade: the least that the figures could be.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use http::Method;
use palisade_testkit::Server;

use super::row::Row;

/// What one delta's row holds, roughly: turn, number, kind, data.
const EVENT_BYTES: usize = 160;
/// Under whom `palisade serve` runs sandboxes when it is started as root.
pub(super) const SANDBOX_UID: u32 = 10_001;

/// An event's bytes appended to a file and synced, on the disk that holds the server's data.
pub(super) struct Append {
    file: File,
}

impl Append {
    pub(super) fn new(folder: &Path) -> Result<Self> {
        let path = folder.join("floor");
        let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { file })
    }

    pub(super) fn once(&mut self) -> Result<Duration> {
        let began = Instant::now();
        self.file.write_all(&[b'x'; EVENT_BYTES]).context("appending")?;
        self.file.sync_data().context("syncing")?;
        Ok(began.elapsed())
    }
}

/// The cheapest request there is.
pub(super) async fn health(server: &Server) -> Duration {
    let began = Instant::now();
    server.json(server.anonymous(Method::GET, "/health")).await;
    began.elapsed()
}

/// The bare command of the tool calls.
pub(super) fn spawn(count: usize) -> Result<Row> {
    Ok(Row::times("bash -c true", timed(count, || run(Command::new("bash").args(["-c", "true"])))?))
}

/// The command in a bubblewrap of nobody's making: namespaces, mounts, and the shell.
pub(super) fn cage(count: usize) -> Result<Row> {
    let samples = timed(count, || {
        let mut command = Command::new("bwrap");
        command.args(["--unshare-all", "--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin"]);
        command.args(["--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64", "--proc", "/proc"]);
        command.args(["--dev", "/dev", "--tmpfs", "/tmp", "--", "bash", "-c", "true"]).current_dir("/");
        run_as_sandbox(&mut command)
    });
    Ok(Row::times("bwrap … bash -c true", samples?))
}

/// Never as root.
pub(super) fn run_as_sandbox(command: &mut Command) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        command.uid(SANDBOX_UID).gid(SANDBOX_UID);
    }
    run(command)
}

fn run(command: &mut Command) -> Result<()> {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null());
    let status = command.status().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    ensure!(status.success(), "{:?} ended with {status}", command.get_program());
    Ok(())
}

pub(super) fn timed(count: usize, mut work: impl FnMut() -> Result<()>) -> Result<Vec<Duration>> {
    let once = |_| {
        let began = Instant::now();
        work().map(|()| began.elapsed())
    };
    (0..count).map(once).collect()
}
