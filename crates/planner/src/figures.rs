//! Figures: series of numbers with their labels, read from the user's words exactly as written. What is no clear
//! series is left alone; nothing is filled in.

use serde_json::Number;

use crate::lexer::{Token, tokens};

/// Numbers that belong in one chart.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Figures {
    pub(crate) categories: Vec<String>,
    pub(crate) series: Vec<Series>,
    /// The unit that all of them share; empty when they share none.
    pub(crate) unit: String,
    /// Whether the categories are periods in their order.
    pub(crate) over_time: bool,
    /// Where they come from, for the source line of the slide.
    pub(crate) source: String,
}

/// A named row of numbers, one for each category.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) values: Vec<Option<Number>>,
}

/// Series in one chart, as deck specs bound them.
pub(crate) const SERIES_MAX: usize = 6;
/// Categories in one chart, as deck specs bound them.
pub(crate) const CATEGORIES_MAX: usize = 60;
const SOURCE: &str = "Source: figures from the request";

/// A label with the name before it, and a name alone, in words.
const LABEL_WORDS_MAX: usize = 6;
const NAME_WORDS_MAX: usize = 3;

const LINKS: [&str; 10] = ["of", "was", "were", "is", "are", "at", "to", "came", "reached", "totalled"];
const NOT_NAMES: [&str; 23] = [
    "with", "using", "showing", "and", "the", "our", "a", "an", "by", "on", "for", "about", "in", "figures",
    "numbers", "values", "these", "from", "plot", "chart", "graph", "then", "per",
];
const PERIOD_WORDS: [&str; 7] = ["for", "in", "from", "over", "during", "between", "across"];

/// The charts that the words hold.
pub(crate) fn parse(text: &str) -> Vec<Figures> {
    let tokens = tokens(text);
    let mut found = pairs(&tokens);
    if found.is_empty() {
        found = runs(&tokens);
    }
    found
}

/// One `label: number`, and where it stands.
struct Pair {
    label: String,
    name: String,
    value: Number,
    unit: String,
    start: usize,
    end: usize,
    is_period: bool,
}

/// `Q1: 10, Q2: 12`, `Q1 10, Q2 12`, `10 in 2021, 12 in 2022`.
fn pairs(tokens: &[Token]) -> Vec<Figures> {
    let mut groups: Vec<Vec<Pair>> = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let Some(pair) = pair_at(tokens, at) else {
            at += 1;
            continue;
        };
        at = pair.end;
        let joins = groups.last().and_then(|group| group.last()).is_some_and(|last| {
            let between = tokens.get(last.end..pair.start).unwrap_or_default();
            between.len() <= 2
                && between.iter().all(|t| {
                    matches!(t, Token::Mark(',' | ';' | '&' | '-' | '*' | '•')) || t.is_word(&["and"])
                })
        });
        match groups.last_mut() {
            Some(group) if joins => group.push(pair),
            _ => groups.push(vec![pair]),
        }
    }
    groups.into_iter().filter(|group| (2..=CATEGORIES_MAX).contains(&group.len())).map(charted).collect()
}

fn charted(group: Vec<Pair>) -> Figures {
    let name = group.iter().map(|pair| pair.name.clone()).find(|name| !name.is_empty());
    Figures {
        over_time: group.iter().all(|pair| pair.is_period),
        unit: shared(group.iter().map(|pair| pair.unit.as_str())),
        categories: group.iter().map(|pair| pair.label.clone()).collect(),
        series: vec![Series {
            name: name.unwrap_or_else(|| "Value".into()),
            values: group.into_iter().map(|pair| Some(pair.value)).collect(),
        }],
        source: SOURCE.into(),
    }
}

