//! Metrics of the sidecar. All names and label values are fixed here, so no external data can name a metric. Every series
//! exists with zero from the first scrape; the series of a route exist from its first request.

mod archive;
mod catalogue;
mod connections;
mod labels;
mod media;
mod process;
mod requests;
mod sends;
mod sinks;
mod tasks;
mod templates;

use std::{
    future::Future,
    time::{Duration, Instant},
};

use prometheus_client::metrics::{
    counter::Counter, family::Family, gauge::Gauge, histogram::Histogram,
};
use twilio_edge_contract::{Class, Decision, Opt, Outcome, SettlementResult};

pub use self::connections::{ConnectionMetrics, ConnectionRefusal, ConnectionWait};
pub use self::labels::{Batch, Connections, Denial, Limit, Pool, RedisState};
use self::{
    archive::ArchiveMetrics,
    catalogue::{Catalogue, Labels, Measure},
    connections::ListenerMetrics,
    media::MediaMetrics,
    process::Process,
    requests::Requests,
    sends::SendMetrics,
    sinks::SinkMetrics,
    tasks::TaskMetrics,
    templates::TemplateMetrics,
};
use crate::{store_metrics as steps, store_metrics::Operation};
use twilio_edge_domain::sweep_counts::SweepCounts;
use twilio_edge_domain::{check::Verdict, part::Part, refusal::RefusalCode, suppression::Source};

/// Label of a check to which no rule objects.
const ALLOWED: &str = "allowed";

/// Upper bounds in seconds: a claim is answered in about a millisecond, and not at all after a few hundred.
const CLAIM_BUCKETS: [f64; 11] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];

/// Upper bounds in seconds: memory takes microseconds, a database that syncs its disk milliseconds.
const STORE_BUCKETS: [f64; 11] =
    [0.00005, 0.0002, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.4, 2.0];

/// Upper bounds of batch sizes: a batch of the filter has at most 256 entries, one of the writer more.
const BATCH_BUCKETS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

const DECISIONS: [Decision; 6] = [
    Decision::Proceed,
    Decision::Duplicate,
    Decision::InFlight,
    Decision::Released,
    Decision::Unavailable,
    Decision::Accepted,
];
const CLASSES: [Class; 3] = [Class::Inbound, Class::Status, Class::Other];
const OUTCOMES: [Outcome; 2] = [Outcome::Commit, Outcome::Release];
const RESULTS: [SettlementResult; 4] = [
    SettlementResult::Settled,
    SettlementResult::Tombstoned,
    SettlementResult::Superseded,
    SettlementResult::Unavailable,
];
const OPTS: [Opt; 3] = [Opt::Stop, Opt::Start, Opt::Help];

/// One series per element of a closed list, found by its position.
#[derive(Debug)]
struct Series<T>(Vec<T>);

impl<T> Series<T> {
    fn with(&self, place: usize, change: impl FnOnce(&T)) {
        if let Some(series) = self.0.get(place) {
            change(series);
        }
    }
}

