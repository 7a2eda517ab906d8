//! Metrics of webhooks: claims, settlements, keywords, suppressions and checks.

use std::time::Duration;

use prometheus_client::metrics::{counter::Counter, family::Family, histogram::Histogram};
use twilio_edge_contract::{Class, Decision, Opt, Outcome, SettlementResult};

use super::{
    catalogue::{Catalogue, Labels},
    labels::Batch,
    series::Series,
};
use twilio_edge_domain::{check::Verdict, refusal::RefusalCode, suppression::Source};

/// Label of a check to which no rule objects.
const ALLOWED: &str = "allowed";

/// Upper bounds in seconds: a claim is answered in about a millisecond, and not at all after a few hundred.
const CLAIM_BUCKETS: [f64; 11] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];

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

/// The series of webhooks.
#[derive(Debug)]
pub struct WebhookMetrics {
    /// Claims by decision and class.
    claims: Series<Counter>,
    claim_seconds: Histogram,
    batches: Series<Histogram>,
    settlements: Family<Labels<2>, Counter>,
    opts: Family<Labels<1>, Counter>,
    suppressions: Family<Labels<2>, Counter>,
    checks: Family<Labels<1>, Counter>,
}

impl WebhookMetrics {
    pub(super) fn of(all: &mut Catalogue) -> WebhookMetrics {
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
        WebhookMetrics { claims, claim_seconds, batches, settlements, opts, suppressions, checks }
    }

    /// Creates every series with zero.
    pub(super) fn begin(&self) {
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

    /// Returns the number of claims of new webhooks, of duplicates, and of claims without a verdict.
    pub(super) fn verdicts(&self) -> [u64; 3] {
        let count = |decisions: &[Decision]| {
            let rows = self.claims.0.chunks(CLASSES.len()).zip(DECISIONS);
            let counted = rows.filter(|(_, decision)| decisions.contains(decision));
            counted.flat_map(|(classes, _)| classes).map(Counter::get).sum()
        };
        [
            count(&[Decision::Proceed, Decision::Accepted]),
            count(&[Decision::Duplicate]),
            count(&[Decision::Released, Decision::Unavailable]),
        ]
    }

    /// Records the duration of a batch of claims.
    pub fn claims_took(&self, time: Duration) {
        self.claim_seconds.observe(time.as_secs_f64());
    }

    /// Records the size of a batch.
    pub fn batched(&self, batch: Batch, count: usize) {
        self.batches.with(batch as usize, |histogram| histogram.observe(count as f64));
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
    use crate::{metrics::Metrics, store_metrics::Operation};

    #[test]
    fn series_of_a_list_is_found_by_its_position() {
        let metrics = Metrics::default();
        for (place, operation) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, place, "{operation:?}");
        }
        for (place, batch) in Batch::ALL.into_iter().enumerate() {
            assert_eq!(batch as usize, place, "{batch:?}");
        }
        for (n, decided) in DECISIONS.into_iter().enumerate() {
            for (m, class) in CLASSES.into_iter().enumerate() {
                (0..=n * 3 + m).for_each(|_| metrics.webhooks.claimed(decided, class));
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
