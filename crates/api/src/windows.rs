//! `GET /v1/windows`: conversation windows of a contact, ordered by own number.

use axum::{
    Extension,
    extract::{Query, State, rejection::QueryRejection},
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
use crate::views::WindowView;
use crate::{app::App, body::json};
use twilio_edge_domain::{cursor::Cursor, window};
use twilio_edge_platform::clock::now_ms;
use twilio_edge_services::access::api_keys::Caller;
use twilio_edge_store::message_history::{MessageHistory, WindowSearch};

/// Filter of the windows. Write a `+` in a URL as `%2B`.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct WindowsQuery {
    /// Account SID. Defaults to the account the key is bound to; required for a key that is bound to none.
    #[param(pattern = "^AC[0-9a-f]{32}$")]
    account_sid: Option<String>,
    /// Number of the contact: `+15551234567` matches every channel, `whatsapp:+15551234567` only one.
    #[param(
        pattern = r"^([A-Za-z_]{1,32}:)? ?[^\s\x00-\x1f\x7f-\x9f:][^\x00-\x1f\x7f-\x9f:]{0,253}$"
    )]
    person: String,
    /// Own number or sender of the window.
    #[param(
        pattern = r"^([A-Za-z_]{1,32}:)? ?[^\s\x00-\x1f\x7f-\x9f:][^\x00-\x1f\x7f-\x9f:]{0,253}$"
    )]
    sender: Option<String>,
    /// True: only windows in which free text may be sent now. False: only windows that have closed.
    open: Option<bool>,
    /// Largest number of entries in the answer. Defaults to 50.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// Value of `next_cursor` in the previous page.
    #[param(pattern = "^[A-Za-z0-9_-]+$")]
    cursor: Option<String>,
}

/// A page of windows, ordered by own number.
#[derive(Serialize, ToSchema)]
struct WindowList {
    windows: Vec<WindowView>,
    /// Cursor of the next page; `null` on the last page.
    next_cursor: Option<String>,
}

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Lists the conversation windows of a contact, ordered by own number. A contact that never wrote has none.
#[utoipa::path(
    get,
    path = "/v1/windows",
    tag = "windows",
    params(WindowsQuery),
    operation_id = "list_windows",
    responses((status = 200, description = "A page of conversation windows", body = WindowList), Problem),
    security(("key" = [])),
)]
async fn list(
    State(histories): State<MessageHistory>,
    Extension(caller): Extension<Caller>,
    query: Result<Query<WindowsQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let query = query::read(query)?;
    let is_of_list = |cursor: &Cursor| matches!(cursor, Cursor::Pair { .. });
    let PageRequest { size, after } =
        PageRequest::by_cursor(query.limit, query.cursor, is_of_list)?;
    let now_ms = now_ms();
    let closed_by_ms = window::closed_by_ms(now_ms);
    let search = WindowSearch {
        account_sid: query::account(&caller, query.account_sid)?,
        person: query::one_number("person", &query.person)?,
        sender: query::number("sender", query.sender)?,
        after_ms: if query.open == Some(true) { closed_by_ms } else { i64::MIN },
        until_ms: if query.open == Some(false) { closed_by_ms } else { i64::MAX },
        after,
        limit: size,
    };
    let page = histories.windows(&search).await;
    let page = page.map_err(|reason| Problem::unavailable(&reason))?;
    let (windows, next_cursor) = page::render(&page, |window| WindowView::of(window, now_ms));
    Ok(json(&WindowList { windows, next_cursor }))
}
