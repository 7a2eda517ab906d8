//! `twilio-edge serve`, the composition root of the sidecar. [`serve`] reads from top to bottom: listeners, stores,
//! services, background tasks, API, wait, shutdown. This file connects the parts; their logic is in the crates.

mod listeners;
mod services;
mod stop_signal;

#[cfg(test)]
mod tests;

use std::{process::ExitCode, sync::Arc, time::Duration};

use tokio::time::Instant;

use self::{listeners::Listeners, services::Services, stop_signal::stop_signal};
use super::{event_reporting::event_reporting, preflight};
use crate::cli::{failure::fail, globals::Globals};
use twilio_edge_api::App;
use twilio_edge_connectors::sinks;
use twilio_edge_platform::{
    clock::now_ms,
    config::{Config, without_password},
    log::{self, Repeats},
    metrics::Metrics,
    tasks::{Failure, Supervisor, Task},
    traces::Telemetry,
};
use twilio_edge_services::{
    access::suppression_expiry,
    inbound::{
        dead_letters, delivery_worker::DeliveryWorkers, live_feed::LiveFeed, media::MediaFetcher,
        replays,
    },
    operations::{archive::Archivist, retention::Job},
    outbound::{
        dispatcher::Dispatcher, opt_out_from_error::OptOutRecorder, reconciler::Reconciler,
        templates::sync::Syncer,
    },
};
use twilio_edge_store::{StoreError, Stores, message_history::MessageHistory};

pub(super) fn run(globals: &Globals) -> ExitCode {
    let config = match globals.settings().check_for_serving(preflight::problems) {
        Ok(config) => config,
        Err(problems) => return fail(problems),
    };
    let repeats = log::begin(&config.log, sinks::quiet_log_targets());
    let metrics = Arc::new(Metrics::default());
    log::report_panics(metrics.clone());
    log_warnings(&config);
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(error),
    };
    let tasks = Supervisor::new(metrics.clone());
    exit_code(runtime.block_on(serve(config, repeats, metrics, tasks)))
}

fn exit_code(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => fail(problem),
    }
}

/// Logs settings that are valid but rarely intended.
fn log_warnings(config: &Config) {
    if config.demo {
        tracing::warn!(
            event = "demo.enabled",
            "the sidecar started with demo = true and accepts published secrets; use it only to try twilio-edge"
        );
    }
    for problem in config.warnings() {
        tracing::warn!(event = "settings.contradictory", reason = problem, "{problem}");
    }
}

