//! A document as the user's words describe it: topic, audience, figures, files. Only what stands there is taken.

use crate::catalog::KINDS;
use crate::figures::{self, Figures};
use crate::mentions::{files, split_outline, without_files};
use crate::text::{after_any, before_any, find, one_line, shorten, words};
use crate::wish::MAKE;

/// A document as the words describe it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Brief {
    pub(crate) request: String,
    pub(crate) topic: Option<String>,
    pub(crate) style: Option<String>,
    pub(crate) audience: Option<String>,
    pub(crate) slides_wanted: Option<usize>,
    pub(crate) subtopics: Vec<String>,
    pub(crate) figures: Vec<Figures>,
    /// An outline that stands in the message itself.
    pub(crate) outline: Option<String>,
    /// Files to read.
    pub(crate) files: Vec<String>,
    /// Files that are named and that the planner cannot read.
    pub(crate) unreadable: Vec<String>,
    /// Where the deck is wanted.
    pub(crate) output: Option<String>,
    pub(crate) accent: Option<String>,
}

const SUBTOPICS_MAX: usize = 8;
const SLIDES_WANTED_MAX: usize = 60;

/// Reads a request for a document.
pub(crate) fn read(request: &str) -> Brief {
    let (head, outline) = split_outline(request);
    let (files, unreadable, output) = files(head);
    // A new paragraph begins a new sentence: what was uploaded is no part of the topic above it.
    let paragraphs: Vec<String> = without_files(head)
        .replace('\r', "")
        .split("\n\n")
        .map(|paragraph| one_line(paragraph).trim_end_matches(['.', '!', '?', ' ']).to_owned())
        .filter(|paragraph| !paragraph.is_empty())
        .collect();
    let bare = paragraphs.join(". ");
    let bare = bare.as_str();
    let figures = figures::parse(&without_files(request));
    let topic = topic(bare, !figures.is_empty()).map(|topic| shorten(&topic, 120));
    Brief {
        request: one_line(request),
        topic,
        style: style(head),
        audience: audience(bare),
        slides_wanted: slides_wanted(bare),
        subtopics: if figures.is_empty() { subtopics(bare) } else { Vec::new() },
        outline: outline.filter(|_| figures.is_empty()).map(str::to_owned),
        figures,
        files,
        unreadable,
        output,
        accent: accent(head),
    }
}

/// Where the first word for a document stands: start and end, in bytes.
fn noun(bare: &str) -> Option<(usize, usize)> {
    let mut start = None;
    for (at, c) in bare.char_indices().chain([(bare.len(), ' ')]) {
        match (c.is_alphanumeric(), start) {
            (true, None) => start = Some(at),
            (false, Some(from)) => {
                let word = bare[from..at].to_lowercase();
                // "slide deck", "pitch deck": the last of them.
                let next =
                    bare[at..].trim_start_matches([' ', '-']).split(|c: char| !c.is_alphanumeric()).next();
                let is = |word: &str| KINDS.iter().any(|kind| kind.contains(&word));
                if is(&word) && !next.is_some_and(|next| is(&next.to_lowercase())) {
                    return Some((from, at));
                }
                start = None;
            }
            _ => {}
        }
    }
    None
}

const TOPIC_ENDS: [&str; 26] = [
    ". ",
    "; ",
    "? ",
    "! ",
    " with ",
    " including ",
    " covering ",
    " using ",
    " based on ",
    ", based",
    " and save",
    ", save",
    " save it",
    " in the style",
    " showing ",
    " for the ",
    " for our ",
    " for my ",
    " as a ",
    " with: ",
    " from ",
    ", for ",
    " in ember",
    " and call ",
    " and add ",
    ", covering",
];

