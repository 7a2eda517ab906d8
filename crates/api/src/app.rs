//! State of the routers. A handler extracts the parts that it needs, for instance `State<MessageHistory>`; its signature names
//! its dependencies.

use std::{sync::Arc, time::Duration};

use axum::extract::FromRef;

use twilio_edge_connectors::sinks::Sinks;
use twilio_edge_platform::{
    config::{Config, Setting},
    metrics::Metrics,
    traces::Telemetry,
};
use twilio_edge_services::{
    access::{
        api_keys::Keys,
        permissions::{Checks, Permissions},
        tenants::Tenants,
        webhook_keys::WebhookKeys,
    },
    inbound::{
        claims::Claims, live_feed::LiveFeed, refused_requests::RefusedRequests,
        replays::ReplaySources,
    },
    outbound::{
        email_events::EmailEvents, media::library::Library, sending::Sending, templates::Templates,
    },
    wakeup::Wakeup,
};
use twilio_edge_store::{Idempotency, Outbox, Stores, Sweeper, message_history::MessageHistory};

use super::access::Access;

/// State of the routers: one pointer, because axum clones the state several times per request.
#[derive(Clone)]
pub struct App(Arc<Parts>);

/// Services that the handlers use.
pub struct Services {
    /// Claims and settlements of filters.
    pub claims: Claims,
    /// Account keys for filters; `None` without an accounts file.
    pub webhook_keys: Option<WebhookKeys>,
    /// Queries of the ledger.
    pub histories: MessageHistory,
    /// Account profiles.
    pub tenants: Tenants,
    /// Exporter of spans.
    pub telemetry: Telemetry,
    /// Outbound messages.
    pub sending: Sending,
    /// Sources of replays.
    pub replay_sources: ReplaySources,
    /// Requests that filters refused.
    pub refused_requests: RefusedRequests,
    /// Recorded webhooks, for live streams.
    pub live_feed: LiveFeed,
}

/// Timeouts of requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    /// Time limit of a request.
    pub(crate) request: Duration,
    /// Upper bound of `wait_ms`.
    pub(crate) wait: Duration,
    /// Time that a drop-in request waits for Twilio before it gets our own answer.
    pub(crate) drop_in_wait: Duration,
}

/// Longest lifetime of a session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SessionLifetime(pub(crate) Duration);

/// Settings in effect, without secrets, and the warnings about them.
#[derive(Debug)]
pub(crate) struct EffectiveSettings {
    pub(crate) settings: Vec<Setting>,
    pub(crate) warnings: Vec<String>,
}

/// Largest request bodies, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyLimits {
    /// Claims and settlements.
    pub(crate) edge: usize,
    /// Requests of applications and administrators.
    pub(crate) api: usize,
    /// CSV imports.
    pub(crate) import: usize,
    /// Uploads of media.
    pub(crate) media: usize,
}

/// Declares the parts of [`App`], and lets handlers extract each of them as `State`. Each part is cheap to clone.
macro_rules! parts {
    ($($name:ident: $part:ty,)*) => {
        struct Parts {
            $($name: $part,)*
        }

        $(impl FromRef<App> for $part {
            fn from_ref(app: &App) -> $part {
                app.0.$name.clone()
            }
        })*
    };
}

parts! {
    access: Arc<Access>,
    body_limits: BodyLimits,
    checks: Arc<Checks>,
    claims: Arc<Claims>,
    delivery_wakeup: Wakeup,
    effective_settings: Arc<EffectiveSettings>,
    email_events: Arc<EmailEvents>,
    histories: MessageHistory,
    idempotency: Idempotency,
    keys: Keys,
    library: Option<Library>,
    live_feed: LiveFeed,
    metrics: Arc<Metrics>,
    outbox: Outbox,
    permissions: Arc<Permissions>,
    refused_requests: RefusedRequests,
    replay_sources: ReplaySources,
    sending: Arc<Sending>,
    session_lifetime: SessionLifetime,
    sinks: Sinks,
    stores: Stores,
    sweeper: Sweeper,
    telemetry: Telemetry,
    templates: Templates,
    tenants: Tenants,
    timeouts: Timeouts,
    webhook_keys: Option<WebhookKeys>,
}

impl App {
    /// Builds the state that the listeners share.
    pub fn new(services: Services, config: &Config) -> App {
        let Services {
            claims,
            webhook_keys,
            histories,
            tenants,
            telemetry,
            sending,
            replay_sources,
            refused_requests,
            live_feed,
        } = services;
        let (stores, metrics) = (claims.stores.clone(), claims.metrics.clone());
        let keys = Keys::new(stores.api_keys(), config.token.expose());
        let permissions =
            Permissions::new(stores.consents(), stores.policies(), Some(metrics.clone()));
        let request = Duration::from_millis(config.http.request_timeout_ms);
        // Longer than a request can still change something: its timeout, and two database timeouts.
        let hold = request + Duration::from_millis(config.database.timeout_ms) * 2;
        let keep = Duration::from_secs(config.api.idempotency_ttl_s);
        let wait = request.mul_f64(0.8);
        App(Arc::new(Parts {
            access: Arc::new(Access::new(
                keys.clone(),
                tenants.clone(),
                metrics.clone(),
                &config.api,
            )),
            body_limits: BodyLimits {
                edge: config.http.max_body_bytes,
                api: config.api.max_body_bytes,
                import: config.api.max_import_bytes,
                media: config.media.largest(),
            },
            checks: Arc::new(sending.checks.clone()),
            delivery_wakeup: claims.wakeup.clone(),
            effective_settings: Arc::new(EffectiveSettings {
                settings: config.effective.clone(),
                warnings: config.warnings(),
            }),
            email_events: Arc::new(EmailEvents::new(
                sending.clone(),
                stores.clone(),
                metrics.clone(),
            )),
            histories,
            idempotency: stores.idempotency(hold, keep),
            keys,
            library: sending.media.library().cloned(),
            live_feed,
            metrics,
            outbox: stores.outbox(),
            permissions: Arc::new(permissions),
            refused_requests,
            replay_sources,
            session_lifetime: SessionLifetime(Duration::from_secs(config.console.session_s)),
            sinks: claims.sinks.clone(),
            sweeper: stores.sweeper(),
            stores,
            telemetry,
            templates: sending.templates.clone(),
            tenants,
            timeouts: Timeouts {
                request,
                wait,
                drop_in_wait: Duration::from_millis(config.sending.answer_within_ms).min(wait),
            },
            webhook_keys,
            claims: Arc::new(claims),
            sending: Arc::new(sending),
        }))
    }

    /// Returns the largest request bodies, which the routers enforce.
    pub(crate) fn body_limits(&self) -> BodyLimits {
        self.0.body_limits
    }
}
