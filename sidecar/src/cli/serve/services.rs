//! Services of the sidecar, built from the settings, the files that they name, and the stores.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use twilio_edge_connectors::{
    email::{EmailAccounts, SendGrid, Smtp},
    send_client::SendClients,
    sinks::Sinks,
    twilio::{Studio, Twilio, Verify},
};
use twilio_edge_domain::sending::provider::Provider;
use twilio_edge_platform::{config::Config, metrics::Metrics, traces::Telemetry};
use twilio_edge_services::{
    access::{permissions::Checks, tenants::Tenants, webhook_keys::WebhookKeys},
    inbound::{
        claims::Claims, live_feed::LiveFeed, redirects::Redirects,
        refused_requests::RefusedRequests, replays::ReplaySources,
    },
    operations::{archive::Archive, retention::RetentionPolicies},
    outbound::{
        deliveries::DeliveryTimes,
        media::{Media, library::Library},
        outcome_waiters::OutcomeWaiters,
        routing_file::Routes,
        sending::{self, Sending},
        status_queue::StatusQueue,
        templates::Templates,
        verification_starts::Verifications,
    },
    wakeup::Wakeup,
};
use twilio_edge_store::{StoreError, Stores, message_history::MessageHistory};

/// Share of `http.request_timeout_ms` that a request may wait for a remote service.
const REMOTE_SHARE: f64 = 0.8;

/// Pause before another attempt at a database that did not answer at start.
const LOAD_PAUSE: Duration = Duration::from_millis(100);

/// Services that the API and the background tasks use.
pub(super) struct Services {
    pub(super) accounts: Option<WebhookKeys>,
    /// Built-in sink of status callbacks; none without an accounts file.
    pub(super) status_callbacks: Sinks,
    pub(super) claims: Claims,
    pub(super) refused_requests: RefusedRequests,
    pub(super) replay_sources: ReplaySources,
    pub(super) sending: Sending,
    pub(super) tenants: Tenants,
}

impl Services {
    /// Reads the operator's files, and loads the profiles and templates that the first request needs.
    ///
    /// # Errors
    ///
    /// A file is invalid, or the database did not answer within `database.connect_timeout_ms`. The text names the setting.
    pub(super) async fn build(
        config: &Config,
        stores: &Stores,
        metrics: &Arc<Metrics>,
    ) -> Result<Services, String> {
        let lexicon = config.optout.lexicon().map_err(|problems| problems.join("; "))?;
        let accounts = open_accounts(&config.accounts.file, metrics)?;
        let sinks = read_sinks(&config.sinks.file)?;
        let status_callbacks = status_callbacks(config, accounts.as_ref())?;
        let retention_policies = RetentionPolicies::new(config);
        let (policies, rules) = (stores.policies(), retention_policies.clone());
        let tenants = Tenants::new(stores.tenants(), policies, rules, config);
        let templates = Templates::new(stores.templates());
        load(config, &tenants, &templates).await?;
        let sending = sending(config, stores, templates, metrics)?;
        let replay_sources = ReplaySources {
            outbox: stores.outbox(),
            queue: stores.archive_queue(),
            archive: Archive::open(&config.archive)?,
        };
        let claims = Claims {
            stores: stores.clone(),
            metrics: metrics.clone(),
            lexicon: Arc::new(lexicon),
            retention_policies,
            sinks,
            wakeup: Wakeup::default(),
            sending: sending.clone(),
            max_answer_bytes: config.leases.max_answer_bytes,
            redirects: Redirects::default(),
            media_links: sending.media.library().and_then(|library| library.links().cloned()),
        };
        let refused_requests = RefusedRequests::new(
            config.retention.refused_requests,
            accounts.clone(),
            stores.refused_requests(),
            metrics.clone(),
        );
        Ok(Services {
            accounts,
            status_callbacks,
            claims,
            refused_requests,
            replay_sources,
            sending,
            tenants,
        })
    }

    /// Returns the services that handlers use, with the histories, the traces and the live feed.
    pub(super) fn for_api(
        self,
        histories: MessageHistory,
        telemetry: Telemetry,
        live_feed: LiveFeed,
    ) -> twilio_edge_api::Services {
        let Services {
            accounts, claims, refused_requests, replay_sources, sending, tenants, ..
        } = self;
        twilio_edge_api::Services {
            claims,
            webhook_keys: accounts,
            histories,
            tenants,
            telemetry,
            sending,
            replay_sources,
            refused_requests,
            live_feed,
        }
    }
}

fn open_accounts(file: &str, metrics: &Arc<Metrics>) -> Result<Option<WebhookKeys>, String> {
    if file.is_empty() {
        return Ok(None);
    }
    let accounts = WebhookKeys::open(file, metrics.clone());
    accounts.map(Some).map_err(|problems| format!("accounts.file: {file}: {}", problems.join("; ")))
}

