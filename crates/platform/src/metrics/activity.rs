//! Recent activity of this sidecar for people who watch it: the increase of a few counters in each interval of the last hour. It
//! is in memory and bounded. Prometheus has the same counters for longer, and of all sidecars.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::Metrics;
use crate::clock::now_ms;

/// Length of an interval.
pub const INTERVAL: Duration = Duration::from_secs(30);

/// Number of intervals in memory: one hour.
const KEPT: usize = 120;

/// Counts of webhooks and deliveries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ActivityCounts {
    /// Webhooks that were new.
    pub new: u64,
    /// Copies of accepted webhooks.
    pub duplicates: u64,
    /// Claims without a verdict, because the stores were unavailable or the claim had ended.
    pub undecided: u64,
    /// Deliveries that sinks accepted.
    pub delivered: u64,
    /// Attempts of deliveries that failed and are retried.
    pub delivery_failures: u64,
    /// Deliveries that were given up.
    pub dead_letters: u64,
}

impl ActivityCounts {
    fn since(self, earlier: ActivityCounts) -> ActivityCounts {
        ActivityCounts {
            new: self.new.saturating_sub(earlier.new),
            duplicates: self.duplicates.saturating_sub(earlier.duplicates),
            undecided: self.undecided.saturating_sub(earlier.undecided),
            delivered: self.delivered.saturating_sub(earlier.delivered),
            delivery_failures: self.delivery_failures.saturating_sub(earlier.delivery_failures),
            dead_letters: self.dead_letters.saturating_sub(earlier.dead_letters),
        }
    }
}

/// Activity of one interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActivityInterval {
    /// End of the interval, in milliseconds since 1970.
    pub until_ms: i64,
    /// Counts of the interval.
    pub counts: ActivityCounts,
}

/// Intervals in memory, and the totals at the end of the last one.
#[derive(Debug, Default)]
pub(super) struct ActivityLog {
    state: Mutex<(ActivityCounts, VecDeque<ActivityInterval>)>,
}

impl ActivityLog {
    fn end_interval(&self, totals: ActivityCounts, until_ms: i64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, intervals) = &mut *state;
        if intervals.len() >= KEPT {
            intervals.pop_front();
        }
        intervals.push_back(ActivityInterval { until_ms, counts: totals.since(*last) });
        *last = totals;
    }

    /// Returns the intervals, the oldest first, and the current one as the last.
    fn intervals(&self, totals: ActivityCounts, now_ms: i64) -> Vec<ActivityInterval> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, intervals) = &*state;
        let current = ActivityInterval { until_ms: now_ms, counts: totals.since(*last) };
        intervals.iter().copied().chain([current]).collect()
    }
}

impl Metrics {
    /// Records the activity of this sidecar.
    pub async fn record_activity(self: Arc<Metrics>) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            self.activity.end_interval(self.totals(), now_ms());
        }
    }

    /// Returns the activity of the last hour, the oldest interval first.
    pub fn activity(&self) -> Vec<ActivityInterval> {
        self.activity.intervals(self.totals(), now_ms())
    }

    fn totals(&self) -> ActivityCounts {
        let [new, duplicates, undecided] = self.webhooks.verdicts();
        let [delivered, delivery_failures, dead_letters] = self.sinks.outcomes();
        ActivityCounts { new, duplicates, undecided, delivered, delivery_failures, dead_letters }
    }
}

#[cfg(test)]
mod tests {
    use twilio_edge_contract::{Class, Decision};
    use twilio_edge_domain::delivery::NextStep;

    use super::*;

    #[test]
    fn interval_has_the_increase_of_its_counters() {
        let metrics = Metrics::default();
        metrics.webhooks.claimed(Decision::Proceed, Class::Inbound);
        metrics.webhooks.claimed(Decision::Duplicate, Class::Status);
        metrics.activity.end_interval(metrics.totals(), 1_000);
        metrics.webhooks.claimed(Decision::Accepted, Class::Inbound);
        metrics.webhooks.claimed(Decision::Unavailable, Class::Inbound);
        metrics.sinks.tried("crm", &NextStep::Done);
        metrics.sinks.tried("shop", &NextStep::Done);
        metrics.sinks.tried("shop", &NextStep::DeadLetter);
        let counts: Vec<ActivityCounts> =
            metrics.activity().iter().map(|interval| interval.counts).collect();
        let first = ActivityCounts { new: 1, duplicates: 1, ..ActivityCounts::default() };
        let current = ActivityCounts {
            new: 1,
            undecided: 1,
            delivered: 2,
            dead_letters: 1,
            ..ActivityCounts::default()
        };
        assert_eq!(counts, [first, current]);
    }

    #[test]
    fn intervals_are_bounded() {
        let log = ActivityLog::default();
        for n in 0..3 * KEPT {
            log.end_interval(ActivityCounts::default(), i64::try_from(n).unwrap());
        }
        let intervals = log.intervals(ActivityCounts::default(), 0);
        assert_eq!(intervals.len(), KEPT + 1);
        assert_eq!(intervals[0].until_ms, i64::try_from(2 * KEPT).unwrap());
    }
}
