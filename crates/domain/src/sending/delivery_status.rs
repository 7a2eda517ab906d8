//! Effect of a reported delivery status on a message that Twilio accepted: the status of the message, and whether the message
//! is sent again. The order of the reports decides nothing (`status.rs`). A message is sent again only if the table of error
//! codes excludes that it was delivered. Pure: the caller passes the time and the random number.

use super::errors::ErrorTable;
use crate::status::{CallbackStatus, Status, current_status};

/// Factor between the pauses before two repetitions of a message.
const PAUSE_FACTOR: i64 = 4;

/// Longest pause before a repetition: a day, in which WhatsApp's limit for a business portfolio ends.
const MAX_PAUSE_MS: i64 = 86_400_000;

/// Delivery of a message so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery<'a> {
    /// Delivery status; empty before the first report.
    pub status: &'a str,
    /// Error code of that status; empty without one.
    pub code: &'a str,
    /// Number of times the message was sent again after a failed delivery.
    pub repetitions: i64,
    /// Time until which the message may be sent again, in milliseconds since 1970; 0 if its text is no longer stored.
    pub repeat_until_ms: i64,
}

/// Effect of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StatusEffect {
    /// The report adds nothing.
    Unchanged,
    /// The message has this status.
    Changed(StatusChange),
    /// The message certainly was not delivered, and is sent again.
    Repeat {
        /// Status of the failed delivery.
        change: StatusChange,
        /// Time of the repetition, in milliseconds since 1970.
        due_at_ms: i64,
    },
}

/// New status of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusChange {
    /// Status, in Twilio's words.
    pub status: String,
    /// Error code; empty without one.
    pub code: String,
    /// True if this is the first report of the delivery.
    pub is_first_delivery: bool,
    /// True if the message failed without having been delivered before: a fallback may replace it.
    pub is_failure: bool,
}

impl StatusChange {
    /// Returns whether the text of the message is no longer needed.
    pub fn is_final(&self) -> bool {
        is_final(&self.status)
    }
}

/// Returns whether the status ends the delivery. A message may still become `read` after `delivered`.
pub fn is_final(status: &str) -> bool {
    is_delivered(status) || is_failed(status) || status == Status::Canceled.as_str()
}

/// Returns whether the message arrived.
pub fn is_delivered(status: &str) -> bool {
    matches!(Status::parse(status), Some(Status::Delivered | Status::Read))
}

/// Returns whether the message failed for good.
pub fn is_failed(status: &str) -> bool {
    matches!(Status::parse(status), Some(Status::Failed | Status::Undelivered))
}

/// Decides the effect of one report. `first_pause_ms` is the pause before the first repetition; 0 disables repetitions.
pub fn status_effect(
    delivery: Delivery<'_>,
    report: CallbackStatus<'_>,
    errors: &ErrorTable,
    first_pause_ms: i64,
    (now_ms, dice): (i64, u64),
) -> StatusEffect {
    let known = CallbackStatus {
        word: delivery.status,
        error_code: Some(delivery.code).filter(|code| !code.is_empty()),
    };
    let known = Some(known).filter(|known| !known.word.is_empty());
    let Some(current) = current_status(known.into_iter().chain([report])) else {
        return StatusEffect::Unchanged;
    };
    let code = current.error_code.unwrap_or_default();
    if current.word == delivery.status && code == delivery.code {
        return StatusEffect::Unchanged;
    }
    let had_ended = is_final(delivery.status);
    let change = StatusChange {
        status: current.word.to_owned(),
        code: code.to_owned(),
        is_first_delivery: is_delivered(current.word) && !is_delivered(delivery.status),
        is_failure: is_failed(current.word) && !had_ended,
    };
    let may_repeat = change.is_failure && first_pause_ms > 0 && errors.permits_resend(code);
    let due_at_ms = now_ms.saturating_add(pause_ms(delivery.repetitions, first_pause_ms, dice));
    match may_repeat && due_at_ms < delivery.repeat_until_ms {
        true => StatusEffect::Repeat { change, due_at_ms },
        false => StatusEffect::Changed(change),
    }
}

