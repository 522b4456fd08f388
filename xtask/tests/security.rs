//! SECURITY.md keeps its word: every case has a row, every row names tests, and every test that it names is one.

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
    }

    /// Names of all functions under a test attribute in the workspace's crates.
    fn tests() -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        let mut folders = vec![root().join("crates"), root().join("xtask")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                let path = entry.path();
                if entry.file_type().unwrap().is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|it| it == "rs") {
                    collect(&std::fs::read_to_string(path).unwrap(), &mut names);
                }
            }
        }
        names
    }

    fn collect(source: &str, names: &mut BTreeSet<String>) {
        let (mut is_test, mut is_ignored) = (false, false);
        for line in source.lines().map(str::trim) {
            if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                (is_test, is_ignored) = (true, false);
            } else if line.starts_with("#[ignore") {
                is_ignored = true;
            } else if let Some((_, rest)) = line.split_once("fn ")
                && is_test
            {
                if !is_ignored {
                    names.insert(rest.split(['(', '<']).next().unwrap().to_owned());
                }
                is_test = false;
            }
        }
    }

    /// The rows of the table: case, and the last column.
    fn rows(text: &str) -> Vec<(String, Vec<String>, bool)> {
        let row = |line: &str| {
            let cells: Vec<&str> = line.strip_prefix("| ")?.trim_end_matches(" |").split(" | ").collect();
            let case = cells.first()?.trim();
            let is_case =
                case.len() == 3 && case.starts_with(['A', 'B', 'C', 'D']) && case[1..].parse::<u8>().is_ok();
            let named =
                line.split('|').nth_back(1)?.split('`').skip(1).step_by(2).map(str::to_owned).collect();
            is_case.then(|| (case.to_owned(), named, cells.get(2).is_some_and(|it| it.starts_with('—'))))
        };
        text.lines().filter_map(row).collect()
    }

    #[test]
    fn every_case_has_its_tests() {
        let text = std::fs::read_to_string(root().join("SECURITY.md")).unwrap();
        let (rows, tests) = (rows(&text), tests());
        let cases: Vec<&str> = rows.iter().map(|(case, ..)| case.as_str()).collect();
        for (group, count) in [('A', 21), ('B', 42), ('C', 11), ('D', 19)] {
            let expected: Vec<String> = (1..=count).map(|number| format!("{group}{number:02}")).collect();
            let found: Vec<&str> = cases.iter().copied().filter(|case| case.starts_with(group)).collect();
            assert_eq!(found, expected, "one row for each case, in order");
        }
        for (case, named, is_open) in &rows {
            assert_ne!(named.is_empty(), !is_open, "{case}: tests, or a reason why there are none");
            for name in named {
                assert!(tests.contains(name), "{case}: there is no test {name}");
            }
        }
    }

    #[test]
    fn every_test_of_a_case_is_in_its_row() {
        let text = std::fs::read_to_string(root().join("SECURITY.md")).unwrap();
        let rows = rows(&text);
        for test in tests() {
            let cases = test.split('_').map_while(|part| {
                let (group, number) = part.split_at_checked(1)?;
                let is_case = ["a", "b", "c", "d"].contains(&group)
                    && number.len() == 2
                    && number.parse::<u8>().is_ok();
                is_case.then(|| part.to_ascii_uppercase())
            });
            for case in cases {
                let row = rows.iter().find(|(it, ..)| *it == case);
                let (_, named, _) = row.unwrap_or_else(|| panic!("{test}: there is no case {case}"));
                assert!(named.contains(&test), "{case} does not name {test}");
            }
        }
    }

    #[test]
    fn every_row_of_fairness_names_its_tests() {
        let text = std::fs::read_to_string(root().join("SECURITY.md")).unwrap();
        let section = text.split("\n## ").find(|section| section.starts_with("Fairness")).unwrap();
        // Behind the head and the line below it.
        let rows: Vec<&str> = section.lines().filter(|line| line.starts_with("| ")).skip(2).collect();
        let tests = tests();
        assert!(rows.len() >= 10, "{rows:?}");
        for row in rows {
            let named: Vec<&str> =
                row.split('|').nth_back(1).unwrap().split('`').skip(1).step_by(2).collect();
            assert!(!named.is_empty(), "{row}");
            for name in named {
                assert!(tests.contains(name), "there is no test {name}: {row}");
            }
        }
    }

    #[test]
    fn what_is_no_test_is_not_found() {
        let mut names = BTreeSet::new();
        collect("#[test]\nfn one() {}\nfn two() {}\n#[test]\n#[ignore = \"x\"]\nfn three() {}\n", &mut names);
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["one"]);
        let table = "| A01 | x | y | `one` `two` |\n| B02 | x | — later | |\n| case | x | y | z |\n";
        let open = |case: &str, named: &[&str], is_open| {
            (case.to_owned(), named.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>(), is_open)
        };
        assert_eq!(rows(table), [open("A01", &["one", "two"], false), open("B02", &[], true)]);
    }
}
