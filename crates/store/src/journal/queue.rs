//! Queue of the journal: the events that the ledger does not have yet, by dedupe key, until a transaction has written them.
//! It decides which events are written next, and answers reads for events that are not written. This module must not know
//! how an event is written.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use tokio::{sync::oneshot, time::Instant};
use twilio_edge_contract::Class;
use twilio_edge_domain::lease::Lease;

use crate::{
    error::StoreError,
    event::{Event, EventRow},
    spool::SpoolPosition,
};

/// Pending rows of a batch for which a caller waits; more of them would delay the caller.
const BESIDE_URGENT: usize = 256;

/// Pending and urgent rows.
#[derive(Default)]
pub(super) struct Queue {
    /// Rows that may be written later, by dedupe key.
    rows: HashMap<Arc<str>, PendingRow>,
    /// Due time of each row, in order. A key that is missing from `rows` was written with an earlier batch.
    due: VecDeque<(Instant, Arc<str>)>,
    /// Rows of the batch that is being written. A row of the same webhook in `rows` follows this one.
    writing: HashMap<Arc<str>, Arc<EventRow>>,
    urgent: Vec<UrgentWrite>,
    is_writing: bool,
    /// Earliest time of the next deferred write, set while the database is unavailable.
    pub(super) retry_at: Option<Instant>,
    /// Time since which the database accepts nothing. Rows that were put back are at least this old.
    pub(super) stalled: Option<Instant>,
    pub(super) is_closing: bool,
}

/// A pending row.
pub(super) struct PendingRow {
    pub(super) row: Arc<EventRow>,
    /// The first spool file that contains part of the row.
    pub(super) place: Option<SpoolPosition>,
}

/// Rows that a caller waits for. An empty list requests everything that is pending.
pub(super) struct UrgentWrite {
    pub(super) rows: Vec<EventRow>,
    pub(super) written: oneshot::Sender<Result<(), StoreError>>,
}

/// Rows that are written in one transaction.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) urgent: Vec<UrgentWrite>,
    /// Pending rows: of the same webhooks as the urgent ones, due, or complete.
    pub(super) rows: Vec<PendingRow>,
}

/// Sizes of the queue and of a batch, in rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) queue: usize,
    pub(super) batch: usize,
}

/// Next step of the writer.
pub(super) enum Step {
    Write(Batch),
    /// Wait until this time or a change; `None` waits for a change.
    Wait(Option<Instant>),
    /// The queue is closed and empty.
    End,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Returns whether no row is pending and no batch is being written.
    pub(super) fn is_idle(&self) -> bool {
        self.rows.is_empty() && !self.is_writing
    }

    /// Returns whether the writer waits for no due time.
    pub(super) fn is_unscheduled(&self) -> bool {
        self.due.is_empty()
    }

    /// Returns whether so many rows are pending that incomplete ones must be written early.
    pub(super) fn is_crowded(&self, limits: Limits) -> bool {
        self.rows.len() >= (limits.queue / 2).max(1)
    }

    /// Returns the due time of the oldest pending row.
    pub(super) fn first_due(&self) -> Option<Instant> {
        self.due.iter().find(|(_, key)| self.rows.contains_key(key)).map(|(due, _)| *due)
    }

    /// Adds rows that a caller waits for.
    pub(super) fn push_urgent(&mut self, urgent: UrgentWrite) {
        self.urgent.push(urgent);
    }

    /// Adds a row of a webhook without a pending row.
    pub(super) fn push(&mut self, event: &Event<'_>, place: Option<SpoolPosition>, due: Instant) {
        let key: Arc<str> = event.dedupe_key.into();
        self.due.push_back((due, key.clone()));
        self.rows.insert(key, PendingRow { row: Arc::new(EventRow::of(*event)), place });
    }

    /// Merges an event into the pending row of the same webhook. With `later`, the event follows the row, else it precedes
    /// it. Returns `false` if no row is pending. A spool place that is no longer needed is added to `free`.
    pub(super) fn join(
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
        let row = Arc::new(EventRow::of(merged));
        // Spool files are deleted in order, so the first place also protects the data at the other one.
        *known = PendingRow { row, place: one.or(other) };
        free.extend(one.and(other));
        true
    }

