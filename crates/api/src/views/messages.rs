//! Views of messages of both directions: a summary for lists, and one message with its timeline.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::{EventSummary, ReplyTo};
use twilio_edge_domain::{
    actor::Actor,
    address::Address,
    message::{Direction, Message as Recorded, RecordedWebhook},
    sending::{
        errors::{ErrorTable, Explanation, explain},
        options::Metadata,
    },
    status::{CallbackStatus, CurrentStatus, current_status},
    window::rfc3339,
};
use twilio_edge_store::{OutboundMessage, message_history::messages::MessageRecord};

/// A message, inbound or outbound.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct MessageSummary {
    /// Id of the message in this API, stable for its whole life: `ms_` and 32 hexadecimal digits for a message that this
    /// API accepted; otherwise Twilio's SID.
    pub id: String,
    /// Twilio's SID of the message; `null` as long as Twilio does not have it.
    pub sid: Option<String>,
    /// SID of the account.
    pub account_sid: String,
    /// Direction of the message.
    pub direction: Direction,
    /// Channel: `sms`, `whatsapp`, ..
    pub channel: Option<String>,
    /// Sender. For an outbound message `null` while a Messaging Service chooses it; for an inbound message `null` as long as
    /// only a settlement was recorded.
    pub from: Option<String>,
    /// Recipient. It is masked (`sms:..67`) for an outbound message about which Twilio has reported nothing yet.
    pub to: Option<String>,
    /// SID of the Messaging Service that chooses the sender.
    pub messaging_service_sid: Option<String>,
    /// State: `received` for an inbound message. For an outbound one `queued`, `attempting`, `sent` (Twilio has it),
    /// `refused`, `unknown` (it is unknown whether Twilio has it), `not_sent` or `canceled`.
    pub state: String,
    /// Delivery status that Twilio reported: a failure, else `read`, else `delivered`, else the last step so far; `received`
    /// for an inbound message; `null` before the first webhook.
    pub status: Option<String>,
    /// Error of the delivery, or the reason why the message was not sent, or not yet; `null` without one.
    pub error: Option<MessageError>,
    /// Attempts to send the message; `null` for a message that this API did not accept.
    pub attempts: Option<MessageAttempts>,
    /// Template of a message that this API accepted: its name in the catalogue, or its content SID if the catalogue does not
    /// have it.
    pub template: Option<String>,
    /// Metadata of the request that created the message.
    pub metadata: BTreeMap<String, String>,
    /// Purpose of a message that this API accepted.
    pub category: Option<String>,
    /// Kind of a message that this API accepted: `session` or `template`.
    pub kind: Option<String>,
    /// Id of the message of which this one is the fallback.
    pub fallback_of: Option<String>,
    /// Keyword to which this message replies.
    pub reply_to: Option<ReplyTo>,
    /// Time at which a `queued` message is due: its `send_at`, the end of quiet hours, or the next attempt; `null` in every
    /// other state.
    #[schema(format = DateTime)]
    pub due_at: Option<String>,
    /// Time after which the message is not sent; `null` without a validity period.
    #[schema(format = DateTime)]
    pub valid_until: Option<String>,
    /// Time at which the message was accepted; for a message that this API did not accept, of its first webhook.
    #[schema(format = DateTime)]
    pub created_at: Option<String>,
    /// Time of the last change or webhook.
    #[schema(format = DateTime)]
    pub changed_at: Option<String>,
    /// Number of webhooks about the message.
    pub webhooks: usize,
    /// Links to related resources.
    pub links: MessageLinks,
}

/// Error of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct MessageError {
    /// Twilio's error code, an HTTP status of Twilio, or one of our codes.
    pub code: String,
    /// Explanation of the code.
    pub reason: Option<String>,
    /// Actor who must act: `operator`, `administrator`, `caller`, `recipient`, or `none` for a temporary error; `null` for an
    /// unknown code.
    pub actor: Option<&'static str>,
    /// Remedy; `null` for an unknown code.
    pub remedy: Option<String>,
}

