//! What is counted of messages that are sent. Senders are not named: callers could make any number of them.

use std::time::Duration;

use prometheus_client::metrics::{counter::Counter, family::Family, gauge::Gauge};

use super::catalogue::{Catalogue, Labels, Measure};
use crate::{domain::sending::errors::To, store::SendsStanding};

const OUTCOMES: [&str; 4] = ["sent", "refused", "retried", "unknown"];

/// The series of sending.
#[derive(Debug)]
pub(crate) struct SendMetrics {
    outcomes: Family<Labels<1>, Counter>,
    reconciled: Family<Labels<1>, Counter>,
    switched: Family<Labels<1>, Counter>,
    calls: Counter,
    call_seconds: Counter<f64, std::sync::atomic::AtomicU64>,
    unknowns: Gauge,
    oldest: Measure,
}

impl SendMetrics {
    pub(super) fn of(all: &mut Catalogue) -> SendMetrics {
        SendMetrics {
            outcomes: all.counters(
                "sends",
                &["outcome"],
                "Attempts to send a message: `sent`, `refused` for good, `retried` later, `unknown` (docs/SENDING.md)",
            ),
            reconciled: all.counters(
                "sends_reconciled",
                &["by"],
                "Messages of which something was learned later: Twilio told a status (`callback`), has it in its list (`found`), or never had it, and it is sent again (`absent`)",
            ),
            switched: all.counters(
                "sends_switched",
                &["to"],
                "Messages that are sent instead of one that its channel did not take: a `template`, or on another `channel` (docs/SENDING.md)",
            ),
            calls: all.counter("twilio_calls", "Calls of Twilio's REST API that have ended"),
            call_seconds: all.add(
                "twilio_call_seconds",
                "counter",
                &[],
                "Time these calls took",
                Counter::default(),
            ),
            unknowns: all.gauge(
                "sends_unknown",
                "Messages of which nobody knows whether they were sent",
            ),
            oldest: all.measure(
                "send_queue_age_seconds",
                "For how long the message is due that is due longest",
            ),
        }
    }

    /// So that each series is there, at zero.
    pub(super) fn begin(&self) {
        for outcome in OUTCOMES {
            self.outcomes.get_or_create(&[("outcome", outcome)]).inc_by(0);
        }
        for to in [To::Template, To::Channel] {
            self.switched.get_or_create(&[("to", to.as_str())]).inc_by(0);
        }
        for by in ["callback", "found", "absent"] {
            self.reconciled(by, 0);
        }
    }

    /// An attempt has ended.
    pub(crate) fn ended(&self, outcome: &'static str) {
        self.outcomes.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// Attempts whose sidecar has died.
    pub(crate) fn unknown(&self, count: u64) {
        self.outcomes.get_or_create(&[("outcome", "unknown")]).inc_by(count);
    }

    /// Something was learned of messages.
    pub(crate) fn reconciled(&self, by: &'static str, count: u64) {
        self.reconciled.get_or_create(&[("by", by)]).inc_by(count);
    }

    /// Another message is sent instead.
    pub(crate) fn switched(&self, to: To) {
        self.switched.get_or_create(&[("to", to.as_str())]).inc();
    }

    /// A call has ended.
    pub(crate) fn called(&self, took: Duration) {
        self.calls.inc();
        self.call_seconds.inc_by(took.as_secs_f64());
    }

    /// How it stands now.
    pub(crate) fn stand(&self, standing: &SendsStanding, now_ms: i64) {
        self.unknowns.set(standing.unknowns);
        let since = match standing.oldest_due_ms {
            0 => 0,
            due_ms => now_ms.saturating_sub(due_ms).max(0),
        };
        self.oldest
            .set(Duration::from_millis(u64::try_from(since).unwrap_or_default()).as_secs_f64());
    }
}
