//! The one writer of the ledger's events. What may be written behind its answer waits here for a moment, and most of it
//! meets its own end there: a webhook that came and was accepted within that moment is one insert, durable before
//! its settlement is answered. What waits is in the spool too, if there is one, so that it survives this process. What
//! happens when too much waits, when the database is away, when it refuses a row and when the process stops is
//! decided here; what an event is, is not.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, oneshot},
    task::JoinHandle,
    time::Instant,
};

use super::{
    event::{Event, EventRow},
    ledger::{Ledger, each_once},
    spool::{Place, Spool},
};
use crate::error::StoreError;
use twilio_edge_platform::{config, metrics::Metrics, store_metrics::Operation};

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
    /// None where what waits may be lost with the process.
    spool: Option<Spool>,
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
    rows: HashMap<Arc<str>, Noted>,
    /// When each of them is due. A key that is in `rows` no more was written with something urgent.
    due: VecDeque<(Instant, Arc<str>)>,
    urgent: Vec<Urgent>,
    /// A batch is on its way to the database; it is in `rows` no more.
    is_writing: bool,
    /// Nothing is written behind an answer before that, because the database is away.
    retry_at: Option<Instant>,
    /// Since when the database takes nothing: what was put back waits for as long, at least.
    stalled: Option<Instant>,
    closing: bool,
}

/// A row that waits.
struct Noted {
    row: EventRow,
    /// The first place in the spool that has something of it.
    place: Option<Place>,
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
    rows: Vec<Noted>,
}

impl Journal {
    pub(super) fn start(
        settings: &config::Events,
        timeout: Duration,
        ledger: Arc<Ledger>,
        spool: Option<Spool>,
        metrics: Arc<Metrics>,
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
        let task = tokio::spawn(run(shared.clone()));
        (Journal { shared: shared.clone() }, Writer { shared, task })
    }

    /// Takes events to be written soon; they survive the end of this process when it returns. Returns at once while there is
    /// room, here and in the spool; when there is none, what has no place is written before the answer: the load then goes
    /// at the speed of the database instead of losing anything.
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

    /// Writes events, each together with what waits of the same webhook. Durable when it returns; when it fails, what
    /// waited goes on waiting.
    pub(super) async fn write(&self, events: Vec<Event<'_>>) -> Result<(), StoreError> {
        let (written, answered) = oneshot::channel();
        let rows = events.into_iter().map(EventRow::of).collect();
        self.shared.waiting().urgent.push(Urgent { rows, written });
        self.shared.changed.notify_one();
        match tokio::time::timeout(self.shared.timeout, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(StoreError::Away("the sidecar is stopping".into())),
            Err(_) => Err(StoreError::Away(format!("no answer within {:?}", self.shared.timeout))),
        }
    }

    /// For how long the row waits that waits longest.
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

    /// Writes everything that waits, and waits for the batch that is being written.
    pub(super) async fn flush(&self) -> Result<(), StoreError> {
        let is_idle = self.shared.waiting().is_idle();
        if is_idle { Ok(()) } else { self.write(Vec::new()).await }
    }
}

impl Writer {
    /// Waits until everything is written; false when that took longer than `limit`.
    pub(super) async fn finish(mut self, limit: Duration) -> bool {
        self.shared.waiting().closing = true;
        self.shared.changed.notify_one();
        let finished = tokio::time::timeout(limit, &mut self.task).await.is_ok();
        self.task.abort();
        if let Some(spool) = &self.shared.spool {
            spool.close();
        }
        finished
    }
}

impl Waiting {
    fn is_idle(&self) -> bool {
        self.rows.is_empty() && !self.is_writing
    }

    /// Puts an event with what waits of the same webhook; whichever is `later` adds to the other. False if nothing waits;
    /// into `free` comes a place that nobody needs any more.
    fn join(
        &mut self,
        event: &Event<'_>,
        place: Option<Place>,
        later: bool,
        free: &mut Vec<Place>,
    ) -> bool {
        let Some(known) = self.rows.get_mut(event.dedupe_key) else { return false };
        let mut places = [known.place, place];
        places.sort();
        let [one, other] = places;
        let waiting = known.row.event();
        let merged = if later { waiting.merge(*event) } else { event.merge(waiting) };
        // The files go in their order: the first place keeps what is at the other one too.
        *known = Noted { row: EventRow::of(merged), place: one.or(other) };
        free.extend(one.and(other));
        true
    }

    /// Takes up to `most` rows, the oldest first: those due until then, or any.
    fn take_due(&mut self, until: Option<Instant>, most: usize, rows: &mut Vec<Noted>) {
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
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Nothing panics while it holds this.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds to what waits as long as there is room; the rest.
    fn wait<'a>(&self, events: &[Event<'a>], place: Option<Place>) -> Vec<Event<'a>> {
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
                waiting.rows.insert(key, Noted { row: EventRow::of(*event), place });
            } else {
                free.extend(place);
                rest.push(*event);
            }
        }
        self.metrics.queued(waiting.rows.len());
        if idle || waiting.rows.len() >= self.batch {
            self.changed.notify_one();
        }
        drop(waiting);
        self.free(free);
        rest
    }

    /// These places are needed no more.
    fn free(&self, places: Vec<Place>) {
        if let Some(spool) = self.spool.as_ref().filter(|_| !places.is_empty()) {
            spool.forget(places);
        }
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
        let mut rows: Vec<Noted> = Vec::new();
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
            // What the database refuses must not be refused to the others: each on its own.
            Err(StoreError::Refused(_)) => {
                for urgent in batch.urgent {
                    let _ = urgent.written.send(self.keep(urgent.rows.iter()).await);
                }
                let mut there = true;
                for noted in batch.rows {
                    match self.keep(std::iter::once(&noted.row)).await {
                        Ok(()) => self.free(noted.place.into_iter().collect()),
                        Err(StoreError::Away(_)) => {
                            self.put_back(vec![noted]);
                            there = false;
                        }
                        Err(reason) => {
                            self.metrics.event_refused();
                            tracing::error!(event = "event.refused", %reason, "the database refused an event, which is lost");
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
                tracing::warn!(event = "events.waiting", %reason, count = batch.rows.len(), "events wait for the database");
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
        // An event is some hundred bytes to move, and this is the order they will be in.
        rows.sort_by_key(|row| row.dedupe_key());
        let events = each_once(rows.into_iter().map(EventRow::event).collect());
        let keep = self.ledger.keep_events(&events);
        self.metrics.timed(Operation::LedgerWrite, keep).await?;
        self.metrics.events_written(events.len());
        Ok(())
    }

    fn put_back(&self, rows: Vec<Noted>) {
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
