//! `Write`: a whole file. It is replaced in one step, so that nobody ever sees half of it, and keeps of what it replaces what
//! the new content does not say: mode, links, byte order mark, coding and ends of lines.

use std::io::Write as _;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use palisade_hand_protocol::Write;

use super::line_ends::of_all;
use super::text::{self, Coding};
use super::{Failure, Outcome, failure, not_regular, open_regular, paths, read_bytes};

const NEW_FILE_MODE: u32 = 0o644;
/// Temporary names tried before giving up.
const TEMPORARY_NAMES_MAX: u32 = 100;
/// Links followed before giving up, as the kernel does.
const LINKS_MAX: u32 = 40;

pub(super) fn write(write: &Write, workspace: &Path) -> Outcome {
    let found = paths::to_write(&write.file_path, workspace)?;
    let path = &found.path;
    let parent = path.parent().filter(|parent| !parent.exists());
    if let Some(parent) = parent {
        std::fs::create_dir_all(parent).map_err(|e| failure(parent, &e))?;
    }
    let (bytes, kept) = as_before(&write.content, path);
    let done = replace(path, &bytes)?;
    let verb = if done.was_there { "Replaced" } else { "Wrote" };
    let made = parent.map(|parent| format!("the folder {} was made", parent.display()));
    let outside = (!path.starts_with(workspace)).then(|| {
        format!("clients cannot fetch files outside {}; results belong below it", workspace.display())
    });
    let notes = [made, kept, done.note, found.note, outside].into_iter().flatten();
    let notes: String = notes.map(|note| format!("\n[note: {note}]")).collect();
    Ok(format!("{verb} {} ({} bytes).{notes}", path.display(), bytes.len()))
}

/// The content in the form of the text that it replaces, and what was kept of that.
fn as_before(content: &str, path: &Path) -> (Vec<u8>, Option<String>) {
    let plain = || (content.as_bytes().to_vec(), None);
    let Some(before) =
        read_bytes(path).ok().filter(|bytes| !bytes.is_empty()).and_then(|bytes| text::decode(&bytes))
    else {
        return plain();
    };
    // A script whose first line ends in CR LF does not run.
    let ends = of_all(&before.text).filter(|_| !content.contains("\r\n") && !content.starts_with("#!"));
    let with_ends = ends.map_or_else(|| content.to_owned(), |ends| content.replace('\n', ends));
    // The content may have the mark itself.
    let with_ends = with_ends.trim_start_matches('\u{feff}');
    let is_kept = before.coding.kept().is_some();
    let (bytes, coding) = match before.coding.encode(with_ends) {
        Ok(bytes) => (bytes, before.coding.kept()),
        Err(_) => (with_ends.as_bytes().to_vec(), None),
    };
    let ends = ends.filter(|_| content.contains('\n')).map(|_| "its CR LF line ends".to_owned());
    let kept: Vec<String> = [coding.clone(), ends].into_iter().flatten().collect();
    let note = match (kept.is_empty(), is_kept && coding.is_none()) {
        (_, true) => Some(
            "the file was in another coding, which does not have all these characters; it is UTF-8 now"
                .into(),
        ),
        (true, _) => None,
        (false, _) => Some(format!("the file keeps {}", kept.join(" and "))),
    };
    (bytes, note)
}

/// That an edited text cannot be written as the file's is.
pub(super) fn not_in_coding(path: &Path, coding: Coding, c: char) -> Failure {
    let message = format!(
        "{}: the file is in another coding than UTF-8 ({}), which has no {c:?} (U+{:04X}). Use other words, or convert the \
         file with `iconv` first.",
        path.display(),
        coding.kept().unwrap_or_default(),
        u32::from(c)
    );
    Failure("file.not_in_coding", message)
}

/// What came of a replacement.
pub(super) struct Replaced {
    pub(super) was_there: bool,
    pub(super) note: Option<String>,
}

/// Writes beside the file and renames over it, keeping its mode.
pub(super) fn replace(path: &Path, content: &[u8]) -> Result<Replaced, Failure> {
    let path = &link_target(path)?;
    let before = match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => metadata,
        Ok(metadata) if metadata.is_dir() => {
            return Err(failure(path, &std::io::ErrorKind::IsADirectory.into()));
        }
        Ok(_) => return Err(not_regular(path, "special file")),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            write_beside(path, content, None)?;
            return Ok(Replaced { was_there: false, note: None });
        }
        Err(e) => return Err(failure(path, &e)),
    };
    // A rename needs no right to the file itself, and who took that right away meant something.
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK).map_err(|e| failure(path, &e.into()))?;
    let note = if before.nlink() > 1 {
        write_in_place(path, content)?;
        Some(format!(
            "the file has {} names (hard links), and all of them have the new content",
            before.nlink()
        ))
    } else {
        match write_beside(path, content, Some(before.mode() & 0o7777)) {
            // The folder takes no new file.
            Err(Failure("file.denied", _)) => write_in_place(path, content)?,
            other => other?,
        }
        None
    };
    Ok(Replaced { was_there: true, note })
}

/// In one step: whoever reads sees the old content or the new one.
fn write_beside(path: &Path, content: &[u8], mode: Option<u32>) -> Result<(), Failure> {
    let (temporary, mut file) = open_temporary(path)?;
    let written = file
        .write_all(content)
        .and_then(|()| mode.map_or(Ok(()), |mode| file.set_permissions(PermissionsExt::from_mode(mode))))
        .and_then(|()| std::fs::rename(&temporary, path));
    written.map_err(|e| {
        // The first error is the one to tell.
        let _ = std::fs::remove_file(&temporary);
        failure(path, &e)
    })
}

