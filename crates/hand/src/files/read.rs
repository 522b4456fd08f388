//! `Read`: numbered lines of a text file, and for what is no text the tool to use.

use std::fmt::Write as _;
use std::path::Path;

use palisade_hand_protocol::{FILE_RESULT_TEXT_BYTES_MAX, Read};

use super::text::{self, Text};
use super::{Failure, Outcome, paths, read_bytes};

const LINES_DEFAULT: u64 = 2_000;
/// Of a longer line that is not asked for by itself the rest is left out, in characters.
const LINE_CHARS_MAX: usize = 2_000;
/// Room for the lines that say how to go on, in bytes.
const NOTE_BYTES: usize = 800;

pub(super) fn read(read: &Read, workspace: &Path) -> Outcome {
    let found = paths::existing(&read.file_path, workspace)?;
    let bytes = read_bytes(&found.path)?;
    let Text { text, coding } = decoded(&bytes, &found.path)?;
    let mut shown = if text.is_empty() {
        format!("{} is empty.", found.path.display())
    } else {
        number_lines(&text::with_plain_ends(&text), read)
    };
    for note in [coding.note(), found.note].into_iter().flatten() {
        let newline = if shown.ends_with('\n') { "" } else { "\n" };
        let _ = write!(shown, "{newline}[note: {note}]");
    }
    Ok(shown)
}

/// The text of a file, or what to do with one that has none.
pub(super) fn decoded(bytes: &[u8], path: &Path) -> Result<Text, Failure> {
    let refused = |kind: &str| Failure("file.binary", format!("{} is {kind}.", path.display()));
    match known_kind(bytes) {
        Some(kind) => Err(refused(kind)),
        None => text::decode(bytes).ok_or_else(|| refused("a binary file; use `file` and `xxd` in Bash")),
    }
}

fn number_lines(text: &str, read: &Read) -> String {
    let total = text.lines().count() as u64;
    let first = match read.offset.unwrap_or(1) {
        from_the_end @ ..0 => total.saturating_sub(from_the_end.unsigned_abs()) + 1,
        first => first.unsigned_abs().max(1),
    };
    if first > total {
        return format!("The file has {total} lines; there is nothing from line {first} on.");
    }
    let count = if read.column.is_some() { 1 } else { read.limit.unwrap_or(LINES_DEFAULT).max(1) };
    let column = read.column.and_then(|column| usize::try_from(column).ok()).unwrap_or(1).max(1);
    let mut shown = String::new();
    let mut next = first;
    let wanted = (1..).zip(text.lines()).skip_while(|(number, _)| *number < first);
    for (number, line) in wanted.take(usize::try_from(count).unwrap_or(usize::MAX)) {
        let room = FILE_RESULT_TEXT_BYTES_MAX - NOTE_BYTES;
        let line = if count == 1 {
            part_of_line(line, number, column, usize::MAX, room)
        } else {
            part_of_line(line, number, column, LINE_CHARS_MAX, usize::MAX)
        };
        if shown.len() + line.len() + NOTE_BYTES / 2 > FILE_RESULT_TEXT_BYTES_MAX {
            break;
        }
        // Writing to a String cannot fail.
        let _ = writeln!(shown, "{number:>6}\t{line}");
        next = number + 1;
    }
    if next <= total && read.column.is_none() {
        let _ = write!(shown, "[lines {first} to {} of {total}; go on with offset={next}]", next - 1);
    }
    shown
}

/// The line from a character on, as far as it is shown; where that is not to its end, with the call that goes on.
fn part_of_line(line: &str, number: u64, column: usize, chars_max: usize, bytes_max: usize) -> String {
    let start = line.char_indices().nth(column - 1).map_or(line.len(), |(at, _)| at);
    let rest = &line[start..];
    if rest.is_empty() && column > 1 {
        return format!("[the line has {} characters]", line.chars().count());
    }
    let by_chars = rest.char_indices().nth(chars_max).map_or(rest.len(), |(at, _)| at);
    let end = rest.floor_char_boundary(by_chars.min(bytes_max));
    let part = text::shown(&rest[..end]);
    if end == rest.len() {
        return part.into_owned();
    }
    let last = column - 1 + rest[..end].chars().count();
    let total = line.chars().count();
    format!(
        "{part} [line cut at character {last} of {total}; go on with offset={number} column={}]",
        last + 1
    )
}

/// What a file that is no text is, and what to use instead.
pub(super) fn known_kind(bytes: &[u8]) -> Option<&'static str> {
    const KNOWN: &[(&[u8], &str)] = &[
        (b"%PDF-", "a PDF document; use `pdftotext -layout FILE -` or `pdftoppm`"),
        (b"\x89PNG\r\n\x1a\n", "a PNG image; use `identify` or Python's PIL"),
        (b"\xff\xd8\xff", "a JPEG image; use `identify` or Python's PIL"),
        (b"GIF8", "a GIF image; use `identify` or Python's PIL"),
        (b"II*\0", "a TIFF image; use `identify` or Python's PIL"),
        (b"MM\0*", "a TIFF image; use `identify` or Python's PIL"),
        (
            b"\xd0\xcf\x11\xe0",
            "an old Office document (doc, xls or ppt); convert it with `soffice --headless --convert-to`",
        ),
        (b"\x1f\x8b", "gzip data; use `zcat`"),
        (b"BZh", "bzip2 data; use `bzcat`"),
        (b"\xfd7zXZ\0", "xz data; use `xzcat`"),
        (b"\x28\xb5\x2f\xfd", "Zstandard data; use `zstdcat`"),
        (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive; use Python's py7zr or `bsdtar`"),
        (b"Rar!\x1a\x07", "a RAR archive; use `bsdtar`"),
        (b"\x7fELF", "a program; use `file`"),
        (b"SQLite format 3\0", "a SQLite database; use Python's sqlite3"),
        (b"PAR1", "a Parquet file; use Python's pandas or pyarrow"),
        (b"OggS", "an audio file; use `ffprobe`"),
        (b"ID3", "an audio file; use `ffprobe`"),
    ];
    if bytes.starts_with(b"PK\x03\x04") {
        return Some(zip_kind(bytes));
    }
    if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        return Some("a WebP image; use `identify` or Python's PIL");
    }
    KNOWN.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, kind)| *kind)
}

