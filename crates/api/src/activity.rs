//! `GET /v1/activity`: recent activity of this sidecar, in memory. It has the same counters as `/metrics`, which need no key.

use std::sync::Arc;

use axum::{extract::State, response::Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::problem::Problem;
use crate::{app::App, body::json};
use twilio_edge_domain::window::rfc3339;
use twilio_edge_platform::metrics::{ACTIVITY_INTERVAL, ActivityInterval, Metrics};
use twilio_edge_store::Stores;

/// Recent activity of one sidecar, for all accounts.
#[derive(Serialize, ToSchema)]
struct Activity {
    /// Length of an interval in seconds.
    interval_s: u64,
    /// Intervals of the last hour, the oldest first. The last one is not complete.
    intervals: Vec<IntervalView>,
    /// Queues as they are now.
    queues: Queues,
}

/// Activity of one interval.
#[derive(Serialize, ToSchema)]
struct IntervalView {
    /// End of the interval.
    #[schema(format = DateTime)]
    until: Option<String>,
    /// Webhooks that were new.
    new: u64,
    /// Copies of accepted webhooks.
    duplicates: u64,
    /// Webhooks without a verdict; the policy of their route applied.
    undecided: u64,
    /// Deliveries that sinks accepted.
    delivered: u64,
    /// Attempts of deliveries that failed and are retried.
    delivery_failures: u64,
    /// Deliveries that were given up.
    dead_letters: u64,
}

/// Queues of one sidecar.
#[derive(Serialize, ToSchema)]
struct Queues {
    /// Webhooks that wait to be written to the database.
    unwritten_webhooks: i64,
    /// Age in seconds of the oldest webhook that waits to be written.
    unwritten_webhooks_age_s: f64,
    /// Seconds since the oldest waiting message should have been sent.
    messages_age_s: f64,
    /// Messages whose outcome is unknown.
    unknown_messages: i64,
}

impl IntervalView {
    fn of(interval: ActivityInterval) -> IntervalView {
        let ActivityInterval { until_ms, counts } = interval;
        IntervalView {
            until: rfc3339(until_ms),
            new: counts.new,
            duplicates: counts.duplicates,
            undecided: counts.undecided,
            delivered: counts.delivered,
            delivery_failures: counts.delivery_failures,
            dead_letters: counts.dead_letters,
        }
    }
}

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(show))
}

/// Returns the activity of the sidecar that answers, in the last hour: webhooks by verdict, deliveries by outcome, and queues.
/// Prometheus has the same counts of all sidecars (`/metrics`).
#[utoipa::path(
    get,
    path = "/v1/activity",
    tag = "health",
    operation_id = "show_activity",
    responses((status = 200, description = "The activity of the last hour", body = Activity), Problem),
    security(("key" = [])),
)]
async fn show(State(stores): State<Stores>, State(metrics): State<Arc<Metrics>>) -> Response {
    stores.gauge().await;
    let (unwritten_webhooks, unwritten_webhooks_age_s) = metrics.journal.queue();
    let (unknown_messages, messages_age_s) = metrics.messages.backlog();
    json(&Activity {
        interval_s: ACTIVITY_INTERVAL.as_secs(),
        intervals: metrics.activity().into_iter().map(IntervalView::of).collect(),
        queues: Queues {
            unwritten_webhooks,
            unwritten_webhooks_age_s,
            messages_age_s,
            unknown_messages,
        },
    })
}
