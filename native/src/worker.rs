//! The streams of one worker, and their claims.
//!
//! Envoy binds each callout of a worker to a stream. So one of the waiting streams sends the claims of all. If this stream ends
//! before the reply arrives, Envoy drops the reply: the claims return to the queue, and another stream sends them again.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use twilio_edge_contract::{
    Claim, Decision, EXCHANGE_MEDIA_TYPE, EXCHANGE_PATH, ExchangeReply, Verdict,
};
use twilio_edge_filter::adapter::{self, ClaimOrigin, ClaimResult, match_verdicts};
use twilio_edge_filter::callouts::{Lane, Occasion, QueuedItem};
use twilio_edge_filter::exchange::{Event, Exchange};
use twilio_edge_filter::log_limit::suppressed_refusals;
use twilio_edge_filter::metrics::{Counter, Histogram};

use crate::edge::{Edge, Slot};
use crate::envoy::{self, Reply, StreamScheduler};
use crate::stream::Stream;
use crate::sync::lock;

/// Event of `scheduled`: a tick for all streams of the worker.
pub(crate) const EVENT_TICK: u64 = 1;
/// Event of `scheduled`: the sidecar has acknowledged the settlement for which the response waits.
pub(crate) const EVENT_SETTLED: u64 = 2;

/// Returns the milliseconds since the epoch.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or_default()
}

/// State of one worker that only its thread uses.
pub(crate) struct LocalWorker {
    index: usize,
    state: RefCell<adapter::Worker<Rc<Stream>, StreamScheduler>>,
    /// Number of the key ring in the configuration of `state`.
    key_ring: Cell<u64>,
    next_stream: Cell<u32>,
    next_token: Cell<u32>,
    /// Number of the stream that delivers ticks.
    tick_stream: Cell<Option<u32>>,
}

impl LocalWorker {
    pub(crate) fn new(edge: &Edge, index: usize) -> Self {
        let config = Rc::new((*edge.config).clone());
        Self {
            index,
            state: RefCell::new(adapter::Worker::new(config)),
            key_ring: Cell::new(0),
            next_stream: Cell::new(0),
            next_token: Cell::new(0),
            tick_stream: Cell::new(None),
        }
    }

    /// Returns the number and the state machine of a new stream.
    pub(crate) fn begin(&self, edge: &Edge) -> (u32, Exchange) {
        if let Some((config, number)) = edge.newer_key_ring(self.key_ring.get()) {
            self.key_ring.set(number.get());
            self.state.borrow_mut().config = Rc::new((*config).clone());
        }
        let stream = self.next_stream.get();
        self.next_stream.set(stream.wrapping_add(1));
        (stream, self.state.borrow().begin(stream))
    }

