//! A .csv or .tsv file as figures and a table, with the file's own numbers.

use serde_json::{Number, Value};

use crate::figures::{CATEGORIES_MAX, Figures, SERIES_MAX, Series};
use crate::lexer::period;

/// The file as rows of cells.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Table {
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Vec<String>>,
}

/// Columns that a slide can show.
const COLUMNS_MAX: usize = 8;
/// Rows that a slide can show.
pub(crate) const ROWS_SHOWN_MAX: usize = 10;

impl Table {
    /// Reads comma-, semicolon- or tab-separated text; `None` without a header and a row.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let first = text.lines().next()?;
        let count = |mark: char| first.chars().filter(|c| *c == mark).count();
        // On a tie the comma, which is last.
        let separator = [';', '\t', ','].into_iter().max_by_key(|mark| count(*mark))?;
        let mut rows = cells(text.trim_start_matches('\u{feff}'), separator);
        rows.retain(|row| row.iter().any(|cell| !cell.is_empty()));
        if rows.len() < 2 {
            return None;
        }
        let columns = rows.remove(0);
        for row in &mut rows {
            row.resize(columns.len(), String::new());
        }
        Some(Self { columns, rows })
    }

    /// The numeric columns over the first other one. Rows with the same label are summed.
    pub(crate) fn figures(&self, file: &str) -> Option<Figures> {
        let numeric = |index: usize| {
            let filled = self.rows.iter().filter_map(|row| row.get(index)).filter(|cell| !cell.is_empty());
            filled.clone().count() > 0 && filled.clone().all(|cell| number(cell).is_some())
        };
        let is_label = |index: usize| !numeric(index) || self.is_periods(index);
        let label = (0..self.columns.len()).find(|index| is_label(*index))?;
        let values: Vec<usize> = (0..self.columns.len())
            .filter(|index| *index != label && numeric(*index))
            .take(SERIES_MAX)
            .collect();
        if values.is_empty() {
            return None;
        }
        let (categories, sums, repeated) = self.grouped(label, &values)?;
        let name = |index: usize| {
            if self.columns[index].is_empty() { "Value" } else { self.columns[index].as_str() }
        };
        let series: Vec<Series> = values
            .iter()
            .zip(sums)
            .map(|(index, values)| Series { name: crate::text::shorten(name(*index), 80), values })
            .collect();
        let summed = if repeated {
            format!(", {} rows summed by {}", self.rows.len(), name(label))
        } else {
            String::new()
        };
        let over_time = categories
            .iter()
            .all(|category| period(category.split([' ', '-', '/']).next().unwrap_or_default()).is_some());
        Some(Figures {
            categories,
            series,
            unit: String::new(),
            over_time,
            source: format!("Source: {file}{summed}"),
        })
    }

    fn is_periods(&self, index: usize) -> bool {
        self.rows.iter().filter_map(|row| row.get(index)).all(|cell| period(cell).is_some())
    }

    /// One entry for each label in the order of the file; `None` when a sum would not be exact.
    #[expect(clippy::type_complexity, reason = "used once, between two functions of this file")]
    fn grouped(
        &self,
        label: usize,
        columns: &[usize],
    ) -> Option<(Vec<String>, Vec<Vec<Option<Number>>>, bool)> {
        let mut categories: Vec<String> = Vec::new();
        let mut values: Vec<Vec<Option<Number>>> = vec![Vec::new(); columns.len()];
        let mut repeated = false;
        for row in &self.rows {
            let name = crate::text::shorten(&row[label], 80);
            let at = categories.iter().position(|known| *known == name);
            if at.is_none() && categories.len() == CATEGORIES_MAX {
                continue;
            }
            for (series, column) in values.iter_mut().zip(columns) {
                let cell = row.get(*column).and_then(|cell| number(cell));
                match at {
                    None => series.push(cell),
                    Some(at) => series[at] = sum(series[at].take(), cell)?,
                }
            }
            match at {
                None => categories.push(name),
                Some(_) => repeated = true,
            }
        }
        Some((categories, values, repeated))
    }

    /// The first rows as a deck spec's table.
    pub(crate) fn spec(&self) -> Value {
        let width = self.columns.len().min(COLUMNS_MAX);
        let cell = |cell: &String| match number(cell) {
            Some(number) => Value::Number(number),
            None => Value::String(crate::text::shorten(cell, 60)),
        };
        let rows: Vec<Value> = self
            .rows
            .iter()
            .take(ROWS_SHOWN_MAX)
            .map(|row| row.iter().take(width).map(cell).collect())
            .collect();
        let columns: Vec<String> =
            self.columns.iter().take(width).map(|name| crate::text::shorten(name, 60)).collect();
        serde_json::json!({"columns": columns, "rows": rows})
    }
}

