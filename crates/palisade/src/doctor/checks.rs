//! What belongs to this server: its uid, its programs, its folders, its control groups.

use std::path::{Path, PathBuf};
use std::process::Command;

use palisade_sandbox::Cgroups;
use rustix::fs::{Access, access};
use rustix::process::{Resource, getrlimit, getuid};

use super::Check;
use crate::config::Config;
use crate::serve::account;

/// Each connection and each sandbox takes a few.
const OPEN_FILES_MIN: u64 = 4096;
/// Below it a turn that builds a document may fail.
const DISK_FREE_BYTES_MIN: u64 = 512 * 1024 * 1024;
/// Below it sessions and their tools soon find no room for a file's name.
const DISK_FREE_FILES_MIN: u64 = 20_000;
/// Below it somebody should look.
const DISK_FREE_BYTES_GOOD: u64 = 10 * 1024 * 1024 * 1024;
/// The first with a fix for CVE-2026-87766.
const BWRAP_MENDED: [u32; 3] = [0, 12, 0];
/// `--as-pid-1` and `--disable-userns` are there from here on.
const BWRAP_MIN: [u32; 3] = [0, 8, 0];
/// What the bundled skills start.
const PROGRAMS: [&str; 5] = ["soffice", "pandoc", "pdftoppm", "convert", "git"];

pub(super) fn user(config: &Config) -> Check {
    let run_as = config.sandbox.run_as;
    match getuid().as_raw() {
        0 => Check::good("user", format!("root, which the server gives up for uid {run_as}")),
        uid => Check::good("user", format!("uid {uid}")),
    }
}

pub(super) fn bubblewrap() -> Check {
    const NAME: &str = "bubblewrap";
    let output = match Command::new("bwrap").arg("--version").output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(error) => {
            return Check::broken(
                NAME,
                format!("`bwrap` cannot be started: {error}"),
                "install the package `bubblewrap`",
            );
        }
    };
    match version(&output) {
        None => {
            Check::broken(NAME, format!("`bwrap --version` said {output:?}"), "install Debian's `bubblewrap`")
        }
        Some(found) if found < BWRAP_MIN => Check::broken(
            NAME,
            format!("{} is too old", shown(found)),
            format!("install {} or later", shown(BWRAP_MIN)),
        ),
        Some(found) if found < BWRAP_MENDED => Check::good(
            NAME,
            format!(
                "{}; before {} it has CVE-2026-87766 unless the distribution has mended it, which takes a mount point \
                 below something writable: no sandbox here has one",
                shown(found),
                shown(BWRAP_MENDED)
            ),
        ),
        Some(found) => Check::good(NAME, shown(found)),
    }
}

fn version(output: &str) -> Option<[u32; 3]> {
    let numbers: Option<Vec<u32>> =
        output.trim().strip_prefix("bubblewrap ")?.split('.').map(|part| part.parse().ok()).collect();
    numbers?.try_into().ok()
}

fn shown([major, minor, patch]: [u32; 3]) -> String {
    format!("{major}.{minor}.{patch}")
}

pub(super) fn cgroups(cgroups: &Cgroups) -> Check {
    const NAME: &str = "control groups";
    let missing: Vec<_> = cgroups.missing().into_iter().map(palisade_sandbox::Controller::name).collect();
    if !missing.is_empty() {
        let found = format!(
            "{}; nothing limits {} of a sandbox as a whole ({})",
            cgroups.layout(),
            missing.join(", "),
            cgroups.problem().unwrap_or("this machine has none for it")
        );
        return Check::weaker(NAME, found, "start the server as root, or under systemd with Delegate=yes");
    }
    if !cgroups.can_kill() {
        let mend = "none is needed: the pid namespace ends everything as well; Linux 5.14 has cgroup.kill";
        return Check::weaker(NAME, format!("{}, without cgroup.kill", cgroups.layout()), mend);
    }
    Check::good(NAME, cgroups.layout())
}

pub(super) fn open_files() -> Check {
    let most = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    if most < OPEN_FILES_MIN {
        let mend =
            format!("raise it to {OPEN_FILES_MIN} or more (LimitNOFILE= in a unit, ulimit -Hn in a shell)");
        return Check::weaker("open files", format!("{most} at most"), mend);
    }
    Check::good("open files", format!("{most} at most"))
}

/// With the eyes of the uid that the server has. A directory that is not there yet is made by whom it is started as.
pub(super) fn data_dir(dir: &Path, is_made_by_root: bool) -> Check {
    const NAME: &str = "data directory";
    if matches!(dir.try_exists(), Ok(false)) {
        let parent = existing(dir);
        let needed = if is_made_by_root { Access::EXEC_OK } else { Access::EXEC_OK | Access::WRITE_OK };
        return match access(&parent, needed) {
            Ok(()) => Check::good(NAME, format!("{} will be made in {}", dir.display(), parent.display())),
            Err(error) => Check::broken(
                NAME,
                format!("{} cannot be made in {}: {error}", dir.display(), parent.display()),
                "choose another with --data-dir (as root, say /var/lib/palisade)",
            ),
        };
    }
    match account::check_reachable(dir) {
        Ok(()) => Check::good(NAME, dir.display().to_string()),
        // The sentence says both what and how.
        Err(error) => Check::broken(NAME, error.to_string(), "see there"),
    }
}

