//! `CASES.md` keeps its word: all 82 cases are there, and what is not left for later names tests that are.
#![expect(clippy::expect_used, reason = "a helper that fails fails the test")]

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

const GROUPS: [(&str, usize); 11] = [
    ("A", 16),
    ("B", 8),
    ("C", 5),
    ("D", 10),
    ("E", 9),
    ("F", 5),
    ("G", 2),
    ("H", 11),
    ("I", 4),
    ("J", 9),
    ("K", 3),
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => sources(&path, found),
            false => found.push(path),
        }
    }
}

/// Every function that stands under a test attribute and is not ignored.
fn tests() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join(".."), &mut files);
    files.retain(|file| file.extension().is_some_and(|extension| extension == "rs"));
    let mut names = BTreeSet::new();
    for file in files {
        let source = std::fs::read_to_string(file).expect("a source");
        let mut runs = false;
        for line in source.lines().map(str::trim) {
            match line.split_once("fn ") {
                _ if line.starts_with("#[test]") || line.starts_with("#[tokio::test") => runs = true,
                _ if line.starts_with("#[ignore") => runs = false,
                Some((_, rest)) if runs => {
                    names.insert(rest.split('(').next().unwrap_or_default().to_owned());
                    runs = false;
                }
                _ => {}
            }
        }
    }
    names
}

#[test]
fn every_case_has_a_row_and_every_row_its_tests() {
    let table =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("CASES.md")).expect("a table");
    let tests = tests();
    let mut cases = Vec::new();
    for line in table.lines().filter(|line| line.starts_with("| EG-")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [case, _, state, named] = cells.as_slice() else { panic!("not a row: {line}") };
        let named: Vec<&str> = named.split('`').skip(1).step_by(2).collect();
        let missing: Vec<&&str> = named.iter().filter(|name| !tests.contains(**name)).collect();
        assert!(missing.is_empty(), "{case} names {missing:?}, which are no tests");
        let later = state.starts_with("later: ");
        assert!(later || *state == "done" || state.starts_with("part: "), "{case} is {state}");
        assert_eq!(named.is_empty(), later, "{case} is {state} and names {named:?}");
        cases.push((*case).to_owned());
    }
    let expected: Vec<String> = GROUPS
        .iter()
        .flat_map(|(group, count)| (1..=*count).map(move |number| format!("EG-{group}{number}")))
        .collect();
    assert_eq!(expected.len(), 82);
    assert_eq!(cases, expected);
}
