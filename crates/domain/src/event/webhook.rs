//! Published event of a webhook: its form and the facts about it as JSON. `event/replies.rs` reads what a contact sent besides text.

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, Serialize};
use twilio_edge_contract::{Class, MediaLink, Opt};

use super::replies::Reply;
use crate::{
    address::Address, message::is_of_inbound, sending::options::Metadata, window::rfc3339,
};

/// Maximum number of digits of a count: Twilio's counts are small, and longer text stays in `raw` only.
const COUNT_DIGITS: usize = 6;

/// Type of a test event.
const TEST: &str = "test";

/// Account and message of a test event, which do not exist.
const TEST_SIDS: [&str; 2] =
    ["AC00000000000000000000000000000000", "SM00000000000000000000000000000000"];

/// Form of a test event.
pub(super) const TEST_FORM: &str = "AccountSid=AC00000000000000000000000000000000&MessageSid=SM00000000000000000000000000000000&Body=Test+event+of+twilio-edge&TwilioEdgeTest=true";

/// Facts about an inbound message at the time of its arrival. They are stored with its deliveries, because they change later.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArrivalFacts {
    /// Opt-out or opt-in of the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opt: Option<Opt>,
    /// The contact is suppressed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suppressed: Option<bool>,
    /// End of the conversation window, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_expires_ms: Option<i64>,
}

impl ArrivalFacts {
    /// Returns the stored form: JSON, or empty without any fact.
    pub fn stored(&self) -> String {
        match *self == ArrivalFacts::default() {
            true => String::new(),
            false => serde_json::to_string(self).unwrap_or_default(),
        }
    }

    /// Reads the stored form.
    pub fn read(stored: &str) -> ArrivalFacts {
        serde_json::from_str(stored).unwrap_or_default()
    }
}

/// Facts about a webhook besides its form.
#[derive(Debug, Clone, Copy)]
pub struct WebhookFacts<'a> {
    /// Dedupe key: the same for every copy of the webhook, and for every delivery of it.
    pub event_id: &'a str,
    /// Class of the webhook.
    pub class: Class,
    /// Account.
    pub account_sid: &'a str,
    /// Message.
    pub message_sid: &'a str,
    /// Status of a callback.
    pub status: Option<&'a str>,
    /// Error code of a callback that reports a failure.
    pub error_code: Option<&'a str>,
    /// Path of the route.
    pub route: &'a str,
    /// Time of its first arrival, in milliseconds since 1970.
    pub received_at_ms: i64,
    /// Id of the replay; `None` for the first delivery.
    pub replay_id: Option<&'a str>,
    /// Metadata of the outbound message that it is about, as JSON; empty without any.
    pub metadata: &'a str,
    /// Facts at the time of its arrival.
    pub arrival: ArrivalFacts,
}

/// Event.
#[derive(Debug, Serialize)]
pub struct Event<'a> {
    #[serde(skip)]
    class: Class,
    #[serde(skip)]
    is_from_contact: bool,
    event_id: &'a str,
    event_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    received_at: Option<String>,
    account_sid: &'a str,
    message_sid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    num_media: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    media: Vec<MediaLink>,
    #[serde(skip_serializing_if = "Option::is_none")]
    opt: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    suppressed: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    window_expires: Option<String>,
    #[serde(flatten)]
    reply: Reply<'a>,
    route: &'a str,
    replay: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    replay_id: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
    raw: BTreeMap<Cow<'a, str>, Values<'a>>,
}

/// Values of a parameter: a text, or a list of texts if the name occurs more than once.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Values<'a> {
    One(Cow<'a, str>),
    Many(Vec<Cow<'a, str>>),
}

impl<'a> Values<'a> {
    fn first(&self) -> Option<&Cow<'a, str>> {
        match self {
            Values::One(value) => Some(value),
            Values::Many(values) => values.first(),
        }
    }

    fn push(&mut self, value: Cow<'a, str>) {
        match self {
            Values::One(first) => *self = Values::Many(vec![std::mem::take(first), value]),
            Values::Many(values) => values.push(value),
        }
    }
}

