//! Reason of a failed call of Twilio, as a closed set of words for a metric. It decides nothing about the message. Pure.

use super::{
    errors::{Actor, Errors},
    outcome::Answer,
};

/// Reason why a call created no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failing {
    /// Twilio throttled the call (429, 20429).
    Throttled,
    /// Code of a temporary error, which is retried.
    Passing,
    /// Code that the operator can resolve.
    Operator,
    /// Code that the caller can resolve.
    Caller,
    /// Code that the recipient can resolve.
    Recipient,
    /// Code that is not in the table, or an answer without a code.
    Other,
    /// Twilio, or a proxy before it, failed.
    Server,
    /// No answer came.
    Lost,
    /// No connection could be opened.
    NotConnected,
}

impl Failing {
    /// All reasons.
    pub const ALL: [Failing; 9] = [
        Failing::Throttled,
        Failing::Passing,
        Failing::Operator,
        Failing::Caller,
        Failing::Recipient,
        Failing::Other,
        Failing::Server,
        Failing::Lost,
        Failing::NotConnected,
    ];

    /// Returns the label value of the metric.
    pub fn as_str(self) -> &'static str {
        match self {
            Failing::Throttled => "throttled",
            Failing::Passing => "passing",
            Failing::Operator => "operator",
            Failing::Caller => "caller",
            Failing::Recipient => "recipient",
            Failing::Other => "other",
            Failing::Server => "server",
            Failing::Lost => "lost",
            Failing::NotConnected => "not_connected",
        }
    }

    /// Returns the reason of an answer; `None` if the answer created a message.
    pub fn of(answer: &Answer, errors: &Errors) -> Option<Failing> {
        let (status, body) = match answer {
            Answer::NotConnected(_) => return Some(Failing::NotConnected),
            Answer::Lost(_) => return Some(Failing::Lost),
            Answer::Http { status, body, .. } => (*status, body),
        };
        let code = || {
            let said = serde_json::from_slice::<serde_json::Value>(body).ok()?;
            errors.get(said.get("code")?.as_i64()?)
        };
        Some(match status {
            200..=299 => return None,
            429 => Failing::Throttled,
            300..=499 if status != 408 => match code().map(|entry| entry.actor) {
                Some(Actor::Nobody) => Failing::Passing,
                Some(Actor::Operator) => Failing::Operator,
                Some(Actor::Caller) => Failing::Caller,
                Some(Actor::Recipient) => Failing::Recipient,
                None => Failing::Other,
            },
            _ => Failing::Server,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sending::errors::usual;

    #[test]
    fn every_failure_has_a_word() {
        let of = |status, code: u32| {
            let body = format!("{{\"code\":{code}}}").into_bytes();
            Failing::of(&Answer::Http { status, retry_after: None, body }, &usual())
        };
        for (status, code, expected) in [
            (201, 0, None),
            (429, 20429, Some(Failing::Throttled)),
            (400, 21611, Some(Failing::Passing)),
            (401, 20003, Some(Failing::Operator)),
            (400, 21617, Some(Failing::Caller)),
            (400, 21610, Some(Failing::Recipient)),
            (400, 12345, Some(Failing::Other)),
            (408, 20003, Some(Failing::Server)),
            (503, 20503, Some(Failing::Server)),
        ] {
            assert_eq!(of(status, code), expected, "{status} {code}");
        }
        assert_eq!(Failing::of(&Answer::Lost(String::new()), &usual()), Some(Failing::Lost));
        let html = Answer::Http { status: 400, retry_after: None, body: b"<html>".to_vec() };
        assert_eq!(Failing::of(&html, &usual()), Some(Failing::Other));
    }
}
