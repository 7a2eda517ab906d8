//! The sidecar on the wire: which path is what, who may call it, how long and how large a request may be, and how a
//! refusal looks. One file per noun has the rest.

mod access;
mod api_keys;
mod audit;
mod checks;
mod claims;
mod consents;
mod csv;
mod dead_letters;
pub mod dropin;
mod events;
mod finding;
mod health;
mod idempotency;
mod keys;
pub mod kinds;
mod media;
mod media_links;
mod messages;
mod numbers;
mod observed;
mod openapi;
mod people;
mod problem;
mod redactions;
mod replays;
mod sends;
mod settlements;
mod strangers;
mod suppressions;
mod taken;
pub mod templates;
pub mod tenants;
pub mod views;
mod windows;

use std::{ops::Deref, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::{
        DefaultBodyLimit, Request, State,
        rejection::{BytesRejection, FailedToBufferBody},
    },
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};

use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use self::{access::Limits, problem::Problem};
use twilio_edge_platform::{config::Config, traces::Telemetry};
use twilio_edge_services::{
    access::{
        api_keys::Keys,
        permissions::{Checks, Permissions},
        tenants::Tenants,
        webhook_keys::Accounts,
    },
    inbound::{claims::Claims, replays::Shelves},
    outbound::sending::Sending,
};
use twilio_edge_store::{Idempotency, histories::Histories};

/// Everything a handler may use, behind one pointer: it is cloned several times for each request.
#[derive(Clone)]
pub struct App(Arc<Parts>);

/// See [`App`].
pub struct Parts {
    claims: Claims,
    accounts: Option<Accounts>,
    keys: Keys,
    histories: Histories,
    tenants: Tenants,
    telemetry: Telemetry,
    limits: Arc<Limits>,
    request_timeout: Duration,
    /// Of claims and settlements, and of everything else.
    max_body_bytes: (usize, usize),
    max_import_bytes: usize,
    max_media_bytes: usize,
    permissions: Permissions,
    checks: Checks,
    sending: Sending,
    shelves: Shelves,
    idempotency: Idempotency,
    /// How long anybody may wait for what Twilio says, and how long whoever speaks Twilio's words for what Twilio says.
    longest_wait: Duration,
    patience: Duration,
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl App {
    /// What both listeners share.
    #[expect(clippy::too_many_arguments, reason = "each is a part of its own")]
    pub fn new(
        claims: Claims,
        accounts: Option<Accounts>,
        histories: Histories,
        tenants: Tenants,
        telemetry: Telemetry,
        sending: Sending,
        shelves: Shelves,
        config: &Config,
    ) -> App {
        let keys = Keys::new(claims.stores.register(), config.token.expose());
        let metrics = claims.metrics.clone();
        let permissions =
            Permissions::new(claims.stores.consents(), claims.stores.policies(), Some(metrics));
        let request_timeout = Duration::from_millis(config.http.request_timeout_ms);
        // Longer than whoever has a request can still be about to change something.
        let hold = request_timeout + Duration::from_millis(config.database.timeout_ms) * 2;
        let keep = Duration::from_secs(config.api.idempotency_ttl_s);
        let idempotency = claims.stores.idempotency(hold, keep);
        let checks = sending.checks.clone();
        App(Arc::new(Parts {
            permissions,
            checks,
            sending,
            shelves,
            max_import_bytes: config.api.max_import_bytes,
            max_media_bytes: config.media.largest(),
            claims,
            accounts,
            keys,
            histories,
            tenants,
            telemetry,
            limits: Arc::new(Limits::new(&config.api)),
            request_timeout,
            idempotency,
            longest_wait: request_timeout.mul_f64(0.8),
            patience: Duration::from_millis(config.sending.answer_within_ms)
                .min(request_timeout.mul_f64(0.8)),
            max_body_bytes: (config.http.max_body_bytes, config.api.max_body_bytes),
        }))
    }

    /// What filters, applications and orchestrators call.
    pub fn router(&self) -> Router {
        const ABOUT: &str = "What filters, applications and orchestrators call.";
        let edge = claims::router()
            .merge(settlements::router())
            .merge(keys::router())
            .layer(DefaultBodyLimit::max(self.max_body_bytes.0))
            .layer(middleware::from_fn_with_state(self.clone(), access::edge));
        let once = || middleware::from_fn_with_state(self.clone(), idempotency::once);
        let changing = suppressions::router().merge(consents::router()).layer(once());
        let sending = sends::router()
            .layer(once())
            .layer(middleware::from_fn_with_state(self.clone(), taken::waited));
        let uploads = media::upload_router()
            .layer(once())
            .layer(middleware::from_fn_with_state(self.clone(), media::one_of_few))
            .layer(DefaultBodyLimit::max(self.max_media_bytes));
        let application = api_keys::own_router()
            .merge(messages::router())
            .merge(events::router())
            .merge(windows::router())
            .merge(numbers::router())
            .merge(templates::router())
            .merge(media::router())
            .merge(uploads)
            .merge(changing)
            .merge(sending)
            .merge(taken::router())
            .merge(checks::router())
            .layer(middleware::from_fn_with_state(self.clone(), access::application));
        let twilios = OpenApiRouter::from(dropin::router(self));
        let router = edge.merge(application).merge(health::router()).merge(twilios);
        self.finish(openapi::of("twilio-edge", ABOUT), router)
    }

    /// What administrators call.
    pub fn admin_router(&self) -> Router {
        const ABOUT: &str = "What administrators call: API keys, accounts, templates, the audit, redactions, dead letters, replays, lists of suppressions and consents.";
        let once = || middleware::from_fn_with_state(self.clone(), idempotency::once);
        let lists = suppressions::import_router()
            .merge(consents::import_router())
            .layer(once())
            .layer(DefaultBodyLimit::max(self.max_import_bytes));
        let changing = api_keys::router()
            .merge(redactions::router())
            .merge(dead_letters::deciding_router())
            .merge(replays::starting_router())
            .layer(once());
        let admin = audit::router()
            .merge(tenants::router())
            .merge(templates::admin_router())
            .merge(dead_letters::router())
            .merge(replays::router())
            .merge(suppressions::admin_router())
            .merge(changing)
            .merge(lists)
            .layer(middleware::from_fn_with_state(self.clone(), access::administration));
        self.finish(openapi::of("twilio-edge administration", ABOUT), admin)
    }

    /// What whoever has a link calls, from anywhere.
    pub fn media_router(&self) -> Router {
        media_links::router(self)
    }

    fn finish(&self, document: OpenApi, router: OpenApiRouter<App>) -> Router {
        let (router, document) =
            OpenApiRouter::with_openapi(document).merge(router).split_for_parts();
        let paths = openapi::paths(&document);
        router
            .merge(openapi::router(&document))
            .fallback(async move || Problem::not_found(&paths))
            .method_not_allowed_fallback(async || Problem::of(kinds::METHOD_NOT_ALLOWED))
            .layer(DefaultBodyLimit::max(self.max_body_bytes.1))
            .layer(middleware::from_fn_with_state(self.clone(), in_time))
            .layer(middleware::from_fn(dropin::spoken))
            .layer(middleware::from_fn_with_state(self.clone(), observed::observed))
            .with_state(self.clone())
    }
}

async fn in_time(State(app): State<App>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(app.request_timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::too_slow(app.request_timeout).into_response(),
    }
}

/// All of the body, or why not.
fn whole(body: Result<Bytes, BytesRejection>) -> Result<Bytes, Problem> {
    body.map_err(|rejection| match rejection {
        BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)) => {
            Problem::of(kinds::BODY_TOO_LARGE)
        }
        other => Problem::unreadable(&other.body_text()),
    })
}