fn pair_at(tokens: &[Token], at: usize) -> Option<Pair> {
    if let Token::Number(quantity) = &tokens[at] {
        // "10 in 2021"
        if tokens.get(at + 1).is_some_and(|t| t.is_word(&["in", "for"]))
            && let Some((_, label)) = tokens.get(at + 2).and_then(Token::as_period)
        {
            let (value, unit) = (quantity.value.clone(), quantity.unit.clone());
            return Some(Pair {
                label,
                name: name_before(tokens, at),
                value,
                unit,
                start: at,
                end: at + 3,
                is_period: true,
            });
        }
        // A bare year may still be the label before a colon.
        tokens[at].as_period()?;
    }
    let mut end = at;
    while end < tokens.len() && end - at < LABEL_WORDS_MAX && !matches!(tokens[end], Token::Mark(_)) {
        end += 1;
    }
    let colon = matches!(tokens.get(end), Some(Token::Mark(':' | '=')));
    // "Q1 10" needs no colon; a year does, or "2021 12" would be a pair of anything.
    let bare = matches!(&tokens[at], Token::Word(_)) && tokens[at].as_period().is_some();
    let (label_end, number_at) = match (colon, bare) {
        (true, _) => (end, end + 1),
        (false, true) => (at + 1, at + 1),
        (false, false) => return None,
    };
    let Some(Token::Number(quantity)) = tokens.get(number_at) else { return None };
    let label = &tokens[at..label_end];
    if label.iter().any(|t| matches!(t, Token::Number(_)) && t.as_period().is_none()) {
        return None;
    }
    // "revenue Q1: 10": the period is the label, what stands before it the name.
    let split = label.iter().position(|t| t.as_period().is_some()).unwrap_or(0);
    let name = if split > 0 { joined(&label[..split]) } else { name_before(tokens, at) };
    let label = &label[split..];
    let is_period = label.first().is_some_and(|t| t.as_period().is_some());
    let (value, unit) = (quantity.value.clone(), quantity.unit.clone());
    Some(Pair { label: joined(label), name, value, unit, start: at, end: number_at + 1, is_period })
}

fn joined(tokens: &[Token]) -> String {
    let words: Vec<String> = tokens
        .iter()
        .filter(|t| !t.is_word(&NOT_NAMES) && !t.is_word(&LINKS))
        .filter_map(|t| match t {
            Token::Word(word) => Some(word.clone()),
            Token::Number(quantity) => Some(quantity.value.to_string()),
            Token::Mark(_) => None,
        })
        .collect();
    words.join(" ")
}

/// The words that name the numbers beginning at `at`.
fn name_before(tokens: &[Token], at: usize) -> String {
    let mut start = at;
    while start > 0
        && (tokens[start - 1].is_word(&LINKS) || matches!(tokens[start - 1], Token::Mark(':' | '=' | '(')))
    {
        start -= 1;
    }
    let end = start;
    let is_name = |t: &Token| {
        matches!(t, Token::Word(_)) && !t.is_word(&NOT_NAMES) && !t.is_word(&LINKS) && t.as_period().is_none()
    };
    while start > 0 && end - start < NAME_WORDS_MAX && is_name(&tokens[start - 1]) {
        start -= 1;
    }
    joined(&tokens[start..end])
}

/// `revenue 10, 12, 15 for 2021–2023`, also with several names before the periods.
fn runs(tokens: &[Token]) -> Vec<Figures> {
    let mut charts = Vec::new();
    let mut open: Vec<(Series, String)> = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at].is_word(&PERIOD_WORDS)
            && let Some((categories, end)) = periods_at(tokens, at + 1)
        {
            open.retain(|(series, _)| series.values.len() == categories.len());
            open.truncate(SERIES_MAX);
            if !open.is_empty() && categories.len() > 1 {
                let unit = shared(open.iter().map(|(_, unit)| unit.as_str()));
                let series = open.drain(..).map(|(series, _)| series).collect();
                charts.push(Figures { categories, series, unit, over_time: true, source: SOURCE.into() });
            }
            open.clear();
            at = end;
            continue;
        }
        let (values, unit, end) = run_at(tokens, at);
        if values.len() >= 2 {
            let name = name_before(tokens, at);
            open.push((Series { name: if name.is_empty() { "Value".into() } else { name }, values }, unit));
        }
        at = end.max(at + 1);
    }
    charts
}

