//! State shared by all handlers.

use std::{ops::Deref, sync::Arc, time::Duration};

use twilio_edge_platform::{config::Config, traces::Telemetry};
use twilio_edge_services::{
    access::{
        api_keys::Keys,
        permissions::{Checks, Permissions},
        tenants::Tenants,
        webhook_keys::Accounts,
    },
    inbound::{claims::Claims, replays::ReplaySources},
    outbound::sending::Sending,
};
use twilio_edge_store::{Idempotency, histories::Histories};

use super::access::Limits;

/// Everything a handler may use, behind one pointer, because axum clones the state several times per request.
#[derive(Clone)]
pub struct App(Arc<Parts>);

/// Fields of [`App`].
pub struct Parts {
    pub(crate) claims: Claims,
    pub(crate) accounts: Option<Accounts>,
    pub(crate) keys: Keys,
    pub(crate) histories: Histories,
    pub(crate) tenants: Tenants,
    pub(crate) telemetry: Telemetry,
    pub(crate) limits: Arc<Limits>,
    pub(crate) request_timeout: Duration,
    /// Largest request body in bytes: of claims and settlements, and of all other requests.
    pub(crate) max_body_bytes: (usize, usize),
    pub(crate) max_import_bytes: usize,
    pub(crate) max_media_bytes: usize,
    pub(crate) permissions: Permissions,
    pub(crate) checks: Checks,
    pub(crate) sending: Sending,
    pub(crate) shelves: ReplaySources,
    pub(crate) idempotency: Idempotency,
    /// `longest_wait`: upper bound of `wait_ms`. `patience`: how long a drop-in request waits for Twilio before it gets
    /// our own answer.
    pub(crate) longest_wait: Duration,
    pub(crate) patience: Duration,
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl App {
    /// Builds the state that the listeners share.
    #[expect(clippy::too_many_arguments, reason = "each is a part of its own")]
    pub fn new(
        claims: Claims,
        accounts: Option<Accounts>,
        histories: Histories,
        tenants: Tenants,
        telemetry: Telemetry,
        sending: Sending,
        shelves: ReplaySources,
        config: &Config,
    ) -> App {
        let keys = Keys::new(claims.stores.register(), config.token.expose());
        let metrics = claims.metrics.clone();
        let permissions =
            Permissions::new(claims.stores.consents(), claims.stores.policies(), Some(metrics));
        let request_timeout = Duration::from_millis(config.http.request_timeout_ms);
        // Longer than a request can still change something: its timeout, and two database timeouts.
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
}
