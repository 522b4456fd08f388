//! Which skill of the catalog fits the user's words. No skill's name is known here: only what documents are
//! called.

use crate::text::words;

/// One entry between `<skills>` and `</skills>` of the system prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) description: String,
}

/// Words for the same kind of document; the first group is the one that the planner can make itself.
pub(crate) const KINDS: [&[&str]; 5] = [
    &[
        "deck",
        "decks",
        "ppt",
        "pptx",
        "powerpoint",
        "slides",
        "slide",
        "slideshow",
        "presentation",
        "keynote",
        "pitch",
        "qbr",
    ],
    &["pdf", "brochure"],
    &["docx", "document", "letter", "report", "memo", "word"],
    &["xlsx", "spreadsheet", "workbook", "excel"],
    &["resume", "cv", "résumé"],
];

/// Below it a likeness is chance: one word of a description in common.
const SCORE_MIN: usize = 2;

/// The catalog of a system prompt.
pub(crate) fn entries(system: &str) -> Vec<Entry> {
    let Some((_, rest)) = system.split_once("<skills>") else { return Vec::new() };
    let (list, _) = rest.split_once("</skills>").unwrap_or((rest, ""));
    list.lines()
        .filter_map(|line| line.trim().strip_prefix("- ")?.split_once(':'))
        .map(|(name, description)| Entry { name: name.trim().into(), description: description.trim().into() })
        .collect()
}

/// The entry that fits best; the earlier one of two alike.
pub(crate) fn choose<'a>(entries: &'a [Entry], request: &str) -> Option<&'a Entry> {
    let asked = words(request);
    let mut best: Option<(usize, &Entry)> = None;
    for entry in entries {
        let score = score(entry, &asked);
        if score >= SCORE_MIN && best.is_none_or(|(most, _)| score > most) {
            best = Some((score, entry));
        }
    }
    best.map(|(_, entry)| entry)
}

fn score(entry: &Entry, asked: &[String]) -> usize {
    let (name, description) = (words(&entry.name), words(&entry.description));
    let mut score = 0;
    for kind in KINDS.iter().filter(|kind| asked.iter().any(|word| kind.contains(&word.as_str()))) {
        if name.iter().any(|word| kind.contains(&word.as_str())) {
            score += 5;
        }
        score += kind.iter().filter(|noun| description.iter().any(|word| word == *noun)).count();
    }
    // A tenant's own skill may be for a kind of document that has no group here.
    score + 3 * name.iter().filter(|word| word.chars().count() > 3 && asked.contains(word)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYSTEM: &str = "Text.\n<skills>\n- pdf-maker: Makes PDF files and brochures, also from a deck.\n\
        - slide-smith: Builds a slide deck or a presentation (PPTX) from a report.\n- invoice-desk: Bills.\n</skills>\nMore.";

    #[test]
    fn the_choice_follows_the_words() {
        let entries = entries(SYSTEM);
        assert_eq!(entries.len(), 3);
        for (request, expected) in [
            ("Build a PPT on tea", Some("slide-smith")),
            ("make slides about tea", Some("slide-smith")),
            ("a PDF please", Some("pdf-maker")),
            ("write an invoice", Some("invoice-desk")),
            ("write a report", None),
            ("what is the capital of France?", None),
        ] {
            assert_eq!(choose(&entries, request).map(|entry| entry.name.as_str()), expected, "{request}");
        }
    }
}
