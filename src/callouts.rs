//! Batches of callouts to the sidecar, shared by many requests. A callout costs as much as proxying another request, so
//! every item that waits when a callout is sent is part of it.
//!
//! Decides when a batch is sent, how large it is, how many callouts are in flight, when to retry and when to stop. An item
//! is sent immediately when no callout is in flight. Otherwise it waits for the pending reply, but not for a slow one:
//! after [`SHARE_WAIT_MS`] another callout is opened, up to [`MAX_IN_FLIGHT`].
//!
//! Must not know: the contents of an item, the host, clocks.

use std::collections::VecDeque;

use twilio_edge_contract::MAX_BATCH;

/// Time in milliseconds that an item waits for the reply to a callout in flight. Then it gets a callout of its own.
const SHARE_WAIT_MS: u64 = 5;
/// Most callouts of one kind in flight per worker.
const MAX_IN_FLIGHT: usize = 4;
/// Size in bytes at which a batch is closed; a single larger item is sent alone.
const BATCH_BYTES: usize = 512 * 1024;
/// First and longest pause after a failure, in milliseconds. Responses that wait for an opt-out to be acknowledged wait 1 s.
const RETRY_MS: u64 = 100;
const MAX_RETRY_MS: u64 = 400;

/// Item of a batch: the part of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedItem<T> {
    /// The request that waits for the answer.
    pub origin: T,
    /// The JSON to send.
    pub json: String,
    /// Time of the first tick that saw it waiting; streams that post have no clock.
    first_tick_ms: Option<u64>,
}

impl<T> QueuedItem<T> {
    /// Creates an item that has not been seen yet.
    pub fn new(origin: T, json: String) -> Self {
        Self { origin, json, first_tick_ms: None }
    }

    /// Returns the time since it was first seen, in milliseconds.
    pub fn age_ms(&self, now_ms: u64) -> u64 {
        self.first_tick_ms.map_or(0, |first_tick_ms| now_ms.saturating_sub(first_tick_ms))
    }
}

/// Items of one kind, waiting and in flight.
#[derive(Debug)]
pub struct Callouts<T> {
    waiting: VecDeque<QueuedItem<T>>,
    waiting_bytes: usize,
    max_bytes: usize,
    in_flight: Vec<InFlightCallout<T>>,
    failed_at_ms: u64,
    retry_at_ms: u64,
    retry_pause_ms: u64,
}

#[derive(Debug)]
struct InFlightCallout<T> {
    token: u32,
    since_ms: u64,
    items: Vec<QueuedItem<T>>,
}

impl<T> Callouts<T> {
    /// Creates an empty queue. `max_bytes` bounds the waiting items; [`MAX_IN_FLIGHT`] bounds those in flight.
    pub fn new(max_bytes: usize) -> Self {
        Self {
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            max_bytes,
            in_flight: Vec::new(),
            failed_at_ms: 0,
            retry_at_ms: 0,
            retry_pause_ms: RETRY_MS,
        }
    }

    /// Adds an item.
    ///
    /// # Errors
    ///
    /// Returns the item when the queue is full.
    pub fn post(&mut self, item: QueuedItem<T>) -> Result<(), QueuedItem<T>> {
        let bytes = self.waiting_bytes.saturating_add(item.json.len());
        if bytes > self.max_bytes {
            return Err(item);
        }
        self.waiting_bytes = bytes;
        self.waiting.push_back(item);
        Ok(())
    }

    /// Adds an item before all others. A quarter of the room is reserved for such items.
    ///
    /// # Errors
    ///
    /// Returns the item when that room is full too.
    pub fn post_first(&mut self, item: QueuedItem<T>) -> Result<(), QueuedItem<T>> {
        let bytes = self.waiting_bytes.saturating_add(item.json.len());
        if bytes > self.max_bytes.saturating_add(self.max_bytes / 4) {
            return Err(item);
        }
        self.waiting_bytes = bytes;
        self.waiting.push_front(item);
        Ok(())
    }

    /// Records the time for the items that were added since the last call.
    pub fn record_time(&mut self, now_ms: u64) {
        for item in self.waiting.iter_mut().rev().take_while(|it| it.first_tick_ms.is_none()) {
            item.first_tick_ms = Some(now_ms);
        }
        for item in self.waiting.iter_mut().take_while(|it| it.first_tick_ms.is_none()) {
            item.first_tick_ms = Some(now_ms);
        }
    }

