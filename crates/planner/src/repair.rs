//! Mends a spec by what a report says of it: each problem by its `kind`, its `path` and its `max_chars`. It changes
//! form and never figures.

use serde_json::{Value, json};

use crate::json_path::{Step, get_mut, parse, remove, slide_index};
use crate::report::Problem;
use crate::text::shorten;

/// A mended spec and what was done to it; no deeds means that nothing helped.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Repair {
    pub(crate) spec: Value,
    pub(crate) deeds: Vec<String>,
}

/// Problems mended in one round; the check finds the rest again.
const PROBLEMS_MAX: usize = 40;
/// Where no bound is named, text loses this share of its length.
const KEPT_PERCENT: usize = 75;
const CHARS_MIN: usize = 12;

/// Mends what it can.
pub(crate) fn repair(spec: &Value, problems: &[Problem]) -> Repair {
    let mut repair = Repair { spec: spec.clone(), deeds: Vec::new() };
    let mut located: Vec<(Vec<Step>, &Problem)> = problems
        .iter()
        .take(PROBLEMS_MAX)
        .filter_map(|problem| Some((parse(problem.path.as_deref()?)?, problem)))
        .collect();
    // From the last slide to the first, so that a slide that is split or dropped moves no other problem's path.
    located.sort_by_key(|(steps, _)| std::cmp::Reverse(slide_index(steps)));
    let mut restructured = None;
    for (steps, problem) in located {
        let slide = slide_index(&steps);
        // After a slide was split or dropped its other paths mean something else.
        if slide.is_some() && slide == restructured {
            continue;
        }
        let before = slides(&repair.spec);
        if let Some(deed) = mend(&mut repair.spec, &steps, problem) {
            repair.deeds.push(deed);
        }
        if slides(&repair.spec) != before {
            restructured = slide;
        }
    }
    repair
}

fn slides(spec: &Value) -> usize {
    spec["slides"].as_array().map_or(0, Vec::len)
}

fn mend(spec: &mut Value, steps: &[Step], problem: &Problem) -> Option<String> {
    let place = problem.path.clone().unwrap_or_default();
    if let Some(chars_max) = problem.max_chars.filter(|max| *max > 0) {
        return cut(spec, steps, chars_max, &place).or_else(|| relieve(spec, steps, &place));
    }
    match problem.kind.as_str() {
        "overflow" | "off_slide" | "overlap" | "font_size" | "too_long" => relieve(spec, steps, &place),
        "too_many" => truncate(spec, steps, &problem.fix, &place),
        "contrast" => {
            remove(spec, &[Step::Key("accent".into())]).map(|_| "took the accent colour out".into())
        }
        "missing_title" => retitle(spec, steps, &place),
        "alt_text" => describe(spec, steps, &place),
        "chart_data" => level(spec, steps, &place),
        "metadata" => author(spec),
        "missing" => supply(spec, steps, &place),
        "unknown_field" | "placeholder_text" => drop_or_remove(spec, steps, &place),
        "wrong_type" | "bad_value" => {
            level(spec, steps, &place).or_else(|| drop_or_remove(spec, steps, &place))
        }
        _ => None,
    }
}

/// Shortens the text at the path; of a bullet with others below it, the bullet.
fn cut(spec: &mut Value, steps: &[Step], chars_max: usize, place: &str) -> Option<String> {
    let value = text_at(spec, steps)?;
    let old = value.as_str()?;
    let new = shorten(old, chars_max);
    if new == old {
        return None;
    }
    let deed =
        format!("shortened {place} from {} to {} characters", old.chars().count(), new.chars().count());
    *value = new.into();
    Some(deed)
}

