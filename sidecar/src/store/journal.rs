//! The one writer of the ledger's events. What may be written behind its answer waits here for a moment, and most of it
//! meets its own end there: a webhook that came and was accepted within that moment is one insert, durable before
//! its settlement is answered. What happens when too much waits, when the database is away, when it refuses a row and
//! when the process stops is decided here; what an event is, is not.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, oneshot},
    task::JoinHandle,
    time::Instant,
};

use super::{
    ledger::{Ledger, add},
    rows::EventRow,
    sql::StoreError,
};
use crate::{config, metrics::Metrics};

/// Between two tries to reach a database that is away, at least and at most.
const RETRY: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(2)];

/// The way in. The writer ends when it is told to and everything is written.
#[derive(Clone)]
pub(super) struct Journal {
    shared: Arc<Shared>,
}

/// The writer, to be waited for when everything else has stopped.
pub(super) struct Writer {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    ledger: Arc<Ledger>,
    metrics: Arc<Metrics>,
    queue: usize,
    batch: usize,
    linger: Duration,
    timeout: Duration,
    waiting: Mutex<Waiting>,
    /// Something changed that the writer waits for.
    changed: Notify,
}

#[derive(Default)]
struct Waiting {
    /// May be written later, by key.
    rows: HashMap<String, EventRow>,
    /// When each of them is due. A key that is in `rows` no more was written with something urgent.
    due: VecDeque<(Instant, String)>,
    urgent: Vec<Urgent>,
    /// Nothing is written behind an answer before that, because the database is away.
    retry_at: Option<Instant>,
    closing: bool,
}

/// Rows somebody waits for; with none, everything that waits.
struct Urgent {
    rows: Vec<EventRow>,
    written: oneshot::Sender<Result<(), StoreError>>,
}

/// What is written as one.
#[derive(Default)]
struct Batch {
    urgent: Vec<Urgent>,
    /// What waited.
    rows: Vec<EventRow>,
}

impl Journal {
    pub(super) fn start(
        settings: &config::Events,
        timeout: Duration,
        ledger: Arc<Ledger>,
        metrics: Arc<Metrics>,
    ) -> (Journal, Writer) {
        let shared = Arc::new(Shared {
            ledger,
            metrics,
            queue: settings.queue,
            batch: settings.batch,
            linger: Duration::from_millis(settings.linger_ms),
            timeout,
            waiting: Mutex::default(),
            changed: Notify::new(),
        });
        let task = tokio::spawn(run(shared.clone()));
        (Journal { shared: shared.clone() }, Writer { shared, task })
    }

    /// Takes rows to be written soon. Returns at once while there is room; when there is none, the rest is written before
    /// the answer: the load then goes at the speed of the database instead of losing anything.
    pub(super) async fn note(&self, rows: Vec<EventRow>) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut rest = Vec::new();
        {
            let mut waiting = self.shared.waiting();
            let due = Instant::now() + self.shared.linger;
            let idle = waiting.due.is_empty();
            for row in rows {
                let room = waiting.rows.len() < self.shared.queue;
                match waiting.rows.get_mut(&row.dedupe_key) {
                    Some(known) => known.merge(row),
                    None if room => {
                        waiting.due.push_back((due, row.dedupe_key.clone()));
                        waiting.rows.insert(row.dedupe_key.clone(), row);
                    }
                    None => rest.push(row),
                }
            }
            self.shared.metrics.queued(waiting.rows.len());
            if idle || waiting.rows.len() >= self.shared.batch {
                self.shared.changed.notify_one();
            }
        }
        if rest.is_empty() { Ok(()) } else { self.write(rest).await }
    }

    /// Writes rows, each together with what waits of the same webhook. Durable when it returns; when it fails, what
    /// waited goes on waiting.
    pub(super) async fn write(&self, rows: Vec<EventRow>) -> Result<(), StoreError> {
        let (written, answered) = oneshot::channel();
        {
            let mut waiting = self.shared.waiting();
            waiting.urgent.push(Urgent { rows, written });
        }
        self.shared.changed.notify_one();
        match tokio::time::timeout(self.shared.timeout, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(StoreError::Away("the sidecar is stopping".into())),
            Err(_) => Err(StoreError::Away(format!("no answer within {:?}", self.shared.timeout))),
        }
    }

    /// Writes everything that waits.
    pub(super) async fn flush(&self) -> Result<(), StoreError> {
        let idle = self.shared.waiting().rows.is_empty();
        if idle { Ok(()) } else { self.write(Vec::new()).await }
    }
}

impl Writer {
    /// Waits until everything is written; false when that took longer than `limit`.
    pub(super) async fn finish(mut self, limit: Duration) -> bool {
        self.shared.waiting().closing = true;
        self.shared.changed.notify_one();
        let finished = tokio::time::timeout(limit, &mut self.task).await.is_ok();
        self.task.abort();
        finished
    }
}

