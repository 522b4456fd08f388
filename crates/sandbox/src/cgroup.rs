//! What a sandbox may use, held by control groups: one group for each sandbox in every hierarchy that has a controller
//! for it, below its tenant's, below a group of this server's own.
//!
//! The parent is made while the server is still root, if it was started so, and given to its uid; everything after is
//! the uid's own work (decision 25). Only groups of this uid's servers are ever touched, and only those of dead ones
//! swept.

mod layout;
mod server;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use layout::Controller;
use layout::{Hierarchy, Version};
use palisade_protocol::TenantName;

/// The kernel's own default, in microseconds.
const CPU_PERIOD_US: u64 = 100_000;
/// A group whose last process is just going refuses to be removed.
const REMOVALS_MAX: u32 = 50;
const REMOVAL_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// What one sandbox may use, everything in it together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Memory, files in memory included.
    pub memory_bytes: u64,
    /// Processes and threads; the two that hold the sandbox are among them.
    pub pids: u64,
    /// Processors' worth of time.
    pub cpus: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory_bytes: 1024 * 1024 * 1024, pids: 256, cpus: 1.0 }
    }
}

/// This server's place in the control groups of the machine.
#[derive(Debug, Clone)]
pub struct Cgroups {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    hierarchies: Vec<Hierarchy>,
    problem: Option<String>,
    next: AtomicU64,
}

impl Cgroups {
    /// Finds out what this machine has, and makes this server's groups, for `uid` where this is root. What a dead
    /// server of that uid left is ended and removed. To be called while the process has one thread: in the unified
    /// hierarchy the process itself must move.
    pub fn prepare(uid: u32) -> Self {
        let (hierarchies, problem) = server::prepare(uid);
        Self { inner: Arc::new(Inner { hierarchies, problem, next: AtomicU64::new(1) }) }
    }

    /// None at all: limits are then each process' own.
    pub fn none(problem: &str) -> Self {
        Self {
            inner: Arc::new(Inner {
                hierarchies: Vec::new(),
                problem: Some(problem.to_owned()),
                next: AtomicU64::new(1),
            }),
        }
    }

    /// Which layout it is, for a person.
    pub fn layout(&self) -> &'static str {
        let has = |version| self.inner.hierarchies.iter().any(|it| it.version == version);
        match (has(Version::Unified), has(Version::Legacy)) {
            (true, true) => "hybrid: version 1, and cgroup.kill of the unified hierarchy",
            (true, false) => "version 2",
            (false, true) => "version 1",
            (false, false) => "none",
        }
    }

    /// What no group limits here.
    pub fn missing(&self) -> Vec<Controller> {
        let held = |controller: &Controller| {
            self.inner.hierarchies.iter().any(|it| it.controllers.contains(controller))
        };
        Controller::ALL.into_iter().filter(|controller| !held(controller)).collect()
    }

    /// Whether all of a sandbox can be killed in one write.
    pub fn can_kill(&self) -> bool {
        self.inner.hierarchies.iter().any(|it| it.folder.join("cgroup.kill").exists())
    }

    /// This server's own group in the hierarchy that has the controller.
    pub fn folder(&self, controller: Controller) -> Option<PathBuf> {
        let mut all = self.inner.hierarchies.iter();
        all.find(|it| it.controllers.contains(&controller)).map(|it| it.folder.clone())
    }

    /// Why something is missing, where that is known.
    pub fn problem(&self) -> Option<&str> {
        self.inner.problem.as_deref()
    }

    /// Groups for one more sandbox of this tenant.
    pub(crate) fn make(&self, tenant: &TenantName, limits: &Limits) -> io::Result<SandboxGroup> {
        let name = format!("sandbox-{}", self.inner.next.fetch_add(1, Ordering::Relaxed));
        let mut group = SandboxGroup { folders: Vec::new(), oom: None, oom_kills: AtomicU64::new(0) };
        for hierarchy in &self.inner.hierarchies {
            let folder = hierarchy.of_tenant(tenant)?.join(&name);
            std::fs::create_dir(&folder).map_err(|e| at(&folder, &e))?;
            group.folders.push(folder.clone());
            hierarchy.limit(&folder, limits)?;
            if hierarchy.controllers.contains(&Controller::Memory) {
                group.oom = Some(folder.join(hierarchy.version.oom_file()));
            }
        }
        Ok(group)
    }
}