    /// Returns the state that other threads use, too.
    pub(crate) fn slot<'e>(&self, edge: &'e Edge) -> Option<&'e Slot> {
        edge.slot(self.index)
    }

    pub(crate) fn max_body_bytes(&self) -> usize {
        self.state.borrow().config.max_body_bytes
    }

    /// Stores a stream that waits, so that verdicts and ticks find it.
    pub(crate) fn add_waiting(&self, edge: &Edge, stream: &Rc<Stream>) {
        let mut state = self.state.borrow_mut();
        state.streams.insert(stream.id(), Rc::clone(stream));
        let Some(slot) = self.slot(edge) else { return };
        slot.waiting.store(state.streams.len(), Ordering::Release);
        drop(state);
        if self.tick_stream.get().is_none() {
            self.set_tick_stream(slot, Some(stream));
        }
    }

    pub(crate) fn remove_waiting(&self, edge: &Edge, stream: u32) {
        let mut state = self.state.borrow_mut();
        // Dropped after the state is free: the stream may be gone with it.
        let _removed = state.streams.remove(&stream);
        if let Some(slot) = self.slot(edge) {
            slot.waiting.store(state.streams.len(), Ordering::Release);
        }
        drop(state);
    }

    fn set_tick_stream(&self, slot: &Slot, stream: Option<&Rc<Stream>>) {
        let scheduler = stream.and_then(|stream| Some(stream.envoy()?.scheduler()));
        self.tick_stream.set(stream.filter(|_| scheduler.is_some()).map(|stream| stream.id()));
        let before = std::mem::replace(&mut *lock(&slot.tick_stream), scheduler);
        drop(before);
        // A tick on its way to the stream before is lost.
        slot.is_tick_sent.store(false, Ordering::Release);
    }

    /// Queues a claim, or returns the verdict if it is a repeat.
    pub(crate) fn claim(
        &self,
        edge: &Edge,
        stream: u32,
        claim: &Claim,
        lane: Lane,
    ) -> Option<Verdict> {
        let now_ms = now_ms();
        let result = {
            let mut state = self.state.borrow_mut();
            state.recent.record_time(now_ms);
            state.claim(stream, claim, lane)
        };
        match result {
            ClaimResult::Repeat(verdict) => {
                self.count(edge, Counter::RepeatAnswered);
                Some(*verdict)
            }
            ClaimResult::Queued { is_due } => {
                if is_due {
                    self.send(edge, Occasion::Change);
                }
                None
            }
        }
    }

    pub(crate) fn withdraw(&self, stream: u32) {
        self.state.borrow_mut().withdraw(stream);
    }

    /// Records the outcome of a webhook in the memory of recent ones.
    pub(crate) fn record_settlement(
        &self,
        stream: u32,
        settlement: &twilio_edge_contract::Settlement,
        is_urgent: bool,
    ) {
        self.state.borrow_mut().recent.record_settlement(stream, settlement, is_urgent);
    }

    pub(crate) fn count(&self, edge: &Edge, counter: Counter) {
        if let Some(slot) = self.slot(edge) {
            slot.count(counter);
        }
    }

    /// Logs a refusal, unless there were too many.
    pub(crate) fn log_refusal(&self, edge: &Edge, line: &str) {
        if self.slot(edge).is_some_and(|slot| slot.refusals().admits()) {
            envoy::warn(line);
        }
    }

    /// Handles a tick: deadlines, and claims whose exchange is late.
    pub(crate) fn tick(&self, edge: &Edge) {
        if let Some(slot) = self.slot(edge) {
            slot.is_tick_sent.store(false, Ordering::Release);
        }
        let now_ms = now_ms();
        let streams: Vec<u32> = {
            let mut state = self.state.borrow_mut();
            state.record_time(now_ms);
            state.streams.keys().copied().collect()
        };
        for stream in streams {
            self.deliver(stream, Event::Tick { now_ms });
        }
        self.send(edge, Occasion::Tick);
        // A client that is answered because of this tick also finds it counted.
        if let Some(slot) = self.slot(edge) {
            edge.metrics.add(&mut slot.tally());
        }
    }

    /// Sends the batches that are due.
    fn send(&self, edge: &Edge, occasion: Occasion) {
        let rejected = std::mem::take(&mut self.state.borrow_mut().rejected_claims);
        self.fail_claims(edge, rejected);
        let Some(sidecar) = &edge.config.sidecar else { return };
        loop {
            let now_ms = now_ms();
            let batch = self.state.borrow_mut().callouts.next_batch(now_ms, occasion);
            let Some((lane, batch)) = batch else { return };
            let sender = {
                let state = self.state.borrow();
                let mut streams =
                    batch.claims.iter().filter_map(|it| state.streams.get(&it.origin.stream));
                streams.find_map(|stream| Some((stream.envoy()?, Rc::clone(stream))))
            };
            let Some((envoy, stream)) = sender else {
                // No stream waits for these claims any more.
                self.state.borrow_mut().fail_claims(batch.claims);
                continue;
            };
            let token = self.next_token.get();
            self.next_token.set(token.wrapping_add(1));
            let body = batch.body();
            stream.open_callouts().begin(token);
            self.state.borrow_mut().callouts.lane(lane).record_sent(token, batch, now_ms);
            let id = envoy.post(sidecar, EXCHANGE_PATH, &body);
            let has_failed = stream.open_callouts().record(token, id);
            if has_failed {
                let batch = self.state.borrow_mut().callouts.complete(token, now_ms);
                self.fail_claims(edge, batch.map_or_else(Vec::new, |(_, batch)| batch.claims));
            }
        }
    }

    /// Handles the reply to a callout of `stream`.
    pub(crate) fn handle_reply(&self, edge: &Edge, stream: &Stream, token: u32, reply: &Reply<'_>) {
        let now_ms = now_ms();
        let Some((_, batch)) = self.state.borrow_mut().callouts.complete(token, now_ms) else {
            return;
        };
        let body = reply.body_of(EXCHANGE_MEDIA_TYPE);
        // Claims that waited for this reply are sent first; the reply can be read while they are on their way.
        self.send(edge, Occasion::Change);
        match body.and_then(|body| ExchangeReply::decode(&body).ok()) {
            Some(reply) => self.handle_verdicts(edge, stream, batch.claims, reply.verdicts, now_ms),
            None => self.fail_claims(edge, batch.claims),
        }
    }

    fn handle_verdicts(
        &self,
        edge: &Edge,
        stream: &Stream,
        claims: Vec<QueuedItem<ClaimOrigin>>,
        verdicts: Vec<Verdict>,
        now_ms: u64,
    ) {
        let Some(longest_ms) = claims.iter().map(|item| item.age_ms(now_ms)).max() else { return };
        if verdicts.iter().any(|verdict| verdict.decision != Decision::Unavailable) {
            edge.record_sidecar_available();
        }
        if let Some(envoy) = stream.envoy() {
            edge.metrics.record(envoy, Histogram::ClaimMs, longest_ms);
            let count = u64::try_from(claims.len()).unwrap_or(u64::MAX);
            edge.metrics.record(envoy, Histogram::ClaimBatch, count);
        }
        let verdicts: Vec<_> = match_verdicts(claims, verdicts).collect();
        for (origin, verdict) in verdicts {
            self.state.borrow_mut().recent.record_verdict(
                origin.key.as_ref(),
                origin.stream,
                verdict.as_ref(),
            );
            self.deliver(origin.stream, verdict.map_or(Event::NoVerdict, Event::Verdict));
        }
    }

    fn fail_claims(&self, edge: &Edge, items: Vec<QueuedItem<ClaimOrigin>>) {
        if items.is_empty() {
            return;
        }
        self.count(edge, Counter::ClaimsFailed);
        let streams = self.state.borrow_mut().fail_claims(items);
        for stream in streams {
            self.deliver(stream, Event::NoVerdict);
        }
    }

    /// Delivers an event to a stream, if it still waits.
    fn deliver(&self, stream: u32, event: Event<'_>) {
        let waiting = self.state.borrow().streams.get(&stream).cloned();
        if let Some(waiting) = waiting {
            waiting.deliver(event);
        }
    }

    /// Records that a stream is gone. Its callouts have ended without a reply, so their claims are sent again by another stream,
    /// and another stream delivers ticks.
    pub(crate) fn remove(&self, edge: &Edge, stream: &Stream) {
        self.remove_waiting(edge, stream.id());
        let tokens = stream.open_callouts().take();
        let has_claims = !tokens.is_empty();
        for token in tokens {
            let mut state = self.state.borrow_mut();
            let Some((lane, batch)) = state.callouts.abandon(token) else { continue };
            let (waiting, gone): (Vec<_>, Vec<_>) = batch
                .claims
                .into_iter()
                .partition(|item| state.streams.contains_key(&item.origin.stream));
            state.callouts.lane(lane).return_claims(waiting);
            state.fail_claims(gone);
        }
        if self.tick_stream.get() == Some(stream.id())
            && let Some(slot) = self.slot(edge)
        {
            let next = self.state.borrow().streams.values().next().cloned();
            self.set_tick_stream(slot, next.as_ref());
        }
        if has_claims {
            self.send(edge, Occasion::Change);
        }
    }
}

/// Logs the number of refusals that were suppressed.
pub(crate) fn log_suppressed(suppressed: Option<u64>) {
    if let Some(suppressed) = suppressed {
        envoy::warn(&suppressed_refusals(suppressed));
    }
}
