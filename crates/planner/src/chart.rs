//! Slides for figures: a native chart, the same as a table, and what can be computed from them. Every number on
//! them was given or follows from those by arithmetic.

use serde_json::{Value, json};

use crate::deck::{Slide, TITLE_CHARS_MAX};
use crate::figures::{Figures, Series};
use crate::table::{ROWS_SHOWN_MAX, Table, sum};
use crate::text::{capitalized, shorten};

/// A chart, the same as a table, and what can be computed from them.
pub(crate) fn figure_slides(figures: &Figures, title: Option<&str>) -> Vec<Slide> {
    let many = figures.categories.len() > 8;
    let kind = match (figures.over_time, many) {
        (true, true) => "line",
        (true, false) => "column",
        (false, _) if figures.categories.len() > 5 => "bar",
        (false, _) => "column",
    };
    let series: Vec<Value> = figures
        .series
        .iter()
        .map(|series| json!({"name": capitalized(&series.name), "values": series.values}))
        .collect();
    let statement = figures.series.first().map(|series| statement(figures, series)).unwrap_or_default();
    let title = title.map_or_else(|| shorten(&statement, TITLE_CHARS_MAX), str::to_owned);
    let mut chart = json!({"type": kind, "categories": figures.categories, "series": series});
    if !figures.unit.is_empty() {
        chart["unit"] = shorten(&figures.unit, 60).into();
    }
    let names: Vec<String> = figures.series.iter().map(|series| capitalized(&series.name)).collect();
    let agenda = shorten(&names.join(" and "), 60);
    let mut slides = vec![Slide {
        agenda: agenda.clone(),
        goes_first: 0,
        spec: json!({"layout": "chart", "title": title, "chart": chart, "takeaway": shorten(&statement, 120),
                     "source": shorten(&figures.source, 120), "notes": format!("The figures are exactly those given. {}", figures.source)}),
    }];
    if let Some(kpis) = kpis(figures) {
        slides.push(Slide {
            agenda: String::new(),
            goes_first: 6,
            spec: json!({"layout": "kpi", "title": format!("{} at a glance", shorten(&agenda, 60)), "kpis": kpis,
                         "source": shorten(&figures.source, 120)}),
        });
    }
    let columns: Vec<String> =
        std::iter::once(String::from(if figures.over_time { "Period" } else { "Item" }))
            .chain(names)
            .map(|name| shorten(&name, 60))
            .collect();
    let rows: Vec<Value> = figures
        .categories
        .iter()
        .enumerate()
        .take(ROWS_SHOWN_MAX)
        .map(|(at, category)| {
            std::iter::once(json!(category))
                .chain(figures.series.iter().map(|series| json!(series.values.get(at).cloned().flatten())))
                .collect()
        })
        .collect();
    slides.push(Slide {
        agenda: String::new(),
        goes_first: 5,
        spec: json!({"layout": "table", "title": format!("The figures behind it: {}", shorten(&agenda, 50)),
                     "table": {"columns": columns, "rows": rows}, "source": shorten(&figures.source, 120)}),
    });
    slides
}

pub(crate) fn table_slides(name: &str, table: &Table, notes: &mut Vec<String>) -> Vec<Slide> {
    let rows = table.rows.len();
    if rows > ROWS_SHOWN_MAX {
        notes.push(format!("The table shows the first {ROWS_SHOWN_MAX} of {rows} rows of {name}."));
    }
    let mut slides = match table.figures(name) {
        Some(figures) => {
            let shown: std::collections::BTreeSet<_> =
                table.rows.iter().filter_map(|row| row.first()).collect();
            if figures.source.contains("summed") {
                notes.push(format!("Rows of {name} with the same label were summed for the chart."));
            }
            if shown.len() > figures.categories.len()
                && figures.categories.len() == crate::figures::CATEGORIES_MAX
            {
                notes.push(format!(
                    "The chart shows the first {} labels of {name}.",
                    figures.categories.len()
                ));
            }
            let mut slides = figure_slides(&figures, None);
            // The file's own table follows in place of the one made from the chart.
            slides.retain(|slide| slide.spec["layout"] != "table");
            slides
        }
        None => {
            notes.push(format!(
                "{name} has no column of plain numbers, so it became a table without a chart."
            ));
            Vec::new()
        }
    };
    let title = format!("The data: {}", shorten(name, 60));
    slides.push(Slide {
        agenda: shorten(&title, 60),
        goes_first: 1,
        spec: json!({"layout": "table", "title": title, "table": table.spec(), "source": format!("Source: {}", shorten(name, 80))}),
    });
    slides
}

