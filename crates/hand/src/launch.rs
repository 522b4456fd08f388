//! The launcher: builds the scope tree by descriptor and then becomes bubblewrap, with the hand as pid 1.
//!
//! It must never run as root, never resolve a path of the workspace twice, and never go on after a failed step:
//! there is no weaker cage to fall back to. It is a program of its own, because a forked child of a server that
//! has changed its uid cannot write its uid map (decision 22).
//!
//! In: the control socket as stdin, the [`LaunchSpec`] as stdout's descriptor, a pipe for errors as stderr.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use palisade_hand_protocol::{
    FILE_SIZE_BYTES_MAX, HAND_INSIDE, HOME_INSIDE, INIT_ARG, INOTIFY_INSTANCES_MAX, LAUNCH_SPEC_BYTES_MAX,
    LaunchSpec, SCRATCH_INSIDE, UID_INSIDE, WORKSPACE_INSIDE,
};
use rustix::fs::{MemfdFlags, Mode, OFlags, memfd_create};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Resource, Rlimit, getgid, getuid, setrlimit};

use crate::control::read_whole;
use crate::{seccomp, sys, tree};

/// Where the skeleton is mounted while bubblewrap reads it. bubblewrap itself needs this directory to exist.
const STAGE: &str = "/tmp";
/// What /proc tells about the machine and its kernel beyond what programs need. Most of it is root's to read
/// already; what is not is covered by a file that nobody may open.
const MASKED: &[&str] = &[
    "cmdline",
    "config.gz",
    "iomem",
    "ioports",
    "kallsyms",
    "kcore",
    "key-users",
    "keys",
    "kmsg",
    "kpagecgroup",
    "kpagecount",
    "kpageflags",
    "latency_stats",
    "modules",
    "sched_debug",
    "slabinfo",
    "sysrq-trigger",
    "timer_list",
    "vmallocinfo",
];

/// The steps in their forced order. Landlock is not among them: it belongs to pid 1, after the mounts are made.
pub(crate) fn launch() -> Result<Infallible, String> {
    refuse_root()?;
    shed_the_server()?;
    let spec = read_spec()?;
    // Before anything that costs memory.
    join_cgroups(&spec.cgroups)?;
    if Path::new(&spec.rootfs).starts_with(STAGE) {
        return Err(format!("the root file system {} must not lie below {STAGE}", spec.rootfs));
    }
    // Opened here because the stage may cover it.
    let bwrap = rustix::fs::open(&spec.bwrap, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| format!("open bubblewrap {}: {e}", spec.bwrap))?;
    enter_namespaces()?;
    tree::build(&spec, STAGE)?;
    become_bwrap(&spec, &bwrap)
}

/// uid 0 outside stays uid 0 for the kernel whatever the number inside, and then /proc/sys is writable.
fn refuse_root() -> Result<(), String> {
    if getuid().is_root() || rustix::process::geteuid().is_root() {
        return Err("refusing to build a sandbox as root: start the server as an unprivileged user".into());
    }
    Ok(())
}

fn shed_the_server() -> Result<(), String> {
    // No death signal before bubblewrap's own: killed with the server while its child still waits to be let go,
    // bubblewrap would leave that child waiting for ever. So a start goes on without the server, up to the moment
    // when the hand finds the control socket closed and ends everything.
    sys::close_from(3).map_err(|e| format!("close inherited descriptors: {e}"))?;
    for (resource, most) in [(Resource::Core, 0), (Resource::Fsize, FILE_SIZE_BYTES_MAX)] {
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })
            .map_err(|e| format!("limit {resource:?}: {e}"))?;
    }
    rustix::process::umask(Mode::WGRP | Mode::WOTH);
    Ok(())
}

fn read_spec() -> Result<LaunchSpec, String> {
    let bytes = read_whole(std::io::stdout(), LAUNCH_SPEC_BYTES_MAX)
        .map_err(|e| format!("read the specification: {e}"))?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| format!("open /dev/null: {e}"))?;
    rustix::stdio::dup2_stdout(&null).map_err(|e| format!("let go of the specification: {e}"))?;
    serde_json::from_slice(&bytes).map_err(|e| format!("parse the specification: {e}"))
}

/// From here on all that this process becomes and starts is counted there.
fn join_cgroups(groups: &[String]) -> Result<(), String> {
    groups
        .iter()
        .try_for_each(|procs| std::fs::write(procs, "0").map_err(|e| format!("join the cgroup {procs}: {e}")))
}

/// The map is the identity, so that ownership in the tree is what it is outside.
fn enter_namespaces() -> Result<(), String> {
    let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
    sys::unshare_user_and_mounts().map_err(|e| format!("create a user namespace: {e}"))?;
    for (file, text) in [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("{uid} {uid} 1")),
        ("/proc/self/gid_map", format!("{gid} {gid} 1")),
    ] {
        std::fs::write(file, text).map_err(|e| format!("write {file}: {e}"))?;
    }
    use rustix::mount::{MountPropagationFlags, mount_change};
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(|e| format!("make the mounts private: {e}"))?;
    // A share in what the kernel counts by uid. No fence: where /proc/sys is read-only there is none.
    let _ = std::fs::write("/proc/sys/user/max_inotify_instances", INOTIFY_INSTANCES_MAX.to_string());
    Ok(())
}

