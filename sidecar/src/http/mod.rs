//! The sidecar on the wire: which path is what, who may call it, how long and how large a request may be, and how a
//! refusal looks. One file per noun has the rest.

mod claims;
mod health;
mod keys;
mod problem;
mod settlements;

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    body::Bytes,
    extract::{
        DefaultBodyLimit, Request, State,
        rejection::{BytesRejection, FailedToBufferBody},
    },
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use self::problem::Problem;
use crate::{accounts::Accounts, claims::Claims, config::Config};

/// Everything a handler may use.
#[derive(Clone)]
pub(crate) struct App {
    claims: Claims,
    accounts: Option<Accounts>,
    token: Arc<[u8; 32]>,
    request_timeout: Duration,
}

/// All of it.
pub fn router(claims: Claims, accounts: Option<Accounts>, config: &Config) -> Router {
    let app = App {
        claims,
        accounts,
        token: Arc::new(digest(config.token.expose().as_bytes())),
        request_timeout: Duration::from_millis(config.http.request_timeout_ms),
    };
    let edge = claims::router()
        .merge(settlements::router())
        .merge(keys::router())
        .layer(DefaultBodyLimit::max(config.http.max_body_bytes))
        .layer(middleware::from_fn_with_state(app.clone(), authorized));
    edge.merge(health::router())
        .fallback(|| async { Problem::not_found() })
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .layer(middleware::from_fn_with_state(app.clone(), in_time))
        .with_state(app)
}

async fn in_time(State(app): State<App>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(app.request_timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::too_slow(app.request_timeout).into_response(),
    }
}

async fn authorized(State(app): State<App>, request: Request, next: Next) -> Response {
    match shows_token(request.headers(), &app.token) {
        true => next.run(request).await,
        false => Problem::unauthorized().into_response(),
    }
}

/// Digests are compared, not tokens: in constant time, and without telling the length.
fn shows_token(headers: &HeaderMap, token: &[u8; 32]) -> bool {
    let shown = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes());
    let Some((scheme, shown)) = shown.and_then(|value| value.split_at_checked(7)) else {
        return false;
    };
    scheme.eq_ignore_ascii_case(b"bearer ") && bool::from(digest(shown).ct_eq(token))
}

fn digest(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// The one place that reads the clock; from here on time is an argument.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The body as `T`, or why not.
fn read<T: serde::de::DeserializeOwned>(body: Result<Bytes, BytesRejection>) -> Result<T, Problem> {
    let body = body.map_err(|rejection| match rejection {
        BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)) => {
            Problem::body_too_large()
        }
        other => Problem::unreadable(&other.body_text()),
    })?;
    let unreadable = |error: serde_json::Error| Problem::unreadable(&error.to_string());
    // First of all: another version may look different in every other respect.
    let Versioned { v } = serde_json::from_slice(&body).map_err(unreadable)?;
    if v != u64::from(twilio_edge_contract::PROTOCOL_VERSION) {
        return Err(Problem::unknown_version(v));
    }
    serde_json::from_slice(&body).map_err(unreadable)
}

#[derive(serde::Deserialize)]
struct Versioned {
    v: u64,
}

/// The size every batch is checked for.
fn check_batch(size: usize) -> Result<(), Problem> {
    if size > twilio_edge_contract::MAX_BATCH {
        return Err(Problem::batch_too_large(size));
    }
    if size == 0 {
        return Err(Problem::unreadable("the batch is empty"));
    }
    Ok(())
}

/// A reply the filter takes: 200, JSON.
fn json(reply: &impl serde::Serialize) -> Response {
    match serde_json::to_vec(reply) {
        Ok(body) => {
            (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], body).into_response()
        }
        Err(error) => Problem::internal(&error.to_string()).into_response(),
    }
}
