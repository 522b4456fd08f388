//! The system calls that rustix has no safe form for. Every `unsafe` block of the launcher and of pid 1 is here,
//! each a single call.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Closes every descriptor from `first` up, whoever opened it.
pub(crate) fn close_from(first: u32) -> io::Result<()> {
    #[expect(unsafe_code, reason = "rustix has no close_range")]
    // SAFETY: called at start-up, before any descriptor above `first` is owned by a Rust value.
    let result = unsafe { libc::close_range(first, u32::MAX, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Leaves the user and mount namespaces of the host.
pub(crate) fn unshare_user_and_mounts() -> io::Result<()> {
    use rustix::thread::UnshareFlags;
    #[expect(unsafe_code, reason = "unshare is unsafe for CLONE_FILES, which is not asked for")]
    // SAFETY: neither NEWUSER nor NEWNS touches the descriptor table or memory; the process has one thread.
    unsafe {
        rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER | UnshareFlags::NEWNS)?;
    }
    Ok(())
}

/// Adds `attributes` (`MOUNT_ATTR_*`) to the one mount behind `mount`.
pub(crate) fn add_mount_attributes(mount: impl AsFd, attributes: u64) -> io::Result<()> {
    let change = libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: 0, userns_fd: 0 };
    #[expect(unsafe_code, reason = "rustix has no mount_setattr")]
    // SAFETY: the path is a NUL-terminated literal, and `change` is a live struct of exactly the size given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const change,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Blocks SIGCHLD and turns it into a descriptor to poll.
pub(crate) fn sigchld_fd() -> io::Result<OwnedFd> {
    #[expect(unsafe_code, reason = "rustix has no signalfd")]
    // SAFETY: `set` is initialised by sigemptyset before use; the descriptor is fresh and owned by nobody else.
    unsafe {
        let mut set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

/// SIGKILL to everything in the pid namespace but the caller, in one call, so that no fork can outrun it.
pub(crate) fn kill_everything_else() {
    #[expect(unsafe_code, reason = "rustix has no kill(-1)")]
    // SAFETY: kill has no memory effects; as pid 1 of a pid namespace, -1 is that namespace without us.
    unsafe {
        libc::kill(-1, libc::SIGKILL);
    }
}

/// The child gets a session of its own and no blocked signals, and does `also`, which must be plain system calls.
pub(crate) fn in_own_session(
    command: &mut Command,
    also: impl Fn() -> io::Result<()> + Send + Sync + 'static,
) {
    #[expect(unsafe_code, reason = "std has no stable setsid")]
    // SAFETY: setsid, sigemptyset, sigprocmask and what `also` promises are async-signal-safe; nothing allocates.
    unsafe {
        command.pre_exec(move || {
            rustix::process::setsid()?;
            let mut set = std::mem::zeroed::<libc::sigset_t>();
            libc::sigemptyset(&raw mut set);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
            also()
        });
    }
}

/// The kernel's Landlock version; 0 where it has none.
pub(crate) fn landlock_abi() -> u32 {
    /// linux/landlock.h.
    const LANDLOCK_CREATE_RULESET_VERSION: u32 = 1;
    #[expect(unsafe_code, reason = "rustix has no Landlock")]
    // SAFETY: with this flag the kernel takes no memory, and answers with a number.
    let version = unsafe {
        let none = std::ptr::null::<u8>();
        libc::syscall(libc::SYS_landlock_create_ruleset, none, 0_usize, LANDLOCK_CREATE_RULESET_VERSION)
    };
    u32::try_from(version).unwrap_or(0)
}

/// A ruleset that handles these file rights and scopes.
pub(crate) fn landlock_ruleset(files: u64, scopes: u64) -> io::Result<OwnedFd> {
    // `struct landlock_ruleset_attr`: files, network, scopes. Kernels that do not know the tail take it as zeros.
    let rules = [files, 0, scopes];
    #[expect(unsafe_code, reason = "rustix has no Landlock")]
    // SAFETY: the pointer and the size are those of a live array; the descriptor is fresh and owned by nobody else.
    unsafe {
        let fd = libc::syscall(libc::SYS_landlock_create_ruleset, rules.as_ptr(), size_of_val(&rules), 0_u32);
        let fd = i32::try_from(fd).unwrap_or(-1);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

/// Allows `rights` below `parent`.
pub(crate) fn landlock_allow(ruleset: &OwnedFd, parent: &OwnedFd, rights: u64) -> io::Result<()> {
    /// linux/landlock.h.
    const LANDLOCK_RULE_PATH_BENEATH: u32 = 1;
    #[repr(C, packed)]
    struct PathBeneath {
        rights: u64,
        parent: i32,
    }
    let rule = PathBeneath { rights, parent: parent.as_raw_fd() };
    #[expect(unsafe_code, reason = "rustix has no Landlock")]
    // SAFETY: `rule` is live and laid out as the kernel's `struct landlock_path_beneath_attr`.
    let result = unsafe {
        libc::syscall(
            libc::SYS_landlock_add_rule,
            ruleset.as_raw_fd(),
            LANDLOCK_RULE_PATH_BENEATH,
            &raw const rule,
            0_u32,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// From here on the rules hold for this thread, the only one, and all it starts.
pub(crate) fn landlock_restrict(ruleset: &OwnedFd) -> io::Result<()> {
    #[expect(unsafe_code, reason = "rustix has no Landlock")]
    // SAFETY: the call takes a descriptor and no memory.
    let result = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0_u32) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