/// Attempts to send a message, and their cost.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct MessageAttempts {
    /// Number of attempts.
    pub count: i64,
    /// Number of SMS segments, by which Twilio bills each sent text; `null` for other messages, which are billed one by one.
    pub segments: Option<i64>,
    /// Number of times the message was sent again after a failed delivery.
    pub repetitions: i64,
    /// Twilio's SIDs of the failed deliveries, the oldest first.
    pub replaced_sids: Vec<String>,
    /// Start of the last attempt.
    #[schema(format = DateTime)]
    pub last_at: Option<String>,
    /// Twilio's id of the last API request, for Twilio's support.
    pub twilio_request_id: Option<String>,
}

/// Links to related resources.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct MessageLinks {
    /// Path of this message.
    #[serde(rename = "self")]
    pub this: String,
    /// Path that cancels the message; `null` unless it is `queued`.
    pub cancel: Option<String>,
    /// Path of the fallback; `null` without one, and in lists.
    pub fallback: Option<String>,
}

/// A message with its timeline.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Message {
    /// Summary of the message.
    #[serde(flatten)]
    pub summary: MessageSummary,
    /// Id of the fallback that is sent instead of this message.
    pub fallback: Option<String>,
    /// Events of the message, in their order.
    pub timeline: Vec<TimelineEntry>,
}

/// Kind of an entry of a timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TimelineEvent {
    /// This API accepted the message.
    Accepted,
    /// The last attempt to send the message began.
    Attempt,
    /// The message reached its current state: Twilio's answer, a cancellation, or a decision of an operator.
    State,
    /// Twilio sent a webhook about the message: the message itself, or a status callback.
    Webhook,
}

/// Entry of a timeline.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct TimelineEntry {
    /// Time of the event.
    #[schema(format = DateTime)]
    pub at: Option<String>,
    /// Kind of the event.
    pub event: TimelineEvent,
    /// State that the message reached, for `state`.
    pub state: Option<String>,
    /// Error of that state, or of the status that the webhook reports.
    pub error: Option<MessageError>,
    /// The webhook with the answer of the backend, for `webhook`.
    pub webhook: Option<EventSummary>,
}

impl MessageError {
    pub(super) fn of(code: &str, reason: &str, errors: &ErrorTable) -> Option<MessageError> {
        let Explanation { title, actor, remedy } = explain(Some(errors), code);
        (!code.is_empty()).then(|| MessageError {
            code: code.to_owned(),
            reason: non_empty(reason).or_else(|| non_empty(title)),
            actor: actor.map(Actor::as_str),
            remedy: non_empty(remedy),
        })
    }
}

impl MessageSummary {
    /// Renders a message; `errors` has the actor and the remedy of each error code.
    pub fn of(record: &MessageRecord, errors: &ErrorTable) -> MessageSummary {
        match record {
            MessageRecord::Accepted(row, recorded, _) => {
                MessageSummary::accepted(row, recorded.as_deref(), errors)
            }
            MessageRecord::Recorded(recorded) => MessageSummary::recorded(recorded, errors),
        }
    }

