//! A path in the workspace as a client writes it into a URL: every byte that is not plainly harmless is encoded.
//!
//! URLs rewrite `.` and `..` before they are sent, encoded or not; such paths are refused here, so that a request
//! never goes to another file than the one named.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

use super::error::ClientError;
use super::text;

const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A workspace-relative path, percent-encoded; empty for the workspace itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RemotePath(String);

impl RemotePath {
    /// What a person typed: a leading `/workspace/` (as the agent says it), slashes at the ends and `./` go.
    pub(super) fn parse(typed: &OsStr) -> Result<Self, ClientError> {
        let bytes = typed.as_bytes();
        let inside = bytes
            .strip_prefix(b"/workspace".as_slice())
            .filter(|rest| matches!(rest.first(), None | Some(b'/')));
        let mut parts = Vec::new();
        for part in inside.unwrap_or(bytes).split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => return Err(ClientError::RemotePath { path: typed.to_string_lossy().into_owned() }),
                name => parts.push(percent_encode(name, ENCODED).to_string()),
            }
        }
        Ok(Self(parts.join("/")))
    }

    /// The path of an entry of a listing: by its exact bytes where the server gives them. `None` for a name that
    /// is no name; listings come from elsewhere.
    pub(super) fn join(&self, name: &str, name_percent: Option<&str>) -> Option<Self> {
        let bytes = name_percent
            .map_or_else(|| name.as_bytes().to_vec(), |exact| percent_decode_str(exact).collect());
        if matches!(bytes.as_slice(), b"" | b"." | b"..") || bytes.contains(&b'/') {
            return None;
        }
        let encoded = percent_encode(&bytes, ENCODED);
        Some(Self(if self.0.is_empty() { encoded.to_string() } else { format!("{}/{encoded}", self.0) }))
    }

    /// The form for a URL.
    pub(super) fn encoded(&self) -> &str {
        &self.0
    }

    /// The last name, readable; empty for the workspace itself.
    pub(super) fn file_name(&self) -> String {
        let last = self.0.rsplit('/').next().unwrap_or("");
        percent_decode_str(last).decode_utf8_lossy().into_owned()
    }

    /// The folder it lies in and everything above, outermost first, readable.
    pub(super) fn names(&self) -> Vec<String> {
        let names = self.0.split('/').filter(|name| !name.is_empty());
        names.map(|name| percent_decode_str(name).decode_utf8_lossy().into_owned()).collect()
    }
}

/// For people: readable, and safe to print.
impl std::fmt::Display for RemotePath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&text::one_line(&percent_decode_str(&self.0).decode_utf8_lossy(), 400))
    }
}

/// An id in a URL; ids are plain, and what is not is encoded rather than believed.
pub(super) fn encode_id(id: &str) -> String {
    percent_encode(id.as_bytes(), NON_ALPHANUMERIC).to_string().replace("%5F", "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(typed: &[u8]) -> String {
        RemotePath::parse(OsStr::from_bytes(typed)).unwrap().0
    }

    #[test]
    fn paths_reach_the_file_they_name() {
        assert_eq!(parsed(b"output/Q3 deck#1?.pptx"), "output/Q3%20deck%231%3F.pptx");
        assert_eq!(parsed(b"/workspace/./a//b/"), "a/b");
        assert_eq!(parsed(b"/workspaces/a"), "workspaces/a");
        assert_eq!(parsed("ü/%2e%2e".as_bytes()), "%C3%BC/%252e%252e");
        assert_eq!(parsed(b"\xff\n"), "%FF%0A");
        assert_eq!(parsed(b"."), "");
        assert!(RemotePath::parse(OsStr::new("a/../b")).is_err());
    }

    #[test]
    fn entries_join_by_their_exact_bytes() {
        let output = RemotePath::parse(OsStr::new("output")).unwrap();
        let join = |name, exact| output.join(name, exact).map(|path| path.0);
        assert_eq!(join("a b", None).as_deref(), Some("output/a%20b"));
        assert_eq!(join("\u{fffd}", Some("%FF")).as_deref(), Some("output/%FF"));
        for wrong in ["", ".", "..", "a/b"] {
            assert_eq!(join(wrong, None), None, "{wrong}");
        }
        assert_eq!(join("x", Some("%2e%2e")), None);
        assert_eq!(output.join("a\u{1b}[2J", None).unwrap().to_string(), "output/a");
    }

    #[test]
    fn ids_cannot_leave_their_place() {
        assert_eq!(encode_id("sess_a86118c06688"), "sess_a86118c06688");
        assert_eq!(encode_id("../x?y"), "%2E%2E%2Fx%3Fy");
    }
}
