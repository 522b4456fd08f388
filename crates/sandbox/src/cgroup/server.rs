//! This server's own groups: made once, as root where the server was started so, and then given to its uid.
//!
//! ```text
//! <hierarchy>/palisade-<uid>/<server>/tenant-<name>/sandbox-<n>
//!                                    /main          the server itself, in the unified hierarchy
//! ```
//!
//! A server's group is named after its process, so that whose process is gone can be told by anybody, whatever data
//! directory it worked on.

use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, geteuid, kill_process};

use super::layout::{Controller, Hierarchy, SANDBOXES_SHARES, SERVER_WEIGHT, Version, find};
use super::{at, remove_empty, write_existing};
use crate::mark::{pid_namespace, started};

/// Looks at a dead server's processes before its group is left to the next start.
const LOOKS_MAX: u32 = 20;
/// What its owner must be able to write for a group to be delegated (cgroups(7)).
const DELEGATED: [&str; 5] =
    ["cgroup.procs", "cgroup.threads", "cgroup.subtree_control", "cgroup.kill", "tasks"];
/// The server itself, beside its sandboxes: where controllers are at work a group has processes or groups in it.
const MAIN: &str = "main";

/// The hierarchies in which this server has a group now, and what went wrong with the others.
pub(super) fn prepare(uid: u32) -> (Vec<Hierarchy>, Option<String>) {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let unified =
        |root: &str| std::fs::read_to_string(Path::new(root).join("cgroup.controllers")).unwrap_or_default();
    let (mut ours, mut problems) = (Vec::new(), Vec::new());
    let found = find(&mounts, unified);
    if found.is_empty() {
        problems.push("no control groups are mounted here".to_owned());
    }
    for hierarchy in found {
        match enter(hierarchy, uid) {
            Ok(own) => ours.push(own),
            Err(error) => problems.push(error.to_string()),
        }
    }
    (ours, (!problems.is_empty()).then(|| problems.join("; ")))
}

fn enter(hierarchy: Hierarchy, uid: u32) -> io::Result<Hierarchy> {
    if hierarchy.version == Version::Legacy || hierarchy.controllers.is_empty() {
        let folder = make_own(&hierarchy.folder, uid)?;
        if hierarchy.version == Version::Unified {
            move_in(&folder, uid)?;
        } else if hierarchy.controllers.contains(&Controller::Cpu) {
            // The server is not in here but beside it.
            let shares = folder.parent().unwrap_or(&folder).join("cpu.shares");
            weigh(&shares, &SANDBOXES_SHARES.to_string());
        }
        return Ok(Hierarchy { folder, ..hierarchy });
    }
    // Version 2: below the group that a service manager gave us. Where other processes share that group, or it is not
    // ours to divide, at the top, which is root's to do.
    let own = hierarchy.folder.join(own_group().trim_start_matches('/'));
    let within = |parent: &Path| -> io::Result<PathBuf> {
        let folder = make_own(parent, uid)?;
        move_in(&folder, uid)?;
        let base = folder.parent().unwrap_or(parent);
        for group in [parent, base, &folder] {
            for controller in &hierarchy.controllers {
                let control = group.join("cgroup.subtree_control");
                write_existing(&control, &format!("+{}", controller.name())).map_err(|e| at(&control, &e))?;
            }
            if hierarchy.has_io {
                weigh(&group.join("cgroup.subtree_control"), "+io");
            }
        }
        let main = folder.join(MAIN);
        if hierarchy.controllers.contains(&Controller::Cpu) {
            weigh(&main.join("cpu.weight"), &SERVER_WEIGHT.to_string());
        }
        if hierarchy.has_io {
            weigh(&main.join("io.weight"), &format!("default {SERVER_WEIGHT}"));
        }
        Ok(folder)
    };
    let folder = within(&own).or_else(|error| match own == hierarchy.folder {
        true => Err(error),
        false => within(&hierarchy.folder),
    })?;
    Ok(Hierarchy { folder, ..hierarchy })
}

