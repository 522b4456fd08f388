//! `Grep`: files by content, over the libraries of ripgrep. A file's text is searched as `Read` shows it: decoded, and with
//! plain ends of lines.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Instant;

use grep::matcher::Matcher;
use grep::regex::{RegexMatcher, RegexMatcherBuilder};
use grep::searcher::{BinaryDetection, Searcher, SearcherBuilder, Sink, SinkContext, SinkMatch};
use ignore::types::{Types, TypesBuilder};
use palisade_hand_protocol::{Grep, GrepMode};

use super::filter::{Depth, Filter};
use super::report::Report;
use super::walk::{Visited, Walk};
use super::{Failure, Outcome, TEXT_FILE_BYTES_MAX, characters, open_regular, paths, read, text};

/// A longer line is cut around its first match, in bytes.
const LINE_BYTES_MAX: usize = 500;
/// What is shown of it before the match, in bytes.
const BEFORE_MATCH_BYTES: usize = 100;
/// Matches that are counted in one line.
const MATCHES_COUNTED_MAX: usize = 1_000;
/// A file too large to be decoded is given up on where a line of it is longer than this, in bytes of heap.
const SEARCH_HEAP_BYTES_MAX: usize = 16 * 1024 * 1024;
/// A regular expression's compiled size, in bytes.
const REGEX_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Lines around a match.
const CONTEXT_LINES_MAX: u64 = 1_000;

pub(super) fn grep(grep: &Grep, workspace: &Path) -> Outcome {
    let found = paths::existing(grep.path.as_deref().unwrap_or("."), workspace).map_err(with_pattern_hint)?;
    let base = &found.path;
    let filter = grep.glob.as_deref().map(|glob| Filter::parse(glob, base, Depth::Any)).transpose()?;
    let types = grep.file_type.as_deref().map(types).transpose()?;
    let mut search = Search::new(grep)?;
    let mut walk = Walk::new(workspace);
    if std::fs::metadata(base).map_err(|e| super::failure(base, &e))?.is_dir() {
        walk.below(base, false, |walk, visited| {
            let Visited::File(path) = visited else { return };
            let relative = path.strip_prefix(base).unwrap_or(path);
            let is_wanted = filter.as_ref().is_none_or(|filter| filter.is_match(relative))
                && types.as_ref().is_none_or(|types| types.matched(path, false).is_whitelist());
            if is_wanted {
                search.file(path, walk);
            } else {
                search.filtered += 1;
            }
        })?;
    } else {
        open_regular(base)?;
        search.file(base, &mut walk);
    }
    let mut notes =
        if search.report.is_empty() { walk.left_out.notes_of_nothing() } else { walk.left_out.notes() };
    notes.extend(found.note);
    if !search.report.is_empty() {
        let noun = if search.mode == GrepMode::Content { "lines" } else { "files" };
        return Ok(search.report.finish(noun, &notes));
    }
    let mut said = search.nothing(&grep.pattern, base);
    notes.extend(
        filter
            .and_then(|filter| filter.wrong)
            .map(|wrong| format!("glob was taken for a name; it is not valid: {wrong}")),
    );
    notes.iter().for_each(|note| said.push_str(&format!("\n[note: {note}]")));
    Ok(said)
}

/// A path with a pattern in it is a mistake that is easily mended.
fn with_pattern_hint(Failure(code, message): Failure) -> Failure {
    let hint = if message.contains('*') { " A pattern belongs into glob." } else { "" };
    Failure(code, format!("{message}{hint}"))
}

/// The known kinds of files; an unknown one is taken for an extension.
fn types(name: &str) -> Result<Types, Failure> {
    let name = name.trim_start_matches("*.").trim_start_matches('.').to_ascii_lowercase();
    let bad = |e: ignore::Error| {
        Failure("grep.bad_type", format!("The type {name:?} is not known: {e}. Use glob."))
    };
    let mut builder = TypesBuilder::new();
    builder.add_defaults();
    builder.select(&name);
    if let Ok(types) = builder.build() {
        return Ok(types);
    }
    let mut builder = TypesBuilder::new();
    builder.add("asked", &format!("*.{name}")).map_err(bad)?;
    builder.select("asked");
    builder.build().map_err(bad)
}

/// One search through many files.
struct Search {
    regex: RegexMatcher,
    searcher: Searcher,
    mode: GrepMode,
    line_numbers: bool,
    /// The pattern speaks of CR, so that ends of lines are searched as they are.
    is_raw: bool,
    report: Report,
    /// Files that were looked at, and such as the filter left out.
    searched: usize,
    filtered: usize,
}