fn text_at<'a>(spec: &'a mut Value, steps: &[Step]) -> Option<&'a mut Value> {
    // The title slide shows the deck's own title when it has none.
    let inherited =
        matches!(steps, [_, Step::Index(_), Step::Key(key)] if key == "title" || key == "subtitle");
    if inherited && get_mut(spec, steps).is_none() {
        let (Step::Key(key), slide) = steps.split_last()? else { return None };
        get_mut(spec, slide).filter(|slide| slide["layout"] == "title")?;
        return spec.get_mut(key.as_str()).filter(|value| value.is_string());
    }
    let value = get_mut(spec, steps)?;
    if value.is_object() { value.get_mut("text") } else { Some(value) }
}

/// Too much text in a place: a long list is split over two slides, a single text is shortened.
fn relieve(spec: &mut Value, steps: &[Step], place: &str) -> Option<String> {
    if text_at(spec, steps).is_some_and(|value| value.is_string()) {
        let length = text_at(spec, steps)?.as_str()?.chars().count();
        return cut(spec, steps, (length * KEPT_PERCENT / 100).max(CHARS_MIN), place);
    }
    let index = slide_index(steps)?;
    split(spec, index, "bullets", None)
        .or_else(|| split(spec, index, "table", Some("rows")))
        .or_else(|| cut_longest(spec, index, place))
}

fn split(spec: &mut Value, index: usize, field: &str, below: Option<&str>) -> Option<String> {
    let slide = spec.get_mut("slides")?.get_mut(index)?;
    let list = |slide: &'_ Value| -> Option<Vec<Value>> {
        let value = slide.get(field)?;
        below.map_or(Some(value), |key| value.get(key))?.as_array().cloned()
    };
    let entries = list(slide)?;
    if entries.len() < 4 {
        return None;
    }
    let (first, second) = entries.split_at(entries.len().div_ceil(2));
    let mut halves = [slide.clone(), slide.clone()];
    let title = slide.get("title").and_then(Value::as_str).unwrap_or_default().to_owned();
    for (half, (entries, suffix)) in halves.iter_mut().zip([(first, "1/2"), (second, "2/2")]) {
        let target = match below {
            None => half.get_mut(field)?,
            Some(key) => half.get_mut(field)?.get_mut(key)?,
        };
        *target = entries.to_vec().into();
        half["title"] = format!("{} ({suffix})", shorten(&title, 70)).into();
    }
    let slides = spec.get_mut("slides")?.as_array_mut()?;
    slides.splice(index..=index, halves);
    Some(format!("split slide {} in two", index + 1))
}

/// The longest text of a slide, whatever field it stands in.
fn cut_longest(spec: &mut Value, index: usize, place: &str) -> Option<String> {
    fn longest<'a>(value: &'a mut Value, best: &mut Option<&'a mut String>) {
        match value {
            Value::String(text)
                if best.as_ref().is_none_or(|most| text.chars().count() > most.chars().count()) =>
            {
                *best = Some(text)
            }
            Value::Array(list) => list.iter_mut().for_each(|value| longest(value, best)),
            Value::Object(object) => {
                // The speaker's notes stand on no slide.
                object
                    .iter_mut()
                    .filter(|(key, _)| *key != "notes" && *key != "layout")
                    .for_each(|(_, value)| longest(value, best));
            }
            _ => {}
        }
    }
    let mut best = None;
    longest(spec.get_mut("slides")?.get_mut(index)?, &mut best);
    let text = best?;
    let new = shorten(text, (text.chars().count() * KEPT_PERCENT / 100).max(CHARS_MIN));
    if new == *text {
        return None;
    }
    *text = new;
    Some(format!("shortened the longest text at {place}"))
}

/// "Keep at most 6 at …".
fn truncate(spec: &mut Value, steps: &[Step], fix: &str, place: &str) -> Option<String> {
    let list = get_mut(spec, steps)?.as_array_mut()?;
    let named = fix.split(|c: char| !c.is_ascii_digit()).find_map(|digits| digits.parse::<usize>().ok());
    let keep = named.filter(|keep| *keep < list.len() && *keep > 0).unwrap_or(list.len() / 2);
    let dropped = list.len() - keep;
    list.truncate(keep);
    (dropped > 0).then(|| format!("left {dropped} entries out at {place}"))
}

