//! Journal, the single writer of the ledger's events. An event is in the spool, if there is one, before its answer, and is
//! written to SQL a moment later. Most events meet their own settlement in between: a webhook that arrives and is accepted
//! is one insert, in a batch of many. Until SQL has an event, the journal answers for it.
//!
//! This module decides what happens when the queue is full, when the database is unavailable or refuses a row, and when the
//! process stops. It must not know what an event means.

mod queue;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use self::queue::{Batch, Limits, PendingRow, Queue, Step, UrgentWrite};
use super::{
    event::{Event, EventRow},
    ledger::{Ledger, each_once},
    spool::{Spool, SpoolPosition},
};
use crate::error::StoreError;
use twilio_edge_domain::lease::Lease;
use twilio_edge_platform::{
    config,
    metrics::{self, Metrics},
    store_metrics::Operation,
    tasks::{Supervisor, Task, TaskHandle},
};

/// Minimum and maximum delay between two attempts to reach an unavailable database.
const RETRY: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(2)];

/// Handle of the journal. The writer ends after it is closed and everything is written.
#[derive(Clone)]
pub(super) struct Journal {
    shared: Arc<Shared>,
}

/// Handle of the writer task, to await after everything else has stopped.
pub(super) struct Writer {
    shared: Arc<Shared>,
    task: TaskHandle,
}

struct Shared {
    ledger: Arc<Ledger>,
    /// `None` where pending events may be lost with the process.
    spool: Option<Spool>,
    metrics: Arc<Metrics>,
    limits: Limits,
    linger: Duration,
    timeout: Duration,
    waiting: Mutex<Queue>,
    /// Wakes the writer after a change of `waiting`.
    changed: Notify,
}

impl Journal {
    pub(super) fn start(
        settings: &config::Events,
        timeout: Duration,
        ledger: Arc<Ledger>,
        spool: Option<Spool>,
        metrics: Arc<Metrics>,
        tasks: &Supervisor,
    ) -> (Journal, Writer) {
        let shared = Arc::new(Shared {
            ledger,
            spool,
            metrics,
            limits: Limits { queue: settings.queue, batch: settings.batch },
            linger: Duration::from_millis(settings.linger_ms),
            timeout,
            waiting: Mutex::default(),
            changed: Notify::new(),
        });
        let task = tasks.spawn_owned(Task::JournalWriter, run(shared.clone()));
        (Journal { shared: shared.clone() }, Writer { shared, task })
    }

    /// Queues events for a later write; they survive the end of this process when the call returns. It returns immediately
    /// while the queue and the spool have room. Events without room are written before the answer: the load then runs at
    /// the database's speed and loses nothing.
    pub(super) async fn note(&self, events: &[Event<'_>]) -> Result<(), StoreError> {
        if events.is_empty() {
            return Ok(());
        }
        let place = match &self.shared.spool {
            Some(spool) => match spool.keep(events) {
                Some(place) => Some(place),
                None => return self.write(events.to_vec()).await,
            },
            None => None,
        };
        let rest = self.shared.wait(events, place);
        if rest.is_empty() { Ok(()) } else { self.write(rest).await }
    }

    /// Writes events, each merged with the pending row of the same webhook. Durable on return; on failure, pending rows
    /// remain pending.
    pub(super) async fn write(&self, events: Vec<Event<'_>>) -> Result<(), StoreError> {
        let (written, answered) = oneshot::channel();
        let rows = events.into_iter().map(EventRow::of).collect();
        self.shared.waiting().push_urgent(UrgentWrite { rows, written });
        self.shared.changed.notify_one();
        match tokio::time::timeout(self.shared.timeout, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(StoreError::Unavailable("the sidecar is stopping".into())),
            Err(_) => {
                Err(StoreError::Unavailable(format!("no answer within {:?}", self.shared.timeout)))
            }
        }
    }

    /// Returns whether queued events survive the end of this process.
    pub(super) fn is_spooled(&self) -> bool {
        self.shared.spool.is_some()
    }

    /// Returns the leases of the events among `keys` that the ledger does not have yet; `result_ms` is the time to live of a
    /// result. A caller that reads the ledger too must do so afterwards, because an event may be written meanwhile.
    pub(super) fn leases<'a>(
        &self,
        keys: impl Iterator<Item = &'a str>,
        result_ms: i64,
    ) -> HashMap<String, Lease> {
        let waiting = self.shared.waiting();
        keys.filter_map(|key| Some((key.to_owned(), waiting.lease(key, result_ms)?))).collect()
    }

    /// Returns the keys whose events the ledger does not have yet. The ledger must be read afterwards.
    pub(super) fn pending<'a>(&self, keys: impl Iterator<Item = &'a String>) -> Vec<String> {
        let waiting = self.shared.waiting();
        keys.filter(|key| waiting.contains(key)).cloned().collect()
    }

    /// Passes each received inbound message that the ledger does not have yet to `visit`, in no order. The ledger must be read
    /// afterwards.
    pub(super) fn visit_inbound(&self, visit: impl FnMut(Event<'_>)) {
        self.shared.waiting().inbound().for_each(visit);
    }

    /// Returns the age of the oldest pending row.
    pub(super) fn age(&self) -> Duration {
        let waiting = self.shared.waiting();
        if waiting.len() == 0 {
            return Duration::ZERO;
        }
        let noted = waiting.first_due().and_then(|due| due.checked_sub(self.shared.linger));
        let since = noted.into_iter().chain(waiting.stalled).min();
        since.map(|since| since.elapsed()).unwrap_or_default()
    }

    /// Writes all pending rows, and waits for the batch that is being written.
    pub(super) async fn flush(&self) -> Result<(), StoreError> {
        let is_idle = self.shared.waiting().is_idle();
        if is_idle { Ok(()) } else { self.write(Vec::new()).await }
    }
}

