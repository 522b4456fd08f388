//! What can go wrong with a tenant's files, and which of the caller's errors that is. A client learns the path
//! it named itself and nothing about the disk.

use std::io;

use palisade_protocol::{Error, ErrorKind, WorkspacePath};
use rustix::io::Errno;

/// A failed operation on the workspace, naming what was tried on what.
#[derive(Debug, thiserror::Error)]
pub enum WorkspaceError {
    /// Outside the scope, whether or not there is such a file.
    #[error("'{0}' not in session scope")]
    OutOfScope(WorkspacePath),
    /// In the scope, but only to be read.
    #[error("'{0}' not in session scope")]
    ReadOnly(WorkspacePath),
    /// In the scope, and there is nothing; or a link that leads out of its scope root.
    #[error("'{0}' not found")]
    NotFound(WorkspacePath),
    /// A FIFO, a socket or a device.
    #[error("'{0}' is not a regular file")]
    NotRegular(WorkspacePath),
    /// A file was wanted.
    #[error("'{0}' is a directory")]
    IsDirectory(WorkspacePath),
    /// A directory was wanted.
    #[error("'{0}' is not a directory")]
    NotDirectory(WorkspacePath),
    /// A file stands where a directory above the path would have to be.
    #[error("'{0}' cannot be made: a file stands where one of its directories would be")]
    FileInTheWay(WorkspacePath),
    /// A directory with content, to be deleted without saying so.
    #[error("'{0}' is not empty; recursive=true deletes it with its content")]
    NotEmpty(WorkspacePath),
    /// The workspace, a root of the scope or a folder of the server's.
    #[error("'{0}' is held by the session or the server and cannot be deleted")]
    Held(WorkspacePath),
    /// A condition of the request is not met.
    #[error("'{path}' is not as the request's conditions say: {}", match .tag {
        Some(tag) => format!("its ETag is now {tag}"),
        None => "there is no such file".to_owned(),
    })]
    ConditionFailed {
        /// The file.
        path: WorkspacePath,
        /// What it has now, if it is there and a file.
        tag: Option<String>,
    },
    /// The name is one that only the server gives.
    #[error("'{0}' has a name that is kept for unfinished uploads")]
    ReservedName(WorkspacePath),
    /// An upload over its limit.
    #[error("'{path}' is larger than the upload limit of {limit_bytes} bytes")]
    UploadTooLarge {
        /// What was written.
        path: WorkspacePath,
        /// The limit.
        limit_bytes: u64,
    },
    /// A directory over the bounds of an archive.
    #[error("'{path}' cannot be archived: more than {bound}")]
    ArchiveTooLarge {
        /// The directory.
        path: WorkspacePath,
        /// The bound it is over.
        bound: &'static str,
    },
    /// A skill folder over the bounds of a skill.
    #[error("skill '{name}' has more than {bound}")]
    SkillTooLarge {
        /// The skill.
        name: String,
        /// The bound it is over.
        bound: &'static str,
    },
    /// No such custom skill.
    #[error("no custom skill '{0}'")]
    NoSuchSkill(String),
    /// A `file_access` entry that is not, and cannot become, a directory.
    #[error("file_access path '{0}' is not a directory")]
    ScopeNotDirectory(WorkspacePath),
    /// Permissions on the disk forbid it.
    #[error("the file permissions of '{0}' do not allow this")]
    Permissions(WorkspacePath, #[source] io::Error),
    /// Somebody renames or refills it at this moment.
    #[error("'{0}' keeps changing; try again")]
    Changing(WorkspacePath, #[source] io::Error),
    /// The disk or a quota is full.
    #[error("no space left to write '{0}'")]
    StorageFull(WorkspacePath, #[source] io::Error),
    /// The workspace's limit is reached, though the disk has room.
    #[error("the workspace is full: it may have {limit_bytes} bytes; delete something first")]
    WorkspaceFull {
        /// The limit.
        limit_bytes: u64,
    },
    /// The workspace's number of files is reached, though the disk has room.
    #[error("the workspace is full: it may have {limit_files} files, folders and links; delete some first")]
    TooManyFiles {
        /// The limit.
        limit_files: u64,
    },
    /// What is left of the disk is kept for the server itself.
    #[error("the server's disk is full")]
    DiskFull,
    /// The receiver of an archive went away.
    #[error("writing the archive of '{0}' failed")]
    Archive(WorkspacePath, #[source] io::Error),
    /// The system has no randomness to give.
    #[error("no randomness for a temporary name")]
    Randomness,
    /// Anything else that the disk answered.
    #[error("{action} '{path}' failed")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what: relative to the workspace, or a folder of the server's.
        path: String,
        /// What the disk said.
        #[source]
        source: io::Error,
    },
}

impl WorkspaceError {
    /// What an error of the disk means for somebody who named `path`.
    pub(crate) fn from_io(action: &'static str, path: &WorkspacePath, source: io::Error) -> Self {
        match Errno::from_io_error(&source) {
            // XDEV: a link that leads out. LOOP: links in a circle. NXIO: a socket or a FIFO nobody reads.
            Some(Errno::NOENT | Errno::XDEV | Errno::LOOP | Errno::NOTDIR | Errno::NAMETOOLONG) => {
                Self::NotFound(path.clone())
            }
            Some(Errno::NXIO) => Self::NotRegular(path.clone()),
            Some(Errno::ISDIR) => Self::IsDirectory(path.clone()),
            Some(Errno::NOTEMPTY) => Self::NotEmpty(path.clone()),
            Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => Self::Permissions(path.clone(), source),
            Some(Errno::AGAIN | Errno::BUSY) => Self::Changing(path.clone(), source),
            Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => Self::StorageFull(path.clone(), source),
            _ => Self::Io { action, path: path.to_string(), source },
        }
    }

    /// The stable code and the kind, as the wire has them.
    fn kind_and_code(&self) -> (ErrorKind, &'static str) {
        match self {
            Self::OutOfScope(_) => (ErrorKind::Forbidden, "scope.denied"),
            Self::ReadOnly(_) => (ErrorKind::Forbidden, "scope.read_only"),
            Self::NotFound(_) => (ErrorKind::NotFound, "file.not_found"),
            Self::NotRegular(_) => (ErrorKind::NotFound, "file.not_regular"),
            Self::IsDirectory(_) => (ErrorKind::Conflict, "file.is_directory"),
            Self::NotDirectory(_) => (ErrorKind::NotFound, "directory.is_file"),
            Self::FileInTheWay(_) => (ErrorKind::Conflict, "directory.file_in_the_way"),
            Self::NotEmpty(_) => (ErrorKind::Conflict, "directory.not_empty"),
            Self::ConditionFailed { .. } => (ErrorKind::PreconditionFailed, "file.precondition_failed"),
            Self::Held(_) => (ErrorKind::Conflict, "directory.held"),
            Self::ReservedName(_) => (ErrorKind::Forbidden, "file.reserved_name"),
            Self::UploadTooLarge { .. } => (ErrorKind::TooLarge, "upload.too_large"),
            Self::ArchiveTooLarge { .. } => (ErrorKind::TooLarge, "archive.too_large"),
            Self::SkillTooLarge { .. } => (ErrorKind::TooLarge, "skill.too_large"),
            Self::NoSuchSkill(_) => (ErrorKind::NotFound, "skill.not_found"),
            Self::ScopeNotDirectory(_) => (ErrorKind::Malformed, "scope.not_directory"),
            Self::Permissions(..) => (ErrorKind::Forbidden, "file.permissions"),
            Self::Changing(..) => (ErrorKind::Conflict, "file.changing"),
            Self::StorageFull(..) | Self::DiskFull => (ErrorKind::StorageFull, "storage.full"),
            Self::WorkspaceFull { .. } => (ErrorKind::StorageFull, "workspace.full"),
            Self::TooManyFiles { .. } => (ErrorKind::StorageFull, "workspace.too_many_files"),
            Self::Archive(..) | Self::Randomness | Self::Io { .. } => (ErrorKind::Bug, "internal"),
        }
    }
}

impl From<WorkspaceError> for Error {
    fn from(error: WorkspaceError) -> Self {
        match error.kind_and_code() {
            (ErrorKind::Bug, _) => Self::bug(error),
            (kind, code) => Self::new(kind, code, error.to_string()).caused_by(error),
        }
    }
}
