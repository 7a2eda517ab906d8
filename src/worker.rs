//! State that the streams of one worker share: the configuration in use, the items for the sidecar, the waiting streams,
//! and the counts. Streams post here; the root context, woken by the bell or the tick, sends.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::rc::Rc;

use twilio_edge_contract::{Claim, Settlement};

use crate::callouts::{Callouts, QueuedItem};
use crate::config::Config;
use crate::exchange::Exchange;
use crate::host::{self, Bell, Metrics};
use crate::log_limit::{LogLimit, suppressed_refusals};
use crate::metrics::{Counter, Gauge, Tally};
use crate::refresh::KeyRefresh;

/// Most bytes of each kind that may wait, per worker.
const MOST_CLAIM_BYTES: usize = 8 << 20;
const MOST_SETTLEMENT_BYTES: usize = 16 << 20;

/// A settlement whose acknowledgement is pending.
pub(crate) struct Settling {
    pub(crate) claim_id: String,
    /// The stream that holds its response for it.
    pub(crate) stream: Option<u32>,
}

/// A stream that waits for a verdict.
pub(crate) struct Asking {
    pub(crate) stream: u32,
    pub(crate) claim_id: String,
}

/// Handle to the worker, held by streams and the root context.
#[derive(Clone)]
pub(crate) struct Shared(Rc<RefCell<Worker>>);

pub(crate) struct Worker {
    /// Random number that identifies the worker among all workers and VMs.
    id: u64,
    pub(crate) config: Rc<Config>,
    pub(crate) refresh: Option<KeyRefresh>,
    pub(crate) metrics: Metrics,
    tally: Tally,
    bell: Option<Bell>,
    /// The bell has rung, and the root context has not answered it yet.
    rung: bool,
    /// Streams that wait for a verdict, an acknowledgement or a deadline.
    pub(crate) streams: BTreeMap<u32, Rc<RefCell<Exchange>>>,
    pub(crate) claims: Callouts<Asking>,
    /// Claims for which there was no room. The root callback reports them to their streams, like other failures.
    pub(crate) unasked: Vec<QueuedItem<Asking>>,
    pub(crate) settlements: Callouts<Settling>,
    refusals: LogLimit,
}

impl Shared {
    pub(crate) fn new(config: Config) -> Self {
        // Fresh from the host's random source: no two VMs make the same claim ids.
        let id = RandomState::new().build_hasher().finish();
        let config = Rc::new(config);
        Self(Rc::new(RefCell::new(Worker {
            id,
            bell: config.sidecar.is_some().then(|| Bell::new(id)).flatten(),
            refresh: KeyRefresh::of(&config, id),
            config,
            metrics: Metrics::define(),
            tally: Tally::default(),
            rung: false,
            streams: BTreeMap::new(),
            claims: Callouts::new(MOST_CLAIM_BYTES),
            unasked: Vec::new(),
            settlements: Callouts::new(MOST_SETTLEMENT_BYTES),
            refusals: LogLimit::default(),
        })))
    }

    /// Runs `work` on the worker. Callbacks do not nest, so the worker is always free; if the host ever nested them,
    /// skipping the work is better than a panic.
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut Worker) -> R) -> Option<R> {
        self.0.try_borrow_mut().ok().map(|mut worker| work(&mut worker))
    }

    /// Creates the state machine of a new request of this worker.
    pub(crate) fn begin(&self, stream: u32) -> Option<Exchange> {
        self.with(|worker| Exchange::new(Rc::clone(&worker.config), worker.id, stream))
    }

    pub(crate) fn max_body_bytes(&self) -> usize {
        self.with(|worker| worker.config.max_body_bytes).unwrap_or_default()
    }

    /// Stores a stream that waits, so that replies and ticks find it.
    pub(crate) fn remember(&self, stream: u32, exchange: &Rc<RefCell<Exchange>>) {
        self.with(|worker| worker.streams.insert(stream, Rc::clone(exchange)));
    }

    pub(crate) fn forget(&self, stream: u32) {
        self.with(|worker| worker.streams.remove(&stream));
    }

    pub(crate) fn ask(&self, stream: u32, claim: &Claim) {
        // Serialization of strings cannot fail; if it did, the request would time out.
        let json = serde_json::to_string(claim).unwrap_or_default();
        let sender = Asking { stream, claim_id: claim.claim_id.clone() };
        self.with(|worker| {
            let alone = !worker.claims.is_flying();
            if let Err(refused) = worker.claims.post(QueuedItem::new(sender, json)) {
                worker.unasked.push(refused);
                worker.ring();
            } else if alone {
                worker.ring();
            }
            // Otherwise it is sent when the callout in flight has ended, or after a short wait.
        });
    }

    pub(crate) fn withdraw(&self, stream: u32) {
        self.with(|worker| worker.claims.take(|letter| letter.sender.stream == stream));
    }

    pub(crate) fn settle(&self, stream: u32, settlement: &Settlement, urgent: bool) {
        let json = serde_json::to_string(settlement).unwrap_or_default();
        let sender =
            Settling { claim_id: settlement.claim_id.clone(), stream: urgent.then_some(stream) };
        self.with(|worker| {
            let letter = QueuedItem::new(sender, json);
            // A possible opt-out that the sidecar does not know precedes settlements that it can do without.
            let posted = match urgent && settlement.unclaimed.is_some() {
                true => worker.settlements.post_first(letter),
                false => worker.settlements.post(letter),
            };
            if posted.is_err() {
                worker.count(Counter::SettlementDropped);
            }
            if urgent {
                worker.ring();
            }
        });
    }

    /// Reports whether settlements are left that the sidecar has not acknowledged.
    pub(crate) fn owes_settlements(&self) -> bool {
        self.with(|worker| !worker.settlements.is_empty()).unwrap_or_default()
    }

    pub(crate) fn count(&self, counter: Counter) {
        self.with(|worker| worker.count(counter));
    }

    /// Logs the number of suppressed refusals before the context ends.
    pub(crate) fn report_suppressed(&self) {
        if let Some(suppressed) = self.with(|worker| worker.refusals.take_suppressed()).flatten() {
            host::warn(&suppressed_refusals(suppressed));
        }
    }

    /// Logs a refusal, unless there were too many.
    pub(crate) fn log_refusal(&self, line: &str) {
        if self.with(|worker| worker.refusals.admits()) == Some(true) {
            host::warn(line);
        }
    }
}

impl Worker {
    pub(crate) fn count(&mut self, counter: Counter) {
        self.tally.count(counter);
    }

    /// Reports the counts to the host, and logs the number of refusals that were suppressed within the last second.
    pub(crate) fn report(&mut self, now_ms: u64) {
        self.metrics.add(&mut self.tally);
        self.metrics.part(Gauge::Waiting, self.streams.len());
        self.metrics.part(Gauge::Outbox, self.settlements.len());
        if let Some(suppressed) = self.refusals.refill(now_ms) {
            host::warn(&suppressed_refusals(suppressed));
        }
    }

    /// Records that the root context has been woken.
    pub(crate) fn answer_bell(&mut self) {
        self.rung = false;
        if let Some(bell) = &self.bell {
            bell.answer();
        }
    }

    fn ring(&mut self) {
        if let Some(bell) = self.bell.as_ref().filter(|_| !self.rung) {
            bell.ring();
            self.rung = true;
        }
    }
}
