//! What a tree takes of the disk, though its owner may keep changing it. Like the removal it walks with one open
//! directory at a time, so neither the stack nor the open files grow with the depth, and never follows a link.

use std::ffi::{OsStr, OsString};
use std::io;

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

use crate::remove::same;
use crate::{Directory, Kind, Metadata, Visit};

/// Names looked at in one measurement.
pub const MEASURED_ENTRIES_MAX: u64 = 50_000_000;
/// Levels that are gone down to.
pub const MEASURED_LEVELS_MAX: usize = 1_000_000;

/// A directory above the current one: its identity, checked on the way back up, and where its reading goes on.
struct Above {
    directory: Metadata,
    place: u64,
}

impl Directory {
    /// The bytes allocated to everything below this directory and on its file system. A file with several names counts
    /// once when all of them are here. What vanishes meanwhile is not counted; a directory that is moved away while it
    /// is measured is an error (`EAGAIN`), and so is a tree over the bounds (`E2BIG`): both would hide something.
    pub fn allocated_bytes(&self) -> io::Result<u64> {
        let top = Metadata::of(self)?;
        let mut left = MEASURED_ENTRIES_MAX;
        // In shares of a byte, because the names of one file are met one by one.
        let mut bytes = 0.0;
        let mut above: Vec<Above> = Vec::new();
        // The caller's descriptor may be O_PATH's or somebody's reading place.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut current = Self::new(openat(self, ".", flags, Mode::empty())?);
        let mut place = 0;
        loop {
            match current.add_until_directory(place, &mut left, &mut bytes)? {
                Some((name, next)) => {
                    place = next;
                    let below = match current.enter_to_measure(&name) {
                        Ok(below) => below,
                        Err(error) if is_gone(&error) => continue,
                        Err(error) => return Err(error),
                    };
                    let found = Metadata::of(&below)?;
                    if found.device != top.device {
                        continue;
                    }
                    if above.len() == MEASURED_LEVELS_MAX {
                        return Err(Errno::TOOBIG.into());
                    }
                    bytes += found.allocated_bytes as f64;
                    above.push(Above { directory: Metadata::of(&current)?, place });
                    (current, place) = (below, 0);
                }
                None => match above.pop() {
                    Some(step) => {
                        current = current.parent()?;
                        if !same(&Metadata::of(&current)?, &step.directory) {
                            return Err(Errno::AGAIN.into());
                        }
                        place = step.place;
                    }
                    None => break,
                },
            }
        }
        Ok(bytes as u64)
    }

    /// A directory that its own owner may not enter is opened to its owner first: it would be a place to hide things in.
    fn enter_to_measure(&self, name: &OsStr) -> io::Result<Self> {
        let node = self.look_up(name)?;
        if node.metadata().kind == Kind::Directory {
            node.unlock_directory(0o500)?;
        }
        node.open_directory()
    }

    /// Adds up what is no directory, from a place on, until a directory turns up; where the reading goes on behind it.
    fn add_until_directory(
        &self,
        place: u64,
        left: &mut u64,
        bytes: &mut f64,
    ) -> io::Result<Option<(OsString, u64)>> {
        let mut directory = None;
        self.read_from(place, |name, kind, next| {
            if *left == 0 {
                return Visit::Stop;
            }
            *left -= 1;
            if kind == Kind::Directory {
                directory = Some((name.to_owned(), next));
                return Visit::Stop;
            }
            if let Ok(found) = self.metadata(name) {
                *bytes += found.allocated_bytes as f64 / found.links.max(1) as f64;
            }
            Visit::More
        })?;
        if *left == 0 { Err(Errno::TOOBIG.into()) } else { Ok(directory) }
    }
}

/// Gone or replaced since its name was read.
fn is_gone(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NOTDIR))
}
