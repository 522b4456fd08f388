//! `Glob` and `Grep`, over the libraries of ripgrep. Both walk without following links, skip other sessions'
//! folders and version control, and stop at written limits, which they name.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use globset::{GlobBuilder, GlobMatcher};
use grep::regex::RegexMatcherBuilder;
use grep::searcher::{BinaryDetection, Searcher, SearcherBuilder, Sink, SinkMatch};
use ignore::{DirEntry, WalkBuilder};
use palisade_hand_protocol::{FILE_RESULT_TEXT_BYTES_MAX, Glob, Grep, GrepMode};

use super::{Failure, Outcome, cut, failure, open_regular, resolve};

/// Paths that one `Glob` reports.
const PATHS_MAX: usize = 1_000;
/// Entries that one search looks at.
const ENTRIES_MAX: usize = 500_000;
/// What one search reports, in bytes; the rest is room for the note.
const REPORT_BYTES_MAX: usize = FILE_RESULT_TEXT_BYTES_MAX - 200;
/// A matching line is cut there, in bytes.
const LINE_BYTES_MAX: usize = 500;
/// A file with a longer line than this is given up on, in bytes of heap.
const SEARCH_HEAP_BYTES_MAX: usize = 16 * 1024 * 1024;
/// A regular expression's compiled size, in bytes.
const REGEX_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Folders that a search from above them does not enter.
const SKIPPED: &[&str] = &[".git", ".sessions"];

pub(super) fn glob(glob: &Glob, workspace: &Path) -> Outcome {
    let base = resolve(glob.path.as_deref().unwrap_or("."), workspace)?;
    let (base, pattern) = split_pattern(&base, &glob.pattern);
    let matcher = compile(&pattern)?;
    let mut found: Vec<(SystemTime, PathBuf)> = Vec::new();
    let walked_all = walk(&base, |entry| {
        let relative = entry.path().strip_prefix(&base).unwrap_or(entry.path());
        if matcher.is_match(relative) {
            let modified =
                entry.metadata().ok().and_then(|m| m.modified().ok()).unwrap_or(SystemTime::UNIX_EPOCH);
            found.push((modified, entry.path().to_owned()));
        }
        true
    })?;
    if found.is_empty() {
        return Ok(format!("No file under {} matches {pattern}.", base.display()));
    }
    found.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut report = Report::default();
    for (_, path) in found.iter().take(PATHS_MAX) {
        if !report.add(path.display()) {
            break;
        }
    }
    report.is_cut |= found.len() > PATHS_MAX || !walked_all;
    Ok(report.finish())
}

pub(super) fn grep(grep: &Grep, workspace: &Path) -> Outcome {
    let base = resolve(grep.path.as_deref().unwrap_or("."), workspace)?;
    let regex = RegexMatcherBuilder::new().size_limit(REGEX_BYTES_MAX).build(&grep.pattern);
    let regex = regex.map_err(|e| Failure("grep.bad_pattern", format!("The pattern is not valid: {e}.")))?;
    let filter = grep.glob.as_deref().map(|pattern| compile(&any_depth(pattern))).transpose()?;
    let mut searcher = SearcherBuilder::new()
        .binary_detection(BinaryDetection::quit(0))
        .heap_limit(Some(SEARCH_HEAP_BYTES_MAX))
        .line_number(true)
        .build();
    let mut report = Report::default();
    let mut search = |path: &Path| {
        let mut matches = Matches { path, mode: grep.output_mode, count: 0, report: &mut report };
        // A file that cannot be read, or vanished meanwhile, has no match.
        if let Ok(file) = open_regular(path) {
            let _ = searcher.search_file(&regex, &file, &mut matches);
        }
        let line = match (matches.mode, matches.count) {
            (GrepMode::FilesWithMatches, 1..) => path.display().to_string(),
            (GrepMode::Count, count @ 1..) => format!("{}:{count}", path.display()),
            _ => return true,
        };
        report.add(line)
    };
    let metadata = std::fs::metadata(&base).map_err(|e| failure(&base, &e))?;
    let walked_all = if metadata.is_dir() {
        walk(&base, |entry| {
            let relative = entry.path().strip_prefix(&base).unwrap_or(entry.path());
            let wanted = filter.as_ref().is_none_or(|filter| filter.is_match(relative));
            !wanted || search(entry.path())
        })?
    } else {
        open_regular(&base)?;
        search(&base)
    };
    if report.text.is_empty() {
        return Ok(format!("No match for {} under {}.", grep.pattern, base.display()));
    }
    report.is_cut |= !walked_all;
    Ok(report.finish())
}