impl Search {
    fn new(grep: &Grep) -> Result<Self, Failure> {
        let speaks_of = |escape: &str, c: char| grep.pattern.contains(escape) || grep.pattern.contains(c);
        let is_raw = speaks_of("\\r", '\r') || grep.pattern.contains("\\x0d");
        let spans_lines = grep.multiline || (speaks_of("\\n", '\n') && !grep.pattern.contains("[^"));
        let build = |pattern: &str| {
            let mut builder = RegexMatcherBuilder::new();
            builder.size_limit(REGEX_BYTES_MAX).case_insensitive(grep.ignore_case).multi_line(true);
            builder.dot_matches_new_line(grep.multiline);
            if !spans_lines {
                builder.line_terminator(Some(b'\n'));
            }
            builder.build(pattern)
        };
        let asked = build(&grep.pattern)
            .map_err(|e| Failure("grep.bad_pattern", format!("The pattern is not valid: {e}.")))?;
        // Accents may be coded as one character or as two. In a class of characters two would be either.
        let codings = characters::codings(&grep.pattern).filter(|_| !grep.pattern.contains('['));
        let regex = codings.and_then(|both| build(&both).ok()).unwrap_or(asked);
        let mode = grep.mode();
        let around = |lines: Option<u64>| match mode {
            GrepMode::Content => usize::try_from(lines.unwrap_or(0).min(CONTEXT_LINES_MAX)).unwrap_or(0),
            _ => 0,
        };
        let searcher = SearcherBuilder::new()
            .binary_detection(BinaryDetection::none())
            .heap_limit(Some(SEARCH_HEAP_BYTES_MAX))
            .line_number(true)
            .multi_line(spans_lines)
            .before_context(around(grep.before))
            .after_context(around(grep.after))
            .build();
        let report = Report::new(grep.head_limit, grep.offset);
        let line_numbers = grep.line_numbers.unwrap_or(true);
        Ok(Self { regex, searcher, mode, line_numbers, is_raw, report, searched: 0, filtered: 0 })
    }

    /// Searches one file; what cannot be searched is noted.
    fn file(&mut self, path: &Path, walk: &mut Walk<'_>) {
        let file = match open_regular(path) {
            Ok(file) => file,
            Err(Failure("file.denied" | "file.io", _)) => return walk.left_out.unreadable.add(path),
            // It vanished meanwhile, or has no content.
            Err(_) => return,
        };
        self.searched += 1;
        let mut file = Timed { file, until: walk.until() };
        let mut bytes = Vec::new();
        if (&mut file).take(TEXT_FILE_BYTES_MAX + 1).read_to_end(&mut bytes).is_err() {
            if !walk.is_late() {
                walk.left_out.unreadable.add(path);
            }
            return;
        }
        let is_packed =
            read::known_kind(&bytes).is_some_and(|kind| !kind.contains("program") && !kind.contains("image"));
        let mut matches = Matches { path, search: self, count: 0, is_text: true };
        let done = if bytes.len() as u64 > TEXT_FILE_BYTES_MAX {
            let whole = io::Cursor::new(bytes).chain(file);
            matches.search(|regex, searcher, sink| searcher.search_reader(regex, whole, sink))
        } else if let Some(decoded) = text::decode(&bytes).filter(|_| !is_packed) {
            let is_raw = matches.search.is_raw;
            let plain = if is_raw { decoded.text.into() } else { text::with_plain_ends(&decoded.text) };
            matches.search(|regex, searcher, sink| searcher.search_slice(regex, plain.as_bytes(), sink))
        } else {
            matches.is_text = false;
            matches.search(|regex, searcher, sink| searcher.search_slice(regex, &bytes, sink))
        };
        let (count, is_text) = (matches.count, matches.is_text);
        if done.is_err() && !walk.is_late() {
            walk.left_out.unreadable.add(path);
        }
        if is_packed {
            walk.left_out.packed.add(path);
        }
        match (self.mode, count) {
            (_, 0) => {}
            (GrepMode::FilesWithMatches, _) => self.report.add(path.display()),
            (GrepMode::Count, count) => self.report.add(format!("{}:{count}", path.display())),
            (GrepMode::Content, _) if !is_text => {
                self.report.add(format!("{}: binary file matches ({count} lines)", path.display()));
            }
            (GrepMode::Content, _) => {}
        }
    }

