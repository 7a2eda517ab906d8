//! Content of the operational events about suppressions, consents, windows, templates, deliveries and accounts.

use serde_json::{Value, json};

use super::{OperationalEvent, OperationalEventType, digest_id, present};
use crate::{
    address::Address,
    consent::Consent,
    suppression::Suppression,
    template::catalogue::TemplateChange,
    tenant::Tenant,
    window::{expires_ms, rfc3339},
};

/// Conversation window that an inbound message opened.
#[derive(Debug, Clone, Copy)]
pub struct OpenedWindow<'a> {
    /// Dedupe key of the message's webhook.
    pub dedupe_key: &'a str,
    /// Account.
    pub account_sid: &'a str,
    /// SID of the message.
    pub message_sid: &'a str,
    /// Channel.
    pub channel: &'a str,
    /// Number or id of the contact.
    pub theirs: &'a str,
    /// Our number.
    pub ours: &'a str,
    /// Arrival of the message, in milliseconds since 1970.
    pub received_at_ms: i64,
}

/// Delivery that was given up.
#[derive(Debug, Clone, Copy)]
pub struct DeadDelivery<'a> {
    /// Name of the sink.
    pub sink: &'a str,
    /// Delivery id.
    pub delivery_id: &'a str,
    /// Id of its event.
    pub event_id: &'a str,
    /// Account.
    pub account_sid: &'a str,
    /// Time at which the delivery was queued, in milliseconds since 1970; a retry by an operator changes it.
    pub recorded_at_ms: i64,
    /// Number of attempts.
    pub tries: i64,
    /// Reason of the last failure.
    pub reason: Option<&'a str>,
}

impl OperationalEvent {
    /// Builds the event of a suppression that began or ended.
    pub fn suppression_changed(change: &Suppression) -> OperationalEvent {
        let event_type = OperationalEventType::SuppressionChanged;
        let Address { channel, number } = &change.address;
        let parts = [
            change.account_sid.as_str(),
            channel,
            number,
            change.source.as_str(),
            &change.error_code,
            if change.is_open { "begun" } else { "ended" },
            &change.changed_at_ms.to_string(),
        ];
        OperationalEvent {
            event_id: digest_id(event_type, &parts),
            event_type,
            account_sid: change.account_sid.clone(),
            contact: Some(change.address.clone()),
            // The suppression is in force for all our senders, also if one of them received the opt-out.
            sender: None,
            subject: number.clone(),
            recorded_at_ms: change.changed_at_ms,
            data: present(json!({
                "contact": number,
                "channel": channel,
                "suppressed": change.is_open,
                "source": change.source.as_str(),
                "error_code": non_empty(&change.error_code),
                "since": rfc3339(change.since_ms),
                "expires_at": change.expires_at_ms.and_then(rfc3339),
                "message_sid": change.message_sid,
                "sender": change.sender.as_deref().and_then(non_empty),
                "changed_by": change.changed_by,
            })),
        }
    }

    /// Builds the event of a recorded consent.
    pub fn consent_changed(consent: &Consent) -> OperationalEvent {
        let event_type = OperationalEventType::ConsentChanged;
        let Address { channel, number } = &consent.address;
        OperationalEvent {
            event_id: format!("{event_type}:{}", consent.id()),
            event_type,
            account_sid: consent.account_sid.clone(),
            contact: Some(consent.address.clone()),
            sender: None,
            subject: number.clone(),
            recorded_at_ms: consent.recorded_at_ms,
            data: present(json!({
                "contact": number,
                "channel": channel,
                "category": consent.category.as_str(),
                "state": consent.state.as_str(),
                "at": rfc3339(consent.at_ms),
                "source": consent.source,
                "recorded_by": consent.recorded_by,
            })),
        }
    }

