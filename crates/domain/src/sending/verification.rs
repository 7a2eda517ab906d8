//! Verifications: one-time passwords that Twilio Verify creates, sends and checks. This module has the request, its form for Twilio,
//! the rules before the call, and the meaning of Twilio's answer to a check. It never sees a code: only the form of a check has one,
//! and that form is not built here. Pure.

use form_urlencoded::Serializer;
use serde::Deserialize;

use super::{
    errors::{Action, ErrorTable},
    options::Metadata,
    outcome::{CallResponse, SendOutcome, failure_outcome},
    routing::Routes,
    rules::{self, Verdict},
};
use crate::{address::Address, check, policy::Category};

/// Time for which Twilio accepts the code of a verification, in milliseconds.
pub const VALID_FOR_MS: i64 = 600_000;

/// Category of every verification.
pub const CATEGORY: Category = Category::Authentication;

twilio_edge_contract::string_enum! {
    /// Channel of a verification.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
    pub enum VerificationChannel: serde {
        /// WhatsApp, and SMS instead if WhatsApp does not deliver the code.
        #[default]
        Auto = "auto",
        /// WhatsApp only.
        WhatsApp = "whatsapp",
        /// SMS only.
        Sms = "sms",
    }
}

/// Channel of the fallback of a verification.
pub const SMS: &str = "sms";
const WHATSAPP: &str = "whatsapp";

twilio_edge_contract::string_enum! {
    /// Status of a verification.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, serde::Serialize, utoipa::ToSchema)]
    pub enum VerificationStatus: serde {
        /// Twilio waits for the code.
        Pending = "pending",
        /// The contact gave the right code.
        Approved = "approved",
        /// It was canceled.
        Canceled = "canceled",
        /// Its time is over.
        Expired = "expired",
        /// No code was sent.
        Failed = "failed",
        /// Too many wrong codes were given.
        MaxAttemptsReached = "max_attempts_reached",
    }
}

impl VerificationStatus {
    /// Returns whether the delivery status of a message is the end of its verification, which no delivery report replaces.
    pub fn is_end(status: &str) -> bool {
        let end = status.parse::<VerificationStatus>();
        end.is_ok_and(|end| {
            !matches!(end, VerificationStatus::Pending | VerificationStatus::Failed)
        })
    }
}

/// Policy for contacts who opted out of messages on a channel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptOutPolicy {
    /// A verification is refused on that channel, as every message.
    #[default]
    Refuse,
    /// A verification is sent: the person asked for the code. Suppressions of administrators refuse it nevertheless.
    Send,
}

/// Request for a verification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerificationRequest {
    /// Account of the verification.
    pub account_sid: String,
    /// Verify Service, `VA..`; `None` if the account has none.
    pub service_sid: Option<String>,
    /// Number of the contact, in E.164 format.
    pub number: String,
    /// Channel.
    pub channel: VerificationChannel,
    /// Language of the message, as Twilio writes it; `None`: Twilio chooses it by the country.
    pub locale: Option<String>,
    /// Twilio parameters, as a form, that no rule reads.
    pub other_parameters: String,
    /// Data of the caller.
    pub metadata: Metadata,
}

impl VerificationRequest {
    /// Returns the channels, in the order in which they are tried.
    pub fn channels(&self) -> &'static [&'static str] {
        match self.channel {
            VerificationChannel::Auto => &[WHATSAPP, SMS],
            VerificationChannel::WhatsApp => &[WHATSAPP],
            VerificationChannel::Sms => &[SMS],
        }
    }

    /// Returns the recipient on a channel.
    pub fn recipient(&self, channel: &str) -> Address {
        Address { channel: channel.to_owned(), number: self.number.clone() }
    }

    /// Returns the parameters of Twilio's `Verifications` for a channel.
    pub fn form(&self, channel: &str) -> String {
        let mut form = Serializer::new(String::new());
        form.append_pair("To", &self.number).append_pair("Channel", channel);
        if let Some(locale) = &self.locale {
            form.append_pair("Locale", locale);
        }
        let form = form.finish();
        match self.other_parameters.as_str() {
            "" => form,
            others => format!("{form}&{others}"),
        }
    }
}

