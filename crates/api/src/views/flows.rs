//! View of executions of Studio flows.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::messages::{MessageError, non_empty, time};
use twilio_edge_domain::{
    address::Address,
    sending::{errors::ErrorTable, options::Metadata},
    window::rfc3339,
};
use twilio_edge_services::outbound::{flows::EXECUTION_PREFIX, sending::PREFIX};
use twilio_edge_store::OutboundMessage;

/// An execution of a Studio flow for one contact.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct FlowExecution {
    /// Id of the execution: `fx_` and 32 hexadecimal digits. The flow reads it, with the prefix `ms_`, as `flow.data.twilio_edge_id`.
    pub id: String,
    /// Id of its notification, with the same digits.
    pub notification_id: String,
    /// SID of the account.
    pub account_sid: String,
    /// SID of the flow.
    pub flow_sid: String,
    /// Twilio's SID of the execution; `null` until Twilio has it.
    pub sid: Option<String>,
    /// Contact; it is masked (`sms:..67`) once its retention period is over.
    pub to: String,
    /// Purpose of the flow's messages.
    pub category: String,
    /// State of the start: `queued`, `attempting`, `sent` (Twilio has started the execution), `refused`, `unknown` (it is unknown
    /// whether Twilio has it), `not_sent` or `canceled`.
    pub state: String,
    /// Status at Twilio: `active` or `ended`; `null` if Twilio does not have it, or does not answer. Only `GET` of one execution asks
    /// Twilio.
    pub status: Option<String>,
    /// Reason why it was not started; `null` without one.
    pub error: Option<MessageError>,
    /// SID of the inbound message that started it; `null` for a request.
    pub started_by_message: Option<String>,
    /// Metadata of the request.
    pub metadata: BTreeMap<String, String>,
    /// API key of the request, or `inbound message`.
    pub created_by: String,
    /// Time of the request.
    #[schema(format = DateTime)]
    pub created_at: Option<String>,
    /// Start of the last call of Twilio; `null` without one.
    #[schema(format = DateTime)]
    pub attempted_at: Option<String>,
    /// Time of the last change.
    #[schema(format = DateTime)]
    pub changed_at: Option<String>,
    /// Links to related resources.
    pub links: FlowExecutionLinks,
}

/// Links to related resources.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct FlowExecutionLinks {
    /// Path of this execution.
    #[serde(rename = "self")]
    pub this: String,
    /// Path of the notification.
    pub notification: String,
}

impl FlowExecution {
    /// Renders an execution; `status` is its status at Twilio, if it is known.
    pub fn of(row: &OutboundMessage, status: Option<String>, errors: &ErrorTable) -> FlowExecution {
        let id = format!("{EXECUTION_PREFIX}{}", row.id.strip_prefix(PREFIX).unwrap_or(&row.id));
        let to = match row.contact.as_str() {
            "" => row.recipient.clone(),
            number => Address { channel: row.channel.clone(), number: number.to_owned() }.written(),
        };
        let links = FlowExecutionLinks {
            this: format!("/v1/flows/{}/executions/{id}", row.sender),
            notification: format!("/v1/notifications/{}", row.notification_id),
        };
        FlowExecution {
            id,
            notification_id: row.notification_id.clone(),
            account_sid: row.account_sid.clone(),
            flow_sid: row.sender.clone(),
            sid: non_empty(&row.message_sid),
            to,
            category: row.category.clone(),
            state: row.state.clone(),
            status,
            error: MessageError::of(&row.code, &row.reason, errors),
            started_by_message: non_empty(&row.reply_to),
            metadata: Metadata::read(&row.metadata).0,
            created_by: row.created_by.clone(),
            created_at: rfc3339(row.created_at_ms),
            attempted_at: time(row.attempted_at_ms),
            changed_at: rfc3339(row.changed_at_ms),
            links,
        }
    }
}
