//! The folders that the server itself relies on inside a workspace the agent may write to: they are real
//! directories or they are made so, and what stood there instead is kept beside them.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::PoisonError;

use palisade_beneath::{Directory, Kind, Metadata, Visit};
use palisade_protocol::limits::SESSIONS_LISTED_MAX;
use palisade_protocol::scope::{SESSIONS, Scope};
use palisade_protocol::{SessionId, WorkspacePath};
use rustix::io::Errno;

use crate::resolve::as_path;
use crate::{Workspace, WorkspaceError, homes, temporary};

/// The agent context.
pub(crate) const CONTEXT: &str = ".pokee";
/// Custom skills.
pub(crate) const SKILLS: &str = "skills";
/// What agents remember.
const MEMORY: &str = ".memory";

impl Workspace {
    /// Makes the server's folders where they are missing. A link or a file planted in place of one is set
    /// aside and logged (decision 20).
    pub fn ensure_folders(&self) -> Result<(), WorkspaceError> {
        let _one_at_a_time = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        let top = self.root.directory(Path::new("")).map_err(|e| failed("opening", "", e))?;
        let own = [MEMORY, CONTEXT, SESSIONS, SKILLS].map(OsStr::new).into_iter();
        for name in own.chain(self.locked_names()) {
            set_aside_unless_directory(&top, name)?;
            top.make_and_enter(name).map_err(|e| failed("making", &name.to_string_lossy(), e))?;
        }
        Ok(())
    }

    /// Whether a directory is one that must not be deleted, whatever name led to it.
    pub(crate) fn holds(&self, directory: &Metadata) -> Result<bool, WorkspaceError> {
        let top = self.root.directory(Path::new("")).map_err(|e| failed("opening", "", e))?;
        for name in self.locked_names().chain([OsStr::new(SESSIONS)]) {
            match top.metadata(name) {
                Ok(held) if (held.device, held.inode) == (directory.device, directory.inode) => {
                    return Ok(true);
                }
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed("looking at", &name.to_string_lossy(), error)),
            }
        }
        Ok(false)
    }

    fn locked_names(&self) -> impl Iterator<Item = &OsStr> {
        self.locked.iter().map(|folder| as_path(folder.path().as_bytes()).as_os_str())
    }

    /// Makes what a new session's scope names and the workspace has not (decision 20). Whatever is no directory
    /// there, a link too, makes the scope malformed.
    pub fn ensure_scope(&self, scope: &Scope) -> Result<(), WorkspaceError> {
        self.ensure_folders()?;
        for path in scope.granted() {
            let refused = |error| match Errno::from_io_error(&error) {
                Some(Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => {
                    WorkspaceError::ScopeNotDirectory(path.clone())
                }
                _ => WorkspaceError::from_io("making the scope path", path, error),
            };
            let as_path = as_path(path.as_bytes());
            self.root.create_dir_all_strict(as_path).map_err(refused)?;
            // What the mount will ask for, so that a session is refused now and not at its first tool call.
            self.root.narrow(as_path).map_err(refused)?;
        }
        Ok(())
    }

    /// Removes a session's own folder, whatever it holds; gone already is fine.
    pub fn remove_session_dir(&self, session: &SessionId) -> Result<(), WorkspaceError> {
        homes::remove(&self.sessions()?, OsStr::new(session.as_str()))
            .map_err(|e| failed("removing", &format!("{SESSIONS}/{session}"), e))
    }

    /// The sessions that have a folder, alive or not: what a start compares with the store (decision 34). At
    /// most as many as can be listed; the rest is for the next start.
    pub fn session_dirs(&self) -> Result<Vec<SessionId>, WorkspaceError> {
        let mut found = Vec::new();
        self.sessions()?
            .read(|name, _| {
                found.extend(name.to_str().and_then(|name| SessionId::parse(name).ok()));
                if found.len() < SESSIONS_LISTED_MAX { Visit::More } else { Visit::Stop }
            })
            .map_err(|e| failed("listing", SESSIONS, e))?;
        Ok(found)
    }

    fn sessions(&self) -> Result<Directory, WorkspaceError> {
        self.root
            .narrow(Path::new(SESSIONS))
            .and_then(|root| root.directory(Path::new("")))
            .map_err(|e| failed("opening", SESSIONS, e))
    }
}

fn set_aside_unless_directory(top: &Directory, name: &OsStr) -> Result<(), WorkspaceError> {
    let shown = name.to_string_lossy();
    match top.metadata(name) {
        Ok(found) if found.kind == Kind::Directory => return Ok(()),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("looking at", &shown, error)),
    }
    let aside = format!("{shown}.set-aside-{}", temporary::random_hex()?);
    match top.rename(name, OsStr::new(&aside)) {
        Ok(()) => {
            tracing::warn!(folder = %shown, aside, "something else stood in place of a folder; set aside")
        }
        // Another call of this function was first.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("setting aside", &shown, error)),
    }
    Ok(())
}

/// These folders are the server's: no client named them, so what goes wrong with them is no client's error,
/// except that the disk is full.
fn failed(action: &'static str, path: &str, source: std::io::Error) -> WorkspaceError {
    match (Errno::from_io_error(&source), WorkspacePath::parse(path)) {
        (Some(Errno::NOSPC | Errno::DQUOT), Ok(path)) => WorkspaceError::StorageFull(path, source),
        _ => WorkspaceError::Io { action, path: path.to_owned(), source },
    }
}
