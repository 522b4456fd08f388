//! What a workspace takes of the disk, and what the disk has left. Numbers only: what to do about them is for the
//! runtime to say.

use std::path::Path;

use palisade_beneath::Metadata;
use rustix::fs::{StatVfs, fstatvfs, statvfs};
use rustix::io::Errno;

use crate::{Workspace, WorkspaceError};

/// How often a measurement begins again when directories were moved under it.
const MEASURE_TRIES_MAX: u32 = 3;

/// The file system below a workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Volume {
    /// Its size in bytes: a project quota's limit, where the file system has one on this directory.
    pub total_bytes: u64,
    /// What may still be written.
    pub free_bytes: u64,
    /// Whether it is the workspace's alone: a file system of its own, or a project quota. Then what is not free is
    /// what the workspace takes, and nobody needs to measure it.
    pub is_own: bool,
}

impl Workspace {
    /// Asks the file system; this costs microseconds.
    pub fn volume(&self) -> Result<Volume, WorkspaceError> {
        let failed = |source| WorkspaceError::Io {
            action: "asking for the free space of",
            path: String::new(),
            source,
        };
        let here = fstatvfs(&self.root).map_err(|error| failed(error.into()))?;
        let above = self.dir.parent().unwrap_or(Path::new("/"));
        // Under a project quota the numbers of this one directory differ; on a file system of its own the id does.
        let around = statvfs(above).map_err(|error| failed(error.into()))?;
        let is_own = (here.f_fsid, here.f_blocks) != (around.f_fsid, around.f_blocks)
            || self.device().map_err(failed)? != device_of(above).map_err(failed)?;
        Ok(Volume {
            total_bytes: bytes(&here, here.f_blocks),
            free_bytes: bytes(&here, here.f_bavail),
            is_own,
        })
    }

    /// Measures what is allocated to everything in the workspace: seconds for millions of files.
    pub fn measure(&self) -> Result<u64, WorkspaceError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.root.directory(Path::new("")).and_then(|top| top.allocated_bytes()) {
                Err(error)
                    if Errno::from_io_error(&error) == Some(Errno::AGAIN) && tries < MEASURE_TRIES_MAX => {}
                measured => {
                    let action = "measuring";
                    return measured.map_err(|source| WorkspaceError::Io {
                        action,
                        path: String::new(),
                        source,
                    });
                }
            }
        }
    }

    fn device(&self) -> std::io::Result<u64> {
        Ok(Metadata::of(&self.root)?.device)
    }
}

fn device_of(path: &Path) -> std::io::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    Ok(std::fs::metadata(path)?.dev())
}

fn bytes(volume: &StatVfs, blocks: u64) -> u64 {
    blocks.saturating_mul(volume.f_frsize)
}
