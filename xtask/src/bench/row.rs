//! One line of the report: a figure, what it should be, and what it cannot be less than.

use std::time::Duration;

/// What a figure counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Unit {
    Milliseconds,
    Kibibytes,
}

impl Unit {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Milliseconds => "ms",
            Self::Kibibytes => "KiB",
        }
    }
}

/// What something else costs that does the least that could do.
#[derive(Debug, Clone)]
pub(super) struct Floor {
    pub(super) what: String,
    pub(super) p50: f64,
}

/// A figure. Memory has a mean in place of percentiles: it stands as the p50.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) what: String,
    pub(super) unit: Unit,
    pub(super) p50: f64,
    pub(super) p99: Option<f64>,
    pub(super) count: usize,
    pub(super) goal_p50: Option<f64>,
    pub(super) goal_p99: Option<f64>,
    pub(super) floor: Option<Floor>,
    pub(super) note: Option<String>,
}

impl Row {
    /// Times, of which there must be one.
    pub(super) fn times(what: &str, mut samples: Vec<Duration>) -> Self {
        samples.sort_unstable();
        let ms = |quantile: f64| percentile(&samples, quantile).as_secs_f64() * 1e3;
        let (p50, p99, count) = (ms(0.5), Some(ms(0.99)), samples.len());
        Self { p99, count, ..Self::mean(what, Unit::Milliseconds, p50, 0) }
    }

    /// One figure for all of `count` things.
    pub(super) fn mean(what: &str, unit: Unit, mean: f64, count: usize) -> Self {
        let what = what.to_owned();
        Self {
            what,
            unit,
            p50: mean,
            p99: None,
            count,
            goal_p50: None,
            goal_p99: None,
            floor: None,
            note: None,
        }
    }

    pub(super) fn goal(mut self, p50: f64) -> Self {
        self.goal_p50 = Some(p50);
        self
    }

    pub(super) fn goal_p99(mut self, p99: f64) -> Self {
        self.goal_p99 = Some(p99);
        self
    }

    /// The sum of these is the floor.
    pub(super) fn above(mut self, floors: &[&Row]) -> Self {
        let what = floors.iter().map(|row| row.what.as_str()).collect::<Vec<_>>().join(" + ");
        self.floor = Some(Floor { what, p50: floors.iter().map(|row| row.p50).sum() });
        self
    }

    pub(super) fn note(mut self, note: String) -> Self {
        self.note = Some(note);
        self
    }

    /// How many times its floor.
    pub(super) fn ratio(&self) -> Option<f64> {
        self.floor.as_ref().map(|floor| self.p50 / floor.p50)
    }

    /// Whether it reaches every goal it has; `None` without one.
    pub(super) fn is_met(&self) -> Option<bool> {
        let p50 = self.goal_p50.map(|goal| self.p50 <= goal);
        let p99 = self.goal_p99.map(|goal| self.p99.is_some_and(|p99| p99 <= goal));
        match (p50, p99) {
            (None, None) => None,
            (p50, p99) => Some(p50.unwrap_or(true) && p99.unwrap_or(true)),
        }
    }
}

/// Nearest rank; zero when there is nothing.
fn percentile(sorted: &[Duration], quantile: f64) -> Duration {
    let rank = (quantile * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let row = Row::times("x", (1..=200).rev().map(Duration::from_millis).collect());
        assert_eq!((row.p50, row.p99, row.count), (100.0, Some(198.0), 200));
        let one = Row::times("x", vec![Duration::from_millis(7)]);
        assert_eq!((one.p50, one.p99), (7.0, Some(7.0)));
    }

    #[test]
    fn a_goal_is_met_when_each_of_its_parts_is() {
        let row = Row::times("x", vec![Duration::from_millis(1), Duration::from_millis(9)]);
        assert_eq!(row.is_met(), None);
        assert_eq!(row.clone().goal(1.0).is_met(), Some(true));
        assert_eq!(row.clone().goal(0.9).is_met(), Some(false));
        assert_eq!(row.clone().goal(1.0).goal_p99(8.0).is_met(), Some(false));
        assert_eq!(row.goal(1.0).goal_p99(9.0).is_met(), Some(true));
    }

    #[test]
    fn a_floor_may_be_a_sum() {
        let [a, b] = [2, 3].map(|ms| Row::times("f", vec![Duration::from_millis(ms)]));
        let row = Row::times("x", vec![Duration::from_millis(10)]).above(&[&a, &b]);
        assert_eq!(row.ratio(), Some(2.0));
        assert_eq!(row.floor.unwrap().what, "f + f");
    }
}
