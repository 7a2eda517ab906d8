//! Conversation window of WhatsApp: the time after a contact's last message in which free text may be sent to them.
//! Twilio and Meta count 24 hours from the last inbound message of the pair of addresses; other channels are treated
//! alike.

use crate::address::Address;

/// Length of the window, in milliseconds.
const WINDOW_MS: i64 = 24 * 60 * 60 * 1000;

/// Returns the end of the window that a message received at `last_inbound_ms` opened, in milliseconds since 1970.
pub fn expires_ms(last_inbound_ms: i64) -> i64 {
    last_inbound_ms.saturating_add(WINDOW_MS)
}

/// Conversation with a contact, and the time of their last message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The contact.
    pub theirs: Address,
    /// Our number or sender that received the message.
    pub ours: String,
    /// Arrival of their last message, in milliseconds since 1970.
    pub last_inbound_ms: i64,
}

impl Window {
    /// Returns the end of the window, in milliseconds since 1970.
    pub fn expires_ms(&self) -> i64 {
        expires_ms(self.last_inbound_ms)
    }

    /// Returns whether free text may be sent now.
    pub fn is_open(&self, now_ms: i64) -> bool {
        now_ms < self.expires_ms()
    }
}

/// Returns the latest arrival with a closed window at `now_ms`, in milliseconds since 1970.
pub fn closed_by_ms(now_ms: i64) -> i64 {
    now_ms.saturating_sub(WINDOW_MS)
}

/// Formats a time as the API does: RFC 3339 in UTC with milliseconds. Returns `None` outside of the supported years.
pub fn rfc3339(ms: i64) -> Option<String> {
    jiff::Timestamp::from_millisecond(ms).ok().map(|at| format!("{at:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_closes_a_day_after_the_last_message() {
        let last = 1_795_436_897_042; // 2026-11-23T12:28:17.042Z
        assert_eq!(rfc3339(last).unwrap(), "2026-11-23T12:28:17.042Z");
        assert_eq!(rfc3339(expires_ms(last)).unwrap(), "2026-11-24T12:28:17.042Z");
        assert_eq!(rfc3339(expires_ms(i64::MAX)), None);
    }

    #[test]
    fn open_until_the_millisecond_it_expires() {
        let theirs = Address { channel: "sms".into(), number: "+15551234567".into() };
        let window = Window { theirs, ours: "+15550001111".into(), last_inbound_ms: 1_000 };
        let end = window.expires_ms();
        assert!(window.is_open(end - 1) && !window.is_open(end));
        assert_eq!(closed_by_ms(end), window.last_inbound_ms);
        assert!(closed_by_ms(end - 1) < window.last_inbound_ms);
    }
}
