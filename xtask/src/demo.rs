//! `cargo xtask demo`: from a fresh Debian machine with Rust to a deck on the disk, in one command.
//!
//! The steps stand in `demo` in their order. It installs nothing without saying what, overwrites nothing of the
//! person's, deletes only a data directory that it made itself, and leaves no server running.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, geteuid, kill_process};

use crate::build::{self, BuildArgs};

/// Where `palisade serve` looks for the Python packages unless configured otherwise.
const RUNTIME_PREFIX: &str = "/opt/palisade/runtime";
/// Under whom `palisade serve` runs sandboxes when it is started as root.
const SANDBOX_UID: &str = "10001";
/// From the start of the server to its first ready answer; a first start unpacks the skills.
const START_LIMIT: Duration = Duration::from_secs(60);
/// From SIGTERM to the end; draining gives running turns 30 s.
const STOP_LIMIT: Duration = Duration::from_secs(40);
/// Between two looks at something that is about to change.
const POLL: Duration = Duration::from_millis(50);
/// Of the server's log, shown when it failed.
const LOG_LINES_SHOWN: usize = 15;
/// The figures are the request's own: the built-in planner invents none.
const TOPIC: &str = "a neighbourhood library: visitors 120, 180, 260 for 2023–2025";

/// Install what is missing, build, start a server, and have its agent build a slide deck
#[derive(Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// What the deck is about
    #[arg(long, value_name = "TOPIC", default_value = TOPIC)]
    topic: String,
    /// Keep the server's data directory; one that was there before is kept anyway
    #[arg(long)]
    keep_data: bool,
}

/// The newcomer's first command.
pub(crate) fn demo(args: DemoArgs) -> Result<()> {
    let root = build::root();
    step(1, "what this machine has")?;
    provide_runtime(&root)?;
    try_cage()?;
    step(2, "building the release binaries (some minutes the first time, seconds later)")?;
    let palisade = build::build(&BuildArgs { debug: false })?.palisade;
    let data = DataDir::choose(&root, args.keep_data);
    step(3, &format!("starting the server; its data is in {}", data.path.display()))?;
    let mut server = Server::start(&palisade, &data.path, &root)?;
    say(&format!(
        "ready at {}; nothing is configured, so the built-in demo planner stands in for a model",
        server.url
    ))?;
    step(4, &format!("palisade run \"Build a deck on {}\"", args.topic))?;
    let out = root.join("demo-output");
    let before = decks(&out);
    let ran = run_client(&palisade, &server, &data.path, &out, &args.topic);
    step(5, "stopping the server")?;
    let stopped = server.stop();
    ran?;
    stopped?;
    let made: Vec<PathBuf> = decks(&out).into_iter().filter(|deck| !before.contains(deck)).collect();
    ensure!(!made.is_empty(), "the turn ended well, but no new .pptx is in {}", out.display());
    for deck in made {
        say(&format!("the deck: {}", deck.display()))?;
    }
    say(&format!("next: {} serve --help, and the README", palisade.display()))
}

/// Debian's programs and the Python packages, by the one script that knows them.
fn provide_runtime(root: &Path) -> Result<()> {
    let script = root.join("deploy/runtime.sh");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&script);
        command.args(["--prefix", RUNTIME_PREFIX]).args(arguments);
        command
    };
    let check = run(&["--check"]).output().with_context(|| format!("cannot start {}", script.display()))?;
    if check.status.success() {
        return say("programs and Python packages: all there");
    }
    let missing = String::from_utf8_lossy(&check.stdout);
    let missing = missing.trim().trim_start_matches("runtime: missing:").trim();
    ensure!(
        !missing.is_empty(),
        "{} --check failed: {}",
        script.display(),
        String::from_utf8_lossy(&check.stderr)
    );
    say(&format!("missing: {missing}"))?;
    let by_hand = format!("{} --prefix {RUNTIME_PREFIX}", script.display());
    let status = if geteuid().is_root() {
        say(&format!("installing it now with {by_hand}"))?;
        run(&[]).status()
    } else if may_use_sudo() {
        say(&format!("installing it now with sudo {by_hand}"))?;
        Command::new("sudo").arg("--").arg(&script).args(["--prefix", RUNTIME_PREFIX]).status()
    } else {
        bail!(
            "installing this needs root. Run the following as root, then start the demo again:\n\n  {by_hand}\n"
        );
    };
    let status = status.with_context(|| format!("cannot start {by_hand}"))?;
    ensure!(
        status.success(),
        "the installation failed ({status}); {by_hand} can be run by hand and repeated"
    );
    Ok(())
}

