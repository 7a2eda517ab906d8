//! Delivery of one event to one sink. The event is the JSON that sinks receive, the same for every type of sinks. Its shape is a
//! contract with other programs (docs/DELIVERY.md). Transports and sinks are not known here. `event/webhook.rs` has the events of
//! webhooks, `operational_event.rs` the others.

mod replies;
mod webhook;

use serde::Serialize;
use twilio_edge_contract::Class;

use super::operational_event::PublishedEvent;

pub use self::webhook::{ArrivalFacts, Event, WebhookFacts, event_type};

/// JSON Schema of the event, for validators (json-schema.org, draft 2020-12).
pub const SCHEMA: &str = include_str!("../../../docs/event.schema.json");

/// Returns the id of one delivery. A replay gets another id, so that the receiver does not drop it as a copy.
pub fn delivery_id(event_id: &str, replay_id: Option<&str>) -> String {
    match replay_id {
        Some(replay) => format!("{event_id}#{replay}"),
        None => event_id.to_owned(),
    }
}

/// Builds the delivery of a test event. `id` identifies it to the sink.
pub fn test_delivery(id: &str, now_ms: i64) -> Delivery<'_> {
    Delivery {
        id: id.to_owned(),
        event: SinkEvent::Webhook(Box::new(Event::test(id, now_ms))),
        form: Some(webhook::TEST_FORM),
        replay_id: None,
    }
}

/// Kind of an event, by which a sink chooses the topic or stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// Webhook of an inbound message.
    Inbound,
    /// Status callback.
    Status,
    /// Operational event.
    Operational,
}

/// Event of any kind, as a sink receives it.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum SinkEvent<'a> {
    /// Webhook.
    Webhook(Box<Event<'a>>),
    /// Operational event.
    Operational(PublishedEvent<'a>),
}

impl SinkEvent<'_> {
    /// Returns the event id, the same for every copy of the event.
    pub fn id(&self) -> &str {
        match self {
            SinkEvent::Webhook(event) => event.id(),
            SinkEvent::Operational(event) => event.id(),
        }
    }

    /// Returns whether it is the test event of a sink, and not a webhook.
    pub fn is_test(&self) -> bool {
        matches!(self, SinkEvent::Webhook(event) if event.is_test())
    }

    /// Returns the kind of the event.
    pub fn kind(&self) -> EventKind {
        match self {
            SinkEvent::Webhook(event) if event.class() == Class::Status => EventKind::Status,
            SinkEvent::Webhook(_) => EventKind::Inbound,
            SinkEvent::Operational(_) => EventKind::Operational,
        }
    }

    /// Returns the ordering key: events with the same key stay in order. It is the contact's number or id, or the id of the
    /// message or object if no contact is known.
    pub fn key(&self) -> String {
        match self {
            SinkEvent::Webhook(event) => event.key(),
            SinkEvent::Operational(event) => event.key().to_owned(),
        }
    }
}

/// Delivery of one event to one sink.
#[derive(Debug)]
pub struct Delivery<'a> {
    /// Id of the delivery; the same on every attempt.
    pub id: String,
    /// The event, as a sink receives it.
    pub event: SinkEvent<'a>,
    /// Parameters of the webhook, form-encoded as Twilio sent them; `None` for an operational event.
    pub form: Option<&'a str>,
    /// Id of the replay that caused the delivery, if one did.
    pub replay_id: Option<&'a str>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn test_event_is_marked_and_has_no_contact() {
        let delivery = test_delivery("test:1", 1_795_436_897_042);
        assert!(delivery.event.is_test());
        let event = serde_json::to_value(&delivery.event).unwrap();
        assert_eq!((&event["event_id"], &event["event_type"]), (&json!("test:1"), &json!("test")));
        assert_eq!(event["raw"]["TwilioEdgeTest"], "true");
        assert_eq!((event.get("from"), event.get("to")), (None, None));
        assert_eq!(delivery.event.key(), "SM00000000000000000000000000000000");
    }

    #[test]
    fn delivery_of_a_replay_has_an_id_of_its_own() {
        assert_eq!(delivery_id("e", None), "e");
        assert_eq!(delivery_id("e", Some("r1")), "e#r1");
    }
}
