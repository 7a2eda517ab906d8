//! Parser of times in queries, settings and imports: a day in UTC, or an instant with its zone. This module does not
//! know the purpose of a time.

use jiff::{Timestamp, civil::Date};

/// One day, in milliseconds.
pub const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Returns the start of a day in UTC, in milliseconds since 1970.
pub fn day(text: &str) -> Result<i64, String> {
    let problem = || format!("{text} is not a date: use YYYY-MM-DD");
    let day: Date = text.parse().map_err(|_| problem())?;
    let start: Timestamp = format!("{day}T00:00:00Z").parse().map_err(|_| problem())?;
    Ok(start.as_millisecond())
}

/// Returns an instant, or the start of a day, in milliseconds since 1970.
pub fn instant(text: &str) -> Result<i64, String> {
    match text.parse::<Timestamp>() {
        Ok(at) => Ok(at.as_millisecond()),
        // Without this check, a time without a zone would be parsed as a day, and its hours would be lost.
        Err(_) if text.contains(['T', 't', ' ', ':']) => Err(format!(
            "{text} is not a time: use RFC 3339 with a time zone, as in 2026-11-23T12:00:00Z"
        )),
        Err(_) => day(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn day_is_24_hours_of_utc() {
        assert_eq!(day("2026-11-23"), Ok(1_795_392_000_000));
        assert_eq!(instant("2026-11-23"), day("2026-11-23"));
        assert_eq!(instant("2026-11-23T01:00:00+01:00"), day("2026-11-23"));
        for bad in ["yesterday", "2026-11-31", "2026-11-23T12:00:00", "2026-11-23 12:00"] {
            assert!(instant(bad).unwrap_err().starts_with(bad), "{bad}");
        }
    }
}