/// A cell as a number: plain, with separators of thousands, with a sign of money or of percent; anything else is text.
fn number(cell: &str) -> Option<Number> {
    let bare: String = cell.chars().filter(|c| !c.is_whitespace() && *c != ',').collect();
    let (sign, bare) = bare.strip_prefix('-').map_or(("", bare.as_str()), |rest| ("-", rest));
    let plain = format!("{sign}{}", bare.trim_start_matches(['$', '€', '£']).trim_end_matches(['%', '€']));
    let digits = plain.strip_prefix('-').unwrap_or(&plain);
    if digits.is_empty()
        || !digits.starts_with(|c: char| c.is_ascii_digit())
        || !digits.ends_with(|c: char| c.is_ascii_digit())
    {
        return None;
    }
    if let Ok(whole) = plain.parse::<i64>() {
        return Some(Number::from(whole));
    }
    if !digits.chars().all(|c| c.is_ascii_digit() || c == '.') {
        return None;
    }
    Number::from_f64(plain.parse().ok()?)
}

/// Decimal sums, so that 0.1 + 0.2 is 0.3; `None` (outer) when it does not fit.
#[expect(clippy::option_option, reason = "no value is a value here, and overflow is not")]
pub(crate) fn sum(a: Option<Number>, b: Option<Number>) -> Option<Option<Number>> {
    let (Some(left), Some(right)) = (&a, &b) else { return Some(a.or(b)) };
    let scaled = |number: &Number| {
        let text = number.to_string();
        let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
        let scale = u32::try_from(fraction.len()).ok()?;
        Some((format!("{whole}{fraction}").parse::<i128>().ok()?, scale))
    };
    let ((x, x_scale), (y, y_scale)) = (scaled(left)?, scaled(right)?);
    let scale = x_scale.max(y_scale);
    let lift = |value: i128, from: u32| value.checked_mul(10_i128.checked_pow(scale - from)?);
    let total = lift(x, x_scale)?.checked_add(lift(y, y_scale)?)?;
    if scale == 0 {
        return Some(Some(Number::from(i64::try_from(total).ok()?)));
    }
    let digits = format!("{:0width$}", total.unsigned_abs(), width = usize::try_from(scale).ok()? + 1);
    let (whole, fraction) = digits.split_at(digits.len() - usize::try_from(scale).ok()?);
    let sign = if total < 0 { "-" } else { "" };
    Some(Number::from_f64(format!("{sign}{whole}.{fraction}").parse().ok()?))
}

/// Rows of cells, with quotes as RFC 4180 has them.
fn cells(text: &str, separator: char) -> Vec<Vec<String>> {
    let mut rows = vec![vec![String::new()]];
    let (mut quoted, mut chars) = (false, text.chars().peekable());
    while let Some(c) = chars.next() {
        let Some(row) = rows.last_mut() else { break };
        let width = row.len();
        let Some(cell) = row.last_mut() else { break };
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                cell.push('"');
            }
            '"' if quoted || cell.is_empty() => quoted = !quoted,
            c if c == separator && !quoted && width < 200 => row.push(String::new()),
            '\n' if !quoted => rows.push(vec![String::new()]),
            '\r' if !quoted => {}
            c => cell.push(c),
        }
    }
    for cell in rows.iter_mut().flatten() {
        *cell = crate::text::one_line(cell);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_keeps_its_figures() {
        let table =
            Table::parse("Quarter,Revenue,\"Cost, all\"\nQ1,10,7.5\nQ2,\"1,200\",8\nQ3,,9\n").unwrap();
        let figures = table.figures("sales.csv").unwrap();
        assert_eq!(figures.categories, ["Q1", "Q2", "Q3"]);
        assert_eq!(figures.series[0].values, [Some(10.into()), Some(1200.into()), None]);
        assert_eq!(figures.series[1].name, "Cost, all");
        assert!(figures.over_time);
        assert_eq!(table.spec()["rows"][1], serde_json::json!(["Q2", 1200, 8]));
    }

    #[test]
    fn rows_with_the_same_label_are_summed_exactly() {
        let table = Table::parse("region;amount\nNorth;0.1\nSouth;5\nNorth;0.2\n").unwrap();
        let figures = table.figures("r.csv").unwrap();
        assert_eq!(figures.categories, ["North", "South"]);
        assert_eq!(figures.series[0].values[0], Number::from_f64(0.3));
        assert_eq!(figures.source, "Source: r.csv, 3 rows summed by region");
    }

    #[test]
    fn years_are_labels_and_words_are_no_figures() {
        let table = Table::parse("Year\tGWh\n2027\t1.2\n2028\t2\n").unwrap();
        assert_eq!(table.figures("y.tsv").unwrap().categories, ["2027", "2028"]);
        let table = Table::parse("Month,Sales,Growth\nMay,\"$1,200\",12%\nJune,-$5.5,-3 %\n").unwrap();
        let figures = table.figures("m.csv").unwrap();
        assert_eq!(figures.series[0].values, [Some(1200.into()), Number::from_f64(-5.5)]);
        assert_eq!(figures.series[1].values, [Some(12.into()), Some((-3).into())]);
        assert_eq!(Table::parse("a,b\nx,y\n").unwrap().figures("t.csv"), None);
        assert_eq!(Table::parse("only a header"), None);
    }
}
