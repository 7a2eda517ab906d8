//! Reason of a failed call of Twilio, as a closed set of words for a metric. It decides nothing about the message. Pure.

use super::{errors::ErrorTable, outcome::CallResponse};
use crate::actor::Actor;

twilio_edge_contract::string_enum! {
    /// Reason why a call created no message.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum CallFailure {
        /// Twilio throttled the call (429, 20429).
        Throttled = "throttled",
        /// Code of a temporary error, which is retried.
        Temporary = "temporary",
        /// Code that the operator can resolve.
        Operator = "operator",
        /// Code that the caller can resolve.
        Caller = "caller",
        /// Code that the recipient can resolve.
        Recipient = "recipient",
        /// Code that is not in the table, or an answer without a code.
        Other = "other",
        /// Twilio, or a proxy before it, failed.
        Server = "server",
        /// No answer came.
        Lost = "lost",
        /// No connection could be opened.
        NotConnected = "not_connected",
    }
}

impl CallFailure {
    /// Returns the reason of an answer; `None` if the answer created a message.
    pub fn of(answer: &CallResponse, errors: &ErrorTable) -> Option<CallFailure> {
        let (status, body) = match answer {
            CallResponse::NotConnected(_) => return Some(CallFailure::NotConnected),
            CallResponse::Lost(_) => return Some(CallFailure::Lost),
            CallResponse::Http { status, body, .. } => (*status, body),
        };
        let code = || {
            let said = serde_json::from_slice::<serde_json::Value>(body).ok()?;
            errors.get(said.get("code")?.as_i64()?)
        };
        Some(match status {
            200..=299 => return None,
            429 => CallFailure::Throttled,
            300..=499 if status != 408 => match code().map(|entry| entry.actor) {
                Some(Actor::None) => CallFailure::Temporary,
                Some(Actor::Operator | Actor::Administrator) => CallFailure::Operator,
                Some(Actor::Caller) => CallFailure::Caller,
                Some(Actor::Recipient) => CallFailure::Recipient,
                None => CallFailure::Other,
            },
            _ => CallFailure::Server,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sending::errors::built_in;

    #[test]
    fn failure_of_each_kind_has_a_label() {
        let of = |status, code: u32| {
            let body = format!("{{\"code\":{code}}}").into_bytes();
            CallFailure::of(&CallResponse::Http { status, retry_after: None, body }, &built_in())
        };
        for (status, code, expected) in [
            (201, 0, None),
            (429, 20429, Some(CallFailure::Throttled)),
            (400, 21611, Some(CallFailure::Temporary)),
            (401, 20003, Some(CallFailure::Operator)),
            (400, 21617, Some(CallFailure::Caller)),
            (400, 21610, Some(CallFailure::Recipient)),
            (400, 12345, Some(CallFailure::Other)),
            (408, 20003, Some(CallFailure::Server)),
            (503, 20503, Some(CallFailure::Server)),
        ] {
            assert_eq!(of(status, code), expected, "{status} {code}");
        }
        assert_eq!(
            CallFailure::of(&CallResponse::Lost(String::new()), &built_in()),
            Some(CallFailure::Lost)
        );
        let html = CallResponse::Http { status: 400, retry_after: None, body: b"<html>".to_vec() };
        assert_eq!(CallFailure::of(&html, &built_in()), Some(CallFailure::Other));
    }
}
