//! `/v1/events/{id}/deliveries`: the deliveries of one webhook to its sinks, in any state, with their latest attempts.

use axum::{
    Extension,
    extract::{Path, State, rejection::PathRejection},
    response::Response,
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::problem::Problem;
use crate::{app::App, body::json};
use twilio_edge_domain::{
    cursor,
    delivery_attempt::{self, AttemptOutcome, DeliveryAttempt},
    window::rfc3339,
};
use twilio_edge_services::access::api_keys::Caller;
use twilio_edge_store::{DeliveryState, Outbox};

/// One attempt to deliver.
#[derive(Serialize, ToSchema)]
pub(super) struct AttemptView {
    /// Time of its start, in RFC 3339.
    at: Option<String>,
    /// Outcome of the attempt.
    outcome: AttemptOutcome,
    /// HTTP status of the answer; `null` without an answer, and for sinks that do not speak HTTP.
    status: Option<u16>,
    /// Time until the answer, or until the failure, in milliseconds.
    latency_ms: u64,
    /// Reason of a failure; `null` if it would only repeat the status.
    reason: Option<String>,
    /// First 256 bytes of the answer.
    answer: String,
}

/// A delivery of a webhook to one sink.
#[derive(Serialize, ToSchema)]
struct DeliveryView {
    /// Number of the delivery.
    id: i64,
    /// Name of the sink.
    sink: String,
    /// Account SID, `AC` and 32 hexadecimal digits.
    account_sid: String,
    /// Value of the `webhook-id` header that the sink receives.
    delivery_id: String,
    /// State of the delivery: `waiting`, `done`, `dead` or `discarded`.
    state: String,
    /// Time at which the delivery was queued, or queued again by a retry, in RFC 3339.
    recorded_at: Option<String>,
    /// Time at which the delivery was given up, delivered or discarded, in RFC 3339.
    ended_at: Option<String>,
    /// Number of attempts.
    tries: i64,
    /// Error of the last attempt.
    reason: Option<String>,
    /// Latest attempts, at most 20, the oldest first.
    attempts: Vec<AttemptView>,
}

/// The deliveries of a webhook.
#[derive(Serialize, ToSchema)]
struct DeliveryList {
    deliveries: Vec<DeliveryView>,
}

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Lists the deliveries of one webhook, with their latest attempts. The list is empty if the webhook has no delivery, or
/// if its deliveries were completed and deleted.
#[utoipa::path(
    get,
    path = "/v1/events/{id}/deliveries",
    tag = "dead letters",
    params(("id" = String, Path, description = "Id of the webhook: `event_id` of its event, or the id that `GET /v1/events` lists")),
    operation_id = "list_event_deliveries",
    responses((status = 200, description = "The deliveries of the webhook", body = DeliveryList), Problem),
    security(("key" = [])),
)]
async fn list(
    State(outbox): State<Outbox>,
    Extension(caller): Extension<Caller>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let id = id.map_or_else(|_| String::new(), |Path(id)| id);
    let account_sid = caller.account_sid.as_deref();
    let mut found = Vec::new();
    // The databases reject a NUL character in text.
    let event_id = Some(id.clone()).filter(|id| !id.contains('\0'));
    for id in event_id.into_iter().chain(cursor::read(&id)) {
        if found.is_empty() {
            let deliveries = outbox.deliveries_of_event(&id, account_sid).await;
            found = deliveries.map_err(|reason| Problem::unavailable(&reason))?;
        }
    }
    Ok(json(&DeliveryList { deliveries: found.into_iter().map(DeliveryView::of).collect() }))
}

impl DeliveryView {
    fn of(delivery: DeliveryState) -> DeliveryView {
        DeliveryView {
            id: delivery.seq,
            attempts: AttemptView::read(&delivery.attempts),
            sink: delivery.sink,
            account_sid: delivery.account_sid,
            delivery_id: delivery.delivery_id,
            state: delivery.state,
            recorded_at: rfc3339(delivery.recorded_at_ms),
            ended_at: delivery.ended_at_ms.and_then(rfc3339),
            tries: delivery.tries,
            reason: delivery.reason,
        }
    }
}

impl AttemptView {
    pub(super) fn of(attempt: DeliveryAttempt) -> AttemptView {
        AttemptView {
            at: rfc3339(attempt.at_ms),
            outcome: attempt.outcome,
            status: attempt.status,
            latency_ms: attempt.latency_ms,
            reason: attempt.reason,
            answer: attempt.answer,
        }
    }

    /// Returns the attempts of a stored list, the oldest first.
    pub(super) fn read(stored: &str) -> Vec<AttemptView> {
        delivery_attempt::read(stored).into_iter().map(AttemptView::of).collect()
    }
}
