//! Meaning of a mail provider's answer: accepted, certainly not accepted, or unknown. Neither SendGrid nor SMTP has an
//! idempotency key, so every doubt is `Unknown`, and an unknown e-mail is not posted again.
//! Sources: twilio.com/docs/sendgrid/api-reference/how-to-use-the-sendgrid-v3-api (responses, rate limits); RFC 5321.

use serde::Deserialize;

use super::error_code::EmailErrorCode;
use crate::sending::outcome::{CallResponse, SendOutcome};

/// Code of an e-mail that SendGrid throttles.
pub const THROTTLED: &str = "email_throttled";

/// Longest part of a provider's error text that is stored, in characters.
const MAX_REASON_CHARS: usize = 200;

/// Longest id of a provider, in bytes.
const MAX_ID_BYTES: usize = 200;

#[derive(Deserialize)]
struct Failure {
    #[serde(default)]
    errors: Vec<FailureDetail>,
}

#[derive(Deserialize)]
struct FailureDetail {
    #[serde(default)]
    message: String,
    field: Option<String>,
}

/// Decides the meaning of SendGrid's answer to `mail/send`. `message_id` is its header `X-Message-Id`.
pub fn send_grid_outcome(answer: CallResponse, message_id: Option<&str>) -> SendOutcome {
    let (status, retry_after, body) = match answer {
        CallResponse::NotConnected(reason) => return not_connected(reason),
        CallResponse::Lost(reason) => return SendOutcome::Unknown { reason },
        CallResponse::Http { status, retry_after, body } => (status, retry_after, body),
    };
    let reason = reason(status, &body);
    let refused = |code: EmailErrorCode, reason: String| SendOutcome::Refused {
        status: Some(status),
        code: code.as_str().to_owned(),
        reason,
    };
    match (status, message_id.filter(|id| is_provider_id(id))) {
        (200..=299, Some(id)) => SendOutcome::Sent { message_sid: id.to_owned() },
        (200..=299, None) => SendOutcome::Unknown {
            reason: format!("SendGrid answered {status} without X-Message-Id"),
        },
        (429, _) => SendOutcome::Retry {
            code: THROTTLED.to_owned(),
            reason,
            retry_after,
            is_throttled: true,
        },
        (408, _) => SendOutcome::Unknown { reason },
        (401 | 403, _) => refused(EmailErrorCode::Unauthorized, reason),
        (413, _) => refused(EmailErrorCode::TooLarge, reason),
        (300..=499, _) => refused(EmailErrorCode::Refused, reason),
        _ => SendOutcome::Unknown { reason },
    }
}

/// Answer of an SMTP server to one e-mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SmtpAnswer {
    /// No connection, or the connection ended before the server could accept the e-mail.
    NotSent(String),
    /// The connection failed after the e-mail left.
    Lost(String),
    /// The server accepted the e-mail, with this text.
    Accepted(String),
    /// The server refused the credentials, or the connection has no TLS.
    Unauthorized(String),
    /// A reply of 4xx: the server did not accept the e-mail yet.
    Later(String),
    /// A reply of 5xx: the server refuses the e-mail.
    Refused {
        /// Text of the reply.
        text: String,
    },
}

/// Decides the meaning of an SMTP server's answer. `message_id` is the header `Message-ID` of the e-mail.
pub fn smtp_outcome(answer: SmtpAnswer, message_id: &str) -> SendOutcome {
    let refused = |code: EmailErrorCode, reason: &str| SendOutcome::Refused {
        status: None,
        code: code.as_str().to_owned(),
        reason: plain(reason),
    };
    match answer {
        SmtpAnswer::NotSent(reason) => not_connected(plain(&reason)),
        SmtpAnswer::Lost(reason) => SendOutcome::Unknown { reason: plain(&reason) },
        SmtpAnswer::Accepted(_) => SendOutcome::Sent { message_sid: message_id.to_owned() },
        SmtpAnswer::Unauthorized(reason) => refused(EmailErrorCode::Unauthorized, &reason),
        SmtpAnswer::Later(reason) => SendOutcome::Retry {
            code: "smtp_later".to_owned(),
            reason: plain(&reason),
            retry_after: None,
            is_throttled: false,
        },
        SmtpAnswer::Refused { text } if names_no_mailbox(&text) => {
            refused(EmailErrorCode::Bounced, &text)
        }
        SmtpAnswer::Refused { text } => refused(EmailErrorCode::Refused, &text),
    }
}

/// Returns whether a reply has an enhanced status code for an address that does not exist (RFC 3463: 5.1.1, 5.1.2, 5.1.3;
/// RFC 7505: 5.1.10).
fn names_no_mailbox(text: &str) -> bool {
    let mut words = text.split_whitespace();
    words.any(|word| ["5.1.1", "5.1.2", "5.1.3", "5.1.10"].contains(&word))
}

fn not_connected(reason: String) -> SendOutcome {
    let code = "not_connected".to_owned();
    SendOutcome::Retry { code, reason, retry_after: None, is_throttled: false }
}

