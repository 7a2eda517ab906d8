//! `POST /edge/v1/settlements`: records the outcomes of forwarded webhooks.

use std::sync::Arc;

use axum::{
    Extension,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    response::Response,
};
use twilio_edge_contract::{PROTOCOL_VERSION, SettlementsReply, SettlementsRequest};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::problem::Problem;
use crate::{
    app::App,
    body::{check_batch, json, read},
};
use twilio_edge_platform::clock::now_ms;
use twilio_edge_platform::metrics::Batch;
use twilio_edge_services::{access::api_keys::Caller, inbound::claims::Claims};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(settle))
}

/// Records the outcomes of forwarded webhooks. The answer has one result per settlement, in the same order.
#[utoipa::path(
    post,
    path = "/edge/v1/settlements",
    tag = "edge",
    request_body = SettlementsRequest,
    responses(
        (status = 200, description = "The result for each settlement, in the order of the request", body = SettlementsReply),
        Problem,
    ),
    security(("key" = [])),
)]
async fn settle(
    State(claims): State<Arc<Claims>>,
    Extension(caller): Extension<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let request = read(body, |request: &SettlementsRequest| request.v)?;
    check_batch(request.settlements.len())?;
    if !request.settlements.iter().all(|settled| caller.sees(&settled.identity.account_sid)) {
        return Err(Problem::other_account());
    }
    claims.metrics.webhooks.batched(Batch::Settlements, request.settlements.len());
    // Boxed for the same reason as a claim: every layer above would otherwise move the whole future.
    let results = Box::pin(claims.settle(request.settlements, now_ms())).await;
    let results = results.map_err(|malformed| Problem::malformed(&malformed.0))?;
    Ok(json(&SettlementsReply { v: PROTOCOL_VERSION, results }))
}