    /// Returns the batch to send now, if one is due.
    pub fn next_batch(&mut self, now_ms: u64) -> Option<Vec<QueuedItem<T>>> {
        let may_open_another = || {
            let latest = self.in_flight.iter().map(|callout| callout.since_ms).max();
            latest.is_none_or(|since| now_ms.saturating_sub(since) >= SHARE_WAIT_MS)
        };
        if self.waiting.is_empty()
            || now_ms < self.retry_at_ms
            || self.in_flight.len() >= MAX_IN_FLIGHT
            || !may_open_another()
        {
            return None;
        }
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < MAX_BATCH {
            let Some(next) = self.waiting.front() else { break };
            if !batch.is_empty() && bytes + next.json.len() > BATCH_BYTES {
                break;
            }
            bytes += next.json.len();
            batch.extend(self.waiting.pop_front());
        }
        self.waiting_bytes = self.waiting_bytes.saturating_sub(bytes);
        Some(batch)
    }

    /// Records that the batch was sent under `token`.
    pub fn record_sent(&mut self, token: u32, items: Vec<QueuedItem<T>>, now_ms: u64) {
        self.in_flight.push(InFlightCallout { token, since_ms: now_ms, items });
    }

    /// Removes and returns the items that were sent under `token`, because their answer arrived or the callout failed.
    pub fn complete(&mut self, token: u32) -> Option<Vec<QueuedItem<T>>> {
        let at = self.in_flight.iter().position(|callout| callout.token == token)?;
        Some(self.in_flight.swap_remove(at).items)
    }

    /// Returns items to the front of the queue. They are sent again after a pause that grows with each failure.
    pub fn retry(&mut self, items: Vec<QueuedItem<T>>, now_ms: u64) {
        for item in items.into_iter().rev() {
            self.waiting_bytes = self.waiting_bytes.saturating_add(item.json.len());
            self.waiting.push_front(item);
        }
        self.failed_at_ms = now_ms;
        self.retry_at_ms = now_ms.saturating_add(self.retry_pause_ms);
        self.retry_pause_ms = (self.retry_pause_ms * 2).min(MAX_RETRY_MS);
    }

    /// Shortens the pause before a retry to the first pause, because the sidecar answers callouts of another kind.
    /// Reports whether anything waits for a retry.
    pub fn shorten_pause(&mut self) -> bool {
        let is_failing = self.retry_at_ms > 0 && !self.waiting.is_empty();
        self.retry_at_ms = self.retry_at_ms.min(self.failed_at_ms.saturating_add(RETRY_MS));
        self.retry_pause_ms = RETRY_MS;
        is_failing
    }

    /// Ends the pauses, because the sidecar answers.
    pub fn end_pauses(&mut self) {
        self.retry_at_ms = 0;
        self.retry_pause_ms = RETRY_MS;
    }

    /// Removes and returns the waiting items that match `is_taken`.
    pub fn take(&mut self, mut is_taken: impl FnMut(&QueuedItem<T>) -> bool) -> Vec<QueuedItem<T>> {
        let (taken, rest): (Vec<_>, _) = self.waiting.drain(..).partition(|item| is_taken(item));
        self.waiting = rest.into();
        let bytes: usize = taken.iter().map(|item| item.json.len()).sum();
        self.waiting_bytes = self.waiting_bytes.saturating_sub(bytes);
        taken
    }

    /// Returns the number of items that are waiting or in flight.
    pub fn len(&self) -> usize {
        let in_flight: usize = self.in_flight.iter().map(|callout| callout.items.len()).sum();
        self.waiting.len() + in_flight
    }

    /// Reports whether no item is waiting or in flight.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reports whether a callout is in flight.
    pub fn is_in_flight(&self) -> bool {
        !self.in_flight.is_empty()
    }
}