/// All metrics of one sidecar.
#[derive(Debug)]
pub struct Metrics {
    catalogue: Catalogue,
    /// Claims by decision and class.
    claims: Series<Counter>,
    claim_seconds: Histogram,
    batches: Series<Histogram>,
    settlements: Family<Labels<2>, Counter>,
    opts: Family<Labels<1>, Counter>,
    suppressions: Family<Labels<2>, Counter>,
    checks: Family<Labels<1>, Counter>,
    store_seconds: Series<Histogram>,
    store_failures: Series<Counter>,
    redis: Family<Labels<1>, Gauge>,
    fallthroughs: Family<Labels<1>, Counter>,
    connections: Family<Labels<2>, Gauge>,
    queue_depth: Gauge,
    queue_age: Measure,
    events_written: Counter,
    events_refused: Counter,
    spool_bytes: Gauge,
    spool_refuses: Gauge,
    spool_replayed: Counter,
    spool_torn: Counter,
    accounts_stale: Gauge,
    requests: Requests,
    denied: Family<Labels<1>, Counter>,
    limited: Family<Labels<1>, Counter>,
    exports_failed: Counter,
    lines_held_back: Counter,
    redacted: Family<Labels<1>, Counter>,
    deleted: Counter,
    retention_failures: Counter,
    retention_last_run: Measure,
    oldest_body_age: Measure,
    /// Connections of each listener.
    pub listeners: ListenerMetrics,
    /// Metrics of the archive.
    pub archive: ArchiveMetrics,
    /// Metrics of outbound messages.
    pub sends: SendMetrics,
    /// Metrics of media probes.
    pub media: MediaMetrics,
    /// Metrics of the template catalogue.
    pub templates: TemplateMetrics,
    /// Metrics of deliveries to sinks.
    pub sinks: SinkMetrics,
    /// Metrics of background tasks and panics.
    pub tasks: TaskMetrics,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let mut catalogue = Catalogue::default();
        let all = &mut catalogue;
        let claims: Family<Labels<2>, Counter> = all.counters(
            "claims",
            &["decision", "class"],
            "Answered claims by decision (`proceed`, `duplicate`, `in_flight`, `released`, `unavailable`, `accepted`) and class (`inbound`, `status`, `other`)",
        );
        let claims = DECISIONS
            .iter()
            .flat_map(|decided| CLASSES.map(|class| (*decided, class)))
            .map(|(decided, class)| {
                let labels = [("decision", decided.as_str()), ("class", class.as_str())];
                claims.get_or_create(&labels).clone()
            });
        let claims = Series(claims.collect());
        let claim_seconds = all.histogram(
            "claim_duration_seconds",
            "Seconds between a batch of claims and its answer",
            &CLAIM_BUCKETS,
        );
        let batches: Family<Labels<1>, Histogram, fn() -> Histogram> = all.histograms(
            "batch_size",
            &["of"],
            "Entries per batch: `claims` and `settlements` from a filter, `events` written to the database",
            || Histogram::new(BATCH_BUCKETS),
        );
        let of = |batch: Batch| batches.get_or_create(&[("of", batch.as_str())]).clone();
        let batches = Series(Batch::ALL.map(of).into());
        let settlements = all.counters(
            "settlements",
            &["outcome", "result"],
            "Answered settlements by outcome (`commit`, `release`) and result (`settled`, `tombstoned`, `superseded`, `unavailable`)",
        );
        let opts =
            all.counters("opt_events", &["opt"], "Received keywords: `stop`, `start`, `help`");
        let suppressions = all.counters(
            "suppression_changes",
            &["change", "source"],
            "Suppressions that `began` or `ended`, by source (docs/COMPLIANCE.md)",
        );
        let checks = all.counters(
            "checks",
            &["verdict"],
            "Verdicts of checks whether a message may be sent: `allowed`, or the code of each objection (docs/COMPLIANCE.md)",
        );
        let store_seconds: Family<Labels<1>, Histogram, fn() -> Histogram> = all.histograms(
            "store_duration_seconds",
            &["operation"],
            "Seconds per batch of a store operation. `leases_`: Redis, or memory if Redis is not configured; `ledger_`: SQL; `journal_`: the spool and SQL",
            || Histogram::new(STORE_BUCKETS),
        );
        let store_failures: Family<Labels<1>, Counter> = all.counters(
            "store_failures",
            &["operation"],
            "Batches that a store failed or did not complete in time",
        );
        let operation = |operation: Operation| [("operation", operation.as_str())];
        let seconds = |one| store_seconds.get_or_create(&operation(one)).clone();
        let failures = |one| store_failures.get_or_create(&operation(one)).clone();
        let metrics = Metrics {
            claims,
            claim_seconds,
            batches,
            settlements,
            opts,
            suppressions,
            checks,
            store_seconds: Series(Operation::ALL.map(seconds).into()),
            store_failures: Series(Operation::ALL.map(failures).into()),
            redis: all.gauges("redis_state", ["state"], "State of Redis, 1 for the current one: `none` (not configured), `up`, `away` (unavailable)"),
            fallthroughs: all.counters(
                "store_fallthroughs",
                &["store"],
                "Batches that bypassed an unavailable store: `redis`",
            ),
            connections: all.gauges(
                "sql_connections",
                ["pool", "state"],
                "Connections to the database by state (`in_use`, `idle`) and pool: `quick` commits, `durable` commits, `readers`",
            ),
            queue_depth: all.gauge("event_queue_depth", "Events that wait to be written to the database; the spool contains the same events"),
            queue_age: all.measure(
                "event_queue_age_seconds",
                "Age in seconds of the oldest event that waits in memory and in the spool",
            ),
            events_written: all.counter("events_written", "Events written to the database"),
            events_refused: all.counter("events_refused", "Events that the database rejected; they are lost"),
            spool_bytes: all.gauge(
                "spool_bytes",
                "Size of the spool in bytes; the spool contains events that are not in the database yet",
            ),
            spool_refuses: all.gauge(
                "spool_refuses",
                "1 while the spool is full or its disk fails, so claims wait for the database; otherwise 0",
            ),
            spool_replayed: all.counter(
                "spool_replayed",
                "Events recovered from the spool of a killed sidecar",
            ),
            spool_torn: all.counter(
                "spool_torn",
                "Spool files that ended in the middle of an event",
            ),
            accounts_stale: all.gauge(
                "accounts_stale",
                "1 while the accounts file is unusable and filters receive the last valid keys; otherwise 0",
            ),
            requests: Requests::of(all),
            denied: all.counters(
                "api_key_failures",
                &["reason"],
                "Requests with a refused token by reason: `unknown` token, wrong `scope`, `closed` account",
            ),
            limited: all.counters(
                "rate_limited",
                &["by"],
                "Requests refused by a rate limit: limit of a `key`, or of an `address` that sent invalid tokens",
            ),
            exports_failed: all.counter(
                "trace_exports_failed",
                "Batches of spans that the collector did not accept; they are lost",
            ),
            lines_held_back: all.counter(
                "log_lines_held_back",
                "Log lines suppressed because there were too many of the same kind (docs/OBSERVABILITY.md)",
            ),
            redacted: all.counters(
                "retention_redacted",
                &["part"],
                "Rows redacted by the retention job, by part (docs/RETENTION.md)",
            ),
            deleted: all.counter("retention_deleted", "Rows deleted by the retention job"),
            retention_failures: all.counter(
                "retention_failures",
                "Failed runs of the retention job",
            ),
            retention_last_run: all.measure(
                "retention_last_run_timestamp_seconds",
                "Time of the last complete run of the retention job, in seconds since 1970",
            ),
            oldest_body_age: all.measure(
                "retention_oldest_body_age_seconds",
                "Age in seconds of the oldest webhook whose body may still be stored, at the last run of the retention job",
            ),
            listeners: ListenerMetrics::of(all),
            archive: ArchiveMetrics::of(all),
            sends: SendMetrics::of(all),
            media: MediaMetrics::of(all),
            templates: TemplateMetrics::of(all),
            sinks: SinkMetrics::of(all),
            tasks: TaskMetrics::of(all),
            catalogue: Catalogue::default(),
        };
        all.info(
            "build",
            "Version of the running program",
            [("version", env!("CARGO_PKG_VERSION"))],
        );
        all.read_off(&process::FAMILIES, Process::default());
        metrics.begin();
        Metrics { catalogue, ..metrics }
    }
}