fn retitle(spec: &mut Value, steps: &[Step], place: &str) -> Option<String> {
    let title = spec.get("title").and_then(Value::as_str).map(|title| shorten(title, 70))?;
    let slide = spec.get_mut("slides")?.get_mut(slide_index(steps)?)?.as_object_mut()?;
    slide.insert("title".into(), title.into());
    Some(format!("gave {place} the deck's title"))
}

fn describe(spec: &mut Value, steps: &[Step], place: &str) -> Option<String> {
    let slide = spec.get_mut("slides")?.get_mut(slide_index(steps)?)?;
    let title = slide.get("title").and_then(Value::as_str).unwrap_or("this slide").to_owned();
    let field = ["chart", "image"].into_iter().find(|field| slide.get(field).is_some())?;
    let object = slide.get_mut(field)?.as_object_mut()?;
    object.insert("alt".into(), format!("The {field} of the slide “{}”", shorten(&title, 100)).into());
    Some(format!("described the {field} at {place} in words"))
}

/// Gaps for the numbers or cells that are missing at the end of a series or a row; none is made or dropped.
fn level(spec: &mut Value, steps: &[Step], place: &str) -> Option<String> {
    let slide = spec.get_mut("slides")?.get_mut(slide_index(steps)?)?;
    let lists: Vec<&mut Vec<Value>>;
    let wanted;
    if let Some(chart) = slide.get_mut("chart") {
        wanted = chart.get("categories")?.as_array()?.len();
        let series = chart.get_mut("series")?.as_array_mut()?;
        lists = series.iter_mut().filter_map(|one| one.get_mut("values")?.as_array_mut()).collect();
    } else {
        let table = slide.get_mut("table")?;
        wanted = table.get("columns")?.as_array()?.len();
        lists = table.get_mut("rows")?.as_array_mut()?.iter_mut().filter_map(Value::as_array_mut).collect();
    }
    let mut levelled = false;
    for list in lists.into_iter().filter(|list| list.len() < wanted) {
        list.resize(wanted, Value::Null);
        levelled = true;
    }
    levelled.then(|| format!("left gaps for what is missing at {place}"))
}

fn author(spec: &mut Value) -> Option<String> {
    let object = spec.as_object_mut()?;
    if object.contains_key("author") {
        return None;
    }
    object.insert("author".into(), "Palisade demo planner".into());
    Some("named the author".into())
}

fn supply(spec: &mut Value, steps: &[Step], place: &str) -> Option<String> {
    match steps.last()? {
        Step::Key(key) if key == "title" => retitle(spec, steps, place),
        Step::Key(key) if key == "bullets" => {
            let (_, parents) = steps.split_last()?;
            get_mut(spec, parents)?.as_object_mut()?.insert("bullets".into(), json!(["What to say here"]));
            Some(format!("put a prompt at {place}"))
        }
        _ => drop_or_remove(spec, steps, place),
    }
}