    /// Returns the next step. The rows of a batch stay visible to reads until [`Queue::end`].
    pub(super) fn next(&mut self, now: Instant, limits: Limits) -> Step {
        let urgent = std::mem::take(&mut self.urgent);
        let asked_for_all = urgent.iter().any(|urgent| urgent.rows.is_empty());
        let all = self.is_closing || asked_for_all;
        let may_retry = asked_for_all || self.retry_at.is_none_or(|at| at <= now);
        let mut rows: Vec<PendingRow> = Vec::new();
        for row in urgent.iter().flat_map(|urgent| &urgent.rows) {
            rows.extend(self.rows.remove(row.dedupe_key()));
        }
        if may_retry {
            let most = match (all, urgent.is_empty()) {
                (true, _) => usize::MAX,
                (false, true) => limits.batch,
                (false, false) => limits.batch.min(BESIDE_URGENT),
            };
            let is_due = self.due.front().is_some_and(|(due, _)| *due <= now);
            let early = all || self.is_crowded(limits);
            if is_due || early {
                self.take(now, early, most.saturating_add(rows.len()), &mut rows);
            }
        }
        if !urgent.is_empty() || !rows.is_empty() {
            self.is_writing = true;
            let written = rows.iter().map(|row| (row.row.dedupe_key().into(), row.row.clone()));
            self.writing.extend(written);
            return Step::Write(Batch { urgent, rows });
        }
        match self.due.front().map(|(due, _)| *due) {
            None if self.is_closing => Step::End,
            due => Step::Wait(due.map(|due| self.retry_at.map_or(due, |at| at.max(due)))),
        }
    }

    /// Ends a batch: its rows are in the ledger, or were put back.
    pub(super) fn end(&mut self) {
        self.writing.clear();
        self.is_writing = false;
    }

    /// Puts rows back that could not be written. They are due immediately, and may have been written nevertheless.
    pub(super) fn put_back(
        &mut self,
        rows: Vec<PendingRow>,
        now: Instant,
        free: &mut Vec<SpoolPosition>,
    ) {
        for PendingRow { row, place } in rows.into_iter().rev() {
            let event = Event { is_first: false, ..row.event() };
            if !self.join(&event, place, false, free) {
                let key: Arc<str> = event.dedupe_key.into();
                self.due.push_front((now, key.clone()));
                self.rows.insert(key, PendingRow { row: Arc::new(EventRow::of(event)), place });
            }
        }
    }

    /// Returns the lease of a webhook with an event that is not in the ledger yet; `result_ms` is the time to live of a result.
    pub(super) fn lease(&self, key: &str, result_ms: i64) -> Option<Lease> {
        let writing = self.writing.get(key).map(|row| row.event());
        let pending = self.rows.get(key).map(|pending| pending.row.event());
        let event = match (writing, pending) {
            (Some(writing), Some(pending)) => writing.merge(pending),
            (one, other) => one.or(other)?,
        };
        Some(event.lease(result_ms))
    }

    /// Returns whether an event of this webhook is not in the ledger yet.
    pub(super) fn contains(&self, key: &str) -> bool {
        self.rows.contains_key(key) || self.writing.contains_key(key)
    }

