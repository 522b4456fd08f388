//! What a turn made: the files under `output/` that are new or changed, found by comparing listings, and fetched.
//!
//! Bounded in folders and files. Hidden files stay where they are: an agent must not be able to plant
//! configuration beside the person's own files.

use std::collections::BTreeMap;
use std::path::Path;

use super::api::{Api, FileEntry};
use super::download::{self, Target};
use super::error::ClientError;
use super::printer::SavedFile;
use super::remote_path::RemotePath;

/// Folders listed in one look.
const FOLDERS_MAX: usize = 100;
/// Files remembered and files fetched.
const FILES_MAX: usize = 10_000;
const FETCHED_MAX: usize = 500;

/// The files of a folder at one time.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    files: BTreeMap<RemotePath, (u64, u64)>,
}

/// What was fetched, and what was left.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    pub saved: Vec<SavedFile>,
    pub left: Vec<RemotePath>,
}

/// Looks at every file under `folder`; one that is missing or outside the session's scope has none.
pub(super) async fn look(api: &Api, session: &str, folder: &RemotePath) -> Result<Snapshot, ClientError> {
    let mut snapshot = Snapshot::default();
    let mut folders = vec![folder.clone()];
    let mut listed = 0;
    while let Some(folder) = folders.pop() {
        listed += 1;
        let entries = match api.entries(session, &folder).await {
            Ok(entries) => entries,
            Err(ClientError::Refused { refusal }) if matches!(refusal.status, 403 | 404) => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let Some(path) = folder.join(&entry.name, entry.name_percent.as_deref()) else { continue };
            if entry.kind == "directory" && listed + folders.len() < FOLDERS_MAX {
                folders.push(path);
            } else if entry.kind == "file" && snapshot.files.len() < FILES_MAX {
                snapshot.files.insert(path, stamp(&entry));
            }
        }
    }
    Ok(snapshot)
}

fn stamp(entry: &FileEntry) -> (u64, u64) {
    (entry.size, entry.modified.to_bits())
}

impl Snapshot {
    /// The files that are new or changed since `before`.
    fn since(&self, before: &Self) -> Vec<&RemotePath> {
        let changed = self.files.iter().filter(|(path, stamp)| before.files.get(path) != Some(stamp));
        changed.map(|(path, _)| path).collect()
    }
}

/// Fetches what is new or changed under `folder` since `before`, keeping its sub-folders.
pub(super) async fn fetch(
    api: &Api,
    session: &str,
    folder: &RemotePath,
    before: &Snapshot,
    out: &Path,
) -> Result<Fetched, ClientError> {
    let after = look(api, session, folder).await?;
    let mut fetched = Fetched::default();
    let depth = folder.names().len();
    for path in after.since(before) {
        let names: Option<Vec<String>> =
            path.names().iter().skip(depth).map(|name| download::local_name(name)).collect();
        let Some(names) = names else {
            fetched.left.push(path.clone());
            continue;
        };
        let Some((name, folders)) = names.split_last() else { continue };
        if fetched.saved.len() == FETCHED_MAX {
            fetched.left.push(path.clone());
            continue;
        }
        let response = api.download(session, path, false).await?;
        let target = Target::Beside {
            folder: folders.iter().fold(out.to_owned(), |at, name| at.join(name)),
            name: name.clone(),
        };
        let (saved, size) = download::save(response, &target).await?;
        fetched.saved.push(SavedFile {
            path: path.encoded().to_owned(),
            saved: saved.display().to_string(),
            size,
            made_as: (path.names()[depth..] != names[..]).then(|| path.names().join("/")),
        });
    }
    Ok(fetched)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn new_and_changed_files_are_found() {
        let at = |files: &[(&str, u64, f64)]| Snapshot {
            files: files
                .iter()
                .map(|(name, size, modified)| {
                    (RemotePath::parse(OsStr::new(name)).unwrap(), (*size, modified.to_bits()))
                })
                .collect(),
        };
        let before =
            at(&[("output/a", 1, 1.0), ("output/b", 1, 1.0), ("output/c", 1, 1.0), ("output/gone", 1, 1.0)]);
        let after =
            at(&[("output/a", 1, 1.0), ("output/b", 2, 1.0), ("output/c", 1, 1.5), ("output/d", 1, 1.0)]);
        let changed: Vec<String> = after.since(&before).into_iter().map(ToString::to_string).collect();
        assert_eq!(changed, ["output/b", "output/c", "output/d"]);
    }
}
