//! `file_access`: which part of the workspace a session may see and change (contract §3).
//!
//! One rule set for both layers: the file API asks it directly, and the sandbox builds its mounts from it.

use serde::{Deserialize, Serialize};

use crate::SessionId;
use crate::path::{InvalidPath, WorkspacePath};

/// What a scope allows at one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Outside: for the session the path does not exist.
    None,
    /// Not in the scope itself, but a directory on the way to a part of it: it can be listed, and the list
    /// shows only what leads to the scope.
    Ancestor,
    /// May be read.
    Read,
    /// May be read and changed.
    Write,
}

/// A scope as the wire has it. `""` is the whole workspace; write implies read; immutable once created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FileAccess {
    /// Workspace-relative paths the session may read.
    #[serde(default)]
    #[schema(max_items = 64)]
    pub read: Vec<String>,
    /// Workspace-relative paths the session may read and change.
    #[serde(default)]
    #[schema(max_items = 64)]
    pub write: Vec<String>,
}

impl Default for FileAccess {
    fn default() -> Self {
        Self { read: vec![String::new()], write: vec![String::new()] }
    }
}

/// Why a scope was refused, naming the entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidScope {
    /// An entry is not a workspace path.
    #[error("file_access path {0:?}: {1}")]
    Path(String, InvalidPath),
    /// More entries than a scope may have.
    #[error("file_access has {0} paths; at most {max} are allowed", max = crate::limits::SCOPE_PATHS_MAX)]
    TooMany(usize),
}

/// A checked scope: what it allows at any path is decided by the longest entry that contains the path, so the
/// order of entries never matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    grants: Vec<(WorkspacePath, Access)>,
}

/// A folder at the top of the workspace that no sandbox may change, whatever its session's scope says; the file API may
/// (decision 20). At the top, because a folder above it could be renamed inside, and with it what is locked.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct LockedFolder(WorkspacePath);

/// Why a folder cannot be locked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLock {
    /// It is no single name.
    #[error("{0:?} cannot be locked: only a folder at the top of the workspace can, by its name")]
    NotAtTheTop(String),
    /// Each session has to write to its own folder there.
    #[error("{0:?} cannot be locked: sessions live in it")]
    Sessions(String),
}

impl TryFrom<String> for LockedFolder {
    type Error = InvalidLock;

    fn try_from(name: String) -> Result<Self, InvalidLock> {
        if name == SESSIONS {
            return Err(InvalidLock::Sessions(name));
        }
        match WorkspacePath::parse(&name) {
            Ok(path) if path.names().count() == 1 && path.as_bytes() == name.as_bytes() => Ok(Self(path)),
            _ => Err(InvalidLock::NotAtTheTop(name)),
        }
    }
}

impl LockedFolder {
    /// Where it is.
    pub fn path(&self) -> &WorkspacePath {
        &self.0
    }
}

impl FileAccess {
    /// Which of `folders` stay locked for a session that asks for this: a folder that `write` names is open to it
    /// (decision 54).
    pub fn still_locked(&self, folders: &[LockedFolder]) -> Vec<LockedFolder> {
        let is_named =
            |folder: &LockedFolder| self.write.iter().any(|path| path.as_bytes() == folder.path().as_bytes());
        folders.iter().filter(|folder| !is_named(folder)).cloned().collect()
    }

    /// Checks every entry and adds the session's own folder, which is always writable.
    pub fn scope_for(&self, session: &SessionId) -> Result<Scope, InvalidScope> {
        let count = self.read.len() + self.write.len();
        if count > crate::limits::SCOPE_PATHS_MAX {
            return Err(InvalidScope::TooMany(count));
        }
        let mut scope = Scope { grants: Vec::with_capacity(count + 1) };
        let entries =
            self.read.iter().map(|p| (p, Access::Read)).chain(self.write.iter().map(|p| (p, Access::Write)));
        for (text, access) in entries {
            let path = WorkspacePath::parse(text).map_err(|e| InvalidScope::Path(text.clone(), e))?;
            scope = scope.with(path, access);
        }
        Ok(scope.with(session_dir(session), Access::Write))
    }
}