fn run_at(tokens: &[Token], start: usize) -> (Vec<Option<Number>>, String, usize) {
    let (mut values, mut units, mut at) = (Vec::new(), Vec::new(), start);
    while let Some(Token::Number(quantity)) = tokens.get(at) {
        values.push(Some(quantity.value.clone()));
        units.push(quantity.unit.as_str());
        at += 1;
        let separators = tokens[at..]
            .iter()
            .take(2)
            .take_while(|t| matches!(t, Token::Mark(',' | ';' | '/')) || t.is_word(&["and", "then"]))
            .count();
        if separators == 0
            || !matches!(tokens.get(at + separators), Some(Token::Number(_)))
            || values.len() >= CATEGORIES_MAX
        {
            break;
        }
        at += separators;
    }
    (values, shared(units.into_iter()), at)
}

fn periods_at(tokens: &[Token], start: usize) -> Option<(Vec<String>, usize)> {
    let (first, label) = tokens.get(start)?.as_period()?;
    let to = tokens.get(start + 1);
    let is_range = matches!(to, Some(Token::Mark('–' | '-' | '—')))
        || to.is_some_and(|t| t.is_word(&["to", "until", "through"]));
    if is_range && let Some((last, _)) = tokens.get(start + 2).and_then(Token::as_period) {
        return Some((first.range(&label, last)?, start + 3));
    }
    let (mut labels, mut at) = (vec![label], start + 1);
    while labels.len() < CATEGORIES_MAX {
        let separators = tokens[at..]
            .iter()
            .take(2)
            .take_while(|t| matches!(t, Token::Mark(',')) || t.is_word(&["and"]))
            .count();
        let Some((_, label)) =
            tokens.get(at + separators).filter(|_| separators > 0).and_then(Token::as_period)
        else {
            break;
        };
        labels.push(label);
        at += separators + 1;
    }
    Some((labels, at))
}

fn shared<'a>(mut units: impl Iterator<Item = &'a str>) -> String {
    let first = units.next().unwrap_or_default();
    if units.all(|unit| unit == first) { first.to_owned() } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<String> {
        let series = |s: &Series| {
            let values: Vec<String> = s.values.iter().flatten().map(Number::to_string).collect();
            format!("{}={}", s.name, values.join(","))
        };
        parse(text)
            .iter()
            .map(|f| {
                format!(
                    "{} {} [{}]",
                    f.categories.join("|"),
                    f.series.iter().map(series).collect::<Vec<_>>().join(" "),
                    f.unit
                )
            })
            .collect()
    }

    #[test]
    fn numbers_in_words_are_read_exactly() {
        for (text, expected) in [
            ("a deck with revenue 10, 12, 15 for 2021–2023", "2021|2022|2023 revenue=10,12,15 []"),
            ("revenue of $10m, $12.5m and $15m from 2021 to 2023", "2021|2022|2023 revenue=10,12.5,15 [$m]"),
            ("revenue 1, 2 and cost 3, 4 for Q1 and Q2", "Q1|Q2 revenue=1,2 cost=3,4 []"),
            ("Q1: 10, Q2: 12", "Q1|Q2 Value=10,12 []"),
            ("sales Q1 10%, Q2 12%, Q3 9%", "Q1|Q2|Q3 sales=10,12,9 [%]"),
            ("revenue of 10 in 2021, 12 in 2022 and 15 in 2023", "2021|2022|2023 revenue=10,12,15 []"),
            ("North: 120, South: 80, Far East: 1,050", "North|South|Far East Value=120,80,1050 []"),
            ("2021: 5, 2022: 6", "2021|2022 Value=5,6 []"),
        ] {
            assert_eq!(shown(text), [expected], "{text}");
        }
    }

    #[test]
    fn what_is_no_series_is_left_alone() {
        for text in [
            "Build a Temasek-style PPT on Q3 NVIDIA performance.",
            "top 10 risks for 2024",
            "a 10-slide deck in 2025",
            "revenue 10, 12, 15 for 2021–2022",
            "compare 3, 4 and 5 star hotels",
            "",
        ] {
            assert_eq!(shown(text), [""; 0], "{text}");
        }
    }
}
