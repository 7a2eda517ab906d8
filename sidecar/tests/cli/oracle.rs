//! Compares the filter with Twilio's own SDKs on generated webhooks, which differ in every run. The test prints the seed,
//! and `make differential SEED=..` generates the same webhooks again.

use std::io::Write;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::support::program::{repository, run};

/// Webhooks on which the two SDKs agree; those on which they do not are made on top of these.
const COUNT: u64 = 20_000;
/// Number of webhooks that one process of each SDK judges.
const SHARD: u64 = 2500;

#[test]
fn filter_agrees_with_twilios_sdks_on_new_webhooks() {
    let count = number("TWILIO_EDGE_DIFFERENTIAL_COUNT").unwrap_or(COUNT);
    let seed = number("TWILIO_EDGE_DIFFERENTIAL_SEED").unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        since.as_micros() as u64 % 1_000_000_000
    });
    tell(&format!("differential: make differential COUNT={count} SEED={seed}"));
    let (started, next) = (Instant::now(), AtomicU64::new(0));
    let (accepted, rejected) = (AtomicU64::new(0), AtomicU64::new(0));
    let work = || {
        loop {
            let shard = next.fetch_add(1, Ordering::Relaxed);
            let Some(left) = count.checked_sub(shard * SHARD).filter(|left| *left > 0) else {
                return;
            };
            let (accept, reject) = judge(seed + shard, left.min(SHARD));
            accepted.fetch_add(accept, Ordering::Relaxed);
            rejected.fetch_add(reject, Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..thread::available_parallelism().map_or(1, usize::from))
            .map(|_| scope.spawn(work))
            .collect();
        for worker in workers {
            worker.join().unwrap();
        }
    });
    let (accepted, rejected) = (accepted.into_inner(), rejected.into_inner());
    tell(&format!(
        "differential: seed {seed}: {} webhooks, {accepted} accepted and {rejected} rejected by all three, in {:.0?}",
        accepted + rejected,
        started.elapsed()
    ));
    assert_eq!(accepted + rejected, count);
    let fair = |part: u64| part >= count / 5;
    assert!(fair(accepted) && fair(rejected), "one verdict alone shows little");
}

/// Generates `count` webhooks from one seed and has all three judge them. Returns the numbers of accepted and of rejected ones.
fn judge(seed: u64, count: u64) -> (u64, u64) {
    let root = repository();
    let python = root.join(".venv/bin/python");
    let node_modules = root.join("wasm-tests/signers");
    let installed = python.exists() && node_modules.join("node_modules/twilio").exists();
    assert!(installed, "Twilio's SDKs are not installed: run `make setup-test`");
    let made = Command::new(&python)
        .arg(root.join("sidecar/tests/cli/oracle/generate.py"))
        .args(["--seed", &seed.to_string(), "--count", &count.to_string(), "--node-modules"])
        .arg(&node_modules)
        .output()
        .unwrap();
    let problem = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "run `make setup-test`; the generator says: {problem}");
    let made = String::from_utf8(made.stdout).unwrap();
    let report = run(&["vectors", "-"], &[], &made).json();
    assert_eq!(report["disagreements"], serde_json::json!([]), "seed {seed}");
    assert_eq!(report["total"], count, "seed {seed}: {problem}");
    let accepted = made.lines().filter(|line| line.ends_with(r#""expect": "accept"}"#)).count();
    let accepted = u64::try_from(accepted).unwrap();
    (accepted, count - accepted)
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}

/// Writes to standard error directly, because the test runner hides the output of passed tests.
fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
