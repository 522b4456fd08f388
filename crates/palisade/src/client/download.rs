//! A file from the workspace to the local disk: streamed to a temporary file, then given its name in one step.
//!
//! Names come from an agent. They must never replace a file that is there, leave the chosen folder, or be hidden.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use reqwest::Response;
use tokio::io::AsyncWriteExt as _;

use super::api::SILENCE_LIMIT;
use super::error::ClientError;
use super::text;

/// Names tried before giving up: `deck.pptx`, `deck (2).pptx`, …
const NAMES_MAX: u32 = 1000;
/// Bytes of a name; file systems allow 255, and a number may be added.
const NAME_BYTES_MAX: usize = 200;

/// Where a file goes.
#[derive(Debug, Clone)]
pub(super) enum Target {
    /// Into a folder under a name like this one, next to whatever is there.
    Beside { folder: PathBuf, name: String },
    /// Exactly here, in place of what is there.
    Exactly(PathBuf),
}

/// Saves the body; returns where and how many bytes. Nothing is left behind when it fails.
pub(super) async fn save(response: Response, target: &Target) -> Result<(PathBuf, u64), ClientError> {
    let folder = match target {
        Target::Beside { folder, .. } => folder.as_path(),
        Target::Exactly(path) => path.parent().unwrap_or(Path::new("")),
    };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    fs::create_dir_all(folder).map_err(file_error("make the folder", folder))?;
    let mut temporary = Temporary::create(folder)?;
    let size = temporary.fill(response).await?;
    let path = match target {
        Target::Exactly(path) => path.clone(),
        Target::Beside { name, .. } => reserve(folder, name)?,
    };
    if let Err(source) = fs::rename(&temporary.path, &path) {
        if matches!(target, Target::Beside { .. }) {
            // The name was ours, and empty.
            let _ = fs::remove_file(&path);
        }
        return Err(ClientError::File { action: "name the file", path, source });
    }
    temporary.named = true;
    Ok((path, size))
}

/// A name from elsewhere as a name here: no separators, nothing that steers a terminal or reorders what is read, no beginning that
/// programs take for an option or shells for a home, not hidden, not too long.
/// `None` for what should not be made here.
pub(super) fn local_name(name: &str) -> Option<String> {
    let mut clean: String =
        name.chars().map(|c| if c == '/' || text::misleads(c) { '_' } else { c }).collect();
    if clean.is_empty() || clean.starts_with('.') {
        return None;
    }
    // `tar cf x.tar *` and its like would take it for an option.
    if clean.starts_with(['-', '~']) {
        clean.insert(0, '_');
    }
    let (stem, extension) = split_extension(&clean);
    let room = NAME_BYTES_MAX.saturating_sub(extension.len());
    if stem.len() <= room {
        return Some(clean);
    }
    let mut end = room.min(stem.len());
    while !stem.is_char_boundary(end) {
        end -= 1;
    }
    (end > 0).then(|| format!("{}{extension}", &stem[..end]))
}

/// Takes the first free name by making an empty file under it, which nobody else can then take.
fn reserve(folder: &Path, name: &str) -> Result<PathBuf, ClientError> {
    let (stem, extension) = split_extension(name);
    for number in 1..=NAMES_MAX {
        let candidate = if number == 1 { name.to_owned() } else { format!("{stem} ({number}){extension}") };
        let path = folder.join(candidate);
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(_) => return Ok(path),
            Err(source) if source.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(ClientError::File { action: "make", path, source }),
        }
    }
    Err(ClientError::NamesTaken { path: folder.join(name), tried: NAMES_MAX })
}

/// `deck.pptx` is `deck` and `.pptx`; a leading dot begins no extension.
fn split_extension(name: &str) -> (&str, &str) {
    match name.rfind('.') {
        Some(at) if at > 0 => name.split_at(at),
        _ => (name, ""),
    }
}

fn file_error<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> ClientError + 'a {
    move |source| ClientError::File { action, path: path.to_owned(), source }
}

