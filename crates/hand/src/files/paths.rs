//! Paths as models write them: `~`, names whose accents or blanks are coded in another way than on the disk, and names
//! that are nearly right.
//!
//! A path is never decided by its text: what may be seen and changed is the mounts' affair.

use std::io;
use std::path::{Path, PathBuf};

use super::{Failure, failure};
use crate::files::characters;

/// Names of one folder that are compared with a name that is not there.
const NAMES_COMPARED_MAX: usize = 10_000;
/// Names that are offered in the place of a missing one.
const NAMES_OFFERED_MAX: usize = 3;
/// How like a missing name an offered one is, from 0 to 1.
const LIKENESS_MIN: f64 = 0.85;

/// A path that was found, and what there is to say about how.
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) note: Option<String>,
}

/// The path as a model gives it: absolute, below HOME, or relative to the workspace.
pub(super) fn resolve(path: &str, workspace: &Path) -> Result<PathBuf, Failure> {
    if path.is_empty() || path.contains('\0') {
        return Err(Failure("file.bad_path", "The path is empty or contains a NUL character.".into()));
    }
    let below_home = path.strip_prefix('~').filter(|rest| rest.is_empty() || rest.starts_with('/'));
    let path = match (below_home, std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => Path::new(&home).join(rest.trim_start_matches('/')),
        _ => workspace.join(path),
    };
    // Without the `.` in the middle, so that results show plain paths.
    Ok(path.components().collect())
}

/// The path of a file that is to be written: a name that only a folder can have is refused.
pub(super) fn to_write(path: &str, workspace: &Path) -> Result<Found, Failure> {
    let resolved = resolve(path, workspace)?;
    let last = path.rsplit('/').next().unwrap_or_default();
    if matches!(last, "" | "." | "..") || path == "~" {
        if resolved.is_dir() {
            return Err(failure(&resolved, &io::ErrorKind::IsADirectory.into()));
        }
        let message = format!("{path:?} names a folder; give the file's name, too.");
        return Err(Failure("file.bad_path", message));
    }
    // Only the same name in another coding: one with other quotes or blanks is another file.
    Ok(look(&resolved, characters::composed).unwrap_or(Found { path: resolved, note: None }))
}

/// A path that is there, by its own name or by one that looks the same.
pub(super) fn existing(path: &str, workspace: &Path) -> Result<Found, Failure> {
    let resolved = resolve(path, workspace)?;
    match std::fs::symlink_metadata(&resolved) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failure(&resolved, &error)),
        Ok(metadata) if path.ends_with('/') && !metadata.is_dir() && !resolved.is_dir() => {
            return Err(failure(&resolved, &io::ErrorKind::NotADirectory.into()));
        }
        Ok(_) => return Ok(Found { path: resolved, note: None }),
    }
    look(&resolved, characters::alike).ok_or_else(|| missing(&resolved))
}

/// Goes down name by name; one that is not there is looked for among those that are the same under `coding`.
fn look(path: &Path, coding: fn(&str) -> String) -> Option<Found> {
    let mut found = PathBuf::new();
    let mut is_another = false;
    for component in path.components() {
        let next = found.join(component);
        if std::fs::symlink_metadata(&next).is_ok() {
            found = next;
            continue;
        }
        let wanted = coding(&component.as_os_str().to_string_lossy());
        let mut same = names(&found).filter(|name| coding(name.to_string_lossy().as_ref()) == wanted);
        let (Some(name), None) = (same.next(), same.next()) else { return None };
        drop(same);
        found.push(name);
        is_another = true;
    }
    let note = is_another.then(|| {
        format!(
            "the file's name on the disk is coded in other characters than the name given: {:?}",
            found.display()
        )
    });
    Some(Found { path: found, note })
}

fn names(folder: &Path) -> impl Iterator<Item = std::ffi::OsString> + use<> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.take(NAMES_COMPARED_MAX).map(|entry| entry.file_name())
}

/// Says what is there instead.
fn missing(path: &Path) -> Failure {
    let Failure(code, mut message) = failure(path, &io::ErrorKind::NotFound.into());
    let parents = path.ancestors().skip(1);
    let Some(there) = parents.into_iter().find(|parent| parent.is_dir()) else {
        return Failure(code, message);
    };
    let wanted = path.strip_prefix(there).ok().and_then(|rest| rest.components().next());
    let wanted = wanted.map(|name| name.as_os_str().to_string_lossy().to_lowercase()).unwrap_or_default();
    let mut offered: Vec<(f64, String)> = names(there)
        .map(|name| name.to_string_lossy().into_owned())
        .map(|name| (strsim::jaro_winkler(&wanted, &name.to_lowercase()), name))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .collect();
    offered.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    offered.truncate(NAMES_OFFERED_MAX);
    if !offered.is_empty() {
        let names: Vec<&str> = offered.iter().map(|(_, name)| name.as_str()).collect();
        message.push_str(&format!(" In {} there is {}.", there.display(), names.join(", ")));
    } else if Some(there) != path.parent() {
        message.push_str(&format!(" Of its folders only {} exists.", there.display()));
    }
    Failure(code, message)
}
