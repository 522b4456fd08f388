//! Simple changes to a deck of this session: add a slide, remove one, another title, another theme. The spec is read
//! back first, so that what a person changed in it stays.

use serde_json::{Value, json};

use crate::chart;
use crate::conversation::Done;
use crate::deck;
use crate::figures::{self, Figures};
use crate::prompts;
use crate::text::{after_any, before_any, capitalized, find, one_line, shorten, words};

/// One change.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Edit {
    Add { topic: String, bullets: Vec<String>, figures: Option<Figures>, after: Option<usize> },
    Remove { number: Option<usize>, about: String },
    Retitle(String),
    Theme(String),
}

/// A spec that an earlier answer wrote.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Spec {
    pub(crate) path: String,
    pub(crate) value: Value,
}

const BULLETS_MAX: usize = 12;

/// The latest spec among the calls.
pub(crate) fn latest_spec(calls: &[Done]) -> Option<Spec> {
    calls.iter().rev().find_map(|done| {
        if done.name != "Write" || !done.argument("file_path").ends_with(".json") {
            return None;
        }
        let value = parse_spec(done.argument("content"))?;
        Some(Spec { path: done.argument("file_path").to_owned(), value })
    })
}

/// JSON text that has slides.
pub(crate) fn parse_spec(text: &str) -> Option<Value> {
    let value: Value = serde_json::from_str(text).ok()?;
    value.get("slides")?.as_array()?;
    Some(value)
}

/// Reads a change; `None` when the words are not plainly one.
pub(crate) fn parse(request: &str) -> Option<Edit> {
    let line = one_line(request);
    let words = words(&line);
    let verb = words.iter().find(|word| {
        !["please", "now", "and", "then", "can", "could", "you", "also"].contains(&word.as_str())
    })?;
    let has = |word: &str| words.iter().any(|known| known == word);
    match verb.as_str() {
        "add" | "insert" | "append" if has("slide") => add(&line),
        "remove" | "delete" | "drop" if has("slide") => Some(remove(&line, &words)),
        "change" | "set" | "rename" | "retitle" | "update" | "call"
            if has("title") || verb == "rename" || verb == "retitle" =>
        {
            let to = after_any(&line, &[" to ", " as ", ": "])?;
            let title = to.trim().trim_matches(|c: char| "\"“”'`.".contains(c)).trim();
            (!title.is_empty()).then(|| Edit::Retitle(shorten(title, 120)))
        }
        "change" | "set" | "use" | "switch" if has("theme") => {
            let ignored = [
                "change", "set", "use", "switch", "the", "theme", "to", "a", "please", "now", "deck", "s",
                "of",
            ];
            let name = words.iter().find(|word| !ignored.contains(&word.as_str()))?;
            Some(Edit::Theme(name.clone()))
        }
        _ => None,
    }
}

fn add(line: &str) -> Option<Edit> {
    let (head, list) = line.split_once(": ").map_or((line, ""), |(head, list)| (head, list));
    let after =
        after_any(line, &["after slide "]).and_then(|rest| words(rest).first()?.parse::<usize>().ok());
    let topic = after_any(head, &[" about ", " on ", " for ", " titled ", " called ", " with "])?;
    let topic = before_any(
        topic,
        &[" after slide ", " with the bullets", " with bullets", " saying", " at the end", " with "],
    );
    let topic = topic.trim().trim_matches(|c: char| "\"“”'`.".contains(c)).trim();
    let figures = figures::parse(line).into_iter().next();
    let bullets: Vec<String> = if figures.is_some() {
        Vec::new()
    } else {
        let separator = if list.contains(';') { ';' } else { ',' };
        list.split(separator)
            .map(|text| text.trim().trim_start_matches("- ").trim_end_matches('.').trim())
            .filter(|text| !text.is_empty())
            .map(|text| capitalized(&shorten(text, 600)))
            .take(BULLETS_MAX)
            .collect()
    };
    (!topic.is_empty()).then(|| Edit::Add { topic: shorten(topic, 80), bullets, figures, after })
}

fn remove(line: &str, words: &[String]) -> Edit {
    let number = words.windows(2).find(|pair| pair[0] == "slide").and_then(|pair| pair[1].parse().ok());
    let about = after_any(line, &[" about ", " on ", " titled "]).unwrap_or_default();
    Edit::Remove { number, about: about.trim_matches(|c: char| "\"“”'`. ".contains(c)).to_owned() }
}

/// Changes the spec and says what was done; or why not.
pub(crate) fn apply(spec: &mut Value, edit: &Edit, themes: &[(String, String)]) -> Result<String, String> {
    let title = spec["title"].as_str().unwrap_or_default().to_owned();
    match edit {
        Edit::Retitle(new) => {
            // The title slide and the closing one may repeat the old title.
            for slide in spec["slides"].as_array_mut().into_iter().flatten() {
                let repeated = slide["layout"] == "title" && slide.get("title").is_some();
                if repeated && let Some(slide) = slide.as_object_mut() {
                    slide.remove("title");
                }
            }
            spec["title"] = capitalized(new).into();
            Ok(format!("The title is now “{}”; it was “{title}”.", capitalized(new)))
        }
        Edit::Theme(name) => {
            let Some((name, _)) =
                themes.iter().find(|(known, said)| known == name || words(said).contains(name))
            else {
                let known: Vec<&str> = themes.iter().map(|(name, _)| name.as_str()).collect();
                return Err(format!("There is no theme “{name}”; the skill has {}.", known.join(", ")));
            };
            spec["theme"] = name.clone().into();
            Ok(format!("The theme is now {name}."))
        }
        Edit::Add { topic, bullets, figures, after } => {
            add_slide(spec, topic, bullets, figures.as_ref(), *after)
        }
        Edit::Remove { number, about } => remove_slide(spec, *number, about),
    }
}

