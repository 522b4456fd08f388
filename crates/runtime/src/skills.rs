//! Which skills a session sees: the bundled ones and the tenant's own, as they are when it is created.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use palisade_agent::{SessionContext, SkillEntry, skill};
use palisade_protocol::Error;
use serde::{Deserialize, Serialize};

use crate::Rooms;
use crate::tenant::{Tenant, TenantMode};

/// A skill that comes with the server.
#[derive(Debug, Clone)]
pub struct BundledSkill {
    /// What the catalog says of it.
    pub entry: SkillEntry,
    /// Where it lies, for a read-only mount.
    pub dir: PathBuf,
}

/// The bundled skills of an offline tenant (contract §6): those that need nothing but the sandbox. A list of what is in it, so that
/// a new skill is not in it by mistake.
const OFFLINE_SKILLS: [&str; 5] =
    ["docx-builder", "pdf-builder", "pokee-resume-builder", "pptx-builder", "xlsx-builder"];

/// What is read of a skill's text, in bytes: many times what a model is shown of it.
const TEXT_BYTES_MAX: u64 = 256 * 1024;

/// What a session keeps from its creation, as the store holds it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct SessionKeep {
    /// For the prompt.
    pub(crate) agent: SessionContext,
    /// Each skill's folder on the host.
    pub(crate) skill_dirs: Vec<(String, PathBuf)>,
}

/// A skill for one session.
pub(crate) struct SessionSkill {
    pub(crate) entry: SkillEntry,
    pub(crate) dir: PathBuf,
}

impl BundledSkill {
    /// Reads a skill's folder, or says why it cannot be offered.
    pub fn load(dir: PathBuf) -> Result<Self, String> {
        let name = dir
            .file_name()
            .and_then(|name| name.to_str())
            .ok_or("the folder has no readable name")?
            .to_owned();
        let text = text(&dir).map_err(|e| format!("SKILL.md: {e}"))?;
        let description = skill::parse(&text)?.description;
        Ok(Self { entry: SkillEntry { name, description }, dir })
    }
}

impl Rooms {
    /// The skills of a session that is created now.
    pub(crate) async fn session_skills(&self, tenant: &Tenant) -> Result<Vec<SessionSkill>, Error> {
        let mut skills: Vec<SessionSkill> = self
            .bundled_skills
            .iter()
            .filter(|skill| {
                let is_offline = tenant.config.mode == TenantMode::Offline;
                !is_offline || OFFLINE_SKILLS.contains(&skill.entry.name.as_str())
            })
            .map(|skill| SessionSkill { entry: skill.entry.clone(), dir: skill.dir.clone() })
            .collect();
        let (name, latest) = (tenant.config.name.clone(), tenant.shelf.latest(&tenant.config.name).await?);
        let load = move || {
            let mut found = Vec::new();
            for (skill, dir) in latest {
                match load_custom(&skill, dir) {
                    Ok(skill) => found.push(skill),
                    Err(why) => tracing::warn!(tenant = %name, skill, why, "custom skill skipped"),
                }
            }
            found
        };
        for skill in tenant.share.disk.run(load).await? {
            // A bundled skill is never shadowed by a file that somebody put into the workspace.
            if skills.iter().all(|known| known.entry.name != skill.entry.name) {
                skills.push(skill);
            }
        }
        Ok(skills)
    }
}

fn load_custom(name: &str, dir: PathBuf) -> Result<SessionSkill, String> {
    let text = text(&dir).map_err(|e| format!("SKILL.md: {e}"))?;
    let description = skill::parse(&text)?.description;
    Ok(SessionSkill { entry: SkillEntry { name: name.to_owned(), description }, dir })
}

/// The text of a skill, from its beginning to the bound. Whoever wrote it may have made it as long as a file may be.
pub(crate) fn text(dir: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(dir.join("SKILL.md"))?.take(TEXT_BYTES_MAX).read_to_end(&mut bytes)?;
    String::from_utf8(bytes).or_else(|error| {
        let (whole, is_cut) = (error.utf8_error().valid_up_to(), error.utf8_error().error_len().is_none());
        let mut bytes = error.into_bytes();
        // The bound may lie within a character.
        if is_cut && bytes.len() as u64 == TEXT_BYTES_MAX {
            bytes.truncate(whole);
        }
        String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_read_to_its_bound_and_no_character_is_halved() {
        let folder = tempfile::tempdir().unwrap();
        let read = |content: &[u8]| {
            std::fs::write(folder.path().join("SKILL.md"), content).unwrap();
            text(folder.path())
        };
        assert_eq!(read("ä".as_bytes()).unwrap(), "ä");
        let bound = usize::try_from(TEXT_BYTES_MAX).unwrap();
        assert_eq!(read(format!("x{}", "ä".repeat(bound)).as_bytes()).unwrap().len(), bound - 1);
        for wrong in [&b"a\xff"[..], b"a\xc3"] {
            assert_eq!(read(wrong).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }
}
