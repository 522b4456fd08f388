//! `Edit`: one exact replacement in a text file, or none at all.

use std::path::Path;

use palisade_hand_protocol::Edit;

use super::write::replace;
use super::{Failure, Outcome, read_bytes, resolve};

pub(super) fn edit(edit: &Edit, workspace: &Path) -> Outcome {
    let path = resolve(&edit.file_path, workspace)?;
    let refuse = |code, message: &str| Err(Failure(code, format!("{}: {message}", path.display())));
    if edit.old_string.is_empty() {
        return refuse("edit.empty", "old_string is empty; use Write to make a file.");
    }
    if edit.old_string == edit.new_string {
        return refuse("edit.no_change", "old_string and new_string are the same.");
    }
    let Ok(text) = String::from_utf8(read_bytes(&path)?) else {
        return refuse("file.binary", "the file is not UTF-8 text.");
    };
    let (old, new) = in_the_files_line_ends(edit, &text);
    match text.matches(&old).count() {
        0 => {
            refuse("edit.no_match", "old_string does not occur; it must match exactly, white space included.")
        }
        1 => save(&path, &text.replacen(&old, &new, 1), 1),
        count if edit.replace_all => save(&path, &text.replace(&old, &new), count),
        count => {
            let message = format!(
                "old_string occurs {count} times; give more of the text around it, or set replace_all to replace all."
            );
            refuse("edit.many_matches", &message)
        }
    }
}

fn save(path: &Path, text: &str, count: usize) -> Outcome {
    replace(path, text.as_bytes())?;
    let times = if count == 1 { "1 occurrence".to_owned() } else { format!("{count} occurrences") };
    Ok(format!("Replaced {times} in {}.", path.display()))
}

/// `Read` shows lines without their ends, so a model writes LF; in a file of CRLF lines CRLF is meant.
fn in_the_files_line_ends(edit: &Edit, text: &str) -> (String, String) {
    let lone = text.matches('\n').count() - text.matches("\r\n").count();
    let is_crlf = lone == 0 && text.contains("\r\n");
    if is_crlf && !edit.old_string.contains('\r') {
        (edit.old_string.replace('\n', "\r\n"), edit.new_string.replace("\r\n", "\n").replace('\n', "\r\n"))
    } else {
        (edit.old_string.clone(), edit.new_string.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(text: &str, old: &str, new: &str, replace_all: bool) -> Result<String, &'static str> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        std::fs::write(&path, text).unwrap();
        let request =
            Edit { file_path: "f".into(), old_string: old.into(), new_string: new.into(), replace_all };
        let outcome = edit(&request, folder.path());
        let after = std::fs::read_to_string(&path).unwrap();
        match outcome {
            Ok(_) => Ok(after),
            Err(Failure(code, _)) => {
                assert_eq!(after, text, "a refused edit changes nothing");
                Err(code)
            }
        }
    }

    #[test]
    fn a_match_must_be_exact_and_unique() {
        for (text, old, new, all, expected) in [
            ("a b", "b", "c", false, Ok("a c")),
            ("b b", "b", "c", true, Ok("c c")),
            ("b b", "b", "c", false, Err("edit.many_matches")),
            ("a", "b", "c", false, Err("edit.no_match")),
            ("a", "", "c", false, Err("edit.empty")),
            ("a", "a", "a", false, Err("edit.no_change")),
            ("a", "a", "", false, Ok("")),
        ] {
            assert_eq!(edited(text, old, new, all), expected.map(str::to_owned), "{text:?} {old:?}");
        }
    }

    #[test]
    fn line_ends_stay_what_they_are() {
        assert_eq!(edited("a\r\nb\r\n", "a\nb", "x\ny\nz", false), Ok("x\r\ny\r\nz\r\n".into()));
        assert_eq!(edited("a\r\nb\n", "b\n", "c\n", false), Ok("a\r\nc\n".into()));
    }
}
