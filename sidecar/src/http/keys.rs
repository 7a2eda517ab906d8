//! `GET /edge/v1/config`: the keys of the accounts, for filters that were given none.

use axum::{
    Extension, Router,
    extract::{RawQuery, State},
    http::{HeaderValue, header},
    response::Response,
    routing::get,
};
use twilio_edge_contract::{AccountKeys, EDGE_CONFIG_PATH, KeyRing};

use super::{App, json, problem::Problem};
use crate::keys::Caller;

pub(super) fn router() -> Router<App> {
    Router::new().route(EDGE_CONFIG_PATH, get(config))
}

/// All keys the caller may have, or, to a filter that has this generation already, no more than its name.
async fn config(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let accounts = app.accounts.ok_or_else(Problem::no_accounts_file)?;
    let ring = accounts.current().await.ring;
    let seen = |accounts: &Vec<AccountKeys>| -> Vec<AccountKeys> {
        accounts.iter().filter(|account| caller.sees(&account.sid)).cloned().collect()
    };
    let mut response = match has(query.as_deref().unwrap_or_default(), &ring.generation) {
        true => json(&KeyRing { v: ring.v, generation: ring.generation.clone(), accounts: None }),
        false if caller.account_sid.is_none() => json(&*ring),
        false => json(&KeyRing { accounts: ring.accounts.as_ref().map(seen), ..(*ring).clone() }),
    };
    // Secrets: whatever stands between the two is not to keep them.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn has(query: &str, generation: &str) -> bool {
    form_urlencoded::parse(query.as_bytes())
        .any(|(name, value)| name == "have" && value == generation)
}
