//! Work on the main thread of Envoy, whose callouts survive streams: settlements, the key ring, reports of refused requests,
//! metrics, and the ticks of the workers.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::Ordering;

use twilio_edge_contract::{
    EXCHANGE_MEDIA_TYPE, EXCHANGE_PATH, ExchangeReply, REFUSALS_PATH, SettlementAck,
};
use twilio_edge_filter::adapter::{
    MAX_SETTLEMENT_BYTES, SETTLEMENT_LIFE_MS, SettlementOrigin, account_summary, acknowledge,
    generation_number, retry,
};
use twilio_edge_filter::callouts::{Batch, Lane, Lanes, Occasion, QueuedItem};
use twilio_edge_filter::config::Sidecar;
use twilio_edge_filter::metrics::{Counter, Gauge, ReportResult, Tally};
use twilio_edge_filter::refresh::{KeyRefresh, RefreshResult};

use crate::edge::Edge;
use crate::envoy::{self, Reply, StreamScheduler};
use crate::open_callouts::OpenCallouts;
use crate::sync::lock;
use crate::worker::{EVENT_SETTLED, EVENT_TICK, log_suppressed, now_ms};

type Origin = SettlementOrigin<StreamScheduler>;

/// State that only the main thread uses.
pub(crate) struct MainThread {
    /// Settlements alone: the claims are in the workers.
    outbox: RefCell<Lanes<(), Origin>>,
    refresh: RefCell<Option<KeyRefresh>>,
    open_callouts: RefCell<OpenCallouts>,
    next_token: Cell<u32>,
    tally: RefCell<Tally>,
    /// Shares of this configuration in the gauges, as reported.
    waiting: Cell<i64>,
    unsettled: Cell<i64>,
}

impl MainThread {
    pub(crate) fn new(edge: &Edge) -> Self {
        let config = Rc::new((*edge.config).clone());
        // Jitter needs no secret, only a number that differs between processes.
        let seed = now_ms() ^ (u64::from(std::process::id()) << 32);
        Self {
            outbox: RefCell::new(Lanes::new(0, MAX_SETTLEMENT_BYTES)),
            refresh: RefCell::new(KeyRefresh::new(&config, seed)),
            open_callouts: RefCell::default(),
            next_token: Cell::new(0),
            tally: RefCell::default(),
            waiting: Cell::new(0),
            unsettled: Cell::new(0),
        }
    }

    fn token(&self) -> u32 {
        let token = self.next_token.get();
        self.next_token.set(token.wrapping_add(1));
        token
    }

    fn count(&self, counter: Counter) {
        self.tally.borrow_mut().count(counter);
    }

    /// Reports the number that identifies the configuration and the key ring.
    pub(crate) fn set_generation(&self, edge: &Edge, ring: &str) {
        edge.metrics.set(Gauge::Generation, generation_number(&edge.digest, ring));
    }

    /// Sends settlements that are due.
    pub(crate) fn send_settlements(&self, edge: &Edge, occasion: Occasion) {
        for posted in edge.take_posted() {
            let mut outbox = self.outbox.borrow_mut();
            let lane = outbox.lane(posted.lane);
            if lane.post_settlement(posted.item, posted.is_urgent).is_err() {
                self.count(Counter::SettlementDropped);
            }
        }
        let Some(sidecar) = &edge.config.sidecar else { return };
        loop {
            let now_ms = now_ms();
            let batch = self.outbox.borrow_mut().next_batch(now_ms, occasion);
            let Some((lane, batch)) = batch else { return };
            let (token, body) = (self.token(), batch.body());
            self.open_callouts.borrow_mut().begin(token);
            self.outbox.borrow_mut().lane(lane).record_sent(token, batch, now_ms);
            let id = edge.envoy.post(sidecar, EXCHANGE_PATH, &body);
            let has_failed = self.open_callouts.borrow_mut().record(token, id);
            if has_failed {
                let batch = self.outbox.borrow_mut().complete(token, now_ms);
                if let Some((lane, batch)) = batch {
                    self.retry(lane, batch.settlements, now_ms);
                }
            }
        }
    }

