//! Custom skills: the folders of `skills/` that hold a `SKILL.md` (contract §6). Whatever else lies there is
//! not a skill and not an error.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use palisade_beneath::{Kind, Root, Visit};
use palisade_protocol::WorkspacePath;
use rustix::io::Errno;

use crate::folders::SKILLS;
use crate::{Workspace, WorkspaceError};

/// Custom skills of one tenant; more are not listed.
pub const SKILLS_LISTED_MAX: usize = 1_000;
/// Names looked at in `skills`.
const NAMES_SCANNED_MAX: usize = 100_000;
/// The file that makes a folder a skill.
const SKILL_MD: &str = "SKILL.md";

/// A custom skill as it lies in the workspace.
#[derive(Debug, Clone, PartialEq)]
pub struct SkillFolder {
    /// The folder's name, which is the skill's.
    pub name: String,
    /// Relative to the workspace.
    pub dir: WorkspacePath,
    /// Bytes.
    pub skill_md_size: u64,
    /// When `SKILL.md` last changed, in Unix seconds.
    pub modified: f64,
}

/// `[a-z0-9_-]{1,64}`, the first `[a-z0-9]`; `custom-` is reserved (contract §6).
pub fn is_skill_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=64).contains(&name.len())
        && name.bytes().all(|byte| plain(byte) || byte == b'_' || byte == b'-')
        && name.bytes().next().is_some_and(plain)
        && !name.starts_with("custom-")
}

impl Workspace {
    /// The custom skills, by name.
    pub fn custom_skills(&self) -> Result<Vec<SkillFolder>, WorkspaceError> {
        let mut names = Vec::new();
        let mut scanned = 0;
        let skills = match self.root.narrow(Path::new(SKILLS)) {
            // Removed, or a link by now: there are none.
            Err(_) => return Ok(Vec::new()),
            Ok(skills) => skills,
        };
        skills
            .directory(Path::new(""))
            .and_then(|directory| {
                directory.read(|name, kind| {
                    scanned += 1;
                    let name = name.to_str().filter(|name| kind == Kind::Directory && is_skill_name(name));
                    names.extend(name.map(str::to_owned));
                    if scanned < NAMES_SCANNED_MAX { Visit::More } else { Visit::Stop }
                })
            })
            .map_err(|source| WorkspaceError::Io { action: "listing", path: SKILLS.to_owned(), source })?;
        names.sort_unstable();
        Ok(names.into_iter().filter_map(|name| skill_folder(&skills, name)).take(SKILLS_LISTED_MAX).collect())
    }

    /// The root of one skill's look-ups: its links lead no further than its own folder.
    pub(crate) fn skill_root(&self, name: &str) -> Result<Root, WorkspaceError> {
        if !is_skill_name(name) {
            return Err(WorkspaceError::NoSuchSkill(name.to_owned()));
        }
        let path: PathBuf = [SKILLS, name].iter().collect();
        self.root.narrow(&path).map_err(|source| match Errno::from_io_error(&source) {
            Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => {
                WorkspaceError::NoSuchSkill(name.to_owned())
            }
            _ => WorkspaceError::Io { action: "opening", path: path.display().to_string(), source },
        })
    }
}

fn skill_folder(skills: &Root, name: String) -> Option<SkillFolder> {
    let folder = skills.narrow(Path::new(OsStr::new(&name))).ok()?;
    let metadata = *folder.look_up(Path::new(SKILL_MD)).ok()?.metadata();
    if metadata.kind != Kind::File {
        return None;
    }
    let dir = WorkspacePath::parse(format!("{SKILLS}/{name}")).ok()?;
    Some(SkillFolder { name, dir, skill_md_size: metadata.size, modified: metadata.modified_s() })
}
