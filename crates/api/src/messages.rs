//! `GET /v1/messages`: messages by number, time and status. `GET /v1/messages/{sid}`: one message with all of its
//! webhooks.

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

use super::{
    finding, kinds,
    problem::Problem,
    taken::{self, One, SendShown},
};
use crate::views::{MessageDetail, MessageSummary};
use crate::{
    app::{App, Timeouts},
    body::json,
};
use twilio_edge_services::{
    access::api_keys::Caller,
    outbound::sending::{PREFIX, Sending},
};
use twilio_edge_store::message_history::{MessageHistory, Search};

/// Filter of the messages. Write a `+` in a URL as `%2B`.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// Account SID. Defaults to the account the key is bound to; required for a key that is bound to none.
    #[param(pattern = "^AC[0-9a-f]{32}$")]
    account_sid: Option<String>,
    /// Sender or recipient of the message: `+15551234567` matches every channel, `whatsapp:+15551234567` only one.
    #[param(pattern = "^([A-Za-z]{1,20}:)?[ +(]?[0-9A-Za-z][ -9;-~]{0,62}$")]
    number: Option<String>,
    /// Sender of the message.
    #[param(pattern = "^([A-Za-z]{1,20}:)?[ +(]?[0-9A-Za-z][ -9;-~]{0,62}$")]
    from: Option<String>,
    /// Recipient of the message.
    #[param(pattern = "^([A-Za-z]{1,20}:)?[ +(]?[0-9A-Za-z][ -9;-~]{0,62}$")]
    to: Option<String>,
    /// Current status of the message, such as `delivered` or `failed`.
    status: Option<String>,
    /// Earliest time of the first webhook, inclusive: a time with its zone, or a day in UTC.
    #[param(format = DateTime)]
    since: Option<String>,
    /// Latest time of the first webhook, exclusive: a time with its zone, or a day in UTC.
    #[param(format = DateTime)]
    until: Option<String>,
    /// Day (UTC) of the first webhook.
    #[param(format = Date)]
    date_sent: Option<String>,
    /// Largest number of entries in the answer. Defaults to 50.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// Value of `next_cursor` in the previous page.
    #[param(pattern = "^[A-Za-z0-9_-]+$")]
    cursor: Option<String>,
}

/// A page of messages, the latest first. It may have fewer entries than requested even if more follow; `next_cursor` is
/// set then.
#[derive(Serialize, ToSchema)]
struct MessageList {
    messages: Vec<MessageSummary>,
    /// Cursor of the next page; `null` on the last page.
    next_cursor: Option<String>,
}

/// A message: its webhooks, or the progress of an outbound message.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes what is answered; each of the two is written by itself")]
enum MessageOrSend {
    Told(Box<MessageDetail>),
    Send(Box<SendShown>),
}

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(fetch))
}

/// Lists messages, the latest first.
#[utoipa::path(
    get,
    path = "/v1/messages",
    tag = "messages",
    params(Wanted),
    operation_id = "list_messages",
    responses((status = 200, description = "A page of messages", body = MessageList), Problem),
    security(("key" = [])),
)]
async fn list(
    State(histories): State<MessageHistory>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, Problem> {
    let wanted = finding::query(query)?;
    let (since_ms, until_ms) = finding::times(wanted.since, wanted.until, wanted.date_sent)?;
    let search = Search {
        account_sid: finding::account(&caller, wanted.account_sid)?,
        number: finding::number("number", wanted.number)?,
        from: finding::number("from", wanted.from)?,
        to: finding::number("to", wanted.to)?,
        since_ms,
        until_ms,
        status: wanted.status,
        after: finding::cursor(wanted.cursor, finding::is_event)?,
        ..Search::of("", finding::limit(wanted.limit)?)
    };
    let page = histories.messages(&search).await;
    let page = page.map_err(|reason| Problem::unavailable(&reason))?;
    let (messages, next_cursor) = finding::shown(&page, MessageSummary::of);
    Ok(json(&MessageList { messages, next_cursor }))
}

/// Returns one message: its current status and all of its webhooks.
#[utoipa::path(
    get,
    path = "/v1/messages/{sid}",
    tag = "messages",
    params(("sid" = String, Path, description = "Message id: Twilio's SID, `SM..` or `MM..`, or the id of an outbound message, `ms_..`"), One),
    operation_id = "fetch_message",
    responses((status = 200, description = "The message with its details", body = MessageOrSend), Problem),
    security(("key" = [])),
)]
async fn fetch(
    State(histories): State<MessageHistory>,
    State(sending): State<Arc<Sending>>,
    State(timeouts): State<Timeouts>,
    Extension(caller): Extension<Caller>,
    sid: Result<Path<String>, PathRejection>,
    query: Result<Query<One>, QueryRejection>,
) -> Result<Response, Problem> {
    let one = finding::query(query)?;
    let patience = one.patience()?;
    let account_sid = finding::account(&caller, one.account_sid)?;
    let nowhere = || Problem::of(kinds::NO_SUCH_MESSAGE);
    let Path(sid) = sid.map_err(|_| nowhere())?;
    // The databases reject a NUL character in text.
    if sid.contains('\0') {
        return Err(nowhere());
    }
    if sid.starts_with(PREFIX) {
        return taken::told(&sending, &histories, &account_sid, &sid, patience.min(timeouts.wait))
            .await;
    }
    let found = histories.message(&account_sid, &sid).await;
    let found = found.map_err(|reason| Problem::unavailable(&reason))?;
    Ok(json(&MessageDetail::of(&found.ok_or_else(nowhere)?)))
}
