//! A custom skill as a session keeps it: the folder's files copied once into `<into>/<hash>`, which no agent can write to
//! and which is mounted read-only (decision 15). A later change makes another hash; the sessions that run keep what
//! they had. Holes stay holes. What nobody keeps any more is removed (decision 56).

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{Context, SHA256};
use palisade_beneath::{Amount, Root};
use rustix::fs::SeekFrom;
use rustix::io::Errno;

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
    /// The snapshot of a custom skill below `into`, a directory of the server's on any file system, if its folder looks
    /// as it did when it was copied. From here on it counts as used for a while.
    pub fn known_snapshot(&self, name: &str, into: &Path) -> Result<Option<PathBuf>, WorkspaceError> {
        let leaves = bounded_leaves(&self.skill_root(name)?, name)?;
        Ok(self.known(&into.join(name), &looks(&leaves)))
    }

    /// The same, made when its content is new. `room` is asked whether so much may be written. Links that lead out of
    /// the skill's folder are left out.
    pub fn snapshot_skill(
        &self,
        name: &str,
        into: &Path,
        room: impl FnOnce(Amount) -> Result<(), WorkspaceError>,
    ) -> Result<PathBuf, WorkspaceError> {
        let root = self.skill_root(name)?;
        let leaves = bounded_leaves(&root, name)?;
        let (key, looks) = (into.join(name), looks(&leaves));
        if let Some(snapshot) = self.known(&key, &looks) {
            return Ok(snapshot);
        }
        let amount = |leaf: &Leaf| Amount { bytes: leaf.metadata.allocated_bytes, files: 1 };
        room(leaves.iter().map(amount).fold(Amount::default(), Amount::plus))?;
        let failed =
            |source| WorkspaceError::Io { action: "copying the skill", path: name.to_owned(), source };
        let snapshot = copy(&root, &leaves, into).map_err(|error| match error {
            CopyError::Randomness(error) => error,
            CopyError::Io(source) => failed(source),
        })?;
        mark_used(&snapshot).map_err(failed)?;
        let mut known = lock(&self.snapshots);
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(key, Known { looks, snapshot: snapshot.clone() });
        Ok(snapshot)
    }

    /// Removes the snapshots below `into` that are neither the latest of a custom skill nor among `kept`, unless they
    /// were used a moment ago; and what a copy that was broken off has left. Whether there is more to remove later.
    pub fn remove_unused_snapshots(
        &self,
        into: &Path,
        kept: &HashSet<String>,
        used_for: Duration,
    ) -> Result<bool, WorkspaceError> {
        let skills: HashSet<PathBuf> =
            self.custom_skills()?.into_iter().map(|skill| into.join(skill.name)).collect();
        let latest: HashSet<PathBuf> = {
            let mut known = lock(&self.snapshots);
            known.retain(|key, _| key.parent() != Some(into) || skills.contains(key));
            known.values().map(|known| known.snapshot.clone()).collect()
        };
        let failed = |source| WorkspaceError::Io {
            action: "removing snapshots of skills in",
            path: into.display().to_string(),
            source,
        };
        let mut is_more = false;
        for entry in std::fs::read_dir(into).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            let left_after = match name {
                _ if name.starts_with(UNFINISHED) => LEFT_AFTER,
                _ if is_hash(name) && !kept.contains(name) && !latest.contains(&path) => used_for,
                _ => continue,
            };
            match remove_if_older(&path, left_after) {
                Ok(is_removed) => is_more |= !is_removed,
                // Another server was first.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(is_more)
    }

    fn known(&self, key: &Path, looks: &str) -> Option<PathBuf> {
        let known = lock(&self.snapshots).get(key).filter(|known| known.looks == looks)?.snapshot.clone();
        // Marked while it is there: what is just being removed has another name by then.
        mark_used(&known).is_ok().then_some(known)
    }
}

/// The names that no snapshot has.
const UNFINISHED: &str = ".unfinished-";
/// A copy that nobody has written to for so long was broken off.
const LEFT_AFTER: Duration = Duration::from_secs(3600);

/// Snapshots are named by SHA-256.
fn is_hash(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn mark_used(snapshot: &Path) -> io::Result<()> {
    File::open(snapshot)?.set_modified(SystemTime::now())
}

/// Whether it was old enough. It loses its name before its content, so that nobody finds half of it.
fn remove_if_older(path: &Path, age: Duration) -> io::Result<bool> {
    // A clock that was set back keeps it for a while longer.
    if fs::metadata(path)?.modified()?.elapsed().unwrap_or_default() < age {
        return Ok(false);
    }
    let unnamed = temporary::random_hex().map_err(io::Error::other)?;
    let unnamed = path.with_file_name(format!("{UNFINISHED}{unnamed}"));
    fs::rename(path, &unnamed)?;
    fs::remove_dir_all(&unnamed)?;
    Ok(true)
}

// The map is whole after any panic, so a poisoned lock is still good.
fn lock(known: &Mutex<HashMap<PathBuf, Known>>) -> MutexGuard<'_, HashMap<PathBuf, Known>> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
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
        into.join(format!("{UNFINISHED}{}", temporary::random_hex().map_err(CopyError::Randomness)?));
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
        copy_data(&source, &mut copy, leaf.metadata.size, &mut digest, &mut buffer)?;
        copy.set_permissions(Permissions::from_mode(mode))?;
        copy.sync_data()?;
    }
    Ok(temporary::hex(digest.finish().as_ref()))
}

/// Copies at most `size` bytes, and of these only what is no hole: a file of nothing takes nothing and is read in no time.
fn copy_data(
    mut source: &File,
    copy: &mut File,
    size: u64,
    digest: &mut Context,
    buffer: &mut [u8],
) -> io::Result<()> {
    let mut at = 0;
    while let Some((from, to)) = next_data(source, at, size)? {
        source.seek(io::SeekFrom::Start(from))?;
        copy.seek(io::SeekFrom::Start(from))?;
        at = from;
        while at < to {
            let wanted = usize::try_from(to - at).unwrap_or(usize::MAX).min(buffer.len());
            let read = source.read(&mut buffer[..wanted])?;
            if read == 0 {
                // It has become shorter.
                break;
            }
            // Where it stands and how long it is, so that no two files spell the same bytes.
            digest.update(&at.to_le_bytes());
            digest.update(&(read as u64).to_le_bytes());
            digest.update(&buffer[..read]);
            copy.write_all(&buffer[..read])?;
            at += read as u64;
        }
        at = at.max(to);
    }
    let length = size.min(source.metadata()?.len()).max(copy.metadata()?.len());
    copy.set_len(length)?;
    digest.update(&u64::MAX.to_le_bytes());
    digest.update(&length.to_le_bytes());
    Ok(())
}

/// Where the next data is, from `at` to before `size`; a file system that knows no holes says that all is data.
fn next_data(source: &File, at: u64, size: u64) -> io::Result<Option<(u64, u64)>> {
    if at >= size {
        return Ok(None);
    }
    let from = match rustix::fs::seek(source, SeekFrom::Data(at)) {
        // Nothing but a hole until the end.
        Err(Errno::NXIO) => return Ok(None),
        Err(Errno::INVAL) => return Ok(Some((at, size))),
        from => from?,
    };
    let to = rustix::fs::seek(source, SeekFrom::Hole(from)).unwrap_or(size);
    Ok((from < size).then_some((from, to.min(size))))
}
