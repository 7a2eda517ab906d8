//! View of verifications: one-time passwords that Twilio Verify sends and checks. It has no code.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::{
    messages::{MessageError, non_empty, time},
    notifications::NotificationAttempt,
};
use twilio_edge_domain::{
    sending::{errors::ErrorTable, options::Metadata, verification::VerificationStatus},
    window::rfc3339,
};
use twilio_edge_services::outbound::{
    sending::PREFIX,
    verifications::{VERIFICATION_PREFIX, sid, status},
};
use twilio_edge_store::OutboundMessage;

/// A verification: a one-time password that Twilio Verify sends to a contact and checks.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct VerificationView {
    /// Id of the verification: `vf_` and 32 hexadecimal digits.
    pub id: String,
    /// Id of its notification, with the same digits.
    pub notification_id: String,
    /// SID of the account.
    pub account_sid: String,
    /// SID of the Verify Service.
    pub service_sid: String,
    /// Twilio's SID of the verification; `null` until Twilio has it.
    pub sid: Option<String>,
    /// Number that is verified; `null` once its retention period is over.
    pub to: Option<String>,
    /// Channel of the last attempt.
    pub channel: String,
    /// Status: `pending`, `approved`, `canceled`, `expired`, `failed` (no code was sent) or `max_attempts_reached`.
    pub status: VerificationStatus,
    /// State of the last attempt to send the code, as in a notification.
    pub state: String,
    /// Error of the last attempt; `null` without one.
    pub error: Option<MessageError>,
    /// Metadata of the request.
    pub metadata: BTreeMap<String, String>,
    /// Time of the request.
    #[schema(format = DateTime)]
    pub created_at: Option<String>,
    /// Time after which Twilio does not accept the code.
    #[schema(format = DateTime)]
    pub expires_at: Option<String>,
    /// Attempts to send the code, in their order.
    pub attempts: Vec<NotificationAttempt>,
    /// Links to related resources.
    pub links: VerificationLinks,
}

/// Links to related resources.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct VerificationLinks {
    /// Path of this verification.
    #[serde(rename = "self")]
    pub this: String,
    /// Path that checks a code; `null` once the verification has ended.
    pub check: Option<String>,
    /// Path that cancels the verification; `null` once it has ended.
    pub cancel: Option<String>,
    /// Path of the notification.
    pub notification: String,
}

impl VerificationView {
    /// Renders the verification with these messages, in the order of their attempts, as it is at `now_ms`. Returns `None` without
    /// a message.
    pub fn of(
        messages: &[OutboundMessage],
        errors: &ErrorTable,
        now_ms: i64,
    ) -> Option<VerificationView> {
        let (first, last) = (messages.first()?, messages.last()?);
        let id = id_of(&first.id);
        let status = status(messages, now_ms);
        let this = format!("/v1/verifications/{id}");
        let while_pending =
            |verb: &str| (status == VerificationStatus::Pending).then(|| format!("{this}/{verb}"));
        let links = VerificationLinks {
            check: while_pending("check"),
            cancel: while_pending("cancel"),
            notification: format!("/v1/notifications/{}", first.notification_id),
            this: this.clone(),
        };
        Some(VerificationView {
            id,
            notification_id: first.notification_id.clone(),
            account_sid: first.account_sid.clone(),
            service_sid: first.sender.clone(),
            sid: sid(messages).map(str::to_owned),
            to: non_empty(&first.contact),
            channel: last.channel.clone(),
            status,
            state: last.state.clone(),
            error: MessageError::of(&last.code, &last.reason, errors),
            metadata: Metadata::read(&first.metadata).0,
            created_at: rfc3339(first.created_at_ms),
            expires_at: time(first.valid_until_ms),
            attempts: messages
                .iter()
                .map(|message| NotificationAttempt::of(message, errors))
                .collect(),
            links,
        })
    }
}

/// Returns the id of the verification whose first message has this id.
fn id_of(first_id: &str) -> String {
    format!("{VERIFICATION_PREFIX}{}", first_id.strip_prefix(PREFIX).unwrap_or(first_id))
}
