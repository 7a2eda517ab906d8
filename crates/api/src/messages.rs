//! `GET /v1/messages`: messages of both directions by number, time, state and status. `GET /v1/messages/{id}`: one message
//! with its timeline. The modules `create` and `batch` accept messages, and `outcome` waits for them
//! and cancels them.

pub(super) mod acceptance;
pub(super) mod batch;
pub(super) mod create;
pub(super) mod create_email;
pub(super) mod create_request;
pub(super) mod outcome;

use std::sync::Arc;

use axum::{
    Extension,
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    response::Response,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use self::outcome::MessageQuery;
use super::{
    page::{self, PageRequest},
    problem::Problem,
    query,
};
use crate::{
    app::{App, Timeouts},
    body::json,
    views::{Message, MessageSummary},
};
use twilio_edge_domain::refusal::RefusalCode;
use twilio_edge_domain::{cursor::Cursor, message::Direction};
use twilio_edge_services::{
    access::api_keys::Caller,
    outbound::sending::{PREFIX, Sending},
};
use twilio_edge_store::message_history::{MessageHistory, Search, messages::MessageRecord};

/// Filter of the messages. Write a `+` in a URL as `%2B`.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct MessagesQuery {
    /// Account SID. Defaults to the account the key is bound to; required for a key that is bound to none.
    #[param(pattern = "^AC[0-9a-f]{32}$")]
    account_sid: Option<String>,
    /// Direction of the messages.
    #[param(inline)]
    direction: Option<Direction>,
    /// State of the messages: `received` for inbound ones, the others for outbound ones.
    #[param(inline)]
    state: Option<MessageState>,
    /// Sender or recipient of the message: `+15551234567` matches every channel, `whatsapp:+15551234567` only one. A search
    /// by number finds an outbound message as long as it waits, and again once Twilio has reported its status.
    #[param(
        pattern = r"^([A-Za-z_]{1,32}:)? ?[^\s\x00-\x1f\x7f-\x9f:][^\x00-\x1f\x7f-\x9f:]{0,253}$"
    )]
    number: Option<String>,
    /// Sender of the message.
    #[param(
        pattern = r"^([A-Za-z_]{1,32}:)? ?[^\s\x00-\x1f\x7f-\x9f:][^\x00-\x1f\x7f-\x9f:]{0,253}$"
    )]
    from: Option<String>,
    /// Recipient of the message.
    #[param(
        pattern = r"^([A-Za-z_]{1,32}:)? ?[^\s\x00-\x1f\x7f-\x9f:][^\x00-\x1f\x7f-\x9f:]{0,253}$"
    )]
    to: Option<String>,
    /// Delivery status of the message, such as `delivered` or `failed`.
    status: Option<String>,
    /// Error code of the message: of its failed delivery, or the reason why it was not sent, or not yet.
    error_code: Option<String>,
    /// Template of the message: its name in the catalogue, or its content SID if the catalogue does not have it. Only messages
    /// that this API accepted have a template.
    template: Option<String>,
    /// Sender of the message as it was requested: `+15551234567`, `whatsapp:+15551234567`, a sender id, or the SID of a Messaging
    /// Service. Only messages that this API accepted have it. An index serves this search, in contrast to `from`.
    sender: Option<String>,
    /// Earliest time of the message, inclusive: a time with its zone, or a day in UTC. The time of a message is that of its
    /// acceptance, or of its first webhook.
    #[param(format = DateTime)]
    since: Option<String>,
    /// Latest time of the message, exclusive: a time with its zone, or a day in UTC.
    #[param(format = DateTime)]
    until: Option<String>,
    /// Day (UTC) of the message.
    #[param(format = Date)]
    date_sent: Option<String>,
    /// Largest number of entries in the answer. Defaults to 50.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// Value of `next_cursor` in the previous page.
    #[param(pattern = "^[A-Za-z0-9_-]+$")]
    cursor: Option<String>,
}

twilio_edge_contract::string_enum! {
    /// State of a message.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
    enum MessageState: serde {
        /// Inbound message.
        Received = "received",
        /// Outbound message that waits.
        Queued = "queued",
        /// Outbound message that is being sent.
        Attempting = "attempting",
        /// Outbound message that Twilio has.
        Sent = "sent",
        /// Outbound message that a rule or Twilio refused.
        Refused = "refused",
        /// Outbound message that Twilio may have.
        Unknown = "unknown",
        /// Outbound message that was not sent, by an operator's decision.
        NotSent = "not_sent",
        /// Outbound message that was canceled.
        Canceled = "canceled",
    }
}

