//! Words, numbers and marks of a sentence, and the periods (years, quarters, months) that numbers belong to.

use serde_json::Number;

/// A piece of a sentence.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    Word(String),
    Number(Quantity),
    Mark(char),
}

/// A number as written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Quantity {
    pub(crate) value: Number,
    /// Such as `$`, `%` or `GWh`; empty for a bare number.
    pub(crate) unit: String,
}

const CURRENCIES: &str = "$€£¥₹";
const UNIT_WORDS: [&str; 9] =
    ["million", "billion", "thousand", "percent", "trillion", "mn", "bn", "tonnes", "units"];

/// Takes a sentence apart.
pub(crate) fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        if c.is_whitespace() {
            at += 1;
        } else if let Some((number, next)) = number_at(&chars, at) {
            tokens.push(number);
            at = next;
        } else if c.is_alphanumeric() {
            let end = word_end(&chars, at);
            tokens.push(Token::Word(chars[at..end].iter().collect()));
            at = end;
        } else {
            tokens.push(Token::Mark(c));
            at += 1;
        }
    }
    join_unit_words(tokens)
}

fn word_end(chars: &[char], start: usize) -> usize {
    let mut end = start;
    while let Some(&c) = chars.get(end) {
        let inside = c == '\'' || c == '’' || c == '_' || c == '-';
        let word_so_far: String = chars[start..end].iter().collect();
        let joins = inside
            && chars.get(end + 1).is_some_and(|next| next.is_alphanumeric())
            && period(&word_so_far).is_none();
        if !c.is_alphanumeric() && !joins {
            break;
        }
        end += 1;
    }
    end
}

/// A number that begins here, with a currency before it and a unit after it.
fn number_at(chars: &[char], start: usize) -> Option<(Token, usize)> {
    let follows_word = start > 0 && chars[start - 1].is_alphanumeric();
    let mut at = start;
    let mut digits = String::new();
    let mut unit = String::new();
    if matches!(chars[at], '-' | '−' | '+') && !follows_word {
        if chars[at] != '+' {
            digits.push('-');
        }
        at += 1;
    }
    if let Some(&c) = chars.get(at).filter(|c| CURRENCIES.contains(**c)) {
        unit.push(c);
        at += 1;
    }
    let first = at;
    while let Some(&c) = chars.get(at) {
        if c.is_ascii_digit() {
            digits.push(c);
        } else if c == ',' && thousands_follow(chars, at) && at > first {
            // A separator of thousands is not part of the value.
        } else if c == '.'
            && !digits.contains('.')
            && at > first
            && chars.get(at + 1).is_some_and(char::is_ascii_digit)
        {
            digits.push('.');
        } else {
            break;
        }
        at += 1;
    }
    if at == first || digits.len() > 16 {
        return None;
    }
    let suffix_end =
        chars[at..].iter().position(|c| !c.is_alphabetic() && *c != '%').map_or(chars.len(), |len| at + len);
    let suffix: String = chars[at..suffix_end].iter().collect();
    // "3rd", "10x", "4th" and long tails are words.
    if matches!(suffix.as_str(), "rd" | "th" | "st" | "nd" | "x") || suffix.chars().count() > 4 {
        return None;
    }
    unit.push_str(&suffix);
    let value = if digits.contains('.') {
        Number::from_f64(digits.parse().ok()?)?
    } else {
        Number::from(digits.parse::<i64>().ok()?)
    };
    Some((Token::Number(Quantity { value, unit }), suffix_end))
}

fn thousands_follow(chars: &[char], comma: usize) -> bool {
    let digits = chars[comma + 1..].iter().take_while(|c| c.is_ascii_digit()).count();
    digits == 3
}

fn join_unit_words(tokens: Vec<Token>) -> Vec<Token> {
    let mut joined: Vec<Token> = Vec::with_capacity(tokens.len());
    for token in tokens {
        if let (Some(Token::Number(quantity)), Token::Word(word)) = (joined.last_mut(), &token)
            && UNIT_WORDS.contains(&word.to_lowercase().as_str())
        {
            if !quantity.unit.is_empty() {
                quantity.unit.push(' ');
            }
            quantity.unit.push_str(word);
            continue;
        }
        joined.push(token);
    }
    joined
}

