//! Small questions to words: where they end, what they mean without case and plural, how they are shortened.

/// Lower-case words, split at everything that is no letter or digit.
pub(crate) fn words(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect()
}

/// Collapses white space.
pub(crate) fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What must not stand before an ellipsis.
const LOOSE_ENDS: [char; 6] = [' ', ',', ';', ':', '–', '-'];

/// At most `chars_max` characters, cut after a word, with an ellipsis where something was cut.
pub(crate) fn shorten(text: &str, chars_max: usize) -> String {
    let text = text.trim();
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    let kept: String = text.chars().take(chars_max.saturating_sub(1)).collect();
    if text.chars().nth(chars_max.saturating_sub(1)).is_some_and(char::is_whitespace) {
        return format!("{}…", kept.trim_end_matches(LOOSE_ENDS));
    }
    let at_word = kept.rfind(char::is_whitespace).filter(|at| *at > kept.len() / 2).unwrap_or(kept.len());
    let (kept, _) = kept.split_at(at_word);
    format!("{}…", kept.trim_end_matches(LOOSE_ENDS))
}

/// With its first letter in upper case.
pub(crate) fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// `Q3 NVIDIA performance` → `q3-nvidia-performance`; `deck` where nothing is left.
pub(crate) fn slug(text: &str) -> String {
    let parts: Vec<String> = words(text).into_iter().filter(|word| word.is_ascii()).collect();
    let mut slug = String::new();
    for part in parts {
        if slug.len() + part.len() + 1 > 48 {
            break;
        }
        if !slug.is_empty() {
            slug.push('-');
        }
        slug.push_str(&part);
    }
    if slug.is_empty() { "deck".into() } else { slug }
}

/// A word for the shell.
pub(crate) fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// What comes after the first of `needles` (ASCII, given in lower case), looked for without regard to case; the
/// earliest in the text wins.
pub(crate) fn after_any<'a>(text: &'a str, needles: &[&str]) -> Option<&'a str> {
    needles
        .iter()
        .filter_map(|needle| Some((find(text, needle)?, needle.len())))
        .min()
        .map(|(at, len)| &text[at + len..])
}

/// What stands before the earliest of `needles`; all of it where none occurs.
pub(crate) fn before_any<'a>(text: &'a str, needles: &[&str]) -> &'a str {
    let cut = needles.iter().filter_map(|needle| find(text, needle)).min();
    &text[..cut.unwrap_or(text.len())]
}

/// Where an ASCII lower-case needle occurs, whatever the case of the text; a place where text may be cut.
pub(crate) fn find(text: &str, needle: &str) -> Option<usize> {
    // ASCII lower-casing keeps every byte in its place.
    text.to_ascii_lowercase().find(needle)
}

/// The last lines of an output, for a person.
pub(crate) fn tail(output: &str, lines_max: usize, chars_max: usize) -> String {
    let lines: Vec<&str> = output.trim_end().lines().collect();
    let shown = lines[lines.len().saturating_sub(lines_max)..].join("\n");
    let skip = shown.chars().count().saturating_sub(chars_max);
    shown.chars().skip(skip).collect()
}

/// The text of a file from the Read tool's numbered lines, and whether all of it is there. `None` when there are no
/// such lines, which is how an error looks.
pub(crate) fn unnumbered(result: &str) -> Option<(String, bool)> {
    let mut lines = Vec::new();
    let mut whole = true;
    for line in result.lines() {
        let numbered = line
            .split_once('\t')
            .and_then(|(number, text)| Some((number.trim().parse::<usize>().ok()?, text)));
        match numbered {
            Some((number, text)) if number == lines.len() + 1 => {
                whole &= !text.contains(" [line cut at character ");
                lines.push(text);
            }
            // How the text was read.
            _ if line.starts_with("[note: ") => {}
            // A gap or a marker: what follows does not join what came before.
            _ if !line.trim().is_empty() => {
                whole = false;
                break;
            }
            _ => {}
        }
    }
    (!lines.is_empty()).then(|| (lines.join("\n"), whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortening_keeps_words_and_the_bound() {
        assert_eq!(shorten("one two three", 40), "one two three");
        assert_eq!(shorten("one two three four", 12), "one two…");
        assert_eq!(shorten("ünverkürzbarlang", 5), "ünve…");
    }

    #[test]
    fn numbered_lines_become_a_file_again() {
        assert_eq!(unnumbered("     1\ta,b\n     2\t1,2\n"), Some(("a,b\n1,2".into(), true)));
        assert_eq!(unnumbered("     1\ta\n[… 9 bytes cut …]\n    40\tb"), Some(("a".into(), false)));
        assert_eq!(
            unnumbered("     1\ta [line cut at character 1 of 9; go on with offset=1 column=2]")
                .map(|(_, whole)| whole),
            Some(false)
        );
        assert_eq!(unnumbered("There is no file a.csv."), None);
    }

    #[test]
    fn slugs_and_quotes() {
        assert_eq!(slug("Q3 NVIDIA performance."), "q3-nvidia-performance");
        assert_eq!(slug("半導体"), "deck");
        assert_eq!(quoted("a b's"), "'a b'\\''s'");
        assert_eq!(after_any("Größe ON Time", &["on "]), Some("Time"));
    }
}
