//! Events of SendGrid's Event Webhook, and their effect on a message and on its recipient. SendGrid repeats posts and sends
//! events in any order, so an effect is the same each time.
//! Source: twilio.com/docs/sendgrid/for-developers/tracking-events/event.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    EmailAddress,
    content::MESSAGE_ID_ARGUMENT,
    error_code::EmailErrorCode,
    outcome::{is_provider_id, plain},
};
use crate::status::Status;

/// Largest number of events in one post. SendGrid sends at most some thousand.
pub const MAX_EVENTS: usize = 10_000;

/// Ends of SendGrid's own id in `sg_message_id`; the rest names machines of SendGrid.
const ID_ENDS: [&str; 2] = [".filter", ".recvd"];

/// Longest id of ours, in bytes.
const MAX_OWN_ID_BYTES: usize = 64;

twilio_edge_contract::string_enum! {
    /// Kind of an event. The names are SendGrid's.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum EventKind {
        /// SendGrid will send the e-mail.
        Processed = "processed",
        /// SendGrid does not send the e-mail.
        Dropped = "dropped",
        /// The receiving server accepted the e-mail.
        Delivered = "delivered",
        /// The receiving server asks to try later.
        Deferred = "deferred",
        /// The receiving server refused the e-mail.
        Bounce = "bounce",
        /// The recipient opened the e-mail.
        Open = "open",
        /// The recipient followed a link.
        Click = "click",
        /// The recipient reported the e-mail as spam.
        SpamReport = "spamreport",
        /// The recipient unsubscribed from every e-mail.
        Unsubscribe = "unsubscribe",
        /// The recipient unsubscribed from one group of e-mails.
        GroupUnsubscribe = "group_unsubscribe",
        /// The recipient subscribed to one group again.
        GroupResubscribe = "group_resubscribe",
    }
}

/// One event.
#[derive(Clone, PartialEq, Eq)]
pub struct EmailEvent {
    /// Kind; `None` for one that this version does not know.
    pub kind: Option<EventKind>,
    /// SendGrid's id of the event, the same in each copy.
    pub id: String,
    /// Recipient; `None` if it is not a valid address.
    pub recipient: Option<EmailAddress>,
    /// Our message id, from the custom arguments; `None` for an e-mail of another sender.
    pub message_id: Option<String>,
    /// SendGrid's id of the e-mail; `None` for a bounce that came later.
    pub provider_id: Option<String>,
    /// Reason in words, without addresses; empty without one.
    pub reason: String,
    /// True for a bounce that says nothing about the mailbox.
    is_blocked: bool,
    /// True if a machine of a mail provider opened the e-mail.
    is_machine: bool,
}

/// Effect of an event on its message and its recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventEffect {
    /// Status of the message; `None` if the event says nothing about it.
    pub status: Option<Status>,
    /// Code of a failure, and of a suppression.
    pub code: Option<EmailErrorCode>,
}

/// Fields of an event that the sidecar reads. SendGrid adds the custom arguments as further fields.
#[derive(Deserialize)]
struct Fields {
    #[serde(default)]
    event: String,
    #[serde(default)]
    email: String,
    #[serde(default)]
    sg_event_id: String,
    #[serde(default)]
    sg_message_id: String,
    #[serde(default)]
    reason: String,
    #[serde(default, rename = "type")]
    bounce_type: String,
    #[serde(default)]
    sg_machine_open: bool,
}

/// Reads the body of a post. An event without the known fields is skipped.
///
/// # Errors
/// Returns the problem if the body is not a list of events, or has too many.
pub fn read_events(body: &[u8]) -> Result<Vec<EmailEvent>, &'static str> {
    let events: Vec<Map<String, Value>> =
        serde_json::from_slice(body).map_err(|_| "the body is not a JSON list of events")?;
    if events.len() > MAX_EVENTS {
        return Err("the body has more than 10000 events");
    }
    Ok(events.into_iter().filter_map(EmailEvent::read).collect())
}

