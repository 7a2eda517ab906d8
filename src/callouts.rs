//! Batches of callouts to the sidecar, shared by many requests. A callout costs as much as proxying another request, so
//! every item that waits when a callout is sent is part of it.
//!
//! Decides when a batch is sent, how large it is, how many callouts are in flight, when to retry and when to stop. An item
//! is sent immediately when no callout is in flight. Otherwise it waits for the pending reply, but not for a slow one:
//! after [`PATIENCE_MS`] another callout is opened, up to [`MOST_FLIGHTS`].
//!
//! Must not know: the contents of an item, the host, clocks.

use std::collections::VecDeque;

use twilio_edge_contract::MAX_BATCH;

/// Time in milliseconds that an item waits for a callout in flight before it gets one of its own.
const PATIENCE_MS: u64 = 5;
/// Most callouts of one kind in flight per worker.
const MOST_FLIGHTS: usize = 4;
/// Size in bytes at which a batch is closed; a single larger item is sent alone.
const BATCH_BYTES: usize = 512 * 1024;
/// First and longest pause after a failure, in milliseconds. Responses that wait for an opt-out to be acknowledged wait 1 s.
const RETRY_MS: u64 = 100;
const RETRY_MOST_MS: u64 = 400;

/// Item of a batch: the part of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedItem<T> {
    /// The request that waits for the answer.
    pub sender: T,
    /// The JSON to send.
    pub json: String,
    /// Time of the first tick that saw it waiting; streams that post have no clock.
    seen_ms: Option<u64>,
}

impl<T> QueuedItem<T> {
    /// Creates an item that has not been seen yet.
    pub fn new(sender: T, json: String) -> Self {
        Self { sender, json, seen_ms: None }
    }

    /// Returns the time since it was first seen, in milliseconds.
    pub fn age_ms(&self, now_ms: u64) -> u64 {
        self.seen_ms.map_or(0, |seen_ms| now_ms.saturating_sub(seen_ms))
    }
}

/// Items of one kind, waiting and in flight.
#[derive(Debug)]
pub struct Callouts<T> {
    waiting: VecDeque<QueuedItem<T>>,
    waiting_bytes: usize,
    most_bytes: usize,
    flights: Vec<InFlightCallout<T>>,
    failed_at_ms: u64,
    retry_at_ms: u64,
    retry_pause_ms: u64,
}

#[derive(Debug)]
struct InFlightCallout<T> {
    token: u32,
    since_ms: u64,
    letters: Vec<QueuedItem<T>>,
}