/// Returns the request body of a batch: `{"v":1,"<field>":[..]}`.
pub fn batch_body<T>(field: &str, items: &[QueuedItem<T>]) -> String {
    let bytes: usize = items.iter().map(|item| item.json.len() + 1).sum();
    let mut body = String::with_capacity(bytes + 32);
    body.push_str(&format!("{{\"v\":{},\"{field}\":[", twilio_edge_contract::PROTOCOL_VERSION));
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            body.push(',');
        }
        body.push_str(&item.json);
    }
    body.push_str("]}");
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(origin: u32) -> QueuedItem<u32> {
        QueuedItem::new(origin, format!("{{\"n\":{origin}}}"))
    }

    fn origins(batch: Option<Vec<QueuedItem<u32>>>) -> Vec<u32> {
        batch.into_iter().flatten().map(|item| item.origin).collect()
    }

    #[test]
    fn first_item_is_sent_alone_and_waiting_items_together() {
        let mut callouts = Callouts::new(1000);
        callouts.post(item(1)).unwrap();
        let batch = callouts.next_batch(0).unwrap();
        callouts.record_sent(7, batch, 0);
        callouts.post(item(2)).unwrap();
        callouts.post(item(3)).unwrap();
        assert_eq!(origins(callouts.next_batch(1)), [0u32; 0]);
        assert_eq!(origins(callouts.complete(7)), [1]);
        assert_eq!(origins(callouts.next_batch(1)), [2, 3]);
        assert_eq!(callouts.complete(7), None);
    }

    #[test]
    fn slow_reply_does_not_delay_other_items() {
        let mut callouts = Callouts::new(1000);
        for (token, now_ms) in [(1, 0), (2, 5), (3, 10), (4, 15)] {
            callouts.post(item(token)).unwrap();
            let batch = callouts.next_batch(now_ms).expect("another callout after SHARE_WAIT_MS");
            callouts.record_sent(token, batch, now_ms);
        }
        callouts.post(item(5)).unwrap();
        assert_eq!(callouts.next_batch(10_000), None, "at most MAX_IN_FLIGHT callouts");
        callouts.complete(2);
        assert_eq!(origins(callouts.next_batch(10_000)), [5]);
    }

    #[test]
    fn batches_and_queues_are_bounded() {
        let mut callouts = Callouts::new(usize::MAX);
        for origin in 0..600 {
            callouts.post(item(origin)).unwrap();
        }
        assert_eq!(callouts.next_batch(0).unwrap().len(), MAX_BATCH);
        let large = || QueuedItem::new(0, "x".repeat(BATCH_BYTES));
        let mut callouts = Callouts::new(BATCH_BYTES * 2);
        callouts.post(large()).unwrap();
        callouts.post(large()).unwrap();
        assert!(callouts.post(item(1)).is_err());
        assert_eq!(callouts.next_batch(0).unwrap().len(), 1);
        callouts.post(item(1)).unwrap();
    }

    #[test]
    fn failures_are_retried_in_order_after_growing_pauses() {
        let mut callouts = Callouts::new(1000);
        callouts.post(item(1)).unwrap();
        let batch = callouts.next_batch(0).unwrap();
        callouts.post(item(2)).unwrap();
        callouts.retry(batch, 0);
        assert_eq!(callouts.next_batch(RETRY_MS - 1), None);
        let batch = callouts.next_batch(RETRY_MS).unwrap();
        assert_eq!(origins(Some(batch.clone())), [1, 2]);
        callouts.retry(batch, RETRY_MS);
        assert_eq!(callouts.next_batch(RETRY_MS * 2), None);
        callouts.end_pauses();
        assert_eq!(origins(callouts.next_batch(RETRY_MS * 2)), [1, 2]);
    }

    #[test]
    fn withdrawn_item_is_not_sent() {
        let mut callouts = Callouts::new(1000);
        callouts.post(item(1)).unwrap();
        callouts.post(item(2)).unwrap();
        assert_eq!(origins(Some(callouts.take(|item| item.origin == 1))), [1]);
        assert_eq!(origins(callouts.next_batch(0)), [2]);
        assert!(callouts.is_empty());
    }

    #[test]
    fn batch_body_is_the_wire_format() {
        assert_eq!(
            batch_body("claims", &[item(1), item(2)]),
            r#"{"v":1,"claims":[{"n":1},{"n":2}]}"#
        );
    }

    #[test]
    fn urgent_items_are_sent_first_and_have_reserved_room() {
        let mut callouts = Callouts::new(16);
        callouts.post(item(1)).unwrap();
        callouts.post(item(2)).unwrap();
        callouts.record_time(5);
        assert!(callouts.post(item(3)).is_err());
        assert!(callouts.post_first(item(10)).is_err(), "the reserved room is bounded");
        callouts.take(|item| item.origin == 2);
        callouts.post_first(item(4)).unwrap();
        callouts.record_time(9);
        assert_eq!(origins(callouts.next_batch(9)), [4, 1]);
        let mut callouts = Callouts::new(16);
        callouts.post(item(1)).unwrap();
        callouts.post(item(2)).unwrap();
        callouts.post_first(QueuedItem::new(3, "{}".to_owned())).unwrap();
        callouts.record_time(100);
        let batch = callouts.next_batch(100).unwrap();
        assert!(batch.iter().all(|item| item.age_ms(150) == 50), "{batch:?}");
    }

    #[test]
    fn reply_to_another_kind_shortens_the_pause() {
        let mut callouts = Callouts::new(1000);
        callouts.post(item(1)).unwrap();
        assert!(!callouts.shorten_pause(), "nothing failed");
        for now_ms in [0, 1_000, 2_000] {
            let batch = callouts.next_batch(now_ms).unwrap();
            callouts.retry(batch, now_ms);
        }
        assert_eq!(callouts.next_batch(2_000 + RETRY_MS), None);
        assert!(callouts.shorten_pause());
        assert_eq!(callouts.next_batch(2_000 + RETRY_MS - 1), None);
        assert_eq!(origins(callouts.next_batch(2_000 + RETRY_MS)), [1]);
    }
}