impl Metrics {
    /// Creates every series with zero.
    fn begin(&self) {
        self.listeners.begin();
        self.sends.begin();
        self.media.begin();
        self.templates.begin();
        for part in Part::ALL {
            self.redacted.get_or_create(&[("part", part.as_str())]).inc_by(0);
        }
        for outcome in OUTCOMES {
            for result in RESULTS {
                self.settlements.get_or_create(&settlement_labels(outcome, result)).inc_by(0);
            }
        }
        for opt in OPTS {
            self.opts.get_or_create(&[("opt", opt.as_str())]).inc_by(0);
        }
        for verdict in RefusalCode::of_check_rules().map(RefusalCode::as_str).chain([ALLOWED]) {
            self.checks.get_or_create(&[("verdict", verdict)]).inc_by(0);
        }
        for source in Source::ALL {
            for began in [true, false] {
                self.suppressions.get_or_create(&suppression_labels(began, source)).inc_by(0);
            }
        }
        for denial in Denial::ALL {
            self.denied.get_or_create(&[("reason", denial.as_str())]).inc_by(0);
        }
        for limit in Limit::ALL {
            self.limited.get_or_create(&[("by", limit.as_str())]).inc_by(0);
        }
        for pool in Pool::ALL {
            self.connected(pool, Connections { in_use: 0, idle: 0 });
        }
        self.redis_is(RedisState::None);
        self.fallthroughs.get_or_create(&[("store", "redis")]).inc_by(0);
    }

