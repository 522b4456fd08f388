//! A path under a root directory, resolved once by the kernel and race-free (decision 6).
//!
//! Two ways to resolve, both by `openat2` from the root's file descriptor: *strict* for what becomes a mount
//! (no link, no other file system), and *file* for what the file API opens (links are followed by the kernel
//! while they stay beneath the root). Nothing here compares, canonicalises or re-reads a path's text, and
//! nothing here opens a FIFO, a socket or a device: a look-up yields an `O_PATH` descriptor, and only what it
//! proves to be a regular file or a directory is opened for reading.

mod directory;
mod measure;
mod node;
mod remove;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

pub use directory::{Directory, Visit};
pub use measure::{Amount, MEASURED_ENTRIES_MAX, MEASURED_LEVELS_MAX};
pub use node::{Kind, Metadata, Node};
pub use remove::REMOVED_ENTRIES_MAX;

/// How often a look-up is tried again when the kernel reports that a rename raced with a `..` in a link. The
/// kernel's lock is global, so a tree that somebody keeps renaming makes this happen; each try takes
/// microseconds.
const RACE_TRIES_MAX: u32 = 1_000;

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
        Ok(openat2(&self.fd, or_dot(path), flags, Mode::empty(), resolve)?)
    }

    /// A narrower root, looked up strictly: links below it can then lead no further than to it.
    pub fn narrow(&self, path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        Ok(Self { fd: openat2(&self.fd, or_dot(path), flags, Mode::empty(), resolve)? })
    }

    /// The file look-up: what lies at `path`, links followed while they stay beneath the root. Opens nothing,
    /// so a FIFO cannot block it. A link that leads out fails with `EXDEV`.
    pub fn look_up(&self, path: &Path) -> io::Result<Node> {
        Node::new(beneath(self.fd.as_fd(), path, OFlags::PATH)?)
    }

    /// [`Self::narrow`] and [`Self::look_up`] in one, where the kernel has every name in memory and nothing waits for a
    /// disk; an error says nothing but that the two have to be asked.
    pub fn look_up_in_memory(&self, root: &Path, below: &Path) -> io::Result<Node> {
        let (flags, cached) = (OFlags::PATH | OFlags::CLOEXEC, ResolveFlags::CACHED);
        let strict = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV | cached;
        let narrow = match root.as_os_str().is_empty() {
            true => None,
            false => Some(openat2(&self.fd, root, flags | OFlags::DIRECTORY, Mode::empty(), strict)?),
        };
        let root = narrow.as_ref().map_or(self.fd.as_fd(), AsFd::as_fd);
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | cached;
        Node::new(openat2(root, or_dot(below), flags, Mode::empty(), resolve)?)
    }

    /// The directory at `path`, by the file look-up, open for reading.
    pub fn directory(&self, path: &Path) -> io::Result<Directory> {
        self.look_up(path)?.open_directory()
    }

    /// The directory at `path`, by the file look-up; what is missing of it is made. A link on the way is
    /// followed where it stays beneath the root; nothing is ever made through a dangling one. Says how many of
    /// the last levels are new, for `Directory::remove_made`. After an error nothing new is left.
    pub fn create_dir_all(&self, path: &Path) -> io::Result<(Directory, usize)> {
        let mut missing = Vec::new();
        let mut existing = path;
        let mut directory = loop {
            match self.directory(existing) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    match (existing.parent(), existing.file_name()) {
                        (Some(parent), Some(name)) => {
                            missing.push(name);
                            existing = parent;
                        }
                        _ => return Err(error),
                    }
                }
                found => break found?,
            }
        };
        let mut made = 0;
        for (level, name) in missing.iter().rev().enumerate() {
            let step = directory.make(name).and_then(|is_new| Ok((is_new, directory.enter(name)?)));
            match step {
                Ok((is_new, entered)) => {
                    made = if is_new { made + 1 } else { 0 };
                    directory = entered;
                }
                Err(error) => {
                    // Only a name that can be there is looked for: one that is too long shows when it is made. What cannot be taken back is
                    // somebody else's by now.
                    let names = missing[missing.len() - level..].iter().take(made).copied();
                    let _ = directory.remove_made(names);
                    return Err(error);
                }
            }
        }
        Ok((directory, made))
    }

    /// The directory at `path` with no link anywhere on the way; what is missing of it is made.
    pub fn create_dir_all_strict(&self, path: &Path) -> io::Result<Directory> {
        let mut directory = self.directory(Path::new("."))?;
        for name in path.iter() {
            directory = directory.make_and_enter(name)?;
        }
        Ok(directory)
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn or_dot(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

fn beneath(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..RACE_TRIES_MAX {
        match openat2(root, or_dot(path), flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            opened => return Ok(opened?),
        }
    }
    Err(Errno::AGAIN.into())
}