fn topic(bare: &str, has_figures: bool) -> Option<String> {
    if let Some(titled) = quoted_after(bare, &["titled ", "entitled ", "called ", "with the title "]) {
        return Some(titled);
    }
    let (start, end) = noun(bare)?;
    let after = &bare[end..];
    let said = after_any(after, &[" on ", " about ", " regarding ", " explaining ", " introducing "])
        .or_else(|| {
            after_any(after, &[" of ", " for "])
                .filter(|rest| !starts_with_any(rest, &["the ", "our ", "my ", "a "]))
        })
        .filter(|rest| !rest.trim().is_empty());
    let topic = match said {
        Some(said) => before_any(said, &TOPIC_ENDS),
        // "an NVIDIA Q3 deck"
        None => between_verb_and_noun(&bare[..start]),
    };
    let topic = if has_figures { before_figures(topic) } else { topic };
    let mut topic = without_slide_count(topic);
    loop {
        topic = topic.trim_matches(|c: char| c.is_whitespace() || ",;:.–-\"'".contains(c));
        // What a file's name left behind.
        let shorter = topic.rsplit_once(' ').filter(|(_, last)| {
            ["from", "using", "with", "in", "and", "into", "of", "for", "as"]
                .contains(&last.to_lowercase().as_str())
        });
        let Some((kept, _)) = shorter else { break };
        topic = kept;
    }
    (!topic.is_empty()).then(|| topic.to_owned())
}

fn starts_with_any(text: &str, starts: &[&str]) -> bool {
    starts.iter().any(|start| find(text, start) == Some(0))
}

fn quoted_after(text: &str, needles: &[&str]) -> Option<String> {
    let rest = after_any(text, needles)?;
    let rest = rest.strip_prefix(['"', '“', '\''])?;
    let (title, _) = rest.split_once(['"', '”', '\''])?;
    let title = title.trim();
    (!title.is_empty()).then(|| title.to_owned())
}

fn between_verb_and_noun(text: &str) -> &str {
    let mut rest = text.trim();
    loop {
        let Some(word) = rest.split_whitespace().next() else { return rest };
        let lower = word.to_lowercase();
        let filler = [
            "a", "an", "the", "me", "us", "please", "can", "could", "would", "you", "i", "we", "into",
            "short", "quick", "simple", "small", "new", "nice", "good", "my", "our", "brief", "long",
            "slide", "it", "this", "to", "like",
        ];
        let number_of_slides = lower.starts_with(|c: char| c.is_ascii_digit());
        if filler.contains(&lower.as_str())
            || MAKE.contains(&lower.as_str())
            || number_of_slides
            || lower.ends_with("-style")
        {
            rest = rest[word.len()..].trim_start();
        } else {
            return rest;
        }
    }
}

/// "revenue 10, 12, 15" → "revenue": the figures get slides of their own.
fn before_figures(topic: &str) -> &str {
    let mut end = 0;
    for word in topic.split_inclusive(' ') {
        if word.starts_with(|c: char| c.is_ascii_digit() || "$€£".contains(c)) {
            break;
        }
        end += word.len();
        if word.trim_end().ends_with([':', '=']) {
            break;
        }
    }
    let kept = topic[..end].trim();
    // "revenue: Q1: 10" leaves "revenue: Q1:".
    kept.split(':').next().unwrap_or(kept)
}

fn without_slide_count(topic: &str) -> &str {
    let Some(at) = find(topic, " slide") else { return topic };
    match topic[..at].rsplit_once(" in ") {
        Some((before, count)) if count.trim().chars().all(|c| c.is_ascii_digit()) => before,
        _ => topic,
    }
}

fn audience(bare: &str) -> Option<String> {
    let (_, end) = noun(bare)?;
    let at = [" for the ", " for our ", " for my "]
        .iter()
        .filter_map(|needle| find(&bare[end..], needle))
        .min()?;
    let rest = bare[end + at..].trim_start().strip_prefix("for ").unwrap_or_default();
    let who = before_any(
        rest,
        &[" on ", " about ", ". ", ", ", ": ", " with ", " in ", " from ", " and ", " using "],
    )
    .trim();
    (!who.is_empty()).then(|| shorten(who, 60))
}

