//! Reading and listing. A file is judged by its opened descriptor, so its length and tag are those of the very
//! bytes that follow; a FIFO, a socket or a device is refused without being opened.

use std::collections::BinaryHeap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use palisade_beneath::{Directory, Kind, Metadata, Root, Visit};
use palisade_protocol::limits::DIRECTORY_ENTRIES_MAX;
use palisade_protocol::scope::Scope;
use palisade_protocol::{Access, WorkspacePath};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};
use serde::Serialize;

use crate::resolve::as_path;
use crate::{Workspace, WorkspaceError, temporary};

/// Names looked at for one listing: a larger directory is listed from what was seen of it.
const NAMES_SCANNED_MAX: usize = 5_000_000;

/// RFC 3986's unreserved characters stay as they are.
const PERCENT_ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

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
    /// Its length in bytes when it was opened.
    pub size: u64,
    /// Unix seconds.
    pub modified: f64,
    /// A strong tag with its quotes: another one whenever the file was written, replaced or changed its rights.
    pub etag: String,
}

/// A directory's entries, by name.
#[derive(Debug, Clone, PartialEq)]
pub struct Listing {
    /// At most as many as were asked for, the first by name.
    pub entries: Vec<Entry>,
    /// Whether there are more.
    pub truncated: bool,
}

/// One entry of a listing, as the wire has it.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Entry {
    /// The name; bytes that are not UTF-8 are replaced.
    pub name: String,
    /// The exact name, percent-encoded, where `name` could not hold it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name_percent: Option<String>,
    /// What it is; a link is what it leads to.
    #[serde(rename = "type")]
    pub kind: EntryKind,
    /// Bytes; 0 for a directory.
    pub size: u64,
    /// Unix seconds.
    pub modified: f64,
    /// How many names a file has, where it has more than one: a change through one shows in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub links: Option<u64>,
}

/// What a listing shows; anything else is left out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
}

impl Workspace {
    /// Opens what lies at `path`: a file to be read, or a directory with its listing.
    pub fn open_read(&self, scope: &Scope, path: &WorkspacePath) -> Result<Opened, WorkspaceError> {
        if scope.access(path) == Access::Ancestor {
            return self.list_ancestor(scope, path).map(Opened::Directory);
        }
        let place = self.readable(scope, path)?;
        let failed = |error| WorkspaceError::from_io("opening", path, error);
        let node = place.root.look_up(place.below()).map_err(failed)?;
        match node.metadata().kind {
            Kind::File => {
                let file = node.open_file().map_err(failed)?;
                let metadata = Metadata::of(&file).map_err(failed)?;
                Ok(Opened::File(ReadFile {
                    size: metadata.size,
                    modified: metadata.modified_s(),
                    etag: etag(&metadata),
                    file,
                }))
            }
            Kind::Directory => {
                let directory = node.open_directory().map_err(failed)?;
                list_directory(&place.root, place.below(), &directory, DIRECTORY_ENTRIES_MAX)
                    .map(Opened::Directory)
                    .map_err(failed)
            }
            Kind::Special => Err(WorkspaceError::NotRegular(path.clone())),
            Kind::Link => Err(WorkspaceError::NotFound(path.clone())),
        }
    }

    /// Lists the directory at `path`: at most `limit` entries, the first by name. Links are shown as what they
    /// lead to beneath their scope root; others, FIFOs, sockets, devices and unfinished uploads are left out.
    pub fn list(&self, scope: &Scope, path: &WorkspacePath, limit: usize) -> Result<Listing, WorkspaceError> {
        if scope.access(path) == Access::Ancestor {
            return self.list_ancestor(scope, path);
        }
        let place = self.readable(scope, path)?;
        let failed = |error| WorkspaceError::from_io("listing", path, error);
        let node = place.root.look_up(place.below()).map_err(failed)?;
        if node.metadata().kind != Kind::Directory {
            return Err(WorkspaceError::NotDirectory(path.clone()));
        }
        let directory = node.open_directory().map_err(failed)?;
        list_directory(&place.root, place.below(), &directory, limit.min(DIRECTORY_ENTRIES_MAX))
            .map_err(failed)
    }

