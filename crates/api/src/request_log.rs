//! Observation of every request: a metric by route and status, a log line for each refusal and failure, and a trace if
//! enabled. The route is the path template, so request data never becomes the name of a series or span.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::Response,
};

use super::{access::Actor, problem::Refused};
use twilio_edge_domain::trace::Traceparent;
use twilio_edge_platform::{
    log::REFUSALS, metrics::Metrics, store_metrics as steps, traces::Telemetry,
};

/// Paths that are polled all the time and are not worth a trace.
const UNTRACED: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

pub(super) async fn record(
    State(metrics): State<Arc<Metrics>>,
    State(telemetry): State<Telemetry>,
    mut request: Request,
    next: Next,
) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    let method = method(&request);
    let parent = request.headers().get("traceparent").and_then(|parent| parent.to_str().ok());
    let span = match UNTRACED.contains(&route) {
        true => None,
        false => telemetry.request_span(method, route, parent),
    };
    let trace = parent.and_then(Traceparent::parse);
    if let Some(span) = &span {
        request.extensions_mut().insert(span.callout());
    }
    let start = Instant::now();
    let (response, steps) = match span {
        Some(_) => steps::record(next.run(request)).await,
        None => (next.run(request).await, Vec::new()),
    };
    let status = response.status().as_u16();
    let duration = start.elapsed();
    metrics.answered(route, status, duration);
    log(&response, [method, route], trace.as_ref(), duration);
    if let Some(span) = span {
        span.end(status, &steps);
    }
    response
}

/// Writes one log line: for a refusal with the caller, for a failure with the reason.
fn log(
    response: &Response,
    [method, route]: [&str; 2],
    trace: Option<&Traceparent>,
    duration: Duration,
) {
    let status = response.status().as_u16();
    let refused = response.extensions().get::<Refused>();
    let code = refused.map(|refused| refused.code);
    let reason = refused.and_then(|refused| refused.reason.as_deref());
    let actor = response.extensions().get::<Actor>().map(|Actor(actor)| actor.as_str());
    let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let trace_id = trace.map(Traceparent::trace_id);
    match status {
        500.. => tracing::warn!(
            event = "request.failed",
            http.method = method,
            http.route = route,
            status,
            code,
            actor,
            reason,
            duration_ms,
            trace.id = trace_id,
            "the API could not carry out a request",
        ),
        400..500 => tracing::info!(
            target: REFUSALS,
            event = "request.refused",
            http.method = method,
            http.route = route,
            status,
            code,
            actor,
            duration_ms,
            trace.id = trace_id,
            "the API refused a request",
        ),
        _ => tracing::debug!(
            event = "request.answered",
            http.method = method,
            http.route = route,
            status,
            actor,
            duration_ms,
            trace.id = trace_id,
            "the API carried out a request",
        ),
    }
}

/// Returns the name of the method; methods outside the list share one name.
fn method(request: &Request) -> &'static str {
    match request.method().as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        _ => "_OTHER",
    }
}
