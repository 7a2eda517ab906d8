//! `twilio-edge replay`: delivers webhooks of the ledger or the archive again to one sink. It writes the deliveries to the
//! database; a sidecar sends them. An interrupted replay is continued by any sidecar, or by `--resume`.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};
use twilio_edge_platform::terminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use twilio_edge_contract::Class;

use super::{credentials::variable, ledger, listing, sinks};
use crate::cli::{failure::fail, globals::Globals};
use twilio_edge_domain::period::instant;
use twilio_edge_platform::clock::now_ms;
use twilio_edge_platform::config::{Config, without_password};
use twilio_edge_services::{
    access::api_keys::{AccessError, Caller},
    inbound::replays::{self, Origin, ReplayError, ReplayRequest, ReplaySources, STEP},
    operations::archive::Archive,
};
use twilio_edge_store::{ArchiveQueue, Outbox, Replay, StoreError};

/// Length of the progress bar.
const WHOLE: u64 = 1000;

/// Interval between two checks while another process does the step.
const LOOK: Duration = Duration::from_millis(500);

/// Interval of progress lines on an output that is not a terminal.
const LINE: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("what").required(true).multiple(true).args(["message_sid", "since", "until", "resume"])))]
pub(super) struct Args {
    /// Only webhooks of this message
    #[arg(long, value_name = "SID", requires = "account")]
    message_sid: Option<String>,
    /// Earliest time of receipt: a day (UTC) or a time as in 2026-11-23T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = instant)]
    since: Option<i64>,
    /// End of the time of receipt, exclusive; default: now
    #[arg(long, value_name = "TIME", value_parser = instant)]
    until: Option<i64>,
    /// Only this class
    #[arg(long, value_parser = class)]
    class: Option<Class>,
    /// Only this account
    #[arg(long, env = "TWILIO_ACCOUNT_SID", value_name = "SID", value_parser = ledger::account)]
    account: Option<String>,
    /// Name of the sink
    #[arg(long = "to", value_name = "SINK", required_unless_present = "resume")]
    sink: Option<String>,
    /// Source: the ledger, the archive for webhooks that the ledger has deleted, or operational events
    #[arg(long, value_name = "WHERE", value_parser = origin, default_value = "ledger")]
    from: Origin,
    /// Only count
    #[arg(long)]
    dry_run: bool,
    /// Continue the interrupted replay with this id
    #[arg(long, value_name = "ID", conflicts_with_all = ["message_sid", "since", "until", "class", "sink", "from", "dry_run"])]
    resume: Option<String>,
    /// Webhooks per transaction
    #[arg(long, default_value_t = STEP, value_parser = clap::value_parser!(u32).range(1..=5000))]
    step: u32,
}

fn class(text: &str) -> Result<Class, String> {
    let class = text.parse().ok().filter(|class| *class != Class::Other);
    class.ok_or_else(|| "must be inbound or status".to_owned())
}

fn origin(text: &str) -> Result<Origin, String> {
    match text {
        "ledger" => Ok(Origin::Ledger),
        "archive" => Ok(Origin::Archive),
        "events" => Ok(Origin::Events),
        _ => Err("must be ledger, archive or events".to_owned()),
    }
}

pub(super) fn run(args: Args, globals: &Globals) -> ExitCode {
    let config = match globals.settings().check() {
        Ok(config) => config,
        Err(problems) => return fail(problems),
    };
    if let Err(problem) = args.sink.as_deref().map_or(Ok(()), |sink| is_there(&config, sink)) {
        return fail(problem);
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(error),
    };
    match runtime.block_on(replay(&config, args)) {
        Ok(text) => listing::write(&text),
        Err(problem) => fail(problem),
    }
}

/// Checks that the configuration has the sink: deliveries to an unknown sink would wait for ever.
fn is_there(config: &Config, sink: &str) -> Result<(), String> {
    let sinks = sinks::read(config)?;
    match sinks.get(sink) {
        Some(_) => Ok(()),
        None => Err(format!("sinks.file: {} has no sink {sink}", config.sinks.file)),
    }
}

async fn replay(config: &Config, args: Args) -> Result<String, String> {
    let database = without_password(config.database.url.expose());
    let failure = |reason: &dyn std::fmt::Display| format!("the database {database} {reason}");
    let archive = Archive::open(&config.archive)?;
    let outbox = Outbox::open(&config.database).await.map_err(|reason| failure(&reason))?;
    let queue = ArchiveQueue::open(&config.database).await.map_err(|reason| failure(&reason))?;
    let replay_sources = ReplaySources { outbox, queue, archive };
    let done = carried_out(&replay_sources, args).await;
    replay_sources.queue.close().await;
    replay_sources.outbox.close().await;
    done.map_err(|refused| match refused {
        Refused::ReplayRequest(AccessError::Invalid(problem)) => problem,
        Refused::ReplayRequest(AccessError::Store(reason)) => failure(&reason),
        Refused::ReplayRequest(other) => format!("refused: {other:?}"),
        Refused::ReplayError(ReplayError::Store(reason)) => failure(&reason),
        Refused::ReplayError(stopped) => stopped.to_string(),
    })
}

