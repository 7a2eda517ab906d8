//! `POST /edge/v1/claims`: decides whether webhooks may be forwarded.

use std::{sync::Arc, time::Instant};

use axum::{
    Extension,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    response::Response,
};
use twilio_edge_contract::{ClaimsReply, ClaimsRequest, PROTOCOL_VERSION};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::problem::Problem;
use crate::{
    app::App,
    body::{check_batch, json, read},
};
use twilio_edge_platform::clock::now_ms;
use twilio_edge_platform::{
    metrics::Batch,
    store_metrics as steps,
    traces::{Callout, Telemetry},
};
use twilio_edge_services::{access::api_keys::Caller, inbound::claims::Claims};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(claim))
}

/// Decides whether webhooks may be forwarded. The answer has one verdict per claim, in the same order.
#[utoipa::path(
    post,
    path = "/edge/v1/claims",
    tag = "edge",
    request_body = ClaimsRequest,
    responses(
        (status = 200, description = "The verdict for each claim, in the order of the request", body = ClaimsReply),
        Problem,
    ),
    security(("key" = [])),
)]
async fn claim(
    State(claims): State<Arc<Claims>>,
    State(telemetry): State<Telemetry>,
    Extension(caller): Extension<Caller>,
    callout: Option<Extension<Callout>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let request = read(body, |request: &ClaimsRequest| request.v)?;
    check_batch(request.claims.len())?;
    if !request.claims.iter().all(|claim| caller.sees(&claim.identity.account_sid)) {
        return Err(Problem::other_account());
    }
    claims.metrics.webhooks.batched(Batch::Claims, request.claims.len());
    let spans = telemetry.claim_spans(&request.claims);
    let start = Instant::now();
    // Boxed: the future has thousands of bytes, which every layer above would otherwise move.
    let claiming = Box::pin(claims.claim(request.claims, now_ms()));
    let (verdicts, steps) = match spans {
        Some(_) => steps::record(claiming).await,
        None => (claiming.await, Vec::new()),
    };
    let verdicts = verdicts.map_err(|malformed| Problem::malformed(&malformed.0))?;
    claims.metrics.webhooks.claims_took(start.elapsed());
    if let Some(spans) = spans {
        spans.end(&verdicts, callout.as_ref().map(|Extension(callout)| callout), &steps);
    }
    Ok(json(&ClaimsReply { v: PROTOCOL_VERSION, verdicts }))
}
