//! Where a deck and its spec go: where the user said, else a name that is free, where the session may write.

use crate::brief::Brief;
use crate::conversation::Conversation;
use crate::deck::Composition;
use crate::skill_doc::DeckSkill;
use crate::text::slug;

/// Where spec and deck go: where the user said, else a name that is still free in the document's own folder.
pub(crate) fn paths(
    conversation: &Conversation,
    brief: &Brief,
    skill: &DeckSkill,
    composition: &Composition,
) -> Option<(String, String)> {
    if let Some(output) = &brief.output {
        let path = if output.starts_with('/') { output.clone() } else { format!("/workspace/{output}") };
        let in_folder = output.contains('/');
        let path = if in_folder { path } else { format!("{}/{output}", folder(conversation, skill)?) };
        let stem = path.get(..path.len().saturating_sub(5)).unwrap_or(&path).to_owned();
        return Some((format!("{stem}.json"), path));
    }
    let folder = folder(conversation, skill)?;
    let name = slug(composition.spec["title"].as_str().unwrap_or_default());
    let taken: Vec<&str> = conversation
        .turn
        .iter()
        .filter(|done| done.name == "Glob" && done.argument("pattern") == "**/*.pptx")
        .flat_map(|done| done.result.lines())
        .map(|line| line.trim().trim_start_matches("/workspace/"))
        .collect();
    let base = folder.trim_start_matches("/workspace").trim_start_matches('/');
    let is_free = |name: &String| {
        let relative = if base.is_empty() { format!("{name}.pptx") } else { format!("{base}/{name}.pptx") };
        !taken.contains(&relative.as_str())
    };
    let mut names = std::iter::once(name.clone()).chain((2..1000).map(|n| format!("{name}-{n}")));
    let name = names.find(is_free)?;
    Some((format!("{folder}/{name}.json"), format!("{folder}/{name}.pptx")))
}

/// The document's folder, or the first that a scoped session may write.
fn folder(conversation: &Conversation, skill: &DeckSkill) -> Option<String> {
    let wanted = skill.folder().trim_end_matches('/').to_owned();
    let Some((_, rest)) = conversation.system.split_once("You may write: ") else { return Some(wanted) };
    let (list, _) = rest.split_once(". Other paths").unwrap_or((rest, ""));
    let roots: Vec<&str> = list.split(", ").filter(|root| root.starts_with("/workspace")).collect();
    let covers =
        |root: &&&str| **root == "/workspace" || wanted == **root || wanted.starts_with(&format!("{root}/"));
    match roots.iter().find(covers) {
        Some(_) => Some(wanted),
        None => roots.first().map(|root| (*root).to_owned()),
    }
}