/// Through a terminal, where it may ask, or where it need not.
fn may_use_sudo() -> bool {
    use std::io::IsTerminal as _;
    let quiet = |arguments: &[&str]| {
        let mut command = Command::new("sudo");
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    quiet(&["-n", "true"]) || (std::io::stdin().is_terminal() && quiet(&["--version"]))
}

/// A sandbox in miniature, as the uid that will make the real ones.
fn try_cage() -> Result<()> {
    let mut command = if geteuid().is_root() {
        let mut command = Command::new("setpriv");
        let (uid, gid) = (format!("--reuid={SANDBOX_UID}"), format!("--regid={SANDBOX_UID}"));
        command.args([&uid, &gid, "--clear-groups", "bwrap"]);
        command
    } else {
        Command::new("bwrap")
    };
    command.args(["--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--", "true"]);
    let tried = command.current_dir("/").stdin(Stdio::null()).output().context("cannot start bwrap")?;
    if tried.status.success() {
        return say("sandboxes: user namespaces and bubblewrap work");
    }
    let told = String::from_utf8_lossy(&tried.stderr).trim().to_owned();
    bail!("a trial sandbox could not be made: {told}\n\nhint: {}", cage_hint(&told));
}

fn cage_hint(told: &str) -> &'static str {
    let sysctl =
        |name: &str| fs::read_to_string(format!("/proc/sys/{name}")).unwrap_or_default().trim().to_owned();
    if sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1" {
        return "AppArmor keeps user namespaces to itself here: \
                `sysctl kernel.apparmor_restrict_unprivileged_userns=0` as root allows them";
    }
    if sysctl("kernel/unprivileged_userns_clone") == "0" || sysctl("user/max_user_namespaces") == "0" {
        return "user namespaces are switched off: `sysctl kernel.unprivileged_userns_clone=1 \
                user.max_user_namespaces=15000` as root allows them";
    }
    if told.contains("/proc") || told.contains("proc on") {
        return "this looks like a container with a masked /proc; Docker needs `--security-opt systempaths=unconfined`, \
                and a seccomp profile that allows user namespaces";
    }
    "inside a container, user namespaces must be allowed by its seccomp profile; a plain Debian 12 machine allows them"
}

/// Where the server keeps its data.
struct DataDir {
    path: PathBuf,
    /// It is the demo's own, so it goes when the demo ends.
    goes: bool,
}

impl DataDir {
    /// Under a root-only home the server's own uid could not reach it, hence the other place for root.
    fn choose(root: &Path, keep: bool) -> Self {
        let path =
            if geteuid().is_root() { "/var/lib/palisade-demo".into() } else { root.join("palisade-data") };
        let goes = !keep && !path.exists();
        Self { path, goes }
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        if self.goes
            && let Err(error) = fs::remove_dir_all(&self.path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            // Nobody to hand it to here, and the demo's own end matters more.
            let _ = say(&format!("warning: {} could not be removed: {error}", self.path.display()));
        }
    }
}

/// `palisade serve`, stopped at the latest when this goes.
struct Server {
    child: Child,
    url: String,
    log: PathBuf,
}

