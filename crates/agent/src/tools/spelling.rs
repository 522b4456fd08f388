//! The names that models have learned from the best known agents, for tools and for arguments, and what ours is
//! called. A name is here because a known agent has it; one that means something else there is not.

use super::arguments::{Argument, Kind, optional, required};

/// Our tools and their other names, without case, `_` and `-`.
const TOOLS: &[(&str, &[&str])] = &[
    (
        "Bash",
        &[
            "bashtool",
            "executebash",
            "executecommand",
            "execcommand",
            "localshell",
            "runcommand",
            "runinterminal",
            "runshellcommand",
            "runterminalcmd",
            "runterminalcommand",
            "sh",
            "shell",
            "shellcommand",
            "terminal",
        ],
    ),
    ("Read", &["cat", "fileread", "openfile", "readfile", "readtool", "view", "viewfile"]),
    ("Write", &["createfile", "filewrite", "writefile", "writetofile", "writetool"]),
    (
        "Edit",
        &[
            "editfile",
            "edittool",
            "fileedit",
            "multiedit",
            "replace",
            "replaceinfile",
            "replacestringinfile",
            "searchreplace",
            "strreplace",
        ],
    ),
    (
        "Glob",
        &[
            "filesearch",
            "findfiles",
            "globfilesearch",
            "globtool",
            "listdir",
            "listdirectory",
            "listfiles",
            "ls",
        ],
    ),
    ("Grep", &["grepsearch", "greptool", "ripgrep", "rg", "searchfilecontent", "searchfiles"]),
    ("Skill", &["activateskill", "loadskill", "useskill"]),
    ("TodoWrite", &["managetodolist", "updateplan", "writetodos"]),
    ("WebFetch", &["fetch", "fetchurl", "fetchwebpage"]),
    // One tool for all that is done with a file, which its argument `command` tells apart.
    (TEXT_EDITOR, &["strreplaceeditor", "texteditor"]),
];

/// See the last entry of the table above.
pub(super) const TEXT_EDITOR: &str = "str_replace_based_edit_tool";

/// Our name of a tool, by whatever name it is called; `None` for a tool that we do not know.
pub(super) fn tool(name: &str) -> Option<&'static str> {
    // `functions.read_file` and `default_api:read_file` are ways of some models to write `read_file`.
    let last = name.rsplit(['.', ':', '/']).next().unwrap_or(name);
    let folded = |name: &str| -> String {
        name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
    };
    let asked = folded(last);
    TOOLS
        .iter()
        .find(|(ours, also)| folded(ours) == asked || also.contains(&asked.as_str()))
        .map(|(ours, _)| *ours)
}

/// Tools that list a folder, where a pattern is not given.
pub(super) fn lists_a_folder(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    tool(&name) == Some("Glob") && (name.starts_with("list") || name == "ls")
}

const FILE: &[&str] = &[
    "path",
    "file",
    "filename",
    "absolute_path",
    "file_name",
    "relative_path",
    "target_file",
    "relative_workspace_path",
];
const FOLDER: &[&str] = &[
    "directory",
    "dir",
    "folder",
    "cwd",
    "dir_path",
    "directory_path",
    "folder_path",
    "root",
    "search_path",
    "target_directory",
];

pub(super) const BASH: &[Argument] = &[
    required("command", &["cmd", "script", "commands"], Kind::Command),
    optional("timeout_ms", &["timeout_milliseconds"], Kind::Number),
    optional("timeout", &[], Kind::Number),
    optional("timeout_s", &["timeout_secs", "timeout_sec", "timeout_seconds"], Kind::Number),
    optional("background", &["run_in_background", "is_background", "async"], Kind::Flag),
    optional("cwd", &["workdir", "working_directory", "working_dir", "work_dir", "directory"], Kind::Text),
    optional("title", &["login"], Kind::Note),
];

pub(super) const READ: &[Argument] = &[
    required("file_path", FILE, Kind::Text),
    optional(
        "offset",
        &["start_line", "line_start", "start", "from_line", "start_line_one_indexed"],
        Kind::Integer,
    ),
    optional(
        "limit",
        &["lines", "line_count", "max_lines", "num_lines", "n_lines", "head_limit"],
        Kind::Count,
    ),
    optional("column", &["char_offset", "character"], Kind::Count),
    optional("end_line", &["line_end", "end", "to_line", "end_line_one_indexed_inclusive"], Kind::Integer),
    optional("view_range", &["line_range", "range"], Kind::List),
];

