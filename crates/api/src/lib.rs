//! HTTP API of the sidecar: paths, access control, limits of time and size, and the shape of refusals. Each resource has
//! a file of its own.
//!
//! Architecture invariant: reads requests and renders responses; decisions are made in the crates below.

mod access;
mod activity;
mod addresses;
mod api_keys;
mod app;
mod audit;
mod bad_token_limiter;
mod body;
mod checks;
mod consents;
mod csv;
mod dead_letters;
mod deliveries;
pub mod dropin;
mod email_events;
mod events;
mod exchange;
mod flows;
mod health;
mod idempotency;
mod keys;
mod media;
mod media_links;
mod messages;
mod notifications;
mod numbers;
mod openapi;
mod page;
mod problem;
mod query;
mod redactions;
mod refused_requests;
mod replays;
mod request_log;
mod sessions;
mod settings;
mod sinks;
mod statistics;
mod stream;
mod suppressions;
pub mod templates;
pub mod tenants;
mod verifications;
pub mod views;
mod windows;

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use twilio_edge_domain::refusal::RefusalCode;
use twilio_edge_platform::tasks::{Panicked, catch_panic};

pub use self::app::{App, Services};
use self::{app::Timeouts, problem::Problem};

/// Routes for filters, applications and orchestrators.
pub fn router(app: &App) -> Router {
    const ABOUT: &str = "API for filters, applications and orchestrators.";
    let limits = app.body_limits();
    let edge = exchange::router()
        .merge(keys::router())
        .merge(refused_requests::edge_router())
        .layer(DefaultBodyLimit::max(limits.edge))
        .layer(middleware::from_fn_with_state(app.clone(), access::admit_filter));
    let idempotent = || middleware::from_fn_with_state(app.clone(), idempotency::run_once);
    let changing = suppressions::router().merge(consents::router()).layer(idempotent());
    let sending = messages::create::router()
        .merge(messages::create_email::router())
        .layer(idempotent())
        .layer(middleware::from_fn_with_state(app.clone(), messages::outcome::waited));
    let verifications = verifications::starting_router()
        .layer(idempotent())
        .layer(middleware::from_fn_with_state(app.clone(), verifications::waited));
    let notifying = notifications::create::router()
        .layer(idempotent())
        .layer(middleware::from_fn_with_state(app.clone(), notifications::create::waited));
    let flows = flows::starting_router()
        .layer(idempotent())
        .layer(middleware::from_fn_with_state(app.clone(), flows::waited));
    let batches =
        messages::batch::router().layer(idempotent()).layer(DefaultBodyLimit::max(limits.import));
    let uploads = media::upload_router()
        .layer(idempotent())
        .layer(middleware::from_fn_with_state(app.clone(), media::limit_uploads))
        .layer(DefaultBodyLimit::max(limits.media));
    let application = api_keys::own_router()
        .merge(sessions::router())
        .merge(activity::router())
        .merge(messages::router())
        .merge(notifications::router())
        .merge(statistics::router())
        .merge(events::router())
        .merge(refused_requests::router())
        .merge(stream::router())
        .merge(windows::router())
        .merge(numbers::router())
        .merge(templates::router())
        .merge(media::router())
        .merge(uploads)
        .merge(changing)
        .merge(sending)
        .merge(notifying)
        .merge(verifications)
        .merge(verifications::router())
        .merge(flows)
        .merge(flows::router())
        .merge(batches)
        .merge(messages::outcome::router())
        .merge(checks::router())
        .layer(middleware::from_fn_with_state(app.clone(), access::admit_application));
    let twilios = OpenApiRouter::from(dropin::router(app));
    let router = edge
        .merge(application)
        .merge(health::router())
        .merge(twilios)
        .merge(email_events::router());
    finish(app, openapi::of("twilio-edge", ABOUT), router)
}

/// Routes for administrators.
pub fn admin_router(app: &App) -> Router {
    const ABOUT: &str = "API for administrators: API keys, accounts, templates, audit, redactions, sinks, dead letters, replays, settings in effect, and the import and export of suppressions and consents.";
    let idempotent = || middleware::from_fn_with_state(app.clone(), idempotency::run_once);
    let lists = suppressions::import_router()
        .merge(consents::import_router())
        .layer(idempotent())
        .layer(DefaultBodyLimit::max(app.body_limits().import));
    let changing = api_keys::router()
        .merge(redactions::router())
        .merge(dead_letters::deciding_router())
        .merge(replays::starting_router())
        .layer(idempotent());
    let admin = audit::router()
        .merge(tenants::router())
        .merge(templates::admin_router())
        .merge(dead_letters::router())
        .merge(deliveries::router())
        .merge(sinks::router())
        .merge(replays::router())
        .merge(settings::router())
        .merge(suppressions::admin_router())
        .merge(changing)
        .merge(lists)
        .layer(middleware::from_fn_with_state(app.clone(), access::admit_administrator));
    finish(app, openapi::of("twilio-edge administration", ABOUT), admin)
}

/// Routes for media links, which need no key.
pub fn media_router(app: &App) -> Router {
    media_links::router(app)
}

fn finish(app: &App, document: OpenApi, router: OpenApiRouter<App>) -> Router {
    let (router, document) = OpenApiRouter::with_openapi(document).merge(router).split_for_parts();
    let paths = openapi::paths(&document);
    router
        .merge(openapi::router(&document))
        .fallback(async move || Problem::not_found(&paths))
        .method_not_allowed_fallback(async || Problem::of(RefusalCode::MethodNotAllowed))
        .layer(DefaultBodyLimit::max(app.body_limits().api))
        .layer(middleware::from_fn_with_state(app.clone(), limit_time))
        .layer(middleware::from_fn(dropin::translate_refusals))
        .layer(middleware::from_fn_with_state(app.clone(), request_log::record))
        .with_state(app.clone())
}

/// Adds the limits of size and time and the request log of the API to routes of a crate above.
pub fn limited(app: &App, router: Router) -> Router {
    router
        .layer(DefaultBodyLimit::max(app.body_limits().api))
        .layer(middleware::from_fn_with_state(app.clone(), limit_time))
        .layer(middleware::from_fn_with_state(app.clone(), request_log::record))
}

async fn limit_time(State(timeouts): State<Timeouts>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(timeouts.request, catch_panic(next.run(request))).await {
        Ok(Ok(response)) => response,
        Ok(Err(Panicked)) => Problem::internal("the handler panicked").into_response(),
        Err(_) => Problem::timeout(timeouts.request).into_response(),
    }
}
