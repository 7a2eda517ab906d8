//! Counters of outbound messages: the events that are counted, and the dimensions by which they are shown. Pure.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Length of the shortest period of a statistic, in milliseconds.
pub const HOUR_MS: i64 = 3_600_000;

twilio_edge_contract::string_enum! {
    /// Counted event of a message. Each is counted at most once for a message, except for `repeated`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum MessageEvent {
        /// The sidecar stored the message.
        Accepted = "accepted",
        /// Twilio accepted the message.
        Sent = "sent",
        /// The message arrived.
        Delivered = "delivered",
        /// The recipient opened the message.
        Read = "read",
        /// Twilio accepted the message, and its delivery failed for good.
        Failed = "failed",
        /// A rule or Twilio refused the message.
        Refused = "refused",
        /// The delivery failed, and the message is sent again.
        Repeated = "repeated",
    }
}

twilio_edge_contract::string_enum! {
    /// Dimension of a statistic.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
    pub enum Dimension: serde {
        /// Own number, sender id or Messaging Service.
        Sender = "sender",
        /// Name of the template, or its content SID if the catalogue does not have it.
        Template = "template",
        /// Country of the recipient, in two letters.
        Country = "country",
        /// Channel of the message.
        Channel = "channel",
        /// Error code of a failure or refusal.
        Code = "code",
        /// Hour of the event.
        Hour = "hour",
    }
}

/// Counts of one group of messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct MessageTotals {
    /// Messages that the sidecar stored.
    pub accepted: i64,
    /// Messages that Twilio accepted.
    pub sent: i64,
    /// Messages that arrived.
    pub delivered: i64,
    /// Messages that the recipients opened; not every channel reports this.
    pub read: i64,
    /// Messages whose delivery failed for good.
    pub failed: i64,
    /// Messages that a rule or Twilio refused.
    pub refused: i64,
    /// Repetitions of messages after a failed delivery.
    pub repeated: i64,
}

impl MessageTotals {
    /// Adds events to the counts.
    pub fn add(&mut self, event: MessageEvent, count: i64) {
        let total = match event {
            MessageEvent::Accepted => &mut self.accepted,
            MessageEvent::Sent => &mut self.sent,
            MessageEvent::Delivered => &mut self.delivered,
            MessageEvent::Read => &mut self.read,
            MessageEvent::Failed => &mut self.failed,
            MessageEvent::Refused => &mut self.refused,
            MessageEvent::Repeated => &mut self.repeated,
        };
        *total = total.saturating_add(count);
    }
}

/// Returns the start of the hour of a time, in milliseconds since 1970.
pub fn hour_of(at_ms: i64) -> i64 {
    at_ms.div_euclid(HOUR_MS).saturating_mul(HOUR_MS)
}

/// Returns the hours that a period touches: its first hour, and the end of its last one.
pub fn whole_hours(since_ms: i64, until_ms: i64) -> (i64, i64) {
    let last = hour_of(until_ms);
    let until_ms = if last < until_ms { last.saturating_add(HOUR_MS) } else { last };
    (hour_of(since_ms), until_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn period_is_rounded_to_whole_hours() {
        let hour = HOUR_MS;
        assert_eq!(whole_hours(0, hour), (0, hour));
        assert_eq!(whole_hours(1, hour + 1), (0, 2 * hour));
        assert_eq!(whole_hours(hour - 1, hour - 1), (0, hour));
        assert_eq!(whole_hours(-1, 0), (-hour, 0));
        assert_eq!(hour_of(i64::MAX / 2) % hour, 0);
    }

    #[test]
    fn each_event_has_its_count() {
        let mut totals = MessageTotals::default();
        for (event, count) in MessageEvent::ALL.into_iter().zip(1..) {
            totals.add(event, count);
        }
        let expected = MessageTotals {
            accepted: 1,
            sent: 2,
            delivered: 3,
            read: 4,
            failed: 5,
            refused: 6,
            repeated: 7,
        };
        assert_eq!(totals, expected);
    }
}
