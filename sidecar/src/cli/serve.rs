//! `twilio-edge serve`: the sidecar, from its settings to its last written event. Puts the parts together and takes them
//! apart in order; what they do is theirs.

use std::{future::Future, process::ExitCode, sync::Arc, time::Duration};

use axum::serve::ListenerExt;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::Instant,
};
use tracing_subscriber::{filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

use super::{Sources, fail};
use crate::{
    accounts::Accounts,
    claims::Claims,
    config::{Config, LogFormat, without_password},
    http,
    metrics::Metrics,
    store::Stores,
};

/// How often what need not be remembered is deleted.
const FORGET_EVERY: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    sources: Sources,
}

pub(super) fn run(args: Args) -> ExitCode {
    let config = match args.sources.read().check(true) {
        Ok(config) => config,
        Err(problems) => return fail(problems),
    };
    log_to_stderr(&config);
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(error),
    };
    match runtime.block_on(serve(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => fail(problem),
    }
}

async fn serve(config: Config) -> Result<(), String> {
    let listener = TcpListener::bind(&config.listen)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", config.listen))?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let metrics = Arc::new(Metrics::default());
    let accounts = match config.accounts.file.as_str() {
        "" => None,
        file => Some(
            Accounts::open(file, metrics.clone())
                .map_err(|problems| format!("accounts.file: {file}: {}", problems.join("; ")))?,
        ),
    };
    let stores = Stores::open(&config, metrics.clone()).await.map_err(|error| {
        format!("the database {} {error}", without_password(config.database.url.expose()))
    })?;
    let stop = stop_signal().map_err(|error| error.to_string())?;
    tokio::spawn(forget(stores.clone()));

    let claims = Claims {
        stores: stores.clone(),
        metrics,
        keywords: Arc::new(config.optout.clone()),
        max_answer_bytes: config.leases.max_answer_bytes,
    };
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        stores = stores.describe(),
        database = without_password(config.database.url.expose()),
        listen = %address,
        "twilio-edge is listening on http://{address}",
    );
    let limit = Duration::from_millis(config.http.shutdown_timeout_ms);
    let deadline =
        until_stopped(listener, http::router(claims, accounts, &config), stop, limit).await?;

    // The router is gone, and with it the last who claims or settles.
    let left = deadline.saturating_duration_since(Instant::now());
    if !stores.close(left.max(Duration::from_secs(1))).await {
        tracing::error!("stopped before every event was written");
    }
    tracing::info!("stopped");
    Ok(())
}

/// Serves until told to stop and then until requests under way are answered, but not beyond `limit`. The time at
/// which that limit ends.
async fn until_stopped(
    listener: TcpListener,
    router: axum::Router,
    stop: impl Future<Output = ()> + Send + 'static,
    limit: Duration,
) -> Result<Instant, String> {
    // Small replies must not wait for the next packet.
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    let (stopping, mut stopped) = watch::channel(None);
    let serving = axum::serve(listener, router).with_graceful_shutdown(async move {
        stop.await;
        tracing::info!("stopping: requests under way are finished, events are written");
        let _ = stopping.send(Some(Instant::now() + limit));
    });
    let too_late = async {
        let deadline = match stopped.wait_for(Option::is_some).await {
            Ok(deadline) => deadline.unwrap_or_else(Instant::now),
            Err(_) => return std::future::pending().await,
        };
        tokio::time::sleep_until(deadline).await;
        deadline
    };
    tokio::select! {
        served = serving => served.map_err(|error| error.to_string())?,
        deadline = too_late => {
            tracing::warn!("requests were still under way when the time to stop was over");
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

/// Deletes what both clocks have left behind, in small steps so that no claim waits long.
async fn forget(stores: Stores) {
    let mut tick = tokio::time::interval(FORGET_EVERY);
    loop {
        tick.tick().await;
        loop {
            match stores.forget(http::now_ms()).await {
                Ok(0) => break,
                Ok(count) => tracing::debug!(count, "forgot what need not be remembered"),
                Err(reason) => {
                    tracing::warn!(%reason, "old leases could not be deleted, next try in a minute");
                    break;
                }
            }
        }
    }
}

fn log_to_stderr(config: &Config) {
    let levels: Targets = config.log.level.parse().unwrap_or_default();
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(levels);
    match config.log.format {
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).init(),
        LogFormat::Text => {
            use std::io::IsTerminal;
            registry.with(layer.with_ansi(std::io::stderr().is_terminal())).init();
        }
    }
}