/// Reason why a replay does not start or continue.
enum Refused {
    ReplayRequest(AccessError),
    ReplayError(ReplayError),
}

impl From<AccessError> for Refused {
    fn from(refusal: AccessError) -> Refused {
        Refused::ReplayRequest(refusal)
    }
}

impl From<StoreError> for Refused {
    fn from(reason: StoreError) -> Refused {
        Refused::ReplayError(ReplayError::Store(reason))
    }
}

impl From<ReplayError> for Refused {
    fn from(stopped: ReplayError) -> Refused {
        Refused::ReplayError(stopped)
    }
}

async fn carried_out(replay_sources: &ReplaySources, args: Args) -> Result<String, Refused> {
    let user = variable("USER").unwrap_or_else(|| "unknown".into());
    let by = Caller::command_line(&user);
    let outbox = &replay_sources.outbox;
    let replay = match &args.resume {
        Some(id) => {
            let found = outbox.replay(id, args.account.as_deref()).await?;
            found.ok_or_else(|| AccessError::Invalid(format!("there is no replay {id}")))?
        }
        None => {
            let request = ReplayRequest {
                sink: args.sink.unwrap_or_default(),
                account_sid: args.account,
                message_sid: args.message_sid,
                class: args.class,
                since_ms: args.since,
                until_ms: args.until,
                from: args.from,
            };
            replays::validate(&by, request, now_ms())?
        }
    };
    if args.dry_run {
        let counted = replay_sources.count(replay, i64::MAX).await?;
        return Ok(format!("{} would be delivered to {}\n", counts(&counted), counted.sink));
    }
    if args.resume.is_none() {
        // The archive is listed before the replay is recorded as begun.
        if replay.is_of_archive() {
            replay_sources.resume(&replay).await?;
        }
        replays::begin(outbox, &by, &replay).await?;
    }
    let done = carried_on(replay_sources, replay, args.step).await?;
    Ok(format!("replay {}: {} on their way to {}\n", done.id, counts(&done), done.sink))
}

fn counts(replay: &Replay) -> String {
    let Replay { found, queued, left_out, .. } = replay;
    format!("{found} webhooks found, {left_out} skipped that are no longer complete, {queued}")
}

/// Continues the replay to its end and prints its progress: as a bar on a terminal, else as lines.
async fn carried_on(
    replay_sources: &ReplaySources,
    mut replay: Replay,
    step: u32,
) -> Result<Replay, Refused> {
    let bar = ProgressBar::with_draw_target(Some(WHOLE), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("[{bar:30}] {msg} {elapsed}") {
        bar.set_style(style.progress_chars("#>-"));
    }
    let id = replay.id.clone();
    let mut first_ms = None;
    let mut last_line: Option<Instant> = None;
    while !replay.is_done() {
        let mut run = replay_sources.resume(&replay).await?;
        while !replay.is_done() && !run.is_overtaken() {
            replay = run.advance_replay(&replay, step).await?;
            let part = match run.objects() {
                Some((done, all)) => done as f64 / all.max(1) as f64,
                None => part(*first_ms.get_or_insert(replay.through_ms()), &replay),
            };
            bar.set_position((part * WHOLE as f64) as u64);
            bar.set_message(format!("{} webhooks", replay.found));
            if bar.is_hidden() && last_line.is_none_or(|at| at.elapsed() >= LINE) {
                terminal::print_error(&format!(
                    "replay {id}: {} webhooks found so far",
                    replay.found
                ));
                last_line = Some(Instant::now());
            }
        }
        if !replay.is_done() {
            // A sidecar may continue the replay at the same time.
            tokio::time::sleep(LOOK).await;
            let moved = replay_sources.outbox.replay(&id, None).await?;
            replay =
                moved.ok_or_else(|| AccessError::Invalid(format!("there is no replay {id}")))?;
        }
    }
    bar.set_position(WHOLE);
    bar.finish();
    Ok(replay)
}

/// Returns the share of the period that the replay has processed, 0 to 1.
fn part(first_ms: i64, replay: &Replay) -> f64 {
    let whole = replay.until_ms.saturating_sub(first_ms).max(1) as f64;
    (replay.through_ms().saturating_sub(first_ms) as f64 / whole).clamp(0.0, 1.0)
}
