//! Metrics of background tasks and of panics. Both count defects of this program.

use prometheus_client::metrics::{counter::Counter, family::Family};

use super::catalogue::{Catalogue, Labels};

/// The series of background tasks.
#[derive(Debug)]
pub struct TaskMetrics {
    failures: Family<Labels<1>, Counter>,
    panics: Counter,
}

impl TaskMetrics {
    pub(super) fn of(all: &mut Catalogue) -> TaskMetrics {
        TaskMetrics {
            failures: all.counters(
                "background_task_failures",
                &["task"],
                "Background tasks that panicked or ended too early, by task (docs/ARCHITECTURE.md); the sidecar then shuts down",
            ),
            panics: all.counter(
                "panics",
                "Panics of the program, in background tasks and elsewhere; each is a defect",
            ),
        }
    }

    /// Creates the series of a task with zero.
    pub(crate) fn begin(&self, task: &'static str) {
        self.failures.get_or_create(&[("task", task)]).inc_by(0);
    }

    /// Counts the failure of a task.
    pub(crate) fn failed(&self, task: &'static str) {
        self.failures.get_or_create(&[("task", task)]).inc();
    }

    /// Counts a panic.
    pub(crate) fn panicked(&self) {
        self.panics.inc();
    }
}
