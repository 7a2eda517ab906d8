//! Journal, the single writer of the ledger's events. An event that may be written after its answer waits here briefly.
//! Most events meet their own settlement there: a webhook that arrives and is accepted within that time is one insert,
//! durable before its settlement is answered. Pending events are also in the spool, if there is one, so that they survive
//! this process.
//!
//! This module decides what happens when the queue is full, when the database is unavailable or refuses a row, and when the
//! process stops. It must not know what an event means.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use super::{
    event::{Event, EventRow},
    ledger::{Ledger, each_once},
    spool::{Spool, SpoolPosition},
};
use crate::error::StoreError;
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
    queue: usize,
    batch: usize,
    linger: Duration,
    timeout: Duration,
    waiting: Mutex<PendingRows>,
    /// Wakes the writer after a change of `waiting`.
    changed: Notify,
}

#[derive(Default)]
struct PendingRows {
    /// Rows that may be written later, by dedupe key.
    rows: HashMap<Arc<str>, PendingRow>,
    /// Due time of each row, in order. A key that is missing from `rows` was written with an urgent batch.
    due: VecDeque<(Instant, Arc<str>)>,
    urgent: Vec<UrgentWrite>,
    /// Set while a batch is being written; its rows are no longer in `rows`.
    is_writing: bool,
    /// Earliest time of the next deferred write, set while the database is unavailable.
    retry_at: Option<Instant>,
    /// Time since which the database accepts nothing. Rows that were put back are at least this old.
    stalled: Option<Instant>,
    closing: bool,
}

/// A pending row.
struct PendingRow {
    row: EventRow,
    /// The first spool file that contains part of the row.
    place: Option<SpoolPosition>,
}

/// Rows that a caller waits for. An empty list requests everything that is pending.
struct UrgentWrite {
    rows: Vec<EventRow>,
    written: oneshot::Sender<Result<(), StoreError>>,
}

/// Rows that are written in one transaction.
#[derive(Default)]
struct Batch {
    urgent: Vec<UrgentWrite>,
    /// Pending rows that were due or belong to the urgent ones.
    rows: Vec<PendingRow>,
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
            queue: settings.queue,
            batch: settings.batch,
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
        self.shared.waiting().urgent.push(UrgentWrite { rows, written });
        self.shared.changed.notify_one();
        match tokio::time::timeout(self.shared.timeout, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(StoreError::Unavailable("the sidecar is stopping".into())),
            Err(_) => {
                Err(StoreError::Unavailable(format!("no answer within {:?}", self.shared.timeout)))
            }
        }
    }

    /// Returns the age of the oldest pending row.
    pub(super) fn age(&self) -> Duration {
        let waiting = self.shared.waiting();
        if waiting.rows.is_empty() {
            return Duration::ZERO;
        }
        let first = waiting.due.iter().find(|(_, key)| waiting.rows.contains_key(key));
        let noted = first.and_then(|(due, _)| due.checked_sub(self.shared.linger));
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
        self.shared.waiting().closing = true;
        self.shared.changed.notify_one();
        let finished = self.task.finish(limit).await;
        if let Some(spool) = &self.shared.spool {
            spool.close();
        }
        finished
    }
}

impl PendingRows {
    fn is_idle(&self) -> bool {
        self.rows.is_empty() && !self.is_writing
    }

    /// Merges an event into the pending row of the same webhook. With `later`, the event follows the row, else it precedes
    /// it. Returns `false` if no row is pending. A spool place that is no longer needed is added to `free`.
    fn join(
        &mut self,
        event: &Event<'_>,
        place: Option<SpoolPosition>,
        later: bool,
        free: &mut Vec<SpoolPosition>,
    ) -> bool {
        let Some(known) = self.rows.get_mut(event.dedupe_key) else { return false };
        let mut places = [known.place, place];
        places.sort();
        let [one, other] = places;
        let waiting = known.row.event();
        let merged = if later { waiting.merge(*event) } else { event.merge(waiting) };
        // Spool files are deleted in order, so the first place also protects the data at the other one.
        *known = PendingRow { row: EventRow::of(merged), place: one.or(other) };
        free.extend(one.and(other));
        true
    }

