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

use super::{finding, problem::Problem};
use crate::views::Story;
use crate::{app::App, body::json};
use twilio_edge_platform::clock::now_ms;
use twilio_edge_services::access::{
    api_keys::Caller, contact_history as story, permissions::Permissions,
};
use twilio_edge_store::message_history::MessageHistory;

/// Account and size of the history.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// Account SID. Defaults to the account the key is bound to; required for a key that is bound to none.
    #[param(pattern = "^AC[0-9a-f]{32}$")]
    account_sid: Option<String>,
    /// Largest number of messages, and of webhooks, in the answer. Defaults to 50.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
}

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(tell))
}

/// Returns the whole history of a number, of a contact or an own one: suppressions, consents, windows, and the latest
/// messages and webhooks.
#[utoipa::path(
    get,
    path = "/v1/numbers/{number}",
    tag = "numbers",
    params(
        ("number" = String, Path, pattern = "^([A-Za-z]{1,20}:)?[ +(]?[0-9A-Za-z][ -9;-~]{0,62}$", description = "Number: `+15551234567` selects every channel, `whatsapp:+15551234567` selects one"),
        Wanted,
    ),
    operation_id = "tell_number",
    responses((status = 200, description = "The history of the number", body = Story), Problem),
    security(("key" = [])),
)]
async fn tell(
    State(histories): State<MessageHistory>,
    State(permissions): State<Arc<Permissions>>,
    Extension(caller): Extension<Caller>,
    number: Result<Path<String>, PathRejection>,
    query: Result<Query<Wanted>, QueryRejection>,
) -> Result<Response, Problem> {
    let wanted = finding::query(query)?;
    let account_sid = finding::account(&caller, wanted.account_sid)?;
    let number = number.map_or_else(|_| String::new(), |Path(number)| number);
    let number = finding::one_number("number", &number)?;
    let limit = finding::limit(wanted.limit)?;
    let now_ms = now_ms();
    let policy = permissions.policies.of(&account_sid);
    let story = story::of(&histories, &policy, &account_sid, &number, limit).await;
    let story = story.map(|history| Story::of(&history, now_ms));
    Ok(json(&story.map_err(|reason| Problem::unavailable(&reason))?))
}