    /// Renders a message that this API accepted.
    fn accepted(
        row: &OutboundMessage,
        recorded: Option<&Recorded>,
        errors: &ErrorTable,
    ) -> MessageSummary {
        let current = delivery(row, recorded);
        let failure = current.as_ref().and_then(|current| current.error_code);
        let is_service = row.sender.starts_with("MG");
        // The recipient of a message with an outcome is already stored in masked form.
        let masked = match row.recipient.contains("..") {
            true => row.recipient.clone(),
            false => {
                let to = Address { channel: row.channel.clone(), number: row.recipient.clone() };
                to.to_string()
            }
        };
        let first = recorded.map(|recorded| &recorded.first);
        let sender = (!is_service).then(|| row.sender.clone()).and_then(|text| non_empty(&text));
        let last_webhook_ms = recorded.map(Recorded::last_received_ms).unwrap_or_default();
        MessageSummary {
            id: row.id.clone(),
            sid: non_empty(&row.message_sid),
            account_sid: row.account_sid.clone(),
            direction: Direction::Outbound,
            channel: Some(row.channel.clone()),
            from: first.and_then(|first| first.from().map(str::to_owned)).or(sender),
            to: first.and_then(|first| first.to().map(str::to_owned)).or(Some(masked)),
            messaging_service_sid: is_service.then(|| row.sender.clone()),
            state: row.state.clone(),
            status: current.map(|current| current.word.to_owned()),
            error: match failure {
                Some(code) => {
                    let reason = if row.code == code { row.reason.as_str() } else { "" };
                    MessageError::of(code, reason, errors)
                }
                None => MessageError::of(&row.code, &row.reason, errors),
            },
            attempts: Some(MessageAttempts {
                count: row.attempts,
                segments: Some(row.segments).filter(|segments| *segments > 0),
                repetitions: row.repetitions,
                replaced_sids: row.replaced_sids().map(str::to_owned).collect(),
                last_at: time(row.attempted_at_ms),
                twilio_request_id: non_empty(&row.request_id),
            }),
            template: non_empty(&row.template),
            metadata: Metadata::read(&row.metadata).0,
            category: Some(row.category.clone()),
            kind: Some(row.kind.clone()),
            fallback_of: non_empty(&row.fallback_of),
            reply_to: ReplyTo::of(row),
            due_at: (row.state == "queued").then(|| time(row.due_at_ms)).flatten(),
            valid_until: time(row.valid_until_ms),
            created_at: rfc3339(row.created_at_ms),
            changed_at: rfc3339(row.changed_at_ms.max(row.status_at_ms).max(last_webhook_ms)),
            webhooks: recorded.map_or(0, |recorded| recorded.timeline().count()),
            links: MessageLinks {
                this: format!("/v1/messages/{}", row.id),
                cancel: (row.state == "queued").then(|| format!("/v1/messages/{}/cancel", row.id)),
                fallback: None,
            },
        }
    }

    /// Renders a message that is known from its webhooks alone.
    fn recorded(message: &Recorded, errors: &ErrorTable) -> MessageSummary {
        let first = &message.first;
        let code = message.error_code.as_deref().unwrap_or_default();
        MessageSummary {
            id: first.message_sid.clone(),
            sid: Some(first.message_sid.clone()),
            account_sid: first.account_sid.clone(),
            direction: first.direction,
            channel: first.channel().map(str::to_owned),
            from: first.from().map(str::to_owned),
            to: first.to().map(str::to_owned),
            messaging_service_sid: None,
            state: match first.direction {
                Direction::Inbound => "received".to_owned(),
                Direction::Outbound => "sent".to_owned(),
            },
            status: Some(message.status.clone()),
            error: MessageError::of(code, "", errors),
            attempts: None,
            template: None,
            metadata: BTreeMap::new(),
            category: None,
            kind: None,
            fallback_of: None,
            reply_to: None,
            due_at: None,
            valid_until: None,
            created_at: rfc3339(first.received_ms),
            changed_at: rfc3339(message.last_received_ms()),
            webhooks: message.timeline().count(),
            links: MessageLinks {
                this: format!("/v1/messages/{}", first.message_sid),
                cancel: None,
                fallback: None,
            },
        }
    }
}

