//! Whom the server runs as: never root. Started as root, it makes its folder, gives it to the configured uid, and
//! becomes that uid for good before the first thread. It must never take over a folder that holds somebody else's things.

use std::fs::File;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use palisade_sandbox::{Cgroups, Controller};
use rustix::process::{Gid, Uid, getuid};

use crate::config::Config;

/// Open files without which nothing works: the database, the sandboxes, and a few clients.
const OPEN_FILES_MIN: u64 = 600;
/// Open files with which a server is not the bottleneck.
const OPEN_FILES_USUAL: u64 = 8192;

/// Makes the data directory, closed to everybody else, and its path absolute.
pub(crate) fn prepare_data_dir(config: &mut Config) -> Result<()> {
    let dir = &config.data_dir;
    let making = || {
        let dir = dir.display();
        format!(
            "the data directory {dir} cannot be made; name a folder that this user may write, with data_dir or --data-dir"
        )
    };
    let is_new = !dir.exists();
    if !is_new && !dir.is_dir() {
        bail!("the data directory {} is a file; name a folder with data_dir or --data-dir", dir.display());
    }
    if is_new {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).with_context(making)?;
    }
    let dir = dir.canonicalize().with_context(making)?;
    if getuid().is_root() {
        give(&dir, is_new, config.sandbox.run_as)?;
    }
    config.data_dir = dir;
    Ok(())
}

/// Makes the folder the uid's. What is looked at and what is changed is the same open folder.
fn give(dir: &Path, is_new: bool, uid: u32) -> Result<()> {
    let giving = || format!("giving {} to uid {uid}", dir.display());
    let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::NOFOLLOW;
    let opened =
        File::options().read(true).custom_flags(flags.bits().cast_signed()).open(dir).with_context(giving)?;
    let owner = opened.metadata().with_context(giving)?.uid();
    if owner == uid {
        return Ok(());
    }
    if owner != 0 {
        bail!(
            "the data directory {} belongs to uid {owner}, and the server runs as {uid}; chown it, or set [sandbox] run_as",
            dir.display(),
        );
    }
    if !is_new && !is_ours_to_take(dir).with_context(giving)? {
        bail!(
            "the data directory {} belongs to root and holds other things, so it is not given to uid {uid}; name a \
             folder that is empty or does not exist yet with --data-dir (say {}), or chown this one yourself",
            dir.display(),
            dir.join("palisade-data").display(),
        );
    }
    std::os::unix::fs::fchown(&opened, Some(uid), Some(uid)).with_context(giving)?;
    opened.set_permissions(std::fs::Permissions::from_mode(0o700)).with_context(giving)
}

/// Empty, or a data directory already.
fn is_ours_to_take(dir: &Path) -> std::io::Result<bool> {
    let is_empty = std::fs::read_dir(dir)?.next().is_none();
    let has = |name: &str| dir.join(name).symlink_metadata().is_ok_and(|found| found.is_file());
    Ok(is_empty || has("palisade.db") || has("admin.key"))
}

/// Becomes the configured uid, and makes sure that it can work.
pub(crate) fn give_up_root(config: &Config) -> Result<()> {
    become_uid(config)?;
    check_reachable(&config.data_dir)
}

/// Becomes the configured uid, if this is root.
pub(crate) fn become_uid(config: &Config) -> Result<()> {
    if getuid().is_root() {
        let (uid, gid) = (Uid::from_raw(config.sandbox.run_as), Gid::from_raw(config.sandbox.run_as));
        let becoming = || format!("becoming uid {}", config.sandbox.run_as);
        // Groups first: the right to change them goes with the uid. There is one thread yet, so this is the process.
        rustix::thread::set_thread_groups(&[]).with_context(becoming)?;
        rustix::thread::set_thread_res_gid(gid, gid, gid).with_context(becoming)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid).with_context(becoming)?;
    }
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    Ok(())
}

/// Keys and secrets are in memory: no core file of it, and nobody of the same uid looks into it. A program that is started from here
/// begins anew and is not meant.
pub(crate) fn close_memory() -> Result<()> {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("closing the server's memory")?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).context("forbidding core files")
}

/// Whatever is missing is said loudly: a sandbox without a group of its own is held by its processes' limits alone.
pub(crate) fn prepare_cgroups(config: &Config) -> Cgroups {
    let uid = if getuid().is_root() { config.sandbox.run_as } else { getuid().as_raw() };
    let cgroups = Cgroups::prepare(uid);
    let missing: Vec<_> = cgroups.missing().into_iter().map(Controller::name).collect();
    if !missing.is_empty() {
        tracing::warn!(
            missing = missing.join(", "),
            problem = cgroups.problem().unwrap_or("this machine has none of them"),
            "NO CONTROL GROUP LIMITS SANDBOXES HERE: one of them can use up what all share; start the server as root, \
             or under systemd with Delegate=yes"
        );
    }
    cgroups
}

/// As many as this process may have: connections and sandboxes take some each, and what the kernel lets a user have
/// in flight between processes is counted against the same limit.
pub(crate) fn raise_open_files() -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    const CURE: &str =
        "raise it with LimitNOFILE= (systemd), --ulimit nofile= (containers) or ulimit -Hn (shells)";
    match maximum {
        Some(files) if files < OPEN_FILES_MIN => {
            bail!(
                "this process may open {files} files, and the server needs {OPEN_FILES_MIN} at least; {CURE}"
            );
        }
        Some(files) if files < OPEN_FILES_USUAL => {
            tracing::warn!(
                files,
                "few files may be open at a time, so few clients and sandboxes will find room; {CURE}"
            );
        }
        _ => {}
    }
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
        .context("raising the limit of open files")
}

pub(crate) fn check_reachable(dir: &Path) -> Result<()> {
    use rustix::fs::{Access, access};
    let Err(error) = access(dir, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK) else { return Ok(()) };
    Err(error).with_context(|| {
        format!(
            "uid {} cannot work in the data directory {}: choose another with --data-dir (as root, say \
             /var/lib/palisade), or open the folders above it with chmod o+x",
            getuid().as_raw(),
            dir.display()
        )
    })
}
