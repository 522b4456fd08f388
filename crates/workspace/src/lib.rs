//! A tenant's files from outside, through a session's scope (contract §5).
//!
//! One resolver serves every call: the scope decides by the path's text, the longest root of the scope that
//! contains the path is opened with no link on the way, and the kernel does the rest beneath it. So a link
//! leads no further than its own scope root, and nothing that happens on the disk meanwhile changes that.
//! Everything here blocks; nothing here knows HTTP, a clock's time zone or another tenant.

mod archive;
mod changes;
mod condition;
mod context;
mod delete;
mod error;
mod folders;
mod homes;
mod list;
mod read;
mod resolve;
mod skills;
mod snapshot;
mod sweep;
mod temporary;
mod tree;
mod upload;
mod usage;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use palisade_beneath::Root;
use palisade_protocol::scope::LockedFolder;

use crate::changes::Changes;

pub use archive::{ARCHIVE_BYTES_MAX, ARCHIVE_ENTRIES_MAX, Archive, ArchivePieces};
pub use condition::{Conditions, Tag, Tags, Validators, Verdict};
pub use error::WorkspaceError;
pub use homes::Homes;
pub use list::{Entry, EntryKind, Listing, Page};
pub use palisade_beneath::Amount;
pub use read::{Opened, ReadFile};
pub use skills::{SKILLS_LISTED_MAX, SkillFolder, is_skill_name};
pub use snapshot::{SKILL_BYTES_MAX, SKILL_ENTRIES_MAX, SKILL_FILE_BYTES_MAX};
pub use upload::{Upload, Written};
pub use usage::{Footprint, Volume, Volumes};

/// One tenant's workspace. Cheap to share by reference; every call looks at the disk anew.
#[derive(Debug)]
pub struct Workspace {
    dir: PathBuf,
    root: Root,
    /// Which snapshot a skill's folder had when it looked like this; rebuilt from the disk when lost.
    snapshots: Mutex<HashMap<PathBuf, snapshot::Known>>,
    /// What sandboxes show read-only: it has to stay where it is, for a mount goes with the folder it is on.
    locked: Vec<LockedFolder>,
    /// Held while folders are set aside, so that two sessions do not set aside each other's new folder.
    folders: Mutex<()>,
    /// Held while a name is changed through the API.
    changes: Arc<Changes>,
}

impl Workspace {
    /// Opens the workspace at `dir`, making it and the folders the server relies on, `locked` among them.
    pub fn open(dir: &Path, locked: &[LockedFolder]) -> Result<Self, WorkspaceError> {
        let failed =
            |action| move |source| WorkspaceError::Io { action, path: dir.display().to_string(), source };
        std::fs::create_dir_all(dir).map_err(failed("making the workspace"))?;
        let root = Root::open(dir).map_err(failed("opening the workspace"))?;
        let workspace = Self {
            dir: dir.to_owned(),
            root,
            snapshots: Mutex::default(),
            locked: locked.to_vec(),
            folders: Mutex::default(),
            changes: Arc::new(Changes::of(dir)?),
        };
        workspace.ensure_folders()?;
        Ok(workspace)
    }

    /// Where it lies on the host.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}