/// Returns the pause before the next repetition: four times the previous one, and up to a quarter more at random, so that
/// messages that failed together are not sent together.
fn pause_ms(repetitions: i64, first_pause_ms: i64, dice: u64) -> i64 {
    let step = u32::try_from(repetitions.clamp(0, 16)).unwrap_or_default();
    let pause = first_pause_ms.saturating_mul(PAUSE_FACTOR.saturating_pow(step)).min(MAX_PAUSE_MS);
    let jitter = u64::try_from(pause / 4).unwrap_or_default().max(1);
    pause.saturating_add(i64::try_from(dice % jitter).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sending::errors::built_in;

    const HOUR_MS: i64 = 3_600_000;

    fn delivery<'a>(status: &'a str, code: &'a str) -> Delivery<'a> {
        Delivery { status, code, repetitions: 0, repeat_until_ms: 4 * HOUR_MS }
    }

    fn effect(delivery: Delivery<'_>, word: &str, code: &str) -> StatusEffect {
        let report =
            CallbackStatus { word, error_code: Some(code).filter(|code| !code.is_empty()) };
        status_effect(delivery, report, &built_in(), 60_000, (0, 0))
    }

    #[test]
    fn status_of_a_message_never_regresses() {
        for (before, report, after) in [
            ("", "sent", Some("sent")),
            ("sent", "delivered", Some("delivered")),
            ("delivered", "sent", None),
            ("delivered", "read", Some("read")),
            ("read", "delivered", None),
            ("read", "failed", Some("failed")),
            ("failed", "delivered", None),
        ] {
            let changed = match effect(delivery(before, ""), report, "") {
                StatusEffect::Changed(change) => Some(change.status),
                _ => None,
            };
            assert_eq!(changed.as_deref(), after, "{before} {report}");
        }
    }

    #[test]
    fn message_is_repeated_at_growing_intervals_until_its_end() {
        let at = |repetitions, repeat_until_ms| {
            let delivery = Delivery { repetitions, repeat_until_ms, ..delivery("sent", "") };
            match effect(delivery, "failed", "63018") {
                StatusEffect::Repeat { due_at_ms, .. } => Some(due_at_ms),
                _ => None,
            }
        };
        assert_eq!(at(0, 4 * HOUR_MS), Some(60_000));
        assert_eq!(at(1, 4 * HOUR_MS), Some(240_000));
        assert_eq!(at(3, 4 * HOUR_MS), Some(3_840_000));
        assert_eq!(at(4, 4 * HOUR_MS), None, "it would be after the end");
        assert_eq!(at(4, 40 * HOUR_MS), Some(15_360_000));
        assert_eq!(at(i64::MAX, i64::MAX), Some(MAX_PAUSE_MS));
        assert_eq!(at(0, 0), None, "the text is not stored");
    }

    #[test]
    fn only_a_first_failure_with_a_certain_code_is_repeated() {
        let is_repeated = |before: &str, word: &str, code: &str| {
            matches!(effect(delivery(before, ""), word, code), StatusEffect::Repeat { .. })
        };
        assert!(is_repeated("", "failed", "63018"));
        assert!(is_repeated("sent", "undelivered", "30022"));
        for (before, word, code) in [
            ("sent", "failed", "30003"),
            ("sent", "failed", ""),
            ("sent", "failed", "63016"),
            ("sent", "delivered", "63018"),
            ("delivered", "failed", "63018"),
            ("read", "undelivered", "63018"),
            ("failed", "failed", "63018"),
            ("canceled", "failed", "63018"),
        ] {
            assert!(!is_repeated(before, word, code), "{before} {word} {code}");
        }
        let report = CallbackStatus { word: "failed", error_code: Some("63018") };
        let disabled = status_effect(delivery("sent", ""), report, &built_in(), 0, (0, 0));
        assert!(matches!(disabled, StatusEffect::Changed(change) if change.is_failure));
    }

    #[test]
    fn delivery_is_counted_once() {
        let is_first = |before: &str, word: &str| match effect(delivery(before, ""), word, "") {
            StatusEffect::Changed(change) => change.is_first_delivery,
            _ => false,
        };
        assert!(is_first("sent", "delivered") && is_first("sent", "read"));
        assert!(!is_first("delivered", "read") && !is_first("delivered", "failed"));
    }

    proptest! {
        /// A message that arrived is never sent again, in any order of the reports and with any table.
        #[test]
        fn delivered_message_is_never_repeated(
            reports in prop::collection::vec((
                prop::sample::select(vec!["queued", "sent", "delivered", "read", "failed", "undelivered", "x"]),
                prop::sample::select(vec!["", "63018", "30003", "30001"]),
            ), 1..8),
            dice: u64,
        ) {
            let (mut status, mut code, mut has_arrived) = (String::new(), String::new(), false);
            for (word, reported) in reports {
                let report = CallbackStatus { word, error_code: Some(reported).filter(|code| !code.is_empty()) };
                let now = delivery(&status, &code);
                match status_effect(now, report, &built_in(), 1, (0, dice)) {
                    StatusEffect::Repeat { .. } => { prop_assert!(!has_arrived); break; }
                    StatusEffect::Changed(change) => {
                        prop_assert!(Status::parse(&change.status) >= Status::parse(&status) || status.is_empty());
                        has_arrived |= is_delivered(&change.status);
                        (status, code) = (change.status, change.code);
                    }
                    StatusEffect::Unchanged => {}
                }
            }
        }
    }
}
