//! `twilio-edge serve`: the sidecar, from its settings to its last written event. Starts the parts and stops them in order;
//! their logic is elsewhere.

use std::{future::Future, process::ExitCode, sync::Arc, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::Instant,
};

use super::preflight;
use crate::cli::{failure::fail, sources::Sources};
use twilio_edge_api as http;
use twilio_edge_connectors::{sinks::Sinks, twilio::Twilio};
use twilio_edge_platform::{
    config::{Config, without_password},
    listener as doors,
    listener::{
        Door,
        admission::{Admission, Limits},
    },
    log::{self, Repeats},
    metrics::Metrics,
    traces::Telemetry,
};
use twilio_edge_services::{
    access::{permissions::Checks, tenants::Tenants, webhook_keys::Accounts},
    inbound::{
        claims::Claims,
        dead_letters,
        delivery_worker::{Couriers, Wakeup},
        redirects::Redirects,
        replays::{self, ReplaySources},
    },
    operations::{
        archive::{Archive, Archivist},
        retention::{Job, RetentionPolicies},
    },
    outbound::{
        dispatcher as senders,
        dispatcher::Dispatcher,
        media::{Media, library::Library},
        opt_out_from_error::Refusals,
        outcome_waiters::OutcomeWaiters,
        reconciler::Reconciler,
        routing_file::Routes,
        sending::{self, Sending},
        templates::{Templates, sync::Syncer},
    },
};
use twilio_edge_store::{StoreError, Stores, histories::Histories};

/// Pause before another attempt at a database that did not answer at start.
const AGAIN: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    sources: Sources,
}

pub(super) fn run(args: Args) -> ExitCode {
    let config = match args.sources.read().check_for_serving(preflight::problems) {
        Ok(config) => config,
        Err(problems) => return fail(problems),
    };
    let repeats = log::begin(&config.log);
    warn(&config);
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(error),
    };
    match runtime.block_on(serve(config, repeats)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => fail(problem),
    }
}

/// Logs settings that are valid but rarely intended.
fn warn(config: &Config) {
    if config.demo {
        tracing::warn!(
            event = "demo.enabled",
            "the sidecar started with demo = true and accepts published secrets; use it only to try twilio-edge"
        );
    }
    for problem in config.warnings() {
        tracing::warn!(event = "limits.disagree", reason = problem, "{problem}");
    }
}

