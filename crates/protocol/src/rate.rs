//! Usage windows: how much a caller has used in the hour and the day, what it may use, and when there will be room
//! again. Pure: the minutes come from the store, the time from the caller.
//!
//! A window is the current minute and those before it, so it moves in steps of a minute and what is kept is bounded.

use serde::{Deserialize, Serialize};

/// The two windows of every bucket (contract §8).
pub const WINDOWS: [Window; 2] =
    [Window { name: "hour", minutes: 60 }, Window { name: "day", minutes: 24 * 60 }];

/// One window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// As the wire names it.
    pub name: &'static str,
    /// The current one and those before it.
    pub minutes: i64,
}

/// What is counted together; buckets do not know of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bucket {
    /// Turns of sessions.
    SessionTurn,
    /// Stateless responses.
    Response,
}

impl Bucket {
    /// As the wire and the store name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::SessionTurn => "session_turn",
            Self::Response => "response",
        }
    }
}

/// What one window lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowLimit {
    /// Turns.
    pub turns_max: u64,
    /// Tokens; what is running may exceed it, and nothing new starts from then on.
    pub tokens_max: u64,
}

/// What each of [`WINDOWS`] lets through, in their order; `None` is a window that is switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimits(pub [Option<WindowLimit>; 2]);

impl Default for RateLimits {
    /// Contract §1.
    fn default() -> Self {
        Self([
            Some(WindowLimit { turns_max: 300, tokens_max: 20_000_000 }),
            Some(WindowLimit { turns_max: 5_000, tokens_max: 200_000_000 }),
        ])
    }
}

/// What was used in a minute, or in a window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    /// Turns that were started.
    pub turns: u64,
    /// Tokens of the model calls that ended.
    pub tokens: u64,
}

/// One minute of one caller in one bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MinuteUsed {
    /// Unix time in whole minutes.
    pub minute: i64,
    /// What was used in it.
    pub used: Used,
}

/// The minute of a time in Unix seconds.
pub fn minute_of(now: f64) -> i64 {
    (now / 60.0).floor() as i64
}

/// What stands in the window that ends with the minute `now_minute`.
pub fn used_in(window: Window, minutes: &[MinuteUsed], now_minute: i64) -> Used {
    minutes.iter().filter(|at| at.minute > now_minute - window.minutes).fold(Used::default(), |sum, at| {
        Used {
            turns: sum.turns.saturating_add(at.used.turns),
            tokens: sum.tokens.saturating_add(at.used.tokens),
        }
    })
}

impl WindowLimit {
    /// Whether one more turn may start.
    pub fn has_room(&self, used: Used) -> bool {
        used.turns < self.turns_max && used.tokens < self.tokens_max
    }
}

/// The window that refuses a turn at `now` (Unix seconds), and after how many whole seconds no window would: when
/// enough has fallen out of each. `None` when a turn may start. `minutes` in any order.
pub fn refusal(limits: &RateLimits, minutes: &[MinuteUsed], now: f64) -> Option<(Window, u64)> {
    let now_minute = minute_of(now);
    let mut sorted = minutes.to_vec();
    sorted.sort_unstable_by_key(|at| at.minute);
    let mut longest = None;
    for (window, limit) in WINDOWS.into_iter().zip(limits.0) {
        let Some(limit) = limit else { continue };
        let Some(free_minute) = free_at(window, limit, &sorted, now_minute) else { continue };
        let wait_s = ((free_minute * 60) as f64 - now).ceil().max(1.0) as u64;
        if longest.is_none_or(|(_, longest_s)| wait_s > longest_s) {
            longest = Some((window, wait_s));
        }
    }
    longest
}

/// The first minute in which the window has room again; `None` when it has.
fn free_at(window: Window, limit: WindowLimit, sorted: &[MinuteUsed], now_minute: i64) -> Option<i64> {
    if limit.has_room(used_in(window, sorted, now_minute)) {
        return None;
    }
    let leaving = sorted.iter().map(|at| at.minute + window.minutes).filter(|minute| *minute > now_minute);
    let mut last = now_minute + window.minutes;
    for minute in leaving {
        last = minute;
        if limit.has_room(used_in(window, sorted, minute)) {
            break;
        }
    }
    Some(last)
}

/// `GET /v1/usage` (contract §8).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct UsageReport {
    /// What the caller has used of what it may.
    pub rate_limit: RateLimitReport,
    /// What its tenant can pay with.
    pub credits: CreditsReport,
}

/// See [`UsageReport::rate_limit`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RateLimitReport {
    /// The token that asked, by its configured id.
    pub caller_id: String,
    /// Independent of each other.
    pub buckets: BucketsReport,
}

/// See [`RateLimitReport::buckets`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BucketsReport {
    /// Turns of sessions.
    pub session_turn: BucketReport,
    /// Stateless responses.
    pub response: BucketReport,
}

/// One bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BucketReport {
    /// The hour, then the day.
    pub windows: Vec<WindowReport>,
}

/// One window of a bucket: the current minute and those before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WindowReport {
    /// `hour` or `day`.
    pub name: String,
    /// Its length.
    pub duration_seconds: u64,
    /// Turns that were started in it.
    pub turns: u64,
    /// How many may be; of no meaning when the window is not enabled.
    pub max_turns: u64,
    /// Tokens of the model calls that ended in it.
    pub tokens: u64,
    /// From how many on nothing new starts; of no meaning when the window is not enabled.
    pub max_tokens: u64,
    /// Whether it refuses anything.
    pub enabled: bool,
}

