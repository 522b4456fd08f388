//! The file tools as the hand executes them, inside the same mounts as every command, so that they see exactly
//! the scope that Bash sees. What models call these fields is the agent's affair.

use serde::{Deserialize, Serialize};

/// One call of a file tool. A path that is not absolute is relative to the workspace; `~` is HOME.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileOp {
    /// Numbered lines of a text file.
    Read(Read),
    /// A whole file.
    Write(Write),
    /// Exact replacements in one file, all of them or none.
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
    /// The first line, from 1; a negative number counts from the end.
    pub offset: Option<i64>,
    /// How many lines; 2000 by default.
    pub limit: Option<u64>,
    /// The first character shown of the first line, from 1: for a line too long to be shown at once.
    pub column: Option<u64>,
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
    /// Done in order, each on what the one before it left.
    pub edits: Vec<Replacement>,
}

/// One replacement of an [`Edit`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replacement {
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
    /// How many paths are shown.
    pub head_limit: Option<u64>,
    /// How many are passed over first.
    pub offset: Option<u64>,
}

/// See [`FileOp::Grep`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grep {
    /// A regular expression.
    pub pattern: String,
    /// The file or directory to search; the workspace by default.
    pub path: Option<String>,
    /// Only files that match one of these, which commas separate, and none of those that begin with `!`.
    pub glob: Option<String>,
    /// Only files of this kind, such as `py`.
    #[serde(rename = "type")]
    pub file_type: Option<String>,
    /// What to report; by default the files, and the lines where something is asked that only lines show.
    pub output_mode: Option<GrepMode>,
    /// Letters match in either case.
    #[serde(default)]
    pub ignore_case: bool,
    /// Lines are shown with their numbers, unless this is `false`.
    pub line_numbers: Option<bool>,
    /// Lines shown before each match.
    pub before: Option<u64>,
    /// Lines shown after each match.
    pub after: Option<u64>,
    /// A match may go over several lines, and `.` matches their ends.
    #[serde(default)]
    pub multiline: bool,
    /// How many lines of the result are shown.
    pub head_limit: Option<u64>,
    /// How many are passed over first.
    pub offset: Option<u64>,
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

impl Grep {
    /// What is reported where the call does not say it.
    pub fn mode(&self) -> GrepMode {
        let asks_for_lines = self.before.is_some() || self.after.is_some() || self.line_numbers.is_some();
        self.output_mode.unwrap_or(if asks_for_lines {
            GrepMode::Content
        } else {
            GrepMode::FilesWithMatches
        })
    }
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
