//! State that the streams of one worker share: the configuration in use, the items for the sidecar, the waiting streams,
//! and the counts. Streams post here; the root context, woken by a wakeup or a tick, sends.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::rc::Rc;

use twilio_edge_contract::{Claim, RefusedRequest, Settlement, Verdict};

use crate::callouts::{Lane, Lanes, QueuedItem};
use crate::config::Config;
use crate::exchange::Exchange;
use crate::header_map::HeaderMap;
use crate::host::{self, Metrics, Wakeup};
use crate::log_limit::{LogLimit, suppressed_refusals};
use crate::metrics::{Counter, Gauge, ReportResult, Tally};
use crate::recent_webhooks::{RecentWebhooks, RepeatCheck, RepeatKey};
use crate::refresh::KeyRefresh;
use crate::refused_requests::RefusedRequests;

/// Most bytes of each kind that may wait, per worker and lane.
const MAX_CLAIM_BYTES: usize = 6 << 20;
const MAX_SETTLEMENT_BYTES: usize = 10 << 20;

/// Origin of a settlement that the sidecar has not acknowledged.
pub(crate) struct SettlementOrigin {
    pub(crate) claim_id: String,
    /// The stream that holds its response for it.
    pub(crate) stream: Option<u32>,
}

/// Origin of a claim: the stream that waits for its verdict.
pub(crate) struct ClaimOrigin {
    pub(crate) stream: u32,
    pub(crate) claim_id: String,
    /// Key in the memory of recent webhooks.
    pub(crate) key: Option<RepeatKey>,
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
    wakeup: Option<Wakeup>,
    /// True until the root context has handled the wakeup.
    is_wakeup_sent: bool,
    /// Streams that wait for a verdict, an acknowledgement or a deadline.
    pub(crate) streams: BTreeMap<u32, Rc<RefCell<Exchange>>>,
    pub(crate) callouts: Lanes<ClaimOrigin, SettlementOrigin>,
    /// Claims for which there was no room. The root callback reports them to their streams, like other failures.
    pub(crate) rejected_claims: Vec<QueuedItem<ClaimOrigin>>,
    pub(crate) recent: RecentWebhooks,
    refusals: LogLimit,
    pub(crate) reports: RefusedRequests,
}

impl Shared {
    pub(crate) fn new(config: Config) -> Self {
        // Fresh from the host's random source: no two VMs make the same claim ids.
        let id = RandomState::new().build_hasher().finish();
        let config = Rc::new(config);
        Self(Rc::new(RefCell::new(Worker {
            id,
            wakeup: config.sidecar.is_some().then(|| Wakeup::new(id)).flatten(),
            refresh: KeyRefresh::new(&config, id),
            reports: RefusedRequests::new(&config),
            config,
            metrics: Metrics::define(),
            tally: Tally::default(),
            is_wakeup_sent: false,
            streams: BTreeMap::new(),
            callouts: Lanes::new(MAX_CLAIM_BYTES, MAX_SETTLEMENT_BYTES),
            rejected_claims: Vec::new(),
            recent: RecentWebhooks::default(),
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
    pub(crate) fn add_waiting(&self, stream: u32, exchange: &Rc<RefCell<Exchange>>) {
        self.with(|worker| worker.streams.insert(stream, Rc::clone(exchange)));
    }

    pub(crate) fn remove_waiting(&self, stream: u32) {
        self.with(|worker| worker.streams.remove(&stream));
    }

    /// Returns a stream that waits.
    pub(crate) fn waiting(&self, stream: u32) -> Option<Rc<RefCell<Exchange>>> {
        self.with(|worker| worker.streams.get(&stream).cloned()).flatten()
    }

    /// Queues a claim for the sidecar, or returns the verdict if the claim is a repeat that needs none.
    pub(crate) fn claim(&self, stream: u32, claim: &Claim, lane: Lane) -> Option<Verdict> {
        match self.with(|worker| worker.recent.check(stream, claim))? {
            RepeatCheck::New(key) => {
                self.queue_claim(stream, claim, lane, key);
                None
            }
            RepeatCheck::Repeat(verdict) => {
                self.count(Counter::RepeatAnswered);
                Some(*verdict)
            }
        }
    }

    fn queue_claim(&self, stream: u32, claim: &Claim, lane: Lane, key: Option<RepeatKey>) {
        let origin = ClaimOrigin { stream, claim_id: claim.claim_id.clone(), key };
        let item = QueuedItem::new(origin, claim.encode());
        self.with(|worker| {
            let callouts = worker.callouts.lane(lane);
            let is_first = !callouts.is_in_flight();
            if let Err(item) = callouts.post_claim(item) {
                worker.rejected_claims.push(item);
                worker.wake_root();
            } else if is_first {
                worker.wake_root();
            }
            // Otherwise it is sent when the exchange in flight has ended, or when its reply is late.
        });
    }

    pub(crate) fn withdraw(&self, stream: u32) {
        self.with(|worker| worker.callouts.drop_claims(|item| item.origin.stream == stream));
    }

    pub(crate) fn queue_settlement(&self, stream: u32, settlement: &Settlement, urgent: bool) {
        let origin = SettlementOrigin {
            claim_id: settlement.claim_id.clone(),
            stream: urgent.then_some(stream),
        };
        self.with(|worker| {
            worker.recent.record_settlement(stream, settlement, urgent);
            let item = QueuedItem::new(origin, settlement.encode());
            if worker
                .callouts
                .lane(Lane::of_settlement(settlement))
                .post_settlement(item, urgent)
                .is_err()
            {
                worker.count(Counter::SettlementDropped);
            }
            if urgent {
                worker.wake_root();
            }
        });
    }

    /// Reports whether settlements are left that the sidecar has not acknowledged.
    pub(crate) fn has_open_settlements(&self) -> bool {
        self.with(|worker| worker.callouts.settlements() > 0).unwrap_or_default()
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

    /// Queues the report of a refusal, if it is part of the sample. The stream must be in focus: its headers are read.
    pub(crate) fn report_refusal(&self, mut request: RefusedRequest) {
        let is_admitted = self.with(|worker| worker.reports.admits(&mut request)) == Some(true);
        if !is_admitted {
            return self.count(Counter::Report(ReportResult::Skipped));
        }
        let (headers, now_ms) = (host::request_headers(), host::now_ms());
        self.with(|worker| worker.reports.post(request, HeaderMap::parse(&headers), now_ms));
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

    /// Counts reports of refused requests.
    pub(crate) fn count_reports(&mut self, result: ReportResult, count: usize) {
        for _ in 0..count {
            self.count(Counter::Report(result));
        }
    }

    /// Reports the counts to the host, and logs the number of refusals that were suppressed within the last second.
    pub(crate) fn report(&mut self, now_ms: u64) {
        self.metrics.add(&mut self.tally);
        self.metrics.set_share(Gauge::Waiting, self.streams.len());
        self.metrics.set_share(Gauge::Outbox, self.callouts.settlements());
        if let Some(suppressed) = self.refusals.refill(now_ms) {
            host::warn(&suppressed_refusals(suppressed));
        }
    }

    /// Records that the root context has been woken.
    pub(crate) fn clear_wakeup(&mut self) {
        self.is_wakeup_sent = false;
        if let Some(wakeup) = &self.wakeup {
            wakeup.clear();
        }
    }

    fn wake_root(&mut self) {
        if let Some(wakeup) = self.wakeup.as_ref().filter(|_| !self.is_wakeup_sent) {
            wakeup.send();
            self.is_wakeup_sent = true;
        }
    }
}
