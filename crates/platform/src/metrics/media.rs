//! Metrics of media: probes, and fetches of media of inbound messages. Hosts and accounts are not labels, because callers could create any number of them.

use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};

use super::catalogue::{Catalogue, Labels, Measure, seconds};
use twilio_edge_domain::media::{MediaProblemKind, inbound::FetchFailure};

/// The series of media.
#[derive(Debug)]
pub struct MediaMetrics {
    checks: Family<Labels<1>, Counter>,
    fetches: Family<Labels<2>, Counter>,
    deletions: Family<Labels<1>, Counter>,
    pending: Gauge,
    oldest: Measure,
}

impl MediaMetrics {
    pub(super) fn of(all: &mut Catalogue) -> MediaMetrics {
        MediaMetrics {
            checks: all.counters(
                "media_checks",
                &["outcome"],
                "Media probes by outcome: `accepted`, `cached` from an earlier probe, or the reason why the media cannot be sent (docs/MEDIA.md)",
            ),
            fetches: all.counters(
                "inbound_media_fetches",
                &["result", "code"],
                "Fetches of media of inbound messages: `stored`, `failed` (repeated later) or `refused` (given up), with the code of the failure (docs/MEDIA.md)",
            ),
            deletions: all.counters(
                "inbound_media_deletions",
                &["result"],
                "Attempts to delete media of inbound messages at Twilio: `deleted`, `retried` or `failed` (given up)",
            ),
            pending: all.gauge(
                "inbound_media_pending",
                "Media of inbound messages that are not fetched yet, of all sidecars",
            ),
            oldest: all.measure(
                "inbound_media_oldest_age_seconds",
                "Age in seconds of the oldest medium of an inbound message that is not fetched yet; 0 if all are fetched",
            ),
        }
    }

    /// Creates every series with zero.
    pub(super) fn begin(&self) {
        let wrong = MediaProblemKind::ALL.map(MediaProblemKind::as_str);
        for outcome in ["accepted", "cached"].into_iter().chain(wrong) {
            self.checks.get_or_create(&[("outcome", outcome)]).inc_by(0);
        }
        self.fetches.get_or_create(&[("result", "stored"), ("code", "")]).inc_by(0);
        for code in FetchFailure::ALL.map(FetchFailure::as_str) {
            for result in ["failed", "refused"] {
                self.fetches.get_or_create(&[("result", result), ("code", code)]).inc_by(0);
            }
        }
        for result in ["deleted", "retried", "failed"] {
            self.deletions.get_or_create(&[("result", result)]).inc_by(0);
        }
    }

    /// Counts a stored medium of an inbound message.
    pub fn stored(&self) {
        self.fetches.get_or_create(&[("result", "stored"), ("code", "")]).inc();
    }

    /// Counts a failed fetch of a medium of an inbound message.
    pub fn fetch_failed(&self, failure: FetchFailure, is_given_up: bool) {
        let result = if is_given_up { "refused" } else { "failed" };
        self.fetches.get_or_create(&[("result", result), ("code", failure.as_str())]).inc();
    }

    /// Counts an attempt to delete a medium at Twilio by its result.
    pub fn deleted(&self, result: &'static str) {
        self.deletions.get_or_create(&[("result", result)]).inc();
    }

    /// Sets the number of media that are not fetched yet, and the age of the oldest one.
    pub fn backlog(&self, pending: i64, oldest_age_ms: i64) {
        self.pending.set(pending);
        self.oldest.set(seconds(oldest_age_ms));
    }

    /// Counts a probe by its outcome.
    pub fn checked(&self, outcome: &'static str) {
        self.checks.get_or_create(&[("outcome", outcome)]).inc();
    }
}