impl<T> Callouts<T> {
    /// Creates an empty queue. `most_bytes` bounds the waiting items; [`MOST_FLIGHTS`] bounds those in flight.
    pub fn new(most_bytes: usize) -> Self {
        Self {
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            most_bytes,
            flights: Vec::new(),
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
    pub fn post(&mut self, letter: QueuedItem<T>) -> Result<(), QueuedItem<T>> {
        let bytes = self.waiting_bytes.saturating_add(letter.json.len());
        if bytes > self.most_bytes {
            return Err(letter);
        }
        self.waiting_bytes = bytes;
        self.waiting.push_back(letter);
        Ok(())
    }

    /// Adds an item before all others. A quarter of the room is reserved for such items.
    ///
    /// # Errors
    ///
    /// Returns the item when that room is full too.
    pub fn post_first(&mut self, letter: QueuedItem<T>) -> Result<(), QueuedItem<T>> {
        let bytes = self.waiting_bytes.saturating_add(letter.json.len());
        if bytes > self.most_bytes.saturating_add(self.most_bytes / 4) {
            return Err(letter);
        }
        self.waiting_bytes = bytes;
        self.waiting.push_front(letter);
        Ok(())
    }

    /// Records the time for the items that were added since the last call.
    pub fn see(&mut self, now_ms: u64) {
        for letter in self.waiting.iter_mut().rev().take_while(|it| it.seen_ms.is_none()) {
            letter.seen_ms = Some(now_ms);
        }
        for letter in self.waiting.iter_mut().take_while(|it| it.seen_ms.is_none()) {
            letter.seen_ms = Some(now_ms);
        }
    }

    /// Returns the batch to send now, if one is due.
    pub fn next_batch(&mut self, now_ms: u64) -> Option<Vec<QueuedItem<T>>> {
        let patience_is_over = || {
            let latest = self.flights.iter().map(|flight| flight.since_ms).max();
            latest.is_none_or(|since| now_ms.saturating_sub(since) >= PATIENCE_MS)
        };
        if self.waiting.is_empty()
            || now_ms < self.retry_at_ms
            || self.flights.len() >= MOST_FLIGHTS
            || !patience_is_over()
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
    pub fn sent(&mut self, token: u32, letters: Vec<QueuedItem<T>>, now_ms: u64) {
        self.flights.push(InFlightCallout { token, since_ms: now_ms, letters });
    }

    /// Removes and returns the items that were sent under `token`, because their answer arrived or the callout failed.
    pub fn landed(&mut self, token: u32) -> Option<Vec<QueuedItem<T>>> {
        let at = self.flights.iter().position(|flight| flight.token == token)?;
        Some(self.flights.swap_remove(at).letters)
    }

    /// Returns items to the front of the queue. They are sent again after a pause that grows with each failure.
    pub fn retry(&mut self, letters: Vec<QueuedItem<T>>, now_ms: u64) {
        for letter in letters.into_iter().rev() {
            self.waiting_bytes = self.waiting_bytes.saturating_add(letter.json.len());
            self.waiting.push_front(letter);
        }
        self.failed_at_ms = now_ms;
        self.retry_at_ms = now_ms.saturating_add(self.retry_pause_ms);
        self.retry_pause_ms = (self.retry_pause_ms * 2).min(RETRY_MOST_MS);
    }

    /// Shortens the pause before a retry to the first pause, because the sidecar answers callouts of another kind.
    /// Reports whether anything waits for a retry.
    pub fn hurry(&mut self) -> bool {
        let is_failing = self.retry_at_ms > 0 && !self.waiting.is_empty();
        self.retry_at_ms = self.retry_at_ms.min(self.failed_at_ms.saturating_add(RETRY_MS));
        self.retry_pause_ms = RETRY_MS;
        is_failing
    }

    /// Ends the pauses, because the sidecar answers.
    pub fn succeeded(&mut self) {
        self.retry_at_ms = 0;
        self.retry_pause_ms = RETRY_MS;
    }

    /// Removes and returns the waiting items for which `leaves` holds.
    pub fn take(&mut self, mut leaves: impl FnMut(&QueuedItem<T>) -> bool) -> Vec<QueuedItem<T>> {
        let (taken, kept): (Vec<_>, _) = self.waiting.drain(..).partition(|letter| leaves(letter));
        self.waiting = kept.into();
        let bytes: usize = taken.iter().map(|letter| letter.json.len()).sum();
        self.waiting_bytes = self.waiting_bytes.saturating_sub(bytes);
        taken
    }

    /// Returns the number of items that are waiting or in flight.
    pub fn len(&self) -> usize {
        let flying: usize = self.flights.iter().map(|flight| flight.letters.len()).sum();
        self.waiting.len() + flying
    }

    /// Reports whether no item is waiting or in flight.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reports whether a callout is in flight.
    pub fn is_flying(&self) -> bool {
        !self.flights.is_empty()
    }
}

/// Returns the request body of a batch: `{"v":1,"<field>":[..]}`.
pub fn envelope<T>(field: &str, letters: &[QueuedItem<T>]) -> String {
    let bytes: usize = letters.iter().map(|letter| letter.json.len() + 1).sum();
    let mut body = String::with_capacity(bytes + 32);
    body.push_str(&format!("{{\"v\":{},\"{field}\":[", twilio_edge_contract::PROTOCOL_VERSION));
    for (index, letter) in letters.iter().enumerate() {
        if index > 0 {
            body.push(',');
        }
        body.push_str(&letter.json);
    }
    body.push_str("]}");
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(sender: u32) -> QueuedItem<u32> {
        QueuedItem::new(sender, format!("{{\"n\":{sender}}}"))
    }

    fn senders(batch: Option<Vec<QueuedItem<u32>>>) -> Vec<u32> {
        batch.into_iter().flatten().map(|letter| letter.sender).collect()
    }

    #[test]
    fn the_first_goes_alone_and_those_who_wait_go_together() {
        let mut callouts = Callouts::new(1000);
        callouts.post(letter(1)).unwrap();
        let batch = callouts.next_batch(0).unwrap();
        callouts.sent(7, batch, 0);
        callouts.post(letter(2)).unwrap();
        callouts.post(letter(3)).unwrap();
        assert_eq!(senders(callouts.next_batch(1)), [0u32; 0]);
        assert_eq!(senders(callouts.landed(7)), [1]);
        assert_eq!(senders(callouts.next_batch(1)), [2, 3]);
        assert_eq!(callouts.landed(7), None);
    }

    #[test]
    fn a_slow_answer_does_not_hold_the_others() {
        let mut callouts = Callouts::new(1000);
        for (token, now_ms) in [(1, 0), (2, 5), (3, 10), (4, 15)] {
            callouts.post(letter(token)).unwrap();
            let batch = callouts.next_batch(now_ms).expect("another callout after some patience");
            callouts.sent(token, batch, now_ms);
        }
        callouts.post(letter(5)).unwrap();
        assert_eq!(callouts.next_batch(10_000), None, "but not without bound");
        callouts.landed(2);
        assert_eq!(senders(callouts.next_batch(10_000)), [5]);
    }

    #[test]
    fn batches_and_queues_are_bounded() {
        let mut callouts = Callouts::new(usize::MAX);
        for sender in 0..600 {
            callouts.post(letter(sender)).unwrap();
        }
        assert_eq!(callouts.next_batch(0).unwrap().len(), MAX_BATCH);
        let large = || QueuedItem::new(0, "x".repeat(BATCH_BYTES));
        let mut callouts = Callouts::new(BATCH_BYTES * 2);
        callouts.post(large()).unwrap();
        callouts.post(large()).unwrap();
        assert!(callouts.post(letter(1)).is_err());
        assert_eq!(callouts.next_batch(0).unwrap().len(), 1);
        callouts.post(letter(1)).unwrap();
    }

    #[test]
    fn failures_are_retried_in_order_after_growing_pauses() {
        let mut callouts = Callouts::new(1000);
        callouts.post(letter(1)).unwrap();
        let batch = callouts.next_batch(0).unwrap();
        callouts.post(letter(2)).unwrap();
        callouts.retry(batch, 0);
        assert_eq!(callouts.next_batch(RETRY_MS - 1), None);
        let batch = callouts.next_batch(RETRY_MS).unwrap();
        assert_eq!(senders(Some(batch.clone())), [1, 2]);
        callouts.retry(batch, RETRY_MS);
        assert_eq!(callouts.next_batch(RETRY_MS * 2), None);
        callouts.succeeded();
        assert_eq!(senders(callouts.next_batch(RETRY_MS * 2)), [1, 2]);
    }

    #[test]
    fn a_withdrawn_letter_is_not_sent() {
        let mut callouts = Callouts::new(1000);
        callouts.post(letter(1)).unwrap();
        callouts.post(letter(2)).unwrap();
        assert_eq!(senders(Some(callouts.take(|letter| letter.sender == 1))), [1]);
        assert_eq!(senders(callouts.next_batch(0)), [2]);
        assert!(callouts.is_empty());
    }

    #[test]
    fn the_envelope_is_the_wire_format() {
        assert_eq!(
            envelope("claims", &[letter(1), letter(2)]),
            r#"{"v":1,"claims":[{"n":1},{"n":2}]}"#
        );
    }

    #[test]
    fn urgent_letters_go_first_and_have_room_of_their_own() {
        let mut callouts = Callouts::new(16);
        callouts.post(letter(1)).unwrap();
        callouts.post(letter(2)).unwrap();
        callouts.see(5);
        assert!(callouts.post(letter(3)).is_err());
        assert!(callouts.post_first(letter(10)).is_err(), "the reserve is bounded too");
        callouts.take(|letter| letter.sender == 2);
        callouts.post_first(letter(4)).unwrap();
        callouts.see(9);
        assert_eq!(senders(callouts.next_batch(9)), [4, 1]);
        let mut callouts = Callouts::new(16);
        callouts.post(letter(1)).unwrap();
        callouts.post(letter(2)).unwrap();
        callouts.post_first(QueuedItem::new(3, "{}".to_owned())).unwrap();
        callouts.see(100);
        let batch = callouts.next_batch(100).unwrap();
        assert!(batch.iter().all(|letter| letter.age_ms(150) == 50), "{batch:?}");
    }

    #[test]
    fn answer_of_another_kind_shortens_the_pause() {
        let mut callouts = Callouts::new(1000);
        callouts.post(letter(1)).unwrap();
        assert!(!callouts.hurry(), "nothing failed");
        for now_ms in [0, 1_000, 2_000] {
            let batch = callouts.next_batch(now_ms).unwrap();
            callouts.retry(batch, now_ms);
        }
        assert_eq!(callouts.next_batch(2_000 + RETRY_MS), None);
        assert!(callouts.hurry());
        assert_eq!(callouts.next_batch(2_000 + RETRY_MS - 1), None);
        assert_eq!(senders(callouts.next_batch(2_000 + RETRY_MS)), [1]);
    }
}
