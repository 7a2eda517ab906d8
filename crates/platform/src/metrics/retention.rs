//! Metrics of the retention job.

use prometheus_client::metrics::{counter::Counter, family::Family};

use super::catalogue::{Catalogue, Labels, Measure, seconds};
use twilio_edge_domain::{part::Part, sweep_counts::SweepCounts};

/// The series of the retention job.
#[derive(Debug)]
pub struct RetentionMetrics {
    redacted: Family<Labels<1>, Counter>,
    deleted: Counter,
    retention_failures: Counter,
    retention_last_run: Measure,
    oldest_body_age: Measure,
}

impl RetentionMetrics {
    pub(super) fn of(all: &mut Catalogue) -> RetentionMetrics {
        RetentionMetrics {
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
        }
    }

    /// Creates every series with zero.
    pub(super) fn begin(&self) {
        for part in Part::ALL {
            self.redacted.get_or_create(&[("part", part.as_str())]).inc_by(0);
        }
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
    pub fn completed(&self, now_ms: i64) {
        self.retention_last_run.set(seconds(now_ms));
    }

    /// Counts a run of retention that failed.
    pub fn failed(&self) {
        self.retention_failures.inc();
    }

    /// Sets the age of the oldest stored message text, in milliseconds.
    pub fn oldest_body(&self, age_ms: i64) {
        self.oldest_body_age.set(seconds(age_ms));
    }
}
