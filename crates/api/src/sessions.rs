//! `/v1/sessions`: starts a session of an API key. `/v1/session`: ends the session of the request. A browser holds a session
//! instead of the key, so that the key stays with its owner.

use std::time::Duration;

use axum::{
    Extension,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{api_keys::ApiKey, problem::Problem};
use crate::{
    app::{App, SessionLifetime},
    body::{integer, json, object},
};
use twilio_edge_domain::{api_key::Scope, window::rfc3339};
use twilio_edge_platform::clock::now_ms;
use twilio_edge_services::access::api_keys::{AccessError, Caller, Keys, StartedSession};

/// Request to start a session.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct StartSessionRequest {
    /// Lifetime in seconds. A longer one than `console.session_s`, which is the default, is shortened to it.
    #[serde(default, deserialize_with = "integer")]
    #[schema(minimum = 1, value_type = Option<u64>, maximum = 4294967295u32)]
    lifetime_s: Option<u32>,
}

/// A new session with its token.
#[derive(Serialize, ToSchema)]
struct StartSessionResponse {
    /// Bearer token of the session. It is shown once.
    token: String,
    /// Time at which the session ends by itself.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    /// Key for which the session stands.
    key: ApiKey,
}

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(start)).routes(routes!(end))
}

/// Starts a session of the key. The token has the rights of the key until the session ends, expires, or the key is revoked. If
/// the request was sent with a session, the new session replaces it: this exchanges the token of a sign-in link once.
#[utoipa::path(
    post,
    path = "/v1/sessions",
    tag = "keys",
    operation_id = "start_session",
    request_body = StartSessionRequest,
    responses(
        (status = 201, description = "The session with its token", body = StartSessionResponse),
        Problem,
    ),
    security(("key" = [])),
)]
async fn start(
    State(keys): State<Keys>,
    State(SessionLifetime(longest)): State<SessionLifetime>,
    Extension(caller): Extension<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let StartSessionRequest { lifetime_s } = object(body)?;
    let lifetime = lifetime_s.map_or(longest, |seconds| Duration::from_secs(seconds.into()));
    if lifetime.is_zero() {
        return Err(Problem::malformed("lifetime_s: must be at least 1"));
    }
    let lifetime = lifetime.min(longest);
    let started = keys.start_session(&caller, lifetime, now_ms()).await;
    let StartedSession { token, key, expires_at_ms } = started.map_err(refused)?;
    let expires_at = rfc3339(expires_at_ms);
    let mut response = json(&StartSessionResponse { token, expires_at, key: ApiKey::of(key) });
    *response.status_mut() = StatusCode::CREATED;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Ends the session that the request was sent with. A request with a key has no session, and changes nothing.
#[utoipa::path(
    delete,
    path = "/v1/session",
    tag = "keys",
    operation_id = "end_session",
    responses((status = 204, description = "The session has ended"), Problem),
    security(("key" = [])),
)]
async fn end(
    State(keys): State<Keys>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Problem> {
    keys.end_session(&caller, now_ms()).await.map_err(refused)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn refused(refusal: AccessError) -> Problem {
    Problem::refused(refusal, Scope::App)
}
