//! Metrics of deliveries. The operator names the sinks; there are at most a few dozen.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};

use super::catalogue::{Catalogue, Measure};
use twilio_edge_domain::delivery::NextStep;

const OUTCOMES: [&str; 3] = ["delivered", "failed", "dead"];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SinkLabel {
    sink: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeliveryLabel {
    sink: String,
    outcome: &'static str,
}

/// The series of all sinks.
#[derive(Debug)]
pub struct SinkMetrics {
    deliveries: Family<DeliveryLabel, Counter>,
    /// Deliveries of all sinks by outcome.
    outcomes: [AtomicU64; 3],
    unavailable: Family<SinkLabel, Gauge>,
    oldest_dead: Family<SinkLabel, Measure>,
}

impl SinkMetrics {
    pub(super) fn of(all: &mut Catalogue) -> SinkMetrics {
        let unavailable =
            "1 while deliveries to a sink pause because it did not answer; otherwise 0";
        SinkMetrics {
            outcomes: Default::default(),
            deliveries: all.counters(
                "deliveries",
                &["sink", "outcome"],
                "Delivery attempts by sink and outcome: `delivered`, `failed`, `dead` (docs/DELIVERY.md)",
            ),
            unavailable: all.add(
                "sink_unavailable",
                "gauge",
                &["sink"],
                unavailable,
                Family::default(),
            ),
            oldest_dead: all.add(
                "dead_letter_oldest_age_seconds",
                "gauge",
                &["sink"],
                "Seconds that the oldest dead letter of a sink has waited for a decision; 0 if there are none",
                Family::default(),
            ),
        }
    }

    /// Creates the series of a sink with zero.
    pub fn begin(&self, sink: &str) {
        for outcome in OUTCOMES {
            let label = DeliveryLabel { sink: sink.to_owned(), outcome };
            self.deliveries.get_or_create(&label).inc_by(0);
        }
        self.is_open(sink, false);
        self.oldest_dead(sink, Duration::ZERO);
    }

    /// Sets the age of the oldest dead letter.
    pub fn oldest_dead(&self, sink: &str, age: Duration) {
        let label = SinkLabel { sink: sink.to_owned() };
        self.oldest_dead.get_or_create(&label).set(age.as_secs_f64());
    }

    pub fn tried(&self, sink: &str, next: &NextStep) {
        let [delivered, failed, dead] = OUTCOMES;
        let [all_delivered, all_failed, all_dead] = &self.outcomes;
        let (outcome, all) = match next {
            NextStep::Done => (delivered, all_delivered),
            NextStep::RetryAt(_) => (failed, all_failed),
            NextStep::DeadLetter => (dead, all_dead),
        };
        all.fetch_add(1, Ordering::Relaxed);
        self.deliveries.get_or_create(&DeliveryLabel { sink: sink.to_owned(), outcome }).inc();
    }

    /// Returns the number of attempts of all sinks by outcome: delivered, failed, given up.
    pub(super) fn outcomes(&self) -> [u64; 3] {
        self.outcomes.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    /// Returns whether deliveries to the sink pause because it did not answer.
    pub fn is_unavailable(&self, sink: &str) -> bool {
        self.unavailable.get_or_create(&SinkLabel { sink: sink.to_owned() }).get() != 0
    }

    /// Sets whether the circuit breaker of the sink is open.
    pub fn is_open(&self, sink: &str, is_open: bool) {
        let label = SinkLabel { sink: sink.to_owned() };
        self.unavailable.get_or_create(&label).set(is_open.into());
    }
}