    /// Takes up to `most` rows, oldest first: the rows that are due at `until`, or any rows without it.
    fn take_due(&mut self, until: Option<Instant>, most: usize, rows: &mut Vec<PendingRow>) {
        let most = most.saturating_add(rows.len());
        while let Some((due, key)) = self.due.pop_front() {
            let is_due = until.is_none_or(|until| due <= until);
            if (rows.len() >= most || !is_due) && self.rows.contains_key(&key) {
                self.due.push_front((due, key));
                return;
            }
            rows.extend(self.rows.remove(&key));
        }
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, PendingRows> {
        // No code panics while it holds this lock.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues events while there is room. Returns the events that did not fit.
    fn wait<'a>(&self, events: &[Event<'a>], place: Option<SpoolPosition>) -> Vec<Event<'a>> {
        let (mut rest, mut free) = (Vec::new(), Vec::new());
        let mut waiting = self.waiting();
        let due = Instant::now() + self.linger;
        let idle = waiting.due.is_empty();
        for event in events {
            if waiting.join(event, place, true, &mut free) {
                continue;
            }
            if waiting.rows.len() < self.queue {
                let key: Arc<str> = event.dedupe_key.into();
                waiting.due.push_back((due, key.clone()));
                waiting.rows.insert(key, PendingRow { row: EventRow::of(*event), place });
            } else {
                free.extend(place);
                rest.push(*event);
            }
        }
        self.metrics.journal.queued(waiting.rows.len());
        if idle || waiting.rows.len() >= self.batch {
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

    /// Returns the batch to write now, or else the time until which to wait (`None`: until a change). Returns `None` when
    /// the journal is closed and everything is written.
    fn next(&self) -> Option<Result<Batch, Option<Instant>>> {
        let mut waiting = self.waiting();
        let now = Instant::now();
        let urgent = std::mem::take(&mut waiting.urgent);
        let asked_for_all = urgent.iter().any(|urgent| urgent.rows.is_empty());
        let all = waiting.closing || asked_for_all;
        let may_retry = asked_for_all || waiting.retry_at.is_none_or(|at| at <= now);
        let full = waiting.rows.len() >= self.batch.min(self.queue);
        let mut rows: Vec<PendingRow> = Vec::new();
        for row in urgent.iter().flat_map(|urgent| &urgent.rows) {
            rows.extend(waiting.rows.remove(row.dedupe_key()));
        }
        if may_retry {
            let most = if all { usize::MAX } else { self.batch };
            let due_until = if all || full { None } else { Some(now) };
            waiting.take_due(due_until, most, &mut rows);
        }
        if !urgent.is_empty() || !rows.is_empty() {
            waiting.is_writing = true;
            return Some(Ok(Batch { urgent, rows }));
        }
        let due = waiting.due.front().map(|(due, _)| *due);
        match (waiting.closing, due) {
            (true, None) => None,
            _ => Some(Err(due.map(|due| waiting.retry_at.map_or(due, |at| at.max(due))))),
        }
    }

    async fn write(&self, batch: Batch) -> bool {
        let urgent = batch.urgent.iter().flat_map(|urgent| &urgent.rows);
        let all = batch.rows.iter().map(|noted| &noted.row).chain(urgent);
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
                    match self.keep(std::iter::once(&noted.row)).await {
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
        let mut waiting = self.waiting();
        for noted in rows.into_iter().rev() {
            if !waiting.join(&noted.row.event(), noted.place, false, &mut free) {
                let key: Arc<str> = noted.row.dedupe_key().into();
                waiting.due.push_front((Instant::now(), key.clone()));
                waiting.rows.insert(key, noted);
            }
        }
        drop(waiting);
        self.free(free);
    }
}

async fn run(shared: Arc<Shared>) {
    let [first, longest] = RETRY;
    let mut pause = first;
    while let Some(next) = shared.next() {
        match next {
            Ok(batch) => {
                let there = shared.write(batch).await;
                let mut waiting = shared.waiting();
                waiting.is_writing = false;
                let since = waiting.stalled.unwrap_or_else(Instant::now);
                waiting.stalled = (!there).then_some(since);
                waiting.retry_at = (!there).then(|| Instant::now() + pause);
                pause = if there { first } else { (pause * 2).min(longest) };
                shared.metrics.journal.queued(waiting.rows.len());
            }
            Err(Some(until)) => {
                tokio::select! {
                    () = shared.changed.notified() => {}
                    () = tokio::time::sleep_until(until) => {}
                }
            }
            Err(None) => shared.changed.notified().await,
        }
    }
}
