//! Exchanges with the sidecar, shared by many requests. A callout costs as much as proxying another request, so every claim
//! and settlement that waits when a callout is sent is part of it.
//!
//! Decides when an exchange is sent, its size, how many are in flight, when to retry and when to stop. A claim is sent
//! immediately when no exchange is in flight. Otherwise it waits for the pending reply. If that reply takes twice as long as
//! replies usually take, another exchange is opened, up to [`MAX_IN_FLIGHT`]. A settlement waits for the next exchange
//! with a claim, or for the next tick. After a failure settlements go alone until one is acknowledged: the sidecar may
//! refuse them, and would refuse the claims of the same exchange.
//!
//! Must not know: the contents of an item, the host, clocks.

mod lanes;

use std::collections::VecDeque;

use twilio_edge_contract::{MAX_BATCH, encode_request};

pub use self::lanes::{Lane, Lanes};

/// Most exchanges in flight per lane.
const MAX_IN_FLIGHT: usize = 4;
/// Shortest and longest time in milliseconds after which a reply is late.
const LATE_MS: [u64; 2] = [5, 100];
/// Weight of one reply time in the average, as a divisor.
const REPLY_WEIGHT: u64 = 8;
/// Size in bytes at which a batch is closed; a single larger item is sent alone.
const BATCH_BYTES: usize = 512 * 1024;
/// First and longest pause after a failure, in milliseconds. Responses that wait for an opt-out to be acknowledged wait 1 s.
const RETRY_MS: u64 = 100;
const MAX_RETRY_MS: u64 = 400;

/// Claim or settlement of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedItem<T> {
    /// The request that waits for the answer.
    pub origin: T,
    /// The binary form to send.
    pub record: Vec<u8>,
    /// Time of the first tick that saw it waiting; streams that post have no clock.
    first_tick_ms: Option<u64>,
}

impl<T> QueuedItem<T> {
    /// Creates an item that has not been seen yet.
    pub fn new(origin: T, record: Vec<u8>) -> Self {
        Self { origin, record, first_tick_ms: None }
    }

    /// Returns the time since it was first seen, in milliseconds.
    pub fn age_ms(&self, now_ms: u64) -> u64 {
        self.first_tick_ms.map_or(0, |first_tick_ms| now_ms.saturating_sub(first_tick_ms))
    }
}

/// Items of one exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch<C, S> {
    /// Claims, oldest first.
    pub claims: Vec<QueuedItem<C>>,
    /// Settlements, oldest first.
    pub settlements: Vec<QueuedItem<S>>,
}

impl<C, S> Batch<C, S> {
    /// Returns the request body.
    pub fn body(&self) -> Vec<u8> {
        let claims: Vec<&[u8]> = self.claims.iter().map(|item| &*item.record).collect();
        let settlements: Vec<&[u8]> = self.settlements.iter().map(|item| &*item.record).collect();
        encode_request(&claims, &settlements)
    }
}

/// Occasion on which a batch may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// A tick: everything that waits is sent.
    Tick,
    /// A claim or an urgent settlement was posted, or a reply arrived: settlements alone wait for the tick.
    Change,
}

/// Claims and settlements of one lane, waiting and in flight.
#[derive(Debug)]
pub struct Callouts<C, S> {
    claims: Queue<C>,
    settlements: Queue<S>,
    has_urgent_settlement: bool,
    /// Settlements have failed, and none was acknowledged since.
    are_settlements_failing: bool,
    in_flight: Vec<InFlightExchange<C, S>>,
    /// Moving average of the reply time, in eighths of a millisecond.
    reply_time: u64,
    failed_at_ms: u64,
    retry_at_ms: u64,
    retry_pause_ms: u64,
}

#[derive(Debug)]
struct InFlightExchange<C, S> {
    token: u32,
    since_ms: u64,
    batch: Batch<C, S>,
}

/// Waiting items of one kind.
#[derive(Debug)]
struct Queue<T> {
    items: VecDeque<QueuedItem<T>>,
    bytes: usize,
    max_bytes: usize,
}

impl<C, S> Callouts<C, S> {
    /// Creates an empty queue. The arguments bound the waiting items; [`MAX_IN_FLIGHT`] bounds those in flight.
    pub fn new(max_claim_bytes: usize, max_settlement_bytes: usize) -> Self {
        Self {
            claims: Queue::new(max_claim_bytes),
            settlements: Queue::new(max_settlement_bytes),
            has_urgent_settlement: false,
            are_settlements_failing: false,
            in_flight: Vec::new(),
            reply_time: 0,
            failed_at_ms: 0,
            retry_at_ms: 0,
            retry_pause_ms: RETRY_MS,
        }
    }

