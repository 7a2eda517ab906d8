//! `/v1/sinks`: lists the sinks of this sidecar and tests one. The rules are those of
//! [`twilio_edge_services::inbound::sink_tests`].

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Extension,
    extract::{Path, State, rejection::PathRejection},
    response::Response,
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{deliveries::AttemptView, problem::Problem};
use crate::{app::App, body::json};
use twilio_edge_connectors::sinks::{Sink, Sinks};
use twilio_edge_domain::{refusal::RefusalCode, window::rfc3339};
use twilio_edge_platform::metrics::Metrics;
use twilio_edge_services::{
    access::api_keys::Caller,
    inbound::sink_tests::{self, SinkTest},
};
use twilio_edge_store::{Outbox, SinkBacklog};

/// A sink with its backlog, of all accounts.
#[derive(Serialize, ToSchema)]
struct SinkView {
    /// Name of the sink.
    name: String,
    /// Type of the sink: `http`, `kafka` and others.
    #[serde(rename = "type")]
    type_name: String,
    /// False while this sidecar pauses deliveries because the sink did not answer.
    available: bool,
    /// Number of deliveries that wait; 1000 means 1000 or more.
    waiting: i64,
    /// Time at which the oldest waiting delivery was queued, of the 1000 contacts that are due first; `null` if none waits.
    #[schema(format = DateTime)]
    oldest_waiting_at: Option<String>,
    /// Number of dead letters; 1000 means 1000 or more.
    dead_letters: i64,
    /// Time at which the oldest dead letter was given up; `null` if there are none.
    #[schema(format = DateTime)]
    oldest_dead_letter_at: Option<String>,
}

/// The sinks of this sidecar.
#[derive(Serialize, ToSchema)]
struct SinkList {
    sinks: Vec<SinkView>,
}

/// Result of a test.
#[derive(Serialize, ToSchema)]
struct SinkTestView {
    /// Name of the sink.
    sink: String,
    /// Value of the `webhook-id` header that the sink received.
    delivery_id: String,
    /// The attempt and the answer of the sink.
    attempt: AttemptView,
}

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(test))
}

/// Lists the sinks of this sidecar with their backlog, in the order of its sinks file.
#[utoipa::path(
    get,
    path = "/v1/sinks",
    tag = "sinks",
    operation_id = "list_sinks",
    responses((status = 200, description = "The sinks of this sidecar", body = SinkList), Problem),
    security(("key" = [])),
)]
async fn list(
    State(sinks): State<Sinks>,
    State(outbox): State<Outbox>,
    State(metrics): State<Arc<Metrics>>,
) -> Result<Response, Problem> {
    let names: Vec<&str> = sinks.iter().map(Sink::name).collect();
    let backlogs = outbox.backlog(&names).await;
    let backlogs = backlogs.map_err(|reason| Problem::unavailable(&reason))?;
    let backlogs: BTreeMap<&str, &SinkBacklog> =
        backlogs.iter().map(|backlog| (backlog.sink.as_str(), backlog)).collect();
    let view = |sink: &Sink| {
        let backlog = backlogs.get(sink.name());
        SinkView {
            name: sink.name().into(),
            type_name: sink.type_name().into(),
            available: !metrics.sinks.is_unavailable(sink.name()),
            waiting: backlog.map_or(0, |backlog| backlog.waiting),
            oldest_waiting_at: backlog.and_then(|b| b.oldest_waiting_ms).and_then(rfc3339),
            dead_letters: backlog.map_or(0, |backlog| backlog.dead),
            oldest_dead_letter_at: backlog.and_then(|b| b.oldest_dead_ms).and_then(rfc3339),
        }
    };
    Ok(json(&SinkList { sinks: sinks.iter().map(view).collect() }))
}

/// Sends one event of type `test` to a sink, signed and with its headers and credentials, and returns the answer.
#[utoipa::path(
    post,
    path = "/v1/sinks/{name}/test",
    tag = "sinks",
    params(("name" = String, Path, description = "Name of the sink, as `GET /v1/sinks` lists it")),
    operation_id = "test_sink",
    responses(
        (status = 200, description = "The sink was tested; `attempt.outcome` is the result", body = SinkTestView),
        Problem,
    ),
    security(("key" = [])),
)]
async fn test(
    State(sinks): State<Sinks>,
    State(outbox): State<Outbox>,
    Extension(caller): Extension<Caller>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let not_found = || Problem::of(RefusalCode::NoSuchSink);
    let Path(name) = name.map_err(|_| not_found())?;
    let sink = sinks.get(&name).ok_or_else(not_found)?;
    let recorded = outbox.record(&sink_tests::audit_entry(&caller, sink)).await;
    recorded.map_err(|reason| Problem::unavailable(&reason))?;
    let SinkTest { delivery_id, attempt } = sink_tests::test(sink).await;
    Ok(json(&SinkTestView { sink: name, delivery_id, attempt: AttemptView::of(attempt) }))
}
