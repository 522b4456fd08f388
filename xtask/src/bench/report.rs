//! All rows of a run, as a table for people and as JSON for machines, with the machine they were measured on. It
//! names what the machine is like, never which one it is.

use std::io::Write as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::row::{Row, Unit};

const HEADINGS: [&str; 7] = ["", "p50", "p99", "n", "goal", "", "× floor"];

pub(super) struct Report {
    rows: Vec<Row>,
    floors: Vec<Row>,
    cores: usize,
    kernel: String,
    /// Of the last minute when the run began: beyond a fraction of the cores, others were measured too.
    load: f64,
}

impl Report {
    pub(super) fn new() -> Self {
        Self {
            rows: Vec::new(),
            floors: Vec::new(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            load: load(),
        }
    }

    pub(super) fn figures(&mut self, rows: impl IntoIterator<Item = Row>) {
        self.rows.extend(rows);
    }

    pub(super) fn floors(&mut self, rows: impl IntoIterator<Item = Row>) {
        self.floors.extend(rows);
    }

    pub(super) fn print(&self) -> Result<()> {
        let mut stdout = std::io::stdout().lock();
        stdout
            .write_all(self.text().as_bytes())
            .and_then(|()| stdout.flush())
            .context("cannot write to stdout")
    }

    fn text(&self) -> String {
        let mut lines = vec![HEADINGS.map(str::to_owned)];
        lines.extend(self.rows.iter().map(cells));
        lines.push(["floors", "", "", "", "", "", ""].map(str::to_owned));
        lines.extend(self.floors.iter().map(cells));
        let width = |at: usize| lines.iter().map(|cells| cells[at].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..HEADINGS.len()).map(width).collect();
        let mut text = self.machine() + "\n\n";
        for cells in &lines {
            let mut line = format!("{:<width$}", cells[0], width = widths[0]);
            for (cell, width) in cells.iter().zip(&widths).skip(1) {
                line += &format!("  {cell:>width$}");
            }
            text += line.trim_end();
            text += "\n";
        }
        let notes = self.rows.iter().flat_map(|row| {
            let floor = row.floor.as_ref().map(|floor| format!("× floor is over {}", floor.what));
            [floor, row.note.clone()].into_iter().flatten().map(|note| format!("{}: {note}\n", row.what))
        });
        format!("{text}\n{}", notes.collect::<String>())
    }

    fn machine(&self) -> String {
        let Self { cores, kernel, load, .. } = self;
        format!("{cores} cores, Linux {kernel}, load {load:.1} at the start, release build")
    }

    pub(super) fn write_json(&self, file: &Path) -> Result<()> {
        let measured_at =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        let [rows, floors] =
            [&self.rows, &self.floors].map(|rows| rows.iter().map(as_json).collect::<Vec<Value>>());
        let report = json!({
            "measured_at": measured_at, "cores": self.cores, "kernel": self.kernel, "load": self.load,
            "rows": rows, "floors": floors,
        });
        let text = serde_json::to_string_pretty(&report).context("writing JSON")? + "\n";
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    }
}

fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|load| load.parse().ok()).unwrap_or(f64::NAN)
}

fn cells(row: &Row) -> [String; 7] {
    let shown = |value: Option<f64>| value.map_or(String::new(), |value| amount(value, row.unit));
    let goal = match (row.goal_p50, row.goal_p99) {
        (Some(p50), Some(p99)) => format!("≤ {} / {} {}", short(p50), short(p99), row.unit.name()),
        (Some(p50), None) => format!("≤ {} {}", short(p50), row.unit.name()),
        (None, Some(p99)) => format!("p99 ≤ {} {}", short(p99), row.unit.name()),
        (None, None) => String::new(),
    };
    let met = row.is_met().map_or("", |met| if met { "met" } else { "missed" });
    let ratio = row.ratio().map_or(String::new(), |ratio| format!("{ratio:.1}"));
    [
        row.what.clone(),
        shown(Some(row.p50)),
        shown(row.p99),
        row.count.to_string(),
        goal,
        met.to_owned(),
        ratio,
    ]
}

/// A goal that was made of a measured floor has more digits than anybody reads.
fn short(goal: f64) -> String {
    let text = format!("{goal:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn amount(value: f64, unit: Unit) -> String {
    match unit {
        _ if value.is_nan() => "not known".to_owned(),
        Unit::Milliseconds if value < 0.1 => format!("{value:.4} ms"),
        Unit::Milliseconds => format!("{value:.2} ms"),
        Unit::Kibibytes => format!("{value:.0} KiB"),
    }
}

fn as_json(row: &Row) -> Value {
    json!({
        "what": row.what, "unit": row.unit.name(), "p50": row.p50, "p99": row.p99, "n": row.count,
        "goal_p50": row.goal_p50, "goal_p99": row.goal_p99, "met": row.is_met(),
        "floor": row.floor.as_ref().map(|floor| json!({"what": floor.what, "p50": floor.p50})),
        "ratio": row.ratio(), "note": row.note,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_row_reads_as_figure_goal_verdict_ratio() {
        let floor = Row::times("floor", vec![Duration::from_millis(2)]);
        let row = Row::times("warm", vec![Duration::from_millis(5)]).goal(3.0).above(&[&floor]);
        assert_eq!(cells(&row), ["warm", "5.00 ms", "5.00 ms", "1", "≤ 3 ms", "missed", "2.5"]);
        let json = as_json(&row);
        assert_eq!(
            (&json["met"], &json["ratio"], &json["floor"]["p50"]),
            (&json!(false), &json!(2.5), &json!(2.0))
        );
        let memory = Row::mean("asleep", Unit::Kibibytes, 12.4, 200).goal(50.0);
        assert_eq!(cells(&memory), ["asleep", "12 KiB", "", "200", "≤ 50 KiB", "met", ""]);
        assert_eq!(cells(&Row::mean("awake", Unit::Kibibytes, f64::NAN, 20))[1], "not known");
        let small = Row::mean("small", Unit::Milliseconds, 0.024_13, 9).goal(0.030_000_8);
        assert_eq!(cells(&small)[1..5], ["0.0241 ms", "", "9", "≤ 0.03 ms"]);
    }

    #[test]
    fn columns_stand_below_each_other() {
        let mut report = Report::new();
        report.figures([Row::times("short", vec![Duration::from_millis(5)])]);
        report.floors([Row::times("a longer one", vec![Duration::from_secs(5)])]);
        let text = report.text();
        let ends: Vec<usize> = text.lines().filter_map(|line| line.find(" ms")).collect();
        assert!(ends.len() == 2 && ends[0] == ends[1], "{text}");
    }
}