    /// That there is no match, and of how many files that is true.
    fn nothing(&self, pattern: &str, base: &Path) -> String {
        let base = base.display();
        match (self.searched, self.filtered) {
            (0, 0) => format!("No match for {pattern} under {base}: there is no file."),
            (0, filtered) => format!(
                "Nothing was searched: none of the {filtered} files under {base} is of the glob or type."
            ),
            _ => format!("No match for {pattern} under {base}."),
        }
    }

    fn line(&self, path: &Path, number: Option<u64>, mark: char, line: &str) -> String {
        match number.filter(|_| self.line_numbers) {
            Some(number) => format!("{}{mark}{number}{mark}{line}", path.display()),
            None => format!("{}{mark}{line}", path.display()),
        }
    }
}

/// A file that is read until a time; then it is an error.
struct Timed {
    file: File,
    until: Instant,
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.until <= Instant::now() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.file.read(buffer)
    }
}

/// Takes the matches of one file.
struct Matches<'a> {
    path: &'a Path,
    search: &'a mut Search,
    count: u64,
    /// Lines are shown of text alone.
    is_text: bool,
}

impl Matches<'_> {
    /// The searcher and the sink are both parts of the search, so the searcher is taken out meanwhile.
    fn search(
        &mut self,
        run: impl FnOnce(&RegexMatcher, &mut Searcher, &mut Self) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut searcher = self.search.searcher.clone();
        let regex = self.search.regex.clone();
        run(&regex, &mut searcher, self)
    }

    fn shows_lines(&self) -> bool {
        self.search.mode == GrepMode::Content && self.is_text
    }
}

impl Sink for Matches<'_> {
    type Error = io::Error;

    fn matched(&mut self, _: &Searcher, found: &SinkMatch<'_>) -> io::Result<bool> {
        let mut number = found.line_number();
        for line in found.lines() {
            self.count += 1;
            if self.shows_lines() {
                let shown = around_match(line, &self.search.regex);
                let shown = self.search.line(self.path, number, ':', &shown);
                self.search.report.add(shown);
            }
            number = number.map(|number| number + 1);
        }
        Ok(self.search.mode != GrepMode::FilesWithMatches)
    }

    fn context(&mut self, _: &Searcher, context: &SinkContext<'_>) -> io::Result<bool> {
        if self.shows_lines() {
            let shown = around(&trimmed(context.bytes()), 0, 0);
            let shown = self.search.line(self.path, context.line_number(), '-', &shown);
            self.search.report.add(shown);
        }
        Ok(true)
    }

    fn context_break(&mut self, _: &Searcher) -> io::Result<bool> {
        if self.shows_lines() {
            self.search.report.separate();
        }
        Ok(true)
    }
}

fn trimmed(line: &[u8]) -> String {
    String::from_utf8_lossy(line).trim_end().to_owned()
}

fn around_match(line: &[u8], regex: &RegexMatcher) -> String {
    let text = trimmed(line);
    if text.len() <= LINE_BYTES_MAX {
        return text::shown(&text).into_owned();
    }
    let at = regex.find(text.as_bytes()).ok().flatten().map_or(0, |found| found.start());
    let mut matches = 0;
    // What goes wrong here costs a number in a note.
    let _ = regex.find_iter(text.as_bytes(), |_| {
        matches += 1;
        matches < MATCHES_COUNTED_MAX
    });
    around(&text, at, matches)
}

/// The line around a place in it, with marks where it is cut; `Read` shows the rest by its columns.
fn around(line: &str, at: usize, matches: usize) -> String {
    if line.len() <= LINE_BYTES_MAX {
        return text::shown(line).into_owned();
    }
    let start = line.floor_char_boundary(at.saturating_sub(BEFORE_MATCH_BYTES));
    let end = line.floor_char_boundary(start + LINE_BYTES_MAX);
    let column = |at: usize| line[..at].chars().count();
    let before = if start > 0 { format!("[cut: from column {}] ", column(start) + 1) } else { String::new() };
    let others = if matches > 1 { format!(", {matches} matches in it") } else { String::new() };
    let after = match end < line.len() {
        true => format!(" [cut: to column {} of {}{others}]", column(end), line.chars().count()),
        false => String::new(),
    };
    format!("{before}{}{after}", text::shown(&line[start..end]))
}
