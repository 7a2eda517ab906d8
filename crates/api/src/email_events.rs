//! `POST /email/events/{account_sid}`: receives SendGrid's Event Webhook. The proxy in front forwards it without the filter; the
//! signature of SendGrid is the only proof, so the path needs no key.

use std::sync::Arc;

use axum::{
    Extension,
    body::Bytes,
    extract::{
        DefaultBodyLimit, Path, State,
        rejection::{BytesRejection, PathRejection},
    },
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use utoipa_axum::{router::OpenApiRouter, routes};

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

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(receive)).layer(DefaultBodyLimit::max(MAX_BYTES))
}

/// Receives events of SendGrid about e-mails of an account. Each event has an effect once, also if SendGrid repeats the post.
#[utoipa::path(
    post,
    path = "/email/events/{account_sid}",
    tag = "email",
    params(
        ("account_sid" = String, Path, description = "Account whose verification key proves the events", pattern = "^AC[0-9a-f]{32}$"),
        ("x-twilio-email-event-webhook-signature" = Option<String>, Header, description = "SendGrid's signature of the time and the body"),
        ("x-twilio-email-event-webhook-timestamp" = Option<String>, Header, description = "Time of signing, in seconds since 1970"),
    ),
    operation_id = "receive_email_events",
    request_body(content = Vec<Object>, description = "Events, as SendGrid documents them"),
    responses((status = 204, description = "The events are stored"), Problem),
)]
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
    let post = EventsPost {
        account_sid: &account_sid,
        signature: header(SIGNATURE_HEADER).unwrap_or_default(),
        timestamp: header(TIMESTAMP_HEADER).unwrap_or_default(),
        body: &body,
    };
    match events.receive(post, now_ms()).await {
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
