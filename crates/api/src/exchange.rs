//! `POST /edge/v1/exchange`: decides whether webhooks may be forwarded, and records the outcomes of forwarded ones.

use std::{sync::Arc, time::Instant};

use axum::{
    Extension,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use twilio_edge_contract::{
    DecodeError, EXCHANGE_MEDIA_TYPE, ExchangeReply, ExchangeRequest, Verdict,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::problem::Problem;
use crate::{
    app::App,
    body::{check_batch, json, read, whole},
};
use twilio_edge_domain::webhook::Webhook;
use twilio_edge_platform::clock::now_ms;
use twilio_edge_platform::{
    metrics::Batch,
    store_metrics as steps,
    traces::{Callout, ClaimSpans, Telemetry},
};
use twilio_edge_services::{
    access::api_keys::Caller,
    inbound::claims::{Claims, InvalidBatch},
};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(exchange))
}

/// Decides whether webhooks may be forwarded, and records the outcomes of forwarded ones. The answer has one verdict per
/// claim and one result per settlement, in the order of the request.
///
/// Filters send and receive the compact form `application/vnd.twilio-edge.exchange`, which is versioned together with filter
/// and sidecar; its format is documented in the source, `contract/src/binary.rs`. A request in JSON is answered in JSON.
#[utoipa::path(
    post,
    path = "/edge/v1/exchange",
    tag = "edge",
    request_body = ExchangeRequest,
    responses(
        (status = 200, description = "The verdict for each claim and the result of each settlement, in the order of the request", body = ExchangeReply),
        Problem,
    ),
    security(("key" = [])),
)]
async fn exchange(
    State(claims): State<Arc<Claims>>,
    State(telemetry): State<Telemetry>,
    Extension(caller): Extension<Caller>,
    callout: Option<Extension<Callout>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let kind = headers.get(header::CONTENT_TYPE);
    let is_binary = kind.is_some_and(|kind| kind == EXCHANGE_MEDIA_TYPE);
    let request = match is_binary {
        true => decode(&whole(body)?)?,
        false => read(body, |request: &ExchangeRequest| request.v)?,
    };
    let ExchangeRequest { claims: asked, settlements, .. } = request;
    check_batch(asked.len().max(settlements.len()))?;
    let mut identities = asked
        .iter()
        .map(|claim| &claim.identity)
        .chain(settlements.iter().map(|settlement| &settlement.identity));
    if !identities.all(|identity| caller.sees(&identity.account_sid)) {
        return Err(Problem::other_account());
    }
    let (claim_count, settlement_count) = (asked.len(), settlements.len());
    let spans = telemetry.claim_spans(&asked);
    let invalid = |invalid: InvalidBatch| Problem::malformed(&invalid.0);
    // Both are validated before one of them changes anything.
    let webhooks = claims.read_claims(asked).map_err(invalid)?;
    let settlements = claims.read_settlements(settlements).map_err(invalid)?;
    let metrics = &claims.metrics.webhooks;
    let batches = [(Batch::Claims, claim_count), (Batch::Settlements, settlement_count)];
    for (batch, count) in batches.into_iter().filter(|(_, count)| *count > 0) {
        metrics.batched(batch, count);
    }
    // Boxed: the futures have thousands of bytes, which every layer above would otherwise move.
    let claiming = Box::pin(claim(&claims, webhooks, spans, callout));
    let settling = Box::pin(claims.settle(settlements, now_ms()));
    let (verdicts, results) = tokio::join!(claiming, settling);
    let reply = ExchangeReply::new(verdicts, results);
    Ok(if is_binary { binary(&reply) } else { json(&reply) })
}

/// Claims webhooks, and measures and traces that.
async fn claim(
    claims: &Claims,
    webhooks: Vec<Webhook>,
    spans: Option<ClaimSpans>,
    callout: Option<Extension<Callout>>,
) -> Vec<Verdict> {
    if webhooks.is_empty() {
        return Vec::new();
    }
    let start = Instant::now();
    let claiming = claims.claim(webhooks, now_ms());
    let (verdicts, steps) = match spans {
        Some(_) => steps::record(claiming).await,
        None => (claiming.await, Vec::new()),
    };
    claims.metrics.webhooks.claims_took(start.elapsed());
    if let Some(spans) = spans {
        spans.end(&verdicts, callout.as_ref().map(|Extension(callout)| callout), &steps);
    }
    verdicts
}

fn decode(body: &[u8]) -> Result<ExchangeRequest, Problem> {
    ExchangeRequest::decode(body).map_err(|error| match error {
        DecodeError::OtherVersion(version) => Problem::unknown_version(version.into()),
        DecodeError::NotAnExchange | DecodeError::Malformed { .. } => {
            Problem::malformed(&error.to_string())
        }
    })
}

fn binary(reply: &ExchangeReply) -> Response {
    (StatusCode::OK, [(header::CONTENT_TYPE, EXCHANGE_MEDIA_TYPE)], reply.encode()).into_response()
}
