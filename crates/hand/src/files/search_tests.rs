//! What `Glob` and `Grep` find, over a small tree.

use std::path::Path;
use std::time::{Duration, SystemTime};

use palisade_hand_protocol::{Glob, Grep, GrepMode};
use tempfile::TempDir;

use super::Outcome;
use super::glob::glob;
use super::grep::grep;

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
        ("node_modules/m.js", "omega\n", 0),
        ("bin", "beta\0beta", 1),
    ] {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        let file = std::fs::File::open(&path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(age_s)).unwrap();
    }
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, folder.path().join("fifo.md"), fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();
    folder
}

fn globbed(folder: &Path, pattern: &str, path: Option<&str>) -> Outcome {
    glob(&Glob { pattern: pattern.into(), path: path.map(str::to_owned), ..Glob::default() }, folder)
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
        let text = globbed(tree.path(), pattern, path).unwrap();
        assert_eq!(lines(&text, tree.path()), expected, "{pattern} in {path:?}");
    }
}

#[test]
fn grep_finds_by_content_and_leaves_fifos_alone() {
    let tree = tree();
    for (pattern, path, filter, mode, expected) in [
        ("beta", None, None, GrepMode::FilesWithMatches, vec!["a.md", "bin", "docs/b.md", "docs/d.txt"]),
        ("beta", None, Some("*.txt"), GrepMode::FilesWithMatches, vec!["docs/d.txt"]),
        ("(?i)^beta", Some("docs"), None, GrepMode::Count, vec!["docs/b.md:2", "docs/d.txt:1"]),
        ("b.ta", Some("a.md"), None, GrepMode::Content, vec!["a.md:2:beta"]),
    ] {
        let request = Grep {
            pattern: pattern.into(),
            path: path.map(str::to_owned),
            glob: filter.map(str::to_owned),
            output_mode: Some(mode),
            ..Grep::default()
        };
        assert_eq!(lines(&grep(&request, tree.path()).unwrap(), tree.path()), expected, "{pattern}");
    }
}

#[test]
fn nothing_found_and_nonsense_are_told_apart() {
    let tree = tree();
    let grepped = |pattern: &str, path: &str| {
        grep(&Grep { pattern: pattern.into(), path: Some(path.into()), ..Grep::default() }, tree.path())
    };
    let found = |pattern: &str| globbed(tree.path(), pattern, None);
    assert!(found("*.xyz").unwrap().starts_with("No file"));
    assert!(found("[").unwrap().contains("as a pattern it is not valid"));
    assert_eq!(found("a**\\").unwrap_err().0, "glob.bad_pattern");
    assert!(grepped("nothing of the kind", ".").unwrap().starts_with("No match"));
    assert_eq!(grepped("(", ".").unwrap_err().0, "grep.bad_pattern");
    assert_eq!(grepped("x", "missing").unwrap_err().0, "file.not_found");
    assert_eq!(grepped("x", "fifo.md").unwrap_err().0, "file.not_regular");
}

#[test]
fn long_results_are_cut_and_say_so() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("f"), "match\n".repeat(20_000)).unwrap();
    let request = Grep { pattern: "match".into(), output_mode: Some(GrepMode::Content), ..Grep::default() };
    let text = grep(&request, folder.path()).unwrap();
    assert!(text.len() <= palisade_hand_protocol::FILE_RESULT_TEXT_BYTES_MAX);
    let note = text.lines().last().unwrap();
    let shown = text.lines().count() - 1;
    assert!(
        note.starts_with(&format!("[lines 1 to {shown} of 20000; go on with offset={shown}, or")),
        "{note}"
    );
}

/// A folder with these files, and nothing else.
fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    folder
}

/// The lines that a search for `pattern` shows.
fn grepped(folder: &TempDir, pattern: &str, rest: Grep) -> Vec<String> {
    let request = Grep { pattern: pattern.into(), ..rest };
    lines(&grep(&request, folder.path()).unwrap(), folder.path())
}