pub(super) fn headroom(dir: &Path) -> Option<Check> {
    const NAME: &str = "disk";
    let disk = rustix::fs::statvfs(existing(dir)).ok()?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let found = format!("{} MiB free for {}", free / 1024 / 1024, dir.display());
    let mend = "make room, or move the data directory";
    if disk.f_files > 0 && disk.f_favail < DISK_FREE_FILES_MIN {
        let found = format!("{found}, and room for {} more files", disk.f_favail);
        return Some(Check::broken(NAME, found, "remove files, or move the data directory"));
    }
    Some(match free {
        ..DISK_FREE_BYTES_MIN => Check::broken(NAME, found, mend),
        DISK_FREE_BYTES_MIN..DISK_FREE_BYTES_GOOD => Check::weaker(NAME, found, mend),
        _ => Check::good(NAME, found),
    })
}

fn existing(dir: &Path) -> PathBuf {
    dir.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/")).to_owned()
}

/// What is shown inside.
pub(super) fn runtime(config: &Config) -> Vec<Check> {
    let mend = "run deploy/runtime.sh as root";
    let python = config.sandbox.runtime.join("python");
    let packages = match python.join("pptx").is_dir() || python.join("openpyxl").is_dir() {
        true => Check::good("Python packages", python.display().to_string()),
        false => Check::weaker(
            "Python packages",
            format!("none in {}: document skills do not work", python.display()),
            mend,
        ),
    };
    let root = match config.sandbox.rootfs.as_str() {
        "host-usr" => Path::new("/"),
        path => Path::new(path),
    };
    let has = |name: &str| root.join("usr/bin").join(name).symlink_metadata().is_ok();
    let missing: Vec<_> = PROGRAMS.into_iter().filter(|name| !has(name)).collect();
    let programs = match missing.is_empty() {
        true => Check::good("runtime programs", PROGRAMS.join(", ")),
        false => Check::weaker(
            "runtime programs",
            format!("{} missing: skills that need them fail", missing.join(", ")),
            mend,
        ),
    };
    let python = match (has("python3"), has("python3.11")) {
        (_, true) => Check::good("Python", "3.11"),
        (true, false) => {
            Check::weaker("Python", "it is not 3.11, and packages are looked for by version", mend)
        }
        (false, false) => Check::weaker("Python", "there is none", mend),
    };
    vec![packages, programs, python]
}

pub(super) fn hand(path: &Path) -> Check {
    // A program that needs an interpreter would need the loader and the libraries of whatever is shown inside.
    let bytes = std::fs::read(path).unwrap_or_default();
    match needs_interpreter(&bytes) {
        Some(false) => Check::good("hand", format!("static, {} KiB", bytes.len() / 1024)),
        Some(true) => Check::weaker(
            "hand",
            "it is linked to the libraries of where it was built",
            "build it with `cargo xtask build`, which makes it static",
        ),
        None => Check::broken("hand", "it is no program", "build it with `cargo xtask build`"),
    }
}

/// Whether an ELF file names a loader; `None` when it is none of 64 bits.
fn needs_interpreter(elf: &[u8]) -> Option<bool> {
    /// elf(5).
    const PT_INTERP: u32 = 3;
    let number = |at: usize, bytes: usize| -> Option<u64> {
        let field = elf.get(at..at + bytes)?;
        Some(field.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    };
    if elf.get(..5)? != b"\x7fELF\x02" {
        return None;
    }
    let (start, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    let kind = |index: u64| number(usize::try_from(start + index * size).ok()?, 4);
    Some((0..count).any(|index| kind(index) == Some(u64::from(PT_INTERP))))
}

pub(super) fn landlock(abi: u32) -> Check {
    match abi {
        0 => Check::weaker(
            "Landlock",
            "this kernel has none that would do: mounts alone keep files apart",
            "use Linux 5.19 or later with `landlock` among lsm=",
        ),
        // Truncation, and devices.
        1..5 => {
            Check::weaker("Landlock", format!("version {abi}"), "Linux 6.10 knows all that is asked of it")
        }
        _ => Check::good("Landlock", format!("version {abi}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared() {
        assert_eq!(version("bubblewrap 0.8.0\n"), Some([0, 8, 0]));
        assert!(version("bubblewrap 0.12.0").unwrap() >= BWRAP_MENDED);
        assert!(version("bubblewrap 0.9.0").unwrap() < BWRAP_MENDED);
        for text in ["", "bubblewrap", "bubblewrap 0.8", "bubblewrap 0.8.x", "something 0.8.0"] {
            assert_eq!(version(text), None, "{text}");
        }
    }

    #[test]
    fn a_program_is_told_from_a_static_one() {
        assert_eq!(needs_interpreter(&std::fs::read("/bin/bash").unwrap()), Some(true));
        assert_eq!(needs_interpreter(b"#!/bin/sh"), None);
        assert_eq!(needs_interpreter(b""), None);
        assert_eq!(needs_interpreter(b"\x7fELF\x02 cut off"), None);
    }
}
