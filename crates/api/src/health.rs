//! Health endpoints for orchestrators and Prometheus: liveness, readiness and metrics. They need no token and reveal no
//! secret.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::app::App;
use twilio_edge_platform::metrics::{Metrics, Pool};
use twilio_edge_services::access::webhook_keys::WebhookKeys;
use twilio_edge_store::{StoreError, Stores, message_history::MessageHistory};

/// Content type that Prometheus negotiates for OpenMetrics text.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// State of the stores: `ok` or `unavailable`; of the accounts file: `ok` or `stale`.
#[derive(Serialize, ToSchema)]
struct Readiness {
    /// True if the database answers.
    ready: bool,
    /// State of the database: `ok` or `unavailable`.
    database: &'static str,
    /// State of Redis: `ok` or `unavailable`; absent if Redis is not configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    redis: Option<&'static str>,
    /// State of the accounts file: `ok` or `stale`; absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    accounts: Option<&'static str>,
}

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(alive)).routes(routes!(ready)).routes(routes!(metrics))
}

/// Reports that the process is alive.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "health",
    responses(
        (status = 200, description = "The process is alive", body = str, content_type = "text/plain"),
    ),
    security(()),
)]
async fn alive() -> &'static str {
    "ok\n"
}

/// Reports readiness: ready as long as the database answers. Without Redis the sidecar is slower but ready, because
/// taking all sidecars out of service would turn a delay into an outage. An unusable accounts file does not change
/// readiness; its state is that of the last read, which a filter's request causes.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "health",
    responses(
        (status = 200, description = "The sidecar is ready", body = Readiness),
        (status = 503, description = "The sidecar is not ready", body = Readiness),
    ),
    security(()),
)]
async fn ready(
    State(stores): State<Stores>,
    State(accounts): State<Option<WebhookKeys>>,
) -> Response {
    let health = stores.health().await;
    let word = |answer: &Result<(), StoreError>| if answer.is_ok() { "ok" } else { "unavailable" };
    let readiness = Readiness {
        ready: health.ledger.is_ok(),
        database: word(&health.ledger),
        redis: health.redis.as_ref().map(word),
        accounts: accounts
            .as_ref()
            .map(|accounts| if accounts.cached().stale { "stale" } else { "ok" }),
    };
    let status = match readiness.ready {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let body = serde_json::to_vec(&readiness).unwrap_or_default();
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// Returns the metrics as OpenMetrics text.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "health",
    responses(
        (status = 200, description = "All metrics in the OpenMetrics text format", body = str, content_type = "application/openmetrics-text"),
    ),
    security(()),
)]
async fn metrics(
    State(stores): State<Stores>,
    State(metrics): State<Arc<Metrics>>,
    State(histories): State<MessageHistory>,
) -> Response {
    stores.gauge().await;
    metrics.stores.connected(Pool::Readers, histories.connections());
    ([(header::CONTENT_TYPE, OPENMETRICS)], metrics.text()).into_response()
}
