//! Patterns of file names as models write them: several with commas, some to be left out, and names that only look like
//! patterns, such as the folder `[id]`.

use std::path::Path;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::Failure;
use super::characters::composed_cow;

/// Which files are meant.
pub(super) struct Filter {
    wanted: GlobSet,
    unwanted: GlobSet,
    wants_all: bool,
    /// Why a pattern was taken for a name only.
    pub(super) wrong: Option<String>,
}

/// Where a pattern without a folder looks.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Depth {
    /// In the folder of the search only.
    Here,
    /// In every folder below it.
    Any,
}

impl Filter {
    /// `base` is the folder of the search; a pattern may begin with it.
    pub(super) fn parse(text: &str, base: &Path, depth: Depth) -> Result<Self, Failure> {
        let (mut wanted, mut unwanted) = (GlobSetBuilder::new(), GlobSetBuilder::new());
        let (mut wants_all, mut wrong) = (true, None);
        for part in parts(text) {
            let (set, pattern) = match part.strip_prefix('!') {
                // What is left out is left out at any depth, like in every list of what to ignore.
                Some(pattern) => (&mut unwanted, rooted(pattern, base, Depth::Any)),
                None => (&mut wanted, rooted(part, base, depth)),
            };
            wants_all &= part.starts_with('!');
            let is_folder_meant = depth == Depth::Any || part.starts_with('!');
            wrong = wrong.or(add(set, &pattern)?);
            if is_folder_meant {
                add(set, &format!("{}/**", pattern.trim_end_matches('/')))?;
            }
        }
        let build = |set: GlobSetBuilder| set.build().map_err(|e| bad_pattern(&e));
        Ok(Self { wanted: build(wanted)?, unwanted: build(unwanted)?, wants_all, wrong })
    }

    /// Whether a path, relative to the folder of the search, is meant.
    pub(super) fn is_match(&self, relative: &Path) -> bool {
        let name = composed_cow(relative.to_string_lossy());
        let path = Path::new(name.as_ref());
        (self.wants_all || self.wanted.is_match(path)) && !self.unwanted.is_match(path)
    }
}

fn bad_pattern(error: &globset::Error) -> Failure {
    Failure("glob.bad_pattern", format!("The pattern is not valid: {error}."))
}

/// Commas separate patterns but for those within braces; so do blanks where each part is plainly a pattern.
fn parts(text: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    let split = text.split(move |c: char| {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    });
    let is_pattern = |part: &str| part.starts_with('!') || part.contains('*');
    split
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .flat_map(|part| match part.split_whitespace().all(is_pattern) && !part.contains('{') {
            true => part.split_whitespace().collect(),
            false => vec![part],
        })
        .collect()
}

fn rooted(pattern: &str, base: &Path, depth: Depth) -> String {
    let below_base = Path::new(pattern).strip_prefix(base).ok().and_then(Path::to_str);
    let is_absolute = pattern.starts_with('/');
    let pattern = below_base.unwrap_or(pattern).trim_start_matches('/');
    let pattern = pattern.strip_prefix("./").unwrap_or(pattern);
    let has_folder = pattern.trim_end_matches('/').contains('/') || is_absolute;
    let pattern = composed_cow(pattern.into()).into_owned();
    if depth == Depth::Here || has_folder { pattern } else { format!("**/{pattern}") }
}

/// A pattern with brackets or braces may be a name that has them: it is taken both ways. The answer is what is wrong with it as
/// a pattern.
fn add(set: &mut GlobSetBuilder, pattern: &str) -> Result<Option<String>, Failure> {
    let escaped = |special: &[char]| {
        let escape = |c: char| if special.contains(&c) { format!("[{c}]") } else { c.to_string() };
        pattern.chars().map(escape).collect::<String>()
    };
    let names = [escaped(&['[', ']']), escaped(&['[', ']', '{', '}'])];
    let mut wrong = None;
    for way in std::iter::once(pattern).chain(names.iter().map(String::as_str).filter(|way| *way != pattern))
    {
        match GlobBuilder::new(way).literal_separator(true).build() {
            Ok(glob) => {
                set.add(glob);
            }
            Err(error) if way == pattern && names[1] == pattern => return Err(bad_pattern(&error)),
            Err(error) if way == pattern => wrong = Some(error.kind().to_string()),
            // Only one of its kinds of brackets is part of a name.
            Err(_) => {}
        }
    }
    Ok(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_models_mean() {
        for (text, meant, not_meant) in [
            ("*.py", vec!["a.py", "d/e/a.py"], vec!["a.pyc", "py"]),
            ("*.py,*.js", vec!["a.py", "d/a.js"], vec!["a.ts"]),
            ("*.py, *.js", vec!["a.py", "a.js"], vec!["a.ts"]),
            ("*.py *.js", vec!["a.py", "a.js"], vec!["a.ts"]),
            ("*.{ts,tsx}", vec!["a.ts", "d/a.tsx"], vec!["a.js"]),
            ("*.{ts,tsx},*.js", vec!["a.ts", "a.js"], vec!["a.py"]),
            ("!*.js", vec!["a.py"], vec!["a.js", "d/a.js"]),
            ("*.js,!*.min.js", vec!["a.js"], vec!["a.min.js", "a.py"]),
            ("!node_modules", vec!["a.js"], vec!["node_modules/x/a.js", "d/node_modules/a.js"]),
            ("!node_modules/", vec!["a.js"], vec!["node_modules/x/a.js"]),
            ("!**/test/**", vec!["a.js"], vec!["test/a.js", "d/test/e/a.js"]),
            ("docs", vec!["docs/a", "d/docs/e/a"], vec!["a"]),
            ("src/**/*.py", vec!["src/a.py", "src/d/a.py"], vec!["a.py", "d/src/a.py"]),
            ("/src/*.py", vec!["src/a.py"], vec!["d/src/a.py"]),
            ("./src/*.py", vec!["src/a.py"], vec!["a.py"]),
            ("/base/src/*.py", vec!["src/a.py"], vec!["a.py"]),
            ("app/[id]/*.tsx", vec!["app/[id]/page.tsx", "app/i/page.tsx"], vec!["app/x/page.tsx"]),
            ("app/[[...slug]]/*.{ts,tsx}", vec!["app/[[...slug]]/a.ts"], vec!["app/x/a.ts"]),
            ("{{name}}/*.py", vec!["{{name}}/a.py"], vec!["x/a.py"]),
            ("[ab].txt", vec!["a.txt", "[ab].txt"], vec!["c.txt"]),
            ("My File*.txt", vec!["My File 1.txt"], vec!["My", "File1.txt"]),
            ("caf\u{e9}.txt", vec!["cafe\u{301}.txt", "caf\u{e9}.txt"], vec!["cafe.txt"]),
        ] {
            let filter = Filter::parse(text, Path::new("/base"), Depth::Any).unwrap();
            for path in meant {
                assert!(filter.is_match(Path::new(path)), "{text} does not mean {path}");
            }
            for path in not_meant {
                assert!(!filter.is_match(Path::new(path)), "{text} means {path}");
            }
        }
        let name = Filter::parse("a{b", Path::new("/"), Depth::Any).unwrap();
        assert!(name.is_match(Path::new("a{b")) && name.wrong.is_some(), "a name may have one brace");
    }
}
