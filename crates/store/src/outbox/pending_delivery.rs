//! Due delivery as a row, and how it becomes the event that a sink receives.

use sqlx::FromRow;
use twilio_edge_contract::Class;
use twilio_edge_domain::{
    event::{ArrivalFacts, Delivery, Event, SinkEvent, WebhookFacts, delivery_id},
    media::inbound::MediaLinks,
    operational_event::{PublishedEvent, StoredEvent},
};

/// Due delivery with its event.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct PendingDelivery {
    /// Position within its lane.
    pub seq: i64,
    /// See [`super::NewDelivery`].
    pub delivery_id: String,
    /// See [`super::NewDelivery`].
    pub dedupe_key: String,
    /// See [`super::NewDelivery`].
    pub replay_id: Option<String>,
    /// See [`super::NewDelivery`].
    pub lane: String,
    /// See [`super::NewDelivery`].
    pub recorded_at_ms: i64,
    /// Number of attempts so far.
    pub tries: i64,
    /// Latest attempts, as [`twilio_edge_domain::delivery_attempt`] stores them.
    pub attempts: String,
    /// See [`super::NewDelivery`].
    pub facts: String,
    /// `inbound` or `status`; empty for an operational event.
    pub class: String,
    /// Account SID of the tenant.
    pub account_sid: String,
    /// SID of the message.
    pub message_sid: String,
    /// Delivery status of a status callback.
    pub status: Option<String>,
    /// Error code of a failure.
    pub error_code: Option<String>,
    /// Route on which the webhook arrived.
    pub route: Option<String>,
    /// Form of the webhook, unchanged.
    pub form: Option<String>,
    /// Time of arrival, in milliseconds since 1970.
    pub received_at_ms: Option<i64>,
    /// Metadata of the outbound message that the webhook is about, as JSON; empty without any.
    pub metadata: String,
    /// Number of media of the inbound message that the sidecar stores.
    pub media: i64,
    /// Type of an operational event.
    pub event_type: Option<String>,
    /// Content of an operational event, as JSON.
    pub event_data: Option<String>,
    /// Time of an operational event, in milliseconds since 1970.
    pub event_at_ms: Option<i64>,
    /// Contact of an operational event, or its subject if it has no contact.
    pub event_key: Option<String>,
}

impl PendingDelivery {
    /// Returns the delivery, with links to stored media; `None` if its event was removed from the database.
    pub fn delivery(&self, links: Option<&MediaLinks>) -> Option<Delivery<'_>> {
        let (event, form) = match self.operational_event() {
            Some(event) => (SinkEvent::Operational(event), None),
            None => (SinkEvent::Webhook(Box::new(self.webhook(links)?)), self.form.as_deref()),
        };
        Some(Delivery {
            id: delivery_id(&self.dedupe_key, self.replay_id.as_deref()),
            event,
            form,
            replay_id: self.replay_id.as_deref(),
        })
    }

    fn operational_event(&self) -> Option<PublishedEvent<'_>> {
        PublishedEvent::of(StoredEvent {
            event_id: &self.dedupe_key,
            event_type: self.event_type.as_deref()?,
            account_sid: &self.account_sid,
            key: self.event_key.as_deref().unwrap_or_default(),
            recorded_at_ms: self.event_at_ms.unwrap_or(self.recorded_at_ms),
            data: self.event_data.as_deref()?,
            replay_id: self.replay_id.as_deref(),
        })
    }

    fn webhook(&self, links: Option<&MediaLinks>) -> Option<Event<'_>> {
        let form = self.form.as_deref()?;
        let known = WebhookFacts {
            event_id: &self.dedupe_key,
            class: self.class()?,
            account_sid: &self.account_sid,
            message_sid: &self.message_sid,
            status: self.status.as_deref(),
            error_code: self.error_code.as_deref(),
            route: self.route.as_deref().unwrap_or_default(),
            received_at_ms: self.received_at_ms.unwrap_or(self.recorded_at_ms),
            replay_id: self.replay_id.as_deref(),
            metadata: &self.metadata,
            arrival: ArrivalFacts::read(&self.facts),
        };
        let event = Event::of(known, form);
        Some(match links.filter(|_| self.media > 0 && known.class == Class::Inbound) {
            Some(links) => event.with_media(links.of(
                form,
                known.account_sid,
                known.message_sid,
                known.received_at_ms,
            )),
            None => event,
        })
    }

    /// Returns the class of the event; `None` for any other word.
    pub fn class(&self) -> Option<Class> {
        self.class.parse().ok()
    }
}
