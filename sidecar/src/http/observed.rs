//! Every request as an operator sees it: counted by its route and what it was answered, and traced where that is wanted. The
//! route is the template that was routed to, so nothing that was sent names a series or a span.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::Response,
};

use super::App;
use crate::steps;

/// Asked all the time, and of no interest in a trace.
const UNTRACED: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

pub(super) async fn observed(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    let answering = match UNTRACED.contains(&route) {
        true => None,
        false => {
            let parent = request.headers().get("traceparent");
            let parent = parent.and_then(|parent| parent.to_str().ok());
            app.telemetry.answering(method(&request), route, parent)
        }
    };
    if let Some(answering) = &answering {
        request.extensions_mut().insert(answering.callout());
    }
    let asked = Instant::now();
    let (response, steps) = match answering {
        Some(_) => steps::taken_by(next.run(request)).await,
        None => (next.run(request).await, Vec::new()),
    };
    let status = response.status().as_u16();
    app.claims.metrics.answered(route, status, asked.elapsed());
    if let Some(answering) = answering {
        answering.end(status, &steps);
    }
    response
}

/// Whatever else was sent is not a name.
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