fn content() -> Grep {
    Grep { output_mode: Some(GrepMode::Content), ..Grep::default() }
}

#[test]
fn whatever_a_file_is_coded_in_is_searched() {
    let utf_16 = |text: &str, mark: &[u8]| -> Vec<u8> {
        mark.iter().copied().chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect()
    };
    for (name, bytes, pattern, expected) in [
        ("a NUL byte", b"one\0\nneedle here\n".to_vec(), "needle", "f:2:needle here"),
        (
            "a NUL in the line",
            b"nee\0dle and a long text\n".to_vec(),
            "long",
            "f:1:nee\u{2400}dle and a long text",
        ),
        ("CR LF", b"1,2,3,4\r\n5,6\r\n".to_vec(), "3,4$", "f:1:1,2,3,4"),
        ("CR LF, and a blank line", b"a\r\n\r\nb\r\n".to_vec(), "^$", "f:2:"),
        ("CR", b"one\rtwo\r".to_vec(), "^two$", "f:2:two"),
        ("a sought CR", b"one\ntwo\r\n".to_vec(), "\\r$", "f:2:two"),
        (
            "UTF-16",
            utf_16("caf\u{e9} \u{1f600}\r\nend\r\n", b"\xff\xfe"),
            "^caf\u{e9} .$",
            "f:1:caf\u{e9} \u{1f600}",
        ),
        ("UTF-16 without a mark", utf_16("alpha\nbeta\n", b""), "beta", "f:2:beta"),
        (
            "Latin-1",
            b"d\xe9j\xe0 vu, un caf\xe9\n".to_vec(),
            "caf\u{e9}",
            "f:1:d\u{e9}j\u{e0} vu, un caf\u{e9}",
        ),
        (
            "Latin-1 by a dot",
            b"d\xe9j\xe0 vu, un caf\xe9 noir\n".to_vec(),
            "caf. noir",
            "f:1:d\u{e9}j\u{e0} vu, un caf\u{e9} noir",
        ),
        ("NFD for NFC", "cafe\u{301}\n".into(), "caf\u{e9}", "f:1:cafe\u{301}"),
        ("NFC for NFD", "caf\u{e9}\n".into(), "cafe\u{301}", "f:1:caf\u{e9}"),
        (
            "damaged UTF-8",
            b"\xc3\xa9\xc3\xa9 \xff needle\n".to_vec(),
            "needle",
            "f:1:\u{e9}\u{e9} \u{fffd} needle",
        ),
        ("a byte order mark", b"\xef\xbb\xbfneedle\n".to_vec(), "^needle", "f:1:needle"),
        (
            "a program",
            b"\x7fELF\x01\x02\0\0\0\0needle\xff\n".to_vec(),
            "needle",
            "f: binary file matches (1 lines)",
        ),
    ] {
        let folder = folder(&[("f", &bytes)]);
        assert_eq!(grepped(&folder, pattern, content()), [expected], "{name}");
        assert_eq!(grepped(&folder, pattern, Grep::default()), ["f"], "{name}");
    }
    let lines = folder(&[("f", b"def f(\r\n    x):\r\n")]);
    let multiline = Grep { multiline: true, ..content() };
    assert_eq!(grepped(&lines, "f\\(\\s+x", multiline.clone()), ["f:1:def f(", "f:2:    x):"]);
    assert_eq!(
        grepped(&lines, "f\\(\n +x", content()),
        ["f:1:def f(", "f:2:    x):"],
        "a pattern with LF spans lines"
    );
}

