//! Metrics of the template catalogue. Templates are not labels: an account may have thousands.

use prometheus_client::metrics::{counter::Counter, family::Family};

use super::catalogue::{Catalogue, Labels, Measure};
use twilio_edge_domain::template::catalogue::TemplateChange;

/// The series of templates.
#[derive(Debug)]
pub struct TemplateMetrics {
    syncs: Family<Labels<1>, Counter>,
    changes: Counter,
    age: Measure,
}

impl TemplateMetrics {
    pub(super) fn of(all: &mut Catalogue) -> TemplateMetrics {
        TemplateMetrics {
            syncs: all.counters(
                "template_syncs",
                &["outcome"],
                "Synchronizations of an account's templates with Twilio, by outcome: `read` or `failed`",
            ),
            changes: all.counter(
                "template_changes",
                "Templates that were added, removed or changed at Twilio; the audit log lists each one",
            ),
            age: all.measure(
                "templates_age_seconds",
                "Seconds since the templates of an account were last read from Twilio; the highest value of all accounts",
            ),
        }
    }

    /// Creates every series with zero.
    pub(super) fn begin(&self) {
        for outcome in ["read", "failed"] {
            self.syncs.get_or_create(&[("outcome", outcome)]).inc_by(0);
        }
    }

    /// Counts a synchronization of an account by its outcome, and its changes.
    pub fn synced(&self, outcome: &'static str, changes: &[TemplateChange]) {
        self.syncs.get_or_create(&[("outcome", outcome)]).inc();
        self.changes.inc_by(u64::try_from(changes.len()).unwrap_or_default());
    }

    /// Sets the age of the oldest catalogue; `oldest_ms` is the time of its synchronization, in milliseconds since 1970.
    pub fn read_at(&self, oldest_ms: i64, now_ms: i64) {
        let age_ms = now_ms.saturating_sub(oldest_ms).max(0);
        let age_ms = u64::try_from(age_ms).unwrap_or_default();
        self.age.set(std::time::Duration::from_millis(age_ms).as_secs_f64());
    }
}
