//! Which skills a session sees: the bundled ones and the tenant's own, as they are when it is created.

use std::path::PathBuf;

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
        let text = std::fs::read_to_string(dir.join("SKILL.md")).map_err(|e| format!("SKILL.md: {e}"))?;
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
    let text = std::fs::read_to_string(dir.join("SKILL.md")).map_err(|e| format!("SKILL.md: {e}"))?;
    let description = skill::parse(&text)?.description;
    Ok(SessionSkill { entry: SkillEntry { name: name.to_owned(), description }, dir })
}
