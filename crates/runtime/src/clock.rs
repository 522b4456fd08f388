//! The time, in the wire's unit.

/// Unix seconds with fractions (contract §1).
pub(crate) fn now() -> f64 {
    jiff::Timestamp::now().as_microsecond() as f64 / 1e6
}

/// Today in UTC, `YYYY-MM-DD`.
pub(crate) fn today() -> String {
    jiff::Timestamp::now().to_string().chars().take(10).collect()
}