impl<'a> Event<'a> {
    /// Builds the test event of a sink.
    pub(super) fn test(id: &'a str, now_ms: i64) -> Event<'a> {
        let [account_sid, message_sid] = TEST_SIDS;
        let known = WebhookFacts {
            event_id: id,
            class: Class::Other,
            account_sid,
            message_sid,
            status: None,
            error_code: None,
            route: "",
            received_at_ms: now_ms,
            replay_id: None,
            metadata: "",
            arrival: ArrivalFacts::default(),
        };
        Event { event_type: TEST, ..Event::of(known, TEST_FORM) }
    }

    /// Builds the event from the form. Its signature was verified on arrival.
    pub fn of(known: WebhookFacts<'a>, form: &'a str) -> Event<'a> {
        let mut raw: BTreeMap<Cow<'a, str>, Values<'a>> = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(form.as_bytes()) {
            match raw.get_mut(&name) {
                Some(values) => values.push(value),
                None => {
                    raw.insert(name, Values::One(value));
                }
            }
        }
        let text = |name: &str| raw.get(name).and_then(Values::first).cloned();
        let (from, to) = (text("From"), text("To"));
        let is_from_contact = known.class != Class::Status
            || is_of_inbound(known.status.unwrap_or_default(), known.error_code);
        let contact = if is_from_contact { &from } else { &to };
        let channel = contact.as_deref().and_then(Address::parse).map(|address| address.channel);
        let reply = match known.class {
            Class::Inbound => Reply::read(text),
            Class::Status | Class::Other => Reply::default(),
        };
        let num_media = text("NumMedia").filter(|count| count.len() <= COUNT_DIGITS);
        Event {
            class: known.class,
            is_from_contact,
            event_id: known.event_id,
            event_type: event_type(known.class),
            received_at: rfc3339(known.received_at_ms),
            account_sid: known.account_sid,
            message_sid: known.message_sid,
            channel,
            status: known.status,
            error_code: known.error_code,
            body: text("Body"),
            num_media: num_media.and_then(|count| count.parse().ok()),
            media: Vec::new(),
            opt: known.arrival.opt.map(Opt::as_str),
            suppressed: known.arrival.suppressed,
            window_expires: known.arrival.window_expires_ms.and_then(rfc3339),
            reply,
            from,
            to,
            route: known.route,
            replay: known.replay_id.is_some(),
            replay_id: known.replay_id,
            metadata: Metadata::read(known.metadata).0,
            raw,
        }
    }

    /// Adds links to the media of an inbound message in the media store.
    pub fn with_media(self, media: Vec<MediaLink>) -> Event<'a> {
        Event { media, ..self }
    }
}

impl Event<'_> {
    /// Returns the event id.
    pub(super) fn id(&self) -> &str {
        self.event_id
    }

    /// Returns the class of the webhook.
    pub(super) fn class(&self) -> Class {
        self.class
    }

    /// Returns whether it is the test event of a sink.
    pub(super) fn is_test(&self) -> bool {
        self.event_type == TEST
    }

    /// Returns the contact's number or id, or the message SID if no contact is known.
    pub(super) fn key(&self) -> String {
        let contact = if self.is_from_contact { &self.from } else { &self.to };
        let address = contact.as_deref().and_then(Address::parse);
        address.map_or_else(|| self.message_sid.to_owned(), |address| address.number)
    }
}