    /// Counts a claim by its decision.
    pub fn claimed(&self, decision: Decision, class: Class) {
        let place = |list: &[_], one| list.iter().position(|other| *other == one);
        let row = place(&DECISIONS, decision).unwrap_or_default();
        let column = CLASSES.iter().position(|other| *other == class).unwrap_or_default();
        self.claims.with(row * CLASSES.len() + column, |counter| {
            counter.inc();
        });
    }

    /// Records the duration of a batch of claims.
    pub fn claims_took(&self, time: Duration) {
        self.claim_seconds.observe(time.as_secs_f64());
    }

    /// Records the size of a batch.
    pub fn batched(&self, batch: Batch, count: usize) {
        self.batches.with(batch as usize, |histogram| histogram.observe(count as f64));
    }

    /// Records an answered store operation, also as a step of the current request.
    pub fn asked<T, E>(
        &self,
        operation: Operation,
        since: Instant,
        answer: Result<T, E>,
    ) -> Result<T, E> {
        let took = since.elapsed().as_secs_f64();
        self.store_seconds.with(operation as usize, |histogram| histogram.observe(took));
        if answer.is_err() {
            self.store_failures.with(operation as usize, |counter| {
                counter.inc();
            });
        }
        steps::note(operation, since, answer.is_ok());
        answer
    }

    /// Runs a store operation and records its duration.
    pub async fn timed<T, E>(
        &self,
        operation: Operation,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let since = Instant::now();
        let answer = work.await;
        self.asked(operation, since, answer)
    }

    /// Sets the state of Redis.
    pub fn redis_is(&self, state: RedisState) {
        for other in RedisState::ALL {
            let gauge = self.redis.get_or_create(&[("state", other.as_str())]);
            gauge.set((other == state).into());
        }
    }

    /// Sets the number of connections of a pool.
    pub fn connected(&self, pool: Pool, connections: Connections) {
        let pool = pool.as_str();
        let gauge = |state| self.connections.get_or_create(&[("pool", pool), ("state", state)]);
        gauge("in_use").set(connections.in_use);
        gauge("idle").set(connections.idle);
    }

    /// Counts a settlement by its result.
    pub fn settled(&self, outcome: Outcome, result: SettlementResult) {
        self.settlements.get_or_create(&settlement_labels(outcome, result)).inc();
    }

    /// Counts an opt-in, an opt-out or a request for help.
    pub fn opt_received(&self, opt: Opt) {
        self.opts.get_or_create(&[("opt", opt.as_str())]).inc();
    }

    /// Counts a suppression that began or ended.
    pub fn suppression_changed(&self, began: bool, source: Source) {
        self.suppressions.get_or_create(&suppression_labels(began, source)).inc();
    }

    /// Counts the verdicts of a check.
    pub fn checked(&self, verdicts: &[Verdict]) {
        let against = verdicts.iter().filter_map(|verdict| verdict.code).map(RefusalCode::as_str);
        let allowed = verdicts.iter().all(|verdict| verdict.ok).then_some(ALLOWED);
        for verdict in against.chain(allowed) {
            self.checks.get_or_create(&[("verdict", verdict)]).inc();
        }
    }

    /// Counts a batch that the database decided because Redis was unavailable.
    pub fn redis_fell_through(&self) {
        self.fallthroughs.get_or_create(&[("store", "redis")]).inc();
    }

    /// Sets the number of events that wait to be written.
    pub fn queued(&self, waiting: usize) {
        self.queue_depth.set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }

    /// Sets the age of the oldest event that waits to be written.
    pub fn queue_is_old(&self, age: Duration) {
        self.queue_age.set(age.as_secs_f64());
    }

    /// Counts events that were written.
    pub fn events_written(&self, count: usize) {
        self.events_written.inc_by(count as u64);
        self.batched(Batch::Events, count);
    }

    /// Counts an event that found no room.
    pub fn event_refused(&self) {
        self.events_refused.inc();
    }

