//! The spec of a deck, made from the user's words and files. It holds no fact that those did not give: figures are
//! theirs, or a chart that says "sample"; text is theirs, or a prompt for what belongs there.

use serde_json::{Map, Value, json};

use crate::brief::Brief;
use crate::chart::{figure_slides, table_slides};
use crate::outline::{self, Outline};
use crate::prompts;
use crate::skill_doc::DeckSkill;
use crate::sources::Source;
use crate::table::Table;
use crate::text::{capitalized, one_line, shorten, words};

/// A spec, and what the user is to be told about it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Composition {
    pub(crate) spec: Value,
    /// Whether a chart shows sample data.
    pub(crate) sample: bool,
    /// Whether slides hold prompts in place of content.
    pub(crate) prompts: bool,
    /// What was assumed or left out, a sentence each.
    pub(crate) notes: Vec<String>,
}

/// A slide with its line in the agenda, and how soon it goes when the user wants fewer: the largest first.
pub(crate) struct Slide {
    pub(crate) agenda: String,
    pub(crate) goes_first: u8,
    pub(crate) spec: Value,
}

/// Longest title of a slide and longest topic within one, in characters.
pub(crate) const TITLE_CHARS_MAX: usize = 80;
const TOPIC_CHARS_MAX: usize = 36;
const AGENDA_ITEMS_MAX: usize = 9;
/// What the title slide names as the author: the label again, where the file is seen without the conversation.
const AUTHOR: &str = "Palisade demo planner";
pub(crate) const KICKER: &str = "What to say here";
pub(crate) const NOTES: &str = "Nothing was given for this slide, so it says what belongs here. Replace the prompts with your own facts.";

/// The deck that the brief describes.
pub(crate) fn compose(brief: &Brief, sources: &[Source], skill: &DeckSkill) -> Composition {
    let mut notes = Vec::new();
    let (tables, outlines) = read_sources(brief, sources, &mut notes);
    let topic = topic(brief, sources, &outlines, &mut notes);
    let mut slides = Vec::new();
    let mut sample = false;
    let has_text = outlines.iter().any(|outline| !outline.slides.is_empty());
    let has_figures =
        !brief.figures.is_empty() || tables.iter().any(|(name, table)| table.figures(name).is_some());
    for outline in &outlines {
        slides.extend(outline_slides(outline));
    }
    for figures in &brief.figures {
        slides.extend(figure_slides(figures, None));
    }
    for (name, table) in &tables {
        slides.extend(table_slides(name, table, &mut notes));
    }
    let prompts = !has_text;
    if prompts {
        sample = !has_figures && tables.is_empty();
        slides = prompt_slides(brief, &topic, slides, sample);
    }
    let short = shorten(&topic, TOPIC_CHARS_MAX);
    let closing = Slide { agenda: String::new(), goes_first: 0, spec: closing(&short, prompts) };
    let slides: Vec<Slide> = slides.into_iter().filter_map(|slide| fitted(slide, skill)).collect();
    let spec = assembled(brief, &topic, slides, fitted(closing, skill), skill, &mut notes);
    sample &= spec["slides"]
        .as_array()
        .is_some_and(|slides| slides.iter().any(|slide| slide["chart"]["sample"] == true));
    if let Some(style) = &brief.style {
        notes.push(format!(
            "“{style}-style” was taken as a wish for tone and colours; no brand assets were given, so the skill's own theme was used."
        ));
    }
    if !brief.figures.is_empty() {
        notes.push("The figures in the charts and tables are those of your message, as written.".into());
    }
    Composition { spec, sample, prompts, notes }
}

type Read<'a> = (Vec<(&'a str, Table)>, Vec<Outline>);

fn read_sources<'a>(brief: &Brief, sources: &'a [Source], notes: &mut Vec<String>) -> Read<'a> {
    let (mut tables, mut outlines) = (Vec::new(), Vec::new());
    if let Some(text) = &brief.outline {
        outlines.push(outline::parse(text));
    }
    for source in sources {
        if !source.whole {
            notes.push(format!(
                "Only the beginning of {} was read; it is longer than one look shows.",
                source.name
            ));
        }
        let lower = source.name.to_lowercase();
        if !(lower.ends_with(".csv") || lower.ends_with(".tsv")) {
            outlines.push(outline::parse(&source.text));
            continue;
        }
        match Table::parse(&source.text) {
            Some(table) => tables.push((source.name.as_str(), table)),
            None => notes.push(format!(
                "{} holds no header with rows below it, so nothing was taken from it.",
                source.name
            )),
        }
    }
    for left_out in outlines.iter().map(|outline| outline.left_out).filter(|count| *count > 0) {
        notes.push(format!(
            "{left_out} more sections of the outline were left out: the deck would be too long."
        ));
    }
    (tables, outlines)
}