#[test]
fn options_of_a_search_do_what_they_say() {
    let tree = folder(&[
        ("a.py", b"One\ntwo\nthree\nfour\nfive\nsix\ntwo\n"),
        ("b.js", b"two\n"),
        ("d/c.min.js", b"two\n"),
        ("node_modules/z.js", b"two\n"),
        ("yes.txt", b"other\n"),
    ]);
    let around = |before, after| Grep {
        before: Some(before),
        after: Some(after),
        glob: Some("*.py".into()),
        ..Grep::default()
    };
    assert_eq!(
        grepped(&tree, "two", around(1, 1)),
        ["a.py-1-One", "a.py:2:two", "a.py-3-three", "--", "a.py-6-six", "a.py:7:two"]
    );
    assert_eq!(grepped(&tree, "one", Grep { ignore_case: true, ..content() }), ["a.py:1:One"]);
    assert_eq!(grepped(&tree, "One", Grep { line_numbers: Some(false), ..Grep::default() }), ["a.py:One"]);
    let of_glob = |glob: &str| grepped(&tree, "two", Grep { glob: Some(glob.into()), ..Grep::default() });
    assert_eq!(of_glob("!*.js"), ["a.py"]);
    assert_eq!(of_glob("*.py,*.js"), ["a.py", "b.js", "d/c.min.js", "node_modules/z.js"]);
    assert_eq!(of_glob("*.js,!*.min.js,!node_modules"), ["b.js"]);
    let of_type =
        |name: &str| grepped(&tree, "two", Grep { file_type: Some(name.into()), ..Grep::default() });
    assert_eq!(of_type("py"), ["a.py"]);
    assert_eq!(of_type("js"), ["b.js", "d/c.min.js", "node_modules/z.js"], "what tools fill comes last");
    assert_eq!(of_type(".py"), ["a.py"]);
    let page = |limit, offset| {
        grepped(&tree, "two", Grep { head_limit: Some(limit), offset: Some(offset), ..Grep::default() })
    };
    assert_eq!(
        page(2, 0),
        ["a.py", "b.js", "[files 1 to 2 of 4; go on with offset=2, or narrow the pattern or the path]"]
    );
    assert_eq!(page(2, 2), ["d/c.min.js", "node_modules/z.js", "[files 3 to 4 of 4]"]);
    assert_eq!(page(2, 9), ["[there are 4 files; none after 9]"]);
    assert_eq!(page(0, 0).len(), 4, "no limit");
}

#[test]
fn a_long_line_is_cut_around_its_match() {
    let line = format!("{}needle{} needle {}\n", "é".repeat(3_000), "x".repeat(2_000), "y".repeat(50_000));
    let folder = folder(&[("f.json", line.as_bytes())]);
    let shown = grepped(&folder, "needle", content()).remove(0);
    assert!(
        shown.len() < 700 && shown.contains("needle") && shown.starts_with("f.json:1:[cut: from column 29"),
        "{shown}"
    );
    assert!(shown.ends_with(" of 55014, 2 matches in it]"), "{shown}");
    let column: u64 = shown.split_once("from column ").unwrap().1.split_once(']').unwrap().0.parse().unwrap();
    let request = palisade_hand_protocol::Read {
        file_path: "f.json".into(),
        column: Some(column),
        ..Default::default()
    };
    let read = super::read::read(&request, folder.path()).unwrap();
    let start = shown.split_once("] ").unwrap().1.split_once(" [cut").unwrap().0;
    assert!(read.starts_with(&format!("     1\t{start}")), "the way on that is named leads there");
}

#[test]
fn no_match_is_said_only_of_what_was_looked_at() {
    let tree = folder(&[
        ("a.txt", b"alpha\n"),
        ("doc.docx", b"PK\x03\x04word/document.xml"),
        (".git/config", b"needle\n"),
    ]);
    let said = |glob: Option<&str>| {
        let glob = glob.map(str::to_owned);
        grepped(&tree, "needle", Grep { glob, ..Grep::default() }).join("\n")
    };
    assert!(
        said(Some("*.rs")).starts_with("Nothing was searched: none of the 2 files"),
        "{}",
        said(Some("*.rs"))
    );
    let nothing = said(None);
    assert!(
        nothing.contains("1 compressed file or document; read those by a tool of theirs: doc.docx"),
        "{nothing}"
    );
    assert!(nothing.contains("1 folder that is searched only when it is the path: .git"), "{nothing}");
    std::fs::remove_file(tree.path().join("doc.docx")).unwrap();
    std::fs::remove_dir_all(tree.path().join(".git")).unwrap();
    assert_eq!(said(None), format!("No match for needle under {}.", tree.path().display()));
}