    /// Sets the size of the spool, and whether it refuses events.
    pub fn spooled(&self, bytes: u64, refuses: bool) {
        self.spool_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.spool_refuses.set(refuses.into());
    }

    /// Counts events that were written from the spool.
    pub fn spool_replayed(&self, events: usize, torn: bool) {
        self.spool_replayed.inc_by(events as u64);
        self.spool_torn.inc_by(torn.into());
    }

    /// Sets whether the accounts file is unusable and earlier keys are in effect.
    pub fn accounts_are_stale(&self, stale: bool) {
        self.accounts_stale.set(stale.into());
    }

    /// Records a response by route and status.
    pub fn answered(&self, route: &str, status: u16, took: Duration) {
        self.requests.answered(route, status, took);
    }

    /// Counts a request without sufficient rights.
    pub fn denied(&self, denial: Denial) {
        self.denied.get_or_create(&[("reason", denial.as_str())]).inc();
    }

    /// Counts a request over a limit.
    pub fn limited(&self, limit: Limit) {
        self.limited.get_or_create(&[("by", limit.as_str())]).inc();
    }

    pub(crate) fn lines_held_back(&self, count: u64) {
        self.lines_held_back.inc_by(count);
    }

    pub(crate) fn spans_lost(&self) {
        self.exports_failed.inc();
    }

    /// Returns the number of events that wait to be written.
    pub fn events_waiting(&self) -> usize {
        usize::try_from(self.queue_depth.get()).unwrap_or_default()
    }

    /// Counts rows that retention redacted or deleted.
    pub fn swept(&self, swept: &SweepCounts) {
        for (part, count) in &swept.redacted {
            let counter = self.redacted.get_or_create(&[("part", part.as_str())]);
            counter.inc_by(*count as u64);
        }
        self.deleted.inc_by(swept.deleted as u64);
    }

    /// Sets the time of the last complete run of retention.
    pub fn retention_ran(&self, now_ms: i64) {
        self.retention_last_run.set(seconds(now_ms));
    }

    /// Counts a run of retention that failed.
    pub fn retention_failed(&self) {
        self.retention_failures.inc();
    }

    /// Sets the age of the oldest stored message text, in milliseconds.
    pub fn oldest_body(&self, age_ms: i64) {
        self.oldest_body_age.set(seconds(age_ms));
    }

    /// Renders all series as OpenMetrics text.
    pub fn text(&self) -> String {
        self.catalogue.text()
    }
}

/// Renders every family as the table of docs/METRICS.md.
pub fn reference() -> String {
    Metrics::default().catalogue.reference()
}

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

fn suppression_labels(began: bool, source: Source) -> Labels<2> {
    [("change", if began { "began" } else { "ended" }), ("source", source.as_str())]
}

fn settlement_labels(outcome: Outcome, result: SettlementResult) -> Labels<2> {
    [("outcome", outcome.as_str()), ("result", result.as_str())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_holds_the_print() {
        let document = include_str!("../../../docs/METRICS.md");
        let told = "docs/METRICS.md: put in `twilio-edge reference metrics`";
        assert!(document.contains(&reference()), "{told}");
    }

    #[test]
    fn a_place_in_a_list_is_that_of_its_series() {
        let metrics = Metrics::default();
        for (place, operation) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, place, "{operation:?}");
        }
        for (place, batch) in Batch::ALL.into_iter().enumerate() {
            assert_eq!(batch as usize, place, "{batch:?}");
        }
        for (n, decided) in DECISIONS.into_iter().enumerate() {
            for (m, class) in CLASSES.into_iter().enumerate() {
                (0..=n * 3 + m).for_each(|_| metrics.claimed(decided, class));
            }
        }
        let text = metrics.text();
        for (n, decided) in DECISIONS.into_iter().enumerate() {
            for (m, class) in CLASSES.into_iter().enumerate() {
                let (decision, class) = (decided.as_str(), class.as_str());
                let line = format!(
                    "twilio_edge_claims_total{{decision=\"{decision}\",class=\"{class}\"}} {}\n",
                    n * 3 + m + 1
                );
                assert!(text.contains(&line), "{line} in\n{text}");
            }
        }
    }
}
