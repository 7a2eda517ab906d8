//! State that the streams of one worker share: the configuration in use, the items for the sidecar, the waiting streams and
//! the memory of recent webhooks.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::rc::Rc;

use twilio_edge_contract::{Claim, Settlement, Verdict};

use super::{MAX_CLAIM_BYTES, MAX_SETTLEMENT_BYTES, SETTLEMENT_LIFE_MS};
use crate::callouts::{Lane, Lanes, QueuedItem};
use crate::config::Config;
use crate::exchange::Exchange;
use crate::recent_webhooks::{RecentWebhooks, RepeatCheck, RepeatKey};

/// Origin of a settlement that the sidecar has not acknowledged. `R` refers to a stream.
#[derive(Debug)]
pub struct SettlementOrigin<R> {
    /// Id of the claim that is settled.
    pub claim_id: String,
    /// The stream that holds its response for it.
    pub stream: Option<R>,
}

/// Origin of a claim: the stream that waits for its verdict.
#[derive(Debug)]
pub struct ClaimOrigin {
    /// Number of the stream.
    pub stream: u32,
    /// Id of the claim.
    pub claim_id: String,
    /// Key in the memory of recent webhooks.
    pub key: Option<RepeatKey>,
}

/// Result of [`Worker::claim`].
#[derive(Debug)]
pub enum ClaimResult {
    /// The claim waits in the queue. `is_due` is true if it can be sent now; otherwise it is sent when the exchange in flight has
    /// ended, or when its reply is late.
    Queued {
        /// No exchange of its lane is in flight, or the claim was rejected because the queue is full.
        is_due: bool,
    },
    /// The claim is a repeat that needs no exchange: the verdict.
    Repeat(Box<Verdict>),
}

/// State of a worker. `S` is a waiting stream, `R` refers to a stream from a settlement.
#[derive(Debug)]
pub struct Worker<S, R> {
    /// Random number that identifies the worker among all workers and VMs.
    pub id: u64,
    /// Configuration for new requests.
    pub config: Rc<Config>,
    /// Streams that wait for a verdict, an acknowledgement or a deadline.
    pub streams: BTreeMap<u32, S>,
    /// Items for the sidecar.
    pub callouts: Lanes<ClaimOrigin, SettlementOrigin<R>>,
    /// Claims for which there was no room. They are reported to their streams like other failures.
    pub rejected_claims: Vec<QueuedItem<ClaimOrigin>>,
    /// Memory of recent webhooks.
    pub recent: RecentWebhooks,
}

impl<S, R> Worker<S, R> {
    /// Creates the state. No two workers have the same id, also not in different processes.
    pub fn new(config: Rc<Config>) -> Self {
        Self {
            id: RandomState::new().build_hasher().finish(),
            config,
            streams: BTreeMap::new(),
            callouts: Lanes::new(MAX_CLAIM_BYTES, MAX_SETTLEMENT_BYTES),
            rejected_claims: Vec::new(),
            recent: RecentWebhooks::default(),
        }
    }

    /// Creates the state machine of a new request of this worker.
    pub fn begin(&self, stream: u32) -> Exchange {
        Exchange::new(Rc::clone(&self.config), self.id, stream)
    }

    /// Queues a claim, unless it is a repeat that needs none.
    pub fn claim(&mut self, stream: u32, claim: &Claim, lane: Lane) -> ClaimResult {
        let key = match self.recent.check(stream, claim) {
            RepeatCheck::New(key) => key,
            RepeatCheck::Repeat(verdict) => return ClaimResult::Repeat(verdict),
        };
        let origin = ClaimOrigin { stream, claim_id: claim.claim_id.clone(), key };
        let item = QueuedItem::new(origin, claim.encode());
        let callouts = self.callouts.lane(lane);
        let is_first = !callouts.is_in_flight();
        match callouts.post_claim(item) {
            Ok(()) => ClaimResult::Queued { is_due: is_first },
            Err(item) => {
                self.rejected_claims.push(item);
                ClaimResult::Queued { is_due: true }
            }
        }
    }

    /// Removes the claims of a stream from the queue.
    pub fn withdraw(&mut self, stream: u32) {
        self.callouts.drop_claims(|item| item.origin.stream == stream);
    }

    /// Queues a settlement; returns false if there is no room. `waiting` is the stream that holds its response for it.
    pub fn settle(
        &mut self,
        stream: u32,
        settlement: &Settlement,
        waiting: Option<R>,
        is_urgent: bool,
    ) -> bool {
        self.recent.record_settlement(stream, settlement, is_urgent);
        let origin = SettlementOrigin { claim_id: settlement.claim_id.clone(), stream: waiting };
        let item = QueuedItem::new(origin, settlement.encode());
        let callouts = self.callouts.lane(Lane::of_settlement(settlement));
        callouts.post_settlement(item, is_urgent).is_ok()
    }

    /// Records that there is no verdict on claims, and returns the streams that wait for one.
    pub fn fail_claims(&mut self, items: Vec<QueuedItem<ClaimOrigin>>) -> Vec<u32> {
        let streams = items.into_iter().map(|QueuedItem { origin, .. }| {
            self.recent.record_verdict(origin.key.as_ref(), origin.stream, None);
            origin.stream
        });
        streams.collect()
    }

    /// Records the time of a tick, and returns the number of settlements that were dropped because they are too old.
    pub fn record_time(&mut self, now_ms: u64) -> usize {
        self.callouts.record_time(now_ms);
        self.recent.record_time(now_ms);
        self.callouts.drop_settlements(|item| item.age_ms(now_ms) >= SETTLEMENT_LIFE_MS)
    }
}