/// What a group weighs decides only who waits: where it cannot be set, everybody weighs the same.
fn weigh(file: &Path, value: &str) {
    if let Err(error) = write_existing(file, value) {
        tracing::warn!(file = %file.display(), value, %error, "the server's processes have no precedence over sandboxes here");
    }
}

/// This process' group in the unified hierarchy.
fn own_group() -> String {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/").to_owned()
}

fn make_own(parent: &Path, uid: u32) -> io::Result<PathBuf> {
    let base = parent.join(format!("palisade-{uid}"));
    make(&base, uid)?;
    let own = own_name()?;
    sweep(&base, &own);
    let folder = base.join(own);
    make(&folder, uid)?;
    Ok(folder)
}

/// Moves this process to its place beside the sandboxes: a process can be moved only within what its mover may change.
fn move_in(folder: &Path, uid: u32) -> io::Result<()> {
    let main = folder.join(MAIN);
    make(&main, uid)?;
    let procs = main.join("cgroup.procs");
    write_existing(&procs, "0").map_err(|e| at(&procs, &e))
}

fn make(folder: &Path, uid: u32) -> io::Result<()> {
    match std::fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(at(folder, &error)),
        _ => {}
    }
    if geteuid().is_root() {
        let give = |path: &Path| std::os::unix::fs::chown(path, Some(uid), Some(uid));
        give(folder).map_err(|e| at(folder, &e))?;
        for file in DELEGATED.map(|name| folder.join(name)) {
            match give(&file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&file, &error)),
                _ => {}
            }
        }
    }
    Ok(())
}

/// Pid namespace, pid, and when it was started: no other process will ever have the three, up to the next boot, which
/// ends all groups.
fn own_name() -> io::Result<String> {
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    Ok(format!("{}-{pid}-{}", pid_namespace()?, started(pid)?))
}

/// Ends and removes what servers left that are gone. Several may do so at once.
fn sweep(base: &Path, own: &str) {
    let Ok(entries) = std::fs::read_dir(base) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name != own && is_dead(name)) {
            end(&entry.path());
            if let Err(error) = remove_tree(&entry.path()) {
                tracing::warn!(group = %entry.path().display(), %error, "what a dead server left was not removed");
            }
        }
    }
}

/// Of another namespace nothing is known, so its servers live.
fn is_dead(name: &str) -> bool {
    let parts: Vec<u64> = name.split('-').map_while(|part| part.parse().ok()).collect();
    let &[namespace, pid, since] = parts.as_slice() else { return false };
    let Ok(pid) = i32::try_from(pid) else { return false };
    let is_there = || started(pid).is_ok_and(|started| started == since);
    pid_namespace().is_ok_and(|ours| ours == namespace) && !is_there()
}

/// SIGKILL to everything in a group and the groups below it.
fn end(group: &Path) {
    if write_existing(&group.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    for _ in 0..LOOKS_MAX {
        let pids = processes(group);
        if pids.is_empty() {
            return;
        }
        for pid in pids {
            // It may have ended meanwhile.
            let _ = kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(super::REMOVAL_PAUSE);
    }
}

fn processes(group: &Path) -> Vec<Pid> {
    let text = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let own = text.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?));
    own.chain(below(group).iter().flat_map(|child| processes(child))).collect()
}

fn below(group: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(group).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

fn remove_tree(group: &Path) -> io::Result<()> {
    for child in below(group) {
        remove_tree(&child)?;
    }
    remove_empty(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_gone_process_of_this_namespace_is_dead() {
        let own = own_name().unwrap();
        assert!(!is_dead(&own), "this one lives");
        let (rest, since) = own.rsplit_once('-').unwrap();
        let later = since.parse::<u64>().unwrap() + 1;
        assert!(is_dead(&format!("{rest}-{later}")), "the number was given out again");
        let (_, rest) = own.split_once('-').unwrap();
        assert!(!is_dead(&format!("1-{rest}")) && !is_dead(&format!("1-{}-1", i32::MAX)), "elsewhere");
        for name in ["", "main", "1-2", "a-b-c", "sandbox-1"] {
            assert!(!is_dead(name), "{name}");
        }
    }
}