impl Waiting {
    /// Takes up to `most` rows, the oldest first: those due until then, or any.
    fn take_due(&mut self, until: Option<Instant>, most: usize, rows: &mut Vec<EventRow>) {
        let most = most.saturating_add(rows.len());
        while let Some((due, key)) = self.due.pop_front() {
            let is_due = until.is_none_or(|until| due <= until);
            if self.rows.contains_key(&key) && (rows.len() >= most || !is_due) {
                self.due.push_front((due, key));
                return;
            }
            rows.extend(self.rows.remove(&key));
        }
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Nothing panics while it holds this.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What to write now; else until when to wait for more, if until any time. None when all is done.
    fn next(&self) -> Option<Result<Batch, Option<Instant>>> {
        let mut waiting = self.waiting();
        let now = Instant::now();
        let urgent = std::mem::take(&mut waiting.urgent);
        let asked_for_all = urgent.iter().any(|urgent| urgent.rows.is_empty());
        let all = waiting.closing || asked_for_all;
        let may_retry = asked_for_all || waiting.retry_at.is_none_or(|at| at <= now);
        let full = waiting.rows.len() >= self.batch.min(self.queue);
        let mut rows = Vec::new();
        for row in urgent.iter().flat_map(|urgent| &urgent.rows) {
            rows.extend(waiting.rows.remove(&row.dedupe_key));
        }
        if may_retry {
            let most = if all { usize::MAX } else { self.batch };
            let due_until = if all || full { None } else { Some(now) };
            waiting.take_due(due_until, most, &mut rows);
        }
        if !urgent.is_empty() || !rows.is_empty() {
            return Some(Ok(Batch { urgent, rows }));
        }
        let due = waiting.due.front().map(|(due, _)| *due);
        match (waiting.closing, due) {
            (true, None) => None,
            _ => Some(Err(due.map(|due| waiting.retry_at.map_or(due, |at| at.max(due))))),
        }
    }

    async fn write(&self, batch: Batch) -> bool {
        let mut together = BTreeMap::new();
        let urgent = batch.urgent.iter().flat_map(|urgent| &urgent.rows);
        let all = batch.rows.iter().chain(urgent);
        all.for_each(|row| add(&mut together, row.clone()));
        match self.keep(together).await {
            Ok(()) => {
                batch.urgent.into_iter().for_each(|urgent| {
                    let _ = urgent.written.send(Ok(()));
                });
                true
            }
            // What the database refuses must not be refused to the others: each on its own.
            Err(StoreError::Refused(_)) => {
                for urgent in batch.urgent {
                    let mut rows = BTreeMap::new();
                    urgent.rows.into_iter().for_each(|row| add(&mut rows, row));
                    let _ = urgent.written.send(self.keep(rows).await);
                }
                let mut there = true;
                for row in batch.rows {
                    match self.keep(BTreeMap::from([(row.dedupe_key.clone(), row.clone())])).await {
                        Ok(()) => {}
                        Err(StoreError::Away(_)) => {
                            self.put_back(vec![row]);
                            there = false;
                        }
                        Err(reason) => {
                            self.metrics.event_refused();
                            tracing::error!(%reason, "the database refused an event, which is lost");
                        }
                    }
                }
                there
            }
            Err(reason) => {
                batch.urgent.into_iter().for_each(|urgent| {
                    let _ = urgent.written.send(Err(reason.clone()));
                });
                tracing::warn!(%reason, count = batch.rows.len(), "events wait for the database");
                self.put_back(batch.rows);
                false
            }
        }
    }

    async fn keep(&self, rows: BTreeMap<String, EventRow>) -> Result<(), StoreError> {
        let rows: Vec<EventRow> = rows.into_values().collect();
        self.ledger.keep_events(&rows).await?;
        self.metrics.events_written(rows.len());
        Ok(())
    }

    fn put_back(&self, rows: Vec<EventRow>) {
        let mut waiting = self.waiting();
        for row in rows.into_iter().rev() {
            match waiting.rows.get_mut(&row.dedupe_key) {
                Some(later) => {
                    let mut row = row;
                    std::mem::swap(later, &mut row);
                    later.merge(row);
                }
                None => {
                    waiting.due.push_front((Instant::now(), row.dedupe_key.clone()));
                    waiting.rows.insert(row.dedupe_key.clone(), row);
                }
            }
        }
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
                waiting.retry_at = (!there).then(|| Instant::now() + pause);
                pause = if there { first } else { (pause * 2).min(longest) };
                shared.metrics.queued(waiting.rows.len());
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
