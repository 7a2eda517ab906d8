//! Metrics of media probes. Hosts and accounts are not labels, because callers could create any number of them.

use prometheus_client::metrics::{counter::Counter, family::Family};

use super::catalogue::{Catalogue, Labels};
use twilio_edge_domain::media::MediaProblemKind;

/// The series of media.
#[derive(Debug)]
pub struct MediaMetrics {
    checks: Family<Labels<1>, Counter>,
}

impl MediaMetrics {
    pub(super) fn of(all: &mut Catalogue) -> MediaMetrics {
        MediaMetrics {
            checks: all.counters(
                "media_checks",
                &["outcome"],
                "Media probes by outcome: `accepted`, `cached` from an earlier probe, or the reason why the media cannot be sent (docs/MEDIA.md)",
            ),
        }
    }

    /// Creates every series with zero.
    pub(super) fn begin(&self) {
        let wrong = MediaProblemKind::ALL.map(MediaProblemKind::as_str);
        for outcome in ["accepted", "cached"].into_iter().chain(wrong) {
            self.checks.get_or_create(&[("outcome", outcome)]).inc_by(0);
        }
    }

    /// Counts a probe by its outcome.
    pub fn checked(&self, outcome: &'static str) {
        self.checks.get_or_create(&[("outcome", outcome)]).inc();
    }
}
