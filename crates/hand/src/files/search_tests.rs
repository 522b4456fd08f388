//! What `Glob` and `Grep` find, over a small tree.

use std::path::Path;
use std::time::{Duration, SystemTime};

use palisade_hand_protocol::{Glob, Grep, GrepMode};
use tempfile::TempDir;

use super::search::{glob, grep};

fn tree() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, content, age_s) in [
        ("a.md", "alpha\nbeta\n", 30),
        ("docs/b.md", "beta\nBETA beta\n", 20),
        ("docs/deep/c.md", "gamma\n", 10),
        ("docs/d.txt", "beta\n", 5),
        (".git/config", "beta\n", 1),
        (".sessions/x/home/e.md", "beta\n", 1),
        (".hidden.md", "delta\n", 40),
        ("bin", "beta\0beta", 1),
    ] {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        let file = std::fs::File::open(&path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(age_s)).unwrap();
    }
    std::os::unix::fs::symlink("/etc", folder.path().join("etc")).unwrap();
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, folder.path().join("fifo.md"), fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();
    folder
}

/// The result's lines without the folder's own path.
fn lines(text: &str, folder: &Path) -> Vec<String> {
    text.lines().map(|line| line.replace(&format!("{}/", folder.display()), "")).collect()
}

#[test]
fn glob_finds_by_name_newest_first() {
    let tree = tree();
    let absolute = format!("{}/docs/*.txt", tree.path().display());
    for (pattern, path, expected) in [
        ("*.md", None, vec!["a.md", ".hidden.md"]),
        ("**/*.md", None, vec!["docs/deep/c.md", "docs/b.md", "a.md", ".hidden.md"]),
        ("docs/**/*.{md,txt}", None, vec!["docs/d.txt", "docs/deep/c.md", "docs/b.md"]),
        ("*.md", Some("docs"), vec!["docs/b.md"]),
        ("*.md", Some(".sessions/x/home"), vec![".sessions/x/home/e.md"]),
        (&absolute, None, vec!["docs/d.txt"]),
        ("docs/b.md", None, vec!["docs/b.md"]),
    ] {
        let text =
            glob(&Glob { pattern: pattern.into(), path: path.map(str::to_owned) }, tree.path()).unwrap();
        assert_eq!(lines(&text, tree.path()), expected, "{pattern} in {path:?}");
    }
}

#[test]
fn grep_finds_by_content_and_leaves_binaries_and_fifos_alone() {
    let tree = tree();
    for (pattern, path, filter, mode, expected) in [
        ("beta", None, None, GrepMode::FilesWithMatches, vec!["a.md", "docs/b.md", "docs/d.txt"]),
        ("beta", None, Some("*.txt"), GrepMode::FilesWithMatches, vec!["docs/d.txt"]),
        ("(?i)^beta", Some("docs"), None, GrepMode::Count, vec!["docs/b.md:2", "docs/d.txt:1"]),
        ("b.ta", Some("a.md"), None, GrepMode::Content, vec!["a.md:2:beta"]),
    ] {
        let request = Grep {
            pattern: pattern.into(),
            path: path.map(str::to_owned),
            glob: filter.map(str::to_owned),
            output_mode: mode,
        };
        assert_eq!(lines(&grep(&request, tree.path()).unwrap(), tree.path()), expected, "{pattern}");
    }
}

#[test]
fn nothing_found_and_nonsense_are_told_apart() {
    let tree = tree();
    let globbed = |pattern: &str| glob(&Glob { pattern: pattern.into(), path: None }, tree.path());
    let grepped = |pattern: &str, path: &str| {
        grep(&Grep { pattern: pattern.into(), path: Some(path.into()), ..Grep::default() }, tree.path())
    };
    assert!(globbed("*.xyz").unwrap().starts_with("No file"));
    assert_eq!(globbed("[").unwrap_err().0, "glob.bad_pattern");
    assert!(grepped("omega", ".").unwrap().starts_with("No match"));
    assert_eq!(grepped("(", ".").unwrap_err().0, "grep.bad_pattern");
    assert_eq!(grepped("x", "missing").unwrap_err().0, "file.not_found");
    assert_eq!(grepped("x", "fifo.md").unwrap_err().0, "file.not_regular");
}

#[test]
fn long_results_are_cut_and_say_so() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("f"), "match\n".repeat(20_000)).unwrap();
    let request = Grep { pattern: "match".into(), output_mode: GrepMode::Content, ..Grep::default() };
    let text = grep(&request, folder.path()).unwrap();
    assert!(text.len() <= palisade_hand_protocol::FILE_RESULT_TEXT_BYTES_MAX && text.ends_with("the path]"));
}