    /// A directory above the scope: only the names that lead to a part of it, never read from the disk.
    fn list_ancestor(&self, scope: &Scope, path: &WorkspacePath) -> Result<Listing, WorkspaceError> {
        let directory = self
            .root
            .narrow(as_path(path.as_bytes()))
            .and_then(|root| root.directory(Path::new("")))
            .map_err(|error| WorkspaceError::from_io("listing", path, error))?;
        let mut names: Vec<&[u8]> = scope
            .roots()
            .into_iter()
            .filter(|(root, _)| root.is_within(path))
            .filter_map(|(root, _)| root.names().nth(path.names().count()))
            .collect();
        names.sort_unstable();
        names.dedup();
        let entries = names
            .into_iter()
            .map(OsStr::from_bytes)
            .filter_map(|name| Some((name, directory.metadata(name).ok()?)))
            .filter(|(_, metadata)| metadata.kind == Kind::Directory)
            .map(|(name, metadata)| Entry::new(name, EntryKind::Directory, &metadata))
            .collect();
        Ok(Listing { entries, truncated: false })
    }
}

fn list_directory(
    root: &Root,
    below: &Path,
    directory: &Directory,
    limit: usize,
) -> std::io::Result<Listing> {
    // The heap keeps the smallest names, so that memory follows the limit and not the directory.
    let mut names: BinaryHeap<OsString> = BinaryHeap::new();
    let (mut scanned, mut truncated) = (0, false);
    directory.read(|name, kind| {
        scanned += 1;
        if kind != Kind::Special && !temporary::is_temporary(name) {
            names.push(name.to_owned());
        }
        if names.len() > limit {
            names.pop();
            truncated = true;
        }
        truncated |= scanned == NAMES_SCANNED_MAX;
        if scanned == NAMES_SCANNED_MAX { Visit::Stop } else { Visit::More }
    })?;
    let entries =
        names.into_sorted_vec().iter().filter_map(|name| entry(root, below, directory, name)).collect();
    Ok(Listing { entries, truncated })
}

/// `None` for what a listing leaves out, and for what is gone by now.
fn entry(root: &Root, below: &Path, directory: &Directory, name: &OsStr) -> Option<Entry> {
    let mut metadata = directory.metadata(name).ok()?;
    if metadata.kind == Kind::Link {
        metadata = *root.look_up(&below.join(name)).ok()?.metadata();
    }
    let kind = match metadata.kind {
        Kind::File => EntryKind::File,
        Kind::Directory => EntryKind::Directory,
        Kind::Link | Kind::Special => return None,
    };
    Some(Entry::new(name, kind, &metadata))
}

impl Entry {
    fn new(name: &OsStr, kind: EntryKind, metadata: &Metadata) -> Self {
        let is_file = kind == EntryKind::File;
        Self {
            name: name.to_string_lossy().into_owned(),
            name_percent: name.to_str().is_none().then(|| percent(name)),
            kind,
            size: if is_file { metadata.size } else { 0 },
            modified: metadata.modified_s(),
            links: (is_file && metadata.links > 1).then_some(metadata.links),
        }
    }
}

/// A name's bytes, percent-encoded: what a client puts into a URL to mean exactly this name.
pub(crate) fn percent(name: &OsStr) -> String {
    percent_encoding::percent_encode(name.as_bytes(), PERCENT_ENCODED).to_string()
}

/// The change time is part of it, because a writer can set the modification time back.
fn etag(metadata: &Metadata) -> String {
    format!(
        "\"{:x}-{:x}-{:x}-{:x}\"",
        metadata.inode, metadata.size, metadata.modified_ns, metadata.changed_ns
    )
}