/// A period of time and its place among its like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Period {
    Year(i64),
    Quarter(i64),
    Half(i64),
    Month(i64),
}

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];

/// The period that a word names.
pub(crate) fn period(word: &str) -> Option<Period> {
    let lower = word.to_lowercase();
    let number = |prefix: &str| lower.strip_prefix(prefix).and_then(|rest| rest.parse::<i64>().ok());
    if let Some(n @ 1..=4) = number("q") {
        return Some(Period::Quarter(n));
    }
    if let Some(n @ 1..=2) = number("h") {
        return Some(Period::Half(n));
    }
    if let Some(n @ (0..=99 | 1900..=2100)) = number("fy") {
        return Some(Period::Year(n));
    }
    if lower.len() == 4
        && let Ok(n @ 1900..=2100) = lower.parse::<i64>()
    {
        return Some(Period::Year(n));
    }
    // "may" is a verb more often than a month.
    let month =
        MONTHS.iter().position(|month| lower == *month || (lower.len() == 3 && month.starts_with(&lower)))?;
    (lower != "may" || word.starts_with('M')).then(|| Period::Month(i64::try_from(month).unwrap_or(0)))
}

impl Token {
    /// The word or bare number as a label of a period.
    pub(crate) fn as_period(&self) -> Option<(Period, String)> {
        let label = match self {
            Self::Word(word) => word.clone(),
            Self::Number(quantity) if quantity.unit.is_empty() => quantity.value.to_string(),
            _ => return None,
        };
        Some((period(&label)?, label))
    }

    pub(crate) fn is_word(&self, words: &[&str]) -> bool {
        matches!(self, Self::Word(word) if words.contains(&word.to_lowercase().as_str()))
    }
}

impl Period {
    /// The labels from one period to a later one of the same kind, both included.
    pub(crate) fn range(self, first_label: &str, last: Self) -> Option<Vec<String>> {
        let numbered = |from: i64, to: i64| {
            let prefix: String = first_label.chars().take_while(|c| !c.is_ascii_digit()).collect();
            (from < to && to - from <= 60).then(|| (from..=to).map(|n| format!("{prefix}{n}")).collect())
        };
        match (self, last) {
            (Self::Year(a), Self::Year(b))
            | (Self::Quarter(a), Self::Quarter(b))
            | (Self::Half(a), Self::Half(b)) => numbered(a, b),
            (Self::Month(a), Self::Month(b)) if a < b => {
                MONTHS.get(usize::try_from(a).ok()?..=usize::try_from(b).ok()?).map(|months| {
                    months.iter().map(|m| crate::text::capitalized(m.get(..3).unwrap_or(m))).collect()
                })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let one = |token: &Token| match token {
            Token::Word(word) => word.clone(),
            Token::Number(q) if q.unit.is_empty() => format!("#{}", q.value),
            Token::Number(q) => format!("#{}[{}]", q.value, q.unit),
            Token::Mark(c) => c.to_string(),
        };
        tokens(text).iter().map(one).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn sentences_come_apart() {
        for (text, expected) in [
            ("revenue 10, 12, 15 for 2021–2023", "revenue #10 , #12 , #15 for #2021 – #2023"),
            ("Q1-Q3: $1,200.50m and -4%", "Q1 - Q3 : #1200.5[$m] and #-4[%]"),
            ("2021-2023, 3rd, year-end", "#2021 - #2023 , 3rd , year-end"),
            ("5 million people", "#5[million] people"),
            ("$ 5 10k", "$ #5 #10[k]"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn periods_range() {
        let (from, to) = (period("Q1").unwrap(), period("Q4").unwrap());
        assert_eq!(from.range("Q1", to).unwrap(), ["Q1", "Q2", "Q3", "Q4"]);
        assert_eq!(
            period("Jan").unwrap().range("Jan", period("Mar").unwrap()).unwrap(),
            ["Jan", "Feb", "Mar"]
        );
        assert_eq!(period("may"), None);
        assert_eq!(to.range("Q4", from), None);
    }
}