/// Not in one step: a rename would part the names of a file that has several, and a reader may see half of the new content.
/// What does not fit is put back.
fn write_in_place(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let mut before = Vec::new();
    std::io::Read::read_to_end(&mut open_regular(path)?, &mut before).map_err(|e| failure(path, &e))?;
    std::fs::write(path, content).map_err(|e| {
        // The first error is the one to tell; the space that the old content took is free again.
        let _ = std::fs::write(path, &before);
        failure(path, &e)
    })
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
    fn parents_are_made_and_told_and_nothing_is_left_beside_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let said = write_to(folder.path(), "a/b/c.txt", "héllo").unwrap();
        assert!(
            said.contains("(6 bytes).\n[note: the folder ") && said.ends_with("/a/b was made]"),
            "{said}"
        );
        let said = write_to(folder.path(), "a/b/c.txt", "x").unwrap();
        assert!(said.starts_with("Replaced") && said.ends_with("(1 bytes)."), "{said}");
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
        std::fs::hard_link(&script, folder.path().join("twin")).unwrap();
        let said = write_to(folder.path(), "twin", "newer").unwrap();
        assert!(said.contains("2 names (hard links)"), "{said}");
        assert_eq!(std::fs::read_to_string(&script).unwrap(), "newer");
        assert_eq!(std::fs::metadata(&script).unwrap().nlink(), 2);
    }

    #[test]
    fn the_form_of_a_text_is_kept_and_told() {
        let folder = tempfile::tempdir().unwrap();
        let utf_16 = |text: &str| -> Vec<u8> {
            b"\xff\xfe".iter().copied().chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect()
        };
        for (before, content, after, says) in [
            (b"a\r\nb\r\n".to_vec(), "x\ny\n", b"x\r\ny\r\n".to_vec(), "keeps its CR LF line ends"),
            (b"\xef\xbb\xbfa\n".to_vec(), "x\n", b"\xef\xbb\xbfx\n".to_vec(), "keeps its byte order mark"),
            (
                b"\xef\xbb\xbfa\n".to_vec(),
                "\u{feff}x\n",
                b"\xef\xbb\xbfx\n".to_vec(),
                "keeps its byte order mark",
            ),
            (
                b"\xef\xbb\xbfa\r\n".to_vec(),
                "x\n",
                b"\xef\xbb\xbfx\r\n".to_vec(),
                "its byte order mark and its CR LF",
            ),
            (utf_16("a\r\n"), "\u{e9}\n", utf_16("\u{e9}\r\n"), "its coding, UTF-16LE and its CR LF"),
            (
                b"d\xe9j\xe0 vu, caf\xe9".to_vec(),
                "\u{e9}t\u{e9}",
                b"\xe9t\xe9".to_vec(),
                "its coding, windows-1252",
            ),
            (b"d\xe9j\xe0 vu, caf\xe9".to_vec(), "\u{1f600}", "\u{1f600}".into(), "it is UTF-8 now"),
            // What the content says itself, and what there is nothing to keep of.
            (b"a\r\nb\r\n".to_vec(), "x\r\ny\n", b"x\r\ny\n".to_vec(), "bytes)."),
            (b"a\r\nb\n".to_vec(), "x\ny\n", b"x\ny\n".to_vec(), "bytes)."),
            (b"#!/bin/sh\r\nls\r\n".to_vec(), "#!/bin/sh\nls\n", b"#!/bin/sh\nls\n".to_vec(), "bytes)."),
            (b"\x89PNG\r\n\x1a\n\0\0\0\0\0".to_vec(), "x\n", b"x\n".to_vec(), "bytes)."),
            (b"".to_vec(), "x\n", b"x\n".to_vec(), "bytes)."),
        ] {
            std::fs::write(folder.path().join("f"), &before).unwrap();
            let said = write_to(folder.path(), "f", content).unwrap();
            assert_eq!(std::fs::read(folder.path().join("f")).unwrap(), after, "{content:?}: {said}");
            let is_silent = says == "bytes).";
            assert!(said.contains(says) && said.contains("[note") != is_silent, "{content:?}: {said}");
        }
    }

    #[test]
    fn what_cannot_be_written_is_told() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("d")).unwrap();
        std::fs::write(folder.path().join("f"), "").unwrap();
        std::os::unix::fs::symlink("loop", folder.path().join("loop")).unwrap();
        for (path, code) in [
            ("d", "file.is_directory"),
            ("d/", "file.is_directory"),
            ("d/.", "file.is_directory"),
            ("new/", "file.bad_path"),
            ("f/", "file.bad_path"),
            ("f/x", "file.not_a_directory"),
            ("", "file.bad_path"),
            ("loop", "file.io"),
        ] {
            assert_eq!(write_to(folder.path(), path, "x").unwrap_err().0, code, "{path}");
        }
        assert!(!folder.path().join("new").exists(), "a refused write makes no folder");
    }

    #[test]
    fn a_name_in_another_coding_is_the_same_file() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("cafe\u{301}.txt"), "old").unwrap();
        let said = write_to(folder.path(), "caf\u{e9}.txt", "new").unwrap();
        assert!(said.starts_with("Replaced") && said.contains("coded in other characters"), "{said}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