fn add_slide(
    spec: &mut Value,
    topic: &str,
    bullets: &[String],
    figures: Option<&Figures>,
    after: Option<usize>,
) -> Result<String, String> {
    let slides = spec["slides"].as_array_mut().ok_or("The spec has no list of slides.")?;
    let (slide, what) = match (figures, bullets) {
        (Some(figures), _) => (chart::chart_slide(figures), "a chart of your figures"),
        (None, []) => {
            let mut slide = prompts::subtopic(topic, 0);
            slide["kicker"] = deck::KICKER.into();
            slide["notes"] = deck::NOTES.into();
            (slide, "prompts for what belongs there, since you gave no content")
        }
        (None, bullets) => {
            (json!({"layout": "bullets", "title": capitalized(topic), "bullets": bullets}), "your own words")
        }
    };
    let before_closing =
        slides.iter().rposition(|slide| slide["layout"] == "closing").unwrap_or(slides.len());
    let at = after.filter(|number| (1..=slides.len()).contains(number)).unwrap_or(before_closing);
    slides.insert(at, slide);
    // An agenda with a list of its own gets the new line, where it still fits.
    for agenda in slides.iter_mut().filter(|slide| slide["layout"] == "agenda") {
        if let Some(items) =
            agenda.get_mut("items").and_then(Value::as_array_mut).filter(|items| items.len() < BULLETS_MAX)
        {
            items.push(capitalized(&shorten(topic, 60)).into());
        }
    }
    Ok(format!("A slide about “{topic}” was added as number {}, with {what}.", at + 1))
}

fn remove_slide(spec: &mut Value, number: Option<usize>, about: &str) -> Result<String, String> {
    let slides = spec["slides"].as_array_mut().ok_or("The spec has no list of slides.")?;
    let named = |slide: &Value| {
        !about.is_empty()
            && slide["title"].as_str().is_some_and(|title| find(title, &about.to_ascii_lowercase()).is_some())
    };
    let at = number.and_then(|number| number.checked_sub(1)).or_else(|| slides.iter().position(named));
    let Some(at) = at.filter(|at| *at < slides.len()) else {
        return Err(format!("I found no such slide; the spec has {} slides.", slides.len()));
    };
    if slides.len() < 2 {
        return Err("It is the only slide, so it stays.".into());
    }
    let gone = slides.remove(at);
    let title = gone["title"].as_str().or(gone["layout"].as_str()).unwrap_or_default().to_owned();
    for agenda in slides.iter_mut().filter(|slide| slide["layout"] == "agenda") {
        if let Some(items) = agenda.get_mut("items").and_then(Value::as_array_mut) {
            let kept = |item: &Value| item.as_str().is_none_or(|item| !title.starts_with(item));
            items.retain(kept);
        }
    }
    Ok(format!("Slide {} (“{title}”) was removed.", at + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> Value {
        json!({"title": "Tea", "slides": [{"layout": "title"}, {"layout": "agenda", "items": ["Risks"]},
            {"layout": "bullets", "title": "Risks: what could change", "bullets": ["a"]}, {"layout": "closing", "title": "End"}]})
    }

    #[test]
    fn changes_are_made_to_the_spec() {
        let themes = [("sea".to_owned(), "navy and teal".to_owned())];
        for (request, pointer, expected) in [
            ("Add a slide about water quality", "/slides/3/title", json!("Water quality")),
            ("please add a slide about water after slide 1", "/slides/1/title", json!("Water")),
            (
                "add a slide on water: it is soft; it is cold",
                "/slides/3/bullets",
                json!(["It is soft", "It is cold"]),
            ),
            ("add a slide on water with Q1: 1, Q2: 2", "/slides/3/chart/series/0/values", json!([1, 2])),
            ("Change the title to \"Green tea\".", "/title", json!("Green tea")),
            ("remove slide 3", "/slides/2/title", json!("End")),
            ("delete the slide about risks", "/slides/1/items", json!([])),
            ("use the teal theme", "/theme", json!("sea")),
        ] {
            let mut changed = spec();
            apply(&mut changed, &parse(request).unwrap_or_else(|| panic!("{request}")), &themes).unwrap();
            assert_eq!(changed.pointer(pointer), Some(&expected), "{request}");
        }
        for request in ["remove slide 9", "delete the slide about coffee", "use the pink theme"] {
            assert!(apply(&mut spec(), &parse(request).unwrap(), &themes).is_err(), "{request}");
        }
        for request in ["make it nicer", "add a chart", "change everything"] {
            assert_eq!(parse(request), None, "{request}");
        }
    }
}
