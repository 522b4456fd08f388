//! `Write`: a whole file, replaced in one step, so that nobody ever sees half of it.

use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use palisade_hand_protocol::Write;

use super::{Failure, Outcome, failure, not_regular, resolve};

const NEW_FILE_MODE: u32 = 0o644;
/// Temporary names tried before giving up.
const TEMPORARY_NAMES_MAX: u32 = 100;
/// Links followed before giving up, as the kernel does.
const LINKS_MAX: u32 = 40;

pub(super) fn write(write: &Write, workspace: &Path) -> Outcome {
    let path = resolve(&write.file_path, workspace)?;
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(|e| failure(parent, &e))?;
    }
    let replaced = replace(&path, write.content.as_bytes())?;
    let verb = if replaced { "Replaced" } else { "Wrote" };
    Ok(format!("{verb} {} ({} bytes).", path.display(), write.content.len()))
}

/// Writes beside the file and renames over it, keeping its mode; the answer is whether there was one.
pub(super) fn replace(path: &Path, content: &[u8]) -> Result<bool, Failure> {
    let path = &link_target(path)?;
    let mode = match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => Some(metadata.permissions().mode() & 0o7777),
        Ok(metadata) if metadata.is_dir() => {
            return Err(failure(path, &std::io::ErrorKind::IsADirectory.into()));
        }
        Ok(_) => return Err(not_regular(path, "special file")),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => return Err(failure(path, &e)),
    };
    let (temporary, mut file) = open_temporary(path)?;
    let written = file
        .write_all(content)
        .and_then(|()| mode.map_or(Ok(()), |mode| file.set_permissions(PermissionsExt::from_mode(mode))))
        .and_then(|()| std::fs::rename(&temporary, path));
    if let Err(e) = written {
        // The first error is the one to tell.
        let _ = std::fs::remove_file(&temporary);
        return Err(failure(path, &e));
    }
    Ok(mode.is_some())
}

/// A link is written through, like a shell's `>` does, not replaced.
fn link_target(path: &Path) -> Result<PathBuf, Failure> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        match std::fs::read_link(&path) {
            Ok(target) => path = path.parent().unwrap_or(Path::new("/")).join(target),
            Err(_) => return Ok(path),
        }
    }
    Err(Failure("file.io", format!("{}: too many levels of links.", path.display())))
}

fn open_temporary(path: &Path) -> Result<(PathBuf, std::fs::File), Failure> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let id = std::process::id();
    for number in 0..TEMPORARY_NAMES_MAX {
        let temporary = folder.join(format!(".palisade-{id}-{number}.tmp"));
        match std::fs::File::options().write(true).create_new(true).mode(NEW_FILE_MODE).open(&temporary) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(failure(path, &e)),
            Ok(file) => return Ok((temporary, file)),
        }
    }
    Err(Failure("file.io", format!("{}: no free name for a temporary file beside it.", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_to(folder: &Path, file_path: &str, content: &str) -> Outcome {
        write(&Write { file_path: file_path.into(), content: content.into() }, folder)
    }

    #[test]
    fn parents_are_made_and_nothing_is_left_beside_the_file() {
        let folder = tempfile::tempdir().unwrap();
        assert!(write_to(folder.path(), "a/b/c.txt", "héllo").unwrap().ends_with("(6 bytes)."));
        assert!(write_to(folder.path(), "a/b/c.txt", "x").unwrap().starts_with("Replaced"));
        assert_eq!(std::fs::read_to_string(folder.path().join("a/b/c.txt")).unwrap(), "x");
        assert_eq!(std::fs::read_dir(folder.path().join("a/b")).unwrap().count(), 1);
    }

    #[test]
    fn mode_and_links_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("run.sh");
        std::fs::write(&script, "old").unwrap();
        std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink("run.sh", folder.path().join("link")).unwrap();
        write_to(folder.path(), "link", "new").unwrap();
        assert_eq!(std::fs::read_to_string(&script).unwrap(), "new");
        assert_eq!(std::fs::metadata(&script).unwrap().permissions().mode() & 0o777, 0o755);
        assert!(folder.path().join("link").is_symlink());
    }

    #[test]
    fn what_cannot_be_written_is_told() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("d")).unwrap();
        std::fs::write(folder.path().join("f"), "").unwrap();
        std::os::unix::fs::symlink("loop", folder.path().join("loop")).unwrap();
        for (path, code) in [
            ("d", "file.is_directory"),
            ("f/x", "file.not_a_directory"),
            ("", "file.bad_path"),
            ("loop", "file.io"),
        ] {
            assert_eq!(write_to(folder.path(), path, "x").unwrap_err().0, code, "{path}");
        }
    }
}
