//! Who may call: a bearer token is looked up, its scope held against what is asked for, and who asks too often waits.
//! What a handler may show is then up to the [`Caller`] it finds in the request.

use std::{net::SocketAddr, num::NonZeroU32};

use axum::{
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};

use super::{App, now_ms, problem::Problem};
use crate::{config, domain::api_key::Scope, keys::Caller};

/// How often each caller may ask. There are as many as there are keys: nobody is counted before being known.
pub(super) struct Limits(DefaultKeyedRateLimiter<String>);

impl Limits {
    pub(super) fn new(settings: &config::Api) -> Limits {
        let some = |count| NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(some(settings.requests_per_second));
        Limits(RateLimiter::keyed(quota.allow_burst(some(settings.burst))))
    }

    fn take(&self, caller: &Caller) -> Result<(), Problem> {
        let early = |until: governor::NotUntil<_>| {
            Problem::too_many(until.wait_time_from(DefaultClock::default().now()))
        };
        self.0.check_key(&caller.actor).map_err(early)
    }
}

/// Filters. Not limited: what they ask for is what Twilio sends, and each waits for its answer.
pub(super) async fn edge(State(app): State<App>, request: Request, next: Next) -> Response {
    admitted(&app, Scope::Edge, request, next).await
}

/// Applications.
pub(super) async fn application(State(app): State<App>, request: Request, next: Next) -> Response {
    admitted(&app, Scope::App, request, next).await
}

/// Administrators.
pub(super) async fn administration(
    State(app): State<App>,
    request: Request,
    next: Next,
) -> Response {
    admitted(&app, Scope::Admin, request, next).await
}

async fn admitted(app: &App, needed: Scope, mut request: Request, next: Next) -> Response {
    let from = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let source = from.map_or_else(|| "unknown".into(), |ConnectInfo(peer)| peer.ip().to_string());
    let shown = bearer(request.headers()).unwrap_or_default();
    let caller = match app.keys.caller(shown, needed, source, now_ms()).await {
        Ok(caller) => caller,
        Err(refusal) => return Problem::refused(refusal, needed).into_response(),
    };
    if needed != Scope::Edge
        && let Err(problem) = app.limits.take(&caller)
    {
        return problem.into_response();
    }
    request.extensions_mut().insert(caller);
    next.run(request).await
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let shown = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = shown.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
}
