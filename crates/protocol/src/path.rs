//! A workspace-relative path, checked once at the edge so that no later code has to ask again.
//!
//! It can only be lexically inside the workspace: whether links on the disk lead out is for `beneath` to say.

use std::fmt;

/// Why a text is not a workspace path. The wire tells them apart (decision 8): leaving the workspace is 403,
/// nonsense is 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPath {
    /// `..` or a leading slash.
    #[error("the path leaves the workspace: no '..' and no leading '/'")]
    Escapes,
    /// NUL, an over-long path or name.
    #[error("the path is not valid: no NUL byte, at most 4096 bytes, at most 255 bytes a name")]
    Malformed,
}

/// A path below the workspace root: components joined by `/`, none of them empty, `.` or `..`; `""` is the
/// root itself. Bytes, because file names are bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkspacePath(Vec<u8>);

/// The longest path, in bytes (`PATH_MAX` of Linux).
pub const PATH_BYTES_MAX: usize = 4096;
/// The longest name, in bytes (`NAME_MAX` of Linux).
pub const NAME_BYTES_MAX: usize = 255;

impl WorkspacePath {
    /// The workspace itself.
    pub fn root() -> Self {
        Self(Vec::new())
    }

    /// Checks and normalises: empty and `.` components are dropped, so `a//b/./c/` is `a/b/c`.
    pub fn parse(text: impl AsRef<[u8]>) -> Result<Self, InvalidPath> {
        let bytes = text.as_ref();
        if bytes.len() >= PATH_BYTES_MAX || bytes.contains(&0) {
            return Err(InvalidPath::Malformed);
        }
        if bytes.first() == Some(&b'/') {
            return Err(InvalidPath::Escapes);
        }
        let mut normal = Vec::with_capacity(bytes.len());
        for name in bytes.split(|b| *b == b'/') {
            match name {
                b"" | b"." => continue,
                b".." => return Err(InvalidPath::Escapes),
                long if long.len() > NAME_BYTES_MAX => return Err(InvalidPath::Malformed),
                name => {
                    if !normal.is_empty() {
                        normal.push(b'/');
                    }
                    normal.extend_from_slice(name);
                }
            }
        }
        Ok(Self(normal))
    }

    /// The path as bytes, without slashes at either end.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is the workspace itself.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The components from the top.
    pub fn names(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/').filter(|name| !name.is_empty())
    }

    /// The last component; `None` for the root.
    pub fn name(&self) -> Option<&[u8]> {
        self.names().next_back()
    }

    /// The containing directory; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let cut = self.0.iter().rposition(|b| *b == b'/').unwrap_or(0);
        Some(Self(self.0[..cut].to_vec()))
    }

    /// This path followed by one more checked path.
    #[must_use]
    pub fn join(&self, below: &Self) -> Self {
        match (self.is_root(), below.is_root()) {
            (true, _) => below.clone(),
            (_, true) => self.clone(),
            _ => Self([&self.0[..], b"/", &below.0[..]].concat()),
        }
    }

    /// Whether `self` is `ancestor` or lies below it, by whole components.
    pub fn is_within(&self, ancestor: &Self) -> bool {
        ancestor.is_root()
            || self.0 == ancestor.0
            || (self.0.starts_with(&ancestor.0) && self.0.get(ancestor.0.len()) == Some(&b'/'))
    }
}

impl fmt::Display for WorkspacePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escapes_and_nonsense_are_told_apart() {
        for (text, expected) in [
            ("../x", InvalidPath::Escapes),
            ("a/../b", InvalidPath::Escapes),
            ("/etc/passwd", InvalidPath::Escapes),
            ("a\0b", InvalidPath::Malformed),
        ] {
            assert_eq!(WorkspacePath::parse(text), Err(expected), "{text:?}");
        }
        assert_eq!(WorkspacePath::parse("x".repeat(256)), Err(InvalidPath::Malformed));
        assert_eq!(WorkspacePath::parse("x/".repeat(2048)), Err(InvalidPath::Malformed));
    }

    #[test]
    fn within_goes_by_whole_components() {
        let within =
            |a: &str, b: &str| WorkspacePath::parse(a).unwrap().is_within(&WorkspacePath::parse(b).unwrap());
        assert!(within("a/b", "a") && within("a", "a") && within("a", "") && within("", ""));
        assert!(!within("ab", "a") && !within("a", "a/b") && !within("", "a"));
    }

    proptest! {
        #[test]
        fn a_parsed_path_never_escapes_and_parsing_is_idempotent(text in "[a./\\-]{0,40}") {
            if let Ok(path) = WorkspacePath::parse(&text) {
                prop_assert!(path.names().all(|name| !name.is_empty() && name != b"." && name != b".."));
                prop_assert_eq!(WorkspacePath::parse(path.as_bytes()), Ok(path));
            }
        }
    }
}
