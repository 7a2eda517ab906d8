//! View of notifications: what an application wanted to say to a contact, with the attempts to send it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::messages::{MessageError, non_empty, time};
use twilio_edge_domain::{
    address::Address,
    sending::{
        errors::ErrorTable,
        options::Metadata,
        plan::{NotificationPlan, PlanChannel, Step},
    },
    window::rfc3339,
};
use twilio_edge_store::{OutboundMessage, message_history::notifications::Notification};

twilio_edge_contract::string_enum! {
    /// State of a notification, and of each of its attempts.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
    pub enum NotificationState: serde {
        /// A rule declined it before it was accepted.
        Declined = "declined",
        /// It waits.
        Queued = "queued",
        /// It is being sent.
        Attempting = "attempting",
        /// The provider has it.
        Sent = "sent",
        /// A rule or the provider refused it.
        Refused = "refused",
        /// The provider may have it.
        Unknown = "unknown",
        /// It was not sent, by an operator's decision.
        NotSent = "not_sent",
        /// It was canceled.
        Canceled = "canceled",
    }
}

/// A notification: what an application wanted to say to one contact, with the attempts to send it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct NotificationView {
    /// Id of the notification: `nt_` and 32 hexadecimal digits.
    pub id: String,
    /// SID of the account.
    pub account_sid: String,
    /// Recipient of the last attempt. It is masked (`sms:..67`) once its retention period is over.
    pub to: String,
    /// Purpose of the notification.
    pub category: String,
    /// Channel of the last attempt: `sms`, `whatsapp`, ..
    pub channel: String,
    /// Provider of the last attempt: `messaging`, `verify`, ..
    pub provider: String,
    /// State of the last attempt: `declined` (a rule declined it before it was accepted), `queued`, `attempting`, `sent` (the
    /// provider has it), `refused`, `unknown` (it is unknown whether the provider has it), `not_sent` or `canceled`.
    pub state: String,
    /// Delivery status of the last attempt, as the provider reported it; `null` before the first report.
    pub status: Option<String>,
    /// Error of the last attempt; `null` without one.
    pub error: Option<MessageError>,
    /// Metadata of the request.
    pub metadata: BTreeMap<String, String>,
    /// API key of the request, or `keyword` for a reply to a keyword.
    pub created_by: String,
    /// Time of the request.
    #[schema(format = DateTime)]
    pub created_at: Option<String>,
    /// Time of the last change.
    #[schema(format = DateTime)]
    pub changed_at: Option<String>,
    /// Name of the plan in the routes; `null` if the request stated its steps, or without a plan.
    pub plan: Option<String>,
    /// Steps of the plan that remain, in their order; empty without a plan, or once no further step can follow.
    pub remaining_steps: Vec<RemainingStep>,
    /// Attempts in their order: the message, and each fallback that replaced the one before it.
    pub attempts: Vec<NotificationAttempt>,
    /// Links to related resources.
    pub links: NotificationLinks,
}

/// Step of a plan that has not begun.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct RemainingStep {
    /// Channel of the step.
    pub channel: PlanChannel,
    /// Seconds after which the step after it begins without a delivery; `null` if only a failure moves on.
    pub within_s: Option<u32>,
}

/// Attempt to send a notification: one message on one channel.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct NotificationAttempt {
    /// Id of the message: `ms_` and 32 hexadecimal digits.
    pub id: String,
    /// Channel.
    pub channel: String,
    /// Provider that takes the message.
    pub provider: String,
    /// Our sender: a number, a sender id, or the SID of a Messaging Service or of a Verify Service.
    pub sender: Option<String>,
    /// Id at the provider, such as Twilio's SID; `null` as long as the provider does not have it.
    pub provider_id: Option<String>,
    /// State of the message.
    pub state: String,
    /// Delivery status that the provider reported; `null` before the first report.
    pub status: Option<String>,
    /// Error of the delivery, or the reason why the message was not sent; `null` without one.
    pub error: Option<MessageError>,
    /// Number of calls of the provider.
    pub calls: i64,
    /// Id of the last call, for the provider's support.
    pub request_id: Option<String>,
    /// Time at which the message was accepted or declined.
    #[schema(format = DateTime)]
    pub created_at: Option<String>,
    /// Start of the last call; `null` without one.
    #[schema(format = DateTime)]
    pub attempted_at: Option<String>,
    /// Time of the last change.
    #[schema(format = DateTime)]
    pub changed_at: Option<String>,
}

/// Links to related resources.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct NotificationLinks {
    /// Path of this notification.
    #[serde(rename = "self")]
    pub this: String,
}

impl NotificationView {
    /// Renders a notification; `errors` has the actor and the remedy of each error code.
    pub fn of(notification: &Notification, errors: &ErrorTable) -> NotificationView {
        let (first, last) = (&notification.first, notification.last());
        NotificationView {
            id: first.notification_id.clone(),
            account_sid: first.account_sid.clone(),
            to: recipient(last),
            category: first.category.clone(),
            channel: last.channel.clone(),
            provider: last.provider.clone(),
            state: last.state.clone(),
            status: non_empty(&last.status),
            error: MessageError::of(&last.code, &last.reason, errors),
            metadata: Metadata::read(&first.metadata).0,
            created_by: first.created_by.clone(),
            created_at: rfc3339(first.created_at_ms),
            changed_at: rfc3339(last.changed_at_ms.max(last.status_at_ms)),
            plan: non_empty(&first.plan),
            remaining_steps: remaining_steps(last),
            attempts: notification
                .messages()
                .map(|message| NotificationAttempt::of(message, errors))
                .collect(),
            links: NotificationLinks {
                this: format!("/v1/notifications/{}", first.notification_id),
            },
        }
    }
}

impl NotificationAttempt {
    /// Renders one message of a notification.
    pub(super) fn of(message: &OutboundMessage, errors: &ErrorTable) -> NotificationAttempt {
        NotificationAttempt {
            id: message.id.clone(),
            channel: message.channel.clone(),
            provider: message.provider.clone(),
            sender: non_empty(&message.sender),
            provider_id: non_empty(&message.message_sid),
            state: message.state.clone(),
            status: non_empty(&message.status),
            error: MessageError::of(&message.code, &message.reason, errors),
            calls: message.attempts,
            request_id: non_empty(&message.request_id),
            created_at: rfc3339(message.created_at_ms),
            attempted_at: time(message.attempted_at_ms),
            changed_at: rfc3339(message.changed_at_ms.max(message.status_at_ms)),
        }
    }
}

fn remaining_steps(last: &OutboundMessage) -> Vec<RemainingStep> {
    let plan = NotificationPlan::read(&last.fallback);
    let step = |step: &Step| RemainingStep { channel: step.channel, within_s: step.within_s };
    plan.map(|plan| plan.steps().map(step).collect()).unwrap_or_default()
}

/// Returns the recipient as an address, or in its masked form.
fn recipient(message: &OutboundMessage) -> String {
    match message.contact.as_str() {
        "" => message.recipient.clone(),
        contact => {
            Address { channel: message.channel.clone(), number: contact.to_owned() }.written()
        }
    }
}
