//! `GET /edge/v1/config`: the keys of the accounts, for filters that were given none.

use axum::{
    Router,
    extract::{RawQuery, State},
    http::{HeaderValue, header},
    response::Response,
    routing::get,
};
use twilio_edge_contract::{EDGE_CONFIG_PATH, KeyRing};

use super::{App, json, problem::Problem};

pub(super) fn router() -> Router<App> {
    Router::new().route(EDGE_CONFIG_PATH, get(config))
}

/// All keys, or, to a filter that has this generation already, no more than its name.
async fn config(State(app): State<App>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let accounts = app.accounts.ok_or_else(Problem::no_accounts_file)?;
    let ring = accounts.current().await.ring;
    let mut response = match has(query.as_deref().unwrap_or_default(), &ring.generation) {
        true => json(&KeyRing { v: ring.v, generation: ring.generation.clone(), accounts: None }),
        false => json(&*ring),
    };
    // Secrets: whatever stands between the two is not to keep them.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn has(query: &str, generation: &str) -> bool {
    form_urlencoded::parse(query.as_bytes())
        .any(|(name, value)| name == "have" && value == generation)
}