/// A page of messages, the latest first. It may have fewer entries than requested even if more follow; `next_cursor` is
/// set then.
#[derive(Serialize, ToSchema)]
struct MessageList {
    messages: Vec<MessageSummary>,
    /// Cursor of the next page; `null` on the last page.
    next_cursor: Option<String>,
}

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(fetch))
}

/// Lists the messages of an account, inbound and outbound, the latest first.
#[utoipa::path(
    get,
    path = "/v1/messages",
    tag = "messages",
    params(MessagesQuery),
    operation_id = "list_messages",
    responses((status = 200, description = "A page of messages", body = MessageList), Problem),
    security(("key" = [])),
)]
async fn list(
    State(histories): State<MessageHistory>,
    State(sending): State<Arc<Sending>>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<MessagesQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let query = query::read(query)?;
    let is_of_list = |cursor: &Cursor| matches!(cursor, Cursor::Message { .. });
    let PageRequest { size, after } =
        PageRequest::by_cursor(query.limit, query.cursor, is_of_list)?;
    let (since_ms, until_ms) = query::period(query.since, query.until, query.date_sent)?;
    let search = Search {
        account_sid: query::account(&caller, query.account_sid)?,
        direction: query.direction,
        state: query.state.map(|state| state.as_str().to_owned()),
        number: query::number("number", query.number)?,
        from: query::number("from", query.from)?,
        to: query::number("to", query.to)?,
        since_ms,
        until_ms,
        status: query.status,
        error_code: query.error_code,
        template: query.template,
        sender: query.sender,
        after,
        ..Search::of("", size)
    };
    let page = histories.messages(&search).await;
    let page = page.map_err(|reason| Problem::unavailable(&reason))?;
    let errors = &sending.errors;
    let (messages, next_cursor) = page::render(&page, |record| MessageSummary::of(record, errors));
    Ok(json(&MessageList { messages, next_cursor }))
}

/// Returns one message with its timeline: its acceptance, its last attempt, its state, and all of its webhooks.
#[utoipa::path(
    get,
    path = "/v1/messages/{id}",
    tag = "messages",
    params(("id" = String, Path, description = "Id of the message: `ms_..` of an outbound message, or Twilio's SID, `SM..` or `MM..`, of any message"), MessageQuery),
    operation_id = "fetch_message",
    responses((status = 200, description = "The message with its timeline", body = Message), Problem),
    security(("key" = [])),
)]
async fn fetch(
    State(histories): State<MessageHistory>,
    State(sending): State<Arc<Sending>>,
    State(timeouts): State<Timeouts>,
    Extension(caller): Extension<Caller>,
    id: Result<Path<String>, PathRejection>,
    query: Result<Query<MessageQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let query = query::read(query)?;
    let wait = query.wait()?.min(timeouts.wait);
    let account_sid = query::account(&caller, query.account_sid)?;
    let not_found = || Problem::of(RefusalCode::NoSuchMessage);
    let Path(id) = id.map_err(|_| not_found())?;
    // The databases reject a NUL character in text.
    if id.contains('\0') {
        return Err(not_found());
    }
    let unavailable = |reason| Problem::unavailable(&reason);
    let record = match id.starts_with(PREFIX) {
        true => {
            let row = outcome::row(&sending, &account_sid, &id, wait).await?;
            histories.with_webhooks(row).await.map_err(unavailable)?
        }
        false => {
            let found = histories.message(&account_sid, &id).await.map_err(unavailable)?;
            found.ok_or_else(not_found)?
        }
    };
    Ok(json(&view(&sending, &record).await?))
}

/// Renders a message with its fallback.
async fn view(sending: &Sending, record: &MessageRecord) -> Result<Message, Problem> {
    let fallback = match record.outbound() {
        Some(row) => sending.messages.find_fallback_of(&row.id).await,
        None => Ok(None),
    };
    let fallback = fallback.map_err(|reason| Problem::unavailable(&reason))?;
    Ok(Message::of(record, fallback.map(|row| row.id), &sending.errors))
}