/// Runs the sidecar until a stop signal or the failure of a background task.
///
/// # Errors
///
/// The sidecar could not start, or a background task failed. The text is for the operator.
async fn serve(
    config: Config,
    repeats: Repeats,
    metrics: Arc<Metrics>,
    tasks: Supervisor,
) -> Result<(), String> {
    // Listeners. Another process at the same address ends the start here, before the stores are opened.
    let listeners = Listeners::open(&config).await?;
    tasks.spawn(Task::LogRepeats, repeats.report(metrics.clone()));
    tasks.spawn(Task::Activity, metrics.clone().record_activity());

    // Stores.
    let reporting = event_reporting(&config)?;
    let stores = Stores::open(&config, reporting, metrics.clone(), &tasks).await?;
    let histories = MessageHistory::open(&config.database).await.map_err(|error| {
        format!("the database {} {error}", without_password(config.database.url.expose()))
    })?;

    // From here on a stop signal leads to an orderly shutdown; before, it ends the process at once.
    let stop = stop_signal().map_err(|error| error.to_string())?;
    let telemetry = Telemetry::start(&config.telemetry, metrics.clone())?;

    // Services, and the tasks that work for them in the background.
    let services = Services::build(&config, &stores, &metrics).await?;
    let workers = start_background_tasks(&config, &stores, &services, &metrics, &tasks).await?;

    let live_feed = LiveFeed::new(histories.clone(), &config.live_streams(), metrics.clone());
    tasks.spawn(Task::LiveFeed, live_feed.clone().run());

    // API.
    let for_api = services.for_api(histories.clone(), telemetry.clone(), live_feed.clone());
    let app = App::new(for_api, &config);
    let listen = listeners.main_address();
    let serving = listeners.serve(&app, &config, &metrics, &tasks);
    drop(app);
    tracing::info!(
        event = "sidecar.listening",
        version = env!("CARGO_PKG_VERSION"),
        stores = stores.describe(),
        database = without_password(config.database.url.expose()),
        listen,
        "twilio-edge started listening on {listen}",
    );

    // Wait.
    tokio::select! {
        () = stop => tracing::info!(
            event = "sidecar.stopping",
            reason = "signal",
            "the sidecar received a stop signal; it completes open requests and writes its events"
        ),
        failure = tasks.failed() => tracing::info!(
            event = "sidecar.stopping",
            reason = %failure,
            "a background task failed; the sidecar completes open requests and writes its events"
        ),
    }

    // Shutdown: first the sources of work, then the workers, then the stores that both write to. Live streams would never end.
    let deadline = Instant::now() + Duration::from_millis(config.http.shutdown_timeout_ms);
    live_feed.stop();
    if !serving.finish(deadline).await {
        tracing::warn!(
            event = "shutdown.requests_aborted",
            "the shutdown deadline passed before every request was answered"
        );
    }
    tasks.stop();
    histories.close().await;
    workers.finish(deadline).await;
    if !stores.close(remaining(deadline)).await {
        tracing::error!(
            event = "shutdown.events_spooled",
            "the shutdown deadline passed before every event was written; the spool contains them"
        );
    }
    telemetry.finish(Duration::from_millis(config.telemetry.timeout_ms)).await;
    tracing::info!(event = "sidecar.stopped", "the sidecar completed its shutdown");
    tasks.failure().map_or(Ok(()), |failure: Failure| Err(failure.to_string()))
}

/// Background tasks that finish their work at shutdown.
struct Workers {
    /// Workers of the sinks file, and of status callbacks.
    delivery_workers: [DeliveryWorkers; 2],
    /// `None` if no account has credentials.
    senders: Option<(Dispatcher, Reconciler)>,
}

impl Workers {
    async fn finish(self, deadline: Instant) {
        if let Some((dispatcher, reconciler)) = self.senders {
            reconciler.finish().await;
            if !dispatcher.finish(remaining(deadline)).await {
                tracing::error!(
                    event = "shutdown.messages_aborted",
                    "the shutdown deadline passed before Twilio answered; these messages become unknown"
                );
            }
        }
        for delivery_workers in self.delivery_workers {
            if !delivery_workers.finish(remaining(deadline)).await {
                tracing::warn!(
                    event = "shutdown.deliveries_aborted",
                    "the shutdown deadline passed before every delivery ended; the deliveries are retried"
                );
            }
        }
    }
}

/// Returns the time until the deadline, but at least one second, so that a step after slow requests is not skipped.
fn remaining(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_secs(1))
}

