//! Removing a tree that its owner may keep changing. It walks with one open directory at a time, so neither
//! the stack nor the open files grow with the depth, and it never follows a link or leaves the file system.

use std::ffi::{OsStr, OsString};
use std::io;

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

use crate::{Directory, Kind, Metadata, Visit};

/// The most names one removal takes away: the bound against a tree that grows as fast as it is removed.
pub const REMOVED_ENTRIES_MAX: u64 = 50_000_000;

/// A directory above the current one: its identity, checked on the way back up, and the name below it that is
/// being removed.
struct Above {
    directory: Metadata,
    name: OsString,
}

pub(crate) fn same(one: &Metadata, other: &Metadata) -> bool {
    (one.device, one.inode) == (other.device, other.inode)
}

impl Directory {
    /// Removes the directory at `name` and everything in it. Directories without rights for their owner are
    /// given them first. A mount inside is an error (`EXDEV`), and so is a directory that somebody moves away
    /// while it is emptied (`EAGAIN`).
    pub fn remove_tree(&self, name: &OsStr) -> io::Result<()> {
        let mut budget = REMOVED_ENTRIES_MAX;
        let top = self.enter_to_remove(name)?;
        let device = Metadata::of(&top)?.device;
        let mut above: Vec<Above> = Vec::new();
        let mut current = top;
        loop {
            match current.remove_until_full_directory(&mut budget)? {
                Some(full) => {
                    let here = Metadata::of(&current)?;
                    let below = current.enter_to_remove(&full)?;
                    if Metadata::of(&below)?.device != device {
                        return Err(Errno::XDEV.into());
                    }
                    above.push(Above { directory: here, name: full });
                    current = below;
                }
                None => match above.pop() {
                    Some(step) => {
                        current = current.back_up_to(&step)?;
                        current.remove_emptied(&step.name)?;
                    }
                    None => break,
                },
            }
        }
        self.remove_empty_dir(name)
    }

    /// Takes back what `Root::create_dir_all` made: removes this directory and those above it, `names` from the
    /// bottom up, as long as each is empty and still where it was made.
    pub fn remove_made<'n>(&self, names: impl IntoIterator<Item = &'n OsStr>) -> io::Result<()> {
        let mut above: Option<Self> = None;
        for name in names {
            let made = above.as_ref().unwrap_or(self);
            let parent = made.parent()?;
            if !same(&parent.metadata(name)?, &Metadata::of(made)?) {
                return Err(Errno::AGAIN.into());
            }
            parent.remove_empty_dir(name)?;
            above = Some(parent);
        }
        Ok(())
    }

    /// Removes files, links and empty directories until a directory with content turns up.
    fn remove_until_full_directory(&self, budget: &mut u64) -> io::Result<Option<OsString>> {
        let mut full = None;
        let mut failed = None;
        self.read(|name, kind| {
            if *budget == 0 {
                failed = Some(io::Error::from(Errno::AGAIN));
                return Visit::Stop;
            }
            *budget -= 1;
            let removed =
                if kind == Kind::Directory { self.remove_empty_dir(name) } else { self.remove_file(name) };
            match removed.map_err(|e| (Errno::from_io_error(&e), e)) {
                Ok(()) | Err((Some(Errno::NOENT), _)) => Visit::More,
                // NOTDIR and ISDIR: it was swapped for the other kind meanwhile; the next pass sees what it is.
                Err((Some(Errno::NOTDIR | Errno::ISDIR), _)) => Visit::More,
                Err((Some(Errno::NOTEMPTY | Errno::EXIST), _)) => {
                    full = Some(name.to_owned());
                    Visit::Stop
                }
                Err((_, error)) => {
                    failed = Some(error);
                    Visit::Stop
                }
            }
        })?;
        match failed {
            Some(error) => Err(error),
            None => Ok(full),
        }
    }

    fn enter_to_remove(&self, name: &OsStr) -> io::Result<Self> {
        let node = self.look_up(name)?;
        if node.metadata().kind == Kind::Directory {
            node.unlock_directory(0o700)?;
        }
        node.open_directory()
    }

    /// `..`, but only if that is the directory we came from.
    fn back_up_to(&self, step: &Above) -> io::Result<Self> {
        let parent = self.parent()?;
        if !same(&Metadata::of(&parent)?, &step.directory) {
            return Err(Errno::AGAIN.into());
        }
        Ok(parent)
    }

    /// `..`, wherever that is by now: for callers that check what they got.
    pub(crate) fn parent(&self) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self::new(openat(self, "..", flags, Mode::empty())?))
    }

    /// Removes a directory that was just emptied; if it has been filled again or replaced, the next pass over
    /// this directory meets it again.
    fn remove_emptied(&self, name: &OsStr) -> io::Result<()> {
        match self.remove_empty_dir(name).map_err(|e| (Errno::from_io_error(&e), e)) {
            Ok(()) | Err((Some(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR), _)) => Ok(()),
            Err((_, error)) => Err(error),
        }
    }
}
