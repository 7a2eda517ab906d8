//! Benchmark of the cost of the filter and the sidecar: the same load on the same machine, in turns, with and without them.
//! docs/PERFORMANCE.md explains how to read the results. All traffic is on 127.0.0.1 and bounded.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it prints what it measures, nothing from outside"
)]

mod accept;
mod backend;
mod chain;
mod claims;
mod goals;
mod http1;
mod load;
mod process;
mod report;
mod rows;
mod target;
mod webhook;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};

use crate::backend::Backend;
use crate::load::{Outcome, Pace, send};
use crate::process::{Awake, Cores, Usage, private_folder, until_idle};
use crate::report::{Cost, Measurement, Phase, Series, tables};
use crate::target::{Parts, Plan, Target};
use crate::webhook::{Sequence, Webhook};

/// Webhooks created for each second of saturation; no target here handles as many.
const MOST_PER_SECOND: u64 = 40_000;
/// Time that each target runs before it is measured: V8 compiles hot code meanwhile.
const WARM_UP: Duration = Duration::from_secs(1);

/// Time in milliseconds after which the repeats of the third load follow. A commit is usually written to the database later.
const CLOSE_REPEAT_MS: u64 = 300;

/// Measures the cost of the filter and the sidecar, as ratios to Envoy without them.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    part: Option<Part>,
    /// Number of turns of each target.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=50))]
    rounds: u32,
    /// Seconds of each of the three loads of a turn.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Requests per second of the open loop.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=5000))]
    rate: u32,
    /// Letters of the targets to measure, such as `b,d`; (a) is always measured. Default: all.
    #[arg(long, value_delimiter = ',', value_parser = letter)]
    targets: Vec<char>,
    /// Path of Envoy.
    #[arg(long, env = "TWILIO_EDGE_ENVOY")]
    envoy: Option<PathBuf>,
    /// Path of the compiled filter.
    #[arg(long, env = "TWILIO_EDGE_WASM")]
    wasm: Option<PathBuf>,
    /// Path of the native module.
    #[arg(long, env = "TWILIO_EDGE_NATIVE_MODULE")]
    native: Option<PathBuf>,
    /// Path of the sidecar; default is the one built beside this program, like the service of (e).
    #[arg(long, env = "TWILIO_EDGE_BIN", global = true)]
    sidecar: Option<PathBuf>,
}

/// Benchmarks of a single aspect.
#[derive(Subcommand)]
enum Part {
    /// Time until Twilio is answered in accept delivery, while the application is unavailable
    Accept(accept::Options),
    /// Cost of a claim for the sidecar: batches over HTTP, without Envoy
    Claims(claims::Options),
    /// Size of the stored data: bytes of each table, index and key for a webhook
    Rows(rows::Options),
}

