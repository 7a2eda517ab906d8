//! `GET /v1/notifications`: the log of everything that was said to contacts, or should have been, with the attempts to send it.
//! `GET /v1/notifications/{id}`: one notification. The module `create` accepts notifications.

pub(super) mod create;
mod create_request;

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
    page::{self, PageRequest},
    problem::Problem,
    query::{self, AccountQuery},
};
use crate::{
    app::App,
    body::json,
    views::{NotificationState, NotificationView},
};
use twilio_edge_domain::{cursor::Cursor, refusal::RefusalCode};
use twilio_edge_services::{access::api_keys::Caller, outbound::sending::Sending};
use twilio_edge_store::message_history::{MessageHistory, notifications::NotificationSearch};

/// Filter of the notifications. Write a `+` in a URL as `%2B`.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct NotificationsQuery {
    /// Account SID. Defaults to the account the key is bound to; required for a key that is bound to none.
    #[param(pattern = "^AC[0-9a-f]{32}$")]
    account_sid: Option<String>,
    /// Recipient: `+15551234567` matches every channel, `whatsapp:+15551234567` only one.
    #[param(
        pattern = r"^([A-Za-z_]{1,32}:)? ?[^\s\x00-\x1f\x7f-\x9f:][^\x00-\x1f\x7f-\x9f:]{0,253}$"
    )]
    person: Option<String>,
    /// State of the last attempt.
    #[param(inline)]
    state: Option<NotificationState>,
    /// Earliest time of the request, inclusive: a time with its zone, or a day in UTC.
    #[param(format = DateTime)]
    since: Option<String>,
    /// Latest time of the request, exclusive: a time with its zone, or a day in UTC.
    #[param(format = DateTime)]
    until: Option<String>,
    /// Largest number of entries in the answer. Defaults to 50.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// Value of `next_cursor` in the previous page.
    #[param(pattern = "^[A-Za-z0-9_-]+$")]
    cursor: Option<String>,
}

/// A page of notifications, the latest first. It may have fewer entries than requested even if more follow; `next_cursor` is
/// set then.
#[derive(Serialize, ToSchema)]
struct NotificationList {
    notifications: Vec<NotificationView>,
    /// Cursor of the next page; `null` on the last page.
    next_cursor: Option<String>,
}

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(fetch))
}

/// Lists the notifications of an account, the latest first, with those that a rule declined.
#[utoipa::path(
    get,
    path = "/v1/notifications",
    tag = "notifications",
    params(NotificationsQuery),
    operation_id = "list_notifications",
    responses((status = 200, description = "A page of notifications", body = NotificationList), Problem),
    security(("key" = [])),
)]
async fn list(
    State(histories): State<MessageHistory>,
    State(sending): State<Arc<Sending>>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<NotificationsQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let query = query::read(query)?;
    let is_of_list = |cursor: &Cursor| matches!(cursor, Cursor::Notification { .. });
    let PageRequest { size, after } =
        PageRequest::by_cursor(query.limit, query.cursor, is_of_list)?;
    let (since_ms, until_ms) = query::period(query.since, query.until, None)?;
    let search = NotificationSearch {
        account_sid: query::account(&caller, query.account_sid)?,
        contact: query::number("person", query.person)?,
        state: query.state.map(|state| state.as_str().to_owned()),
        since_ms,
        until_ms,
        after,
        limit: size,
    };
    let page = histories.notifications(&search).await;
    let page = page.map_err(|reason| Problem::unavailable(&reason))?;
    let view = |found: &_| NotificationView::of(found, &sending.errors);
    let (notifications, next_cursor) = page::render(&page, view);
    Ok(json(&NotificationList { notifications, next_cursor }))
}

/// Returns one notification with its attempts.
#[utoipa::path(
    get,
    path = "/v1/notifications/{id}",
    tag = "notifications",
    params(("id" = String, Path, description = "Id of the notification, `nt_..`"), AccountQuery),
    operation_id = "fetch_notification",
    responses((status = 200, description = "The notification with its attempts", body = NotificationView), Problem),
    security(("key" = [])),
)]
async fn fetch(
    State(histories): State<MessageHistory>,
    State(sending): State<Arc<Sending>>,
    Extension(caller): Extension<Caller>,
    id: Result<Path<String>, PathRejection>,
    query: Result<Query<AccountQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let account_sid = query::account(&caller, query::read(query)?.account_sid)?;
    let id = id.map_or_else(|_| String::new(), |Path(id)| id);
    let found = histories.notification(&account_sid, &id).await;
    let found = found.map_err(|reason| Problem::unavailable(&reason))?;
    let found = found.ok_or_else(|| Problem::of(RefusalCode::NoSuchNotification))?;
    Ok(json(&NotificationView::of(&found, &sending.errors)))
}
