//! A directory's whole content as a bounded list: what an archive and a snapshot are made from. It walks
//! iteratively, each directory looked up from the one root, so links are followed by the same rule as
//! everywhere; links to directories are not walked into, because they can go in circles.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use palisade_beneath::{Kind, Metadata, Root, Visit};

use crate::temporary;

/// Levels below the directory: far beyond any real tree, and short of the longest path.
const DEPTH_MAX: usize = 128;
/// All paths of one tree together.
const PATHS_BYTES_MAX: usize = 32 * 1024 * 1024;

/// A file or a directory of the tree.
#[derive(Debug)]
pub(crate) struct Leaf {
    /// Relative to the directory that was walked.
    pub(crate) path: PathBuf,
    pub(crate) is_directory: bool,
    pub(crate) metadata: Metadata,
}

/// Why a tree was not listed.
#[derive(Debug)]
pub(crate) enum WalkError {
    /// More than this.
    Over(&'static str),
    /// The disk's answer.
    Io(io::Error),
}

impl From<io::Error> for WalkError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Lists what is below `base`, a directory before its content and names in order. FIFOs, sockets, devices,
/// unfinished uploads and links that lead out are left out.
pub(crate) fn walk(
    root: &Root,
    base: &Path,
    entries_max: usize,
    entries_bound: &'static str,
) -> Result<Vec<Leaf>, WalkError> {
    let mut leaves: Vec<Leaf> = Vec::new();
    let mut paths_bytes = 0;
    let mut pending = vec![(PathBuf::new(), 0)];
    while let Some((below, depth)) = pending.pop() {
        let is_top = depth == 0;
        let directory = match root.directory(&base.join(&below)) {
            // Removed or replaced since its parent was read.
            Err(error) if !is_top && is_gone(&error) => continue,
            found => found?,
        };
        if depth > DEPTH_MAX {
            return Err(WalkError::Over("128 levels"));
        }
        let mut names: Vec<OsString> = Vec::new();
        directory.read(|name, kind| {
            if kind != Kind::Special && !temporary::is_temporary(name) {
                names.push(name.to_owned());
            }
            if leaves.len() + names.len() > entries_max { Visit::Stop } else { Visit::More }
        })?;
        if leaves.len() + names.len() > entries_max {
            return Err(WalkError::Over(entries_bound));
        }
        names.sort_unstable();
        let first_new = leaves.len();
        for name in names {
            let path = below.join(&name);
            let (metadata, linked) = match directory.metadata(&name) {
                Ok(found) if found.kind == Kind::Link => match root.look_up(&base.join(&path)) {
                    Ok(node) => (*node.metadata(), true),
                    Err(_) => continue,
                },
                Ok(found) => (found, false),
                Err(error) if is_gone(&error) => continue,
                Err(error) => return Err(error.into()),
            };
            let is_directory = metadata.kind == Kind::Directory && !linked;
            if !is_directory && metadata.kind != Kind::File {
                continue;
            }
            paths_bytes += path.as_os_str().len();
            if paths_bytes > PATHS_BYTES_MAX {
                return Err(WalkError::Over("32 MiB of names"));
            }
            leaves.push(Leaf { path, is_directory, metadata });
        }
        let directories = leaves[first_new..].iter().rev().filter(|leaf| leaf.is_directory);
        pending.extend(directories.map(|leaf| (leaf.path.clone(), depth + 1)));
    }
    Ok(leaves)
}

/// Whether a name vanished or became something else while the tree was walked.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
