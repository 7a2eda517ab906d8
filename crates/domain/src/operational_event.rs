//! Operational events: changes that the sidecar itself causes or observes, published to the sinks that ask for them. The module
//! decides their names, which sinks take them, and the JSON that a sink receives (docs/DELIVERY.md). It does not know where
//! they are stored. `facts.rs` builds the content of each type.

mod facts;

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json, value::RawValue};
use sha2::{Digest, Sha256};

use crate::{
    address::Address,
    sending::errors::{ErrorTable, Explanation, explain},
    sink_filter::SinkFilter,
    webhook::{contact_ordering_key, subject_ordering_key},
    window::rfc3339,
};

pub use self::facts::{DeadDelivery, OpenedWindow};

/// Suffix of a pattern that matches every type of a group.
const GROUP_SUFFIX: &str = ".*";

twilio_edge_contract::string_enum! {
    /// Type of an operational event.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub enum OperationalEventType {
        /// A rule declined a message before it was accepted.
        MessageDeclined = "message.declined",
        /// A message that was accepted by the API is not sent: a rule or Twilio refused it.
        MessageRefused = "message.refused",
        /// Twilio accepted a message.
        MessageSent = "message.sent",
        /// A message was not sent before the end of its validity period, or of `sending.give_up_s`.
        MessageExpired = "message.expired",
        /// An attempt ended without a clear answer of Twilio.
        MessageUnknown = "message.unknown",
        /// A fallback is sent instead of a message.
        MessageSwitched = "message.switched",
        /// The delivery of a message failed finally.
        MessageFailed = "message.failed",
        /// A verification was approved or canceled, or had too many wrong codes.
        VerificationEnded = "verification.ended",
        /// A reason to suppress a contact began or ended.
        SuppressionChanged = "suppression.changed",
        /// A contact's consent was granted or withdrawn.
        ConsentChanged = "consent.changed",
        /// An inbound message opened a conversation window.
        WindowOpened = "window.opened",
        /// A template of an account was added, changed or removed.
        TemplateChanged = "template.changed",
        /// A delivery to a sink was given up.
        DeliveryDead = "delivery.dead",
        /// The profile of an account was created, changed or closed.
        AccountChanged = "account.changed",
    }
}

/// Selection of event types: one type (`message.sent`), a group (`message.*`), or all (`*`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventPattern(String);

impl EventPattern {
    /// Parses a pattern. Returns `None` if it matches no type.
    pub fn parse(text: &str) -> Option<EventPattern> {
        let pattern = EventPattern(text.to_owned());
        OperationalEventType::ALL.iter().any(|one| pattern.matches(*one)).then_some(pattern)
    }

    /// Returns whether the pattern selects this type.
    pub fn matches(&self, event_type: OperationalEventType) -> bool {
        let name = event_type.as_str();
        match self.0.strip_suffix(GROUP_SUFFIX) {
            Some(group) => name.strip_prefix(group).is_some_and(|rest| rest.starts_with('.')),
            None => self.0 == "*" || self.0 == name,
        }
    }
}

/// Operational events that one sink takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventSubscription {
    /// Name of the sink.
    pub sink: String,
    /// Types.
    pub patterns: Vec<EventPattern>,
    /// Conditions, those about accounts, numbers and channels.
    pub filter: SinkFilter,
}

impl EventSubscription {
    fn takes(&self, event_type: OperationalEventType) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(event_type))
    }
}

/// Subscriptions of all sinks. Copies share them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventSubscriptions(Arc<[EventSubscription]>);

impl EventSubscriptions {
    /// Builds the subscriptions of these sinks.
    pub fn of(sinks: impl IntoIterator<Item = EventSubscription>) -> EventSubscriptions {
        EventSubscriptions(sinks.into_iter().filter(|sink| !sink.patterns.is_empty()).collect())
    }

    /// Returns the names of the sinks that take this event.
    pub fn sinks_of<'a>(&'a self, event: &'a OperationalEvent) -> impl Iterator<Item = &'a str> {
        let takes = move |one: &&EventSubscription| {
            one.takes(event.event_type) && one.filter.admits_event(event)
        };
        self.0.iter().filter(takes).map(|one| one.sink.as_str())
    }

    /// Returns whether a sink may take an event of this type.
    pub fn has(&self, event_type: OperationalEventType) -> bool {
        self.0.iter().any(|one| one.takes(event_type))
    }
}

/// Rules of event reporting: the sinks that take events, and the table that explains error codes. The default reports nothing.
#[derive(Debug, Clone, Default)]
pub struct EventReporting {
    subscriptions: EventSubscriptions,
    errors: Option<Arc<ErrorTable>>,
    callbacks_after_ms: Option<i64>,
}

impl EventReporting {
    /// Builds the rules.
    pub fn new(subscriptions: EventSubscriptions, errors: Arc<ErrorTable>) -> EventReporting {
        EventReporting { subscriptions, errors: Some(errors), callbacks_after_ms: None }
    }

