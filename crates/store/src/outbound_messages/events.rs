//! Operational events of messages: built from the row and the change, if a sink takes the type. The ids make a change that is
//! reported twice one event.

use serde_json::{Value, json};

use super::{OutboundMessage, OutboundMessages};
use crate::operational_events::callbacks::NewCallback;
use twilio_edge_domain::{
    address::Address,
    operational_event::{EventReporting, OperationalEvent, OperationalEventType},
    sending::{
        options::Metadata,
        provider::Provider,
        status_callback::{StatusCallback, UnsentMessage},
    },
    window::rfc3339,
};

/// Code of a message that was not sent in time.
const EXPIRED: &str = "expired";

/// Change of a message that an event reports.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct MessageChange<'a> {
    /// New state.
    pub(super) state: &'a str,
    /// Twilio's SID; empty without one.
    pub(super) message_sid: &'a str,
    /// Delivery status; empty without one.
    pub(super) status: &'a str,
    /// Code of the reason; empty without one.
    pub(super) code: &'a str,
    /// The reason in words.
    pub(super) reason: &'a str,
    /// Fallback that is sent instead.
    pub(super) instead: Option<&'a OutboundMessage>,
    /// Time of the change, in milliseconds since 1970.
    pub(super) now_ms: i64,
}

impl OutboundMessages {
    /// Returns the event of a change of this message; none if no sink takes the type.
    pub(super) fn event(
        &self,
        event_type: OperationalEventType,
        message: &OutboundMessage,
        change: MessageChange<'_>,
    ) -> Option<OperationalEvent> {
        event(self.database.reporting(), event_type, message, change)
    }

    /// Returns the events of a message that ended without being sent.
    pub(super) fn events_of_refusal(
        &self,
        message: &OutboundMessage,
        change: MessageChange<'_>,
    ) -> Vec<OperationalEvent> {
        let event_type = type_of_refusal(change.code);
        let switched = self.event_of_switch(message, change);
        self.event(event_type, message, change).into_iter().chain(switched).collect()
    }

    /// Returns the status callback about a message that ended without Twilio. A message that is replaced by a fallback has
    /// not ended for the caller, and a repetition was reported by Twilio. Only Twilio's API of messages has status callbacks.
    pub(super) fn callback(
        &self,
        message: &OutboundMessage,
        change: MessageChange<'_>,
    ) -> Option<NewCallback> {
        let is_replaced = change.instead.is_some_and(|instead| instead.state != "refused");
        let is_other = message.provider() != Provider::Messaging;
        if is_replaced || is_other || message.repetitions > 0 {
            return None;
        }
        let reporting = self.database.reporting();
        let due_at_ms = reporting.callback_at_ms(message.created_at_ms, change.now_ms)?;
        let callback = StatusCallback::of(UnsentMessage {
            id: &message.id,
            account_sid: &message.account_sid,
            form: &message.form,
            state: change.state,
            code: change.code,
        })?;
        let (id, account_sid) = (&message.id, &message.account_sid);
        Some(NewCallback::of(id, account_sid, contact(message), &callback, due_at_ms))
    }

    /// Returns the event of a fallback that is sent instead of a message.
    pub(super) fn event_of_switch(
        &self,
        message: &OutboundMessage,
        change: MessageChange<'_>,
    ) -> Option<OperationalEvent> {
        // A refused fallback has an event of its own.
        change.instead.filter(|instead| instead.state != "refused")?;
        self.event(OperationalEventType::MessageSwitched, message, change)
    }
}

/// Returns the event of a new message that is stored as declined, or as refused, as a fallback can be.
pub(super) fn event_of_refused(
    reporting: &EventReporting,
    message: &OutboundMessage,
) -> Option<OperationalEvent> {
    let event_type = match message.state.as_str() {
        "declined" => OperationalEventType::MessageDeclined,
        "refused" => type_of_refusal(&message.code),
        _ => return None,
    };
    let change = MessageChange {
        state: &message.state,
        code: &message.code,
        reason: &message.reason,
        now_ms: message.created_at_ms,
        ..MessageChange::default()
    };
    event(reporting, event_type, message, change)
}

fn type_of_refusal(code: &str) -> OperationalEventType {
    match code {
        EXPIRED => OperationalEventType::MessageExpired,
        _ => OperationalEventType::MessageRefused,
    }
}

fn event(
    reporting: &EventReporting,
    event_type: OperationalEventType,
    message: &OutboundMessage,
    change: MessageChange<'_>,
) -> Option<OperationalEvent> {
    if !reporting.has(event_type) {
        return None;
    }
    // An attempt may end as unknown again after it was repeated; every other change happens once for each repetition.
    let count = match event_type {
        OperationalEventType::MessageUnknown => message.attempts,
        _ => message.repetitions,
    };
    let contact = contact(message);
    Some(OperationalEvent {
        event_id: format!("{event_type}:{}:{count}", message.id),
        event_type,
        account_sid: message.account_sid.clone(),
        subject: message.id.clone(),
        recorded_at_ms: change.now_ms,
        data: data(reporting, message, change, contact.as_ref()),
        sender: Address::parse(&message.sender)
            .map(|sender| Address { channel: message.channel.clone(), ..sender }),
        contact,
    })
}

/// Returns the recipient. Without it, the events of a message are in order by message only.
fn contact(message: &OutboundMessage) -> Option<Address> {
    let is_masked = message.recipient.is_empty() || message.recipient.contains("..");
    let number = if is_masked { &message.contact } else { &message.recipient };
    (!number.is_empty())
        .then(|| Address { channel: message.channel.clone(), number: number.clone() })
}

fn data(
    reporting: &EventReporting,
    message: &OutboundMessage,
    change: MessageChange<'_>,
    contact: Option<&Address>,
) -> Value {
    let text = |text: &str| (!text.is_empty()).then(|| Value::from(text));
    let sid = match change.message_sid {
        "" => &message.message_sid,
        sid => sid,
    };
    let to = contact.map_or_else(|| message.recipient.clone(), Address::written);
    let metadata = Metadata::read(&message.metadata).0;
    let mut data = json!({
        "id": message.id,
        "notification_id": text(&message.notification_id),
        "provider": text(&message.provider),
        "sid": text(sid),
        "state": change.state,
        "status": text(change.status),
        "error": reporting.explain(change.code, change.reason),
        "to": text(&to),
        "from": text(&message.sender),
        "channel": message.channel,
        "category": text(&message.category),
        "template": text(&message.template),
        "fallback": change.instead.map(|instead| instead.id.as_str()),
        "fallback_of": text(&message.fallback_of),
        "reply_to": message.is_reply_to_keyword().then(|| json!({"sid": message.reply_to, "keyword": message.reply_keyword})),
        "metadata": (!metadata.is_empty()).then_some(metadata),
        "attempts": message.attempts,
        "repetitions": message.repetitions,
        "created_at": rfc3339(message.created_at_ms),
    });
    if let Value::Object(members) = &mut data {
        members.retain(|_, value| !value.is_null());
    }
    data
}