/// A file without its final name, removed unless it gets one.
#[derive(Debug)]
struct Temporary {
    path: PathBuf,
    file: Option<fs::File>,
    named: bool,
}

impl Temporary {
    fn create(folder: &Path) -> Result<Self, ClientError> {
        for number in 0..NAMES_MAX {
            let name = OsString::from(format!(".palisade-{}-{number}.part", std::process::id()));
            let path = folder.join(name);
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok(Self { path, file: Some(file), named: false }),
                Err(source) if source.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(ClientError::File { action: "make", path, source }),
            }
        }
        Err(ClientError::NamesTaken { path: folder.join(".palisade-….part"), tried: NAMES_MAX })
    }

    async fn fill(&mut self, mut response: Response) -> Result<u64, ClientError> {
        let what = "fetching the file";
        let Some(file) = self.file.take() else { return Ok(0) };
        let mut file = tokio::fs::File::from_std(file);
        let mut size = 0;
        loop {
            let chunk = tokio::time::timeout(SILENCE_LIMIT, response.chunk()).await;
            let chunk = chunk.map_err(|_| ClientError::Silent { what: what.into(), limit: SILENCE_LIMIT })?;
            let Some(bytes) = chunk.map_err(|source| ClientError::Broken { what: what.into(), source })?
            else {
                break;
            };
            size += bytes.len() as u64;
            file.write_all(&bytes).await.map_err(file_error("write", &self.path))?;
        }
        file.flush().await.map_err(file_error("write", &self.path))?;
        Ok(size)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.named {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_name_gets_a_number() {
        let folder = tempfile::tempdir().unwrap();
        let names: Vec<String> = (0..3)
            .map(|_| {
                reserve(folder.path(), "deck.v1.pptx")
                    .unwrap()
                    .file_name()
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned()
            })
            .collect();
        assert_eq!(names, ["deck.v1.pptx", "deck.v1 (2).pptx", "deck.v1 (3).pptx"]);
        assert_eq!(reserve(folder.path(), "notes").unwrap(), folder.path().join("notes"));
        assert_eq!(reserve(folder.path(), "notes").unwrap(), folder.path().join("notes (2)"));
    }

    #[test]
    fn names_are_bounded_in_number() {
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..NAMES_MAX {
            reserve(folder.path(), "a").unwrap();
        }
        assert!(matches!(reserve(folder.path(), "a"), Err(ClientError::NamesTaken { .. })));
    }

    #[test]
    fn a_link_in_the_way_is_not_written_through() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("elsewhere");
        std::os::unix::fs::symlink(&target, folder.path().join("deck.pptx")).unwrap();
        assert_eq!(reserve(folder.path(), "deck.pptx").unwrap(), folder.path().join("deck (2).pptx"));
        assert!(!target.exists());
    }

    #[test]
    fn names_from_elsewhere_stay_harmless() {
        assert_eq!(local_name("Q3 deck.pptx").as_deref(), Some("Q3 deck.pptx"));
        assert_eq!(local_name("a/../b\u{1b}[2J").as_deref(), Some("a_.._b_[2J"));
        assert_eq!(local_name("-rf").as_deref(), Some("_-rf"));
        assert_eq!(
            local_name("--checkpoint-action=exec=sh x.sh").as_deref(),
            Some("_--checkpoint-action=exec=sh x.sh")
        );
        assert_eq!(local_name("~root").as_deref(), Some("_~root"));
        assert_eq!(local_name("a\u{202e}xslx.exe\u{9b}\u{2028}").as_deref(), Some("a_xslx.exe__"));
        for hidden in ["", ".", "..", ".bashrc"] {
            assert_eq!(local_name(hidden), None, "{hidden}");
        }
        let long = local_name(&format!("{}.pptx", "é".repeat(300))).unwrap();
        assert!(long.len() <= NAME_BYTES_MAX && long.ends_with("é.pptx"), "{long}");
        assert_eq!(local_name(&format!("a.{}", "x".repeat(300))), None);
    }
}
