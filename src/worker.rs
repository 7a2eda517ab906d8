//! State that the streams of one worker share with the root context: posted items, waiting streams and counts. Streams post
//! here; the root context, woken by a wakeup or a tick, sends.

use std::cell::RefCell;
use std::rc::Rc;

use twilio_edge_contract::{Claim, RefusedRequest, Settlement, Verdict};

use crate::adapter::{self, ClaimResult};
use crate::callouts::Lane;
use crate::config::Config;
use crate::exchange::Exchange;
use crate::header_map::HeaderMap;
use crate::host::{self, Metrics, Wakeup};
use crate::log_limit::{LogLimit, suppressed_refusals};
use crate::metrics::{Counter, Gauge, ReportResult, Tally};
use crate::refresh::KeyRefresh;
use crate::refused_requests::RefusedRequests;

/// Origin of a settlement: the number of a stream of this worker.
pub(crate) type SettlementOrigin = adapter::SettlementOrigin<u32>;

/// Handle to the worker, held by streams and the root context.
#[derive(Clone)]
pub(crate) struct Shared(Rc<RefCell<Worker>>);

pub(crate) struct Worker {
    pub(crate) state: adapter::Worker<Rc<RefCell<Exchange>>, u32>,
    pub(crate) refresh: Option<KeyRefresh>,
    pub(crate) metrics: Metrics,
    pub(crate) tally: Tally,
    wakeup: Option<Wakeup>,
    /// True until the root context has handled the wakeup.
    is_wakeup_sent: bool,
    refusals: LogLimit,
    pub(crate) reports: RefusedRequests,
}

impl Shared {
    pub(crate) fn new(config: Config) -> Self {
        let state = adapter::Worker::new(Rc::new(config));
        let config = &state.config;
        Self(Rc::new(RefCell::new(Worker {
            wakeup: config.sidecar.is_some().then(|| Wakeup::new(state.id)).flatten(),
            refresh: KeyRefresh::new(config, state.id),
            reports: RefusedRequests::new(config),
            state,
            metrics: Metrics::define(),
            tally: Tally::default(),
            is_wakeup_sent: false,
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
        self.with(|worker| worker.state.begin(stream))
    }

    /// Returns the configuration in use.
    pub(crate) fn config(&self) -> Option<Rc<Config>> {
        self.with(|worker| Rc::clone(&worker.state.config))
    }

    pub(crate) fn max_body_bytes(&self) -> usize {
        self.with(|worker| worker.state.config.max_body_bytes).unwrap_or_default()
    }

    /// Stores a stream that waits, so that replies and ticks find it.
    pub(crate) fn add_waiting(&self, stream: u32, exchange: &Rc<RefCell<Exchange>>) {
        self.with(|worker| worker.state.streams.insert(stream, Rc::clone(exchange)));
    }

    pub(crate) fn remove_waiting(&self, stream: u32) {
        self.with(|worker| worker.state.streams.remove(&stream));
    }

    /// Returns a stream that waits.
    pub(crate) fn waiting(&self, stream: u32) -> Option<Rc<RefCell<Exchange>>> {
        self.with(|worker| worker.state.streams.get(&stream).cloned()).flatten()
    }

    /// Queues a claim for the sidecar, or returns the verdict if the claim is a repeat that needs none.
    pub(crate) fn claim(&self, stream: u32, claim: &Claim, lane: Lane) -> Option<Verdict> {
        self.with(|worker| match worker.state.claim(stream, claim, lane) {
            ClaimResult::Queued { is_due } => {
                if is_due {
                    worker.wake_root();
                }
                None
            }
            ClaimResult::Repeat(verdict) => {
                worker.count(Counter::RepeatAnswered);
                Some(*verdict)
            }
        })?
    }

    pub(crate) fn withdraw(&self, stream: u32) {
        self.with(|worker| worker.state.withdraw(stream));
    }

    pub(crate) fn queue_settlement(&self, stream: u32, settlement: &Settlement, urgent: bool) {
        self.with(|worker| {
            let waiting = urgent.then_some(stream);
            if !worker.state.settle(stream, settlement, waiting, urgent) {
                worker.count(Counter::SettlementDropped);
            }
            if urgent {
                worker.wake_root();
            }
        });
    }

    /// Reports whether settlements are left that the sidecar has not acknowledged.
    pub(crate) fn has_open_settlements(&self) -> bool {
        self.with(|worker| worker.state.callouts.settlements() > 0).unwrap_or_default()
    }

    pub(crate) fn count(&self, counter: Counter) {
        self.with(|worker| worker.count(counter));
    }

    /// Logs the number of suppressed refusals before the context ends.
    pub(crate) fn report_suppressed(&self) {
        let suppressed = self.with(|worker| worker.refusals.take_suppressed());
        if let Some(suppressed) = suppressed.flatten() {
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
        self.metrics.set_share(Gauge::Waiting, self.state.streams.len());
        self.metrics.set_share(Gauge::Outbox, self.state.callouts.settlements());
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
