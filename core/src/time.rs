//! Times as milliseconds since the Unix epoch (UTC), and their text at the edge.

use jiff::Timestamp;

/// The earliest event time that is believed: 2000-01-01T00:00:00Z.
pub const EARLIEST_MS: i64 = 946_684_800_000;
/// The latest event time that is believed: 2100-01-01T00:00:00Z.
pub const LATEST_MS: i64 = 4_102_444_800_000;

/// Reads an RFC 3339 time ("2026-01-31T12:00:00.250Z"). `None` if it is not one.
pub fn parse_rfc3339_ms(text: &str) -> Option<i64> {
    text.parse::<Timestamp>().ok().map(|t| t.as_millisecond())
}

/// Writes a time as RFC 3339 in UTC with milliseconds; a time that no calendar has is written as its number.
pub fn format_rfc3339_ms(ms: i64) -> String {
    match Timestamp::from_millisecond(ms) {
        Ok(t) => format!("{t:.3}"),
        Err(_) => ms.to_string(),
    }
}

/// Reads a duration in Prometheus spelling: `250ms`, `90s`, `5m`, `1h`, `7d`. Whole units only, more than zero.
pub fn parse_duration_ms(text: &str) -> Option<i64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<i64>().ok()?.checked_mul(unit_ms).filter(|ms| *ms > 0)
}

/// Writes a duration in the largest unit that divides it.
pub fn format_duration_ms(ms: i64) -> String {
    for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if ms != 0 && ms % size == 0 {
            return format!("{}{unit}", ms / size);
        }
    }
    format!("{ms}ms")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_round_trip_through_text() {
        for ms in [0, 1_760_000_000_123, EARLIEST_MS, LATEST_MS - 1] {
            assert_eq!(parse_rfc3339_ms(&format_rfc3339_ms(ms)), Some(ms));
        }
        assert_eq!(parse_rfc3339_ms("2025-10-09T08:53:20.123+02:00"), Some(1_759_992_800_123));
        assert_eq!(parse_rfc3339_ms("yesterday"), None);
    }

    #[test]
    fn durations_have_a_unit_and_are_positive() {
        assert_eq!(parse_duration_ms("90s"), Some(90_000));
        assert_eq!(parse_duration_ms("7d"), Some(604_800_000));
        for bad in ["", "90", "s", "-1s", "0s", "1.5h", "99999999999999999d", "1w"] {
            assert_eq!(parse_duration_ms(bad), None, "{bad}");
        }
        assert_eq!(format_duration_ms(90_000), "90s");
        assert_eq!(format_duration_ms(120_000), "2m");
        assert_eq!(format_duration_ms(250), "250ms");
    }
}