fn topic(brief: &Brief, sources: &[Source], outlines: &[Outline], notes: &mut Vec<String>) -> String {
    if let Some(topic) = &brief.topic {
        return topic.clone();
    }
    if let Some(title) = outlines.iter().find_map(|outline| outline.title.clone()) {
        return title;
    }
    let from_file = sources
        .first()
        .and_then(|source| source.name.rsplit_once('.'))
        .map(|(stem, _)| one_line(&stem.replace(['_', '-'], " ")));
    let from_figures =
        brief.figures.first().and_then(|figures| figures.series.first()).map(|series| series.name.clone());
    if let Some(topic) = from_file.or(from_figures) {
        notes.push(format!("You named no topic; the deck is called “{}”.", capitalized(&topic)));
        return topic;
    }
    notes.push(
        "You named no topic, so the deck has a general title; say “change the title to …” to set it.".into(),
    );
    "your topic".into()
}

fn outline_slides(outline: &Outline) -> Vec<Slide> {
    let mut slides = Vec::new();
    for slide in &outline.slides {
        let title = capitalized(&shorten(&slide.title, TITLE_CHARS_MAX));
        let agenda = shorten(&title, 60);
        if !slide.bullets.is_empty() {
            let bullets: Vec<Value> = slide
                .bullets
                .iter()
                .map(|bullet| match bullet.sub.is_empty() {
                    true => json!(bullet.text),
                    false => json!({"text": bullet.text, "sub": bullet.sub}),
                })
                .collect();
            slides.push(Slide {
                agenda: agenda.clone(),
                goes_first: 3,
                spec: json!({"layout": "bullets", "title": title, "bullets": bullets}),
            });
        }
        if let Some(table) = &slide.table {
            if let Some(figures) = table.figures("the outline") {
                slides.extend(figure_slides(&figures, Some(&title)).into_iter().take(1));
            }
            slides.push(Slide {
                agenda,
                goes_first: 4,
                spec: json!({"layout": "table", "title": title, "table": table.spec()}),
            });
        }
    }
    slides
}

/// Slides for what nobody wrote yet, around those that hold real figures.
fn prompt_slides(brief: &Brief, topic: &str, real: Vec<Slide>, sample: bool) -> Vec<Slide> {
    let prompts = prompts::of(topic);
    let topic = shorten(topic, TOPIC_CHARS_MAX);
    let slide = |agenda: &str, goes_first: u8, mut spec: Value| {
        if spec["layout"] != "chart" && spec["layout"] != "timeline" {
            spec["kicker"] = KICKER.into();
        }
        spec["notes"] = NOTES.into();
        Slide { agenda: agenda.into(), goes_first, spec }
    };
    let about = |prompt: &str| prompts::about(prompt, &topic);
    let mut slides = vec![slide(
        "Situation",
        2,
        json!({"layout": "bullets", "title": about(prompts.situation), "bullets": prompts.situation_bullets}),
    )];
    slides.push(slide("Given and missing", 8, given_and_missing(brief, &topic)));
    slides.extend(real);
    if sample {
        slides.push(slide(
            "Development",
            0,
            json!({
            "layout": "chart", "title": about(prompts.trend),
            "chart": {"type": "column", "categories": ["Period 1", "Period 2", "Period 3", "Period 4"],
                      "series": [{"name": "Sample", "values": [1, 2, 3, 4]}], "sample": true,
                      "alt": "A placeholder chart with sample values 1 to 4; no figures were given."},
            "takeaway": "Put the real series here, then say in this line what it shows"}),
        ));
    }
    if brief.subtopics.is_empty() {
        let column = |(heading, bullets): &(&str, [&str; 3])| json!({"heading": heading, "bullets": bullets});
        slides.push(slide(
            "Drivers",
            3,
            json!({"layout": "two_column", "title": about(prompts.drivers),
            "columns": [column(&prompts.left), column(&prompts.right)]}),
        ));
        slides.push(slide("Risks", 4, json!({"layout": "bullets", "title": about("Risks: what could change {t}"), "bullets": prompts.risks})));
    }
    for (index, name) in brief.subtopics.iter().enumerate() {
        let agenda = capitalized(name);
        slides.push(slide(&agenda, 1, prompts::subtopic(name, index)));
    }
    slides.push(slide("Evidence", 5, json!({"layout": "table", "title": "Evidence: what this deck still needs", "table": prompts.evidence_table()})));
    slides.push(slide("Next steps", 6, json!({"layout": "timeline", "title": "Next steps: from this outline to the finished deck", "steps": prompts::next_steps()})));
    slides
}

fn given_and_missing(brief: &Brief, topic: &str) -> Value {
    let mut given = vec![format!("Topic: {topic}")];
    given.extend(brief.audience.as_ref().map(|who| format!("Audience: {who}")));
    given.extend(brief.style.as_ref().map(|style| format!("Tone: {style}-style")));
    given.push(format!("The request: “{}”", shorten(&brief.request, 110)));
    let mut missing = Vec::new();
    if brief.figures.is_empty() && brief.files.is_empty() {
        missing.push("Figures, with their source and date");
    }
    if brief.style.is_some() {
        missing.push("Brand assets: logo, colours, fonts");
    }
    if brief.audience.is_none() {
        missing.push("The audience, and what it decides");
    }
    missing.push("The one message that must remain");
    json!({"layout": "two_column", "title": "What was given, and what is still missing", "columns": [
        {"heading": "Given", "bullets": given}, {"heading": "Missing", "bullets": missing}]})
}