/// A field that a slide can do without goes; otherwise the slide, as long as others stay.
fn drop_or_remove(spec: &mut Value, steps: &[Step], place: &str) -> Option<String> {
    let optional = matches!(steps.last()?, Step::Key(key) if [
        "kicker", "notes", "source", "takeaway", "unit", "number_format", "alt", "stacked", "theme", "accent", "language",
        "footer", "date", "subtitle", "author", "contact", "delta", "trend",
    ].contains(&key.as_str()));
    let unknown = matches!(steps, [.., Step::Key(key)] if !["title", "slides", "layout", "bullets", "columns", "chart", "table", "kpis", "steps", "quote", "categories", "series", "values"].contains(&key.as_str()));
    if optional
        || unknown
        || matches!(steps, [.., Step::Key(list), Step::Index(_)] if list == "bullets" || list == "items")
    {
        return remove(spec, steps).map(|_| format!("took {place} out"));
    }
    let index = slide_index(steps)?;
    let slides = spec.get_mut("slides")?.as_array_mut()?;
    if slides.len() < 2 || index >= slides.len() {
        return None;
    }
    slides.remove(index);
    Some(format!("left slide {} out", index + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn problem(path: &str, kind: &str) -> Problem {
        Problem { path: Some(path.into()), kind: kind.into(), ..Problem::default() }
    }

    fn spec() -> Value {
        json!({"title": "A deck whose title is rather long", "accent": "#FFEE00", "slides": [
            {"layout": "title"},
            {"layout": "bullets", "title": "One", "bullets": ["a", "b", "c", {"text": "long enough to be cut here", "sub": ["e"]}]},
            {"layout": "chart", "title": "Two", "chart": {"type": "column", "categories": ["x", "y"], "series": [{"name": "s", "values": [1]}]}},
            {"layout": "table", "title": "Three", "table": {"columns": ["a", "b"], "rows": [["x"]]}},
        ]})
    }

    #[test]
    fn each_kind_has_its_remedy() {
        let mut bounded = problem("$.slides[1].bullets[3]", "overflow");
        bounded.max_chars = Some(15);
        let mut inherited = problem("$.slides[0].title", "overflow");
        inherited.max_chars = Some(20);
        for (name, found, pointer, expected) in [
            ("a bound", bounded, "/slides/1/bullets/3/text", json!("long enough to…")),
            ("a title from the deck", inherited, "/title", json!("A deck whose title…")),
            ("a full slide", problem("$.slides[1]", "overflow"), "/slides/2/title", json!("One (2/2)")),
            ("contrast", problem("$.accent", "contrast"), "/accent", Value::Null),
            (
                "a short series",
                problem("$.slides[2].chart.series[0].values", "bad_value"),
                "/slides/2/chart/series/0/values",
                json!([1, null]),
            ),
            (
                "an unknown field",
                problem("$.slides[1].bullets[0]", "placeholder_text"),
                "/slides/1/bullets/0",
                json!("b"),
            ),
            ("no author", problem("$", "metadata"), "/author", json!("Palisade demo planner")),
        ] {
            let repaired = repair(&spec(), &[found]);
            assert_eq!(repaired.spec.pointer(pointer).unwrap_or(&Value::Null), &expected, "{name}");
            assert_eq!(repaired.deeds.len(), 1, "{name}");
        }
    }

    #[test]
    fn what_cannot_be_mended_is_left() {
        for found in [
            problem("$", "render"),
            problem("$", "file"),
            problem("nonsense", "overflow"),
            problem("$.slides[9].title", "overflow"),
        ] {
            let repaired = repair(&spec(), &[found]);
            assert_eq!((repaired.spec, repaired.deeds.len()), (spec(), 0));
        }
    }

    proptest! {
        /// Whatever a report says, figures stay as they were.
        #[test]
        fn no_figure_is_changed(
            found in prop::collection::vec((0..4usize, "[a-z_]{3,12}", prop::option::of(0..40usize), 0..6usize), 0..6)
        ) {
            let kinds = ["overflow", "bad_value", "too_many", "missing", "chart_data", "wrong_type"];
            let paths = ["title", "bullets", "chart.series[0].values", "chart"];
            let problems: Vec<Problem> = found
                .into_iter()
                .map(|(slide, _, max_chars, kind)| Problem { max_chars, ..problem(&format!("$.slides[{slide}].{}", paths[slide]), kinds[kind]) })
                .collect();
            let repaired = repair(&spec(), &problems);
            for slide in repaired.spec["slides"].as_array().unwrap() {
                for value in slide["chart"]["series"][0]["values"].as_array().into_iter().flatten() {
                    prop_assert!(*value == json!(1) || value.is_null());
                }
            }
        }
    }
}
