//! The customer-service window: how long after a person's last message free text may be sent to them. Twilio and
//! Meta count 24 hours from the last inbound message of the pair of addresses; other channels are treated alike.

/// Length of the window.
const WINDOW_MS: i64 = 24 * 60 * 60 * 1000;

/// When the window ends that was opened by a message received at `last_inbound_ms`.
pub fn expires_ms(last_inbound_ms: i64) -> i64 {
    last_inbound_ms.saturating_add(WINDOW_MS)
}

/// A time as the wire has it: RFC 3339 in UTC, milliseconds kept. None for years no calendar has.
pub fn rfc3339(ms: i64) -> Option<String> {
    jiff::Timestamp::from_millisecond(ms).ok().map(|at| format!("{at:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_after_the_last_message() {
        let last = 1_795_436_897_042; // 2026-11-23T12:28:17.042Z
        assert_eq!(rfc3339(last).unwrap(), "2026-11-23T12:28:17.042Z");
        assert_eq!(rfc3339(expires_ms(last)).unwrap(), "2026-11-24T12:28:17.042Z");
        assert_eq!(rfc3339(expires_ms(i64::MAX)), None);
    }
}