    /// Enables status callbacks of the sidecar's own, which begin at least `after_ms` milliseconds after the request of their
    /// message: until then its answer may tell the caller.
    pub fn with_callbacks(self, after_ms: i64) -> EventReporting {
        EventReporting { callbacks_after_ms: Some(after_ms), ..self }
    }

    /// Returns the time of a status callback, in milliseconds since 1970; `None` if the sidecar sends none.
    pub fn callback_at_ms(&self, requested_at_ms: i64, now_ms: i64) -> Option<i64> {
        let after_ms = self.callbacks_after_ms?;
        Some(requested_at_ms.saturating_add(after_ms).max(now_ms))
    }

    /// Returns whether a sink may take an event of this type.
    pub fn has(&self, event_type: OperationalEventType) -> bool {
        self.subscriptions.has(event_type)
    }

    /// Returns the names of the sinks that take this event.
    pub fn sinks_of<'a>(&'a self, event: &'a OperationalEvent) -> impl Iterator<Item = &'a str> {
        self.subscriptions.sinks_of(event)
    }

    /// Explains an error code of Twilio or of this service: the code, the reason, the party that must act, and the remedy.
    /// Returns `None` for an empty code.
    pub fn explain(&self, code: &str, reason: &str) -> Option<Value> {
        if code.is_empty() {
            return None;
        }
        let Explanation { title, actor, remedy } = explain(self.errors.as_deref(), code);
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Some(present(json!({
            "code": code,
            "reason": text(reason).or_else(|| text(title)),
            "actor": actor,
            "remedy": text(remedy),
        })))
    }
}

/// Operational event to record.
#[derive(Debug, Clone, PartialEq)]
pub struct OperationalEvent {
    /// Id, the same for every attempt to record the same change.
    pub event_id: String,
    /// Type.
    pub event_type: OperationalEventType,
    /// Account.
    pub account_sid: String,
    /// Contact that the event is about, with the channel.
    pub contact: Option<Address>,
    /// Our number, sender or Messaging Service that the event is about, with the channel; `None` if it is about all of them.
    pub sender: Option<Address>,
    /// Id of the object that the event is about.
    pub subject: String,
    /// Time of the change, in milliseconds since 1970.
    pub recorded_at_ms: i64,
    /// Content, an object.
    pub data: Value,
}

impl OperationalEvent {
    /// Returns the ordering key. Events about a contact are in order with the contact's webhooks; other events are in order by
    /// subject.
    pub fn ordering_key(&self) -> String {
        match &self.contact {
            Some(contact) => contact_ordering_key(&self.account_sid, contact),
            None => subject_ordering_key(&self.account_sid, &self.subject),
        }
    }
}

/// Published operational event: the JSON that sinks receive, the same for every type of sinks.
#[derive(Debug, Serialize)]
pub struct PublishedEvent<'a> {
    event_id: &'a str,
    event_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    recorded_at: Option<String>,
    account_sid: &'a str,
    replay: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    replay_id: Option<&'a str>,
    data: &'a RawValue,
    #[serde(skip)]
    key: &'a str,
}

/// Stored columns of an operational event.
#[derive(Debug, Clone, Copy)]
pub struct StoredEvent<'a> {
    /// Id.
    pub event_id: &'a str,
    /// Type.
    pub event_type: &'a str,
    /// Account.
    pub account_sid: &'a str,
    /// Number or id of the contact, or the subject of an event without one.
    pub key: &'a str,
    /// Time of the change, in milliseconds since 1970.
    pub recorded_at_ms: i64,
    /// Content, as JSON.
    pub data: &'a str,
    /// Id of the replay; `None` for the first delivery.
    pub replay_id: Option<&'a str>,
}