/// Facts beside the request.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// True if the account has credentials.
    pub has_credentials: bool,
    /// Routes of the account.
    pub routes: &'a Routes,
    /// Verdicts about the contact.
    pub checks: Vec<check::Verdict>,
}

/// Returns the verdict of every rule about a verification on one channel, in order. It may be sent if all are `ok`.
pub fn evaluate(request: &VerificationRequest, channel: &str, facts: Facts<'_>) -> Vec<Verdict> {
    let to = request.recipient(channel);
    let mut verdicts = vec![
        rules::credentials(facts.has_credentials),
        rules::verify_service(request.service_sid.as_deref()),
        rules::recipient(&to),
        rules::region(&to, facts.routes),
    ];
    verdicts.extend(facts.checks.into_iter().map(rules::of_check));
    verdicts
}

#[derive(Deserialize)]
struct Resource {
    sid: String,
    status: String,
}

/// Returns whether the text is the SID of a Verify Service.
pub fn is_service_sid(text: &str) -> bool {
    is_sid(text, "VA")
}

/// Returns whether the text is the SID of a verification.
pub fn is_verification_sid(text: &str) -> bool {
    is_sid(text, "VE")
}

fn is_sid(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix)
        .is_some_and(|rest| rest.len() == 32 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Decides the meaning of Twilio's answer to `POST Verifications`.
pub fn start_outcome(answer: CallResponse, errors: &ErrorTable) -> SendOutcome {
    let CallResponse::Http { status: status @ 200..=299, body, .. } = &answer else {
        return failure(answer, errors);
    };
    match serde_json::from_slice::<Resource>(body) {
        Ok(found) if is_verification_sid(&found.sid) => {
            SendOutcome::Sent { message_sid: found.sid }
        }
        _ => SendOutcome::Unknown {
            reason: format!("Twilio answered {status} without a verification SID"),
        },
    }
}

/// Decides the meaning of an answer that is not a success. Verify answers 429 also for limits of one number. They do not end soon,
/// so the table refuses their codes.
fn failure(answer: CallResponse, errors: &ErrorTable) -> SendOutcome {
    match failure_outcome(answer, errors) {
        SendOutcome::Retry { code, reason, is_throttled: true, .. } if is_limit(&code, errors) => {
            SendOutcome::Refused { status: Some(429), code, reason }
        }
        outcome => outcome,
    }
}

fn is_limit(code: &str, errors: &ErrorTable) -> bool {
    let entry = code.parse().ok().and_then(|code| errors.get(code));
    entry.is_some_and(|entry| entry.action != Action::Retry)
}

/// Meaning of Twilio's answer to a check of a code, or to a cancellation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckOutcome {
    /// Twilio reports the status of the verification, with its SID.
    Status(VerificationStatus, String),
    /// Twilio does not have the verification any more: it was approved before, it was canceled, or its time is over.
    Ended,
    /// Twilio refuses the request.
    Refused {
        /// HTTP status of Twilio's answer.
        status: u16,
        /// Twilio's code, or the HTTP status.
        code: String,
        /// Reason in words.
        reason: String,
    },
    /// It is unknown whether Twilio processed the request, or Twilio failed.
    Unavailable(String),
}

/// Code of Twilio for a resource that does not exist.
const NOT_FOUND: &str = "20404";

