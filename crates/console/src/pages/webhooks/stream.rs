//! Stream of webhooks for the live list: the events of `GET /v1/stream`. The script counts them and fetches the page again, so that
//! the server renders every entry.

use axum::{
    Router,
    extract::RawQuery,
    http::HeaderMap,
    response::{IntoResponse, Response},
    routing::get,
};

use crate::{console::Console, failure::Failure, viewer::Viewer};

pub(super) const PATH: &str = "/console/webhooks/stream";

pub(super) fn routes() -> Router<Console> {
    Router::new().route("/webhooks/stream", get(open))
}

/// Passes the events of the API to the browser. A refusal is the status without a page, because no one reads it: the script
/// fetches the list periodically instead.
async fn open(viewer: Viewer, headers: HeaderMap, RawQuery(filter): RawQuery) -> Response {
    let filter = filter.unwrap_or_default();
    let filter: Vec<_> = form_urlencoded::parse(filter.as_bytes()).collect();
    let parameters = filter.iter().map(|(name, value)| (name.as_ref(), Some(value.as_ref())));
    let path = viewer.of_account("/v1/stream", parameters);
    let last_event_id = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    match viewer.client.stream(&path, last_event_id).await {
        Ok(events) => events,
        Err(Failure::Refused(refusal)) => refusal.status().into_response(),
        Err(failure) => failure.into_response(),
    }
}
