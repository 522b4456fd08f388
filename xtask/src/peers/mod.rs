//! Forward proxies as processes of their own, ours and others', each with an allowlist of one host and one port and an access log: what the
//! bench and the scoreboard compare. It ends only what it started.

mod bare;
mod debian;
mod envoy;
mod ours;
mod sandbox_runtime;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal};

pub(crate) use bare::bare;
pub(crate) use debian::{squid, tinyproxy};
pub(crate) use envoy::envoy;
pub(crate) use ours::{Ours, build_ours};
pub(crate) use sandbox_runtime::{
    PACKAGE as SANDBOX_RUNTIME, installed as sandbox_runtime_folder, sandbox_runtime,
};

use crate::process;

/// Long enough to listen, or to say why not, on a busy machine.
const START_MAX: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(10);
/// Descriptors that a peer may have; a tunnel takes two.
pub(crate) const DESCRIPTORS_MAX: u64 = 20_500;

/// The one host and port that a proxy lets through.
pub(crate) struct Allowed {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Names that lead to loopback beside it, for whoever resolves by the system.
    pub(crate) names: Vec<String>,
}

/// A proxy that listens. It ends with the value, and what it started too.
pub(crate) struct RunningProxy {
    /// Its name and version.
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    child: Child,
    /// Where it keeps what it writes.
    folder: PathBuf,
}

impl RunningProxy {
    /// User and system time so far, of it and of what it started.
    pub(crate) fn cpu_time(&self) -> Result<Duration> {
        self.processes()?.into_iter().map(process::cpu_time).sum()
    }

    /// What it holds of memory, all its processes together.
    pub(crate) fn resident_kib(&self) -> Result<f64> {
        self.processes()?.into_iter().map(process::resident_kib).sum()
    }

    fn processes(&self) -> Result<Vec<Pid>> {
        let own = Pid::from_child(&self.child);
        let mut all = process::descendants(own)?;
        all.push(own);
        Ok(all)
    }
}

impl Drop for RunningProxy {
    fn drop(&mut self) {
        // Its group is its own; what is left of it then is a folder in /tmp.
        let _ = rustix::process::kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// What a proxy is started from.
struct Start {
    name: String,
    folder: PathBuf,
    address: SocketAddr,
    command: Command,
}

impl Start {
    /// Starts it and waits until it takes connections.
    fn run(self) -> Result<RunningProxy> {
        let Self { name, folder, address, mut command } = self;
        let output = fs::File::create(folder.join("output")).context("a file for a proxy's output")?;
        let errors = output.try_clone().context("a file for a proxy's output")?;
        let child = command
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {name}"))?;
        let mut proxy = RunningProxy { name, address, child, folder };
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            let said = || fs::read_to_string(proxy.folder.join("output")).unwrap_or_default();
            if let Some(status) = proxy.child.try_wait().context("looking at a proxy")? {
                bail!("{} ended with {status}: {}", proxy.name, said());
            }
            ensure!(began.elapsed() < START_MAX, "{} does not listen: {}", proxy.name, said());
            std::thread::sleep(PAUSE);
        }
        Ok(proxy)
    }
}

/// A folder that a proxy may write to whoever it makes itself.
fn folder(name: &str) -> Result<PathBuf> {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Relaxed);
    let folder = std::env::temp_dir().join(format!("palisade-{name}-{}-{number}", std::process::id()));
    fs::create_dir_all(&folder).context("making a proxy's folder")?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).context("opening a proxy's folder")?;
    Ok(folder)
}

fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("looking for a free port")?;
    listener.local_addr().context("looking for a free port")
}

/// A command that sees these names in its own `/etc/hosts`, and keeps its process id.
fn with_hosts(folder: &Path, allowed: &Allowed, program: &Path) -> Result<Command> {
    ensure!(rustix::process::geteuid().is_root(), "only root can give a peer a hosts file of its own");
    let names = [std::slice::from_ref(&allowed.host), &allowed.names].concat().join(" ");
    let hosts = folder.join("hosts");
    fs::write(&hosts, format!("127.0.0.1 localhost {names}\n")).context("writing a hosts file")?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""]);
    command.arg(&hosts).arg(program);
    Ok(command)
}

/// What a program says of its version: the first numbers with points between them.
fn version(command: &mut Command) -> String {
    let output = command.output().map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
    let text = String::from_utf8_lossy(&output).into_owned();
    let mut words = text.split(|letter: char| !letter.is_ascii_digit() && letter != '.');
    let version = words.find(|word| word.trim_matches('.').contains('.'));
    version.unwrap_or("of unknown version").to_owned()
}