/// "X-style" and "in the style of X": a wish for looks, without any assets.
fn style(head: &str) -> Option<String> {
    let hyphened = head.split_whitespace().find_map(|word| {
        let at = find(word, "-style")?;
        let name = word[..at].trim_matches(|c: char| !c.is_alphanumeric());
        (!name.is_empty()).then(|| name.to_owned())
    });
    hyphened.or_else(|| {
        let rest = after_any(head, &["in the style of "])?;
        let name =
            rest.split([',', '.', '\n']).next()?.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
        (!name.is_empty()).then_some(name)
    })
}

fn slides_wanted(bare: &str) -> Option<usize> {
    let words = words(bare);
    words.windows(2).find_map(|pair| {
        let count = pair[0].parse::<usize>().ok()?;
        (matches!(pair[1].as_str(), "slide" | "slides") && (1..=SLIDES_WANTED_MAX).contains(&count))
            .then_some(count)
    })
}

/// "covering pricing, churn and hiring".
fn subtopics(bare: &str) -> Vec<String> {
    let Some(rest) = after_any(
        bare,
        &[
            " covering ",
            " including ",
            " with slides on ",
            " with slides about ",
            " with sections on ",
            " cover: ",
            " it should cover ",
        ],
    ) else {
        return Vec::new();
    };
    let list = before_any(rest, &[". ", "; ", " from ", " save ", " in the style", " for the "]);
    list.split(", ")
        .flat_map(|part| part.split(" and "))
        .map(|part| part.trim().trim_start_matches("and ").trim_start_matches("the ").trim())
        .filter(|part| !part.is_empty())
        .map(|part| shorten(part, 60))
        .take(SUBTOPICS_MAX)
        .collect()
}

fn accent(head: &str) -> Option<String> {
    head.split(|c: char| c.is_whitespace() || ",;.()\"'`".contains(c))
        .find(|word| {
            word.strip_prefix('#')
                .is_some_and(|hex| hex.len() == 6 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
        })
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_the_users_words() {
        for (request, topic) in [
            ("Build a Temasek-style PPT on Q3 NVIDIA performance.", Some("Q3 NVIDIA performance")),
            ("Make me a presentation about our 2025 hiring plan for the board", Some("our 2025 hiring plan")),
            ("Build an NVIDIA Q3 deck", Some("NVIDIA Q3")),
            ("I need a slide deck for the board on churn in 12 slides", Some("churn")),
            ("Create slides on tea with sections on growing, drying and trade", Some("tea")),
            ("Build a deck on revenue 10, 12, 15 for 2021–2023", Some("revenue")),
            ("Make a deck titled \"Tea now\" from a.md", Some("Tea now")),
            ("Turn q3_sales.csv into a 10-slide QBR for the board", None),
            ("build a deck", None),
            ("Build a deck on our quarter\n\nUploaded with this message: q3.csv", Some("our quarter")),
            ("Build a deck on our quarter!\r\n\r\nAttached: q3.csv, notes.md", Some("our quarter")),
            ("Build a deck\n\nUploaded with this message: q3.csv", None),
        ] {
            assert_eq!(read(request).topic.as_deref(), topic, "{request}");
        }
    }

    #[test]
    fn the_rest_of_a_brief() {
        let brief = read(
            "Turn `q3 sales.csv` and notes.md into a 10-slide deck for the board, save as decks/q3.pptx in #AA3300",
        );
        assert_eq!(brief.files, ["q3 sales.csv", "notes.md"]);
        assert_eq!(brief.output.as_deref(), Some("decks/q3.pptx"));
        assert_eq!((brief.slides_wanted, brief.accent.as_deref()), (Some(10), Some("#AA3300")));
        assert_eq!(brief.audience.as_deref(), Some("the board"));
        let brief = read("Make a Bauhaus-style deck on tea covering growing, drying and trade");
        assert_eq!((brief.style.as_deref(), brief.subtopics.len()), (Some("Bauhaus"), 3));
        let brief = read("Update template.pptx, a deck from report.pdf");
        assert_eq!(brief.unreadable, ["template.pptx", "report.pdf"]);
        let brief = read("Build a deck on tea:\n\n# Tea\n## Growing\n- slowly");
        assert!(brief.outline.unwrap().starts_with("# Tea"));
    }
}