pub(super) const WRITE: &[Argument] = &[
    required("file_path", FILE, Kind::Text),
    required(
        "content",
        &["contents", "file_text", "text", "file_content", "data", "new_content"],
        Kind::Text,
    ),
];

pub(super) const EDIT: &[Argument] = &[
    required("file_path", FILE, Kind::Text),
    optional("old_string", OLD, Kind::Exact),
    optional("new_string", NEW, Kind::Exact),
    optional("replace_all", ALL, Kind::Flag),
    optional("edits", &["changes", "replacements"], Kind::List),
];

/// One entry of `edits`.
pub(super) const REPLACEMENT: &[Argument] = &[
    required("old_string", OLD, Kind::Exact),
    required("new_string", NEW, Kind::Exact),
    optional("replace_all", ALL, Kind::Flag),
];

const OLD: &[&str] = &["old_str", "old", "old_text", "search", "old_content", "find", "original"];
const NEW: &[&str] = &["new_str", "new", "new_text", "replace", "replacement", "replace_with"];
const ALL: &[&str] = &["all", "allow_multiple", "replaceall", "global"];

pub(super) const GLOB: &[Argument] = &[
    required("pattern", &["glob", "glob_pattern", "patterns", "query", "file_pattern"], Kind::Text),
    optional("path", FOLDER, Kind::Text),
    optional("head_limit", &["limit", "max_results", "num_results", "max"], Kind::Count),
    optional("offset", &["skip"], Kind::Count),
];

pub(super) const GREP: &[Argument] = &[
    required("pattern", &["regex", "regexp", "query", "search", "search_pattern", "-e"], Kind::Text),
    optional("path", GREP_PATHS, Kind::Text),
    optional(
        "glob",
        &["include", "include_pattern", "file_pattern", "glob_pattern", "file_glob", "includes", "-g"],
        Kind::Text,
    ),
    optional("exclude", &["exclude_pattern", "exclude_glob", "excludes"], Kind::Text),
    optional("type", &["file_type", "filetype", "-t", "lang", "language"], Kind::Text),
    optional("output_mode", &["mode", "output"], Kind::Choice(GREP_MODES)),
    optional("ignore_case", &["-i", "i", "case_insensitive", "insensitive"], Kind::Flag),
    optional("case_sensitive", &["match_case"], Kind::Flag),
    optional("line_numbers", &["-n", "n", "line_number", "show_line_numbers"], Kind::Flag),
    optional("before", &["-B", "B", "before_context", "context_before", "lines_before"], Kind::Count),
    optional("after", &["-A", "A", "after_context", "context_after", "lines_after"], Kind::Count),
    optional("context", &["-C", "C", "context_lines"], Kind::Count),
    optional("multiline", &["-U", "multi_line"], Kind::Flag),
    optional("literal", &["-F", "fixed_strings", "fixed_string", "is_literal"], Kind::Flag),
    optional("word", &["-w", "word_regexp", "whole_word", "match_word"], Kind::Flag),
    optional("files_only", &["-l", "files_with_matches"], Kind::Flag),
    optional("count", &["-c", "count_matches"], Kind::Flag),
    optional("head_limit", &["limit", "max_results", "num_results", "max_matches"], Kind::Count),
    optional("offset", &["skip"], Kind::Count),
];

const GREP_PATHS: &[&str] = &[
    "directory",
    "dir",
    "folder",
    "cwd",
    "dir_path",
    "directory_path",
    "file",
    "file_path",
    "folder_path",
    "search_path",
    "target_directory",
    "paths",
];
const GREP_MODES: &[(&str, &[&str])] = &[
    ("files_with_matches", &["files", "filenames", "paths", "files_only", "file_paths", "list"]),
    ("content", &["lines", "matches", "matching_lines", "text"]),
    ("count", &["counts", "count_matches"]),
];

pub(super) const SKILL: &[Argument] = &[
    required("name", &["skill", "skill_name", "command"], Kind::Text),
    // The words of the user that the call is for; the model has them before it.
    optional("args", &["prompt", "input"], Kind::Note),
];

pub(super) const TODO_WRITE: &[Argument] =
    &[required("todos", &["todo_list", "items", "plan", "tasks", "steps"], Kind::List)];

/// One entry of `todos`; only these two are looked at.
pub(super) const TODO_CONTENT: &[&str] = &["content", "step", "task", "title", "text", "description"];

pub(super) const WEB_FETCH: &[Argument] = &[
    required("url", &["uri", "link", "address"], Kind::Text),
    // What the model wants to find; it reads the page itself.
    optional("prompt", &["query", "question"], Kind::Note),
];
