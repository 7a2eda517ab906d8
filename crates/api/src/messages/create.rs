//! `POST /v1/messages`: sends a message, or with `dry_run` returns the verdicts of all rules. `create_request.rs` reads the
//! request, and `acceptance.rs` accepts the message; this module renders the answer.

use std::sync::Arc;

use axum::{
    Extension,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    response::Response,
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    acceptance::{Evaluation, NewMessage, accept, evaluate},
    create_request::CreateMessageRequest,
    outcome::WaitQuery,
};
use crate::{
    app::App,
    body::{json, object},
    idempotency::{IdempotencyKeyHeader, accepted, accepted_for_copies, as_of_ms},
    problem::Problem,
    views::Message,
};
use twilio_edge_domain::sending::{errors::FallbackTarget, rules::Verdict};
use twilio_edge_services::{
    access::api_keys::Caller,
    outbound::{fallback::Alternative, sending::Sending},
};
use twilio_edge_store::{IdempotencyClaim, OutboundMessage};

/// Result of a dry run.
#[derive(Serialize, ToSchema)]
pub(super) struct DryRun {
    /// True if the message would be accepted: no rule refuses it, or only the closed window does and a fallback is
    /// allowed.
    allowed: bool,
    /// Verdicts of all rules.
    verdicts: Vec<Verdict>,
    /// Fallbacks that would be used if the channel did not accept the message, in order of preference.
    fallback: Vec<FallbackVerdict>,
}

/// One fallback with its verdicts.
#[derive(Serialize, ToSchema)]
pub(super) struct FallbackVerdict {
    to: FallbackTarget,
    /// True if no rule refuses the fallback.
    allowed: bool,
    /// Verdicts of all rules.
    verdicts: Vec<Verdict>,
}

/// Result of a dry run, or a message with its outcome.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes what is answered; each of the two is written by itself")]
pub(super) enum CreateMessageResponse {
    DryRun(DryRun),
    Message(Box<Message>),
}

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(send))
}

/// Sends a message once. The answer comes as soon as the message is durably stored, and the message is sent right after.
/// With `wait_ms`, the answer comes once Twilio has decided. docs/SENDING.md lists the rules in their order.
#[utoipa::path(
    post,
    path = "/v1/messages",
    tag = "messages",
    params(IdempotencyKeyHeader, WaitQuery),
    operation_id = "send_message",
    request_body = CreateMessageRequest,
    responses(
        (status = 200, description = "With `dry_run`: the verdict of each rule; no message is sent. With `wait_ms`: the outcome of the message", body = CreateMessageResponse),
        (status = 202, description = "The message is accepted and has no outcome yet", body = Message, headers(("location" = String, description = "Path of the message, which shows its state"), ("idempotent-replayed" = String, description = "`true` if the answer is the stored answer of an earlier request with the same Idempotency-Key; this request changed nothing"))),
        Problem,
    ),
    security(("key" = [])),
)]
async fn send(
    State(sending): State<Arc<Sending>>,
    Extension(caller): Extension<Caller>,
    turn: Option<Extension<IdempotencyClaim>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body: CreateMessageRequest = object(body)?;
    let dry_run = body.is_dry_run();
    let message = body.into_message(&sending, &caller, as_of_ms(turn.clone())).await?;
    create(&sending, &caller, turn, message, dry_run).await
}

/// Accepts a message, or with `dry_run` renders the verdicts of all rules.
pub(super) async fn create(
    sending: &Sending,
    caller: &Caller,
    turn: Option<Extension<IdempotencyClaim>>,
    message: NewMessage,
    dry_run: bool,
) -> Result<Response, Problem> {
    if dry_run {
        let request = message.request;
        let evaluation = evaluate(sending, request).await?;
        let allowed = evaluation.is_allowed();
        let Evaluation { verdicts, alternatives, .. } = evaluation;
        let shown = alternatives.into_iter().map(|way| {
            let (allowed, Alternative { to, verdicts, .. }) = (way.is_allowed(), way);
            FallbackVerdict { to, allowed, verdicts }
        });
        return Ok(json(&DryRun { allowed, verdicts, fallback: shown.collect() }));
    }
    let is_kept = turn.is_some();
    let answer = |row: &OutboundMessage| {
        let message = Message::of(&row.clone().into(), None, &sending.errors);
        accepted_for_copies(&message, &message.summary.links.this)
    };
    let row = accept(sending, caller, turn, message, answer).await?;
    let message = Message::of(&row.into(), None, &sending.errors);
    let location = message.summary.links.this.clone();
    Ok(accepted(&message, location, is_kept))
}
