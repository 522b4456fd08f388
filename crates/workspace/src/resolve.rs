//! From a scope and a path to a place on the disk. The only file that turns one into the other.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use palisade_beneath::{Node, Root};
use palisade_protocol::scope::Scope;
use palisade_protocol::{Access, WorkspacePath};

use crate::{Workspace, WorkspaceError, temporary};

/// A path inside a scope: the root that bounds its links, and the rest of the path below that root.
pub(crate) struct Place<'p> {
    pub(crate) root: Root,
    below: &'p [u8],
}

impl Place<'_> {
    pub(crate) fn below(&self) -> &Path {
        as_path(self.below)
    }
}

/// The same bytes as a path of the operating system.
pub(crate) fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

fn names_a_temporary(path: &WorkspacePath) -> bool {
    path.names().any(|name| temporary::is_temporary(OsStr::from_bytes(name)))
}

impl Workspace {
    /// Where `path` may be read.
    pub(crate) fn readable<'p>(
        &self,
        scope: &Scope,
        path: &'p WorkspacePath,
    ) -> Result<Place<'p>, WorkspaceError> {
        match scope.access(path) {
            Access::None | Access::Ancestor => Err(WorkspaceError::OutOfScope(path.clone())),
            _ if names_a_temporary(path) => Err(WorkspaceError::NotFound(path.clone())),
            Access::Read | Access::Write => self.place(scope, path),
        }
    }

    /// What lies at a readable `path`, where that can be said without asking the disk.
    pub(crate) fn readable_in_memory(&self, scope: &Scope, path: &WorkspacePath) -> Option<Node> {
        let is_readable = matches!(scope.access(path), Access::Read | Access::Write);
        let root = scope.root_of(path).filter(|_| is_readable && !names_a_temporary(path))?;
        self.root.look_up_in_memory(as_path(root.as_bytes()), as_path(below(root, path))).ok()
    }

    /// Where `path` may be changed.
    pub(crate) fn writable<'p>(
        &self,
        scope: &Scope,
        path: &'p WorkspacePath,
    ) -> Result<Place<'p>, WorkspaceError> {
        match scope.access(path) {
            Access::None | Access::Ancestor => Err(WorkspaceError::OutOfScope(path.clone())),
            Access::Read => Err(WorkspaceError::ReadOnly(path.clone())),
            Access::Write if names_a_temporary(path) => Err(WorkspaceError::ReservedName(path.clone())),
            Access::Write => self.place(scope, path),
        }
    }

    fn place<'p>(&self, scope: &Scope, path: &'p WorkspacePath) -> Result<Place<'p>, WorkspaceError> {
        let Some(root) = scope.root_of(path) else {
            return Err(WorkspaceError::OutOfScope(path.clone()));
        };
        let narrow = self
            .root
            .narrow(as_path(root.as_bytes()))
            .map_err(|e| WorkspaceError::from_io("opening the scope root of", path, e))?;
        Ok(Place { root: narrow, below: below(root, path) })
    }
}

fn below<'p>(root: &WorkspacePath, path: &'p WorkspacePath) -> &'p [u8] {
    let below = &path.as_bytes()[root.as_bytes().len()..];
    below.strip_prefix(b"/").unwrap_or(below)
}