impl EmailEvent {
    fn read(object: Map<String, Value>) -> Option<EmailEvent> {
        let message_id = object.get(MESSAGE_ID_ARGUMENT).and_then(Value::as_str);
        let is_own_id = |id: &str| {
            (1..=MAX_OWN_ID_BYTES).contains(&id.len())
                && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        let message_id = message_id.filter(|id| is_own_id(id)).map(str::to_owned);
        let fields: Fields = serde_json::from_value(Value::Object(object)).ok()?;
        let id = Some(fields.sg_event_id).filter(|id| is_provider_id(id))?;
        let end = ID_ENDS.iter().filter_map(|end| fields.sg_message_id.find(end)).min();
        let provider_id =
            end.map_or(Some(fields.sg_message_id.as_str()), |end| fields.sg_message_id.get(..end));
        Some(EmailEvent {
            kind: fields.event.parse().ok(),
            id,
            recipient: EmailAddress::parse(&fields.email).ok(),
            message_id,
            provider_id: provider_id.filter(|id| is_provider_id(id)).map(str::to_owned),
            reason: plain(&fields.reason),
            is_blocked: fields.bounce_type == "blocked",
            is_machine: fields.sg_machine_open,
        })
    }

    /// Returns the effect of the event.
    pub fn effect(&self) -> EventEffect {
        let (status, code) = match self.kind {
            Some(EventKind::Processed) => (Some(Status::Queued), None),
            Some(EventKind::Deferred) => (Some(Status::Sending), None),
            Some(EventKind::Delivered) => (Some(Status::Delivered), None),
            Some(EventKind::Open) if self.is_machine => (None, None),
            Some(EventKind::Open | EventKind::Click) => (Some(Status::Read), None),
            Some(EventKind::Bounce) if self.is_blocked => {
                (Some(Status::Undelivered), Some(EmailErrorCode::Blocked))
            }
            Some(EventKind::Bounce) => (Some(Status::Undelivered), Some(EmailErrorCode::Bounced)),
            Some(EventKind::Dropped) => (Some(Status::Failed), Some(self.drop_code())),
            Some(EventKind::SpamReport) => (None, Some(EmailErrorCode::SpamReported)),
            // The sidecar has no groups. It stops all e-mails rather than sending one that the recipient does not want.
            Some(EventKind::Unsubscribe | EventKind::GroupUnsubscribe) => {
                (None, Some(EmailErrorCode::Unsubscribed))
            }
            Some(EventKind::GroupResubscribe) | None => (None, None),
        };
        EventEffect { status, code }
    }

    /// Returns the code for the reason why SendGrid dropped the e-mail. These texts are SendGrid's.
    fn drop_code(&self) -> EmailErrorCode {
        match self.reason.as_str() {
            "Bounced Address" | "Invalid" => EmailErrorCode::Bounced,
            "Unsubscribed Address" => EmailErrorCode::Unsubscribed,
            "Spam Reporting Address" => EmailErrorCode::SpamReported,
            _ => EmailErrorCode::Dropped,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn event(fields: Value) -> EmailEvent {
        let mut object = json!({
            "email": "Ava@example.com", "sg_event_id": "ev1", "timestamp": 1_600_112_492,
            "sg_message_id": "LRzXl_NHStOGhQ4kofSm_A.filterdrecv-p3mdw1-756b745b58-kmzbl-18-5F5FC76C-9.0",
            "twilio_edge_message_id": "ms_1",
        });
        object.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        read_events(json!([object]).to_string().as_bytes()).unwrap().remove(0)
    }

    #[test]
    fn event_names_the_message_and_the_recipient() {
        let read = event(json!({"event": "delivered"}));
        assert_eq!(read.message_id.as_deref(), Some("ms_1"));
        assert_eq!(read.provider_id.as_deref(), Some("LRzXl_NHStOGhQ4kofSm_A"));
        assert_eq!(read.recipient.unwrap().as_str(), "ava@example.com");
        for (id, provider_id) in [
            ("14c5d75ce93.dfd.64b469.filter0001.16648.5515E0B88.0", Some("14c5d75ce93.dfd.64b469")),
            ("abc.recvd-canary-7c9d-0", Some("abc")),
            ("abc", Some("abc")),
            ("", None),
        ] {
            assert_eq!(event(json!({"sg_message_id": id})).provider_id.as_deref(), provider_id);
        }
        let other = event(json!({"twilio_edge_message_id": "../x", "email": "no-address"}));
        assert_eq!((other.message_id, other.recipient), (None, None));
    }

    #[test]
    fn event_has_the_effect_of_its_kind() {
        for (fields, status, code) in [
            (json!({"event": "processed"}), "queued", ""),
            (json!({"event": "deferred"}), "sending", ""),
            (json!({"event": "delivered"}), "delivered", ""),
            (json!({"event": "open"}), "read", ""),
            (json!({"event": "open", "sg_machine_open": true}), "", ""),
            (json!({"event": "click"}), "read", ""),
            (json!({"event": "bounce", "type": "bounce"}), "undelivered", "email_bounced"),
            (json!({"event": "bounce", "type": "blocked"}), "undelivered", "email_blocked"),
            (json!({"event": "dropped", "reason": "Bounced Address"}), "failed", "email_bounced"),
            (
                json!({"event": "dropped", "reason": "Spam Reporting Address"}),
                "failed",
                "email_spam_reported",
            ),
            (
                json!({"event": "dropped", "reason": "Unsubscribed Address"}),
                "failed",
                "email_unsubscribed",
            ),
            (
                json!({"event": "dropped", "reason": "Invalid SMTPAPI header"}),
                "failed",
                "email_dropped",
            ),
            (json!({"event": "spamreport"}), "", "email_spam_reported"),
            (json!({"event": "unsubscribe"}), "", "email_unsubscribed"),
            (json!({"event": "group_unsubscribe"}), "", "email_unsubscribed"),
            (json!({"event": "group_resubscribe"}), "", ""),
            (json!({"event": "account_status_change"}), "", ""),
        ] {
            let effect = event(fields.clone()).effect();
            let status_word = effect.status.map_or("", Status::as_str);
            let code_word = effect.code.map_or("", EmailErrorCode::as_str);
            assert_eq!((status_word, code_word), (status, code), "{fields}");
        }
    }

    #[test]
    fn reason_of_an_event_has_no_address() {
        let bounce = event(
            json!({"event": "bounce", "reason": "550 5.1.1 <ava@example.com>: unknown\r\nuser"}),
        );
        assert_eq!(bounce.reason, "550 5.1.1 (address) unknown user");
    }

    #[test]
    fn body_that_is_no_list_of_events_is_refused() {
        for body in ["", "{}", "[1]", "null", "[[]]"] {
            assert!(read_events(body.as_bytes()).is_err(), "{body}");
        }
        assert!(read_events(b"[{}]").unwrap().is_empty(), "an event without an id is skipped");
        let many = format!("[{}{{}}]", "{},".repeat(MAX_EVENTS));
        assert!(read_events(many.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn any_body_is_read_without_panic(body: Vec<u8>, text in "[\\[\\]{}\":,a-z_@.0-9]{0,80}") {
            let _ = read_events(&body);
            let _ = read_events(text.as_bytes());
        }
    }
}
