//! The homes of a tenant's sessions: a folder for each, beside the workspace and not in it, so that no other session
//! and no sweep of the working tree meets what programs keep at home.
//!
//! What a session may write begins below its own folder; the folder of the homes itself is shown to no sandbox.

use std::ffi::OsStr;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use palisade_beneath::{Kind, Root, Visit};
use palisade_protocol::SessionId;
use palisade_protocol::limits::SESSIONS_LISTED_MAX;

use crate::WorkspaceError;

/// A home is its session's alone.
const MODE: u32 = 0o700;

/// One tenant's homes.
#[derive(Debug)]
pub struct Homes {
    dir: PathBuf,
    root: Root,
}

impl Homes {
    /// Opens the folder of the homes at `dir`, making it where it is missing.
    pub fn open(dir: &Path) -> Result<Self, WorkspaceError> {
        std::fs::create_dir_all(dir).map_err(|e| failed("making the folder of the homes", dir, e))?;
        let root = Root::open(dir).map_err(|e| failed("opening the folder of the homes", dir, e))?;
        Ok(Self { dir: dir.to_owned(), root })
    }

    /// Where they lie on the host.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The session's home on the host, whether or not it is there.
    pub fn of(&self, session: &SessionId) -> PathBuf {
        self.dir.join(session.as_str())
    }

    /// Makes the session's home where it is missing, and in it the folder `scratch`, which is emptied: for the start
    /// of a sandbox. A disk that is full keeps no sandbox from starting, since something in it may be deleted.
    pub fn prepare(&self, session: &SessionId, scratch: &str) -> Result<(), WorkspaceError> {
        let path = self.of(session);
        match std::fs::DirBuilder::new().mode(MODE).create(&path) {
            // The session may have closed its home to itself.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(MODE))
            }
            made => made,
        }
        .map_err(|e| failed("making a home", &path, e))?;
        if let Err(error) = self.empty(session, OsStr::new(scratch)) {
            tracing::warn!(%session, %error, "the folder for temporary files was not emptied");
        }
        Ok(())
    }

    fn empty(&self, session: &SessionId, scratch: &OsStr) -> std::io::Result<()> {
        let home = self.root.narrow(Path::new(session.as_str()))?.directory(Path::new(""))?;
        remove(&home, scratch)?;
        home.make(scratch).map(drop)
    }

    /// Removes the session's home, whatever it holds; gone already is fine.
    pub fn remove(&self, session: &SessionId) -> Result<(), WorkspaceError> {
        let homes = self.root.directory(Path::new(""));
        homes
            .and_then(|homes| remove(&homes, OsStr::new(session.as_str())))
            .map_err(|e| failed("removing a home", &self.of(session), e))
    }

    /// The sessions that have a home, alive or not. At most as many as can be listed; the rest is for the next look.
    pub fn sessions(&self) -> Result<Vec<SessionId>, WorkspaceError> {
        let mut found = Vec::new();
        let homes = self.root.directory(Path::new(""));
        homes
            .and_then(|homes| {
                homes.read(|name, _| {
                    found.extend(name.to_str().and_then(|name| SessionId::parse(name).ok()));
                    if found.len() < SESSIONS_LISTED_MAX { Visit::More } else { Visit::Stop }
                })
            })
            .map_err(|e| failed("listing the homes", &self.dir, e))?;
        Ok(found)
    }
}

/// A tree, or whatever else has its name.
pub(crate) fn remove(parent: &palisade_beneath::Directory, name: &OsStr) -> std::io::Result<()> {
    let removed = match parent.metadata(name) {
        Ok(found) if found.kind == Kind::Directory => parent.remove_tree(name),
        Ok(_) => parent.remove_file(name),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn failed(action: &'static str, path: &Path, source: std::io::Error) -> WorkspaceError {
    WorkspaceError::Io { action, path: path.display().to_string(), source }
}
