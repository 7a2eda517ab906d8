//! `POST /edge/v1/settlements`: how forwarded webhooks ended.

use axum::{
    Extension, Router,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    response::Response,
    routing::post,
};
use twilio_edge_contract::{
    PROTOCOL_VERSION, SETTLEMENTS_PATH, SettlementsReply, SettlementsRequest,
};

use super::{App, check_batch, json, now_ms, problem::Problem, read};
use crate::keys::Caller;

pub(super) fn router() -> Router<App> {
    Router::new().route(SETTLEMENTS_PATH, post(settle))
}

async fn settle(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let request: SettlementsRequest = read(body)?;
    check_batch(request.settlements.len())?;
    if !request.settlements.iter().all(|settled| caller.sees(&settled.identity.account_sid)) {
        return Err(Problem::other_account());
    }
    let results = app.claims.settle(request.settlements, now_ms()).await;
    let results = results.map_err(|unreadable| Problem::unreadable(&unreadable.0))?;
    Ok(json(&SettlementsReply { v: PROTOCOL_VERSION, results }))
}
