//! Writing a file so that every reader sees the old one or the new one, never half: into a temporary beside
//! it, to the disk, then renamed over it. Nothing is left behind when it does not come to that.

use std::ffi::OsString;
use std::fs::{File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use palisade_beneath::{Directory, Kind, Metadata, Root};
use palisade_protocol::WorkspacePath;
use palisade_protocol::scope::{Scope, is_session_dir};
use rustix::io::Errno;
use serde::Serialize;

use crate::changes::Changes;
use crate::condition::{Conditions, Validators};
use crate::resolve::{Place, as_path};
use crate::{Workspace, WorkspaceError, temporary};

/// The rights of a new file; a replaced one keeps those it had.
const NEW_FILE_MODE: u32 = 0o644;
/// How often the parents are made again when they vanish before the temporary is in them.
const PARENTS_TRIES_MAX: u32 = 100;

/// A file on its way. Dropped before `finish`, it leaves nothing: no temporary, and no directory made for it.
#[derive(Debug)]
pub struct Upload {
    parents: Parents,
    temporary: OsString,
    name: OsString,
    path: WorkspacePath,
    file: File,
    mode: u32,
    written_bytes: u64,
    limit_bytes: u64,
    renamed: bool,
    /// Where a link at the name is followed from.
    root: Root,
    below: PathBuf,
    conditions: Conditions,
    changes: Arc<Changes>,
}

/// The directory a file goes to, and the names of those that were made on the way to it, the last one first.
/// Dropped before the file is in it, they go again.
#[derive(Debug)]
struct Parents {
    directory: Directory,
    made: Vec<OsString>,
}

/// A file that was written, as the wire has it.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Written {
    /// Relative to the workspace.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Unix seconds.
    pub modified: f64,
    /// Its tag and its date.
    #[serde(skip)]
    pub validators: Validators,
}

impl Workspace {
    /// Begins to write the file at `path`, at most `limit_bytes` long. Missing parents are made. A link at
    /// `path` that stays beneath its scope root is replaced by the file; any other is not found.
    pub fn begin_upload(
        &self,
        scope: &Scope,
        path: &WorkspacePath,
        limit_bytes: u64,
    ) -> Result<Upload, WorkspaceError> {
        let place = match self.writable(scope, path) {
            Err(WorkspaceError::NotFound(_)) => self.remake_root(scope, path)?,
            place => place?,
        };
        // A root of the scope and a session's own folder are directories, also while they are missing on the disk.
        let (Some(parent), Some(name), false) =
            (place.below().parent(), place.below().file_name(), is_session_dir(path))
        else {
            return Err(WorkspaceError::IsDirectory(path.clone()));
        };
        let (parents, temporary, file) = make_temporary(&place, parent, path)?;
        let mode = match replaced_mode(&place, &parents.directory, path) {
            Ok(replaced) => replaced.unwrap_or(NEW_FILE_MODE),
            Err(error) => {
                let _ = parents.directory.remove_file(&temporary);
                return Err(error);
            }
        };
        Ok(Upload {
            name: name.to_owned(),
            path: path.clone(),
            written_bytes: 0,
            renamed: false,
            parents,
            temporary,
            file,
            mode,
            limit_bytes,
            below: place.below().to_owned(),
            root: place.root,
            conditions: Conditions::default(),
            changes: self.changes.clone(),
        })
    }

    /// Somebody removed the scope root while the session lives; it is made again, as at the session's start.
    fn remake_root<'p>(&self, scope: &Scope, path: &'p WorkspacePath) -> Result<Place<'p>, WorkspaceError> {
        if let Some(root) = scope.root_of(path) {
            self.root
                .create_dir_all_strict(as_path(root.as_bytes()))
                .map_err(|error| WorkspaceError::from_io("making the scope root of", path, error))?;
        }
        self.writable(scope, path)
    }
}

/// Makes the parents and a temporary in them. Another upload that fails takes back the directories it made, and
/// one may be the one just found here; then they are made again.
fn make_temporary(
    place: &Place<'_>,
    parent: &Path,
    path: &WorkspacePath,
) -> Result<(Parents, OsString, File), WorkspaceError> {
    let mut tries = 0;
    loop {
        tries += 1;
        let temporary = temporary::name()?;
        let made = place.root.create_dir_all(parent).and_then(|(directory, levels)| {
            let made = parent.iter().rev().take(levels).map(ToOwned::to_owned).collect();
            let parents = Parents { directory, made };
            let file = parents.directory.create_file(&temporary, 0o600)?;
            Ok((parents, file))
        });
        match made {
            Ok((parents, file)) => return Ok((parents, temporary, file)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && tries < PARENTS_TRIES_MAX => {}
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NOTDIR) => {
                return Err(WorkspaceError::FileInTheWay(path.clone()));
            }
            Err(error) => return Err(WorkspaceError::from_io("making a temporary beside", path, error)),
        }
    }
}

