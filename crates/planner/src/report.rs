//! The JSON report that a deck skill's commands print. A report that was cut in the middle still tells its result
//! and those problems that are whole.

use serde::Deserialize;
use serde_json::Value;

/// What a build or a check said.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(crate) struct Report {
    #[serde(default)]
    pub(crate) ok: bool,
    #[serde(default)]
    pub(crate) slides: Option<u64>,
    #[serde(default)]
    pub(crate) rendered: Option<bool>,
    #[serde(default)]
    pub(crate) problems: Vec<Problem>,
    #[serde(default)]
    pub(crate) warnings: Vec<Problem>,
}

/// One finding.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Problem {
    pub(crate) path: Option<String>,
    pub(crate) kind: String,
    pub(crate) detail: String,
    pub(crate) fix: String,
    pub(crate) max_chars: Option<usize>,
    pub(crate) slide: Option<u64>,
}

/// The report within a command's output; `None` when there is none.
pub(crate) fn parse(output: &str) -> Option<Report> {
    let start = if output.starts_with('{') { 0 } else { output.find("\n{")? + 1 };
    let text = &output[start..];
    let whole = serde_json::Deserializer::from_str(text).into_iter::<Value>().next();
    if let Some(Ok(value)) = whole {
        value.get("ok")?.as_bool()?;
        return Some(serde_json::from_value(value.clone()).unwrap_or_else(|_| salvaged(text)));
    }
    text.contains("\"ok\":").then(|| salvaged(text))
}

fn salvaged(text: &str) -> Report {
    let entry = |line: &str| serde_json::from_str::<Problem>(line.trim().trim_end_matches(',')).ok();
    Report {
        ok: text.contains("\"ok\": true") || text.contains("\"ok\":true"),
        problems: text.lines().filter_map(entry).filter(|found| !found.fix.is_empty()).collect(),
        ..Report::default()
    }
}

impl Problem {
    /// In a line for a person.
    pub(crate) fn line(&self) -> String {
        let place = match (self.slide, &self.path) {
            (Some(slide), _) => format!("slide {slide}"),
            (None, Some(path)) => path.clone(),
            (None, None) => "the file".into(),
        };
        format!("{place}: {} ({})", crate::text::shorten(&self.detail, 200), self.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_found_whole_or_cut() {
        let whole = "warming up\n{\n  \"ok\": false,\n  \"slides\": 9,\n  \"problems\": [\n    {\"path\": \"$.a\", \"kind\": \"overflow\", \"detail\": \"d\", \"fix\": \"f\", \"max_chars\": 7}\n  ]\n}\n[exit code 1]";
        let report = parse(whole).unwrap();
        assert_eq!((report.ok, report.slides, report.problems[0].max_chars), (false, Some(9), Some(7)));
        let cut = whole.replace("  ]\n}\n[exit code 1]", "[… 9 bytes cut …]");
        assert_eq!(parse(&cut).unwrap().problems, report.problems);
        for none in ["", "bash: python3: command not found", "{\"slides\": 1}", "{"] {
            assert_eq!(parse(none), None, "{none}");
        }
    }
}
