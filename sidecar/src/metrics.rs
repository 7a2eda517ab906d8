//! What the sidecar counts. Every name and every label value is fixed here, so nothing from outside can name a metric
//! and every series is there, at zero, from the first scrape.

use std::{fmt::Write as _, sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use twilio_edge_contract::{Decision, Opt, Outcome, SettlementResult};

use crate::{
    domain::{
        check::{Code, Verdict},
        part::Part,
        suppression::Source,
    },
    store::Swept,
};

/// What is counted of a message nothing speaks against.
const ALLOWED: &str = "allowed";

/// Upper bounds in seconds: a claim is answered in about a millisecond, and not at all after a few hundred.
const CLAIM_BUCKETS: [f64; 11] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];

const DECISIONS: [Decision; 5] = [
    Decision::Proceed,
    Decision::Duplicate,
    Decision::InFlight,
    Decision::Released,
    Decision::Unavailable,
];
const OUTCOMES: [Outcome; 2] = [Outcome::Commit, Outcome::Release];
const RESULTS: [SettlementResult; 4] = [
    SettlementResult::Settled,
    SettlementResult::Tombstoned,
    SettlementResult::Superseded,
    SettlementResult::Unavailable,
];
const OPTS: [Opt; 3] = [Opt::Stop, Opt::Start, Opt::Help];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabel {
    decision: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SettlementLabel {
    outcome: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OptLabel {
    opt: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SuppressionLabel {
    change: &'static str,
    source: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerdictLabel {
    verdict: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StoreLabel {
    store: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabel {
    route: String,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartLabel {
    part: &'static str,
}

/// All metrics of one sidecar.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    claims: Family<DecisionLabel, Counter>,
    settlements: Family<SettlementLabel, Counter>,
    opts: Family<OptLabel, Counter>,
    suppressions: Family<SuppressionLabel, Counter>,
    checks: Family<VerdictLabel, Counter>,
    fallthroughs: Family<StoreLabel, Counter>,
    claim_seconds: Histogram,
    queue_depth: Gauge,
    events_written: Counter,
    events_refused: Counter,
    spool_bytes: Gauge,
    spool_refuses: Gauge,
    spool_replayed: Counter,
    spool_torn: Counter,
    accounts_stale: Gauge,
    requests: Family<RequestLabel, Counter>,
    exports_failed: Counter,
    redacted: Family<PartLabel, Counter>,
    deleted: Counter,
    retention_failures: Counter,
    retention_last_run: Gauge<f64, AtomicU64>,
    oldest_body_age: Gauge<f64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let mut registry = Registry::with_prefix("twilio_edge");
        let metrics = Metrics {
            claims: Family::default(),
            settlements: Family::default(),
            opts: Family::default(),
            suppressions: Family::default(),
            checks: Family::default(),
            fallthroughs: Family::default(),
            claim_seconds: Histogram::new(CLAIM_BUCKETS),
            queue_depth: Gauge::default(),
            events_written: Counter::default(),
            events_refused: Counter::default(),
            spool_bytes: Gauge::default(),
            spool_refuses: Gauge::default(),
            spool_replayed: Counter::default(),
            spool_torn: Counter::default(),
            accounts_stale: Gauge::default(),
            requests: Family::default(),
            exports_failed: Counter::default(),
            redacted: Family::default(),
            deleted: Counter::default(),
            retention_failures: Counter::default(),
            retention_last_run: Gauge::default(),
            oldest_body_age: Gauge::default(),
            registry: Registry::default(),
        };
        registry.register("claims", "Claims answered, by decision", metrics.claims.clone());
        registry.register(
            "settlements",
            "Settlements answered, by outcome and result",
            metrics.settlements.clone(),
        );
        registry.register("opt_events", "STOP, START and HELP heard", metrics.opts.clone());
        registry.register(
            "suppression_changes",
            "Suppressions that began or ended, by what made it so",
            metrics.suppressions.clone(),
        );
        registry.register(
            "checks",
            "Questions whether a message may be sent: allowed, and each reason why not",
            metrics.checks.clone(),
        );
        registry.register(
            "store_fallthroughs",
            "Batches that went past a store that was away",
            metrics.fallthroughs.clone(),
        );
        registry.register(
            "claim_duration_seconds",
            "Time to answer a batch of claims",
            metrics.claim_seconds.clone(),
        );
        registry.register(
            "event_queue_depth",
            "Events waiting to be written",
            metrics.queue_depth.clone(),
        );
        registry.register("events_written", "Events written", metrics.events_written.clone());
        registry.register(
            "events_refused",
            "Events the database refused to take",
            metrics.events_refused.clone(),
        );
        registry.register(
            "spool_bytes",
            "Bytes of the spool, which has what the database does not have yet",
            metrics.spool_bytes.clone(),
        );
        registry.register(
            "spool_refuses",
            "1 while the spool is full or its disk takes nothing, and claims wait for the database",
            metrics.spool_refuses.clone(),
        );
        registry.register(
            "spool_replayed",
            "Events found in the spool of a sidecar that was killed",
            metrics.spool_replayed.clone(),
        );
        registry.register(
            "spool_torn",
            "Files of the spool that ended in the middle of an event",
            metrics.spool_torn.clone(),
        );
        registry.register(
            "accounts_stale",
            "1 while the accounts file cannot be used and filters get the last good keys",
            metrics.accounts_stale.clone(),
        );
        registry.register(
            "http_requests",
            "Requests answered, by the route they went to (`none`: to no route) and class of status",
            metrics.requests.clone(),
        );
        registry.register(
            "trace_exports_failed",
            "Batches of spans the collector did not take, which are lost",
            metrics.exports_failed.clone(),
        );
        registry.register(
            "retention_redacted",
            "Rows a part was taken out of by the retention job",
            metrics.redacted.clone(),
        );
        registry.register(
            "retention_deleted",
            "Rows deleted by the retention job",
            metrics.deleted.clone(),
        );
        registry.register(
            "retention_failures",
            "Runs of the retention job that did not finish",
            metrics.retention_failures.clone(),
        );
        registry.register(
            "retention_last_run_timestamp_seconds",
            "When everything due was last found done, in seconds since 1970",
            metrics.retention_last_run.clone(),
        );
        registry.register(
            "retention_oldest_body_age_seconds",
            "Age of the oldest webhook whose body may still be there, as of the last run",
            metrics.oldest_body_age.clone(),
        );
        for part in Part::ALL {
            metrics.redacted.get_or_create(&PartLabel { part: part.as_str() }).inc_by(0);
        }
        for decision in DECISIONS {
            metrics.claims.get_or_create(&label_of(decision)).inc_by(0);
        }
        for outcome in OUTCOMES {
            for result in RESULTS {
                metrics.settlements.get_or_create(&settlement_label(outcome, result)).inc_by(0);
            }
        }
        for opt in OPTS {
            metrics.opts.get_or_create(&OptLabel { opt: opt.as_str() }).inc_by(0);
        }
        for verdict in Code::ALL.map(Code::as_str).into_iter().chain([ALLOWED]) {
            metrics.checks.get_or_create(&VerdictLabel { verdict }).inc_by(0);
        }
        for source in Source::ALL {
            for began in [true, false] {
                metrics.suppressions.get_or_create(&suppression_label(began, source)).inc_by(0);
            }
        }
        metrics.fallthroughs.get_or_create(&StoreLabel { store: "redis" }).inc_by(0);
        Metrics { registry, ..metrics }
    }
}

impl Metrics {
    pub(crate) fn claimed(&self, decision: Decision) {
        self.claims.get_or_create(&label_of(decision)).inc();
    }

    pub(crate) fn claims_took(&self, time: Duration) {
        self.claim_seconds.observe(time.as_secs_f64());
    }

    pub(crate) fn settled(&self, outcome: Outcome, result: SettlementResult) {
        self.settlements.get_or_create(&settlement_label(outcome, result)).inc();
    }

    pub(crate) fn opt_heard(&self, opt: Opt) {
        self.opts.get_or_create(&OptLabel { opt: opt.as_str() }).inc();
    }

    pub(crate) fn suppression_changed(&self, began: bool, source: Source) {
        self.suppressions.get_or_create(&suppression_label(began, source)).inc();
    }

    pub(crate) fn checked(&self, verdicts: &[Verdict]) {
        let against = verdicts.iter().filter_map(|verdict| verdict.code).map(Code::as_str);
        let allowed = verdicts.iter().all(|verdict| verdict.ok).then_some(ALLOWED);
        for verdict in against.chain(allowed) {
            self.checks.get_or_create(&VerdictLabel { verdict }).inc();
        }
    }

    pub(crate) fn redis_fell_through(&self) {
        self.fallthroughs.get_or_create(&StoreLabel { store: "redis" }).inc();
    }

    pub(crate) fn queued(&self, waiting: usize) {
        self.queue_depth.set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }

    pub(crate) fn events_written(&self, count: usize) {
        self.events_written.inc_by(count as u64);
    }

    pub(crate) fn event_refused(&self) {
        self.events_refused.inc();
    }

    pub(crate) fn spooled(&self, bytes: u64, refuses: bool) {
        self.spool_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.spool_refuses.set(refuses.into());
    }

    pub(crate) fn spool_replayed(&self, events: usize, torn: bool) {
        self.spool_replayed.inc_by(events as u64);
        self.spool_torn.inc_by(torn.into());
    }

    pub(crate) fn accounts_are_stale(&self, stale: bool) {
        self.accounts_stale.set(stale.into());
    }

    /// `route` is a template of ours, so there are as many series as routes.
    pub(crate) fn answered(&self, route: &str, status: u16) {
        let status = match status {
            200..300 => "2xx",
            400..500 => "4xx",
            500..600 => "5xx",
            _ => "other",
        };
        self.requests.get_or_create(&RequestLabel { route: route.to_owned(), status }).inc();
    }

    pub(crate) fn spans_lost(&self) {
        self.exports_failed.inc();
    }

    pub(crate) fn events_waiting(&self) -> usize {
        usize::try_from(self.queue_depth.get()).unwrap_or_default()
    }

    pub(crate) fn swept(&self, swept: &Swept) {
        for (part, count) in &swept.redacted {
            self.redacted.get_or_create(&PartLabel { part: part.as_str() }).inc_by(*count as u64);
        }
        self.deleted.inc_by(swept.deleted as u64);
    }

    pub(crate) fn retention_ran(&self, now_ms: i64) {
        self.retention_last_run.set(seconds(now_ms));
    }

    pub(crate) fn retention_failed(&self) {
        self.retention_failures.inc();
    }

    pub(crate) fn oldest_body(&self, age_ms: i64) {
        self.oldest_body_age.set(seconds(age_ms));
    }

    /// All of it, as OpenMetrics text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            let _ = writeln!(text, "# incomplete");
        }
        text
    }
}

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

fn label_of(decided: Decision) -> DecisionLabel {
    DecisionLabel { decision: decision(decided) }
}

/// The word for it, in metrics and traces.
pub(crate) fn decision(decision: Decision) -> &'static str {
    match decision {
        Decision::Proceed => "proceed",
        Decision::Duplicate => "duplicate",
        Decision::InFlight => "in_flight",
        Decision::Released => "released",
        Decision::Unavailable => "unavailable",
        Decision::Accepted => "accepted",
    }
}

fn suppression_label(began: bool, source: Source) -> SuppressionLabel {
    SuppressionLabel { change: if began { "began" } else { "ended" }, source: source.as_str() }
}

fn settlement_label(outcome: Outcome, result: SettlementResult) -> SettlementLabel {
    SettlementLabel {
        outcome: match outcome {
            Outcome::Commit => "commit",
            Outcome::Release => "release",
        },
        result: match result {
            SettlementResult::Settled => "settled",
            SettlementResult::Tombstoned => "tombstoned",
            SettlementResult::Superseded => "superseded",
            SettlementResult::Unavailable => "unavailable",
        },
    }
}