impl Message {
    /// Renders a message with its timeline. `fallback` is the id of the message that is sent instead of it.
    pub fn of(record: &MessageRecord, fallback: Option<String>, errors: &ErrorTable) -> Message {
        let mut summary = MessageSummary::of(record, errors);
        summary.links.fallback = fallback.as_ref().map(|id| format!("/v1/messages/{id}"));
        let mut timeline = Vec::new();
        if let Some(row) = record.outbound() {
            timeline.extend(TimelineEntry::of_row(row, errors));
        }
        if let Some(recorded) = record.recorded() {
            let entry = |webhook: &RecordedWebhook| {
                (webhook.received_ms, TimelineEntry::of_webhook(webhook, errors))
            };
            timeline.extend(recorded.timeline().map(entry));
        }
        let earlier = record.earlier().iter();
        timeline.extend(
            earlier
                .map(|webhook| (webhook.received_ms, TimelineEntry::of_webhook(webhook, errors))),
        );
        // The sort is stable: entries of the same time stay in the order of their cause.
        timeline.sort_by_key(|(at_ms, _)| *at_ms);
        let timeline = timeline.into_iter().map(|(_, entry)| entry).collect();
        Message { summary, fallback, timeline }
    }
}

impl TimelineEntry {
    fn at(at_ms: i64, event: TimelineEvent) -> TimelineEntry {
        TimelineEntry { at: time(at_ms), event, state: None, error: None, webhook: None }
    }

    /// Returns what the row shows, with the times in milliseconds since 1970: the acceptance, the last attempt, and the
    /// current state, if it is no longer the first one.
    fn of_row(row: &OutboundMessage, errors: &ErrorTable) -> Vec<(i64, TimelineEntry)> {
        let entry = |at_ms, event| (at_ms, TimelineEntry::at(at_ms, event));
        let mut entries = vec![entry(row.created_at_ms, TimelineEvent::Accepted)];
        if row.attempted_at_ms > 0 {
            entries.push(entry(row.attempted_at_ms, TimelineEvent::Attempt));
        }
        // The code of a sent message is that of its delivery, which a webhook has reported.
        let is_sent = row.state == "sent";
        let error = MessageError::of(&row.code, &row.reason, errors).filter(|_| !is_sent);
        let is_new = row.state == "queued" && error.is_none();
        if !is_new && row.state != "attempting" {
            let state = TimelineEntry {
                state: Some(row.state.clone()),
                error,
                ..TimelineEntry::at(row.changed_at_ms, TimelineEvent::State)
            };
            entries.push((row.changed_at_ms, state));
        }
        entries
    }

    fn of_webhook(webhook: &RecordedWebhook, errors: &ErrorTable) -> TimelineEntry {
        let code = webhook.error_code.as_deref().unwrap_or_default();
        TimelineEntry {
            error: MessageError::of(code, "", errors),
            webhook: Some(EventSummary::of(webhook)),
            ..TimelineEntry::at(webhook.received_ms, TimelineEvent::Webhook)
        }
    }
}

/// Returns the delivery status of an accepted message, from its row and its webhooks. Either may lack reports: webhooks
/// without our id do not change the row, and a status that the reconciler looked up has no webhook.
fn delivery<'a>(
    row: &'a OutboundMessage,
    recorded: Option<&'a Recorded>,
) -> Option<CurrentStatus<'a>> {
    let of_row = CallbackStatus {
        word: &row.status,
        error_code: Some(row.code.as_str()).filter(|code| !code.is_empty()),
    };
    let of_row = Some(of_row).filter(|of_row| !of_row.word.is_empty());
    // The delivery arrived after Twilio had reported its failure. The webhooks have both.
    if row.replaced_sids().any(|sid| sid == row.message_sid) {
        return current_status(of_row);
    }
    let of_webhooks = recorded.map(|recorded| CallbackStatus {
        word: &recorded.status,
        error_code: recorded.error_code.as_deref(),
    });
    current_status(of_row.into_iter().chain(of_webhooks))
}

pub(super) fn non_empty(text: &str) -> Option<String> {
    Some(text).filter(|text| !text.is_empty()).map(str::to_owned)
}

/// Formats a time in milliseconds since 1970; 0 is no time.
pub(super) fn time(at_ms: i64) -> Option<String> {
    Some(at_ms).filter(|at_ms| *at_ms > 0).and_then(rfc3339)
}
