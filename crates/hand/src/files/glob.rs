//! `Glob`: files by name, newest first, over the libraries of ripgrep.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use palisade_hand_protocol::Glob;

use super::filter::{Depth, Filter};
use super::report::Report;
use super::walk::{Visited, Walk, is_filled};
use super::{Outcome, paths};

/// Folders that are named when they match.
const FOLDERS_NAMED_MAX: usize = 20;

pub(super) fn glob(glob: &Glob, workspace: &Path) -> Outcome {
    let asked = paths::resolve(glob.path.as_deref().unwrap_or("."), workspace)?;
    let (base, pattern) = split_pattern(&asked, &glob.pattern, workspace)?;
    let found = paths::existing(&base.to_string_lossy(), workspace)?;
    let base = found.path;
    let filter = Filter::parse(&pattern, &base, Depth::Here)?;
    let mut files: Vec<(bool, SystemTime, PathBuf)> = Vec::new();
    let mut folders: Vec<String> = Vec::new();
    let mut walk = Walk::new(workspace);
    walk.below(&base, true, |_, visited| {
        let (Visited::File(path) | Visited::Folder(path)) = visited;
        let relative = path.strip_prefix(&base).unwrap_or(path);
        if !filter.is_match(relative) {
            return;
        }
        match visited {
            Visited::File(path) => {
                let modified = path.metadata().and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
                files.push((is_filled(relative), modified, path.to_owned()));
            }
            Visited::Folder(_) => folders.push(format!("{}/", path.display())),
        }
    })?;
    if files.is_empty() {
        return Ok(nothing(&base, &pattern, &filter, &folders, &walk));
    }
    files.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)).then_with(|| a.2.cmp(&b.2)));
    let mut report = Report::new(glob.head_limit, glob.offset);
    for (_, _, path) in &files {
        report.add(path.display());
    }
    let mut notes = walk.left_out.notes();
    notes.extend(found.note);
    notes.extend(matching_folders(&folders));
    Ok(report.finish("files", &notes))
}

fn nothing(base: &Path, pattern: &str, filter: &Filter, folders: &[String], walk: &Walk<'_>) -> String {
    let mut said = format!("No file under {} matches {pattern}.", base.display());
    let wrong = filter
        .wrong
        .as_ref()
        .map(|wrong| format!("it was taken for a name; as a pattern it is not valid: {wrong}"));
    let notes = walk.left_out.notes_of_nothing().into_iter().chain(wrong).chain(matching_folders(folders));
    notes.for_each(|note| said.push_str(&format!("\n[note: {note}]")));
    said
}

fn matching_folders(folders: &[String]) -> Option<String> {
    let shown: Vec<&str> = folders.iter().take(FOLDERS_NAMED_MAX).map(String::as_str).collect();
    let more = if folders.len() > shown.len() { ", and more" } else { "" };
    (!shown.is_empty()).then(|| format!("folders that match: {}{more}", shown.join(", ")))
}

/// Walking starts as deep as the pattern's fixed part allows; an absolute pattern starts at the root, and one that begins
/// with `~` at HOME.
fn split_pattern(base: &Path, pattern: &str, workspace: &Path) -> Result<(PathBuf, String), super::Failure> {
    let pattern = pattern.trim();
    let (base, pattern) = match pattern.strip_prefix("~/") {
        Some(rest) => (paths::resolve("~", workspace)?, rest),
        None if pattern.starts_with('/') => (PathBuf::from("/"), pattern),
        None => (base.to_owned(), pattern),
    };
    let is_list = pattern.contains([',', '!']) || (pattern.contains(' ') && pattern.matches('*').count() > 1);
    if is_list {
        return Ok((base, pattern.to_owned()));
    }
    let mut names: Vec<&str> = pattern.split('/').filter(|name| !name.is_empty() && *name != ".").collect();
    let is_fixed = |name: &&str| !name.contains(['*', '?', '[', '{', '\\']);
    let fixed = names.iter().take_while(|name| is_fixed(name)).count().min(names.len().saturating_sub(1));
    let rest = names.split_off(fixed);
    Ok((names.iter().fold(base, |base, name| base.join(name)), rest.join("/")))
}
