//! A path under a root directory, resolved once by the kernel and race-free (decision 6).
//!
//! Two ways to resolve, both by `openat2` from the root's file descriptor: *strict* for what becomes a mount
//! (no link, no other file system), and *file* for what the file API opens (links are followed by the kernel
//! while they stay beneath the root). Nothing here ever resolves a path twice or by its text.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};

/// A directory that bounds every look-up made through it.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
}

impl Root {
    /// Opens the directory at `path`; this one path is trusted, and its links are followed.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { fd: openat2(CWD, path, flags, Mode::empty(), ResolveFlags::empty())? })
    }

    /// The strict look-up, for mounts: an `O_PATH` descriptor of what lies at `path`, with no link anywhere on
    /// the way, no mount crossed, and never above the root.
    pub fn mount_source(&self, path: &Path) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        // openat2 refuses the empty path; the root itself is `.`.
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        Ok(openat2(&self.fd, path, flags, Mode::empty(), resolve)?)
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
