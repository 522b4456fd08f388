//! Where the vault's key comes from: what the configuration names, or a file that the server keeps by itself. Only of the latter
//! does it ever write one.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use palisade_vault::{ExposeSecret as _, KeyMaterial, VaultError};

/// Reads the key where the configuration says it is.
pub type ReadKey = Arc<dyn Fn() -> Result<KeyMaterial, KeySourceError> + Send + Sync>;

/// Where the vault's key is.
#[derive(Clone)]
pub enum KeySource {
    /// Where the configuration says.
    Named(ReadKey),
    /// In this file, which the server makes and may replace.
    Kept(PathBuf),
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum KeySourceError {
    #[error("{place} cannot be read as the vault's key")]
    Form { place: String, source: VaultError },
    #[error("{place} cannot be read")]
    Read { place: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("the key file {} cannot be written", path.display())]
    Write { path: PathBuf, source: std::io::Error },
}

impl fmt::Debug for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(_) => f.write_str("Named"),
            Self::Kept(path) => write!(f, "Kept({})", path.display()),
        }
    }
}

impl KeySource {
    /// Every key that may be the vault's, for a moment two while one replaces the other. Blocks.
    pub(super) fn read(&self) -> Result<Vec<KeyMaterial>, KeySourceError> {
        let path = match self {
            Self::Named(read) => return Ok(vec![read()?]),
            Self::Kept(path) => path,
        };
        // The next one first: when it is there no more it has taken the other's place.
        let next = read_file(&next_to(path))?;
        let kept = match read_file(path)? {
            Some(kept) => kept,
            None => make(path)?,
        };
        Ok([kept].into_iter().chain(next).collect())
    }

    /// The key that the configuration names; `None` for a file of the server's own, which is not touched. Blocks.
    pub fn read_named(&self) -> Result<Option<KeyMaterial>, KeySourceError> {
        match self {
            Self::Named(read) => read().map(Some),
            Self::Kept(_) => Ok(None),
        }
    }

    /// The key that is to follow, on the disk before it is used; the one that was begun with, if there is one. `None` where the server
    /// may not choose one. Blocks.
    pub(super) fn stage(&self) -> Result<Option<KeyMaterial>, KeySourceError> {
        let Self::Kept(path) = self else { return Ok(None) };
        let next = next_to(path);
        match read_file(&next)? {
            Some(begun) => Ok(Some(begun)),
            None => make(&next).map(Some),
        }
    }

    /// The staged key, if one was begun with. Blocks.
    pub(super) fn staged(&self) -> Result<Option<KeyMaterial>, KeySourceError> {
        match self {
            Self::Named(_) => Ok(None),
            Self::Kept(path) => read_file(&next_to(path)),
        }
    }

    /// Puts the staged key in the place of the other; nothing where that is done. Blocks.
    pub(super) fn promote(&self) -> Result<(), KeySourceError> {
        let Self::Kept(path) = self else { return Ok(()) };
        let writing = |source| KeySourceError::Write { path: path.clone(), source };
        match std::fs::rename(next_to(path), path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(writing(error)),
            _ => sync_folder(path).map_err(writing),
        }
    }
}

fn next_to(path: &Path) -> PathBuf {
    let mut next = path.as_os_str().to_owned();
    next.push(".next");
    next.into()
}

fn read_file(path: &Path) -> Result<Option<KeyMaterial>, KeySourceError> {
    let place = || path.display().to_string();
    match std::fs::read(path).map(zeroize::Zeroizing::new) {
        Ok(bytes) => {
            let read = KeyMaterial::key(&bytes);
            read.map(Some).map_err(|source| KeySourceError::Form { place: place(), source })
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(KeySourceError::Read { place: place(), source: source.into() }),
    }
}

/// Makes a new key file whole or not at all; of several that do so at once, one is first and all have its key.
fn make(path: &Path) -> Result<KeyMaterial, KeySourceError> {
    let writing = |source| KeySourceError::Write { path: path.to_owned(), source };
    let form = |source| KeySourceError::Form { place: path.display().to_string(), source };
    let text = KeyMaterial::generate().map_err(form)?.to_hex().ok_or_else(|| form(VaultError::KeyForm))?;
    let unique = palisade_vault::random_hex::<8>().map_err(|error| form(error.into()))?;
    let mut made = path.as_os_str().to_owned();
    made.push(format!(".{unique}"));
    let made = PathBuf::from(made);
    let written =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&made).and_then(|mut file| {
            writeln!(file, "{}", text.expose_secret())?;
            file.sync_all()
        });
    // A link does not replace: who comes second finds the first one's.
    let linked = written.and_then(|()| match std::fs::hard_link(&made, path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    });
    let _ = std::fs::remove_file(&made);
    linked.and_then(|()| sync_folder(path)).map_err(writing)?;
    tracing::info!(
        path = %path.display(),
        "a vault key was made; back it up apart from the database, which cannot be read without it"
    );
    read_file(path)?.ok_or_else(|| writing(std::io::ErrorKind::NotFound.into()))
}

fn sync_folder(path: &Path) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_file_is_made_once_and_closed_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vault.key");
        let source = KeySource::Kept(path.clone());
        let read = || source.read().unwrap().iter().map(hex).collect::<Vec<_>>();
        let keys: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(read)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|key| *key == keys[0] && key.len() == 1));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let staged = hex(&source.stage().unwrap().unwrap());
        assert_eq!(hex(&source.stage().unwrap().unwrap()), staged, "a begun one is gone on with");
        assert_eq!(read(), [keys[0][0].clone(), staged.clone()]);
        for _ in 0..2 {
            source.promote().unwrap();
            assert_eq!(read(), std::slice::from_ref(&staged));
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left over");
        std::fs::write(&path, "no key").unwrap();
        let error = source.read().unwrap_err();
        assert!(!palisade_protocol::chain(&error).to_string().contains("no key"), "{error}");
    }

    fn hex(material: &KeyMaterial) -> String {
        material.to_hex().unwrap().expose_secret().to_owned()
    }
}