#[test]
fn links_are_followed_where_they_stay_in_the_workspace() {
    let tree = folder(&[
        ("proj/own.txt", b"needle\n"),
        ("shared/lib.txt", b"needle\n"),
        ("shared/deep/x.md", b"needle\n"),
    ]);
    let outside = folder(&[("secret.txt", b"needle\n")]);
    let link =
        |target: &Path, name: &str| std::os::unix::fs::symlink(target, tree.path().join(name)).unwrap();
    link(Path::new("../shared"), "proj/shared");
    link(Path::new("../shared/lib.txt"), "proj/lib.txt");
    link(Path::new(".."), "proj/up");
    link(outside.path(), "proj/elsewhere");
    link(Path::new("nowhere"), "proj/broken");
    let in_proj = Grep { path: Some("proj".into()), ..Grep::default() };
    assert_eq!(
        grepped(&tree, "needle", in_proj),
        [
            "proj/lib.txt",
            "proj/own.txt",
            "proj/shared/deep/x.md",
            "proj/shared/lib.txt",
            "[note: not looked at: 1 link that leads elsewhere: proj/elsewhere]"
        ]
    );
    let everywhere = grepped(&tree, "needle", Grep::default());
    assert_eq!(
        everywhere[..3],
        ["proj/own.txt", "shared/deep/x.md", "shared/lib.txt"],
        "each file once: {everywhere:?}"
    );
    let found = |pattern: &str| lines(&globbed(tree.path(), pattern, None).unwrap(), tree.path());
    assert_eq!(
        found("*/shared/*.txt"),
        ["proj/shared/lib.txt", "[note: not looked at: 1 link that leads elsewhere: proj/elsewhere]"]
    );
    assert_eq!(found("proj/shared/**/*.md"), ["proj/shared/deep/x.md"]);
    assert_eq!(found("proj/lib.*")[0], "proj/lib.txt");
}

#[test]
fn names_that_look_like_patterns_are_found() {
    let tree = folder(&[
        ("app/[id]/page.tsx", b"x"),
        ("app/[[...slug]]/page.tsx", b"x"),
        ("app/(group)/page.tsx", b"x"),
        ("{{name}}/setup.py", b"x"),
        ("cafe\u{301}/menu.txt", b"x"),
        ("docs/a.md", b"x"),
    ]);
    let found = |pattern: &str| lines(&globbed(tree.path(), pattern, None).unwrap(), tree.path());
    for (pattern, expected) in [
        ("app/[id]/page.tsx", "app/[id]/page.tsx"),
        ("**/[id]/*.{ts,tsx}", "app/[id]/page.tsx"),
        ("app/[[...slug]]/*", "app/[[...slug]]/page.tsx"),
        ("app/(group)/*", "app/(group)/page.tsx"),
        ("{{name}}/*.py", "{{name}}/setup.py"),
        ("caf\u{e9}/*.txt", "cafe\u{301}/menu.txt"),
        ("**/menu.txt, **/none", "cafe\u{301}/menu.txt"),
        ("docs/../docs/*.md", "docs/../docs/a.md"),
    ] {
        assert_eq!(found(pattern)[0], expected, "{pattern}");
    }
    assert!(found("doc*").concat().contains("folders that match: docs/"), "{:?}", found("doc*"));
    let page =
        Glob { pattern: "**/page.tsx".into(), head_limit: Some(1), offset: Some(1), ..Glob::default() };
    let text = glob(&page, tree.path()).unwrap();
    assert!(
        text.ends_with("[files 2 to 2 of 3; go on with offset=2, or narrow the pattern or the path]\n"),
        "{text}"
    );
}
