//! A directory as one zip. It is measured before the first byte leaves, so that what is too large is refused
//! with an answer and not with a broken stream; while streaming the same bounds hold again, because the
//! directory may change.

use std::io::{Read as _, Write};
use std::path::{Path, PathBuf};

use palisade_beneath::{Kind, Metadata, Root};
use palisade_protocol::WorkspacePath;
use palisade_protocol::scope::Scope;
use zip::result::ZipError;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use crate::tree::{self, Leaf, WalkError};
use crate::{Workspace, WorkspaceError, list};

/// Entries of one archive. With these two bounds no archive needs the Zip64 form, which some readers lack.
pub const ARCHIVE_ENTRIES_MAX: usize = 50_000;
/// Content of one archive before compression, in bytes; a sparse file counts with its full length.
pub const ARCHIVE_BYTES_MAX: u64 = 4_000_000_000;

/// A directory that fits into an archive.
#[derive(Debug)]
pub struct Archive {
    root: Root,
    base: PathBuf,
    path: WorkspacePath,
    leaves: Vec<Leaf>,
}

impl Workspace {
    /// Measures the directory at `path` for an archive of it; `Archive::write_zip` then streams it.
    pub fn archive(&self, scope: &Scope, path: &WorkspacePath) -> Result<Archive, WorkspaceError> {
        let place = self.readable(scope, path)?;
        let over = |bound| WorkspaceError::ArchiveTooLarge { path: path.clone(), bound };
        let node = place
            .root
            .look_up(place.below())
            .map_err(|error| WorkspaceError::from_io("opening", path, error))?;
        if node.metadata().kind != Kind::Directory {
            return Err(WorkspaceError::NotDirectory(path.clone()));
        }
        let base = place.below().to_owned();
        let leaves = tree::walk(&place.root, &base, ARCHIVE_ENTRIES_MAX, "50,000 entries").map_err(
            |error| match error {
                WalkError::Over(bound) => over(bound),
                WalkError::Io(error) => WorkspaceError::from_io("listing", path, error),
            },
        )?;
        let bytes = leaves.iter().filter(|leaf| !leaf.is_directory).map(|leaf| leaf.metadata.size);
        if bytes.fold(0, u64::saturating_add) > ARCHIVE_BYTES_MAX {
            return Err(over("4,000,000,000 bytes"));
        }
        Ok(Archive { root: place.root, base, path: path.clone(), leaves })
    }
}

impl Archive {
    /// Streams the archive. What vanished since it was measured is left out; a file that grew is cut at its
    /// measured length.
    pub fn write_zip(self, out: impl Write) -> Result<(), WorkspaceError> {
        let failed = |error| WorkspaceError::Archive(self.path.clone(), error);
        let mut zip = ZipWriter::new_stream(out);
        for leaf in &self.leaves {
            let name = entry_name(&leaf.path);
            if leaf.is_directory {
                zip.add_directory(name, options(&leaf.metadata)).map_err(|e| failed(io_error(e)))?;
            } else if let Ok(file) =
                self.root.look_up(&self.base.join(&leaf.path)).and_then(|node| node.open_file())
            {
                zip.start_file(name, options(&leaf.metadata)).map_err(|e| failed(io_error(e)))?;
                std::io::copy(&mut file.take(leaf.metadata.size), &mut zip).map_err(failed)?;
            }
        }
        zip.finish().and_then(|stream| Ok(stream.into_inner().flush()?)).map_err(|e| failed(io_error(e)))
    }
}

fn options(metadata: &Metadata) -> SimpleFileOptions {
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .unix_permissions(metadata.mode & 0o777);
    match dos_time(metadata) {
        Some(time) => options.last_modified_time(time),
        None => options,
    }
}

/// A zip knows the years 1980 to 2107, in UTC here because nobody said which zone.
fn dos_time(metadata: &Metadata) -> Option<zip::DateTime> {
    let second = i64::try_from(metadata.modified_ns / 1_000_000_000).ok()?;
    let at = jiff::Timestamp::from_second(second).ok()?.to_zoned(jiff::tz::TimeZone::UTC);
    let small = |number: i8| u8::try_from(number).ok();
    zip::DateTime::from_date_and_time(
        u16::try_from(at.year()).ok()?,
        small(at.month())?,
        small(at.day())?,
        small(at.hour())?,
        small(at.minute())?,
        small(at.second())?,
    )
    .ok()
}

/// A name that unpacks to itself everywhere: what is not UTF-8, and the backslash that Windows takes for a
/// separator, are percent-encoded.
fn entry_name(path: &Path) -> String {
    let names = path.iter().map(|name| match name.to_str() {
        Some(text) if !text.contains('\\') => text.to_owned(),
        _ => list::percent(name),
    });
    names.collect::<Vec<_>>().join("/")
}

fn io_error(error: ZipError) -> std::io::Error {
    match error {
        ZipError::Io(error) => error,
        error => std::io::Error::other(error),
    }
}