async fn serve(config: Config, repeats: Repeats) -> Result<(), String> {
    let door = Door::open("listen", &config.listen).await?;
    let admin = match config.admin.address() {
        Some(address) => Some(Door::open("admin.listen", address).await?),
        None => None,
    };
    let links = match config.media.store.address() {
        Some(address) => Some(Door::open("media.store.listen", address).await?),
        None => None,
    };
    let lexicon = config.optout.lexicon().map_err(|problems| problems.join("; "))?;
    let metrics = Arc::new(Metrics::default());
    let connections = metrics.listeners.clone();
    let telling = tokio::spawn(repeats.tell(metrics.clone()));
    let accounts = match config.accounts.file.as_str() {
        "" => None,
        file => Some(
            Accounts::open(file, metrics.clone())
                .map_err(|problems| format!("accounts.file: {file}: {}", problems.join("; ")))?,
        ),
    };
    let stores = Stores::open(&config, metrics.clone()).await?;
    let histories = Histories::open(&config.database).await.map_err(|error| {
        format!("the database {} {error}", without_password(config.database.url.expose()))
    })?;
    let sinks = match config.sinks.file.as_str() {
        "" => Sinks::default(),
        file => Sinks::read(file)
            .map_err(|problems| format!("sinks.file: {file}: {}", problems.join("; ")))?,
    };
    let bell = Wakeup::default();
    let name = courier_name();
    let couriers = Couriers::start(&sinks, &stores.outbox(), &bell, &metrics, &name);
    let watch = tokio::spawn(dead_letters::watch(stores.outbox(), sinks.clone(), metrics.clone()));
    let archive = Archive::open(&config.archive)?;
    let shelves = ReplaySources {
        outbox: stores.outbox(),
        queue: stores.archive_queue(),
        archive: archive.clone(),
    };
    let replaying = tokio::spawn(replays::work(shelves.clone(), bell.clone()));
    let archiving = archive_webhooks(archive, &stores, &metrics, &config, &name).await?;
    let stop = stop_signal().map_err(|error| error.to_string())?;
    let telemetry = Telemetry::start(&config.telemetry, metrics.clone())?;
    let rulebook = RetentionPolicies::new(&config);
    let job = Job {
        sweeper: stores.sweeper(),
        rulebook: rulebook.clone(),
        metrics: metrics.clone(),
        every: Duration::from_secs(config.redaction.every_s),
        batch: config.redaction.batch,
        busy: config.events.batch,
    };
    let retention = tokio::spawn(job.run());
    let tenants = Tenants::new(stores.tenants(), stores.policies(), rulebook.clone(), &config);
    // Loaded before the first webhook, so that each account has its profile.
    let patience = Duration::from_millis(config.database.connect_timeout_ms);
    let deadline = Instant::now() + patience;
    read_first(|| tenants.refresh(), deadline)
        .await
        .map_err(|error| format!("what is said of accounts {error}"))?;
    let refresh = tokio::spawn(tenants.clone().keep_fresh());

    let twilio = Twilio::open(&config.sending)
        .map_err(|problems| format!("sending.file: {}", problems.join("; ")))?;
    let (named, usual) = twilio.rates();
    metrics.sends.name(named, usual);
    let errors = sending::errors(&config.sending.errors_file)
        .map_err(|problems| format!("sending.errors_file: {}", problems.join("; ")))?;
    let routes = Routes::open(&config.sending.routing_file)
        .map_err(|problems| format!("sending.routing_file: {}", problems.join("; ")))?;
    let routing = tokio::spawn(routes.clone().keep_fresh());
    let patience = Duration::from_millis(config.http.request_timeout_ms).mul_f64(0.8);
    let library = Library::open(&config.media.store, stores.media())
        .map_err(|problem| format!("media.store.{problem}"))?;
    let cleaning = library.clone().map(|library| {
        tokio::spawn(library.keep_clean(Duration::from_secs(config.redaction.every_s)))
    });
    let media = Media::open(&config.media, patience, &metrics)
        .map_err(|problem| format!("media.{problem}"))?
        .keeping(library);
    let templates = Templates::new(stores.templates());
    // Loaded before the first status, so that the fallback of a message is found.
    read_first(|| templates.refresh(), deadline)
        .await
        .map_err(|error| format!("the templates {error}"))?;
    let reading = tokio::spawn(templates.clone().keep_fresh());
    let sending = Sending {
        sends: stores.outbound_messages(),
        checks: Checks::new(stores.clone(), stores.policies(), metrics.clone()),
        twilio,
        bell: senders::Wakeup::default(),
        errors: Arc::new(errors),
        routes,
        templates: templates.clone(),
        answers: OutcomeWaiters::default(),
        media,
        metrics: metrics.clone(),
    };
    let claims = Claims {
        stores: stores.clone(),
        metrics,
        lexicon: Arc::new(lexicon),
        rulebook,
        sinks,
        bell,
        sending: sending.clone(),
        max_answer_bytes: config.leases.max_answer_bytes,
        redirects: Redirects::default(),
    };
    // Without credentials no message is sent, and messages that were begun stay unchanged.
    let senders = (!sending.twilio.is_off()).then(|| {
        let refusals = Refusals {
            stores: stores.clone(),
            lexicon: claims.lexicon.clone(),
            metrics: claims.metrics.clone(),
        };
        let (metrics, settings) = (&claims.metrics, &config.sending);
        (
            Dispatcher::start(&sending, stores.rate_limiter(), refusals, metrics, settings, &name),
            Reconciler::start(&sending, metrics, settings),
        )
    });
    let every = Duration::from_secs(config.sending.templates_every_s);
    let syncing = (!every.is_zero() && !sending.twilio.is_off()).then(|| {
        let twilio = sending.twilio.clone();
        Syncer { templates, twilio, every }.start(claims.metrics.clone())
    });
    let services = http::Services {
        claims,
        webhook_keys: accounts,
        histories: histories.clone(),
        tenants,
        telemetry: telemetry.clone(),
        sending,
        replay_sources: shelves,
    };
    let app = http::App::new(services, &config);
    let listen = door.to_string();
    let listeners = 1 + usize::from(admin.is_some()) + usize::from(links.is_some());
    let max = doors::capacity(config.connections.max, listeners);
    if max < config.connections.max {
        tracing::warn!(
            event = "connections.capped",
            max,
            wanted = config.connections.max,
            "the limit of open files permitted fewer connections than connections.max; raise the limit (LimitNOFILE, ulimit -n)"
        );
    }
    let limits = Limits {
        max,
        max_per_address: config.connections.max_per_address.min((max / 2).max(1)),
        ..config.connections.limits()
    };
    let admission = |name| Admission::new(limits, connections.listener(name));
    let mut serving = vec![(door, twilio_edge_api::router(&app), admission("main"))];
    if let Some(door) = admin {
        tracing::info!(event = "admin.listening", admin = %door, "the admin listener started on {door}");
        serving.push((door, twilio_edge_api::admin_router(&app), admission("admin")));
    }
    if let Some(door) = links {
        tracing::info!(event = "media.listening", links = %door, "the media listener started on {door}");
        serving.push((door, twilio_edge_api::media_router(&app), admission("media")));
    }
    drop(app);
    tracing::info!(
        event = "sidecar.listening",
        version = env!("CARGO_PKG_VERSION"),
        stores = stores.describe(),
        database = without_password(config.database.url.expose()),
        listen,
        "twilio-edge started listening on {listen}",
    );
    let limit = Duration::from_millis(config.http.shutdown_timeout_ms);
    let deadline = until_stopped(serving, stop, limit).await?;

    retention.abort();
    archiving.iter().for_each(JoinHandle::abort);
    watch.abort();
    replaying.abort();
    telling.abort();
    refresh.abort();
    routing.abort();
    reading.abort();
    syncing.inspect(tokio::task::JoinHandle::abort);
    cleaning.iter().for_each(|cleaning| cleaning.abort());
    // The routers are gone, and with them every claim and settlement.
    histories.close().await;
    let left = || deadline.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
    if let Some((senders, reconciler)) = senders {
        reconciler.finish().await;
        if !senders.finish(left()).await {
            tracing::error!(
                event = "sidecar.left_sends",
                "the shutdown deadline passed before Twilio answered; these messages become unknown"
            );
        }
    }
    if !couriers.finish(left()).await {
        tracing::warn!(
            event = "sidecar.left_deliveries",
            "the shutdown deadline passed before every delivery ended; the deliveries are retried"
        );
    }
    if !stores.close(left()).await {
        tracing::error!(
            event = "sidecar.left_events",
            "the shutdown deadline passed before every event was written; the spool contains them"
        );
    }
    telemetry.finish(Duration::from_millis(config.telemetry.timeout_ms)).await;
    tracing::info!(event = "sidecar.stopped", "the sidecar completed its shutdown");
    Ok(())
}

