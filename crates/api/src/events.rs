//! `GET /v1/events`: received webhooks. `GET /v1/events/{id}`: one webhook with every parameter.

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
    page::{self, PageRequest},
    problem::Problem,
    query,
};
use crate::views::{Class, Event, EventSummary};
use crate::{app::App, body::json};
use twilio_edge_domain::cursor::{self, Cursor};
use twilio_edge_domain::refusal::RefusalCode;
use twilio_edge_services::access::api_keys::Caller;
use twilio_edge_store::message_history::{MessageHistory, Search};

/// Filter of the webhooks. Write a `+` in a URL as `%2B`.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct EventsQuery {
    /// Account SID. Defaults to the account the key is bound to; required for a key that is bound to none.
    #[param(pattern = "^AC[0-9a-f]{32}$")]
    account_sid: Option<String>,
    /// Sender or recipient of the message: `+15551234567` matches every channel, `whatsapp:+15551234567` only one.
    #[param(
        pattern = r"^([A-Za-z_]{1,32}:)? ?[^\s\x00-\x1f\x7f-\x9f:][^\x00-\x1f\x7f-\x9f:]{0,253}$"
    )]
    number: Option<String>,
    /// SID of the message.
    sid: Option<String>,
    /// Class of the webhooks: `inbound` or `status`.
    #[param(inline)]
    class: Option<Class>,
    /// Status in the webhook, such as `delivered` or `failed`.
    status: Option<String>,
    /// Earliest time of receipt, inclusive: a time with its zone, or a day in UTC.
    #[param(format = DateTime)]
    since: Option<String>,
    /// Latest time of receipt, exclusive: a time with its zone, or a day in UTC.
    #[param(format = DateTime)]
    until: Option<String>,
    /// Largest number of entries in the answer. Defaults to 50.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// Value of `next_cursor` in the previous page.
    #[param(pattern = "^[A-Za-z0-9_-]+$")]
    cursor: Option<String>,
}

/// A page of webhooks, the latest first. It may have fewer entries than requested even if more follow; `next_cursor` is
/// set then.
#[derive(Serialize, ToSchema)]
struct EventList {
    events: Vec<EventSummary>,
    /// Cursor of the next page; `null` on the last page.
    next_cursor: Option<String>,
}

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(fetch))
}

/// Lists the received webhooks, the latest first.
#[utoipa::path(
    get,
    path = "/v1/events",
    tag = "events",
    params(EventsQuery),
    operation_id = "list_events",
    responses((status = 200, description = "A page of webhooks", body = EventList), Problem),
    security(("key" = [])),
)]
async fn list(
    State(histories): State<MessageHistory>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let query = query::read(query)?;
    let is_of_list = |cursor: &Cursor| matches!(cursor, Cursor::Event { .. });
    let PageRequest { size, after } =
        PageRequest::by_cursor(query.limit, query.cursor, is_of_list)?;
    let (since_ms, until_ms) = query::period(query.since, query.until, None)?;
    let search = Search {
        account_sid: query::account(&caller, query.account_sid)?,
        number: query::number("number", query.number)?,
        message_sid: query.sid,
        is_status: query.class.map(|class| class == Class::Status),
        since_ms,
        until_ms,
        status: query.status,
        after,
        ..Search::of("", size)
    };
    let page = histories.events(&search).await;
    let page = page.map_err(|reason| Problem::unavailable(&reason))?;
    let (events, next_cursor) = page::render(&page, EventSummary::of);
    Ok(json(&EventList { events, next_cursor }))
}

/// Returns one webhook with every parameter as Twilio sent it.
#[utoipa::path(
    get,
    path = "/v1/events/{id}",
    tag = "events",
    params(("id" = String, Path, description = "Id of the webhook, as `GET /v1/events` lists it")),
    operation_id = "fetch_event",
    responses((status = 200, description = "The webhook with all its parameters", body = Event), Problem),
    security(("key" = [])),
)]
async fn fetch(
    State(histories): State<MessageHistory>,
    Extension(caller): Extension<Caller>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let not_found = || Problem::of(RefusalCode::NoSuchEvent);
    let Path(id) = id.map_err(|_| not_found())?;
    let key = cursor::read(&id).ok_or_else(not_found)?;
    let found = histories.event(caller.account_sid.as_deref(), &key).await;
    let found = found.map_err(|reason| Problem::unavailable(&reason))?;
    Ok(json(&Event::of(&found.ok_or_else(not_found)?)))
}
