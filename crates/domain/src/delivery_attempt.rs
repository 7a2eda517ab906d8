//! Record of the attempts of one delivery, for operators: a bounded list in JSON, stored with its delivery.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Number of attempts that are stored; older ones are dropped.
const MAX_ATTEMPTS: usize = 20;

/// Longest stored reason, in characters.
const MAX_REASON_CHARS: usize = 500;

/// Longest stored part of an answer, in bytes.
pub const EXCERPT_BYTES: usize = 256;

twilio_edge_contract::string_enum! {
    /// Outcome of an attempt.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
    pub enum AttemptOutcome: serde {
        /// The sink accepted the delivery.
        Delivered = "delivered",
        /// A retry may succeed.
        Failed = "failed",
        /// The sink rejected the delivery for good.
        Refused = "refused",
    }
}

/// One attempt to deliver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryAttempt {
    /// Time of its start, in milliseconds since 1970.
    pub at_ms: i64,
    /// Outcome.
    pub outcome: AttemptOutcome,
    /// HTTP status of the answer; `None` without an answer, and for sinks without such a status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Time until the answer, or until the failure, in milliseconds.
    pub latency_ms: u64,
    /// Reason of a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Beginning of the answer.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub answer: String,
}

/// Adds an attempt to a stored list and returns the list to store.
pub fn append(stored: &str, mut attempt: DeliveryAttempt) -> String {
    if let Some(reason) = &mut attempt.reason
        && let Some((end, _)) = reason.char_indices().nth(MAX_REASON_CHARS)
    {
        reason.truncate(end);
    }
    let mut attempts = read(stored);
    attempts.push(attempt);
    let dropped = attempts.len().saturating_sub(MAX_ATTEMPTS);
    attempts.drain(..dropped);
    serde_json::to_string(&attempts).unwrap_or_default()
}

/// Returns the attempts of a stored list, the oldest first.
pub fn read(stored: &str) -> Vec<DeliveryAttempt> {
    serde_json::from_str(stored).unwrap_or_default()
}

/// Returns the beginning of an answer as text, at most [`EXCERPT_BYTES`] of it, on one line.
pub fn excerpt(answer: &[u8]) -> String {
    let beginning = answer.get(..EXCERPT_BYTES).unwrap_or(answer);
    let text = String::from_utf8_lossy(beginning);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn attempt(at_ms: i64, reason: &str, answer: &[u8]) -> DeliveryAttempt {
        DeliveryAttempt {
            at_ms,
            outcome: AttemptOutcome::Failed,
            status: Some(503),
            latency_ms: 7,
            reason: Some(reason.into()),
            answer: excerpt(answer),
        }
    }

    #[test]
    fn list_keeps_the_last_twenty_attempts_in_order() {
        let stored =
            (0..25).fold(String::new(), |stored, at| append(&stored, attempt(at, "no", b"")));
        let times: Vec<i64> = read(&stored).iter().map(|attempt| attempt.at_ms).collect();
        assert_eq!(times, (5..25).collect::<Vec<i64>>());
        assert_eq!(read("").len() + read("garbled").len(), 0);
        let delivered = DeliveryAttempt {
            outcome: AttemptOutcome::Delivered,
            status: None,
            reason: None,
            ..attempt(3, "", b"")
        };
        assert_eq!(append("", delivered), r#"[{"at_ms":3,"outcome":"delivered","latency_ms":7}]"#);
    }

    #[test]
    fn answer_is_cut_at_its_limit_and_is_one_line() {
        assert_eq!(excerpt(b" try\r\nlater\0 "), "try  later");
        assert_eq!(excerpt("é".repeat(200).as_bytes()), "é".repeat(128));
        assert_eq!(excerpt(&[b'a', 0xff]), "a\u{fffd}");
        let stored = append("", attempt(1, &"é".repeat(600), b"x"));
        assert_eq!(read(&stored)[0].reason.as_ref().unwrap().chars().count(), 500);
    }

    proptest! {
        /// Property: any attempt is read back as it was stored.
        #[test]
        fn attempt_is_read_as_stored(at in any::<i64>(), reason in ".{0,40}", answer in prop::collection::vec(any::<u8>(), 0..400)) {
            let attempt = attempt(at, &reason, &answer);
            prop_assert_eq!(read(&append("", attempt.clone())), [attempt]);
        }
    }
}