/// Starts the archive queue and its worker, if an archive is configured.
async fn archive_webhooks(
    archive: Option<Archive>,
    stores: &Stores,
    metrics: &Arc<Metrics>,
    config: &Config,
    name: &str,
) -> Result<Option<JoinHandle<()>>, String> {
    let queue = stores.archive_queue();
    let about = |reason: StoreError| format!("what waits for the archive: the database {reason}");
    let Some(archive) = archive else {
        if queue.since().await.map_err(about)?.is_some() {
            tracing::warn!(
                event = "archive.missing",
                "the sidecar found webhooks that are queued for an archive, but archive.url is not set; set it, or run `twilio-edge archive stop`"
            );
        }
        return Ok(None);
    };
    queue.begin(twilio_edge_platform::clock::now_ms()).await.map_err(about)?;
    let (settings, metrics) = (config.archive.clone(), metrics.clone());
    let archivist = Archivist { archive, queue, settings, metrics, name: name.to_owned() };
    Ok(Some(tokio::spawn(archivist.run())))
}

/// Retries a load until the deadline: the start may take longer than a claim, and a database can be slow at first.
async fn read_first<R: Future<Output = Result<(), StoreError>>>(
    refresh: impl Fn() -> R,
    deadline: Instant,
) -> Result<(), StoreError> {
    loop {
        match refresh().await {
            Err(StoreError::Away(_)) if Instant::now() < deadline => {}
            read => return read,
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Returns a name that no other process has had, so that the leases of this process are not taken for those of its
/// successor.
fn courier_name() -> String {
    let dice = getrandom::u64().unwrap_or_default();
    format!("{}-{dice:016x}", std::process::id())
}

/// Serves until the stop signal and then until running requests are answered, at most for `limit`. Returns the time at which
/// that limit ends.
async fn until_stopped(
    doors: Vec<(Door, axum::Router, Admission)>,
    stop: impl Future<Output = ()> + Send + 'static,
    limit: Duration,
) -> Result<Instant, String> {
    let (stopping, mut stopped) = watch::channel(None);
    let mut serving = JoinSet::new();
    for (door, router, admission) in doors {
        let mut told = stopped.clone();
        serving.spawn(door.serve(router, admission, async move {
            let _ = told.wait_for(Option::is_some).await;
        }));
    }
    tokio::spawn(async move {
        stop.await;
        tracing::info!(
            event = "sidecar.stopping",
            "the sidecar received a stop signal; it completes open requests and writes its events"
        );
        let _ = stopping.send(Some(Instant::now() + limit));
    });
    let served = async {
        while let Some(ended) = serving.join_next().await {
            ended.map_err(|error| error.to_string())?;
        }
        Ok::<(), String>(())
    };
    let too_late = async {
        let deadline = match stopped.wait_for(Option::is_some).await {
            Ok(deadline) => deadline.unwrap_or_else(Instant::now),
            Err(_) => return std::future::pending().await,
        };
        tokio::time::sleep_until(deadline).await;
        deadline
    };
    tokio::select! {
        served = served => served?,
        deadline = too_late => {
            tracing::warn!(event = "sidecar.cut_requests", "the shutdown deadline passed before every request was answered");
            return Ok(deadline);
        }
    }
    Ok(Instant::now() + limit)
}

/// Resolves at SIGTERM (orchestrators) or SIGINT (Ctrl-C).
fn stop_signal() -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
