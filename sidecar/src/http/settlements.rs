//! `POST /edge/v1/settlements`: how forwarded webhooks ended.

use axum::{
    Router,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    response::Response,
    routing::post,
};
use twilio_edge_contract::{
    PROTOCOL_VERSION, SETTLEMENTS_PATH, SettlementsReply, SettlementsRequest,
};

use super::{App, check_batch, json, now_ms, problem::Problem, read};

pub(super) fn router() -> Router<App> {
    Router::new().route(SETTLEMENTS_PATH, post(settle))
}

async fn settle(
    State(app): State<App>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let request: SettlementsRequest = read(body)?;
    check_batch(request.settlements.len())?;
    let results = app.claims.settle(request.settlements, now_ms()).await;
    let results = results.map_err(|unreadable| Problem::unreadable(&unreadable.0))?;
    Ok(json(&SettlementsReply { v: PROTOCOL_VERSION, results }))
}