    /// Builds the event of a window that an inbound message opened.
    pub fn window_opened(window: OpenedWindow<'_>, now_ms: i64) -> OperationalEvent {
        let event_type = OperationalEventType::WindowOpened;
        OperationalEvent {
            event_id: format!("{event_type}:{}", window.dedupe_key),
            event_type,
            account_sid: window.account_sid.to_owned(),
            contact: Some(Address {
                channel: window.channel.to_owned(),
                number: window.theirs.to_owned(),
            }),
            sender: Some(Address {
                channel: window.channel.to_owned(),
                number: window.ours.to_owned(),
            }),
            subject: window.message_sid.to_owned(),
            recorded_at_ms: now_ms,
            data: present(json!({
                "contact": window.theirs,
                "channel": window.channel,
                "sender": window.ours,
                "message_sid": window.message_sid,
                "opened_at": rfc3339(window.received_at_ms),
                "expires_at": rfc3339(expires_ms(window.received_at_ms)),
            })),
        }
    }

    /// Builds the event of a template that was added, changed or removed. `revision` counts the changes of the catalogue.
    pub fn template_changed(
        account_sid: &str,
        change: &TemplateChange,
        revision: i64,
        now_ms: i64,
    ) -> OperationalEvent {
        let event_type = OperationalEventType::TemplateChanged;
        let now = change.now.as_ref();
        OperationalEvent {
            event_id: format!("{event_type}:{account_sid}:{revision}:{}", change.reference),
            event_type,
            account_sid: account_sid.to_owned(),
            contact: None,
            sender: None,
            subject: format!("template:{}", change.reference),
            recorded_at_ms: now_ms,
            data: present(json!({
                "change": change.action.strip_prefix("template.").unwrap_or(change.action),
                "reference": change.reference,
                "name": now.map(|now| now.name.as_str()),
                "locale": now.map(|now| now.locale.as_str()),
                "content_sid": now.and_then(|now| non_empty(&now.content_sid)),
                "approval": now.map(|now| now.approval.as_str()),
                "reason": now.and_then(|now| non_empty(&now.reason)),
                "detail": change.detail,
            })),
        }
    }

    /// Builds the event of a delivery that was given up.
    pub fn delivery_dead(dead: DeadDelivery<'_>, now_ms: i64) -> OperationalEvent {
        let event_type = OperationalEventType::DeliveryDead;
        let DeadDelivery { sink, delivery_id, recorded_at_ms, .. } = dead;
        OperationalEvent {
            event_id: format!("{event_type}:{sink}:{delivery_id}:{recorded_at_ms}"),
            event_type,
            account_sid: dead.account_sid.to_owned(),
            contact: None,
            sender: None,
            subject: format!("sink:{sink}"),
            recorded_at_ms: now_ms,
            data: present(json!({
                "sink": sink,
                "delivery_id": delivery_id,
                "event_id": dead.event_id,
                "queued_at": rfc3339(recorded_at_ms),
                "tries": dead.tries,
                "reason": dead.reason,
            })),
        }
    }

    /// Builds the event of a profile that was created, changed or closed.
    pub fn account_changed(tenant: &Tenant) -> OperationalEvent {
        let event_type = OperationalEventType::AccountChanged;
        let profile = &tenant.profile;
        OperationalEvent {
            event_id: format!("{event_type}:{}:{}", tenant.account_sid, tenant.revision),
            event_type,
            account_sid: tenant.account_sid.clone(),
            contact: None,
            sender: None,
            subject: tenant.account_sid.clone(),
            recorded_at_ms: tenant.updated_at_ms,
            data: present(json!({
                "revision": tenant.revision,
                "friendly_name": profile.friendly_name,
                "parent_sid": profile.parent_sid,
                "senders": profile.senders,
                "services": profile.services,
                "policy": Some(&profile.policy).filter(|policy| policy.is_object()),
                "retention": Some(&profile.retention).filter(|rules| rules.is_object()),
                "closed_at": tenant.closed_at_ms.and_then(rfc3339),
            })),
        }
    }
}

fn non_empty(text: &str) -> Option<Value> {
    (!text.is_empty()).then(|| Value::from(text))
}
