//! Moments as an operator writes and reads them.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

/// A date, a time, Unix seconds, or how long ago.
pub(super) fn parse(text: &str) -> Result<f64, String> {
    parse_at(text, Timestamp::now().as_microsecond() as f64 / 1e6)
}

fn parse_at(text: &str, now: f64) -> Result<f64, String> {
    if let Some(ago) = seconds_ago(text) {
        return Ok(now - ago);
    }
    if let Ok(seconds) = text.parse::<f64>()
        && seconds.is_finite()
    {
        return Ok(seconds);
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at.as_microsecond() as f64 / 1e6);
    }
    // A date that is followed by a time without a zone would be taken for its midnight.
    let date = Some(text).filter(|text| text.len() == "2026-05-01".len());
    let midnight =
        date.and_then(|date| date.parse::<Date>().ok()).and_then(|date| date.to_zoned(TimeZone::UTC).ok());
    match midnight {
        Some(at) => Ok(at.timestamp().as_second() as f64),
        None => {
            Err("write 2026-05-01, 2026-05-01T12:00:00Z, Unix seconds, or how long ago, as 36h or 7d"
                .to_owned())
        }
    }
}

fn seconds_ago(text: &str) -> Option<f64> {
    let unit_s = match text.chars().next_back()? {
        's' => 1.0,
        'm' => 60.0,
        'h' => 3600.0,
        'd' => 86_400.0,
        _ => return None,
    };
    text[..text.len() - 1].parse::<u32>().ok().map(|count| f64::from(count) * unit_s)
}

/// To the second, in UTC.
pub(crate) fn shown(at: f64) -> String {
    match Timestamp::from_second(at as i64) {
        Ok(at) => at.to_string(),
        Err(_) => at.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_in_every_form() {
        for (text, expected) in [
            ("1000.5", 1000.5),
            ("0", 0.0),
            ("90s", 999_910.0),
            ("2h", 992_800.0),
            ("1d", 913_600.0),
            ("1970-01-02", 86_400.0),
            ("1970-01-01T01:00:00Z", 3600.0),
            ("1970-01-01T01:00:00+01:00", 0.0),
        ] {
            assert_eq!(parse_at(text, 1_000_000.0), Ok(expected), "{text}");
        }
        for wrong in ["", "yesterday", "7w", "-1d", "nan", "2026-13-01", "2026-01-01T12:00"] {
            assert!(parse_at(wrong, 0.0).is_err(), "{wrong}");
        }
        assert_eq!(shown(3600.9), "1970-01-01T01:00:00Z");
    }
}
