//! `Edit`: exact replacements in a text file, all of them or none. What is not replaced stays as it is to the byte.

use std::ops::Range;
use std::path::Path;

use palisade_hand_protocol::{Edit, Replacement};

use super::line_ends::{Plain, as_in};
use super::write::{not_in_coding, replace};
use super::{Failure, Outcome, differ, paths, read, read_bytes};

/// Lines that are named where a text occurs more than once.
const LINES_NAMED_MAX: usize = 20;

pub(super) fn edit(edit: &Edit, workspace: &Path) -> Outcome {
    let found = paths::existing(&edit.file_path, workspace)?;
    let path = &found.path;
    let decoded = read::decoded(&read_bytes(path)?, path)?;
    let mut text = decoded.text;
    let mut total = 0;
    for (at, replacement) in edit.edits.iter().enumerate() {
        let one = replaced(&text, replacement).map_err(|Failure(code, what)| {
            let which = if edit.edits.len() > 1 { format!("edits[{at}]: ") } else { String::new() };
            let nothing = if edit.edits.len() > 1 { " Nothing was changed." } else { "" };
            Failure(code, format!("{}: {which}{what}{nothing}", path.display()))
        });
        let (changed, count) = one?;
        (text, total) = (changed, total + count);
    }
    let bytes = decoded.coding.encode(&text).map_err(|c| not_in_coding(path, decoded.coding, c))?;
    let done = replace(path, &bytes)?;
    let times = if total == 1 { "1 occurrence".to_owned() } else { format!("{total} occurrences") };
    let notes = [done.note, found.note].into_iter().flatten().map(|note| format!("\n[note: {note}]"));
    Ok(format!("Replaced {times} in {}.{}", path.display(), notes.collect::<String>()))
}

/// The text after one replacement, and how often it was made.
fn replaced(text: &str, edit: &Replacement) -> Result<(String, usize), Failure> {
    let refuse = |code, message: &str| Err(Failure(code, message.to_owned()));
    if edit.old_string.is_empty() {
        return refuse("edit.empty", "old_string is empty; use Write to make a file.");
    }
    if edit.old_string == edit.new_string {
        return refuse("edit.no_change", "old_string and new_string are the same.");
    }
    // Who writes a CR means it.
    let is_raw = edit.old_string.contains('\r') && text.contains(&edit.old_string);
    let plain = Plain::of(text);
    let spots: Vec<Range<usize>> = if is_raw {
        spots(text, &edit.old_string).collect()
    } else {
        let old = edit.old_string.replace("\r\n", "\n");
        spots(&plain.text, &old).map(|spot| plain.raw(spot)).collect()
    };
    match spots.as_slice() {
        [] => Err(Failure("edit.no_match", differ::explain(&plain.text, &edit.old_string))),
        [_, _, ..] if !edit.replace_all => Err(Failure("edit.many_matches", many(text, &spots))),
        spots => {
            let mut changed = String::with_capacity(text.len());
            let mut kept = 0;
            for spot in spots {
                changed.push_str(&text[kept..spot.start]);
                changed.push_str(&if is_raw {
                    edit.new_string.clone()
                } else {
                    as_in(&edit.new_string, text, spot.clone())
                });
                kept = spot.end;
            }
            changed.push_str(&text[kept..]);
            Ok((changed, spots.len()))
        }
    }
}

fn spots<'a>(text: &'a str, old: &'a str) -> impl Iterator<Item = Range<usize>> + 'a {
    text.match_indices(old).map(|(at, found)| at..at + found.len())
}

