//! Reading. A file is judged by its opened descriptor, so its length and tag are those of the very bytes that
//! follow; a FIFO, a socket or a device is refused without being opened.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use bytes::Bytes;
use palisade_beneath::{Kind, Metadata};
use palisade_protocol::scope::Scope;
use palisade_protocol::{Access, WorkspacePath};

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
    /// A strong tag with its quotes: another one whenever the file was written, replaced or changed its rights.
    pub etag: String,
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
                Ok(Opened::File(ReadFile {
                    content: small_content(&file, metadata.size),
                    size: metadata.size,
                    modified: metadata.modified_s(),
                    etag: etag(&metadata),
                    file,
                }))
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
}

/// `None` for what is not small, and for what changed between the two looks at it: then the reader finds out.
fn small_content(file: &File, size: u64) -> Option<Bytes> {
    let mut content = vec![0; usize::try_from(size).ok().filter(|size| *size <= READ_AT_ONCE_BYTES_MAX)?];
    file.read_exact_at(&mut content, 0).ok()?;
    Some(content.into())
}

/// The change time is part of it, because a writer can set the modification time back.
fn etag(metadata: &Metadata) -> String {
    format!(
        "\"{:x}-{:x}-{:x}-{:x}\"",
        metadata.inode, metadata.size, metadata.modified_ns, metadata.changed_ns
    )
}