    fn retry(&self, lane: Lane, settlements: Vec<QueuedItem<Origin>>, now_ms: u64) {
        let mut outbox = self.outbox.borrow_mut();
        retry(outbox.lane(lane), settlements, now_ms, |counter| self.count(counter));
    }

    /// Handles the reply to a callout.
    pub(crate) fn handle_reply(&self, edge: &Edge, id: u64, reply: &Reply<'_>) {
        let token = self.open_callouts.borrow_mut().complete(id);
        let Some(token) = token else { return };
        let now_ms = now_ms();
        let batch = self.outbox.borrow_mut().complete(token, now_ms);
        if let Some((lane, batch)) = batch {
            let body = reply.body_of(EXCHANGE_MEDIA_TYPE);
            return self.handle_results(edge, lane, batch, body.as_deref(), now_ms);
        }
        let is_refresh = |refresh: &KeyRefresh| refresh.is_in_flight(token);
        if self.refresh.borrow().as_ref().is_some_and(is_refresh) {
            let body = reply.body_of("application/json");
            return self.handle_key_ring(edge, body.as_deref(), now_ms);
        }
        let mut reports = lock(&edge.reports);
        if reports.is_in_flight(token) {
            let is_delivered = reply.body_of("application/json").is_some();
            let count = reports.complete(is_delivered, now_ms);
            let result = if is_delivered { ReportResult::Sent } else { ReportResult::Lost };
            (0..count).for_each(|_| self.count(Counter::Report(result)));
        }
    }

    fn handle_results(
        &self,
        edge: &Edge,
        lane: Lane,
        batch: Batch<(), Origin>,
        reply: Option<&[u8]>,
        now_ms: u64,
    ) {
        let reply = reply.and_then(|body| ExchangeReply::decode(body).ok());
        let Some(results) = reply.map(|reply: ExchangeReply| reply.results) else {
            return self.retry(lane, batch.settlements, now_ms);
        };
        let waiting = self.acknowledge(lane, batch.settlements, results, now_ms);
        waiting.iter().for_each(|stream| stream.commit(EVENT_SETTLED));
        // Urgent settlements may have waited for this reply.
        self.send_settlements(edge, Occasion::Change);
    }

    fn acknowledge(
        &self,
        lane: Lane,
        settlements: Vec<QueuedItem<Origin>>,
        results: Vec<SettlementAck>,
        now_ms: u64,
    ) -> Vec<StreamScheduler> {
        let mut outbox = self.outbox.borrow_mut();
        let count = |counter| self.count(counter);
        acknowledge(outbox.lane(lane), settlements, results, now_ms, count)
    }

    /// Handles a tick.
    pub(crate) fn tick(&self, edge: &Edge) {
        edge.begin_tick();
        let now_ms = now_ms();
        let is_expired = |item: &QueuedItem<Origin>| item.age_ms(now_ms) >= SETTLEMENT_LIFE_MS;
        let dropped = {
            let mut outbox = self.outbox.borrow_mut();
            outbox.record_time(now_ms);
            if edge.take_sidecar_available() {
                outbox.shorten_pauses();
            }
            outbox.drop_settlements(is_expired)
        };
        (0..dropped).for_each(|_| self.count(Counter::SettlementDropped));
        self.send_settlements(edge, Occasion::Tick);
        if let Some(sidecar) = &edge.config.sidecar {
            self.request_key_ring(edge, sidecar, now_ms);
            self.send_report(edge, sidecar, now_ms);
        }
        self.report(edge, now_ms);
        for slot in &edge.slots {
            if slot.waiting.load(Ordering::Acquire) > 0
                && let Some(stream) = &*lock(&slot.tick_stream)
                && !slot.is_tick_sent.swap(true, Ordering::AcqRel)
            {
                stream.commit(EVENT_TICK);
            }
        }
    }