fn become_bwrap(spec: &LaunchSpec, bwrap: &OwnedFd) -> Result<Infallible, String> {
    let filter = inherited("seccomp", &seccomp::program())
        .map_err(|e| format!("pass the list of system calls to bubblewrap: {e}"))?;
    let arguments = arguments(spec, &filter);
    let args = inherited("bwrap-args", &arguments.joined())
        .map_err(|e| format!("pass arguments to bubblewrap: {e}"))?;
    let failure = Command::new(format!("/proc/self/fd/{}", bwrap.as_raw_fd()))
        .arg0("bwrap")
        .args(["--args", &args.as_raw_fd().to_string(), "--", HAND_INSIDE, INIT_ARG])
        .env_clear()
        .stdin(Stdio::inherit())
        .exec();
    Err(format!("exec {}: {failure}", spec.bwrap))
}

/// Something for bubblewrap to read. Arguments go this way so that no host path stands in anybody's command line.
fn inherited(name: &str, content: &[u8]) -> std::io::Result<File> {
    let mut file = File::from(memfd_create(name, MemfdFlags::CLOEXEC)?);
    file.write_all(content)?;
    file.rewind()?;
    fcntl_setfd(&file, FdFlags::empty())?;
    Ok(file)
}

fn arguments(spec: &LaunchSpec, filter: &File) -> Arguments {
    let mut args = Arguments(Vec::new());
    args.add(&["--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]);
    args.add(&["--unshare-cgroup-try", "--disable-userns", "--cap-drop", "ALL", "--hostname", "palisade"]);
    args.add(&["--uid", &UID_INSIDE.to_string(), "--gid", &UID_INSIDE.to_string()]);
    args.add(&["--die-with-parent", "--new-session", "--as-pid-1"]);
    args.add(&["--seccomp", &filter.as_raw_fd().to_string()]);

    args.add(&["--ro-bind", &below(&spec.rootfs, "usr"), "/usr"]);
    args.add(&["--ro-bind", &format!("{STAGE}/local"), "/usr/local"]);
    for name in ["bin", "sbin", "lib", "lib32", "lib64", "libx32"] {
        args.add_top_level(&spec.rootfs, name);
    }
    args.add(&["--ro-bind", &format!("{STAGE}/etc"), "/etc", "--proc", "/proc", "--dev", "/dev"]);
    for name in MASKED {
        args.mask(&format!("/proc/{name}"));
    }
    args.add(&["--dir", "/dev/shm", "--remount-ro", "/dev"]);
    args.add(&["--bind", &format!("{STAGE}/shm"), "/dev/shm", "--bind", &format!("{STAGE}/tmp"), "/tmp"]);
    args.add(&["--dir", "/run", "--dir", "/var", "--symlink", SCRATCH_INSIDE, "/var/tmp"]);
    args.add(&["--ro-bind-try", &below(&spec.rootfs, "var/cache/fontconfig"), "/var/cache/fontconfig"]);
    args.add(&["--ro-bind", &format!("{STAGE}/skills"), "/skills"]);
    args.add(&["--bind", &format!("{STAGE}/home"), HOME_INSIDE]);
    args.add(&["--bind", &format!("{STAGE}/workspace"), WORKSPACE_INSIDE]);
    args.add(&["--remount-ro", "/", "--chdir", WORKSPACE_INSIDE]);
    args
}

struct Arguments(Vec<OsString>);

impl Arguments {
    /// As bubblewrap reads them.
    fn joined(&self) -> Vec<u8> {
        use std::os::unix::ffi::OsStrExt;
        self.0.iter().flat_map(|argument| argument.as_bytes().iter().copied().chain([0])).collect()
    }

    fn add(&mut self, args: &[&str]) {
        self.0.extend(args.iter().map(OsString::from));
    }

    /// Each mount takes time, so only what this kernel has and others than root may open.
    fn mask(&mut self, path: &str) {
        const OTHERS: u32 = 0o007;
        if rustix::fs::stat(path).is_ok_and(|stat| stat.st_mode & OTHERS != 0) {
            self.add(&["--ro-bind", &format!("{STAGE}/masked"), path]);
        }
    }

    /// `/bin` and its like: a link where the system has merged them into /usr, a bind where not.
    fn add_top_level(&mut self, rootfs: &str, name: &str) {
        let (source, target) = (below(rootfs, name), format!("/{name}"));
        match std::fs::read_link(&source) {
            Ok(link) => self.0.extend(["--symlink".into(), link.into_os_string(), target.into()]),
            Err(_) => self.add(&["--ro-bind-try", &source, &target]),
        }
    }
}

fn below(rootfs: &str, name: &str) -> String {
    format!("{}/{name}", rootfs.trim_end_matches('/'))
}