/// Decides the meaning of Twilio's answer to a check or a cancellation.
pub fn check_outcome(answer: CallResponse, errors: &ErrorTable) -> CheckOutcome {
    if let CallResponse::Http { status: status @ 200..=299, body, .. } = &answer {
        let found = serde_json::from_slice::<Resource>(body).ok();
        let known = found.and_then(|found| Some((found.status.parse().ok()?, found.sid)));
        return match known {
            Some((status, sid)) => CheckOutcome::Status(status, sid),
            None => CheckOutcome::Unavailable(format!("Twilio answered {status} without a status")),
        };
    }
    match failure(answer, errors) {
        SendOutcome::Refused { code, .. } if code == NOT_FOUND => CheckOutcome::Ended,
        SendOutcome::Refused { status, code, reason } => {
            CheckOutcome::Refused { status: status.unwrap_or_default(), code, reason }
        }
        SendOutcome::Retry { code, reason, is_throttled: true, .. } => {
            CheckOutcome::Refused { status: 429, code, reason }
        }
        SendOutcome::Retry { reason, .. } | SendOutcome::Unknown { reason } => {
            CheckOutcome::Unavailable(reason)
        }
        SendOutcome::Sent { .. } => CheckOutcome::Unavailable("unexpected answer".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sending::errors::built_in;

    fn request(channel: VerificationChannel) -> VerificationRequest {
        VerificationRequest {
            account_sid: "AC".into(),
            service_sid: Some("VA".into()),
            number: "+15551234567".into(),
            channel,
            locale: Some("pt-BR".into()),
            other_parameters: String::new(),
            metadata: Metadata::default(),
        }
    }

    fn http(status: u16, body: &str) -> CallResponse {
        CallResponse::Http { status, retry_after: None, body: body.as_bytes().to_vec() }
    }

    #[test]
    fn automatic_channel_is_whatsapp_and_then_sms() {
        assert_eq!(request(VerificationChannel::Auto).channels(), ["whatsapp", "sms"]);
        let form = request(VerificationChannel::Sms).form("sms");
        assert_eq!(form, "To=%2B15551234567&Channel=sms&Locale=pt-BR");
    }

    #[test]
    fn start_is_sent_refused_or_unknown() {
        let ve = format!("VE{}", "0".repeat(32));
        let started = format!(r#"{{"sid":"{ve}","status":"pending"}}"#);
        assert_eq!(
            start_outcome(http(201, &started), &built_in()),
            SendOutcome::Sent { message_sid: ve }
        );
        for (answer, expected) in [
            (http(201, r#"{"sid":"SM","status":"pending"}"#), "unknown"),
            (http(400, r#"{"code":60200,"message":"Invalid parameter"}"#), "refused"),
            (http(403, r#"{"code":60223}"#), "refused"),
            (http(429, r#"{"code":60203}"#), "refused"),
            (http(429, r#"{"code":20429}"#), "retry"),
            (http(500, ""), "unknown"),
            (CallResponse::Lost(String::new()), "unknown"),
            (CallResponse::NotConnected(String::new()), "retry"),
        ] {
            let outcome = match start_outcome(answer.clone(), &built_in()) {
                SendOutcome::Sent { .. } => "sent",
                SendOutcome::Retry { .. } => "retry",
                SendOutcome::Refused { .. } => "refused",
                SendOutcome::Unknown { .. } => "unknown",
            };
            assert_eq!(outcome, expected, "{answer:?}");
        }
    }

    #[test]
    fn check_reports_the_status_of_twilio() {
        let of = |answer| check_outcome(answer, &built_in());
        let status = |word: &str| http(200, &format!(r#"{{"sid":"VE1","status":"{word}"}}"#));
        assert_eq!(
            of(status("approved")),
            CheckOutcome::Status(VerificationStatus::Approved, "VE1".into())
        );
        assert_eq!(
            of(status("pending")),
            CheckOutcome::Status(VerificationStatus::Pending, "VE1".into())
        );
        assert_eq!(of(http(404, r#"{"code":20404}"#)), CheckOutcome::Ended);
        assert!(matches!(
            of(http(429, r#"{"code":60202}"#)),
            CheckOutcome::Refused { status: 429, code, .. } if code == "60202"
        ));
        assert!(matches!(of(CallResponse::Lost("late".into())), CheckOutcome::Unavailable(_)));
        assert!(matches!(of(status("unheard")), CheckOutcome::Unavailable(_)));
    }

    #[test]
    fn delivery_reports_do_not_replace_the_end_of_a_verification() {
        assert!(VerificationStatus::is_end("approved") && VerificationStatus::is_end("canceled"));
        assert!(!VerificationStatus::is_end("delivered") && !VerificationStatus::is_end("failed"));
    }
}
