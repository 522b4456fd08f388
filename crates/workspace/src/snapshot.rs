//! A custom skill as a session keeps it: the folder's files copied once into `<into>/<content hash>`, which no
//! agent can write to and which is mounted read-only (decision 15). A later change makes another hash; the
//! sessions that run keep what they had.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use aws_lc_rs::digest::{Context, SHA256};
use palisade_beneath::Root;

use crate::tree::{self, Leaf, WalkError};
use crate::{Workspace, WorkspaceError, temporary};

/// Files and folders of one skill.
pub const SKILL_ENTRIES_MAX: usize = 1_000;
/// Content of one skill, in bytes.
pub const SKILL_BYTES_MAX: u64 = 50 * 1024 * 1024;
/// One file of a skill, in bytes.
pub const SKILL_FILE_BYTES_MAX: u64 = 25 * 1024 * 1024;
/// Snapshots whose folders are remembered; beyond it all are looked at anew.
const KNOWN_MAX: usize = 4_096;
const COPY_BUFFER_BYTES: usize = 64 * 1024;

/// A skill's folder as it looked when it was copied, and the copy.
#[derive(Debug)]
pub(crate) struct Known {
    looks: String,
    snapshot: PathBuf,
}

impl Workspace {
    /// The snapshot of a custom skill below `into`, a directory of the server's on any file system: made when
    /// its content is new, found again otherwise. Links that lead out of the skill's folder are left out.
    pub fn snapshot_skill(&self, name: &str, into: &Path) -> Result<PathBuf, WorkspaceError> {
        let root = self.skill_root(name)?;
        let leaves = bounded_leaves(&root, name)?;
        let (key, looks) = (into.join(name), looks(&leaves));
        {
            let known = self.snapshots.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(known) =
                known.get(&key).filter(|known| known.looks == looks && known.snapshot.is_dir())
            {
                return Ok(known.snapshot.clone());
            }
        }
        let snapshot = copy(&root, &leaves, into).map_err(|error| match error {
            CopyError::Randomness(error) => error,
            CopyError::Io(source) => {
                WorkspaceError::Io { action: "copying the skill", path: name.to_owned(), source }
            }
        })?;
        let mut known = self.snapshots.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(key, Known { looks, snapshot: snapshot.clone() });
        Ok(snapshot)
    }
}

fn bounded_leaves(root: &Root, name: &str) -> Result<Vec<Leaf>, WorkspaceError> {
    let over = |bound| WorkspaceError::SkillTooLarge { name: name.to_owned(), bound };
    let leaves =
        tree::walk(root, Path::new(""), SKILL_ENTRIES_MAX, "1000 entries").map_err(|error| match error {
            WalkError::Over(bound) => over(bound),
            WalkError::Io(source) => {
                WorkspaceError::Io { action: "listing the skill", path: name.to_owned(), source }
            }
        })?;
    let sizes = || leaves.iter().filter(|leaf| !leaf.is_directory).map(|leaf| leaf.metadata.size);
    if sizes().any(|size| size > SKILL_FILE_BYTES_MAX) {
        return Err(over("25 MB in one file"));
    }
    if sizes().fold(0, u64::saturating_add) > SKILL_BYTES_MAX {
        return Err(over("50 MB"));
    }
    let is_skill = leaves.iter().any(|leaf| leaf.path == Path::new("SKILL.md") && !leaf.is_directory);
    if is_skill { Ok(leaves) } else { Err(WorkspaceError::NoSuchSkill(name.to_owned())) }
}

/// A digest of everything about the files but their content: while it is the same, so is the content.
fn looks(leaves: &[Leaf]) -> String {
    let mut digest = Context::new(&SHA256);
    for leaf in leaves {
        let about = &leaf.metadata;
        add_name(&mut digest, leaf);
        for number in [i128::from(about.size), i128::from(about.inode), about.modified_ns, about.changed_ns] {
            digest.update(&number.to_le_bytes());
        }
    }
    temporary::hex(digest.finish().as_ref())
}

/// Lengths stand before texts, so that no two trees spell the same bytes.
fn add_name(digest: &mut Context, leaf: &Leaf) {
    let path = leaf.path.as_os_str().as_bytes();
    digest.update(&(path.len() as u64).to_le_bytes());
    digest.update(path);
    digest.update(&[u8::from(leaf.is_directory), u8::from(is_executable(leaf))]);
}

fn is_executable(leaf: &Leaf) -> bool {
    leaf.metadata.mode & 0o111 != 0
}

enum CopyError {
    Randomness(WorkspaceError),
    Io(io::Error),
}

impl From<io::Error> for CopyError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn copy(root: &Root, leaves: &[Leaf], into: &Path) -> Result<PathBuf, CopyError> {
    let unfinished =
        into.join(format!(".unfinished-{}", temporary::random_hex().map_err(CopyError::Randomness)?));
    fs::create_dir_all(&unfinished)?;
    let copied = copy_files(root, leaves, &unfinished).and_then(|hash| {
        let snapshot = into.join(hash);
        match fs::rename(&unfinished, &snapshot) {
            // The same content was copied before, or by another session at this moment.
            Err(_) if snapshot.is_dir() => fs::remove_dir_all(&unfinished)?,
            renamed => renamed?,
        }
        Ok(snapshot)
    });
    if copied.is_err() {
        // The error that matters is the one above; what is left here is swept with the folder.
        let _ = fs::remove_dir_all(&unfinished);
    }
    Ok(copied?)
}

/// Copies and digests the same bytes in one pass. Nothing in `target` is open to anybody but the server.
fn copy_files(root: &Root, leaves: &[Leaf], target: &Path) -> io::Result<String> {
    let mut digest = Context::new(&SHA256);
    let mut buffer = vec![0; COPY_BUFFER_BYTES];
    for leaf in leaves {
        if leaf.is_directory {
            add_name(&mut digest, leaf);
            fs::create_dir(target.join(&leaf.path))?;
            continue;
        }
        let source = match root.look_up(&leaf.path).and_then(|node| node.open_file()) {
            Err(error) if tree::is_gone(&error) => continue,
            opened => opened?,
        };
        add_name(&mut digest, leaf);
        let mode = if is_executable(leaf) { 0o555 } else { 0o444 };
        let mut copy =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(target.join(&leaf.path))?;
        let mut source = source.take(leaf.metadata.size);
        let mut copied: u64 = 0;
        loop {
            let read = source.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            digest.update(&buffer[..read]);
            copy.write_all(&buffer[..read])?;
            copied += read as u64;
        }
        digest.update(&copied.to_le_bytes());
        copy.set_permissions(Permissions::from_mode(mode))?;
        copy.sync_data()?;
    }
    Ok(temporary::hex(digest.finish().as_ref()))
}