/// Gives every regular file below `base` to `visit` until it answers `false`; the answer is whether all were
/// visited.
fn walk(base: &Path, mut visit: impl FnMut(&DirEntry) -> bool) -> Result<bool, Failure> {
    std::fs::read_dir(base).map_err(|e| failure(base, &e))?;
    let entries = WalkBuilder::new(base)
        .standard_filters(false)
        .follow_links(false)
        .sort_by_file_name(Ord::cmp)
        .filter_entry(|entry| entry.depth() == 0 || !SKIPPED.iter().any(|name| entry.file_name() == *name))
        .build();
    let mut seen = 0;
    for entry in entries.flatten() {
        seen += 1;
        if seen > ENTRIES_MAX {
            return Ok(false);
        }
        if entry.file_type().is_some_and(|kind| kind.is_file()) && !visit(&entry) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn compile(pattern: &str) -> Result<GlobMatcher, Failure> {
    let glob = GlobBuilder::new(pattern).literal_separator(true).build();
    Ok(glob
        .map_err(|e| Failure("glob.bad_pattern", format!("The pattern is not valid: {e}.")))?
        .compile_matcher())
}

/// A filter without a folder means files of that name anywhere.
fn any_depth(pattern: &str) -> String {
    if pattern.contains('/') { pattern.trim_start_matches('/').to_owned() } else { format!("**/{pattern}") }
}

/// Walking starts as deep as the pattern's fixed part allows; an absolute pattern starts at the root.
fn split_pattern(base: &Path, pattern: &str) -> (PathBuf, String) {
    let base = if pattern.starts_with('/') { PathBuf::from("/") } else { base.to_owned() };
    let mut names: Vec<&str> = pattern.split('/').filter(|name| !name.is_empty() && *name != ".").collect();
    let is_fixed = |name: &&str| !name.contains(['*', '?', '[', '{', '\\']) && *name != "..";
    let fixed = names.iter().take_while(|name| is_fixed(name)).count().min(names.len().saturating_sub(1));
    let rest = names.split_off(fixed);
    (names.iter().fold(base, |base, name| base.join(name)), rest.join("/"))
}

/// The lines of a result, up to the limit.
#[derive(Default)]
struct Report {
    text: String,
    is_cut: bool,
}

impl Report {
    /// Whether there was room.
    fn add(&mut self, line: impl std::fmt::Display) -> bool {
        let before = self.text.len();
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{line}");
        if self.text.len() > REPORT_BYTES_MAX {
            self.text.truncate(before);
            self.is_cut = true;
        }
        !self.is_cut
    }

    fn finish(mut self) -> String {
        if self.is_cut {
            self.text.push_str("[there is more; narrow the pattern or the path]");
        }
        self.text
    }
}

/// Takes the matches of one file.
struct Matches<'a> {
    path: &'a Path,
    mode: GrepMode,
    count: u64,
    report: &'a mut Report,
}

impl Sink for Matches<'_> {
    type Error = io::Error;

    fn matched(&mut self, _: &Searcher, found: &SinkMatch<'_>) -> io::Result<bool> {
        self.count += 1;
        match self.mode {
            GrepMode::FilesWithMatches => Ok(false),
            GrepMode::Count => Ok(true),
            GrepMode::Content => {
                let mut line = String::from_utf8_lossy(found.bytes()).trim_end().to_owned();
                cut(&mut line, LINE_BYTES_MAX);
                Ok(self.report.add(format!(
                    "{}:{}:{line}",
                    self.path.display(),
                    found.line_number().unwrap_or(0)
                )))
            }
        }
    }
}
