//! `Idempotency-Key`: carries out a request with a key once, and answers its copies with the stored answer. Only
//! successful answers are stored. After a refusal nothing was done, so a copy is decided anew. After a failure the
//! outcome is unknown, so a copy is carried out with the time of the first request. The domain decides whether two
//! requests are the same. The routers decide which operations heed the header.

use axum::{
    Extension, RequestExt,
    body::{Body, Bytes},
    extract::{Request, State, rejection::BytesRejection},
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::IntoParams;

use super::problem::Problem;
use crate::{
    app::Timeouts,
    body::{json, whole},
};
use twilio_edge_domain::idempotency::{Headers, Key, MAX_KEY_BYTES, StoredResponse, fingerprint};
use twilio_edge_domain::refusal::RefusalCode;
use twilio_edge_platform::clock::now_ms;
use twilio_edge_services::access::api_keys::Caller;
use twilio_edge_store::{
    Admission, CompletedRequest, Idempotency, IdempotencyClaim, IdempotentRequest,
};

const NAME: HeaderName = HeaderName::from_static("idempotency-key");

/// Header of a replayed answer.
pub(super) const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Description of the header for the operations that heed it.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes the header; `run_once` reads it")]
pub(super) struct IdempotencyKeyHeader {
    /// Unique key of the request, for instance a UUID. A copy with the same key is not carried out again: it gets the
    /// answer of the first request, with `Idempotent-Replayed: true`. A different request with the same key is refused
    /// (422). A copy that arrives while the first request is in progress is refused with `Retry-After` (409).
    #[param(
        rename = "Idempotency-Key",
        pattern = r#"^([!#-\[\]-~]{1,255}|"[ !#-\[\]-~]{1,255}")$"#
    )]
    idempotency_key: Option<String>,
}

/// Marker of a response whose handler has stored the answer for copies, in the same transaction as the change.
#[derive(Debug, Clone)]
pub(super) struct StoredReplay;

/// Returns the answer of an accepted request for its copies, as [`accepted`] returns it for the request itself.
pub(super) fn accepted_for_copies(view: &impl Serialize, location: &str) -> StoredResponse {
    StoredResponse {
        status: StatusCode::ACCEPTED.as_u16(),
        headers: Headers {
            content_type: Some("application/json".to_owned()),
            location: Some(location.to_owned()),
        },
        body: serde_json::to_string(view).unwrap_or_default(),
    }
}

/// Returns the answer of an accepted request: 202 with `view`, which is found again at `location`. `is_stored` is true if the
/// answer for copies was stored with the change.
pub(super) fn accepted(view: &impl Serialize, location: String, is_stored: bool) -> Response {
    let mut response = json(view);
    *response.status_mut() = StatusCode::ACCEPTED;
    if is_stored {
        response.extensions_mut().insert(StoredReplay);
    }
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// Returns the time, in milliseconds since 1970, as of which to carry out a request: that of its first copy.
pub(super) fn as_of_ms(turn: Option<Extension<IdempotencyClaim>>) -> i64 {
    turn.map_or_else(now_ms, |Extension(turn)| turn.as_of_ms)
}

/// Carries out a request once, if it is a POST with an idempotency key.
pub(super) async fn run_once(
    State(idempotency): State<Idempotency>,
    State(timeouts): State<Timeouts>,
    Extension(caller): Extension<Caller>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    if request.method() != Method::POST || !request.headers().contains_key(NAME) {
        return Ok(next.run(request).await);
    }
    let key = key(&request)?;
    let (request, body) = read(request).await?;
    let target = request.uri().path_and_query().map_or("", |target| target.as_str());
    let once = IdempotentRequest {
        tenant: caller.account_sid,
        principal: caller.actor,
        key,
        fingerprint: fingerprint(request.method().as_str(), target, &body),
    };
    let taken = idempotency.claim(&once, now_ms()).await;
    let turn = match taken.map_err(|reason| Problem::unavailable(&reason))? {
        Admission::Execute(turn) => turn,
        Admission::Replay(answer) => return Ok(replayed(answer)),
        Admission::InProgress => return Err(Problem::request_in_progress()),
        Admission::KeyReused => return Err(Problem::of(RefusalCode::IdempotencyKeyReused)),
    };
    // The task finishes even if the client disconnects, so that the next copy gets the answer.
    let limit = timeouts.request;
    let answering =
        tokio::spawn(tokio::time::timeout(limit, answered(idempotency, turn, request, next)));
    match answering.await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => Err(Problem::timeout(limit)),
        // Copies of the request wait until its hold ends; then the next one is carried out.
        Err(_) => Err(Problem::internal("the handler panicked")),
    }
}

fn key(request: &Request) -> Result<Key, Problem> {
    let mut sent = request.headers().get_all(NAME).iter();
    let key = sent.next().and_then(|sent| Key::read(sent.as_bytes()));
    key.filter(|_| sent.next().is_none()).ok_or_else(|| {
        Problem::malformed(&format!(
            "Idempotency-Key: must be there once, with 1 to {MAX_KEY_BYTES} visible ASCII characters, with or without quotes around them"
        ))
    })
}

/// Reads the whole body, and returns the request with the body beside it.
async fn read(request: Request) -> Result<(Request, Bytes), Problem> {
    let (parts, body) = request.into_parts();
    let limited = Request::from_parts(parts.clone(), body);
    let body: Result<Bytes, BytesRejection> = limited.extract().await;
    let body = whole(body)?;
    Ok((Request::from_parts(parts, Body::from(body.clone())), body))
}

/// Carries out the request and stores its answer.
async fn answered(
    idempotency: Idempotency,
    turn: IdempotencyClaim,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    request.extensions_mut().insert(turn.clone());
    let response = next.run(request).await;
    if response.extensions().get::<StoredReplay>().is_some() {
        return Ok(response);
    }
    if !response.status().is_success() {
        let given_back = match response.status().is_client_error() {
            true => idempotency.release(&turn).await,
            false => idempotency.abandon(&turn).await,
        };
        if let Err(reason) = given_back {
            tracing::warn!(event = "idempotency.release_failed", %reason, "the sidecar could not release an idempotency key; repetitions of the request wait until its hold ends");
        }
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await;
    let body = body.map_err(|error| Problem::internal(&error.to_string()))?;
    let answer = StoredResponse {
        status: parts.status.as_u16(),
        headers: Headers {
            content_type: text(parts.headers.get(header::CONTENT_TYPE)),
            location: text(parts.headers.get(header::LOCATION)),
        },
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    if let Err(reason) = idempotency.store_response(&CompletedRequest { turn, answer }).await {
        // The request was carried out. A later copy is carried out again with the same time, which changes nothing.
        tracing::warn!(event = "idempotency.persist_failed", %reason, "the sidecar could not store the response of a request for its repetitions");
    }
    Ok(Response::from_parts(parts, Body::from(body)))
}

fn text(value: Option<&HeaderValue>) -> Option<String> {
    value.and_then(|value| value.to_str().ok()).map(str::to_owned)
}

fn replayed(answer: StoredResponse) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let mut response = (status, answer.body).into_response();
    let headers = response.headers_mut();
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    let stored = [
        (header::CONTENT_TYPE, answer.headers.content_type),
        (header::LOCATION, answer.headers.location),
    ];
    for (name, value) in stored {
        if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
            headers.insert(name, value);
        }
    }
    response
}
