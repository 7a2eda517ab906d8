//! `GET /v1/numbers/{number}`: the whole history of a number in one answer.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    response::Response,
};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{page, problem::Problem, query};
use crate::views::NumberHistory;
use crate::{app::App, body::json};
use twilio_edge_platform::clock::now_ms;
use twilio_edge_services::{
    access::{api_keys::Caller, contact_history, permissions::Permissions},
    outbound::sending::Sending,
};
use twilio_edge_store::message_history::MessageHistory;

/// Account and size of the history.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct HistoryQuery {
    /// Account SID. Defaults to the account the key is bound to; required for a key that is bound to none.
    #[param(pattern = "^AC[0-9a-f]{32}$")]
    account_sid: Option<String>,
    /// Largest number of messages, of notifications, and of webhooks, in the answer. Defaults to 50.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
}

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(fetch))
}

/// Returns the whole history of a number, of a contact or an own one: suppressions, consents, windows, and the latest
/// messages, notifications and webhooks.
#[utoipa::path(
    get,
    path = "/v1/numbers/{number}",
    tag = "numbers",
    params(
        ("number" = String, Path, pattern = r"^([A-Za-z_]{1,32}:)? ?[^\s\x00-\x1f\x7f-\x9f:][^\x00-\x1f\x7f-\x9f:]{0,253}$", description = "Number: `+15551234567` selects every channel, `whatsapp:+15551234567` selects one"),
        HistoryQuery,
    ),
    operation_id = "fetch_number",
    responses((status = 200, description = "The history of the number", body = NumberHistory), Problem),
    security(("key" = [])),
)]
async fn fetch(
    State(histories): State<MessageHistory>,
    State(permissions): State<Arc<Permissions>>,
    State(sending): State<Arc<Sending>>,
    Extension(caller): Extension<Caller>,
    number: Result<Path<String>, PathRejection>,
    query: Result<Query<HistoryQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let query = query::read(query)?;
    let account_sid = query::account(&caller, query.account_sid)?;
    let number = number.map_or_else(|_| String::new(), |Path(number)| number);
    let number = query::one_number("number", &number)?;
    let limit = page::size(query.limit)?;
    let now_ms = now_ms();
    let policy = permissions.policies.of(&account_sid);
    let history = contact_history::of(&histories, &policy, &account_sid, &number, limit).await;
    let history = history.map_err(|reason| Problem::unavailable(&reason))?;
    Ok(json(&NumberHistory::of(&history, &sending.errors, now_ms)))
}
