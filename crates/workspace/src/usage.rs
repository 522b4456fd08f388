//! What a tenant's folders take of the disk, and what the disk has left. Numbers only: what to do about them is for the
//! runtime to say.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use palisade_beneath::{Amount, Root};
use rustix::fs::{StatVfs, statvfs};
use rustix::io::Errno;

use crate::WorkspaceError;

/// How often a measurement begins again when directories were moved under it.
const MEASURE_TRIES_MAX: u32 = 3;

/// A file system, or what a project quota makes look like one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Volume {
    /// Its size: a project quota's limit, where the file system has one on this directory. File systems that do not
    /// count files have no end of them.
    pub total: Amount,
    /// What may still be written.
    pub free: Amount,
}

impl Volume {
    fn of(found: &StatVfs) -> Self {
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        let files = |number: u64| if found.f_files == 0 { u64::MAX } else { number };
        Self {
            total: Amount { bytes: bytes(found.f_blocks), files: files(found.f_files) },
            free: Amount { bytes: bytes(found.f_bavail), files: files(found.f_favail) },
        }
    }

    /// What is taken of it.
    pub fn used(&self) -> Amount {
        self.total.minus(self.free)
    }
}

/// The file systems below a tenant's folders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volumes {
    /// The one that all tenants share.
    pub shared: Volume,
    /// Whether any of the tenant's folders is on it.
    pub uses_shared: bool,
    /// Those that are the tenant's alone, each once: what is not free there is what the tenant takes, and nobody needs
    /// to measure it.
    pub own: Vec<Volume>,
}

/// A tenant's folders. A folder that is not there takes nothing.
#[derive(Debug, Clone)]
pub struct Footprint {
    around: PathBuf,
    folders: Vec<PathBuf>,
}

/// Two folders with the same are on the same file system and under the same quota.
type Identity = (u64, u64, u64, u64);

impl Footprint {
    /// `around` is a folder of the server's, on the disk that all tenants share.
    pub fn new(around: impl Into<PathBuf>, folders: Vec<PathBuf>) -> Self {
        Self { around: around.into(), folders }
    }

    /// Asks the file systems; this costs microseconds.
    pub fn volumes(&self) -> Result<Volumes, WorkspaceError> {
        let (around, shared) = looked_up(&self.around).map_err(failed("asking for the free space of"))?;
        let mut volumes = Volumes { shared, uses_shared: false, own: Vec::new() };
        let mut known = Vec::new();
        for folder in &self.folders {
            match looked_up(folder) {
                Ok((identity, _)) if identity == around => volumes.uses_shared = true,
                Ok((identity, volume)) if !known.contains(&identity) => {
                    known.push(identity);
                    volumes.own.push(volume);
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed("asking for the free space of")(error)),
            }
        }
        Ok(volumes)
    }

    /// Measures what the tenant takes of the shared disk: seconds for millions of files.
    pub fn measure(&self) -> Result<Amount, WorkspaceError> {
        let (around, _) = looked_up(&self.around).map_err(failed("asking for the free space of"))?;
        let mut sum = Amount::default();
        for folder in &self.folders {
            match looked_up(folder) {
                Ok((identity, _)) if identity == around => {
                    sum = sum.plus(measure(folder).map_err(failed("measuring"))?);
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed("measuring")(error)),
            }
        }
        Ok(sum)
    }

    /// The device of the shared disk, as files name it.
    pub fn shared_device(&self) -> io::Result<u64> {
        Ok(std::fs::metadata(&self.around)?.dev())
    }
}

fn measure(folder: &Path) -> io::Result<Amount> {
    let mut tries = 0;
    loop {
        tries += 1;
        match Root::open(folder).and_then(|root| root.directory(Path::new(""))).and_then(|top| top.amount()) {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::AGAIN) && tries < MEASURE_TRIES_MAX => {
            }
            measured => return measured,
        }
    }
}

/// Under a project quota the numbers of one directory differ; on a file system of its own the ids do.
fn looked_up(folder: &Path) -> io::Result<(Identity, Volume)> {
    let found = statvfs(folder)?;
    let device = std::fs::metadata(folder)?.dev();
    Ok(((device, found.f_fsid, found.f_blocks, found.f_files), Volume::of(&found)))
}

fn failed(action: &'static str) -> impl Fn(io::Error) -> WorkspaceError {
    move |source| WorkspaceError::Io { action, path: String::new(), source }
}
