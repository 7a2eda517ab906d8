//! `POST /email/events/{account_sid}`: receives SendGrid's Event Webhook. The proxy in front forwards it without the filter; the
//! signature of SendGrid is the only proof, so the path needs no key.

use std::sync::Arc;

use axum::{
    Extension, Router,
    body::Bytes,
    extract::{
        DefaultBodyLimit, Path, State,
        rejection::{BytesRejection, PathRejection},
    },
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use utoipa_axum::router::OpenApiRouter;

use crate::{app::App, body::whole, problem::Problem};
use twilio_edge_domain::{
    email::signature::{SIGNATURE_HEADER, TIMESTAMP_HEADER},
    refusal::RefusalCode,
};
use twilio_edge_platform::{
    clock::now_ms,
    listener::admission::{CallerKind, Connection},
};
use twilio_edge_services::outbound::email_events::{EmailEvents, EventRefusal, EventsPost};

/// Largest post of events in bytes. SendGrid sends up to about a megabyte.
const MAX_BYTES: usize = 4 << 20;

/// SendGrid alone calls this path, so the OpenAPI document of applications does not have it.
pub(super) fn router() -> OpenApiRouter<App> {
    let router = Router::new().route("/email/events/{account_sid}", post(receive));
    OpenApiRouter::from(router.layer(DefaultBodyLimit::max(MAX_BYTES)))
}

/// Receives events of SendGrid about e-mails of an account. Each event has an effect once, also if SendGrid repeats the post.
async fn receive(
    State(events): State<Arc<EmailEvents>>,
    connection: Option<Extension<Connection>>,
    account_sid: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let account_sid = account_sid.map_or_else(|_| String::new(), |Path(sid)| sid);
    let body = whole(body)?;
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let received = EventsPost {
        account_sid: &account_sid,
        signature: header(SIGNATURE_HEADER).unwrap_or_default(),
        timestamp: header(TIMESTAMP_HEADER).unwrap_or_default(),
        body: &body,
    };
    match events.receive(received, now_ms()).await {
        Ok(_) => {
            if let Some(Extension(connection)) = connection {
                connection.prove(CallerKind::Known);
            }
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        Err(EventRefusal::NoKey) => Err(Problem::of(RefusalCode::InvalidEventSignature)),
        Err(EventRefusal::Signature(problem)) => {
            let detail = format!("The signature is {}.", problem.as_str());
            Err(Problem::with(RefusalCode::InvalidEventSignature, detail))
        }
        Err(EventRefusal::Malformed(problem)) => Err(Problem::malformed(problem)),
        Err(EventRefusal::Store(reason)) => Err(Problem::unavailable(&reason)),
    }
}
