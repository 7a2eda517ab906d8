//! Metrics of events on their way to the database: queue and spool.

use std::time::Duration;

use prometheus_client::metrics::{counter::Counter, gauge::Gauge};

use super::catalogue::{Catalogue, Measure};

/// The series of the journal and its spool.
#[derive(Debug)]
pub struct JournalMetrics {
    queue_depth: Gauge,
    queue_age: Measure,
    events_written: Counter,
    events_refused: Counter,
    spool_bytes: Gauge,
    spool_refuses: Gauge,
    spool_replayed: Counter,
    spool_torn: Counter,
}

impl JournalMetrics {
    pub(super) fn of(all: &mut Catalogue) -> JournalMetrics {
        JournalMetrics {
            queue_depth: all.gauge("event_queue_depth", "Events that wait to be written to the database; the spool contains the same events"),
            queue_age: all.measure(
                "event_queue_age_seconds",
                "Age in seconds of the oldest event that waits in memory and in the spool",
            ),
            events_written: all.counter("events_written", "Events written to the database"),
            events_refused: all.counter("events_rejected", "Events that the database rejected; they are lost"),
            spool_bytes: all.gauge(
                "spool_bytes",
                "Size of the spool in bytes; the spool contains events that are not in the database yet",
            ),
            spool_refuses: all.gauge(
                "spool_unavailable",
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
        }
    }

    /// Sets the number of events that wait to be written.
    pub fn queued(&self, waiting: usize) {
        self.queue_depth.set(i64::try_from(waiting).unwrap_or(i64::MAX));
    }

    /// Returns the number of events that wait to be written, and the age of the oldest in seconds.
    pub fn queue(&self) -> (i64, f64) {
        (self.queue_depth.get(), self.queue_age.get())
    }

    /// Sets the age of the oldest event that waits to be written.
    pub fn queue_is_old(&self, age: Duration) {
        self.queue_age.set(age.as_secs_f64());
    }

    /// Counts events that were written.
    pub fn events_written(&self, count: usize) {
        self.events_written.inc_by(count as u64);
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

    /// Returns the number of events that wait to be written.
    pub fn events_waiting(&self) -> usize {
        usize::try_from(self.queue_depth.get()).unwrap_or_default()
    }
}