    /// Reports counts and gauges, and logs the number of suppressed refusals.
    fn report(&self, edge: &Edge, now_ms: u64) {
        edge.metrics.add(&mut self.tally.borrow_mut());
        edge.metrics.add_panics(edge.take_panics());
        let mut waiting = 0;
        for slot in &edge.slots {
            edge.metrics.add(&mut slot.tally());
            let suppressed = slot.refusals().refill(now_ms);
            log_suppressed(suppressed);
            waiting += slot.waiting.load(Ordering::Acquire);
        }
        let unsettled = self.outbox.borrow().settlements() + edge.posted();
        let shares =
            [(Gauge::Waiting, &self.waiting, waiting), (Gauge::Outbox, &self.unsettled, unsettled)];
        for (gauge, reported, value) in shares {
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            edge.metrics.change(gauge, value.saturating_sub(reported.replace(value)));
        }
    }

    fn request_key_ring(&self, edge: &Edge, sidecar: &Sidecar, now_ms: u64) {
        let path = self.refresh.borrow_mut().as_mut().and_then(|refresh| refresh.due(now_ms));
        let Some(path) = path else { return };
        let token = self.token();
        self.open_callouts.borrow_mut().begin(token);
        if let Some(refresh) = self.refresh.borrow_mut().as_mut() {
            refresh.record_sent(token);
        }
        let id = edge.envoy.get(sidecar, &path);
        let has_failed = self.open_callouts.borrow_mut().record(token, id);
        if has_failed {
            self.handle_key_ring(edge, None, now_ms);
        }
    }

    fn handle_key_ring(&self, edge: &Edge, reply: Option<&[u8]>, now_ms: u64) {
        let result = {
            let mut refresh = self.refresh.borrow_mut();
            let Some(refresh) = refresh.as_mut() else { return };
            refresh.handle_reply(reply, now_ms)
        };
        self.count(Counter::Refresh(result.outcome()));
        match result {
            RefreshResult::Updated { config, generation } => {
                let accounts = account_summary(&config);
                envoy::info(&format!("twilio-edge keys {generation}: {accounts}"));
                edge.set_key_ring(config);
                self.set_generation(edge, &generation);
            }
            RefreshResult::Failed(reason) => envoy::warn(&format!(
                "the key refresh failed, the last valid keys stay in use: {reason}"
            )),
            RefreshResult::Unchanged => {}
        }
    }

    /// Sends the report of refused requests that is due.
    fn send_report(&self, edge: &Edge, sidecar: &Sidecar, now_ms: u64) {
        let due = lock(&edge.reports).next_report(&edge.config.origins, now_ms);
        let Some((body, count)) = due else { return };
        let token = self.token();
        self.open_callouts.borrow_mut().begin(token);
        lock(&edge.reports).record_sent(token, count);
        let id = edge.envoy.post(sidecar, REFUSALS_PATH, &body);
        let has_failed = self.open_callouts.borrow_mut().record(token, id);
        if has_failed {
            let lost = lock(&edge.reports).complete(false, now_ms);
            (0..lost).for_each(|_| self.count(Counter::Report(ReportResult::Lost)));
        }
    }

    /// Ends the configuration: reports the last counts, withdraws its shares in the gauges, and returns the settlements that
    /// the sidecar has not acknowledged.
    pub(crate) fn end(&self, edge: &Edge) -> Vec<(Lane, QueuedItem<Origin>)> {
        for posted in edge.take_posted() {
            // The queue is bounded, this list is not: it is handed over at once.
            let mut outbox = self.outbox.borrow_mut();
            let _ = outbox.lane(posted.lane).post_settlement(posted.item, posted.is_urgent);
        }
        let left = self.outbox.borrow_mut().drain_settlements();
        self.report(edge, now_ms());
        for slot in &edge.slots {
            let suppressed = slot.refusals().take_suppressed();
            log_suppressed(suppressed);
        }
        left
    }
}
