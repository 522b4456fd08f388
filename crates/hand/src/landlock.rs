//! The second fence around files, put up by pid 1 around itself when the mounts are made: what may be written is named
//! once more, to another part of the kernel, so that a mistake in either leaves the other standing.
//!
//! It must never be the only fence: a kernel without it has the mounts.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};

use crate::sys;

// linux/landlock.h.
const EXECUTE: u64 = 1 << 0;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const MAKE_CHAR: u64 = 1 << 6;
const MAKE_BLOCK: u64 = 1 << 11;
const TRUNCATE: u64 = 1 << 14;
const IOCTL_DEV: u64 = 1 << 15;
// Sockets with a path that something outside of the fence has made: another sandbox, in a folder that both may write.
const RESOLVE_UNIX: u64 = 1 << 16;
// Abstract sockets are the network namespace's to keep apart: pid 1 has one that everything inside may reach.
const SCOPE_SIGNAL: u64 = 1 << 1;

/// Before it (Linux 5.19) every rename from one folder to another is refused, and no rule can allow it (decision 27).
const ABI_WITH_REFER: u32 = 2;
const ABI_WITH_TRUNCATE: u32 = 3;
const ABI_WITH_IOCTL_DEV: u32 = 5;
const ABI_WITH_SCOPE_SIGNAL: u32 = 6;
const ABI_WITH_RESOLVE_UNIX: u32 = 9;

/// What can be asked of a kernel of this ABI: its file rights, and its scopes.
fn known(abi: u32) -> (u64, u64) {
    let highest = match abi {
        ABI_WITH_RESOLVE_UNIX.. => RESOLVE_UNIX,
        ABI_WITH_IOCTL_DEV.. => IOCTL_DEV,
        ABI_WITH_TRUNCATE.. => TRUNCATE,
        _ => TRUNCATE >> 1,
    };
    let scopes = if abi >= ABI_WITH_SCOPE_SIGNAL { SCOPE_SIGNAL } else { 0 };
    ((highest << 1) - 1, scopes)
}

/// Restricts this process and all it will start: everything may be read and executed, only what is below `writable`
/// changed. The answer is the fence's version, 0 for none.
pub(crate) fn restrict(writable: &[&str]) -> Result<u32, String> {
    let abi = sys::landlock_abi();
    if abi < ABI_WITH_REFER {
        return Ok(0);
    }
    let (files, scopes) = known(abi);
    let ruleset =
        sys::landlock_ruleset(files, scopes).map_err(|e| format!("make the Landlock rules: {e}"))?;
    let change = files & !(EXECUTE | MAKE_CHAR | MAKE_BLOCK | IOCTL_DEV | RESOLVE_UNIX);
    for (path, rights) in [
        ("/", EXECUTE | READ_FILE | READ_DIR),
        // Devices are written and asked, and none is made.
        ("/dev", (WRITE_FILE | READ_FILE | READ_DIR | TRUNCATE | IOCTL_DEV) & files),
    ] {
        allow(&ruleset, path, rights)?;
    }
    for path in writable {
        allow(&ruleset, path, change)?;
    }
    sys::landlock_restrict(&ruleset).map_err(|e| format!("put up the Landlock fence: {e}"))?;
    Ok(abi)
}

fn allow(ruleset: &OwnedFd, path: &str, rights: u64) -> Result<(), String> {
    let add = || -> io::Result<()> {
        let parent = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        sys::landlock_allow(ruleset, &parent, rights)
    };
    add().map_err(|e| format!("allow {path} in the Landlock rules: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_abi_is_asked_for_what_it_knows() {
        assert_eq!(known(2), (0x3fff, 0));
        assert_eq!(known(3), (0x7fff, 0));
        assert_eq!(known(4), (0x7fff, 0));
        assert_eq!(known(5), (0xffff, 0));
        assert_eq!(known(7), (0xffff, 2));
        assert_eq!(known(9), (0x1_ffff, 2));
    }
}
