//! What a look-up found: an `O_PATH` descriptor and what the kernel says about it. Opening it for reading goes
//! through the descriptor and never through a name, so it is the very thing whose kind was checked.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, fstat, open, openat};
use rustix::io::Errno;

use crate::Directory;

/// What lies at a path, as far as anybody here may care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link that was not followed.
    Link,
    /// A FIFO, a socket or a device: never opened.
    Special,
}

/// What the kernel says about a file, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// What it is.
    pub kind: Kind,
    /// Its length in bytes.
    pub size: u64,
    /// What it takes of the disk, in bytes; a hole takes nothing.
    pub allocated_bytes: u64,
    /// Permission bits.
    pub mode: u32,
    /// How many names it has.
    pub links: u64,
    /// The file system it is on.
    pub device: u64,
    /// Its number on that file system.
    pub inode: u64,
    /// When its content last changed, in nanoseconds since 1970.
    pub modified_ns: i128,
    /// When anything about it last changed, in nanoseconds since 1970.
    pub changed_ns: i128,
}

/// Something that was found beneath a root and has not been opened.
#[derive(Debug)]
pub struct Node {
    fd: OwnedFd,
    metadata: Metadata,
}

impl Node {
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        let metadata = Metadata::from(fstat(&fd)?);
        Ok(Self { fd, metadata })
    }

    /// What it was when it was found.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Opens a regular file for reading; `InvalidInput` for anything else.
    pub fn open_file(&self) -> io::Result<File> {
        if self.metadata.kind != Kind::File {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // The magic link names the inode that was checked, whatever its path has become since.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        Ok(File::from(open(self.magic_link(), flags, Mode::empty())?))
    }

    /// Opens a directory for reading; `NotADirectory` for anything else.
    pub fn open_directory(&self) -> io::Result<Directory> {
        if self.metadata.kind != Kind::Directory {
            return Err(Errno::NOTDIR.into());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Directory::new(openat(&self.fd, ".", flags, Mode::empty())?))
    }

    /// Gives the owner these rights on a directory that has them not: without them its content cannot be removed or
    /// seen.
    pub(crate) fn unlock_directory(&self, rights: u32) -> io::Result<()> {
        if self.metadata.mode & rights != rights {
            // fchmod refuses O_PATH descriptors, and chmod by name could be led astray.
            rustix::fs::chmod(self.magic_link(), Mode::from_raw_mode(self.metadata.mode | rights))?;
        }
        Ok(())
    }

    fn magic_link(&self) -> String {
        format!("/proc/self/fd/{}", self.fd.as_fd().as_raw_fd())
    }
}

impl Metadata {
    /// When the content last changed, in Unix seconds.
    pub fn modified_s(&self) -> f64 {
        // Microseconds are exact in an f64 until the year 2255.
        (self.modified_ns / 1_000) as f64 / 1e6
    }
}

impl From<FileType> for Kind {
    fn from(file_type: FileType) -> Self {
        match file_type {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::Link,
            _ => Self::Special,
        }
    }
}

impl From<rustix::fs::Stat> for Metadata {
    fn from(stat: rustix::fs::Stat) -> Self {
        Self {
            kind: FileType::from_raw_mode(stat.st_mode).into(),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            // The kernel counts in this unit, whatever the file system's blocks are.
            allocated_bytes: u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512),
            mode: stat.st_mode & 0o7777,
            links: stat.st_nlink,
            device: stat.st_dev,
            inode: stat.st_ino,
            modified_ns: i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec),
            changed_ns: i128::from(stat.st_ctime) * 1_000_000_000 + i128::from(stat.st_ctime_nsec),
        }
    }
}

impl Metadata {
    /// What the kernel says about an open file.
    pub fn of(file: impl AsFd) -> io::Result<Self> {
        Ok(fstat(file)?.into())
    }
}