/// One chart of the figures.
pub(crate) fn chart_slide(figures: &Figures) -> Value {
    figure_slides(figures, None).into_iter().next().map(|slide| slide.spec).unwrap_or_default()
}

/// What the figures say by themselves, computed and nothing else.
fn statement(figures: &Figures, series: &Series) -> String {
    let filled: Vec<(&String, &serde_json::Number)> = figures
        .categories
        .iter()
        .zip(&series.values)
        .filter_map(|(category, value)| Some((category, value.as_ref()?)))
        .collect();
    let name = capitalized(&shorten(&series.name, 30));
    let amount = |number: &serde_json::Number| with_unit(&number.to_string(), &figures.unit);
    let float = |number: &serde_json::Number| number.as_f64().unwrap_or_default();
    let (Some(first), Some(last)) = (filled.first(), filled.last()) else { return name };
    if figures.over_time && filled.len() > 1 {
        let verb = match float(last.1).total_cmp(&float(first.1)) {
            std::cmp::Ordering::Greater => "rises",
            std::cmp::Ordering::Less => "falls",
            std::cmp::Ordering::Equal => {
                return format!("{name} is {} in {} and in {}", amount(first.1), first.0, last.0);
            }
        };
        return format!(
            "{name} {verb} from {} in {} to {} in {}",
            amount(first.1),
            first.0,
            amount(last.1),
            last.0
        );
    }
    let highest =
        filled.iter().fold(first, |most, one| if float(one.1) > float(most.1) { one } else { most });
    format!("{name} is highest for {}: {}", shorten(highest.0, 30), amount(highest.1))
}

fn with_unit(number: &str, unit: &str) -> String {
    if let Some(positive) = number.strip_prefix('-') {
        return format!("-{}", with_unit(positive, unit));
    }
    let mut chars = unit.chars();
    match chars.next() {
        None => number.to_owned(),
        Some(currency) if "$€£¥₹".contains(currency) => format!("{currency}{number}{}", chars.as_str()),
        Some('%') => format!("{number}%"),
        Some(_) => format!("{number} {unit}"),
    }
}

/// First, last and the difference of one series over time.
fn kpis(figures: &Figures) -> Option<Value> {
    let [series] = figures.series.as_slice() else { return None };
    if !figures.over_time || series.values.len() < 2 {
        return None;
    }
    let (first, last) = (series.values.first()?.clone()?, series.values.last()?.clone()?);
    let negative = match first.as_i64() {
        Some(whole) => serde_json::Number::from(whole.checked_neg()?),
        None => serde_json::Number::from_f64(-first.as_f64()?)?,
    };
    let change = sum(Some(last.clone()), Some(negative))??;
    let float = change.as_f64()?;
    let (sign, trend) = if float > 0.0 {
        ("+", "up")
    } else if float < 0.0 {
        ("", "down")
    } else {
        ("", "flat")
    };
    let difference = match figures.unit.as_str() {
        // Between percentages lie points, not percent.
        "%" => format!("{change} pts"),
        unit => with_unit(&change.to_string(), unit),
    };
    let labels = [figures.categories.first()?, figures.categories.last()?];
    let value = |number: &serde_json::Number| shorten(&with_unit(&number.to_string(), &figures.unit), 40);
    Some(json!([
        {"value": value(&first), "label": shorten(labels[0], 60)},
        {"value": value(&last), "label": shorten(labels[1], 60)},
        {"value": shorten(&format!("{sign}{difference}"), 40), "label": format!("Change from {} to {}", shorten(labels[0], 40), shorten(labels[1], 40)), "trend": trend},
    ]))
}
