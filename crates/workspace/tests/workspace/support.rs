//! A workspace in its own temporary folder, beside a folder that nothing may ever reach.

use std::ffi::CString;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use palisade_protocol::scope::Scope;
use palisade_protocol::{Error, FileAccess, SessionId, WorkspacePath};
use palisade_workspace::{Amount, Archive, Footprint, Opened, Page, Workspace, WorkspaceError};

pub(crate) struct Tenant {
    pub(crate) workspace: Workspace,
    home: tempfile::TempDir,
}

impl Tenant {
    pub(crate) fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("outside")).unwrap();
        std::fs::write(home.path().join("outside/secret"), "OUTSIDE").unwrap();
        let workspace = Workspace::open(&home.path().join("workspace"), &[]).unwrap();
        Self { workspace, home }
    }

    /// What the workspace takes of the disk.
    pub(crate) fn measure(&self) -> Result<Amount, WorkspaceError> {
        Footprint::new(self.home.path(), vec![self.workspace.dir().to_owned()]).measure()
    }

    /// A place inside the workspace, as the host names it.
    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.workspace.dir().join(path)
    }

    /// The folder beside the workspace.
    pub(crate) fn outside(&self) -> PathBuf {
        self.home.path().join("outside")
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let at = self.at(path);
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        std::fs::write(at, text).unwrap();
    }

    pub(crate) fn link(&self, path: &str, target: impl AsRef<Path>) {
        let at = self.at(path);
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(target, at).unwrap();
    }

    pub(crate) fn fifo(&self, path: &str) {
        let at = self.at(path);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            CString::new(at.as_os_str().as_bytes()).unwrap(),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
    }

    /// What the API reads at `path`, as text.
    pub(crate) fn get(&self, scope: &Scope, path: &str) -> Result<String, WorkspaceError> {
        // In the order in which the runtime asks, so that every test of reading is one of both ways.
        if let Some(read) = self.workspace.open_in_memory(scope, &at(path))
            && let Some(content) = read.content
        {
            return Ok(String::from_utf8(content.into()).unwrap());
        }
        match self.workspace.open_read(scope, &at(path), &Page::default())? {
            Opened::File(mut read) => {
                let mut text = String::new();
                read.file.read_to_string(&mut text).unwrap();
                Ok(text)
            }
            Opened::Directory(listing) => {
                Ok(listing.entries.into_iter().map(|entry| entry.name).collect::<Vec<_>>().join(" "))
            }
        }
    }

    pub(crate) fn put(&self, scope: &Scope, path: &str, text: &str) -> Result<(), WorkspaceError> {
        let mut upload = self.workspace.begin_upload(scope, &at(path), 1 << 30)?;
        upload.write(text.as_bytes())?;
        upload.finish().map(|_| ())
    }

    pub(crate) fn delete(&self, scope: &Scope, path: &str) -> Result<(), WorkspaceError> {
        self.workspace.delete(scope, &at(path), false)
    }

    /// Every name below the workspace, sorted; what a failed operation must not have changed.
    pub(crate) fn names(&self) -> Vec<String> {
        names_below(self.workspace.dir())
    }
}

pub(crate) fn names_below(dir: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        names.push(entry.path().display().to_string());
        if entry.file_type().unwrap().is_dir() {
            names.extend(names_below(&entry.path()));
        }
    }
    names.sort();
    names
}

pub(crate) fn session() -> SessionId {
    SessionId::from_random([7; 6])
}

pub(crate) fn scope(read: &[&str], write: &[&str]) -> Scope {
    let text = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
    FileAccess { read: text(read), write: text(write) }.scope_for(&session()).unwrap()
}

pub(crate) fn whole() -> Scope {
    scope(&[], &[""])
}

pub(crate) fn at(path: &str) -> WorkspacePath {
    WorkspacePath::parse(path).unwrap()
}

/// The first `entries_max` of a directory.
pub(crate) fn first(entries_max: usize) -> Page {
    Page { entries_max, ..Page::default() }
}

/// The code that a client would see.
pub(crate) fn code<T>(result: Result<T, WorkspaceError>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(error) => Error::from(error).code,
    }
}

/// Whether tests may take minutes.
pub(crate) fn is_long() -> bool {
    std::env::var_os("PALISADE_LONG_TESTS").is_some_and(|value| value == "1")
}

/// How many rounds a race runs.
pub(crate) fn race_rounds() -> usize {
    if is_long() { 100_000 } else { 10_000 }
}

/// What a piece of an archive has at most: what it is given out with, and what one more step may add.
const PIECE_BYTES_MAX: usize = 256 * 1024;

/// An archive, all its pieces together.
pub(crate) fn zip_of(archive: Archive) -> Vec<u8> {
    let (mut pieces, mut bytes) = (archive.into_pieces(), Vec::new());
    while let Some(piece) = pieces.next_piece().unwrap() {
        assert!(piece.len() < PIECE_BYTES_MAX, "{} bytes at once", piece.len());
        bytes.extend_from_slice(&piece);
    }
    assert_eq!(pieces.next_piece().unwrap(), None, "after the end");
    bytes
}