/// The rights of the file that will be replaced; an error for what must not be.
fn replaced_mode(
    place: &Place<'_>,
    directory: &Directory,
    path: &WorkspacePath,
) -> Result<Option<u32>, WorkspaceError> {
    let failed = |error| WorkspaceError::from_io("looking at", path, error);
    let name = Path::file_name(place.below()).unwrap_or_default();
    let mut found = match directory.metadata(name) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        found => found.map_err(failed)?,
    };
    if found.kind == Kind::Link {
        found = *place.root.look_up(place.below()).map_err(failed)?.metadata();
    }
    match found.kind {
        Kind::File => Ok(Some(found.mode & 0o777)),
        Kind::Directory => Err(WorkspaceError::IsDirectory(path.clone())),
        Kind::Special | Kind::Link => Err(WorkspaceError::NotRegular(path.clone())),
    }
}

impl Upload {
    /// Goes on only if what is at the path is as these say, now and when the file is put in its place.
    pub fn only_if(mut self, conditions: Conditions) -> Result<Self, WorkspaceError> {
        self.conditions = conditions;
        self.check_conditions()?;
        Ok(self)
    }

    /// Appends; over the limit nothing more is written and the upload can only be dropped.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), WorkspaceError> {
        let total = self.written_bytes.saturating_add(bytes.len() as u64);
        if total > self.limit_bytes {
            return Err(WorkspaceError::UploadTooLarge {
                path: self.path.clone(),
                limit_bytes: self.limit_bytes,
            });
        }
        self.file.write_all(bytes).map_err(|error| WorkspaceError::from_io("writing", &self.path, error))?;
        self.written_bytes = total;
        Ok(())
    }

    /// Puts the file in its place: when this returns, it is on the disk under its name.
    pub fn finish(mut self) -> Result<Written, WorkspaceError> {
        let failed = |action| move |path: &WorkspacePath, error| WorkspaceError::from_io(action, path, error);
        self.file
            .set_permissions(Permissions::from_mode(self.mode))
            .and_then(|()| self.file.sync_all())
            .map_err(|error| failed("saving")(&self.path, error))?;
        self.check_temporary()?;
        let changes = self.changes.clone();
        let held = changes.hold();
        self.check_conditions()?;
        self.rename()?;
        self.renamed = true;
        self.parents.made.clear();
        let metadata = Metadata::of(&self.file).map_err(|error| failed("looking at")(&self.path, error))?;
        held.wrote(&metadata);
        drop(held);
        self.parents.directory.sync().map_err(|error| failed("saving the name of")(&self.path, error))?;
        Ok(Written {
            path: self.path.to_string(),
            size: self.written_bytes,
            modified: metadata.modified_s(),
            validators: changes.validators(&metadata),
        })
    }

    fn rename(&self) -> Result<(), WorkspaceError> {
        let (directory, from, to) = (&self.parents.directory, &self.temporary, &self.name);
        // The kernel's own word where nothing may be there yet: it binds what runs in sandboxes, too.
        let renamed = match self.conditions.wants_nothing() {
            true => directory.rename_new(from, to).or_else(|error| match Errno::from_io_error(&error) {
                // A file system that has no such rename.
                Some(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => directory.rename(from, to),
                _ => Err(error),
            }),
            false => directory.rename(from, to),
        };
        renamed.map_err(|error| match Errno::from_io_error(&error) {
            Some(Errno::EXIST) if self.conditions.wants_nothing() => {
                WorkspaceError::ConditionFailed { path: self.path.clone(), tag: None }
            }
            Some(Errno::ISDIR | Errno::NOTEMPTY | Errno::EXIST) => {
                WorkspaceError::IsDirectory(self.path.clone())
            }
            // The temporary is gone: the agent, who owns the directory too, removed it.
            Some(Errno::NOENT) => WorkspaceError::Changing(self.path.clone(), error),
            _ => WorkspaceError::from_io("placing", &self.path, error),
        })
    }

    fn check_conditions(&self) -> Result<(), WorkspaceError> {
        if self.conditions.is_empty() {
            return Ok(());
        }
        let failed = |error| WorkspaceError::from_io("looking at", &self.path, error);
        let found = match self.parents.directory.metadata(&self.name) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            found => Some(found.map_err(failed)?),
        };
        let shown = match found {
            Some(link) if link.kind == Kind::Link => {
                Some(*self.root.look_up(&self.below).map_err(failed)?.metadata())
            }
            found => found,
        };
        self.changes.require(&self.conditions, shown.as_ref(), &self.path)
    }

    /// The agent, who owns the directory too, may have put something else in the temporary's place. That would only
    /// ever be the agent's own, but it must not be answered for as what the client sent.
    fn check_temporary(&self) -> Result<(), WorkspaceError> {
        let failed = |error| WorkspaceError::from_io("looking at", &self.path, error);
        let written = Metadata::of(&self.file).map_err(failed)?;
        let is_ours = match self.parents.directory.metadata(&self.temporary) {
            Ok(named) => (named.device, named.inode) == (written.device, written.inode),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
            Err(error) => return Err(failed(error)),
        };
        if is_ours { Ok(()) } else { Err(WorkspaceError::Changing(self.path.clone(), Errno::STALE.into())) }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.renamed {
            return;
        }
        if let Err(error) = self.parents.directory.remove_file(&self.temporary) {
            tracing::warn!(path = %self.path, error = %error, "an unfinished upload could not be removed");
        }
    }
}

impl Drop for Parents {
    fn drop(&mut self) {
        // Not empty: somebody else uses them by now, and they stay.
        let _ = self.directory.remove_made(self.made.iter().map(OsString::as_os_str));
    }
}