/// See [`UsageReport::credits`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CreditsReport {
    /// Whether the tenant has a ledger.
    pub enabled: bool,
    /// `soft` records and never refuses; `hard` refuses with 402.
    pub mode: crate::money::CreditMode,
    /// In credits; paired tenants have one.
    pub balance: f64,
}

impl BucketReport {
    /// What a caller is shown, of what it has used in the windows in their order.
    pub fn new(limits: &RateLimits, used: [Used; 2]) -> Self {
        let report = |((window, limit), used): ((Window, Option<WindowLimit>), Used)| {
            let shown = limit.unwrap_or(WindowLimit { turns_max: 0, tokens_max: 0 });
            WindowReport {
                name: window.name.to_owned(),
                duration_seconds: window.minutes.unsigned_abs() * 60,
                turns: used.turns,
                max_turns: shown.turns_max,
                tokens: used.tokens,
                max_tokens: shown.tokens_max,
                enabled: limit.is_some(),
            }
        };
        Self { windows: WINDOWS.into_iter().zip(limits.0).zip(used).map(report).collect() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(minute: i64, turns: u64, tokens: u64) -> MinuteUsed {
        MinuteUsed { minute, used: Used { turns, tokens } }
    }

    fn limits(hour: Option<(u64, u64)>, day: Option<(u64, u64)>) -> RateLimits {
        let limit = |(turns_max, tokens_max)| WindowLimit { turns_max, tokens_max };
        RateLimits([hour.map(limit), day.map(limit)])
    }

    #[test]
    fn when_there_is_room_again() {
        // The time is the start of minute 10,000 and half a minute.
        let now = 10_000.0 * 60.0 + 30.0;
        let both = limits(Some((3, 100)), Some((5, 150)));
        for (name, limits, minutes, expected) in [
            ("nothing was used", both, vec![], None),
            ("one below the limit", both, vec![at(10_000, 2, 99)], None),
            ("turns: the oldest leaves", both, vec![at(9_990, 1, 0), at(10_000, 2, 0)], Some(("hour", 2970))),
            ("turns: two have to leave", both, vec![at(9_990, 1, 0), at(9_995, 3, 0)], Some(("hour", 3270))),
            ("tokens", both, vec![at(9_999, 1, 100)], Some(("hour", 3510))),
            (
                "the hour's oldest minute still counts",
                both,
                vec![at(9_941, 1, 0), at(10_000, 2, 0)],
                Some(("hour", 30)),
            ),
            ("the one before it does not", both, vec![at(9_940, 1, 0), at(10_000, 2, 0)], None),
            ("the day, when the hour is free", both, vec![at(9_000, 5, 0)], Some(("day", 26_370))),
            ("the longer wait is told", both, vec![at(9_000, 3, 0), at(10_000, 3, 0)], Some(("day", 26_370))),
            ("a window that is off", limits(None, Some((5, 150))), vec![at(10_000, 4, 149)], None),
            ("both off", limits(None, None), vec![at(10_000, 1_000, 1_000)], None),
        ] {
            let refused = refusal(&limits, &minutes, now).map(|(window, wait_s)| (window.name, wait_s));
            assert_eq!(refused, expected, "{name}");
        }
    }

    #[test]
    fn the_report_has_the_contracts_shape() {
        let used = |turns, tokens| Used { turns, tokens };
        let report = BucketReport::new(&limits(Some((3, 100)), None), [used(1, 40), used(3, 45)]);
        assert_eq!(
            serde_json::to_value(report).unwrap(),
            serde_json::json!({"windows": [
                {"name": "hour", "duration_seconds": 3600, "turns": 1, "max_turns": 3, "tokens": 40, "max_tokens": 100, "enabled": true},
                {"name": "day", "duration_seconds": 86400, "turns": 3, "max_turns": 0, "tokens": 45, "max_tokens": 0, "enabled": false},
            ]})
        );
    }

    proptest! {
        /// The wait is the shortest: a second before its end a turn is refused, at its end it is not.
        #[test]
        fn a_wait_is_long_enough_and_no_longer(
            minutes in proptest::collection::vec((8_500_i64..=10_000, 0_u64..4, 0_u64..50), 0..40),
            hour in (1_u64..10, 1_u64..100), day in (1_u64..20, 1_u64..200), second in 0_u32..60,
        ) {
            let minutes: Vec<MinuteUsed> = minutes.into_iter().map(|(m, turns, tokens)| at(m, turns, tokens)).collect();
            let limits = limits(Some(hour), Some(day));
            let now = 10_000.0 * 60.0 + f64::from(second);
            let has_room = |now: f64| {
                WINDOWS.into_iter().zip(limits.0).all(|(window, limit)| limit.unwrap().has_room(used_in(window, &minutes, minute_of(now))))
            };
            match refusal(&limits, &minutes, now) {
                None => prop_assert!(has_room(now)),
                Some((_, wait_s)) => {
                    prop_assert!(!has_room(now) && has_room(now + wait_s as f64));
                    prop_assert!(wait_s <= 86_400);
                    prop_assert!(wait_s == 1 || !has_room(now + (wait_s - 1) as f64));
                }
            }
        }
    }
}
