//! Metrics of the archive.

use prometheus_client::metrics::counter::Counter;

use super::catalogue::{Catalogue, Measure, seconds};

/// The series of the archive.
#[derive(Debug)]
pub struct ArchiveMetrics {
    archived: Counter,
    erased: Counter,
    failures: Counter,
    oldest: Measure,
}

impl ArchiveMetrics {
    pub(super) fn of(all: &mut Catalogue) -> ArchiveMetrics {
        ArchiveMetrics {
            archived: all.counter("archived", "Webhooks written to the archive (docs/ARCHIVE.md)"),
            erased: all.counter(
                "archive_erased",
                "Webhooks erased from the archive because they were redacted",
            ),
            failures: all.counter(
                "archive_failures",
                "Failed attempts to archive webhooks, because the archive or the database failed; the webhooks wait",
            ),
            oldest: all.measure(
                "archive_oldest_age_seconds",
                "Age in seconds of the oldest webhook that is not archived yet; 0 if all are archived",
            ),
        }
    }

    pub fn archived(&self, count: usize) {
        self.archived.inc_by(count as u64);
    }

    pub fn erased(&self, count: usize) {
        self.erased.inc_by(count as u64);
    }

    pub fn failed(&self) {
        self.failures.inc();
    }

    pub fn oldest(&self, age_ms: i64) {
        self.oldest.set(seconds(age_ms));
    }
}