impl<'a> PublishedEvent<'a> {
    /// Builds the event. Returns `None` if its stored content is not JSON.
    pub fn of(stored: StoredEvent<'a>) -> Option<PublishedEvent<'a>> {
        let data: &RawValue = serde_json::from_str(stored.data).ok()?;
        Some(PublishedEvent {
            event_id: stored.event_id,
            event_type: stored.event_type,
            recorded_at: rfc3339(stored.recorded_at_ms),
            account_sid: stored.account_sid,
            replay: stored.replay_id.is_some(),
            replay_id: stored.replay_id,
            data,
            key: stored.key,
        })
    }

    /// Returns the event id.
    pub fn id(&self) -> &str {
        self.event_id
    }

    /// Returns the account.
    pub fn account_sid(&self) -> &str {
        self.account_sid
    }

    /// Returns the content, as JSON.
    pub fn data(&self) -> &str {
        self.data.get()
    }

    /// Returns the contact's number or id, or the id of the subject.
    pub fn key(&self) -> &str {
        self.key
    }
}

/// Returns the object without its members that are null.
fn present(mut object: Value) -> Value {
    if let Value::Object(members) = &mut object {
        members.retain(|_, value| !value.is_null());
    }
    object
}

/// Returns an id of an event whose parts must not be visible: a digest, because ids are logged and phone numbers are not.
fn digest_id(event_type: OperationalEventType, parts: &[&str]) -> String {
    // JSON keeps the boundaries of the parts, so no two lists of parts give the same text.
    let text = serde_json::to_vec(parts).unwrap_or_default();
    let digest: String =
        Sha256::digest(text).iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("{event_type}:{digest}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use OperationalEventType::{DeliveryDead, MessageFailed, MessageSent, SuppressionChanged};

    #[test]
    fn patterns_select_a_type_a_group_or_all() {
        for (pattern, matching) in [
            ("message.sent", &[MessageSent][..]),
            ("message.*", &[MessageSent, MessageFailed]),
            ("suppression.changed", &[SuppressionChanged]),
            ("*", &[MessageSent, MessageFailed, SuppressionChanged, DeliveryDead]),
        ] {
            let parsed = EventPattern::parse(pattern).unwrap();
            let all = [MessageSent, MessageFailed, SuppressionChanged, DeliveryDead];
            let found: Vec<_> = all.into_iter().filter(|one| parsed.matches(*one)).collect();
            assert_eq!(found, matching, "{pattern}");
        }
        for none in
            ["", "message", "message.", ".*", "mess.*", "message.lost", "message.sent.*", "**"]
        {
            assert_eq!(EventPattern::parse(none), None, "{none:?}");
        }
    }

    #[test]
    fn subscriptions_name_the_sinks_of_an_event() {
        let subscription = |sink: &str, patterns: &[&str], filter: SinkFilter| EventSubscription {
            sink: sink.to_owned(),
            patterns: patterns.iter().map(|one| EventPattern::parse(one).unwrap()).collect(),
            filter,
        };
        let of_one = SinkFilter { accounts: vec!["AC1".into()], ..SinkFilter::default() };
        let sinks = EventSubscriptions::of([
            subscription("app", &["message.*"], SinkFilter::default()),
            subscription("none", &[], SinkFilter::default()),
            subscription("crm", &["message.sent", "delivery.dead"], of_one),
        ]);
        let of = |event_type, account_sid: &str| {
            let event = OperationalEvent {
                event_id: "1".into(),
                event_type,
                account_sid: account_sid.into(),
                contact: None,
                sender: None,
                subject: "ms_1".into(),
                recorded_at_ms: 1,
                data: json!({}),
            };
            sinks.sinks_of(&event).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(of(MessageSent, "AC1"), ["app", "crm"]);
        assert_eq!(of(MessageSent, "AC2"), ["app"]);
        assert_eq!(of(MessageFailed, "AC1"), ["app"]);
        assert_eq!(of(DeliveryDead, "AC1"), ["crm"]);
        assert!(sinks.has(DeliveryDead) && !sinks.has(SuppressionChanged));
        assert!(!EventReporting::default().has(MessageSent));
    }

    #[test]
    fn published_event_matches_the_documented_format() {
        let stored = StoredEvent {
            event_id: "message.sent:ms_1:0",
            event_type: "message.sent",
            account_sid: "AC1",
            key: "+1415",
            recorded_at_ms: 1_795_436_897_042,
            data: r#"{"id": "ms_1"}"#,
            replay_id: None,
        };
        let event = PublishedEvent::of(stored).unwrap();
        assert_eq!((event.id(), event.key()), ("message.sent:ms_1:0", "+1415"));
        assert_eq!(
            serde_json::to_value(event).unwrap(),
            json!({
                "event_id": "message.sent:ms_1:0",
                "event_type": "message.sent",
                "recorded_at": "2026-11-23T12:28:17.042Z",
                "account_sid": "AC1",
                "replay": false,
                "data": {"id": "ms_1"},
            })
        );
        let replayed = StoredEvent { replay_id: Some("RP1"), ..stored };
        let replayed = serde_json::to_value(PublishedEvent::of(replayed).unwrap()).unwrap();
        assert_eq!((&replayed["replay"], &replayed["replay_id"]), (&json!(true), &json!("RP1")));
        assert!(PublishedEvent::of(StoredEvent { data: "", ..stored }).is_none());
    }

    #[test]
    fn codes_of_twilio_and_of_this_service_have_an_actor_and_a_remedy() {
        let errors = Arc::new(crate::sending::errors::built_in());
        let reporting = EventReporting::new(EventSubscriptions::default(), errors);
        for code in ["63016", "suppressed"] {
            let error = reporting.explain(code, "").unwrap();
            for field in ["code", "reason", "actor", "remedy"] {
                assert!(error[field].as_str().is_some_and(|text| !text.is_empty()), "{error}");
            }
        }
        assert_eq!(reporting.explain("99", "no"), Some(json!({"code": "99", "reason": "no"})));
        assert_eq!(reporting.explain("", "no"), None);
    }
}