impl Scope {
    /// The same scope with one more grant.
    #[must_use]
    pub fn with(mut self, path: WorkspacePath, access: Access) -> Self {
        match self.grants.iter_mut().find(|(known, _)| *known == path) {
            Some((_, known)) => *known = access.max(*known),
            None => self.grants.push((path, access)),
        }
        self.grants.sort();
        self
    }

    /// What the session may do at `path`. A write grant below a read grant widens it, and a read entry below a
    /// write entry does not narrow it: write implies read, and nothing in the contract takes a write away.
    pub fn access(&self, path: &WorkspacePath) -> Access {
        let granted = self
            .grants
            .iter()
            .filter(|(root, _)| path.is_within(root))
            .map(|(_, access)| *access)
            .max()
            .unwrap_or(Access::None);
        if granted == Access::None && self.grants.iter().any(|(root, _)| root.is_within(path)) {
            return Access::Ancestor;
        }
        granted
    }

    /// The grants that matter, parents before children, without those that a wider one above already covers.
    /// This is the list of mounts, in mounting order.
    pub fn roots(&self) -> Vec<(&WorkspacePath, Access)> {
        let covered = |path: &WorkspacePath, access: Access| {
            self.grants.iter().any(|(root, wider)| root != path && path.is_within(root) && *wider >= access)
        };
        self.grants.iter().filter(|(path, access)| !covered(path, *access)).map(|(p, a)| (p, *a)).collect()
    }

    /// Every granted path, parents before children, also those that a wider one covers.
    pub fn granted(&self) -> impl Iterator<Item = &WorkspacePath> {
        self.grants.iter().map(|(path, _)| path)
    }

    /// Every path that was granted for writing, parents before children, also those that a wider one covers.
    pub fn granted_for_writing(&self) -> impl Iterator<Item = &WorkspacePath> {
        self.grants.iter().filter(|(_, access)| *access == Access::Write).map(|(path, _)| path)
    }

    /// Whether the scope is the whole workspace, writable.
    pub fn is_whole(&self) -> bool {
        self.access(&WorkspacePath::root()) == Access::Write
    }

    /// The root that contains `path`, one of [`Self::roots`]: where a resolver starts, so that links are followed only
    /// beneath the same root. A grant that a wider one covers is no root: it has no mount of its own inside either, so that
    /// what becomes of its folder is the same on both sides.
    pub fn root_of(&self, path: &WorkspacePath) -> Option<&WorkspacePath> {
        let mut widest = Access::None;
        let mut found = None;
        // Sorted, so that those above a path come one below the other.
        for (root, access) in self.grants.iter().filter(|(root, _)| path.is_within(root)) {
            if *access > widest {
                (widest, found) = (*access, Some(root));
            }
        }
        found
    }
}

/// Where the sessions' own folders are.
pub const SESSIONS: &str = ".sessions";

/// `.sessions/<id>`: the session's own folder.
pub fn session_dir(session: &SessionId) -> WorkspacePath {
    let text = format!("{SESSIONS}/{session}");
    // A session id is hex after a fixed prefix, so this path is always valid.
    WorkspacePath::parse(text).unwrap_or_else(|_| WorkspacePath::root())
}

