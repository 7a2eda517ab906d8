//! The two lanes of a worker's exchanges. A reply comes when all items of its exchange are answered, so an item whose answer
//! needs a write to disk must not share an exchange with items that do not.

use twilio_edge_contract::{Claim, Delivery, Settlement};

use super::{Batch, Callouts, Occasion, QueuedItem};

/// Lane of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// The sidecar answers from memory.
    Prompt,
    /// The sidecar may answer only after a write to disk.
    Durable,
}

impl Lane {
    /// Returns the lane of a claim; `may_change_consent` is true for a possible opt-out.
    pub fn of_claim(claim: &Claim, may_change_consent: bool) -> Self {
        // A status of one of the sidecar's own messages is recorded before its verdict.
        let is_durable =
            may_change_consent || claim.delivery == Delivery::Accept || claim.message_id.is_some();
        if is_durable { Self::Durable } else { Self::Prompt }
    }

    /// Returns the lane of a settlement. Without a verdict it may be the only copy of its webhook, which the sidecar stores in the
    /// database first.
    pub fn of_settlement(settlement: &Settlement) -> Self {
        if settlement.unclaimed.is_some() { Self::Durable } else { Self::Prompt }
    }
}

/// Callouts of both lanes.
#[derive(Debug)]
pub struct Lanes<C, S> {
    prompt: Callouts<C, S>,
    durable: Callouts<C, S>,
}

impl<C, S> Lanes<C, S> {
    /// Creates empty lanes, each with these bounds.
    pub fn new(max_claim_bytes: usize, max_settlement_bytes: usize) -> Self {
        let callouts = || Callouts::new(max_claim_bytes, max_settlement_bytes);
        Self { prompt: callouts(), durable: callouts() }
    }

    /// Returns the callouts of a lane.
    pub fn lane(&mut self, lane: Lane) -> &mut Callouts<C, S> {
        match lane {
            Lane::Prompt => &mut self.prompt,
            Lane::Durable => &mut self.durable,
        }
    }

    fn each(&mut self) -> [&mut Callouts<C, S>; 2] {
        [&mut self.prompt, &mut self.durable]
    }

    /// Records the time for the items that were added since the last call.
    pub fn record_time(&mut self, now_ms: u64) {
        self.each().into_iter().for_each(|callouts| callouts.record_time(now_ms));
    }

    /// Returns the batch to send now and its lane, if one is due.
    pub fn next_batch(&mut self, now_ms: u64, occasion: Occasion) -> Option<(Lane, Batch<C, S>)> {
        [Lane::Prompt, Lane::Durable]
            .into_iter()
            .find_map(|lane| Some((lane, self.lane(lane).next_batch(now_ms, occasion)?)))
    }

    /// Removes and returns the batch that was sent under `token`, and its lane.
    pub fn complete(&mut self, token: u32, now_ms: u64) -> Option<(Lane, Batch<C, S>)> {
        [Lane::Prompt, Lane::Durable]
            .into_iter()
            .find_map(|lane| Some((lane, self.lane(lane).complete(token, now_ms)?)))
    }

    /// Removes and returns the batch that was sent under `token`, and its lane, because the proxy ended the callout without a
    /// reply.
    pub fn abandon(&mut self, token: u32) -> Option<(Lane, Batch<C, S>)> {
        [Lane::Prompt, Lane::Durable]
            .into_iter()
            .find_map(|lane| Some((lane, self.lane(lane).abandon(token)?)))
    }

    /// Removes and returns all settlements with their lanes, waiting and in flight.
    pub fn drain_settlements(&mut self) -> Vec<(Lane, QueuedItem<S>)> {
        let lanes = [Lane::Prompt, Lane::Durable].into_iter();
        lanes
            .flat_map(|lane| {
                self.lane(lane).drain_settlements().into_iter().map(move |it| (lane, it))
            })
            .collect()
    }

    /// Shortens the pauses before retries, because the sidecar answers claims again.
    pub fn shorten_pauses(&mut self) {
        self.each().into_iter().for_each(Callouts::shorten_pause);
    }

    /// Removes the waiting claims that match `is_taken`.
    pub fn drop_claims(&mut self, is_taken: impl Fn(&QueuedItem<C>) -> bool) {
        self.each().into_iter().for_each(|callouts| drop(callouts.take_claims(&is_taken)));
    }

    /// Removes the waiting settlements that match `is_taken`, and returns their number.
    pub fn drop_settlements(&mut self, is_taken: impl Fn(&QueuedItem<S>) -> bool) -> usize {
        let dropped = self.each().map(|callouts| callouts.take_settlements(&is_taken).len());
        dropped.into_iter().sum()
    }

    /// Returns the number of settlements that are waiting or in flight.
    pub fn settlements(&self) -> usize {
        self.prompt.settlements() + self.durable.settlements()
    }
}