    /// Returns the received inbound messages that are not in the ledger yet, in no order.
    pub(super) fn inbound(&self) -> impl Iterator<Item = Event<'_>> {
        let pending = self.rows.values().map(|pending| &pending.row);
        let events = pending.chain(self.writing.values()).map(|row| row.event());
        events.filter(|event| {
            event.class == Class::Inbound.as_str() && event.received_at_ms.is_some()
        })
    }

    /// Takes up to `most` rows, oldest first: the rows that are due or complete, or any rows if `early`.
    fn take(&mut self, now: Instant, early: bool, most: usize, rows: &mut Vec<PendingRow>) {
        let mut left = VecDeque::with_capacity(self.due.len());
        while let Some((due, key)) = self.due.pop_front() {
            if rows.len() >= most {
                self.due.push_front((due, key));
                break;
            }
            let Some(pending) = self.rows.get(&key) else { continue };
            if early || due <= now || pending.row.is_settled() {
                rows.extend(self.rows.remove(&key));
            } else {
                left.push_back((due, key));
            }
        }
        left.append(&mut self.due);
        self.due = left;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use twilio_edge_contract::Identity;
    use twilio_edge_domain::lease::LeaseState;

    use super::*;
    use crate::event::ACCEPTED;

    const LIMITS: Limits = Limits { queue: 8, batch: 4 };
    const RESULT_MS: i64 = 1000;

    fn identity() -> Identity {
        Identity {
            class: Class::Inbound,
            account_sid: "AC1".into(),
            message_sid: "SM1".into(),
            status: None,
            error_code: None,
        }
    }

    /// Returns the event of a granted claim, or with `is_settled` of an accepted webhook.
    fn event<'a>(identity: &'a Identity, key: &'a str, is_settled: bool) -> Event<'a> {
        Event {
            claim_id: Some("c1"),
            attempts: 1,
            held_until_ms: Some(30).filter(|_| !is_settled),
            outcome: is_settled.then_some(ACCEPTED),
            settled_at_ms: Some(5).filter(|_| is_settled),
            is_first: true,
            ..Event::known(key, identity, 0)
        }
    }

    fn keys(step: &Step) -> Vec<String> {
        match step {
            Step::Write(batch) => {
                let mut keys: Vec<String> =
                    batch.rows.iter().map(|row| row.row.dedupe_key().to_owned()).collect();
                keys.sort();
                keys
            }
            Step::Wait(_) | Step::End => Vec::new(),
        }
    }

    #[test]
    fn batch_takes_due_and_settled_rows_and_leaves_the_others() {
        let (mut queue, identity) = (Queue::default(), identity());
        let (now, later) = (Instant::now(), Instant::now() + Duration::from_secs(60));
        queue.push(&event(&identity, "due", false), None, now);
        queue.push(&event(&identity, "settled", true), None, later);
        queue.push(&event(&identity, "held", false), None, later);
        assert_eq!(keys(&queue.next(now, LIMITS)), ["due", "settled"]);
        queue.end();
        assert_eq!(keys(&queue.next(now, LIMITS)), [""; 0]);
        assert_eq!(queue.len(), 1);
    }

    #[test]
    fn nothing_is_written_before_a_row_is_due() {
        let (mut queue, identity) = (Queue::default(), identity());
        let (now, later) = (Instant::now(), Instant::now() + Duration::from_secs(60));
        queue.push(&event(&identity, "settled", true), None, later);
        assert!(matches!(queue.next(now, LIMITS), Step::Wait(Some(due)) if due == later));
    }

    #[test]
    fn crowded_queue_writes_rows_that_are_not_due() {
        let (mut queue, identity) = (Queue::default(), identity());
        let (now, later) = (Instant::now(), Instant::now() + Duration::from_secs(60));
        for key in ["a", "b", "c", "d", "e"] {
            queue.push(&event(&identity, key, false), None, later);
        }
        assert_eq!(keys(&queue.next(now, LIMITS)), ["a", "b", "c", "d"]);
    }

    #[test]
    fn row_is_visible_until_its_batch_ends() {
        let (mut queue, identity) = (Queue::default(), identity());
        let now = Instant::now();
        queue.push(&event(&identity, "a", false), None, now);
        let held = |queue: &Queue| {
            let lease = queue.lease("a", RESULT_MS).map(|lease| lease.state);
            matches!(lease, Some(LeaseState::Held { .. }))
        };
        assert!(held(&queue));
        let Step::Write(_) = queue.next(now, LIMITS) else { panic!("nothing to write") };
        assert!(held(&queue) && queue.contains("a"));
        // Its settlement arrives during the write, and counts at once.
        queue.push(&event(&identity, "a", true), None, now);
        let lease = queue.lease("a", RESULT_MS).map(|lease| lease.state);
        assert!(matches!(lease, Some(LeaseState::Done { .. })), "{lease:?}");
        queue.end();
        assert_eq!(keys(&queue.next(now, LIMITS)), ["a"]);
        queue.end();
        assert_eq!(queue.lease("a", RESULT_MS), None);
    }

    #[test]
    fn row_that_was_put_back_is_merged_with_later_events_and_may_exist() {
        let (mut queue, identity) = (Queue::default(), identity());
        let now = Instant::now();
        queue.push(&event(&identity, "a", false), None, now);
        queue.push(&event(&identity, "b", false), None, now);
        let Step::Write(batch) = queue.next(now, LIMITS) else { panic!("nothing to write") };
        let settled = Event { is_first: false, ..event(&identity, "a", true) };
        queue.push(&settled, None, now + Duration::from_secs(60));
        queue.put_back(batch.rows, now, &mut Vec::new());
        queue.end();
        let Step::Write(batch) = queue.next(now, LIMITS) else { panic!("nothing to write") };
        let mut rows: Vec<(String, bool, bool)> = batch
            .rows
            .iter()
            .map(|row| {
                let event = row.row.event();
                (event.dedupe_key.to_owned(), row.row.is_settled(), event.is_first)
            })
            .collect();
        rows.sort();
        assert_eq!(rows, [("a".to_owned(), true, false), ("b".to_owned(), false, false)]);
    }
}
