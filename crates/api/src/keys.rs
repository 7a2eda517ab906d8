//! `GET /edge/v1/config`: the account keys, for filters without keys in their own configuration.

use axum::{
    Extension,
    extract::{RawQuery, State},
    http::{HeaderValue, header},
    response::Response,
};
use twilio_edge_contract::{AccountKeys, KeyRing};
use twilio_edge_domain::refusal::RefusalCode;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::problem::Problem;
use crate::{app::App, body::json};
use twilio_edge_services::access::{api_keys::Caller, webhook_keys::WebhookKeys};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(config))
}

/// Returns the account keys that the caller may have. A filter that already has this generation receives only its name.
#[utoipa::path(
    get,
    path = "/edge/v1/config",
    tag = "edge",
    params(("have" = Option<String>, Query, description = "Generation of the keys that the filter already has")),
    responses(
        (status = 200, description = "The account keys that the caller may have; without the keys if the filter already has this generation", body = KeyRing),
        Problem,
    ),
    security(("key" = [])),
)]
async fn config(
    State(accounts): State<Option<WebhookKeys>>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let accounts = accounts.ok_or_else(|| Problem::of(RefusalCode::NoAccountsFile))?;
    let ring = accounts.current().await.ring;
    let seen = |accounts: &Vec<AccountKeys>| -> Vec<AccountKeys> {
        accounts.iter().filter(|account| caller.sees(&account.sid)).cloned().collect()
    };
    let mut response = match has(query.as_deref().unwrap_or_default(), &ring.generation) {
        true => json(&KeyRing { v: ring.v, generation: ring.generation.clone(), accounts: None }),
        false if caller.account_sid.is_none() => json(&*ring),
        false => json(&KeyRing { accounts: ring.accounts.as_ref().map(seen), ..(*ring).clone() }),
    };
    // The answer contains secrets, so proxies must not store it.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn has(query: &str, generation: &str) -> bool {
    form_urlencoded::parse(query.as_bytes())
        .any(|(name, value)| name == "have" && value == generation)
}