/// Starts the background tasks of the services. The stores have started their own.
async fn start_background_tasks(
    config: &Config,
    stores: &Stores,
    services: &Services,
    metrics: &Arc<Metrics>,
    tasks: &Supervisor,
) -> Result<Workers, String> {
    let name = process_name();
    let cleanup_interval = Duration::from_secs(config.redaction.every_s);

    // Webhooks: deliveries, dead letters, replays, archive.
    let claims = &services.claims;
    let (outbox, sinks) = (stores.outbox(), &claims.sinks);
    let links = claims.media_links.as_ref();
    let all = [sinks, &services.status_callbacks];
    let delivery_workers = all.map(|sinks| {
        DeliveryWorkers::start(sinks, &outbox, &claims.wakeup, links, metrics, &name, tasks)
    });
    let names: Vec<String> =
        all.iter().flat_map(|sinks| sinks.iter()).map(|sink| sink.name().to_owned()).collect();
    if !names.is_empty() {
        let measuring = dead_letters::update_metric(outbox, names, metrics.clone());
        tasks.spawn(Task::DeadLetterAge, measuring);
    }
    let replay_sources = services.replay_sources.clone();
    tasks.spawn(Task::Replays, replays::run_all(replay_sources, claims.wakeup.clone()));
    start_archivist(config, services, metrics, &name, tasks).await?;

    // Stored data: retention, profiles of accounts, media, templates.
    let retention = Job {
        sweeper: stores.sweeper(),
        retention_policies: claims.retention_policies.clone(),
        metrics: metrics.clone(),
        interval: cleanup_interval,
        batch: config.redaction.batch,
        max_waiting_events: config.events.batch,
    };
    tasks.spawn(Task::Retention, retention.run());
    let expiry = suppression_expiry::run(stores.suppressions(), metrics.clone());
    tasks.spawn(Task::SuppressionExpiry, expiry);
    tasks.spawn(Task::RefusedRequests, services.refused_requests.clone().run());
    tasks.spawn(Task::TenantsRefresh, services.tenants.clone().run());
    let sending = &services.sending;
    if let Some(library) = sending.media.library() {
        tasks.spawn(Task::MediaCleanup, library.clone().run_cleanup(cleanup_interval));
        let fetcher = MediaFetcher::new(
            library.clone(),
            sending.twilio.clone(),
            stores.policies(),
            claims.retention_policies.clone(),
            &config.media,
            metrics.clone(),
            &name,
        );
        let fetcher = fetcher.map_err(|problem| format!("media.{problem}"))?;
        tasks.spawn(Task::InboundMedia, fetcher.run());
    }
    tasks.spawn(Task::TemplatesRefresh, sending.templates.clone().run());

    // Messages. Without credentials none is sent, and those that were begun stay unchanged.
    if sending.routes.has_file() {
        tasks.spawn(Task::RoutingFile, sending.routes.clone().run());
    }
    if sending.twilio.is_off() {
        return Ok(Workers { delivery_workers, senders: None });
    }
    let opt_outs = OptOutRecorder {
        stores: stores.clone(),
        lexicon: claims.lexicon.clone(),
        metrics: metrics.clone(),
    };
    let (settings, rate_limiter) = (&config.sending, stores.rate_limiter());
    let dispatcher =
        Dispatcher::start(sending, rate_limiter, opt_outs, metrics, settings, &name, tasks);
    let reconciler = Reconciler::start(sending, metrics, settings, tasks);
    let interval = Duration::from_secs(settings.templates_every_s);
    if !interval.is_zero() {
        let (templates, twilio) = (sending.templates.clone(), sending.twilio.clone());
        let syncer = Syncer { templates, twilio, interval };
        tasks.spawn(Task::TemplatesSync, syncer.run(metrics.clone()));
    }
    Ok(Workers { delivery_workers, senders: Some((dispatcher, reconciler)) })
}

/// Starts the archive queue and its worker, if an archive is configured.
async fn start_archivist(
    config: &Config,
    services: &Services,
    metrics: &Arc<Metrics>,
    name: &str,
    tasks: &Supervisor,
) -> Result<(), String> {
    let queue = services.replay_sources.queue.clone();
    let problem = |reason: StoreError| format!("the archive queue: the database {reason}");
    let Some(archive) = services.replay_sources.archive.clone() else {
        if queue.since().await.map_err(problem)?.is_some() {
            tracing::warn!(
                event = "archive.not_configured",
                "the sidecar found webhooks that are queued for an archive, but archive.url is not set; set it, or run `twilio-edge archive stop`"
            );
        }
        return Ok(());
    };
    queue.begin(now_ms()).await.map_err(problem)?;
    let (settings, metrics) = (config.archive.clone(), metrics.clone());
    let archivist = Archivist { archive, queue, settings, metrics, name: name.to_owned() };
    tasks.spawn(Task::Archivist, archivist.run());
    Ok(())
}

/// Returns a name that no other process has had, so that the leases of this process are not taken for those of its
/// successor.
fn process_name() -> String {
    let random = getrandom::u64().unwrap_or_default();
    format!("{}-{random:016x}", std::process::id())
}