/// Whether `path` is the own folder of some session: `.sessions/<id>`, and nothing above or below it.
pub fn is_session_dir(path: &WorkspacePath) -> bool {
    let mut names = path.names();
    names.next() == Some(SESSIONS.as_bytes())
        && names
            .next()
            .and_then(|name| std::str::from_utf8(name).ok())
            .is_some_and(|id| SessionId::parse(id).is_ok())
        && names.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scope(read: &[&str], write: &[&str]) -> Scope {
        let text = |paths: &[&str]| paths.iter().map(|p| (*p).to_owned()).collect();
        FileAccess { read: text(read), write: text(write) }
            .scope_for(&SessionId::from_random([0; 6]))
            .unwrap()
    }

    fn path(text: &str) -> WorkspacePath {
        WorkspacePath::parse(text).unwrap()
    }

    #[test]
    fn the_contracts_example() {
        let scope = scope(&["projects/my-project", "shared/templates"], &["projects/my-project/output"]);
        for (at, expected) in [
            ("projects/my-project/a.txt", Access::Read),
            ("projects/my-project/output/a.txt", Access::Write),
            ("projects/my-project/output", Access::Write),
            ("projects", Access::Ancestor),
            ("", Access::Ancestor),
            ("projects/other", Access::None),
            ("projects/my-project2", Access::None),
            (".sessions/sess_000000000000/x", Access::Write),
            (".sessions/sess_000000000001/x", Access::None),
            (".memory", Access::None),
        ] {
            assert_eq!(scope.access(&path(at)), expected, "{at}");
        }
    }

    #[test]
    fn the_default_is_one_root() {
        let scope = FileAccess::default().scope_for(&SessionId::from_random([0; 6])).unwrap();
        assert!(scope.is_whole());
        assert_eq!(scope.roots(), vec![(&WorkspacePath::root(), Access::Write)]);
    }

    #[test]
    fn a_write_below_a_read_is_its_own_root() {
        let scope = scope(&["a"], &["a/b", "a/b/c"]);
        let roots: Vec<_> = scope.roots().iter().map(|(p, a)| (p.to_string(), *a)).collect();
        assert_eq!(roots[1..], [("a".to_owned(), Access::Read), ("a/b".to_owned(), Access::Write)]);
    }

    #[test]
    fn bad_entries_are_named() {
        for wrong in ["/etc", "a/../..", "a\0"] {
            let access = FileAccess { read: vec![wrong.to_owned()], write: vec![] };
            assert!(access.scope_for(&SessionId::from_random([0; 6])).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_locked_folder_is_open_to_who_names_it() {
        let locked = [".pokee", "skills"].map(|name| LockedFolder::try_from(name.to_owned()).unwrap());
        for (write, expected) in [
            (vec![""], vec![".pokee", "skills"]),
            (vec!["", "skills"], vec![".pokee"]),
            (vec!["skills/own", "skills2"], vec![".pokee", "skills"]),
            (vec![".pokee", "skills"], vec![]),
        ] {
            let write: Vec<String> = write.into_iter().map(str::to_owned).collect();
            let access = FileAccess { read: vec!["skills".into()], write };
            let still: Vec<_> =
                access.still_locked(&locked).iter().map(|folder| folder.path().to_string()).collect();
            assert_eq!(still, expected, "{access:?}");
        }
    }

    #[test]
    fn only_a_folder_at_the_top_can_be_locked() {
        let lock = |name: &str| LockedFolder::try_from(name.to_owned());
        for name in [".pokee", "skills", ".memory", "a b"] {
            assert_eq!(lock(name).unwrap().path(), &path(name));
        }
        for name in ["", ".", "..", "/skills", "skills/", "skills/own", "a/../skills", "a\0"] {
            assert_eq!(lock(name), Err(InvalidLock::NotAtTheTop(name.to_owned())), "{name:?}");
        }
        assert_eq!(lock(".sessions"), Err(InvalidLock::Sessions(".sessions".into())));
    }

    proptest! {
        #[test]
        fn order_never_matters(mut read in prop::collection::vec("[ab](/[ab]){0,2}", 0..4),
                               mut write in prop::collection::vec("[ab](/[ab]){0,2}", 0..4),
                               at in "[ab](/[ab]){0,3}") {
            let id = SessionId::from_random([1; 6]);
            let one = FileAccess { read: read.clone(), write: write.clone() }.scope_for(&id).unwrap();
            read.reverse();
            write.reverse();
            let other = FileAccess { read, write }.scope_for(&id).unwrap();
            prop_assert_eq!(one.access(&path(&at)), other.access(&path(&at)));
            prop_assert_eq!(one.roots(), other.roots());
            let at = path(&at);
            let longest = one.roots().into_iter().filter(|(root, _)| at.is_within(root)).map(|(root, _)| root).next_back();
            prop_assert_eq!(one.root_of(&at), longest);
        }
    }
}
