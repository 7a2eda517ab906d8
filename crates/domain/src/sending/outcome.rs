//! What Twilio's answer to `POST Messages.json` means for a message: it is sent, it certainly is not, or nobody knows. Only
//! what certainly was not processed may be posted again; everything in doubt is `Unknown`, whatever the odds. Pure.

use std::time::Duration;

use serde::Deserialize;

use super::errors::{Action, Errors};

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// There was no connection: nothing has left.
    NotConnected(String),
    /// The request may have left, and there is no whole answer.
    Lost(String),
    /// An answer of HTTP.
    Http {
        /// Its status.
        status: u16,
        /// Of `Retry-After`.
        retry_after: Option<Duration>,
        /// What is in it.
        body: Vec<u8>,
    },
}

/// What it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    /// Twilio has it, by this name.
    Sent {
        /// `SM..` or `MM..`.
        message_sid: String,
    },
    /// It was not processed, and may be posted again.
    Again {
        /// Twilio's code, or the status, or a word of ours.
        code: String,
        /// For people.
        reason: String,
        /// How long Twilio wants to be left alone.
        retry_after: Option<Duration>,
        /// Whether we ask too often.
        is_throttled: bool,
    },
    /// It was looked at, and refused.
    Refused {
        /// HTTP status of Twilio's answer; none where a rule of ours refused it.
        status: Option<u16>,
        /// Twilio's code, or the status.
        code: String,
        /// For people.
        reason: String,
    },
    /// It may have been sent.
    Unknown {
        /// For people.
        reason: String,
    },
}

/// Of what Twilio says, how much is kept.
const SAID_CHARS: usize = 200;

#[derive(Deserialize)]
struct Created {
    sid: String,
}

#[derive(Deserialize)]
struct Failure {
    code: Option<i64>,
    message: Option<String>,
}

/// Decides it; of a refusal, by the table of codes.
pub fn meaning(answer: Answer, errors: &Errors) -> Meaning {
    let (status, retry_after, body) = match answer {
        Answer::NotConnected(reason) => {
            let code = "not_connected".to_owned();
            return Meaning::Again { code, reason, retry_after: None, is_throttled: false };
        }
        Answer::Lost(reason) => return Meaning::Unknown { reason },
        Answer::Http { status, retry_after, body } => (status, retry_after, body),
    };
    if (200..300).contains(&status) {
        let created = serde_json::from_slice::<Created>(&body).ok();
        return match created.filter(|created| is_message_sid(&created.sid)) {
            Some(Created { sid }) => Meaning::Sent { message_sid: sid },
            None => Meaning::Unknown { reason: format!("{status} without the sid of a message") },
        };
    }
    let said = serde_json::from_slice::<Failure>(&body).ok();
    let code = said.as_ref().and_then(|said| said.code);
    let reason = match said.and_then(|said| said.message) {
        Some(message) => message.chars().filter(|c| !c.is_control()).take(SAID_CHARS).collect(),
        None => format!("status {status}"),
    };
    let is_passing = code.is_some_and(|code| errors.action(code) == Action::Retry);
    let is_throttled = status == 429;
    let code = code.map_or_else(|| status.to_string(), |code| code.to_string());
    match status {
        429 => Meaning::Again { code, reason, retry_after, is_throttled },
        // A proxy on the way says so of a request that it may have passed on.
        408 => Meaning::Unknown { reason: "status 408".to_owned() },
        400..=499 if is_passing => Meaning::Again { code, reason, retry_after, is_throttled },
        300..=499 => Meaning::Refused { status: Some(status), code, reason },
        _ => Meaning::Unknown { reason },
    }
}

/// Whether it is Twilio's name of a message.
pub fn is_message_sid(text: &str) -> bool {
    text.strip_prefix("SM")
        .or_else(|| text.strip_prefix("MM"))
        .is_some_and(|rest| rest.len() == 32 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sending::errors::usual;

    fn of(status: u16, body: &str) -> &'static str {
        let body = body.as_bytes().to_vec();
        match meaning(Answer::Http { status, retry_after: None, body }, &usual()) {
            Meaning::Sent { .. } => "sent",
            Meaning::Again { .. } => "again",
            Meaning::Refused { .. } => "refused",
            Meaning::Unknown { .. } => "unknown",
        }
    }

    #[test]
    fn only_what_was_certainly_not_processed_goes_again() {
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
        let not_connected = meaning(Answer::NotConnected("refused".into()), &usual());
        assert!(matches!(not_connected, Meaning::Again { is_throttled: false, .. }));
        assert!(matches!(
            meaning(Answer::Lost("timeout".into()), &usual()),
            Meaning::Unknown { .. }
        ));
    }

    #[test]
    fn refusal_has_the_status_of_twilio() {
        for (status, body) in [(404, r#"{"code":20404}"#), (401, r#"{"code":20003}"#), (403, "")] {
            let body = body.as_bytes().to_vec();
            let meaning = meaning(Answer::Http { status, retry_after: None, body }, &usual());
            assert!(
                matches!(meaning, Meaning::Refused { status: Some(given), .. } if given == status)
            );
        }
    }

    proptest! {
        /// Whatever a server says with 5xx, and whatever the operator's table says of its code, it is never posted again.
        #[test]
        fn a_server_that_failed_may_have_sent_it(status in 500u16..600, code in 10_000..100_000, body: Option<Vec<u8>>) {
            let body = body.unwrap_or_else(|| format!("{{\"code\":{code}}}").into_bytes());
            let entry = "title = \"\"\naction = \"retry\"\nactor = \"nobody\"\nremedy = \"\"";
            let errors = Errors::of(format!("[{code}]\n{entry}").parse().unwrap()).unwrap();
            let said = meaning(Answer::Http { status, retry_after: None, body }, &errors);
            prop_assert!(matches!(said, Meaning::Unknown { .. }), "{:?}", said);
        }
    }
}
