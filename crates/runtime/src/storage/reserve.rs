//! A file of nothing, `<data>/reserve`, whose blocks are the server's. When the disk is full all the same, the server gives
//! them back and uses them to end what runs: turns, sessions, records of the audit log. Nothing new begins until there is
//! room and the file is made again. Several servers on one data directory share the file.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use palisade_protocol::limits::STORAGE_RESERVE_FILE_BYTES;
use palisade_workspace::{Footprint, Volume, WorkspaceError};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::share::reserved;

const CHUNK_BYTES: usize = 1024 * 1024;

/// The disk that the server itself writes to.
pub(crate) struct Disk {
    footprint: Footprint,
    reserve: PathBuf,
    /// As the latest look found it.
    is_low: AtomicBool,
}

impl Disk {
    pub(crate) fn new(data_dir: &Path) -> Self {
        Self {
            footprint: Footprint::new(data_dir, Vec::new()),
            reserve: data_dir.join("reserve"),
            is_low: AtomicBool::new(false),
        }
    }

    /// Whether the disk is so full that only what ends something may be written. Asked again only where the latest look said
    /// so: there may be room since then.
    pub(crate) fn is_low(&self) -> bool {
        self.is_low.load(Ordering::Relaxed) && self.check().is_err()
    }

    /// Whether something new may begin. Asks the disk.
    pub(crate) fn check(&self) -> Result<(), WorkspaceError> {
        let volume = self.footprint.volumes()?.shared;
        if self.is_low_at(&volume) { Err(WorkspaceError::DiskFull) } else { Ok(()) }
    }

    /// Looks at the disk, and gives the reserve back or makes it again. Whether it was given back just now.
    pub(crate) fn look(&self) -> Result<bool, WorkspaceError> {
        let volume = self.footprint.volumes()?.shared;
        let is_low = self.is_low_at(&volume);
        let is_held = self.is_held(&volume);
        let is_given_back = is_held && volume.free.bytes < floor(&volume) / 2;
        if is_given_back {
            self.give_back();
        } else if !is_held && !is_low {
            self.make(&volume);
        }
        self.is_low.store(is_low || is_given_back, Ordering::Relaxed);
        Ok(is_given_back)
    }

    fn is_low_at(&self, volume: &Volume) -> bool {
        let needed = if self.is_held(volume) { floor(volume) } else { floor(volume) + bytes(volume) };
        volume.free.bytes < needed || volume.free.files == 0
    }

    fn is_held(&self, volume: &Volume) -> bool {
        self.reserve.metadata().is_ok_and(|found| found.blocks() * 512 >= bytes(volume))
    }

    fn give_back(&self) {
        match std::fs::remove_file(&self.reserve) {
            Ok(()) => tracing::error!(
                file = %self.reserve.display(),
                "the disk is full: the server gave itself the reserve and begins nothing new until there is room"
            ),
            // Another server was first.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::error!(file = %self.reserve.display(), %error, "the disk is full and the reserve cannot be given back");
            }
        }
    }

    fn make(&self, volume: &Volume) {
        match write_zeros(&self.reserve, bytes(volume)) {
            Ok(()) => {
                tracing::info!(file = %self.reserve.display(), bytes = bytes(volume), "the disk has a reserve")
            }
            Err(error) => {
                tracing::warn!(file = %self.reserve.display(), %error, "the reserve was not made");
                // A part of it is none.
                let _ = std::fs::remove_file(&self.reserve);
            }
        }
    }
}

/// Below it nothing new begins.
fn floor(volume: &Volume) -> u64 {
    reserved(volume).bytes / 4
}

/// The reserve's size.
fn bytes(volume: &Volume) -> u64 {
    STORAGE_RESERVE_FILE_BYTES.min(volume.total.bytes / 20)
}

fn write_zeros(path: &Path, bytes: u64) -> io::Result<()> {
    let mut file = File::options().write(true).create(true).truncate(true).open(path)?;
    match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        Err(Errno::OPNOTSUPP) => {
            let chunk = vec![0; CHUNK_BYTES];
            let mut left = bytes;
            while left > 0 {
                let now = left.min(CHUNK_BYTES as u64);
                file.write_all(&chunk[..now as usize])?;
                left -= now;
            }
            file.sync_data()
        }
        allocated => Ok(allocated?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_takes_its_blocks_and_gives_them_back() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::new(folder.path());
        let volume = disk.footprint.volumes().unwrap().shared;
        assert!(!disk.is_held(&volume));
        assert!(!disk.look().unwrap() && disk.is_held(&volume), "there is room: it is made");
        assert!(!disk.is_low() && disk.check().is_ok());
        disk.give_back();
        assert!(!disk.is_held(&volume) && !disk.reserve.exists());
        // Longer than it takes blocks is not held.
        File::create(&disk.reserve).unwrap().set_len(bytes(&volume)).unwrap();
        assert!(!disk.is_held(&volume));
        disk.look().unwrap();
        assert!(disk.is_held(&volume));
    }
}
