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

/// The child gets a session of its own and no blocked signals. What a command must shed before it runs
/// (limits of its own, for one) belongs into this closure.
pub(crate) fn in_own_session(command: &mut Command) {
    #[expect(unsafe_code, reason = "std has no stable setsid")]
    // SAFETY: setsid, sigemptyset and sigprocmask are async-signal-safe, and nothing here allocates.
    unsafe {
        command.pre_exec(|| {
            rustix::process::setsid()?;
            let mut set = std::mem::zeroed::<libc::sigset_t>();
            libc::sigemptyset(&raw mut set);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
            Ok(())
        });
    }
}