impl Writer {
    /// Waits until everything is written. Returns `false` when that took longer than `limit`.
    pub(super) async fn finish(self, limit: Duration) -> bool {
        self.task.expect_end();
        self.shared.waiting().is_closing = true;
        self.shared.changed.notify_one();
        let finished = self.task.finish(limit).await;
        if let Some(spool) = &self.shared.spool {
            spool.close();
        }
        finished
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Queue> {
        // No code panics while it holds this lock.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues events while there is room. Returns the events that did not fit.
    fn wait<'a>(&self, events: &[Event<'a>], place: Option<SpoolPosition>) -> Vec<Event<'a>> {
        let (mut rest, mut free) = (Vec::new(), Vec::new());
        let mut waiting = self.waiting();
        let due = Instant::now() + self.linger;
        let is_unscheduled = waiting.is_unscheduled();
        for event in events {
            if waiting.join(event, place, true, &mut free) {
                continue;
            }
            if waiting.len() < self.limits.queue {
                waiting.push(event, place, due);
            } else {
                free.extend(place);
                rest.push(*event);
            }
        }
        self.metrics.journal.queued(waiting.len());
        if is_unscheduled || waiting.is_crowded(self.limits) {
            self.changed.notify_one();
        }
        drop(waiting);
        self.free(free);
        rest
    }

    /// Releases spool places.
    fn free(&self, places: Vec<SpoolPosition>) {
        if let Some(spool) = self.spool.as_ref().filter(|_| !places.is_empty()) {
            spool.forget(places);
        }
    }

    async fn write(&self, batch: Batch) -> bool {
        let urgent = batch.urgent.iter().flat_map(|urgent| &urgent.rows);
        let all = batch.rows.iter().map(|noted| &*noted.row).chain(urgent);
        match self.keep(all).await {
            Ok(()) => {
                batch.urgent.into_iter().for_each(|urgent| {
                    let _ = urgent.written.send(Ok(()));
                });
                self.free(batch.rows.into_iter().filter_map(|noted| noted.place).collect());
                true
            }
            // One refused row must not fail the others: each caller's rows and each pending row are written separately.
            Err(StoreError::Refused(_)) => {
                for urgent in batch.urgent {
                    let _ = urgent.written.send(self.keep(urgent.rows.iter()).await);
                }
                let mut there = true;
                for noted in batch.rows {
                    match self.keep(std::iter::once(&*noted.row)).await {
                        Ok(()) => self.free(noted.place.into_iter().collect()),
                        Err(StoreError::Unavailable(_)) => {
                            self.put_back(vec![noted]);
                            there = false;
                        }
                        Err(reason) => {
                            self.metrics.journal.event_refused();
                            tracing::error!(event = "event.rejected", %reason, "the database rejected an event; the event is lost");
                            self.free(noted.place.into_iter().collect());
                        }
                    }
                }
                there
            }
            Err(reason) => {
                batch.urgent.into_iter().for_each(|urgent| {
                    let _ = urgent.written.send(Err(reason.clone()));
                });
                tracing::warn!(event = "events.persist_failed", %reason, count = batch.rows.len(), "the database did not store events; they wait");
                self.put_back(batch.rows);
                false
            }
        }
    }

    async fn keep(&self, rows: impl Iterator<Item = &EventRow>) -> Result<(), StoreError> {
        let mut rows: Vec<&EventRow> = rows.collect();
        if rows.is_empty() {
            return Ok(());
        }
        // An event is some hundred bytes to move, and the statement needs this order.
        rows.sort_by_key(|row| row.dedupe_key());
        let events = each_once(rows.into_iter().map(EventRow::event).collect());
        let keep = self.ledger.write_events(&events);
        self.metrics.stores.timed(Operation::LedgerWrite, keep).await?;
        self.metrics.journal.events_written(events.len());
        self.metrics.webhooks.batched(metrics::Batch::Events, events.len());
        Ok(())
    }

    fn put_back(&self, rows: Vec<PendingRow>) {
        let mut free = Vec::new();
        self.waiting().put_back(rows, Instant::now(), &mut free);
        self.free(free);
    }
}

async fn run(shared: Arc<Shared>) {
    let [first, longest] = RETRY;
    let mut pause = first;
    loop {
        let step = shared.waiting().next(Instant::now(), shared.limits);
        match step {
            Step::Write(batch) => {
                let there = shared.write(batch).await;
                let mut waiting = shared.waiting();
                waiting.end();
                let since = waiting.stalled.unwrap_or_else(Instant::now);
                waiting.stalled = (!there).then_some(since);
                waiting.retry_at = (!there).then(|| Instant::now() + pause);
                pause = if there { first } else { (pause * 2).min(longest) };
                shared.metrics.journal.queued(waiting.len());
            }
            Step::Wait(Some(until)) => {
                tokio::select! {
                    () = shared.changed.notified() => {}
                    () = tokio::time::sleep_until(until) => {}
                }
            }
            Step::Wait(None) => shared.changed.notified().await,
            Step::End => return,
        }
    }
}
