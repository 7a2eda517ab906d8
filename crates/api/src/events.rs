//! `GET /v1/events`: the webhooks that came. `GET /v1/events/{id}`: one, with every parameter.

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

use super::{finding, kinds, problem::Problem};
use crate::views::{Class, EventTold, EventView};
use crate::{app::App, body::json};
use twilio_edge_domain::cursor;
use twilio_edge_services::access::api_keys::Caller;
use twilio_edge_store::histories::Search;

/// Which webhooks. A `+` in a URL is written `%2B`.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// Whose: that of the key, if it is bound to one; else this has to be said.
    #[param(pattern = "^AC[0-9a-f]{32}$")]
    account_sid: Option<String>,
    /// About a message from or to this number: `+15551234567` on every channel, `whatsapp:+15551234567` on one.
    #[param(pattern = "^([A-Za-z]{1,20}:)?[ +(]?[0-9A-Za-z][ -9;-~]{0,62}$")]
    number: Option<String>,
    /// About this message.
    sid: Option<String>,
    /// Messages that came, or word of those that we sent.
    #[param(inline)]
    class: Option<Class>,
    /// That say this: `delivered`, `failed`, ..
    status: Option<String>,
    /// Heard then or later: a time with its zone, or a day of UTC.
    #[param(format = DateTime)]
    since: Option<String>,
    /// Heard before: a time with its zone, or a day of UTC.
    #[param(format = DateTime)]
    until: Option<String>,
    /// How many, 50 if not said.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// The `next_cursor` of the page before.
    #[param(pattern = "^[A-Za-z0-9_-]+$")]
    cursor: Option<String>,
}

/// A page of webhooks, the latest first. May have fewer than asked for though there are more: `next_cursor` tells.
#[derive(Serialize, ToSchema)]
struct EventList {
    events: Vec<EventView>,
    next_cursor: Option<String>,
}

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(fetch))
}

/// Webhooks, the latest first.
#[utoipa::path(
    get,
    path = "/v1/events",
    tag = "events",
    params(Wanted),
    operation_id = "list_events",
    responses((status = 200, description = "A page of them", body = EventList), Problem),
    security(("key" = [])),
)]
async fn list(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, Problem> {
    let wanted = finding::query(query)?;
    let (since_ms, until_ms) = finding::times(wanted.since, wanted.until, None)?;
    let search = Search {
        account_sid: finding::account(&caller, wanted.account_sid)?,
        number: finding::number("number", wanted.number)?,
        message_sid: wanted.sid,
        is_status: wanted.class.map(|class| class == Class::Status),
        since_ms,
        until_ms,
        status: wanted.status,
        after: finding::cursor(wanted.cursor, finding::is_event)?,
        ..Search::of("", finding::limit(wanted.limit)?)
    };
    let page = app.histories.events(&search).await;
    let page = page.map_err(|reason| Problem::unavailable(&reason))?;
    let (events, next_cursor) = finding::shown(&page, EventView::of);
    Ok(json(&EventList { events, next_cursor }))
}

/// One webhook, with every parameter as it came.
#[utoipa::path(
    get,
    path = "/v1/events/{id}",
    tag = "events",
    params(("id" = String, Path, description = "The id under which it is listed")),
    operation_id = "fetch_event",
    responses((status = 200, description = "The webhook", body = EventTold), Problem),
    security(("key" = [])),
)]
async fn fetch(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let nowhere = || Problem::of(kinds::NO_SUCH_EVENT);
    let Path(id) = id.map_err(|_| nowhere())?;
    let key = cursor::read(&id).ok_or_else(nowhere)?;
    let found = app.histories.event(caller.account_sid.as_deref(), &key).await;
    let found = found.map_err(|reason| Problem::unavailable(&reason))?;
    Ok(json(&EventTold::of(&found.ok_or_else(nowhere)?)))
}
