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
/// What was left out is named so often.
const LEFT_OUT_NAMED_MAX: usize = 1000;
/// All paths of one tree together, in bytes: 50,000 of 160 each. An archive holds them four times over.
const PATHS_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A file or a directory of the tree.
#[derive(Debug)]
pub(crate) struct Leaf {
    /// Relative to the directory that was walked.
    pub(crate) path: PathBuf,
    pub(crate) is_directory: bool,
    pub(crate) metadata: Metadata,
}

/// What a tree has and its list has not.
#[derive(Debug, Default)]
pub(crate) struct LeftOut {
    /// Relative to the directory that was walked, with the reason; of more than [`LEFT_OUT_NAMED_MAX`] the first.
    pub(crate) named: Vec<(PathBuf, &'static str)>,
    /// All of them.
    pub(crate) count: usize,
}

impl LeftOut {
    pub(crate) fn push(&mut self, path: PathBuf, why: &'static str) {
        self.count += 1;
        if self.named.len() < LEFT_OUT_NAMED_MAX {
            self.named.push((path, why));
        }
    }
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
/// unfinished uploads, links that lead out and what may not be read are left out.
pub(crate) fn walk(
    root: &Root,
    base: &Path,
    entries_max: usize,
    entries_bound: &'static str,
) -> Result<Vec<Leaf>, WalkError> {
    walk_telling(root, base, entries_max, entries_bound, &mut LeftOut::default())
}

/// The same, telling what was left out; unfinished uploads are nobody's yet, and are not told.
pub(crate) fn walk_telling(
    root: &Root,
    base: &Path,
    entries_max: usize,
    entries_bound: &'static str,
    left_out: &mut LeftOut,
) -> Result<Vec<Leaf>, WalkError> {
    let mut leaves: Vec<Leaf> = Vec::new();
    let mut paths_bytes = 0;
    let mut pending = vec![(PathBuf::new(), 0)];
    while let Some((below, depth)) = pending.pop() {
        let is_top = depth == 0;
        let directory = match root.directory(&base.join(&below)) {
            // Removed or replaced since its parent was read.
            Err(error) if !is_top && is_gone(&error) => continue,
            Err(error) if !is_top && error.kind() == io::ErrorKind::PermissionDenied => {
                left_out.push(below, "its permissions do not allow to look into it");
                continue;
            }
            found => found?,
        };
        if depth > DEPTH_MAX {
            return Err(WalkError::Over("128 levels"));
        }
        let mut names: Vec<OsString> = Vec::new();
        directory.read(|name, kind| {
            if kind == Kind::Special {
                left_out.push(below.join(name), "it is no regular file");
            } else if !temporary::is_temporary(name) {
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
                    Err(_) => {
                        left_out.push(path, "it is a link that leads to nothing here");
                        continue;
                    }
                },
                Ok(found) => (found, false),
                Err(error) if is_gone(&error) => continue,
                Err(error) => return Err(error.into()),
            };
            let is_directory = metadata.kind == Kind::Directory && !linked;
            if !is_directory && metadata.kind != Kind::File {
                left_out.push(path, "it is a link to a folder, or to no regular file");
                continue;
            }
            paths_bytes += path.as_os_str().len();
            if paths_bytes > PATHS_BYTES_MAX {
                return Err(WalkError::Over("8 MiB of names"));
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
