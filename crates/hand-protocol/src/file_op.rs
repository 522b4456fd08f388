//! The file tools as the hand executes them, inside the same mounts as every command, so that they see exactly
//! the scope that Bash sees. The fields are the tools' own arguments.

use serde::{Deserialize, Serialize};

/// One call of a file tool. A path that is not absolute is relative to the workspace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileOp {
    /// Numbered lines of a text file.
    Read(Read),
    /// A whole file, replaced atomically.
    Write(Write),
    /// One exact replacement.
    Edit(Edit),
    /// Files by name, newest first.
    Glob(Glob),
    /// Files by content.
    Grep(Grep),
}

/// See [`FileOp::Read`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Read {
    /// The file.
    pub file_path: String,
    /// The first line, from 1.
    pub offset: Option<u64>,
    /// How many lines; 2000 by default.
    pub limit: Option<u64>,
}

/// See [`FileOp::Write`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// The file; missing parents are made.
    pub file_path: String,
    /// Its new content.
    pub content: String,
}

/// See [`FileOp::Edit`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edit {
    /// The file.
    pub file_path: String,
    /// Exactly once in the file, unless `replace_all`.
    pub old_string: String,
    /// What stands there afterwards.
    pub new_string: String,
    /// Replace every occurrence.
    #[serde(default)]
    pub replace_all: bool,
}

/// See [`FileOp::Glob`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Glob {
    /// Such as `**/*.md`; matched against paths relative to `path`.
    pub pattern: String,
    /// The directory to look in; the workspace by default.
    pub path: Option<String>,
}

/// See [`FileOp::Grep`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grep {
    /// A regular expression.
    pub pattern: String,
    /// The file or directory to search; the workspace by default.
    pub path: Option<String>,
    /// Only files that match.
    pub glob: Option<String>,
    /// What to report.
    #[serde(default)]
    pub output_mode: GrepMode,
}

/// What [`FileOp::Grep`] reports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GrepMode {
    /// The paths of files that match.
    #[default]
    FilesWithMatches,
    /// The matching lines as `path:line:text`.
    Content,
    /// The number of matching lines as `path:count`.
    Count,
}

/// What a file operation came to; text for the model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileResult {
    /// At most [`crate::FILE_RESULT_TEXT_BYTES_MAX`] bytes.
    pub content: String,
    /// Whether the call failed.
    pub is_error: bool,
    /// A stable code such as `file.not_found`.
    pub code: Option<String>,
}

impl FileOp {
    /// The call of the tool `name` with these arguments (JSON text as a model wrote it); `None` when `name` is
    /// no file tool.
    pub fn from_tool_call(name: &str, arguments: &str) -> Option<Result<Self, serde_json::Error>> {
        Some(match name {
            "Read" => serde_json::from_str(arguments).map(Self::Read),
            "Write" => serde_json::from_str(arguments).map(Self::Write),
            "Edit" => serde_json::from_str(arguments).map(Self::Edit),
            "Glob" => serde_json::from_str(arguments).map(Self::Glob),
            "Grep" => serde_json::from_str(arguments).map(Self::Grep),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tool_arguments_become_operations() {
        let read = FileOp::from_tool_call("Read", r#"{"file_path":"a"}"#).unwrap().unwrap();
        assert_eq!(read, FileOp::Read(Read { file_path: "a".into(), offset: None, limit: None }));
        let grep =
            FileOp::from_tool_call("Grep", r#"{"pattern":"x","output_mode":"count"}"#).unwrap().unwrap();
        assert!(matches!(grep, FileOp::Grep(Grep { output_mode: GrepMode::Count, .. })));
        assert!(FileOp::from_tool_call("Write", r#"{"file_path":"a"}"#).unwrap().is_err());
        assert!(FileOp::from_tool_call("Bash", "{}").is_none());
    }
}