impl Server {
    fn start(palisade: &Path, data: &Path, root: &Path) -> Result<Self> {
        let log = root.join("target/demo-serve.log");
        fs::create_dir_all(root.join("target")).context("cannot make target/")?;
        let log_file = fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new(palisade);
        command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(data);
        command.current_dir(root).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log_file);
        let child = command.spawn().with_context(|| format!("cannot start {}", palisade.display()))?;
        let mut server = Self { child, url: String::new(), log };
        let until = Instant::now() + START_LIMIT;
        let stdout = server.child.stdout.take().context("the server has no stdout")?;
        let started = endpoint(stdout, until).and_then(|url| {
            server.url = url;
            server.wait_until_ready(until)
        });
        started.with_context(|| {
            format!("the server did not start; the end of {}:\n{}", server.log.display(), server.log_end())
        })?;
        Ok(server)
    }

    fn wait_until_ready(&mut self, until: Instant) -> Result<()> {
        let mut last = String::new();
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended: {status}");
            }
            match ready(&self.url) {
                Ok(answer) if answer.split_ascii_whitespace().nth(1) == Some("200") => return Ok(()),
                Ok(answer) => last = answer,
                Err(error) => last = format!("{error:#}"),
            }
            std::thread::sleep(POLL);
        }
        bail!("{}/ready did not say 200 within {} s, but: {last}", self.url, START_LIMIT.as_secs())
    }

    /// SIGTERM, and what the server makes of it.
    fn stop(&mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).context("cannot stop the server")?;
        let until = Instant::now() + STOP_LIMIT;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "the server ended with {status}; its log:\n{}", self.log_end());
                return Ok(());
            }
            std::thread::sleep(POLL);
        }
        bail!(
            "the server did not end within {} s of SIGTERM; its log:\n{}",
            STOP_LIMIT.as_secs(),
            self.log_end()
        )
    }

    fn log_end(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail when it has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address in the line that the server prints when it listens; the rest of its output is read and dropped.
fn endpoint(stdout: ChildStdout, until: Instant) -> Result<String> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            // Nobody listens after the address is known, and the pipe must stay empty all the same.
            let _ = sender.send(line);
        }
    });
    loop {
        match lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                if let Some(at) = line.find("listening on http://") {
                    return Ok(line[at + "listening on ".len()..].trim().to_owned());
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                bail!("it printed no address within {} s", START_LIMIT.as_secs())
            }
            Err(RecvTimeoutError::Disconnected) => bail!("it ended before it listened"),
        }
    }
}

/// The head of the answer of `GET /ready`.
fn ready(url: &str) -> Result<String> {
    let address = url.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(
        format!("GET /ready HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut answer = Vec::new();
    stream.take(4096).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn run_client(palisade: &Path, server: &Server, data: &Path, out: &Path, topic: &str) -> Result<()> {
    let mut command = Command::new(palisade);
    command.arg("run").arg(format!("Build a deck on {topic}"));
    command.args(["--url", &server.url]).arg("--data-dir").arg(data).arg("--out").arg(out);
    // A key in the environment is another server's.
    command.env_remove("POKEE_KEY").env_remove("POKEE_API");
    let status: ExitStatus = command.status().context("cannot start the client")?;
    ensure!(
        status.success(),
        "`palisade run` ended with {status}; the server's log is {}",
        server.log.display()
    );
    Ok(())
}

/// The decks that lie in a folder; none when there is no folder.
fn decks(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "pptx")).collect()
}

fn step(number: usize, what: &str) -> Result<()> {
    say(&format!("[{number}/5] {what}"))
}

fn say(what: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "demo: {what}").and_then(|()| stdout.flush()).context("cannot write to stdout")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(script: &str) -> (Child, ChildStdout) {
        let mut child = Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        (child, stdout)
    }

    #[test]
    fn the_address_is_found_in_what_the_server_says() {
        let soon = || Instant::now() + Duration::from_secs(20);
        let (mut child, stdout) = says("echo hello; echo 'listening on http://127.0.0.1:4711'; echo key");
        assert_eq!(endpoint(stdout, soon()).unwrap(), "http://127.0.0.1:4711");
        child.wait().unwrap();
        let (mut child, stdout) = says("echo hello");
        assert_eq!(endpoint(stdout, soon()).unwrap_err().to_string(), "it ended before it listened");
        child.wait().unwrap();
        let (mut child, stdout) = says("exec cat");
        assert!(endpoint(stdout, Instant::now()).unwrap_err().to_string().contains("no address"));
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn only_a_folder_of_its_own_goes() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("data");
        fs::create_dir(&path).unwrap();
        drop(DataDir { path: path.clone(), goes: false });
        assert!(path.exists());
        drop(DataDir { path: path.clone(), goes: true });
        assert!(!path.exists());
    }

    #[test]
    fn decks_are_found_by_their_ending() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(decks(&folder.path().join("missing")), Vec::<PathBuf>::new());
        fs::write(folder.path().join("a.pptx"), "").unwrap();
        fs::write(folder.path().join("a.json"), "").unwrap();
        assert_eq!(decks(folder.path()), [folder.path().join("a.pptx")]);
    }
}