/// Office documents are ZIP containers, which the names of their first entries tell apart.
fn zip_kind(bytes: &[u8]) -> &'static str {
    const ENTRIES: &[(&str, &str)] = &[
        (
            "word/",
            "a Word document (docx); use python-docx, or `soffice --headless --convert-to pdf` and `pdftotext`",
        ),
        ("xl/", "an Excel workbook (xlsx); use Python's openpyxl or pandas"),
        ("ppt/", "a PowerPoint deck (pptx); use python-pptx"),
        (
            "mimetypeapplication/vnd.oasis",
            "an OpenDocument file; convert it with `soffice --headless --convert-to`",
        ),
        ("mimetypeapplication/epub", "an EPUB book; use `pandoc -t plain`"),
    ];
    let has = |name: &&(&str, &str)| memchr::memmem::find(bytes, name.0.as_bytes()).is_some();
    ENTRIES.iter().find(has).map_or("a ZIP archive; use `unzip -l` or Python's zipfile", |(_, kind)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_of(content: &[u8], offset: Option<u64>, limit: Option<u64>) -> Outcome {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("f"), content).unwrap();
        let offset = offset.map(|line| line as i64);
        read(&Read { file_path: "f".into(), offset, limit, column: None }, folder.path())
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
        let text = read_of(format!("{}\n", "x".repeat(5_000)).as_bytes(), None, None).unwrap();
        assert!(text.len() < 2_100 && text.contains("[line cut at character 2000 of 5000; "), "{text}");
        let text = read_of("0123456789\n".repeat(5_000).as_bytes(), None, None).unwrap();
        assert!(
            text.len() <= FILE_RESULT_TEXT_BYTES_MAX && text.contains("of 5000; go on with offset="),
            "{}",
            text.len()
        );
    }

    /// What a model does that follows what is said.
    #[test]
    fn a_line_of_any_length_can_be_read_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let line: String = (0..100_000).map(|at| if at % 7 == 0 { 'é' } else { 'x' }).collect();
        std::fs::write(folder.path().join("f"), format!("first\n{line}\nlast\n")).unwrap();
        let shown = |column: Option<u64>, limit| {
            let request = Read { file_path: "f".into(), offset: Some(2), limit, column };
            read(&request, folder.path()).unwrap()
        };
        let (mut whole, mut column, mut calls) = (String::new(), None, 0);
        loop {
            let text = shown(column, None);
            assert!(text.len() <= FILE_RESULT_TEXT_BYTES_MAX);
            let part = text.lines().next().unwrap().strip_prefix("     2\t").unwrap();
            calls += 1;
            let Some((part, mark)) = part.split_once(" [line cut at character ") else {
                whole.push_str(part);
                break;
            };
            whole.push_str(part);
            let next = mark.split_once("column=").unwrap().1.trim_end_matches(']');
            column = Some(next.parse().unwrap());
        }
        assert!(whole == line && calls < 8, "{} characters in {calls} calls", whole.chars().count());
        assert_eq!(shown(Some(100_001), None), "     2\t[the line has 100000 characters]\n");
        assert!(shown(None, Some(1)).len() > 20_000, "one line asked for is shown as far as there is room");
    }

    #[test]
    fn the_end_of_a_file_is_counted_from_its_end() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("f"), "a\nb\nc\n").unwrap();
        for (offset, expected) in
            [(-1, "     3\tc\n"), (-2, "     2\tb\n     3\tc\n"), (-9, "     1\ta\n     2\tb\n     3\tc\n")]
        {
            let request = Read { file_path: "f".into(), offset: Some(offset), ..Read::default() };
            assert_eq!(read(&request, folder.path()).unwrap(), expected);
        }
    }

    #[test]
    fn text_of_other_codings_is_decoded_and_named() {
        for (content, expected) in [
            (&b"\xef\xbb\xbfa\r\nb\n"[..], "     1\ta\n     2\tb\n"),
            (b"old\rends\r", "     1\told\n     2\tends\n"),
            (b"\xff\xfea\0\n\0b\0", "     1\ta\n     2\tb\n[note: the file is UTF-16LE text, decoded here]"),
            (b"caf\xe9 au lait", "     1\tcafé au lait\n[note: the file is windows-1252 text, decoded here]"),
            (b"one NUL\0 in a text", "     1\tone NUL\u{2400} in a text\n"),
        ] {
            assert_eq!(read_of(content, None, None).unwrap(), expected);
        }
    }

    #[test]
    fn binary_files_are_named() {
        for (content, word) in [
            (&b"%PDF-1.7 x"[..], "pdftotext"),
            (b"\x89PNG\r\n\x1a\n", "PNG"),
            (b"a\0b", "binary"),
            (b"PK\x03\x04....xl/workbook.xml", "openpyxl"),
            (b"PK\x03\x04....word/document.xml", "docx"),
            (b"PK\x03\x04....a.txt", "unzip"),
            (b"\xd0\xcf\x11\xe0\xa1\xb1", "soffice"),
        ] {
            let Failure(code, message) = read_of(content, None, None).unwrap_err();
            assert!(code == "file.binary" && message.contains(word), "{message}");
        }
    }
}
