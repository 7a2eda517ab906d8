//! Meaning of Twilio's answer to `POST Messages.json`: the message is sent, is certainly not sent, or is `Unknown`. Only a
//! message that Twilio certainly did not process may be posted again; every doubt is `Unknown`, however unlikely. Pure.

use std::time::Duration;

use serde::Deserialize;

use super::errors::{Action, ErrorTable};

/// Answer to the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallResponse {
    /// No connection was opened: nothing was sent.
    NotConnected(String),
    /// The request may have been sent, and no complete answer came.
    Lost(String),
    /// HTTP response.
    Http {
        /// HTTP status.
        status: u16,
        /// Value of `Retry-After`.
        retry_after: Option<Duration>,
        /// Body.
        body: Vec<u8>,
    },
}

/// Meaning of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendOutcome {
    /// Twilio has accepted the message.
    Sent {
        /// Message SID, `SM..` or `MM..`.
        message_sid: String,
    },
    /// Twilio did not process the message; it may be posted again.
    Retry {
        /// Twilio's code, the HTTP status, or a code of ours.
        code: String,
        /// Reason in words.
        reason: String,
        /// Pause that Twilio asks for.
        retry_after: Option<Duration>,
        /// True if Twilio throttles us.
        is_throttled: bool,
    },
    /// Twilio examined the message and refused it.
    Refused {
        /// HTTP status of Twilio's answer; `None` if a rule of ours refused the message.
        status: Option<u16>,
        /// Twilio's code, or the HTTP status.
        code: String,
        /// Reason in words.
        reason: String,
    },
    /// The message may have been sent.
    Unknown {
        /// Reason in words.
        reason: String,
    },
}

/// Longest part of Twilio's error message that is stored, in characters.
const MAX_REASON_CHARS: usize = 200;

#[derive(Deserialize)]
struct Created {
    sid: String,
}

#[derive(Deserialize)]
struct Failure {
    code: Option<i64>,
    message: Option<String>,
}

/// Decides the meaning of an answer; the table of codes decides about refusals.
pub fn send_outcome(answer: CallResponse, errors: &ErrorTable) -> SendOutcome {
    let CallResponse::Http { status: status @ 200..=299, body, .. } = &answer else {
        return failure_outcome(answer, errors);
    };
    let created = serde_json::from_slice::<Created>(body).ok();
    match created.filter(|created| is_message_sid(&created.sid)) {
        Some(Created { sid }) => SendOutcome::Sent { message_sid: sid },
        None => SendOutcome::Unknown {
            reason: format!("Twilio answered {status} without a message SID"),
        },
    }
}

/// Decides the meaning of an answer that is not a success. Twilio's APIs share the format of errors.
pub fn failure_outcome(answer: CallResponse, errors: &ErrorTable) -> SendOutcome {
    let (status, retry_after, body) = match answer {
        CallResponse::NotConnected(reason) => {
            let code = "not_connected".to_owned();
            return SendOutcome::Retry { code, reason, retry_after: None, is_throttled: false };
        }
        CallResponse::Lost(reason) => return SendOutcome::Unknown { reason },
        CallResponse::Http { status, retry_after, body } => (status, retry_after, body),
    };
    let said = serde_json::from_slice::<Failure>(&body).ok();
    let code = said.as_ref().and_then(|said| said.code);
    let reason = match said.and_then(|said| said.message) {
        Some(message) => {
            message.chars().filter(|c| !c.is_control()).take(MAX_REASON_CHARS).collect()
        }
        None => format!("status {status}"),
    };
    let is_passing = code.is_some_and(|code| errors.action(code) == Action::Retry);
    let is_throttled = status == 429;
    let code = code.map_or_else(|| status.to_string(), |code| code.to_string());
    match status {
        429 => SendOutcome::Retry { code, reason, retry_after, is_throttled },
        // A proxy may answer 408 for a request that it has already forwarded.
        408 => SendOutcome::Unknown { reason: "status 408".to_owned() },
        400..=499 if is_passing => SendOutcome::Retry { code, reason, retry_after, is_throttled },
        300..=499 => SendOutcome::Refused { status: Some(status), code, reason },
        _ => SendOutcome::Unknown { reason },
    }
}

/// Returns whether the text is a message SID.
pub fn is_message_sid(text: &str) -> bool {
    text.strip_prefix("SM")
        .or_else(|| text.strip_prefix("MM"))
        .is_some_and(|rest| rest.len() == 32 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sending::errors::built_in;

    fn of(status: u16, body: &str) -> &'static str {
        let body = body.as_bytes().to_vec();
        match send_outcome(CallResponse::Http { status, retry_after: None, body }, &built_in()) {
            SendOutcome::Sent { .. } => "sent",
            SendOutcome::Retry { .. } => "again",
            SendOutcome::Refused { .. } => "refused",
            SendOutcome::Unknown { .. } => "unknown",
        }
    }

    #[test]
    fn retried_responses_are_certainly_unprocessed() {
        let sid = r#"{"sid":"SM00112233445566778899aabbccddeeff"}"#;
        for (status, body, expected) in [
            (201, sid, "sent"),
            (200, sid, "sent"),
            (201, "", "unknown"),
            (201, r#"{"sid":"CA00112233445566778899aabbccddeeff"}"#, "unknown"),
            (429, "", "again"),
            (429, r#"{"code":20429,"message":"Too Many Requests"}"#, "again"),
            (400, r#"{"code":21611,"message":"queue full"}"#, "again"),
            (400, r#"{"code":21610,"message":"unsubscribed"}"#, "refused"),
            (400, "<html>", "refused"),
            (401, "", "refused"),
            (408, "", "unknown"),
            (500, r#"{"code":20500}"#, "unknown"),
            (503, r#"{"code":20429}"#, "unknown"),
            (301, "", "refused"),
            (101, "", "unknown"),
        ] {
            assert_eq!(of(status, body), expected, "{status} {body}");
        }
        let not_connected = send_outcome(CallResponse::NotConnected("refused".into()), &built_in());
        assert!(matches!(not_connected, SendOutcome::Retry { is_throttled: false, .. }));
        assert!(matches!(
            send_outcome(CallResponse::Lost("timeout".into()), &built_in()),
            SendOutcome::Unknown { .. }
        ));
    }

    #[test]
    fn refusal_has_the_status_of_twilio() {
        for (status, body) in [(404, r#"{"code":20404}"#), (401, r#"{"code":20003}"#), (403, "")] {
            let body = body.as_bytes().to_vec();
            let meaning =
                send_outcome(CallResponse::Http { status, retry_after: None, body }, &built_in());
            assert!(
                matches!(meaning, SendOutcome::Refused { status: Some(given), .. } if given == status)
            );
        }
    }

    proptest! {
        /// A 5xx answer never leads to another post, with any code and with any entry that the operator's table says of the
        /// code.
        #[test]
        fn server_error_never_leads_to_a_retry(status in 500u16..600, code in 10_000..100_000, body: Option<Vec<u8>>) {
            let body = body.unwrap_or_else(|| format!("{{\"code\":{code}}}").into_bytes());
            let entry = "title = \"\"\naction = \"retry\"\nactor = \"none\"\nremedy = \"\"";
            let errors = ErrorTable::of(format!("[{code}]\n{entry}").parse().unwrap()).unwrap();
            let said = send_outcome(CallResponse::Http { status, retry_after: None, body }, &errors);
            prop_assert!(matches!(said, SendOutcome::Unknown { .. }), "{:?}", said);
        }
    }
}