    /// Adds a claim.
    ///
    /// # Errors
    ///
    /// Returns the claim when the queue is full.
    pub fn post_claim(&mut self, item: QueuedItem<C>) -> Result<(), QueuedItem<C>> {
        self.claims.push(item)
    }

    /// Adds a settlement. An urgent one does not wait for the tick.
    ///
    /// # Errors
    ///
    /// Returns the settlement when the queue is full.
    pub fn post_settlement(
        &mut self,
        item: QueuedItem<S>,
        is_urgent: bool,
    ) -> Result<(), QueuedItem<S>> {
        self.settlements.push(item)?;
        self.has_urgent_settlement |= is_urgent;
        Ok(())
    }

    /// Records the time for the items that were added since the last call.
    pub fn record_time(&mut self, now_ms: u64) {
        self.claims.record_time(now_ms);
        self.settlements.record_time(now_ms);
    }

    /// Returns the batch to send now, if one is due.
    pub fn next_batch(&mut self, now_ms: u64, occasion: Occasion) -> Option<Batch<C, S>> {
        if self.are_settlements_failing {
            return self.next_batch_while_failing(now_ms);
        }
        let has_settlements = !self.settlements.items.is_empty();
        let is_due = !self.claims.items.is_empty()
            || (has_settlements && (self.has_urgent_settlement || occasion == Occasion::Tick));
        if !is_due || !self.may_send(now_ms) {
            return None;
        }
        let mut room = BATCH_BYTES;
        let claims = self.claims.pop(&mut room);
        let settlements = self.settlements.pop(&mut room);
        self.has_urgent_settlement &= !self.settlements.items.is_empty();
        Some(Batch { claims, settlements })
    }

    /// Returns settlements alone when their pause is over, or else claims alone. Neither waits for the other.
    fn next_batch_while_failing(&mut self, now_ms: u64) -> Option<Batch<C, S>> {
        let mut room = BATCH_BYTES;
        let is_retrying = self.in_flight.iter().any(|it| !it.batch.settlements.is_empty());
        if !self.settlements.items.is_empty() && now_ms >= self.retry_at_ms && !is_retrying {
            let settlements = self.settlements.pop(&mut room);
            self.has_urgent_settlement &= !self.settlements.items.is_empty();
            return Some(Batch { claims: Vec::new(), settlements });
        }
        if self.claims.items.is_empty() || !self.may_send(now_ms) {
            return None;
        }
        Some(Batch { claims: self.claims.pop(&mut room), settlements: Vec::new() })
    }

    /// Reports whether another exchange may be opened: none is in flight, or the latest one is late.
    fn may_send(&self, now_ms: u64) -> bool {
        let [least, most] = LATE_MS;
        let late_ms = (self.reply_time * 2 / REPLY_WEIGHT).clamp(least, most);
        let has_claims = |exchange: &&InFlightExchange<C, S>| !exchange.batch.claims.is_empty();
        let latest = match self.are_settlements_failing {
            // The reply to settlements alone may never come.
            true => self.in_flight.iter().filter(has_claims).map(|it| it.since_ms).max(),
            false => self.in_flight.iter().map(|it| it.since_ms).max(),
        };
        self.in_flight.len() < MAX_IN_FLIGHT
            && latest.is_none_or(|since_ms| now_ms.saturating_sub(since_ms) >= late_ms)
    }

    /// Records that the batch was sent under `token`.
    pub fn record_sent(&mut self, token: u32, batch: Batch<C, S>, now_ms: u64) {
        self.in_flight.push(InFlightExchange { token, since_ms: now_ms, batch });
    }

    /// Removes and returns the batch that was sent under `token`, because its reply arrived or the callout failed.
    pub fn complete(&mut self, token: u32, now_ms: u64) -> Option<Batch<C, S>> {
        let at = self.in_flight.iter().position(|exchange| exchange.token == token)?;
        let InFlightExchange { since_ms, batch, .. } = self.in_flight.swap_remove(at);
        let reply_ms = now_ms.saturating_sub(since_ms);
        self.reply_time = self.reply_time - self.reply_time / REPLY_WEIGHT + reply_ms;
        Some(batch)
    }

    /// Removes and returns the batch that was sent under `token`, because the proxy ended the callout without a reply.
    pub fn abandon(&mut self, token: u32) -> Option<Batch<C, S>> {
        let at = self.in_flight.iter().position(|exchange| exchange.token == token)?;
        Some(self.in_flight.swap_remove(at).batch)
    }

