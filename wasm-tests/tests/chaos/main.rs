//! Check that no webhook is lost while processes are killed: signed webhooks through the real Envoy, two sidecars on Redis and PostgreSQL, to an
//! application, a Kafka-compatible broker, a Redis stream and a backend, while all of these are killed and stopped. Then the
//! auditor ([`twilio_edge_wasm_tests::audit`]) compares the answers that Twilio got with the records of all parts.
//!
//! CHAOS is the number of webhooks, of kills, and of seeds in a row; CHAOS_SEED is the first of them. `make chaos` sets both.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "results and seeds of tests")]
#![expect(
    clippy::indexing_slicing,
    reason = "a test that reads beyond the end has failed, and may report it by a panic"
)]

mod evidence;
mod plan;
mod stage;
mod twilio;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::runtime::Runtime;
use tokio::task::{JoinSet, LocalSet};
use twilio_edge_wasm_tests::application;
use twilio_edge_wasm_tests::audit::{Evidence, Finding, audit};

use crate::plan::{Chance, Harm, Part};
use crate::stage::{Done, SLACK, Stage};
use crate::twilio::Twilio;

/// Losses that are shown; the rest is counted.
const SHOWN: usize = 20;

/// Size of a run.
#[derive(Debug, Clone, Copy)]
struct Size {
    webhooks: usize,
    kills: usize,
    /// Claims of killed delivery workers do not delay the end of a run.
    is_short: bool,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [role, address, journal] = words.as_slice()
        && role == application::ROLE
    {
        return match serve(address, journal) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error:#}");
                ExitCode::FAILURE
            }
        };
    }
    let arguments = Arguments::from_args();
    let trial = Trial::test("webhooks_survive_kills_of_every_part", || {
        seeds().map_err(|error| Failed::from(format!("{error:#}")))
    });
    libtest_mimic::run(&arguments, vec![trial]).exit_code()
}

fn serve(address: &str, journal: &str) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(application::serve(address.parse()?, journal.as_ref()))
}

/// Runs of all seeds, one after the other.
fn seeds() -> Result<()> {
    let words = std::env::var("CHAOS").unwrap_or_default();
    let numbers: Result<Vec<usize>, _> = words.split_whitespace().map(str::parse).collect();
    let (size, seeds) = match numbers.context("CHAOS: three numbers")?.as_slice() {
        [] => (Size { webhooks: 600, kills: 9, is_short: true }, 1),
        [webhooks, kills, seeds] => {
            (Size { webhooks: *webhooks, kills: *kills, is_short: false }, *seeds)
        }
        _ => bail!("CHAOS: three numbers: webhooks, kills, seeds"),
    };
    let first = match std::env::var("CHAOS_SEED").ok().filter(|seed| !seed.is_empty()) {
        Some(seed) => seed.parse().context("CHAOS_SEED: a number")?,
        None => u64::from(std::process::id()),
    };
    let runtime = Runtime::new()?;
    for nth in 0..seeds {
        let seed = first.wrapping_add(u64::try_from(nth)?);
        runtime.block_on(LocalSet::new().run_until(run(seed, size))).with_context(|| {
            let Size { webhooks, kills, .. } = size;
            format!("to repeat: make chaos SEED={seed} WEBHOOKS={webhooks} KILLS={kills}")
        })?;
    }
    Ok(())
}

async fn run(seed: u64, size: Size) -> Result<()> {
    println!("chaos: seed {seed}, {} webhooks, {} kills", size.webhooks, size.kills);
    let started = Instant::now();
    let mut chance = Chance(seed);
    let planned = plan::webhooks(&mut chance, size.webhooks);
    let jobs = plan::jobs(&mut chance, size.webhooks);
    let disasters = plan::disasters(&mut chance, jobs.len(), size.kills);
    let stage = Rc::new(Stage::set().await?);
    let mut twilio = Twilio::sign(stage.edge.address(), &planned).await?;

    let (mut suffering, mut coming) = (JoinSet::new(), disasters.into_iter().peekable());
    for (nth, webhook) in jobs.iter().enumerate() {
        twilio.begin(*webhook).await?;
        while let Some(disaster) = coming.next_if(|disaster| disaster.after <= nth) {
            let stage = stage.clone();
            suffering.spawn_local(async move { stage.suffer(disaster).await });
        }
        while let Some(over) = suffering.try_join_next() {
            over??;
        }
    }
    twilio.finish().await;
    while let Some(over) = suffering.join_next().await {
        over??;
    }
    // After this time every commit is in effect; then copies are sent once more.
    let (calm, arrived) =
        tokio::join!(tokio::time::sleep(SLACK), evidence::delivered(&stage, size.is_short));
    let () = calm;
    arrived?;
    for webhook in (0..planned.len()).step_by(7) {
        twilio.begin(webhook).await?;
    }
    twilio.finish().await;
    evidence::delivered(&stage, size.is_short).await?;

    let evidence = evidence::gather(&stage, twilio.webhooks(&planned)).await?;
    let finding = audit(&evidence);
    print!("{}", report(&evidence, &finding, &stage.done()));
    stage.judge().await?;
    if !finding.losses.is_empty() {
        let mut text = format!("{} things that must not be:\n", finding.losses.len());
        for loss in finding.losses.iter().take(SHOWN) {
            let _ = writeln!(text, "  {loss}");
        }
        if let Ok(stage) = Rc::try_unwrap(stage).map_err(drop) {
            let (logs, folder) = stage.keep_logs();
            let _ = write!(text, "{logs}all files are kept in {}", folder.display());
        }
        bail!(text);
    }
    println!(
        "  nothing is missing, nothing was repeated after its commit, every number is in order ({:.0} s)",
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Prints the numbers of the run.
fn report(evidence: &Evidence, finding: &Finding, done: &[Done]) -> String {
    let mut text = String::new();
    for (harm, word) in [(Harm::Killed, "killed"), (Harm::Paused, "paused"), (Harm::Cut, "cut")] {
        let mut parts: BTreeMap<Part, usize> = BTreeMap::new();
        for done in done.iter().filter(|done| done.harm == harm) {
            *parts.entry(done.part).or_default() += 1;
        }
        let total: usize = parts.values().sum();
        let parts: Vec<String> =
            parts.into_iter().map(|(part, count)| format!("{} {count}", part.name())).collect();
        let _ = writeln!(text, "  {word} {total}: {}", parts.join(", "));
    }
    let calls: usize = evidence.webhooks.iter().map(|webhook| webhook.calls.len()).sum();
    let _ = writeln!(
        text,
        "  Twilio made {calls} requests and received 2xx for {} of {} webhooks; the ledger has {}",
        finding.answered,
        evidence.webhooks.len(),
        evidence.ledger.len()
    );
    for (sink, logs) in &evidence.sinks {
        let all: usize = logs.values().map(Vec::len).sum();
        let repeated = finding.repeated.get(sink).copied().unwrap_or_default();
        let _ = writeln!(text, "  {sink} has {}, {repeated} of them repeated", all - repeated);
    }
    let is_accepted = evidence.backend_requests.iter().filter(|one| one.is_accepted).count();
    let _ = writeln!(
        text,
        "  the backend accepted {is_accepted}: {} repeated before a commit, {} repeated without a verdict; \
         {} settlements were lost with an Envoy",
        finding.repeated_before_commit, finding.repeated_unknown, finding.unsettled_by_kill
    );
    text
}
