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

/// What files take of a disk, or may take: blocks, and the places in its table of files, which are used up as well.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// What is allocated; a hole takes nothing.
    pub bytes: u64,
    /// Inodes: files, directories, links and everything else that has a name.
    pub files: u64,
}

impl Amount {
    /// Each by itself, never beyond the type's end.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        self.both(other, u64::saturating_add)
    }

    /// Each by itself, never below nothing.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        self.both(other, u64::saturating_sub)
    }

    /// The smaller of each.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        self.both(other, u64::min)
    }

    /// Whether there is as much of each.
    pub fn covers(self, other: Self) -> bool {
        self.bytes >= other.bytes && self.files >= other.files
    }

    fn both(self, other: Self, of: impl Fn(u64, u64) -> u64) -> Self {
        Self { bytes: of(self.bytes, other.bytes), files: of(self.files, other.files) }
    }
}

/// A sum in shares, because the names of one file are met one by one.
#[derive(Default)]
struct Sum {
    bytes: f64,
    files: f64,
}

impl Sum {
    fn add(&mut self, found: &Metadata) {
        // A directory has as many links as there are ways to it from its own content.
        let names = if found.kind == Kind::Directory { 1 } else { found.links.max(1) };
        self.bytes += found.allocated_bytes as f64 / names as f64;
        self.files += 1.0 / names as f64;
    }
}

/// A directory above the current one: its identity, checked on the way back up, and where its reading goes on.
struct Above {
    directory: Metadata,
    place: u64,
}

impl Directory {
    /// What everything below this directory and on its file system takes. A file with several names counts
    /// once when all of them are here. What vanishes meanwhile is not counted; a directory that is moved away while it
    /// is measured is an error (`EAGAIN`), and so is a tree over the bounds (`E2BIG`): both would hide something.
    pub fn amount(&self) -> io::Result<Amount> {
        let top = Metadata::of(self)?;
        let mut left = MEASURED_ENTRIES_MAX;
        let mut sum = Sum::default();
        let mut above: Vec<Above> = Vec::new();
        // The caller's descriptor may be O_PATH's or somebody's reading place.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut current = Self::new(openat(self, ".", flags, Mode::empty())?);
        let mut place = 0;
        loop {
            match current.add_until_directory(place, &mut left, &mut sum)? {
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
                    sum.add(&found);
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
        // Thirds add up to a little less than one.
        Ok(Amount { bytes: sum.bytes.round() as u64, files: sum.files.round() as u64 })
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
        sum: &mut Sum,
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
                sum.add(&found);
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
