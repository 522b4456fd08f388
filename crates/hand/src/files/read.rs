//! `Read`: numbered lines of a text file.

use std::fmt::Write as _;
use std::path::Path;

use palisade_hand_protocol::{FILE_RESULT_TEXT_BYTES_MAX, Read};

use super::{Failure, Outcome, cut, read_bytes, resolve};

const LINES_DEFAULT: u64 = 2_000;
/// A longer line is cut, in characters.
const LINE_CHARS_MAX: usize = 2_000;
/// Room for the last line that says how to go on, in bytes.
const NOTE_BYTES: usize = 200;
/// A NUL so early means that the file is no text.
const BINARY_SNIFF_BYTES: usize = 8_192;

pub(super) fn read(read: &Read, workspace: &Path) -> Outcome {
    let path = resolve(&read.file_path, workspace)?;
    let bytes = read_bytes(&path)?;
    if let Some(kind) = binary_kind(&bytes) {
        return Err(Failure("file.binary", format!("{} is {kind}.", path.display())));
    }
    if bytes.is_empty() {
        return Ok(format!("{} is empty.", path.display()));
    }
    let text = String::from_utf8_lossy(&bytes);
    let first = read.offset.unwrap_or(1).max(1);
    let count = read.limit.unwrap_or(LINES_DEFAULT).max(1);
    Ok(number_lines(&text, first, count))
}

fn number_lines(text: &str, first: u64, count: u64) -> String {
    let total = text.lines().count() as u64;
    if first > total {
        return format!("The file has {total} lines; there is nothing from line {first} on.");
    }
    let mut shown = String::new();
    let mut next = first;
    let wanted = (1..).zip(text.lines()).skip_while(|(number, _)| *number < first);
    for (number, line) in wanted.take(usize::try_from(count).unwrap_or(usize::MAX)) {
        let line = cut_line(line);
        if shown.len() + line.len() + NOTE_BYTES > FILE_RESULT_TEXT_BYTES_MAX {
            break;
        }
        // Writing to a String cannot fail.
        let _ = writeln!(shown, "{number:>6}\t{line}");
        next = number + 1;
    }
    if next <= total {
        let _ = write!(shown, "[lines {first} to {} of {total}; go on with offset={next}]", next - 1);
    }
    shown
}

fn cut_line(line: &str) -> String {
    match line.char_indices().nth(LINE_CHARS_MAX) {
        None => line.to_owned(),
        Some((at, _)) => {
            let mut cut_line = line.to_owned();
            cut(&mut cut_line, at);
            format!("{cut_line} [line cut]")
        }
    }
}

/// What a file that is no text is, and what to use instead.
fn binary_kind(bytes: &[u8]) -> Option<&'static str> {
    const KNOWN: &[(&[u8], &str)] = &[
        (b"%PDF-", "a PDF document; use `pdftotext -layout FILE -` or `pdftoppm`"),
        (b"\x89PNG\r\n\x1a\n", "a PNG image; use `identify` or Python's PIL"),
        (b"\xff\xd8\xff", "a JPEG image; use `identify` or Python's PIL"),
        (b"GIF8", "a GIF image; use `identify` or Python's PIL"),
        (b"PK\x03\x04", "a ZIP container (or a docx, pptx or xlsx); use `unzip -l`, `markitdown` or Python"),
        (b"\x1f\x8b", "gzip data; use `zcat`"),
        (b"\x7fELF", "a program; use `file`"),
        (b"SQLite format 3\0", "a SQLite database; use Python's sqlite3"),
    ];
    if let Some((_, kind)) = KNOWN.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return Some(kind);
    }
    let head = &bytes[..bytes.len().min(BINARY_SNIFF_BYTES)];
    head.contains(&0).then_some("a binary file; use `file` and `xxd` in Bash")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_of(content: &[u8], offset: Option<u64>, limit: Option<u64>) -> Outcome {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("f"), content).unwrap();
        read(&Read { file_path: "f".into(), offset, limit }, folder.path())
    }

    #[test]
    fn lines_are_numbered_from_one() {
        assert_eq!(read_of(b"a\nb\n", None, None).unwrap(), "     1\ta\n     2\tb\n");
        assert_eq!(read_of(b"a\r\nb", Some(2), None).unwrap(), "     2\tb\n");
    }

    #[test]
    fn a_part_says_where_to_go_on() {
        let text = read_of(b"a\nb\nc\nd\n", Some(2), Some(2)).unwrap();
        assert_eq!(text, "     2\tb\n     3\tc\n[lines 2 to 3 of 4; go on with offset=4]");
        assert!(read_of(b"a\n", Some(9), None).unwrap().contains("has 1 lines"));
        assert!(read_of(b"", None, None).unwrap().contains("is empty"));
    }

    #[test]
    fn a_long_file_and_a_long_line_are_cut_and_say_so() {
        let text = read_of("x".repeat(5_000).as_bytes(), None, None).unwrap();
        assert!(text.len() < 2_100 && text.contains("[line cut]"));
        let text = read_of("0123456789\n".repeat(5_000).as_bytes(), None, None).unwrap();
        assert!(
            text.len() <= FILE_RESULT_TEXT_BYTES_MAX && text.contains("of 5000; go on with offset="),
            "{}",
            text.len()
        );
    }

    #[test]
    fn binary_files_are_named() {
        for (content, word) in
            [(&b"%PDF-1.7 x"[..], "pdftotext"), (b"\x89PNG\r\n\x1a\n", "PNG"), (b"a\0b", "binary")]
        {
            let Failure(code, message) = read_of(content, None, None).unwrap_err();
            assert!(code == "file.binary" && message.contains(word), "{message}");
        }
    }
}