/// Returns whether a text is usable as a provider's id of an e-mail.
pub fn is_provider_id(text: &str) -> bool {
    (1..=MAX_ID_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Returns SendGrid's first error with the name of its field. An address in the text is cut off, because the reason is logged.
fn reason(status: u16, body: &[u8]) -> String {
    let said = serde_json::from_slice::<Failure>(body).ok();
    let first = said.and_then(|said| said.errors.into_iter().next());
    match first.filter(|error| !error.message.is_empty()) {
        Some(FailureDetail { message, field: Some(field) }) => {
            plain(&format!("{field}: {message}"))
        }
        Some(FailureDetail { message, field: None }) => plain(&message),
        None => format!("status {status}"),
    }
}

/// Returns a provider's text in one line of bounded length, with every address masked.
pub fn plain(text: &str) -> String {
    let words =
        text.split_whitespace().map(|word| if word.contains('@') { "(address)" } else { word });
    let line = words.collect::<Vec<&str>>().join(" ");
    line.chars().filter(|c| !c.is_control()).take(MAX_REASON_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn outcome(status: u16, body: &str, id: Option<&str>) -> SendOutcome {
        let retry_after = Some(Duration::from_secs(3));
        let body = body.as_bytes().to_vec();
        send_grid_outcome(CallResponse::Http { status, retry_after, body }, id)
    }

    fn word(outcome: &SendOutcome) -> &str {
        match outcome {
            SendOutcome::Sent { .. } => "sent",
            SendOutcome::Retry { .. } => "retry",
            SendOutcome::Refused { code, .. } => code,
            SendOutcome::Unknown { .. } => "unknown",
        }
    }

    #[test]
    fn only_an_answer_that_excludes_acceptance_is_retried() {
        for (status, id, expected) in [
            (202, Some("LRzXl_NHStOGhQ4kofSm_A"), "sent"),
            (202, None, "unknown"),
            (202, Some("a b"), "unknown"),
            (429, None, "retry"),
            (400, None, "email_refused"),
            (401, None, "email_unauthorized"),
            (403, None, "email_unauthorized"),
            (404, None, "email_refused"),
            (408, None, "unknown"),
            (413, None, "email_too_large"),
            (500, None, "unknown"),
            (503, Some("x"), "unknown"),
            (101, None, "unknown"),
        ] {
            assert_eq!(word(&outcome(status, "", id)), expected, "{status}");
        }
        let refused = CallResponse::NotConnected("refused".into());
        assert_eq!(word(&send_grid_outcome(refused, None)), "retry");
        assert_eq!(word(&send_grid_outcome(CallResponse::Lost("timeout".into()), None)), "unknown");
        let SendOutcome::Retry { retry_after, is_throttled, .. } = outcome(429, "", None) else {
            panic!()
        };
        assert_eq!((retry_after, is_throttled), (Some(Duration::from_secs(3)), true));
    }

    #[test]
    fn reason_names_the_field_and_no_address() {
        let body = r#"{"errors":[{"message":"The from address ava@example.com does not match a verified Sender Identity","field":"from","help":null}]}"#;
        let SendOutcome::Refused { reason, status, .. } = outcome(403, body, None) else {
            panic!()
        };
        assert_eq!(
            reason,
            "from: The from address (address) does not match a verified Sender Identity"
        );
        assert_eq!(status, Some(403));
        let SendOutcome::Refused { reason, .. } = outcome(400, "<html>", None) else { panic!() };
        assert_eq!(reason, "status 400");
    }

    #[test]
    fn smtp_reply_decides_about_a_retry() {
        let refused = |text: &str| SmtpAnswer::Refused { text: text.into() };
        for (answer, expected) in [
            (SmtpAnswer::NotSent("no route".into()), "retry"),
            (SmtpAnswer::Lost("reset".into()), "unknown"),
            (SmtpAnswer::Accepted("queued as 1".into()), "sent"),
            (SmtpAnswer::Unauthorized("535".into()), "email_unauthorized"),
            (SmtpAnswer::Later("451 4.7.1 greylisted".into()), "retry"),
            (refused("550 5.1.1 no such user"), "email_bounced"),
            (refused("550 5.1.10 null MX"), "email_bounced"),
            (refused("552 5.3.4 too big"), "email_refused"),
            (refused("550 5.1.15 other"), "email_refused"),
        ] {
            assert_eq!(word(&smtp_outcome(answer.clone(), "id@x")), expected, "{answer:?}");
        }
    }

    proptest! {
        /// An answer of 5xx, or no answer, never leads to another post.
        #[test]
        fn server_error_is_never_retried(status in 500u16..600, body: Vec<u8>, id: Option<String>) {
            let answer = CallResponse::Http { status, retry_after: None, body };
            let outcome = send_grid_outcome(answer, id.as_deref());
            prop_assert!(matches!(outcome, SendOutcome::Unknown { .. }), "{outcome:?}");
        }
    }
}
