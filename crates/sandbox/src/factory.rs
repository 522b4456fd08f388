//! Where sandboxes come from: the checked configuration and the thread that starts them.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use palisade_hand_protocol::CommandLimits;
use rustix::fs::{Access, access};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::spawner::Spawner;
use crate::{Cgroups, Controller, Limits, Sandbox, SandboxError, SandboxSpec};

/// What all sandboxes have in common. This user must be able to reach every path.
#[derive(Debug, Clone)]
pub struct SandboxConfig {
    /// The static binary of `palisade-hand`.
    pub hand: PathBuf,
    /// A path, or a bare name that is looked up on PATH.
    pub bwrap: PathBuf,
    /// The system shown inside.
    pub rootfs: Rootfs,
    /// Shown at `/usr/local/lib/python3.11/dist-packages`.
    pub python_packages: Option<PathBuf>,
    /// What each sandbox may use.
    pub limits: Limits,
    /// Where that is enforced.
    pub cgroups: Cgroups,
}

impl SandboxConfig {
    /// The files in memory: at most half of what there is, so that filling them leaves room for who fills them.
    pub(crate) fn scratch_bytes(&self) -> ScratchBytes {
        const TMP_BYTES: u64 = 256 * 1024 * 1024;
        const SHM_BYTES: u64 = 64 * 1024 * 1024;
        let half = self.limits.memory_bytes / 2;
        ScratchBytes { tmp: TMP_BYTES.min(half / 5 * 4), shm: SHM_BYTES.min(half / 5) }
    }

    /// What stands in for a missing control group.
    pub(crate) fn rlimits(&self) -> Option<CommandLimits> {
        let missing = self.cgroups.missing();
        let stands_in = [Controller::Memory, Controller::Pids].iter().any(|it| missing.contains(it));
        let Limits { memory_bytes, pids, .. } = self.limits;
        stands_in.then_some(CommandLimits { data_bytes: memory_bytes, processes: pids })
    }
}

/// See [`SandboxConfig::scratch_bytes`].
pub(crate) struct ScratchBytes {
    pub(crate) tmp: u64,
    pub(crate) shm: u64,
}

/// The system shown inside, read-only. Its `/usr/local` is always hidden.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rootfs {
    /// The host's own `/usr`.
    HostUsr,
    /// An unpacked image.
    Path(PathBuf),
}

/// Starts sandboxes. Cheap to clone; all clones share one thread.
#[derive(Debug, Clone)]
pub struct SandboxFactory {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: SandboxConfig,
    pub(crate) spawner: Spawner,
    pub(crate) lang: &'static str,
    pub(crate) wardens: TaskTracker,
    pub(crate) stop: CancellationToken,
}

impl SandboxFactory {
    /// Checks the configuration, so that what is missing is told at start-up and by name.
    pub fn new(mut config: SandboxConfig) -> Result<Self, SandboxError> {
        if rustix::process::getuid().is_root() || rustix::process::geteuid().is_root() {
            return Err(SandboxError::RunningAsRoot);
        }
        config.bwrap = find_bwrap(&config.bwrap)?;
        require("hand's binary", &config.hand, Access::EXEC_OK | Access::READ_OK)?;
        if let Some(packages) = &config.python_packages {
            require("Python packages' folder", packages, Access::EXEC_OK | Access::READ_OK)?;
        }
        if let Rootfs::Path(root) = &config.rootfs {
            require("root file system", root, Access::EXEC_OK | Access::READ_OK)?;
        }
        let lang = if has_en_us(&config.rootfs) { "en_US.UTF-8" } else { "C.UTF-8" };
        let spawner = Spawner::start().map_err(SandboxError::at("starting the sandboxes' thread"))?;
        let (wardens, stop) = (TaskTracker::new(), CancellationToken::new());
        Ok(Self { inner: Arc::new(Inner { config, spawner, lang, wardens, stop }) })
    }

    /// A sandbox that has said it is ready, or an error that says why not, within 10 seconds. Dropping the
    /// future ends what was started.
    pub async fn start(&self, spec: SandboxSpec) -> Result<Sandbox, SandboxError> {
        Sandbox::start(self, spec).await
    }

    /// Ends every sandbox and waits until all their processes are gone. None can be started afterwards.
    pub async fn shutdown(&self) {
        self.inner.stop.cancel();
        self.inner.wardens.close();
        self.inner.wardens.wait().await;
    }
}

fn require(what: &'static str, path: &Path, mode: Access) -> Result<(), SandboxError> {
    access(path, mode).map_err(|e| SandboxError::Unreachable {
        what,
        path: path.to_owned(),
        source: e.into(),
    })
}

fn find_bwrap(name: &Path) -> Result<PathBuf, SandboxError> {
    if name.as_os_str().as_bytes().contains(&b'/') {
        let fits = access(name, Access::EXEC_OK).is_ok();
        return if fits {
            Ok(name.to_owned())
        } else {
            Err(SandboxError::BwrapMissing(name.display().to_string()))
        };
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    let candidates =
        std::env::split_paths(&path).filter(|folder| folder.is_absolute()).map(|folder| folder.join(name));
    let found = candidates.into_iter().find(|candidate| access(candidate, Access::EXEC_OK).is_ok());
    found.ok_or_else(|| SandboxError::BwrapMissing(format!("no `{}` on PATH", name.display())))
}

/// glibc keeps a locale in its own folder or in one archive, whose table of names stands near its start.
fn has_en_us(rootfs: &Rootfs) -> bool {
    const ARCHIVE_HEAD_BYTES: u64 = 1024 * 1024;
    let root = match rootfs {
        Rootfs::HostUsr => Path::new("/"),
        Rootfs::Path(path) => path,
    };
    let locales = root.join("usr/lib/locale");
    let in_archive = || {
        use std::io::Read;
        let mut head = Vec::new();
        let archive = std::fs::File::open(locales.join("locale-archive")).ok()?;
        archive.take(ARCHIVE_HEAD_BYTES).read_to_end(&mut head).ok()?;
        Some(head.windows(10).any(|window| window == b"en_US.utf8"))
    };
    locales.join("en_US.utf8").is_dir() || in_archive().unwrap_or(false)
}
