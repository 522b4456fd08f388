//! Going through a folder and all below it, with an account of what was left out: a search that found nothing is a fact only
//! where everything was looked at.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ignore::{DirEntry, WalkBuilder};

use super::{Failure, failure};

/// Entries that one search looks at.
const ENTRIES_MAX: usize = 500_000;
/// How long one search goes on; the call that it is part of has ten seconds more.
const SEARCH_MAX: Duration = Duration::from_secs(20);
/// Names of what was left out that are shown.
const NAMES_SHOWN_MAX: usize = 5;
/// Folders that a search from above them does not enter: other sessions', and what git keeps for itself.
const SKIPPED: &[&str] = &[".git", ".sessions"];
/// Folders that tools fill. They come last, so that they do not stand before what people wrote.
const FILLED: &[&str] = &[
    "node_modules",
    "__pycache__",
    ".venv",
    "venv",
    "site-packages",
    "target",
    "dist",
    "build",
    "vendor",
    ".cache",
];

/// One search's way through the files, and what it did not look at.
pub(super) struct Walk<'a> {
    workspace: &'a Path,
    until: Instant,
    entries: usize,
    pub(super) left_out: LeftOut,
}

/// What a visitor is given.
pub(super) enum Visited<'a> {
    /// A file, or a link to one.
    File(&'a Path),
    /// A folder below the first.
    Folder(&'a Path),
}

/// What was not looked at.
#[derive(Default)]
pub(super) struct LeftOut {
    /// Files and folders that could not be read.
    pub(super) unreadable: Named,
    /// Links that lead out of the workspace.
    pub(super) links: Named,
    /// See [`SKIPPED`].
    pub(super) skipped: Named,
    /// Compressed files and documents, whose text is not there as text.
    pub(super) packed: Named,
    /// The bound that stopped the search.
    pub(super) stopped: Option<String>,
}

/// A number of paths, and the first of them.
#[derive(Default)]
pub(super) struct Named {
    count: usize,
    first: Vec<PathBuf>,
}

impl Named {
    pub(super) fn add(&mut self, path: &Path) {
        self.count += 1;
        if self.first.len() < NAMES_SHOWN_MAX {
            self.first.push(path.to_owned());
        }
    }

    /// `3 files that cannot be read: a, b, c`; nothing for none.
    fn told(&self, one: &str, many: &str) -> Option<String> {
        let names: Vec<String> = self.first.iter().map(|path| path.display().to_string()).collect();
        let more = if self.count > names.len() { ", and more" } else { "" };
        let noun = if self.count == 1 { one } else { many };
        (self.count > 0).then(|| format!("{} {noun}: {}{more}", self.count, names.join(", ")))
    }
}

impl LeftOut {
    /// What is told with any result.
    pub(super) fn notes(&self) -> Vec<String> {
        let not = |told: Option<String>| told.map(|told| format!("not looked at: {told}"));
        let unreadable = self.unreadable.told("that cannot be read", "that cannot be read");
        let links = self.links.told("link that leads elsewhere", "links that lead elsewhere");
        [self.stopped.clone(), not(unreadable), not(links)].into_iter().flatten().collect()
    }

    /// What has to be told as well when nothing was found.
    pub(super) fn notes_of_nothing(&self) -> Vec<String> {
        let skipped = self.skipped.told(
            "folder that is searched only when it is the path",
            "folders that are searched only when they are the path",
        );
        let packed = self.packed.told(
            "compressed file or document; read those by a tool of theirs",
            "compressed files or documents; read those by a tool of theirs",
        );
        let not = |told: String| format!("not looked into: {told}");
        self.notes().into_iter().chain([skipped, packed].into_iter().flatten().map(not)).collect()
    }
}

impl<'a> Walk<'a> {
    pub(super) fn new(workspace: &'a Path) -> Self {
        Self { workspace, until: Instant::now() + SEARCH_MAX, entries: 0, left_out: LeftOut::default() }
    }

    /// Whether the time is over, which is told.
    pub(super) fn is_late(&mut self) -> bool {
        let is_late = self.until <= Instant::now();
        if is_late && self.left_out.stopped.is_none() {
            let seconds = SEARCH_MAX.as_secs();
            self.left_out.stopped =
                Some(format!("stopped after {seconds} s and {} entries; name a narrower path", self.entries));
        }
        is_late
    }

    /// When the search has to end.
    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// Gives everything below `base` to `visit`, in the order of names. A linked folder is entered when it is in the workspace
    /// and not below `base` anyway; with `by_links`, also when it is, so that paths through links are found.
    pub(super) fn below(
        &mut self,
        base: &Path,
        by_links: bool,
        mut visit: impl FnMut(&mut Self, Visited<'_>),
    ) -> Result<(), Failure> {
        std::fs::read_dir(base).map_err(|e| failure(base, &e))?;
        let real_base = base.canonicalize().map_err(|e| failure(base, &e))?;
        let workspace = self.workspace.canonicalize().unwrap_or_else(|_| self.workspace.to_owned());
        let mut entered = HashSet::from([real_base.clone()]);
        let mut folders = VecDeque::from([base.to_owned()]);
        while let Some(folder) = folders.pop_front() {
            let skipped = Arc::new(Mutex::new(Vec::new()));
            for entry in walker(&folder, &skipped) {
                if self.is_late() || !self.counts_one_more() {
                    return Ok(());
                }
                let entry = match entry {
                    Ok(entry) => entry,
                    Err(error) => {
                        self.note_unreadable(&error, &folder);
                        continue;
                    }
                };
                let path = entry.path();
                match entry.file_type() {
                    _ if entry.depth() == 0 => {}
                    Some(kind) if kind.is_file() => visit(self, Visited::File(path)),
                    Some(kind) if kind.is_dir() => visit(self, Visited::Folder(path)),
                    Some(kind) if kind.is_symlink() => {
                        let Ok(target) = path.canonicalize() else { continue };
                        let is_below = target.strip_prefix(&real_base).is_ok_and(|rest| !has_skipped(rest));
                        if is_below && !by_links {
                            // It is visited by its own name.
                        } else if !target.is_dir() {
                            visit(self, Visited::File(path));
                        } else if real_base.starts_with(&target) {
                            // It leads back to where the search came from.
                        } else if !is_below && !target.starts_with(&workspace) {
                            self.left_out.links.add(path);
                        } else {
                            visit(self, Visited::Folder(path));
                            if entered.insert(target) {
                                folders.push_back(path.to_owned());
                            }
                        }
                    }
                    // FIFOs, sockets and devices have no content to look at.
                    _ => {}
                }
            }
            let skipped = std::mem::take(&mut *skipped.lock().unwrap_or_else(PoisonError::into_inner));
            skipped.iter().for_each(|path: &PathBuf| self.left_out.skipped.add(path));
        }
        Ok(())
    }

    fn counts_one_more(&mut self) -> bool {
        self.entries += 1;
        let is_within = self.entries <= ENTRIES_MAX;
        if !is_within {
            self.left_out.stopped =
                Some(format!("stopped after {ENTRIES_MAX} entries; name a narrower path"));
        }
        is_within
    }

    fn note_unreadable(&mut self, error: &ignore::Error, folder: &Path) {
        let vanished = error.io_error().is_some_and(|e| e.kind() == io::ErrorKind::NotFound);
        if !vanished {
            self.left_out.unreadable.add(path_of(error).unwrap_or(folder));
        }
    }
}

/// Whether a folder that tools fill is on the way to this path.
pub(super) fn is_filled(path: &Path) -> bool {
    path.components().any(|name| FILLED.iter().any(|filled| name.as_os_str() == *filled))
}

fn has_skipped(path: &Path) -> bool {
    path.components().any(|name| SKIPPED.iter().any(|skipped| name.as_os_str() == *skipped))
}

fn path_of(error: &ignore::Error) -> Option<&Path> {
    match error {
        ignore::Error::WithPath { path, .. } => Some(path),
        ignore::Error::WithDepth { err, .. } | ignore::Error::WithLineNumber { err, .. } => path_of(err),
        _ => None,
    }
}

fn walker(folder: &Path, skipped: &Arc<Mutex<Vec<PathBuf>>>) -> ignore::Walk {
    let skipped = Arc::clone(skipped);
    let is_entered = move |entry: &DirEntry| {
        let is_skipped = entry.depth() > 0 && SKIPPED.iter().any(|name| entry.file_name() == *name);
        if is_skipped {
            skipped.lock().unwrap_or_else(PoisonError::into_inner).push(entry.path().to_owned());
        }
        !is_skipped
    };
    WalkBuilder::new(folder)
        .standard_filters(false)
        .follow_links(false)
        .sort_by_file_name(|a, b| {
            let key = |name: &std::ffi::OsStr| FILLED.iter().any(|filled| name == *filled);
            key(a).cmp(&key(b)).then_with(|| a.cmp(b))
        })
        .filter_entry(is_entered)
        .build()
}