    /// Returns claims to the front of the queue, because their callout ended without a reply.
    pub fn return_claims(&mut self, claims: Vec<QueuedItem<C>>) {
        self.claims.push_back_to_front(claims);
    }

    /// Removes and returns all settlements, waiting and in flight.
    pub fn drain_settlements(&mut self) -> Vec<QueuedItem<S>> {
        let in_flight = self.in_flight.drain(..).flat_map(|exchange| exchange.batch.settlements);
        let mut settlements: Vec<_> = in_flight.collect();
        settlements.extend(self.settlements.take(|_| true));
        settlements
    }

    /// Returns settlements to the front of the queue. They are sent again after a pause that grows with each failure.
    pub fn retry(&mut self, settlements: Vec<QueuedItem<S>>, now_ms: u64) {
        self.settlements.push_back_to_front(settlements);
        self.are_settlements_failing = true;
        self.failed_at_ms = now_ms;
        self.retry_at_ms = now_ms.saturating_add(self.retry_pause_ms);
        self.retry_pause_ms = (self.retry_pause_ms * 2).min(MAX_RETRY_MS);
    }

    /// Shortens the pause before a retry to the first pause, because the sidecar answers claims again.
    pub fn shorten_pause(&mut self) {
        self.retry_at_ms = self.retry_at_ms.min(self.failed_at_ms.saturating_add(RETRY_MS));
        self.retry_pause_ms = RETRY_MS;
    }

    /// Ends the pauses, because the sidecar records settlements.
    pub fn end_pauses(&mut self) {
        self.are_settlements_failing = false;
        self.retry_at_ms = 0;
        self.retry_pause_ms = RETRY_MS;
    }

    /// Removes and returns the waiting claims that match `is_taken`.
    pub fn take_claims(
        &mut self,
        is_taken: impl FnMut(&QueuedItem<C>) -> bool,
    ) -> Vec<QueuedItem<C>> {
        self.claims.take(is_taken)
    }

    /// Removes and returns the waiting settlements that match `is_taken`.
    pub fn take_settlements(
        &mut self,
        is_taken: impl FnMut(&QueuedItem<S>) -> bool,
    ) -> Vec<QueuedItem<S>> {
        self.settlements.take(is_taken)
    }

    /// Returns the number of settlements that are waiting or in flight.
    pub fn settlements(&self) -> usize {
        let in_flight = self.in_flight.iter().map(|exchange| exchange.batch.settlements.len());
        self.settlements.items.len() + in_flight.sum::<usize>()
    }

    /// Reports whether an exchange is in flight.
    pub fn is_in_flight(&self) -> bool {
        !self.in_flight.is_empty()
    }
}

impl<T> Queue<T> {
    fn new(max_bytes: usize) -> Self {
        Self { items: VecDeque::new(), bytes: 0, max_bytes }
    }

    fn push(&mut self, item: QueuedItem<T>) -> Result<(), QueuedItem<T>> {
        let bytes = self.bytes.saturating_add(item.record.len());
        if bytes > self.max_bytes {
            return Err(item);
        }
        self.bytes = bytes;
        self.items.push_back(item);
        Ok(())
    }

    fn push_back_to_front(&mut self, items: Vec<QueuedItem<T>>) {
        for item in items.into_iter().rev() {
            self.bytes = self.bytes.saturating_add(item.record.len());
            self.items.push_front(item);
        }
    }

    fn record_time(&mut self, now_ms: u64) {
        for item in self.items.iter_mut().rev().take_while(|item| item.first_tick_ms.is_none()) {
            item.first_tick_ms = Some(now_ms);
        }
    }

    /// Removes and returns the items that fit into the batch; at least one if nothing else is in it.
    fn pop(&mut self, room: &mut usize) -> Vec<QueuedItem<T>> {
        let mut popped = Vec::new();
        while popped.len() < MAX_BATCH {
            let Some(bytes) = self.items.front().map(|item| item.record.len()) else { break };
            let is_first = popped.is_empty() && *room == BATCH_BYTES;
            if bytes > *room && !is_first {
                break;
            }
            *room = room.saturating_sub(bytes);
            self.bytes = self.bytes.saturating_sub(bytes);
            popped.extend(self.items.pop_front());
        }
        popped
    }

    fn take(&mut self, mut is_taken: impl FnMut(&QueuedItem<T>) -> bool) -> Vec<QueuedItem<T>> {
        let (taken, rest): (Vec<_>, _) = self.items.drain(..).partition(|item| is_taken(item));
        self.items = rest.into();
        let bytes: usize = taken.iter().map(|item| item.record.len()).sum();
        self.bytes = self.bytes.saturating_sub(bytes);
        taken
    }
}

#[cfg(test)]
mod tests;