fn read_sinks(file: &str) -> Result<Sinks, String> {
    if file.is_empty() {
        return Ok(Sinks::default());
    }
    Sinks::read(file).map_err(|problems| format!("sinks.file: {file}: {}", problems.join("; ")))
}

/// Opens the sink of status callbacks. Its URLs are those of callers, like the URLs of media.
fn status_callbacks(config: &Config, accounts: Option<&WebhookKeys>) -> Result<Sinks, String> {
    let Some(accounts) = accounts else { return Ok(Sinks::default()) };
    let places = config.media.places().map_err(|problem| format!("media.{problem}"))?;
    Sinks::of_status_callbacks(&places, Arc::new(accounts.clone()))
        .map_err(|problem| format!("status callbacks: {problem}"))
}

/// Loads the profile of each account before the first webhook, and the templates before the first status, which may need
/// the fallback of a message.
async fn load(config: &Config, tenants: &Tenants, templates: &Templates) -> Result<(), String> {
    let deadline = Instant::now() + Duration::from_millis(config.database.connect_timeout_ms);
    retry_until(deadline, || tenants.refresh())
        .await
        .map_err(|error| format!("the profiles of accounts: the database {error}"))?;
    retry_until(deadline, || templates.refresh())
        .await
        .map_err(|error| format!("the templates: the database {error}"))
}

/// Retries a read while the database is unavailable: the start may take longer than a claim.
async fn retry_until<R: Future<Output = Result<(), StoreError>>>(
    deadline: Instant,
    read: impl Fn() -> R,
) -> Result<(), StoreError> {
    loop {
        match read().await {
            Err(StoreError::Unavailable(_)) if Instant::now() < deadline => {}
            result => return result,
        }
        tokio::time::sleep(LOAD_PAUSE).await;
    }
}

/// Builds the service of outbound messages.
fn sending(
    config: &Config,
    stores: &Stores,
    templates: Templates,
    metrics: &Arc<Metrics>,
) -> Result<Sending, String> {
    let settings = &config.sending;
    let of_file = |setting: &'static str| {
        move |problems: Vec<String>| format!("{setting}: {}", problems.join("; "))
    };
    let twilio = Twilio::open(settings).map_err(of_file("sending.file"))?;
    let verify = Verify::new(twilio.clone(), &config.verify);
    let studio = Studio::new(twilio.clone(), &config.studio);
    let (named, usual) = twilio.rates();
    metrics.messages.name(named, usual);
    let errors = sending::errors(&settings.errors_file).map_err(of_file("sending.errors_file"))?;
    let routes = Routes::open(&settings.routing_file).map_err(of_file("sending.routing_file"))?;
    let library = Library::open(&config.media.store, stores.media(), stores.inbound_media())
        .map_err(|problem| format!("media.store.{problem}"))?;
    let probe_limit = Duration::from_millis(config.http.request_timeout_ms).mul_f64(REMOTE_SHARE);
    let media = Media::open(&config.media, probe_limit, metrics)
        .map_err(|problem| format!("media.{problem}"))?
        .with_library(library);
    let emails = EmailAccounts::open(&config.email).map_err(of_file("email.file"))?;
    Ok(Sending {
        messages: stores.outbound_messages(),
        checks: Checks::new(stores.clone(), stores.policies(), metrics.clone()),
        clients: clients(config, &twilio, &emails)?
            .with(Provider::Verify, verify.clone())
            .with(Provider::Studio, studio.clone()),
        studio,
        emails,
        verifications: Verifications::new(verify, stores.verification_starts(), &config.verify),
        twilio,
        wakeup: Wakeup::default(),
        errors: Arc::new(errors),
        routes,
        templates,
        outcome_waiters: OutcomeWaiters::default(),
        media,
        metrics: metrics.clone(),
        status_queue: StatusQueue::default(),
        delivery_times: DeliveryTimes::of(settings),
    })
}

/// Returns the clients of the providers that the settings name.
fn clients(
    config: &Config,
    twilio: &Twilio,
    emails: &EmailAccounts,
) -> Result<SendClients, String> {
    let timeout = Duration::from_millis(config.sending.timeout_ms);
    let mut clients = SendClients::default().with(Provider::Messaging, twilio.clone());
    if emails.uses(Provider::SendGrid) {
        let client = SendGrid::new(emails.clone(), &config.email, timeout);
        let client = client.map_err(|problem| format!("email: {problem}"))?;
        clients = clients.with(Provider::SendGrid, client);
    }
    if emails.uses(Provider::Smtp) {
        clients = clients.with(Provider::Smtp, Smtp::new(emails.clone(), timeout));
    }
    Ok(clients)
}
