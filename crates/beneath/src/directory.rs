//! An open directory and the names directly in it. Every name is a single component and is never followed
//! when it is a link, so no call here can reach anything outside of this one directory.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{
    AtFlags, Mode, OFlags, RawDir, RenameFlags, SeekFrom, mkdirat, openat, renameat, renameat_with, statat,
    unlinkat,
};
use rustix::io::Errno;

use crate::{Kind, Metadata, Node};

/// One `getdents` call's worth of names.
const NAMES_BUFFER_BYTES: usize = 32 * 1024;

/// Whether a reader of names wants more of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visit {
    /// Go on.
    More,
    /// Enough.
    Stop,
}

/// A directory, open for reading.
#[derive(Debug)]
pub struct Directory {
    fd: OwnedFd,
}

impl Directory {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self { fd }
    }

    /// Visits every name once, in no order; `.` and `..` are left out. What changes meanwhile may or may not
    /// be seen.
    pub fn read(&self, mut visit: impl FnMut(&OsStr, Kind) -> Visit) -> io::Result<()> {
        self.read_from(0, |name, kind, _| visit(name, kind))
    }

    /// The same from a place on, which is 0 or what an earlier visit of this directory got: the place behind its name.
    pub(crate) fn read_from(
        &self,
        place: u64,
        mut visit: impl FnMut(&OsStr, Kind, u64) -> Visit,
    ) -> io::Result<()> {
        rustix::fs::seek(&self.fd, SeekFrom::Start(place))?;
        let mut buffer = vec![MaybeUninit::uninit(); NAMES_BUFFER_BYTES];
        let mut names = RawDir::new(&self.fd, &mut buffer);
        while let Some(entry) = names.next() {
            let entry = match entry {
                // The directory itself was removed while it was read: it has no more names.
                Err(Errno::NOENT) => return Ok(()),
                entry => entry?,
            };
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            let kind = match entry.file_type() {
                // Some file systems do not say; then it costs one more call.
                rustix::fs::FileType::Unknown => match self.metadata(name) {
                    Ok(metadata) => metadata.kind,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                },
                known => known.into(),
            };
            if visit(name, kind, entry.next_entry_cookie()) == Visit::Stop {
                break;
            }
        }
        Ok(())
    }

    /// What lies at `name`; a link is itself.
    pub fn metadata(&self, name: &OsStr) -> io::Result<Metadata> {
        Ok(statat(&self.fd, single(name)?, AtFlags::SYMLINK_NOFOLLOW)?.into())
    }

    /// What lies at `name`, unopened; a link is itself.
    pub fn look_up(&self, name: &OsStr) -> io::Result<Node> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Node::new(openat(&self.fd, single(name)?, flags, Mode::empty())?)
    }

    /// The directory at `name`; a link fails with `ELOOP`, anything else with `ENOTDIR`.
    pub fn enter(&self, name: &OsStr) -> io::Result<Self> {
        let node = self.look_up(name)?;
        if node.metadata().kind == Kind::Link {
            return Err(Errno::LOOP.into());
        }
        node.open_directory()
    }

    /// Makes a directory; `false` when something already has this name.
    pub fn make(&self, name: &OsStr) -> io::Result<bool> {
        match mkdirat(&self.fd, single(name)?, Mode::from_raw_mode(0o755)) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The directory at `name`, made if there is nothing yet.
    pub fn make_and_enter(&self, name: &OsStr) -> io::Result<Self> {
        self.make(name)?;
        self.enter(name)
    }

    /// Makes a new, empty file, open for writing. Whatever already has this name, a planted link too, is an
    /// error.
    pub fn create_file(&self, name: &OsStr, mode: u32) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(openat(&self.fd, single(name)?, flags, Mode::from_raw_mode(mode))?))
    }

    /// Renames within this directory, replacing a file at `to`, atomically.
    pub fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        Ok(renameat(&self.fd, single(from)?, &self.fd, single(to)?)?)
    }

    /// Renames within this directory to a name that nothing has yet: `EEXIST` if something has, whoever made it.
    pub fn rename_new(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        let flags = RenameFlags::NOREPLACE;
        Ok(renameat_with(&self.fd, single(from)?, &self.fd, single(to)?, flags)?)
    }

    /// Removes a name that is not a directory; a link is removed, not what it points to.
    pub fn remove_file(&self, name: &OsStr) -> io::Result<()> {
        Ok(unlinkat(&self.fd, single(name)?, AtFlags::empty())?)
    }

    /// Removes an empty directory.
    pub fn remove_empty_dir(&self, name: &OsStr) -> io::Result<()> {
        Ok(unlinkat(&self.fd, single(name)?, AtFlags::REMOVEDIR)?)
    }

    /// Writes the directory's names to the disk.
    pub fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.fd)?)
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Lets only a single component through: with a slash or `..` in it a name would leave the directory.
fn single(name: &OsStr) -> io::Result<&OsStr> {
    match name.as_bytes() {
        b"" | b"." | b".." => Err(Errno::INVAL.into()),
        bytes if bytes.contains(&b'/') => Err(Errno::INVAL.into()),
        _ => Ok(name),
    }
}