// One thread, on one core: the other core belongs to the measured processes.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let options = Options::parse();
    let parts = parts(&options)?;
    match &options.part {
        Some(Part::Accept(options)) => return accept::measure(options, &parts, nanos()).await,
        Some(Part::Claims(options)) => return claims::measure(options, &parts, nanos()).await,
        Some(Part::Rows(options)) => return rows::measure(options, &parts, nanos()).await,
        None => {}
    }
    let cores = Cores::divide()?;
    let logs = private_folder()?;
    let backend = Backend::start().await?;
    let mut turns =
        Turns { options: &options, cores, logs: logs.path(), backend: &backend, last: nanos() };
    let (mut targets, mut notes) = (Vec::new(), Vec::new());
    let chosen = |plan: &Plan| {
        let is_named = options.targets.iter().any(|letter| plan.letter().contains(*letter));
        options.targets.is_empty() || *plan == Plan::Passthrough || is_named
    };
    for plan in Plan::ALL.into_iter().filter(chosen) {
        if let Some(part) = plan.lacks() {
            notes.push(format!("{} was left out: there is no {part} here", plan.title()));
            continue;
        }
        eprintln!("starting {}", plan.title());
        let target = Target::start(plan, &parts, cores, &backend).await?;
        turns.saturate(&target, WARM_UP).await?;
        targets.push((target, Series { plan, rounds: Vec::new() }));
    }
    for round in 1..=options.rounds {
        for (target, series) in &mut targets {
            let measured = turns.measure(target).await?;
            eprintln!(
                "round {round} of {}: {:<38} {:>6.0} requests/s",
                options.rounds,
                target.plan.title(),
                measured.saturated.rate
            );
            series.rounds.push(measured);
        }
    }
    let series: Vec<Series> = targets.into_iter().map(|(_, series)| series).collect();
    let folder = std::env::temp_dir();
    let kind = process::file_system(&folder).unwrap_or_else(|| "unknown".to_owned());
    notes.push(format!("databases were in {} (file system: {kind})", folder.display()));
    if !cores.are_two() {
        notes.push(
            "load and target shared the only core: rates and latencies say little".to_owned(),
        );
    }
    if process::find("chrt", &[]).is_none() {
        notes.push("no chrt (util-linux): latencies include waking a halted core".to_owned());
    }
    let wasm_bytes = std::fs::metadata(&parts.wasm)?.len();
    println!("\n{}\n{}", tables(&series, options.rate), goals::table(&series, wasm_bytes));
    notes.iter().for_each(|note| println!("note: {note}"));
    let rounds = series.iter().flat_map(|s| s.rounds.iter().map(move |r| (s.plan, r)));
    let phases = rounds.flat_map(|(plan, round)| {
        [
            ("saturated", Some(&round.saturated)),
            ("open loop", Some(&round.scheduled)),
            ("close repeats", round.close_repeats.as_ref()),
        ]
        .map(|(load, phase)| Some((plan, load, phase?.problem()?)))
    });
    let off: Vec<String> = phases
        .flatten()
        .map(|(plan, load, problem)| format!("{}, {load}: {problem}", plan.title()))
        .collect();
    ensure!(
        off.is_empty(),
        "requests did not end as they had to, so this measured something else:\n{}",
        off.join("\n")
    );
    Ok(())
}

/// Reads the letter of a target.
fn letter(text: &str) -> Result<char, String> {
    let letter = text.parse().ok();
    let known = |letter: &char| Plan::ALL.iter().any(|plan| plan.letter().contains(*letter));
    letter
        .filter(|letter: &char| letter.is_ascii_lowercase() && known(letter))
        .ok_or_else(|| "the targets are the letters a to g, n and s".to_owned())
}

fn parts(options: &Options) -> Result<Parts> {
    let repository = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let or = |given: &Option<PathBuf>, usual: PathBuf| given.clone().unwrap_or(usual);
    let this = std::env::current_exe()?;
    let parts = Parts {
        envoy: or(&options.envoy, repository.join(".venv/bin/envoy")),
        wasm: or(&options.wasm, repository.join("target/wasm/twilio_edge_filter.wasm")),
        native: or(&options.native, repository.join("target/native/libtwilio_edge_native.so")),
        sidecar: or(&options.sidecar, this.with_file_name("twilio-edge")),
        ext_authz: this.with_file_name("twilio-edge-bench-ext-authz"),
        config: repository.join("envoy/envoy.yaml"),
    };
    let needed: &[&PathBuf] = match options.part {
        None => &[&parts.envoy, &parts.wasm, &parts.native, &parts.ext_authz, &parts.sidecar],
        Some(Part::Accept(_)) => &[&parts.envoy, &parts.wasm, &parts.sidecar],
        Some(Part::Claims(_) | Part::Rows(_)) => &[&parts.sidecar],
    };
    for part in needed {
        ensure!(part.exists(), "there is no {}: run `make bench`", part.display());
    }
    Ok(parts)
}

/// Runs the targets in turns.
struct Turns<'a> {
    options: &'a Options,
    cores: Cores,
    logs: &'a Path,
    backend: &'a Backend,
    /// Name of the last sequence of webhooks; every phase has its own.
    last: u64,
}