fn many(text: &str, spots: &[Range<usize>]) -> String {
    let (mut line, mut counted) = (1, 0);
    let mut lines = Vec::new();
    for spot in spots.iter().take(LINES_NAMED_MAX) {
        line += text[counted..spot.start].matches('\n').count();
        counted = spot.start;
        lines.push(line.to_string());
    }
    let more = if spots.len() > LINES_NAMED_MAX { ", …" } else { "" };
    format!(
        "old_string occurs {} times, at lines {}{more}; give more of the text around it, or set replace_all to replace all.",
        spots.len(),
        lines.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited_bytes(
        text: &[u8],
        old: &str,
        new: &str,
        replace_all: bool,
    ) -> Result<Vec<u8>, (&'static str, String)> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        std::fs::write(&path, text).unwrap();
        let one = Replacement { old_string: old.into(), new_string: new.into(), replace_all };
        let outcome = edit(&Edit { file_path: "f".into(), edits: vec![one] }, folder.path());
        let after = std::fs::read(&path).unwrap();
        match outcome {
            Ok(_) => Ok(after),
            Err(Failure(code, message)) => {
                assert_eq!(after, text, "a refused edit changes nothing");
                Err((code, message))
            }
        }
    }

    fn edited(text: &str, old: &str, new: &str, replace_all: bool) -> Result<String, &'static str> {
        let outcome = edited_bytes(text.as_bytes(), old, new, replace_all);
        outcome.map(|bytes| String::from_utf8(bytes).unwrap()).map_err(|(code, _)| code)
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
        let (_, message) = edited_bytes(b"b\nx\nb\r\nb", "b", "c", false).unwrap_err();
        assert!(message.contains("occurs 3 times, at lines 1, 3, 4;"), "{message}");
    }

    #[test]
    fn line_ends_stay_what_they_are() {
        for (text, old, new, expected) in [
            ("a\r\nb\r\n", "a\nb", "x\ny\nz", "x\r\ny\r\nz\r\n"),
            ("a\r\nb\n", "b\n", "c\n", "a\r\nc\n"),
            ("a\r\nb\nc\r\n", "a\nb\nc", "x\ny\nz", "x\r\ny\nz\r\n"),
            ("a\r\nb\nc\r\n", "b", "x\ny", "a\r\nx\ny\nc\r\n"),
            ("a\nb\r\nc\r\nd", "c", "x\ny", "a\nb\r\nx\r\ny\r\nd"),
            ("a\r\nb", "b", "x\ny", "a\r\nx\r\ny"),
            ("a\rb\rc", "a\nb", "x\ny\nz", "x\ry\rz\rc"),
            ("a\r\nb\r\n", "a\r\nb", "x\r\ny", "x\r\ny\r\n"),
            // Who writes the ends changes them.
            ("a\r\nb\r\n", "a\r\n", "a\n", "a\nb\r\n"),
            ("50%\r100%\nend\n", "end", "done", "50%\r100%\ndone\n"),
        ] {
            assert_eq!(edited(text, old, new, false), Ok(expected.into()), "{text:?} {old:?} {new:?}");
        }
        assert_eq!(edited("a\r\nb\na\nb\n", "a\nb", "c", true), Ok("c\nc\n".into()));
    }

    #[test]
    fn the_coding_stays_what_it_is() {
        let utf_16 = |text: &str| -> Vec<u8> {
            b"\xff\xfe".iter().copied().chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect()
        };
        for (text, old, new, expected) in [
            (b"\xef\xbb\xbfa b".to_vec(), "a", "c", b"\xef\xbb\xbfc b".to_vec()),
            (utf_16("caf\u{e9}\r\n"), "caf\u{e9}\n", "th\u{e9}\n", utf_16("th\u{e9}\r\n")),
            (
                b"d\xe9j\xe0 vu, caf\xe9".to_vec(),
                "caf\u{e9}",
                "\u{e9}t\u{e9}",
                b"d\xe9j\xe0 vu, \xe9t\xe9".to_vec(),
            ),
            (b"caf\xc3\xa9 \xff end".to_vec(), "end", "fin", b"caf\xc3\xa9 \xff fin".to_vec()),
            (b"a\0b and much more text".to_vec(), "more", "less", b"a\0b and much less text".to_vec()),
        ] {
            assert_eq!(edited_bytes(&text, old, new, false), Ok(expected), "{text:?}");
        }
        let (code, message) = edited_bytes(b"d\xe9j\xe0 vu, caf\xe9", "vu", "\u{1f600}", false).unwrap_err();
        assert!(code == "file.not_in_coding" && message.contains("U+1F600"), "{code} {message}");
        assert_eq!(edited_bytes(b"\x7fELF\x01\0\0", "E", "F", false).unwrap_err().0, "file.binary");
    }

    #[test]
    fn several_edits_are_made_together_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        std::fs::write(&path, "one two").unwrap();
        let one = |old: &str, new: &str| Replacement {
            old_string: old.into(),
            new_string: new.into(),
            replace_all: false,
        };
        let all = |edits: Vec<Replacement>| edit(&Edit { file_path: "f".into(), edits }, folder.path());
        let Failure(code, message) = all(vec![one("one", "1"), one("three", "3")]).unwrap_err();
        assert!(
            code == "edit.no_match"
                && message.contains("edits[1]")
                && message.ends_with("Nothing was changed.")
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one two");
        all(vec![one("one", "1"), one("1 two", "1 2")]).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1 2");
    }
}