/// Returns the value of the event's type field.
pub fn event_type(class: Class) -> &'static str {
    match class {
        Class::Inbound => "twilio_inbound",
        Class::Status => "twilio_status",
        Class::Other => "twilio_other",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const KNOWN: WebhookFacts<'_> = WebhookFacts {
        event_id: "inbound:AC1:SM1",
        class: Class::Inbound,
        account_sid: "AC1",
        message_sid: "SM1",
        status: None,
        error_code: None,
        route: "/twilio/inbound",
        received_at_ms: 1_795_436_897_042,
        replay_id: None,
        metadata: "",
        arrival: ArrivalFacts { opt: None, suppressed: None, window_expires_ms: None },
    };

    fn published(known: WebhookFacts<'_>, form: &str) -> Value {
        serde_json::to_value(Event::of(known, form)).unwrap()
    }

    #[test]
    fn inbound_event_matches_the_documented_format() {
        let form = "From=whatsapp%3A%2B14155550123&To=whatsapp%3A%2B14155238886&Body=Where+is+it%3F&NumMedia=0&A=1&A=2";
        assert_eq!(
            published(KNOWN, form),
            json!({
                "event_id": "inbound:AC1:SM1",
                "event_type": "twilio_inbound",
                "received_at": "2026-11-23T12:28:17.042Z",
                "account_sid": "AC1",
                "message_sid": "SM1",
                "from": "whatsapp:+14155550123",
                "to": "whatsapp:+14155238886",
                "channel": "whatsapp",
                "body": "Where is it?",
                "num_media": 0,
                "route": "/twilio/inbound",
                "replay": false,
                "raw": {
                    "From": "whatsapp:+14155550123", "To": "whatsapp:+14155238886",
                    "Body": "Where is it?", "NumMedia": "0", "A": ["1", "2"],
                },
            })
        );
    }

    #[test]
    fn inbound_event_has_the_facts_of_its_arrival_and_the_reply() {
        let arrival = ArrivalFacts {
            opt: Some(Opt::Stop),
            suppressed: Some(true),
            window_expires_ms: Some(1_795_436_897_042),
        };
        assert_eq!(ArrivalFacts::read(&arrival.stored()), arrival);
        assert_eq!(ArrivalFacts::read(&ArrivalFacts::default().stored()), ArrivalFacts::default());
        let event = published(WebhookFacts { arrival, ..KNOWN }, "ButtonPayload=STOP");
        assert_eq!((&event["opt"], &event["suppressed"]), (&json!("stop"), &json!(true)));
        assert_eq!(event["window_expires"], "2026-11-23T12:28:17.042Z");
        assert_eq!(event["button"], json!({"payload": "STOP"}));
        let status = WebhookFacts { class: Class::Status, ..KNOWN };
        assert_eq!(published(status, "ButtonPayload=STOP").get("button"), None);
    }

    #[test]
    fn inbound_event_has_links_to_stored_media() {
        let link = MediaLink {
            id: "mi_1".into(),
            content_type: "image/png".into(),
            url: "https://media.example/mi_1".into(),
        };
        let event = Event::of(KNOWN, "NumMedia=1").with_media(vec![link]);
        let event = serde_json::to_value(event).unwrap();
        let expected = json!([
            {"id": "mi_1", "content_type": "image/png", "url": "https://media.example/mi_1"},
        ]);
        assert_eq!(event["media"], expected);
    }

    #[test]
    fn status_event_names_the_recipient_and_a_replay_is_marked() {
        let known = WebhookFacts {
            class: Class::Status,
            status: Some("failed"),
            error_code: Some("63016"),
            replay_id: Some("r1"),
            metadata: r#"{"order": "17"}"#,
            ..KNOWN
        };
        let event = published(known, "To=whatsapp%3A%2B1415&From=%2B1555&NumMedia=12345678901");
        assert_eq!(event["event_type"], "twilio_status");
        assert_eq!(
            (&event["channel"], &event["error_code"]),
            (&json!("whatsapp"), &json!("63016"))
        );
        assert_eq!((&event["replay"], &event["replay_id"]), (&json!(true), &json!("r1")));
        assert_eq!(event.get("num_media"), None, "no count");
        assert_eq!(event["metadata"], json!({"order": "17"}));
        assert_eq!(Event::of(known, "To=whatsapp%3A%2B1415&From=%2B1555").key(), "+1415");
        assert_eq!(Event::of(KNOWN, "To=%2B1415&From=messenger%3A17").key(), "17");
        assert_eq!(Event::of(KNOWN, "To=%2B1415").key(), "SM1");
        assert!(!Event::of(KNOWN, "From=%2B1").is_test());
    }

    proptest! {
        /// Property: no parameter is lost.
        #[test]
        fn event_contains_every_parameter(pairs in prop::collection::vec((".{0,8}", ".{0,12}"), 0..12)) {
            let mut form = form_urlencoded::Serializer::new(String::new());
            pairs.iter().for_each(|(name, value)| { form.append_pair(name, value); });
            let event = published(KNOWN, &form.finish());
            for (name, value) in &pairs {
                let found = &event["raw"][name];
                let is_there = found == value || found.as_array().is_some_and(|all| all.contains(&json!(value)));
                prop_assert!(is_there, "{name:?}={value:?} is not in {found}");
            }
        }
    }
}
