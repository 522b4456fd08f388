//! Reading. A file is judged by its opened descriptor, so its length and tag are those of the very bytes that
//! follow; a FIFO, a socket or a device is refused without being opened.

use std::fs::File;
use std::io::IoSliceMut;

use bytes::Bytes;
use palisade_beneath::{Kind, Metadata};
use palisade_protocol::scope::Scope;
use palisade_protocol::{Access, WorkspacePath};
use rustix::io::{ReadWriteFlags, preadv2};

use crate::condition::Validators;
use crate::list::{Listing, Page, list_directory};
use crate::{Workspace, WorkspaceError};

/// A file of this size is read when it is opened: another trip to a blocking thread costs more.
const READ_AT_ONCE_BYTES_MAX: usize = 64 * 1024;

/// What was found at a path.
#[derive(Debug)]
pub enum Opened {
    /// A regular file, open for reading.
    File(ReadFile),
    /// A directory, listed.
    Directory(Listing),
}

/// A regular file, open for reading. Whoever streams it sends at most `size` bytes, even if it grows.
#[derive(Debug)]
pub struct ReadFile {
    /// The file, at its start.
    pub file: File,
    /// The whole of a small one, which is read at once because it is open.
    pub content: Option<Bytes>,
    /// Its length in bytes when it was opened.
    pub size: u64,
    /// Unix seconds.
    pub modified: f64,
    /// Its tag, another one whenever the file was written, replaced or changed its rights, and its date.
    pub validators: Validators,
}

impl Workspace {
    /// Opens what lies at `path`: a file to be read, or a directory with this page of its listing.
    pub fn open_read(
        &self,
        scope: &Scope,
        path: &WorkspacePath,
        page: &Page,
    ) -> Result<Opened, WorkspaceError> {
        if scope.access(path) == Access::Ancestor {
            return self.list_ancestor(scope, path, page).map(Opened::Directory);
        }
        let place = self.readable(scope, path)?;
        let failed = |error| WorkspaceError::from_io("opening", path, error);
        let node = place.root.look_up(place.below()).map_err(failed)?;
        match node.metadata().kind {
            Kind::File => {
                let file = node.open_file().map_err(failed)?;
                let metadata = Metadata::of(&file).map_err(failed)?;
                Ok(Opened::File(self.read_file(file, &metadata, ReadWriteFlags::empty())))
            }
            Kind::Directory => {
                let directory = node.open_directory().map_err(failed)?;
                list_directory(&place.root, place.below(), &directory, page)
                    .map(Opened::Directory)
                    .map_err(failed)
            }
            Kind::Special => Err(WorkspaceError::NotRegular(path.clone())),
            Kind::Link => Err(WorkspaceError::NotFound(path.clone())),
        }
    }

    /// The file at `path`, where the kernel has its name and, if it is small, its content in memory, so that no disk is
    /// waited for. `None` says only that [`Self::open_read`] has to be asked.
    pub fn open_in_memory(&self, scope: &Scope, path: &WorkspacePath) -> Option<ReadFile> {
        let node = self.readable_in_memory(scope, path).filter(|node| node.metadata().kind == Kind::File)?;
        let file = node.open_file().ok()?;
        let metadata = Metadata::of(&file).ok()?;
        let file = self.read_file(file, &metadata, ReadWriteFlags::NOWAIT);
        (file.content.is_some() || file.size > READ_AT_ONCE_BYTES_MAX as u64).then_some(file)
    }

    fn read_file(&self, file: File, metadata: &Metadata, how: ReadWriteFlags) -> ReadFile {
        ReadFile {
            content: small_content(&file, metadata.size, how),
            size: metadata.size,
            modified: metadata.modified_s(),
            validators: self.changes.validators(metadata),
            file,
        }
    }
}

/// `None` for what is not small, and for what changed between the two looks at it: then the reader finds out.
fn small_content(file: &File, size: u64, how: ReadWriteFlags) -> Option<Bytes> {
    let size = usize::try_from(size).ok().filter(|size| *size <= READ_AT_ONCE_BYTES_MAX)?;
    let mut content = vec![0; size];
    // Of a file in memory one read gives all; whatever gives less is left to who streams it.
    let read = preadv2(file, &mut [IoSliceMut::new(&mut content)], 0, how).ok()?;
    (read == size).then(|| content.into())
}
