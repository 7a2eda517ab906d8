//! `twilio-edge replay`: webhooks of the ledger once more to one sink, where the database is reached. It puts them on their way;
//! a sidecar delivers them. One that is interrupted is carried on by any sidecar, or by `--resume`.

use std::{
    io::{IsTerminal, Write as _, stderr},
    process::ExitCode,
    time::{Duration, Instant},
};

use twilio_edge_contract::Class;

use super::{Sources, credentials::variable, fail, ledger::account, listing};
use crate::{
    config::{Config, without_password},
    domain::period::instant,
    http::now_ms,
    keys::{Caller, Refusal},
    replays::{self, Asked, STEP},
    sinks::Sinks,
    store::{Outbox, Replay, StoreError},
};

/// Columns of the bar.
const BAR: usize = 30;

/// How often progress is told where it stays on the screen.
const LINE: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("what").required(true).multiple(true).args(["message_sid", "since", "until", "resume"])))]
pub(super) struct Args {
    /// Everything that was heard of this message
    #[arg(long, value_name = "SID", requires = "tenant")]
    message_sid: Option<String>,
    /// Received then or later: a day (UTC) or a time as in 2026-11-23T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = instant)]
    since: Option<i64>,
    /// Received before; else until now
    #[arg(long, value_name = "TIME", value_parser = instant)]
    until: Option<i64>,
    /// Only of this class
    #[arg(long, value_parser = class)]
    class: Option<Class>,
    /// Only of this account
    #[arg(long, env = "TWILIO_ACCOUNT_SID", value_name = "SID", value_parser = account)]
    tenant: Option<String>,
    /// To whom: the name of a sink
    #[arg(long = "to", value_name = "SINK", required_unless_present = "resume")]
    sink: Option<String>,
    /// Only count
    #[arg(long)]
    dry_run: bool,
    /// Carry on the replay of this id, which was interrupted
    #[arg(long, value_name = "ID", conflicts_with_all = ["message_sid", "since", "until", "class", "sink", "dry_run"])]
    resume: Option<String>,
    /// Webhooks of one transaction
    #[arg(long, default_value_t = STEP, value_parser = clap::value_parser!(u32).range(1..=5000))]
    step: u32,
    #[command(flatten)]
    sources: Sources,
}

fn class(text: &str) -> Result<Class, String> {
    match text {
        "inbound" => Ok(Class::Inbound),
        "status" => Ok(Class::Status),
        _ => Err("no class: inbound or status".to_owned()),
    }
}

pub(super) fn run(args: Args) -> ExitCode {
    let config = match args.sources.read().check(false) {
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
        Ok(said) => listing::write(&said),
        Err(problem) => fail(problem),
    }
}

/// Whether the sidecars of this configuration know the sink: what nobody delivers would wait for ever.
fn is_there(config: &Config, sink: &str) -> Result<(), String> {
    let file = config.sinks.file.as_str();
    if file.is_empty() {
        return Err("there are no sinks: set sinks.file (TWILIO_EDGE_SINKS_FILE)".to_owned());
    }
    let sinks = Sinks::read(file)
        .map_err(|problems| format!("sinks.file: {file}: {}", problems.join("; ")))?;
    match sinks.get(sink) {
        Some(_) => Ok(()),
        None => Err(format!("sinks.file: {file} has no sink {sink}")),
    }
}

async fn replay(config: &Config, args: Args) -> Result<String, String> {
    let database = without_password(config.database.url.expose());
    let away = |reason: &dyn std::fmt::Display| format!("the database {database} {reason}");
    let outbox = Outbox::open(&config.database).await.map_err(|reason| away(&reason))?;
    let said = carried_out(&outbox, args).await;
    outbox.close().await;
    said.map_err(|refusal| match refusal {
        Refusal::Store(reason) => away(&reason),
        Refusal::Invalid(problem) => problem,
        other => format!("refused: {other:?}"),
    })
}

async fn carried_out(outbox: &Outbox, args: Args) -> Result<String, Refusal> {
    let user = variable("USER").unwrap_or_else(|| "unknown".into());
    let by = Caller::command_line(&user);
    let replay = match &args.resume {
        Some(id) => {
            let found = outbox.replay(id, args.tenant.as_deref()).await?;
            found.ok_or_else(|| Refusal::Invalid(format!("there is no replay {id}")))?
        }
        None => {
            let asked = Asked {
                sink: args.sink.unwrap_or_default(),
                account_sid: args.tenant,
                message_sid: args.message_sid,
                class: args.class,
                since_ms: args.since,
                until_ms: args.until,
            };
            replays::read(&by, asked, now_ms())?
        }
    };
    if args.dry_run {
        let counted = replays::count(outbox, replay, i64::MAX).await?;
        return Ok(format!("{} would be delivered to {}\n", counts(&counted), counted.sink));
    }
    if args.resume.is_none() {
        replays::begin(outbox, &by, &replay).await?;
    }
    let done = told(outbox, replay, args.step).await?;
    Ok(format!("replay {}: {} on their way to {}\n", done.id, counts(&done), done.sink))
}

fn counts(replay: &Replay) -> String {
    let Replay { found, queued, left_out, .. } = replay;
    format!("{found} webhooks found, {left_out} left out that are not whole any more, {queued}")
}

/// Carries it on to its end, and tells how far it is: as a bar on a terminal, else as lines.
async fn told(outbox: &Outbox, mut replay: Replay, step: u32) -> Result<Replay, StoreError> {
    let mut out = stderr();
    let is_terminal = out.is_terminal();
    let id = replay.id.clone();
    let mut first_ms = None;
    let mut last_told: Option<Instant> = None;
    while !replay.is_done() {
        replay = outbox.carry_on(&replay, step.into(), now_ms()).await?;
        if is_terminal {
            let part = part(*first_ms.get_or_insert(replay.through_ms()), &replay);
            let _ = write!(out, "\r[{}] {} webhooks", bar(part), replay.found);
            let _ = out.flush();
        } else if last_told.is_none_or(|told| told.elapsed() >= LINE) {
            let _ = writeln!(out, "replay {id}: {} webhooks found so far", replay.found);
            last_told = Some(Instant::now());
        }
    }
    if is_terminal {
        let _ = writeln!(out, "\r[{}] {} webhooks", bar(1.0), replay.found);
    }
    Ok(replay)
}

/// Which part of its time it has looked through, 0 to 1.
fn part(first_ms: i64, replay: &Replay) -> f64 {
    let whole = replay.until_ms.saturating_sub(first_ms).max(1) as f64;
    (replay.through_ms().saturating_sub(first_ms) as f64 / whole).clamp(0.0, 1.0)
}

fn bar(part: f64) -> String {
    let full = (part * BAR as f64) as usize;
    format!("{}{}", "#".repeat(full.min(BAR)), "-".repeat(BAR.saturating_sub(full)))
}