fn closing(topic: &str, prompts: bool) -> Value {
    if !prompts {
        return json!({"layout": "closing", "title": format!("Thank you: questions on {topic}")});
    }
    json!({"layout": "closing", "title": format!("What to ask for: the decision on {topic}"), "notes": NOTES, "bullets": [
        "**The decision:** what the audience is asked to decide", "**The owner:** who carries it out", "**The date:** when it is reviewed"]})
}

/// The slide as the skill's document knows it: unknown fields fall away, an unknown layout becomes bullets or goes.
fn fitted(mut slide: Slide, skill: &DeckSkill) -> Option<Slide> {
    let layout = slide.spec["layout"].as_str()?.to_owned();
    if let Some(object) = slide.spec.as_object_mut() {
        for field in ["kicker", "notes", "source", "takeaway"] {
            if !skill.has_field(field) {
                object.remove(field);
            }
        }
    }
    if skill.knows(&layout) {
        return Some(slide);
    }
    let texts: Vec<Value> = match layout.as_str() {
        "two_column" => slide.spec["columns"]
            .as_array()?
            .iter()
            .map(|c| json!({"text": c["heading"], "sub": c["bullets"]}))
            .collect(),
        "timeline" => slide.spec["steps"].as_array()?.iter().map(|step| step["title"].clone()).collect(),
        _ => return None,
    };
    slide.spec = json!({"layout": "bullets", "title": slide.spec["title"], "bullets": texts});
    Some(slide)
}

fn assembled(
    brief: &Brief,
    topic: &str,
    mut slides: Vec<Slide>,
    closing: Option<Slide>,
    skill: &DeckSkill,
    notes: &mut Vec<String>,
) -> Value {
    let wanted = brief.slides_wanted.unwrap_or(usize::MAX);
    let frame = if wanted < 5 { 1 } else { 3 };
    let available = slides.len() + frame;
    while slides.len() + frame > wanted.max(2) {
        let Some(at) = (0..slides.len()).max_by_key(|at| (slides[*at].goes_first, *at)) else { break };
        slides.remove(at);
    }
    if brief.slides_wanted.is_some() && available < wanted {
        notes.push(format!("You asked for {wanted} slides; what was given fills {available}, and more would have been made up."));
    }
    let agenda: Vec<&str> = slides
        .iter()
        .map(|slide| slide.agenda.as_str())
        .filter(|item| !item.is_empty())
        .take(AGENDA_ITEMS_MAX)
        .collect();
    let mut all = vec![json!({"layout": "title"})];
    if frame == 3 && skill.knows("agenda") && !agenda.is_empty() {
        all.push(json!({"layout": "agenda", "items": agenda}));
    }
    all.extend(slides.into_iter().map(|slide| slide.spec));
    all.extend(closing.filter(|_| frame == 3).map(|slide| slide.spec));
    let mut spec = Map::new();
    spec.insert("title".into(), capitalized(topic).into());
    spec.insert("subtitle".into(), subtitle(brief).into());
    spec.insert("author".into(), AUTHOR.into());
    if let Some(theme) = theme(brief, skill) {
        spec.insert("theme".into(), theme.into());
    }
    if let Some(accent) = brief.accent.as_ref().filter(|_| skill.has_field("accent")) {
        spec.insert("accent".into(), accent.clone().into());
    }
    spec.insert("slides".into(), all.into());
    Value::Object(spec)
}

fn subtitle(brief: &Brief) -> String {
    let from = if !brief.files.is_empty() {
        let names: Vec<&str> =
            brief.files.iter().map(|file| file.rsplit('/').next().unwrap_or(file)).collect();
        format!("From {}", names.join(", "))
    } else if !brief.figures.is_empty() {
        "With the figures from the request".into()
    } else if brief.outline.is_some() {
        "From the outline in the request".into()
    } else {
        "Draft outline: prompts to fill in, no facts added".into()
    };
    brief.audience.as_ref().map_or(from.clone(), |who| shorten(&format!("For {who}. {from}"), 160))
}

/// The theme whose name or description shares a word with the request.
fn theme(brief: &Brief, skill: &DeckSkill) -> Option<String> {
    let asked = words(&brief.request);
    let shares = |(name, said): &&(String, String)| {
        asked.contains(name)
            || words(said)
                .iter()
                .any(|word| asked.contains(word) && !["and", "default"].contains(&word.as_str()))
    };
    skill.themes.iter().find(shares).map(|(name, _)| name.clone())
}
