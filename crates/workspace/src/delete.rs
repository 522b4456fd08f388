//! Deleting, from one held directory and by a single name, so that no swapped link can lead it elsewhere.

use palisade_beneath::Kind;
use palisade_protocol::WorkspacePath;
use palisade_protocol::scope::{Scope, is_session_dir};
use rustix::io::Errno;

use crate::condition::Conditions;
use crate::{Workspace, WorkspaceError};

impl Workspace {
    /// Deletes a file, a link that stays beneath its scope root (the link, not what it leads to), or a
    /// directory; one with content only when `recursive`.
    pub fn delete(&self, scope: &Scope, path: &WorkspacePath, recursive: bool) -> Result<(), WorkspaceError> {
        self.delete_if(scope, path, recursive, &Conditions::default())
    }

    /// The same, where what is there is as the conditions say. A directory has no tag: of them only `*` is met by one.
    pub fn delete_if(
        &self,
        scope: &Scope,
        path: &WorkspacePath,
        recursive: bool,
        conditions: &Conditions,
    ) -> Result<(), WorkspaceError> {
        let place = self.writable(scope, path)?;
        if scope.root_of(path) == Some(path) || is_session_dir(path) {
            return Err(WorkspaceError::Held(path.clone()));
        }
        let (Some(parent), Some(name)) = (place.below().parent(), place.below().file_name()) else {
            return Err(WorkspaceError::Held(path.clone()));
        };
        let failed = |error| WorkspaceError::from_io("deleting", path, error);
        let directory = place.root.directory(parent).map_err(failed)?;
        let held = self.changes.hold();
        let found = directory.metadata(name).map_err(failed)?;
        let shown = match found.kind {
            Kind::Special => return Err(WorkspaceError::NotRegular(path.clone())),
            Kind::Link => *place.root.look_up(place.below()).map_err(failed)?.metadata(),
            _ => found,
        };
        self.changes.require(conditions, Some(&shown), path)?;
        if matches!(found.kind, Kind::File | Kind::Link) {
            return directory.remove_file(name).map_err(failed);
        }
        // A tree takes its time, and others need not wait for it.
        drop(held);
        match found.kind {
            Kind::Directory if self.holds(&found)? => Err(WorkspaceError::Held(path.clone())),
            Kind::Directory if recursive => {
                directory.remove_tree(name).map_err(|error| match Errno::from_io_error(&error) {
                    Some(Errno::NOTEMPTY) => WorkspaceError::Changing(path.clone(), error),
                    Some(Errno::XDEV) => WorkspaceError::Held(path.clone()),
                    _ => failed(error),
                })
            }
            _ => directory.remove_empty_dir(name).map_err(failed),
        }
    }
}
