//! `POST /edge/v1/claims`: may these webhooks be forwarded?

use std::time::Instant;

use axum::{
    Extension, Router,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    response::Response,
    routing::post,
};
use twilio_edge_contract::{CLAIMS_PATH, ClaimsReply, ClaimsRequest, PROTOCOL_VERSION};

use super::{App, check_batch, json, now_ms, problem::Problem, read};
use crate::keys::Caller;

pub(super) fn router() -> Router<App> {
    Router::new().route(CLAIMS_PATH, post(claim))
}

async fn claim(
    State(app): State<App>,
    Extension(caller): Extension<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let request: ClaimsRequest = read(body)?;
    check_batch(request.claims.len())?;
    if !request.claims.iter().all(|claim| caller.sees(&claim.identity.account_sid)) {
        return Err(Problem::other_account());
    }
    let asked = Instant::now();
    let verdicts = app.claims.claim(request.claims, now_ms()).await;
    let verdicts = verdicts.map_err(|unreadable| Problem::unreadable(&unreadable.0))?;
    app.claims.metrics.claims_took(asked.elapsed());
    Ok(json(&ClaimsReply { v: PROTOCOL_VERSION, verdicts }))
}
