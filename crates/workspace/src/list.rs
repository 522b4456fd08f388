//! Listing, in pages by name. A page costs memory for itself and not for its directory, which may have a million
//! entries.

use std::collections::BinaryHeap;
use std::ffi::{OsStr, OsString};
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

/// Names looked at for one page: a larger directory is listed from what was seen of it.
const NAMES_SCANNED_MAX: usize = 5_000_000;

/// RFC 3986's unreserved characters stay as they are.
const PERCENT_ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Which part of a directory is listed: the names in the order of their bytes, from one on.
#[derive(Debug, Clone)]
pub struct Page {
    /// At most so many; never more than [`DIRECTORY_ENTRIES_MAX`].
    pub entries_max: usize,
    /// Only names behind this one; all when empty.
    pub after: OsString,
}

impl Default for Page {
    fn default() -> Self {
        Self { entries_max: DIRECTORY_ENTRIES_MAX, after: OsString::new() }
    }
}

/// One page of a directory's entries, by name.
#[derive(Debug, Clone, PartialEq)]
pub struct Listing {
    /// At most as many as were asked for.
    pub entries: Vec<Entry>,
    /// Where the next page begins, percent-encoded; `None` at the directory's end. It need not be the last entry:
    /// what a listing leaves out is counted too.
    pub next_after: Option<String>,
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
    /// Lists a page of the directory at `path`. Links are shown as what they lead to beneath their scope root;
    /// others, FIFOs, sockets, devices and unfinished uploads are left out.
    pub fn list(&self, scope: &Scope, path: &WorkspacePath, page: &Page) -> Result<Listing, WorkspaceError> {
        if scope.access(path) == Access::Ancestor {
            return self.list_ancestor(scope, path, page);
        }
        let place = self.readable(scope, path)?;
        let failed = |error| WorkspaceError::from_io("listing", path, error);
        let node = place.root.look_up(place.below()).map_err(failed)?;
        if node.metadata().kind != Kind::Directory {
            return Err(WorkspaceError::NotDirectory(path.clone()));
        }
        let directory = node.open_directory().map_err(failed)?;
        list_directory(&place.root, place.below(), &directory, page).map_err(failed)
    }

    /// A directory above the scope: only the names that lead to a part of it, never read from the disk.
    pub(crate) fn list_ancestor(
        &self,
        scope: &Scope,
        path: &WorkspacePath,
        page: &Page,
    ) -> Result<Listing, WorkspaceError> {
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
            .filter(|name| *name > page.after.as_bytes())
            .collect();
        names.sort_unstable();
        names.dedup();
        let is_cut = names.len() > page.entries_max;
        names.truncate(page.entries_max);
        let next_after = names.last().filter(|_| is_cut).map(|name| percent(OsStr::from_bytes(name)));
        let entries = names
            .into_iter()
            .map(OsStr::from_bytes)
            .filter_map(|name| Some((name, directory.metadata(name).ok()?)))
            .filter(|(_, metadata)| metadata.kind == Kind::Directory)
            .map(|(name, metadata)| Entry::new(name, EntryKind::Directory, &metadata))
            .collect();
        Ok(Listing { entries, next_after })
    }
}

pub(crate) fn list_directory(
    root: &Root,
    below: &Path,
    directory: &Directory,
    page: &Page,
) -> std::io::Result<Listing> {
    let entries_max = page.entries_max.min(DIRECTORY_ENTRIES_MAX);
    // The heap keeps the smallest names, so that memory follows the page and not the directory.
    let mut names: BinaryHeap<OsString> = BinaryHeap::new();
    let (mut scanned, mut is_cut) = (0, false);
    directory.read(|name, kind| {
        scanned += 1;
        let is_wanted =
            kind != Kind::Special && name > page.after.as_os_str() && !temporary::is_temporary(name);
        if is_wanted {
            let is_in_reach = names.len() < entries_max || names.peek().is_some_and(|last| name < last);
            is_cut |= names.len() == entries_max;
            if is_in_reach {
                names.push(name.to_owned());
            }
            if names.len() > entries_max {
                names.pop();
            }
        }
        is_cut |= scanned == NAMES_SCANNED_MAX;
        if scanned == NAMES_SCANNED_MAX { Visit::Stop } else { Visit::More }
    })?;
    let names = names.into_sorted_vec();
    let next_after = names.last().filter(|_| is_cut).map(|name| percent(name));
    let entries = names.iter().filter_map(|name| entry(root, below, directory, name)).collect();
    Ok(Listing { entries, next_after })
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
