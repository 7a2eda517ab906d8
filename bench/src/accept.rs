//! Benchmark of the time until Twilio is answered in accept delivery. The application that would get the webhooks is
//! unavailable, and there is no backend. Signed webhooks come on a schedule that does not wait for answers, through Envoy,
//! on each combination of stores; every one is durable before it is answered.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use crate::backend::Backend;
use crate::load::{Outcome, Pace, send};
use crate::process::Cores;
use crate::report::percentile;
use crate::target::{Parts, Plan, Stores, Target};
use crate::webhook::Sequence;

/// Goals for the latency in milliseconds: of 95 percent of the answers, and of every answer.
const GOALS_MS: [f64; 2] = [50.0, 1000.0];

/// Number and rate of the webhooks.
#[derive(Args)]
pub(crate) struct Options {
    /// Webhooks per second.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=5000))]
    rate: u32,
    /// Seconds that each round lasts.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Rounds on each combination of stores, in turns.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=50))]
    rounds: u32,
}

/// Runs the benchmark and prints a table.
pub(crate) async fn measure(options: &Options, parts: &Parts, seed: u64) -> Result<()> {
    let cores = Cores::shared()?;
    let backend = Backend::start().await?;
    let mut targets = Vec::new();
    for stores in [Stores::Sqlite, Stores::RedisPostgres] {
        match stores.lack() {
            Some(part) => println!("{} was left out: there is no {part} here", stores.title()),
            None => {
                let plan = Plan::Accepting(stores);
                targets.push(Target::start(plan, parts, cores, &backend).await?);
            }
        }
    }
    let interval = Duration::from_secs(1) / options.rate;
    let count = u64::from(options.rate) * u64::from(options.seconds);
    let mut text = format!(
        "{} webhooks/s to routes with `delivery: accept`, without a backend; ms from the time at which a webhook was due\n\n{}\n",
        options.rate,
        head()
    );
    for round in 0..=options.rounds {
        for (nth, target) in targets.iter().enumerate() {
            let sequence = seed + u64::from(round) * 8 + nth as u64;
            let webhooks = Sequence::new(sequence)?.first(count)?;
            let outcome = send(target.address, webhooks, Pace::Yielding(interval), true).await?;
            let line = line(target.plan.title(), &outcome);
            eprintln!("round {round} of {}: {line}", options.rounds);
            // The first round is not printed: in it V8 compiles, and the databases grow.
            if round > 0 {
                let _ = writeln!(text, "{line}");
            }
        }
    }
    println!("\n{text}");
    Ok(())
}

fn head() -> String {
    format!(
        "{:<26} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}   goal",
        "stores", "samples", "as due", "p50", "p95", "p99", "max"
    )
}

/// Returns the line of one round. Expected answers are 2xx, and 403 to the one forged webhook in a hundred.
fn line(title: &str, outcome: &Outcome) -> String {
    let mut latencies = outcome.latencies.clone();
    latencies.sort_unstable();
    let [p50, p95, p99, max] =
        [0.5, 0.95, 0.99, 1.0].map(|share| percentile(&latencies, share) / 1e3);
    let samples = latencies.len();
    let right = 1.0 - outcome.wrong as f64 / (samples as f64).max(1.0);
    let [max_p95, max_ms] = GOALS_MS;
    let met = p95 < max_p95 && max < max_ms && outcome.wrong == 0;
    format!(
        "{title:<26} {samples:>8} {:>7.2}% {p50:>8.2} {p95:>8.2} {p99:>8.2} {max:>8.2}   {}",
        100.0 * right,
        if met { "met" } else { "not met" }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(slow: usize, ms: u64, wrong: u64) -> Outcome {
        let quick = std::iter::repeat_n(Duration::from_millis(4), 100 - slow);
        let latencies = quick.chain(std::iter::repeat_n(Duration::from_millis(ms), slow));
        Outcome { latencies: latencies.collect(), wrong, ..Outcome::default() }
    }

    #[test]
    fn goal_covers_throughput_latency_and_answer() {
        assert!(line("t", &outcome(5, 999, 0)).ends_with("  met"));
        assert!(line("t", &outcome(6, 51, 0)).ends_with("not met"));
        assert!(line("t", &outcome(1, 1000, 0)).ends_with("not met"));
        let wrong = line("t", &outcome(0, 0, 1));
        assert!(wrong.ends_with("not met") && wrong.contains("99.00%"), "{wrong}");
    }
}