impl Turns<'_> {
    async fn measure(&mut self, target: &Target) -> Result<Measurement> {
        let period = Duration::from_secs(self.options.seconds.into());
        let saturated = match target.plan.is_slow() {
            true => Phase::default(),
            false => self.saturate(target, period).await?,
        };
        let awake = Awake::start(self.cores, self.logs);
        let rate = u64::from(self.options.rate);
        let count = rate * u64::from(self.options.seconds);
        let pace = Pace::Every(Duration::from_secs(1) / self.options.rate);
        let webhooks = self.next()?.first(count)?;
        let scheduled = self.run(target, webhooks, pace).await?;
        let distance = rate * CLOSE_REPEAT_MS / 1000;
        let repeats = self.next()?.with_close_repeats(count, distance)?;
        let close_repeats = match target.plan.remembers() {
            true => Some(self.run(target, repeats, pace).await?),
            false => None,
        };
        drop(awake);
        let usage = target.usage()?;
        let bytes =
            |parts: &[(&str, Usage)]| parts.iter().map(|(_, used)| used.resident_bytes).sum();
        let (envoy, helpers) = usage.split_at_checked(1).context("no Envoy")?;
        Ok(Measurement {
            saturated,
            scheduled,
            close_repeats,
            envoy_bytes: bytes(envoy),
            helper_bytes: bytes(helpers),
        })
    }

    async fn saturate(&mut self, target: &Target, period: Duration) -> Result<Phase> {
        let count = MOST_PER_SECOND * period.as_secs();
        let webhooks = self.next()?.first(count)?;
        self.run(target, webhooks, Pace::Saturating(period)).await
    }

    /// Returns a sequence whose webhooks were not sent before.
    fn next(&mut self) -> Result<Sequence> {
        self.last += 1;
        Sequence::new(self.last)
    }

    async fn run(&self, target: &Target, webhooks: Vec<Webhook>, pace: Pace) -> Result<Phase> {
        let delivered = self.backend.delivered();
        let started = Instant::now();
        let (core, before) = (self.cores.measured_busy()?, target.usage()?);
        let outcome = send(target.address, webhooks, pace, target.plan.verifies()).await?;
        let after = settled(target).await?;
        let core = self.cores.measured_busy()?.saturating_sub(core);
        let delivered = self.backend.delivered() - delivered;
        let mut phase = phase(target.plan, &before, &after, delivered, outcome);
        let ours = cpu(&after).saturating_sub(cpu(&before));
        phase.others = core.saturating_sub(ours).as_secs_f64() / started.elapsed().as_secs_f64();
        Ok(phase)
    }
}

/// Returns the usage after all activity has ended.
async fn settled(target: &Target) -> Result<Vec<(&'static str, Usage)>> {
    until_idle(|| target.usage().map(|usage| cpu(&usage))).await?;
    target.usage()
}

fn phase(
    plan: Plan,
    before: &[(&'static str, Usage)],
    after: &[(&'static str, Usage)],
    delivered: u64,
    outcome: Outcome,
) -> Phase {
    let requests = (outcome.latencies.len() as f64).max(1.0);
    let seconds = outcome.elapsed.as_secs_f64();
    let used = before.iter().zip(after).map(|((name, before), (_, after))| {
        (*name, after.cpu.saturating_sub(before.cpu).as_secs_f64())
    });
    let used: Vec<(&'static str, f64)> = used.collect();
    let expected = outcome.fresh
        + if plan.remembers() { 0 } else { outcome.repeats }
        + if plan.verifies() { 0 } else { outcome.forged };
    Phase {
        rate: requests / seconds,
        busy: used.iter().map(|(_, cpu)| cpu).sum::<f64>() / seconds,
        costs: used.iter().map(|(name, cpu)| Cost { name, us: cpu * 1e6 / requests }).collect(),
        latencies: outcome.latencies,
        wrong: outcome.wrong,
        expected,
        delivered,
        ..Phase::default()
    }
}

fn cpu(parts: &[(&str, Usage)]) -> Duration {
    parts.iter().map(|(_, used)| used.cpu).sum()
}

fn nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or_default()
}