/// What the body asks for, or why not. A list is nothing: it would be read as fields in the order they happen to have here.
fn object<T: serde::de::DeserializeOwned>(
    body: Result<Bytes, BytesRejection>,
) -> Result<T, Problem> {
    let body = whole(body)?;
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(Problem::unreadable("the body must be a JSON object, not a list"));
    }
    serde_json::from_slice(&body).map_err(|error| Problem::unreadable(&error.to_string()))
}

/// What a filter sent, as `T`, or why not; `version` is which one it says it speaks.
fn read<T: serde::de::DeserializeOwned>(
    body: Result<Bytes, BytesRejection>,
    version: impl Fn(&T) -> u32,
) -> Result<T, Problem> {
    let body = whole(body)?;
    let unreadable = |error: serde_json::Error| Problem::unreadable(&error.to_string());
    let said = match serde_json::from_slice::<T>(&body) {
        Ok(request) if version(&request) == twilio_edge_contract::PROTOCOL_VERSION => {
            return Ok(request);
        }
        Ok(request) => f64::from(version(&request)),
        // Another version may look different in every other respect: that comes before what is wrong with this one.
        Err(error) => match serde_json::from_slice(&body).map_err(unreadable)? {
            Versioned { v } if v == f64::from(twilio_edge_contract::PROTOCOL_VERSION) => {
                return Err(unreadable(error));
            }
            Versioned { v } => v,
        },
    };
    Err(Problem::unknown_version(said))
}

#[derive(serde::Deserialize)]
struct Versioned {
    v: f64,
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