impl Hierarchy {
    /// The group of all of a tenant's sandboxes: each tenant has as much of the processors as any other, however many
    /// sandboxes it keeps busy. It stays for as long as the server does.
    fn of_tenant(&self, tenant: &TenantName) -> io::Result<PathBuf> {
        let folder = self.folder.join(format!("tenant-{tenant}"));
        match std::fs::create_dir(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(at(&folder, &error)),
            _ => {}
        }
        if self.version == Version::Unified {
            let control = folder.join("cgroup.subtree_control");
            for controller in &self.controllers {
                write_existing(&control, &format!("+{}", controller.name())).map_err(|e| at(&control, &e))?;
            }
        }
        Ok(folder)
    }

    fn limit(&self, folder: &Path, limits: &Limits) -> io::Result<()> {
        let write = |file: &str, value: String| {
            let path = folder.join(file);
            std::fs::write(&path, value).map_err(|e| at(&path, &e))
        };
        let quota = (limits.cpus * CPU_PERIOD_US as f64) as u64;
        for controller in &self.controllers {
            match (self.version, controller) {
                (Version::Unified, Controller::Memory) => {
                    write("memory.max", limits.memory_bytes.to_string())?;
                    // Kernels without swap have no such file.
                    let _ = write("memory.swap.max", "0".into());
                }
                (Version::Legacy, Controller::Memory) => {
                    write("memory.limit_in_bytes", limits.memory_bytes.to_string())?;
                    // Memory and swap together; only where swap is accounted for.
                    let _ = write("memory.memsw.limit_in_bytes", limits.memory_bytes.to_string());
                }
                (_, Controller::Pids) => write("pids.max", limits.pids.to_string())?,
                (Version::Unified, Controller::Cpu) => {
                    write("cpu.max", format!("{quota} {CPU_PERIOD_US}"))?;
                }
                (Version::Legacy, Controller::Cpu) => {
                    write("cpu.cfs_period_us", CPU_PERIOD_US.to_string())?;
                    write("cpu.cfs_quota_us", quota.to_string())?;
                }
            }
        }
        Ok(())
    }
}

/// One sandbox's groups; removed with it.
#[derive(Debug)]
pub(crate) struct SandboxGroup {
    folders: Vec<PathBuf>,
    /// Where the kernel counts what it killed for want of memory.
    oom: Option<PathBuf>,
    oom_kills: AtomicU64,
}

impl SandboxGroup {
    /// What the launcher writes itself into.
    pub(crate) fn procs(&self) -> impl Iterator<Item = PathBuf> + '_ {
        self.folders.iter().map(|folder| folder.join("cgroup.procs"))
    }

    /// SIGKILL to everything in it, where the kernel can do that in one go.
    pub(crate) fn kill(&self) {
        for folder in &self.folders {
            // Version 1 has no such file, and a group that is gone has nothing to kill.
            let _ = write_existing(&folder.join("cgroup.kill"), "1");
        }
    }

    /// Whether the kernel has killed for want of memory since this was last asked.
    pub(crate) fn was_out_of_memory(&self) -> bool {
        let Some(kills) = self.oom.as_deref().and_then(oom_kills) else { return false };
        self.oom_kills.swap(kills, Ordering::Relaxed) < kills
    }

    /// Removes the groups, once nothing is in them any more.
    pub(crate) fn remove(&mut self) {
        for folder in self.folders.drain(..) {
            if let Err(error) = remove_empty(&folder) {
                tracing::warn!(folder = %folder.display(), %error, "a sandbox's control group was not removed");
            }
        }
    }
}

impl Drop for SandboxGroup {
    fn drop(&mut self) {
        // Of a start that failed before there was anything to wait for.
        self.folders.drain(..).for_each(|folder| drop(std::fs::remove_dir(folder)));
    }
}

fn remove_empty(folder: &Path) -> io::Result<()> {
    for _ in 0..REMOVALS_MAX {
        match std::fs::remove_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => std::thread::sleep(REMOVAL_PAUSE),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => return other,
        }
    }
    std::fs::remove_dir(folder)
}

fn oom_kills(file: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

/// A control file is never made by writing to it.
fn write_existing(path: &Path, value: &str) -> io::Result<()> {
    use std::io::Write as _;
    std::fs::File::options().write(true).open(path)?.write_all(value.as_bytes())
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
