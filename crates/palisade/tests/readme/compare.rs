//! Whether what was printed is what the page shows.

/// Compares line by line; the error says which line of the page was not found.
pub(crate) fn matches(page: &str, printed: &str) -> Result<(), String> {
    let page: Vec<String> = page.lines().map(plain).collect();
    let printed: Vec<String> = printed.lines().map(plain).collect();
    lines(&page, &printed)
}

fn lines(page: &[String], printed: &[String]) -> Result<(), String> {
    let Some((first, rest)) = page.split_first() else {
        return if printed.is_empty() {
            Ok(())
        } else {
            Err(format!("the page does not show {:?}", printed[0]))
        };
    };
    if first == "…" {
        let ends = (0..=printed.len()).map(|from| lines(rest, &printed[from..]));
        return ends.into_iter().reduce(|found, next| found.or(next)).unwrap_or(Ok(()));
    }
    match printed.split_first() {
        Some((line, others)) if is_like(first, line) => lines(rest, others),
        _ => Err(format!("the page shows {first:?}, which was not printed there")),
    }
}

/// A line of the page, in which `…` stands for anything.
fn is_like(page: &str, line: &str) -> bool {
    let mut pieces = page.split('…');
    let Some(mut rest) = line.strip_prefix(pieces.next().unwrap_or_default()) else { return false };
    let pieces: Vec<&str> = pieces.collect();
    for (at, piece) in pieces.iter().enumerate() {
        let is_last = at + 1 == pieces.len();
        if is_last {
            return rest.ends_with(piece);
        }
        let Some(found) = rest.find(piece) else { return false };
        rest = &rest[found + piece.len()..];
    }
    rest.is_empty()
}

/// Without what differs from run to run: numbers, ids, how wide a column is, and colours.
fn plain(line: &str) -> String {
    let mut plain = String::new();
    let without_ids = line.trim_end().split_inclusive(' ').map(|word| match word.strip_prefix("sess_") {
        Some(id) if id.trim_end().chars().all(|c| c.is_ascii_hexdigit()) => "sess_… ",
        _ => word,
    });
    let line: String = without_ids.collect();
    let mut rest = line.trim_end().chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' => while rest.next().is_some_and(|c| !c.is_ascii_alphabetic()) {},
            c if c.is_ascii_digit() => {
                while rest.next_if(|c| c.is_ascii_digit() || matches!(c, '.' | ',')).is_some() {}
                plain.push('0');
            }
            ' ' if plain.ends_with("  ") => {}
            c => plain.push(c),
        }
    }
    plain
}

#[test]
fn a_page_and_what_is_printed() {
    for (page, printed, expected) in [
        ("a\n", "a\n", true),
        ("a\n", "b\n", false),
        ("a\n", "a\nb\n", false),
        ("a\n…\n", "a\nb\nc\n", true),
        ("…\nc\n", "a\nb\nc\n", true),
        ("…\nc\n", "a\nb\n", false),
        ("key pk_…_x (…)\n", "key pk_abc_x (once)\n", true),
        ("key pk_…\n", "key sk_abc\n", false),
        ("took 4.3 s, 12,000 tokens\n", "took 12 s, 7 tokens\n", true),
        ("sess_f5f7  idle\n", "sess_0a1b  idle\n", true),
        ("", "surprise\n", false),
    ] {
        assert_eq!(matches(page, printed).is_ok(), expected, "{page:?} {printed:?}");
    }
}
