//! Access control of the HTTP API: looks up the bearer token, compares its scope with the scope that the path needs, and
//! limits the request rate. Handlers decide, by the [`Caller`] in the request, which data they may show.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    sync::Arc,
    time::Instant,
};

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

use super::problem::Problem;
use crate::bad_token_limiter::BadTokenLimiter;
use twilio_edge_domain::api_key::Scope;
use twilio_edge_domain::refusal::RefusalCode;
use twilio_edge_platform::clock::now_ms;
use twilio_edge_platform::{
    config,
    listener::admission::{CallerKind, Connection},
    metrics::{Denial, Limit, Metrics},
};
use twilio_edge_services::access::{
    api_keys::{AccessError, Caller, Keys},
    tenants::Tenants,
};

/// Name of the caller, left in the response for the request log.
#[derive(Debug, Clone)]
pub(super) struct Actor(pub(super) String);

/// Parts of the access control.
pub(crate) struct Access {
    keys: Keys,
    tenants: Tenants,
    metrics: Arc<Metrics>,
    limits: RateLimits,
}

impl Access {
    pub(crate) fn new(
        keys: Keys,
        tenants: Tenants,
        metrics: Arc<Metrics>,
        settings: &config::Api,
    ) -> Access {
        Access { keys, tenants, metrics, limits: RateLimits::new(settings) }
    }
}

/// Rate limits of the API.
struct RateLimits {
    /// One token bucket per key. Only known keys are counted, so the number of entries is bounded.
    callers: DefaultKeyedRateLimiter<String>,
    bad_tokens: BadTokenLimiter,
}

impl RateLimits {
    fn new(settings: &config::Api) -> RateLimits {
        let some = |count| NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(some(settings.requests_per_second));
        RateLimits {
            callers: RateLimiter::keyed(quota.allow_burst(some(settings.burst))),
            bad_tokens: BadTokenLimiter::new(settings.bad_tokens_per_minute),
        }
    }

    fn take(&self, caller: &Caller) -> Result<(), Problem> {
        let early = |until: governor::NotUntil<_>| {
            Problem::rate_limited(until.wait_time_from(DefaultClock::default().now()))
        };
        self.callers.check_key(&caller.actor).map_err(early)
    }
}

/// Admits filters (scope edge). They are not rate-limited: their load follows from the webhooks that Twilio sends, and
/// each webhook waits for its answer.
pub(super) async fn admit_filter(
    State(access): State<Arc<Access>>,
    request: Request,
    next: Next,
) -> Response {
    admit(&access, Scope::Edge, request, next).await
}

/// Admits applications (scope app).
pub(super) async fn admit_application(
    State(access): State<Arc<Access>>,
    request: Request,
    next: Next,
) -> Response {
    admit(&access, Scope::App, request, next).await
}

/// Admits administrators (scope admin).
pub(super) async fn admit_administrator(
    State(access): State<Arc<Access>>,
    request: Request,
    next: Next,
) -> Response {
    admit(&access, Scope::Admin, request, next).await
}

async fn admit(access: &Access, needed: Scope, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let address = peer.map(|ConnectInfo(peer)| peer.ip());
    let token = bearer(request.headers()).unwrap_or_default();
    let caller = match authenticate(access, needed, token, address).await {
        Ok(caller) => caller,
        Err(problem) => return problem.into_response(),
    };
    if let Some(connection) = request.extensions().get::<Connection>() {
        connection.prove(match caller.scope {
            Scope::Edge => CallerKind::Filter,
            Scope::App | Scope::Admin => CallerKind::Known,
        });
    }
    let account_sid = caller.account_sid.as_deref();
    if needed == Scope::App && account_sid.is_some_and(|sid| access.tenants.is_closed(sid)) {
        access.metrics.denied(Denial::Closed);
        return Problem::of(RefusalCode::AccountClosed).into_response();
    }
    if needed != Scope::Edge
        && let Err(problem) = access.limits.take(&caller)
    {
        access.metrics.limited(Limit::Key);
        return problem.into_response();
    }
    let actor = Actor(caller.actor.clone());
    request.extensions_mut().insert(caller);
    let mut response = next.run(request).await;
    response.extensions_mut().insert(actor);
    response
}

impl Access {
    /// Returns whether a caller that was admitted as an application may still read: its token is valid, and its account is open. An
    /// unavailable database ends no right.
    pub(super) async fn still_admits(&self, token: &[u8], source: &str) -> bool {
        match self.keys.caller(token, Scope::App, source.to_owned(), now_ms()).await {
            Ok(caller) => {
                !caller.account_sid.as_deref().is_some_and(|sid| self.tenants.is_closed(sid))
            }
            Err(AccessError::Store(_)) => true,
            Err(_) => false,
        }
    }
}

/// Returns the caller of a bearer token, if the token is known and permits `needed`.
async fn authenticate(
    access: &Access,
    needed: Scope,
    token: &[u8],
    address: Option<IpAddr>,
) -> Result<Caller, Problem> {
    let bad_tokens = &access.limits.bad_tokens;
    // Bad tokens from an address never lock out a good key behind the same address: a limited address is refused without
    // a lookup only if its token cannot be a good one.
    let wait = address.and_then(|address| bad_tokens.wait(address, Instant::now()));
    let limited = |wait| {
        access.metrics.limited(Limit::Address);
        Err(Problem::too_many_bad_tokens(wait))
    };
    if let Some(wait) = wait {
        match access.keys.may_be_valid(token).await {
            Ok(true) => {}
            Ok(false) => return limited(wait),
            Err(refusal) => return Err(Problem::refused(refusal, needed)),
        }
    }
    let source = address.map_or_else(|| "unknown".into(), |address| address.to_string());
    let caller = access.keys.caller(token, needed, source, now_ms()).await;
    if let (Err(AccessError::Unknown), Some(address)) = (&caller, address) {
        bad_tokens.note(address, Instant::now());
        if let Some(wait) = wait {
            return limited(wait);
        }
    }
    match &caller {
        Err(AccessError::Unknown) => access.metrics.denied(Denial::Unknown),
        Err(AccessError::Scope { .. } | AccessError::BootstrapOver) => {
            access.metrics.denied(Denial::Scope);
        }
        _ => {}
    }
    caller.map_err(|refusal| Problem::refused(refusal, needed))
}

/// Returns the bearer token of a request.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let token = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = token.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
}
