//! The root context of one worker: reads the configuration, creates streams, and exchanges messages with the sidecar for
//! all of them.
//!
//! Only the root context sends callouts: the SDK gives a reply to the context that was active when the call was
//! dispatched, and drops it if that was a stream that has ended. A stream that wants to send something posts an item and
//! wakes the root context.

use std::cell::RefCell;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::ContextType;
use twilio_edge_contract::{
    Decision, EXCHANGE_MEDIA_TYPE, EXCHANGE_PATH, ExchangeReply, REFUSALS_PATH, Verdict,
};

use crate::adapter::{
    Callback, ClaimOrigin, StreamHost, account_summary, acknowledge, carry_out,
    configuration_digest, generation_number, match_verdicts, retry, start_line, tick_ms,
};
use crate::callouts::{Batch, Lane, Occasion, QueuedItem};
use crate::config::{Config, Sidecar};
use crate::exchange::{Event, Exchange};
use crate::filter::{FocusedStream, Stream};
use crate::host;
use crate::metrics::{Counter, Gauge, Histogram, ReportResult};
use crate::refresh::RefreshResult;
use crate::worker::{SettlementOrigin, Shared, Worker};

/// The root context.
pub(crate) struct Root {
    id: u32,
    shared: Option<Shared>,
    /// Digest of the configuration, which identifies it without showing it.
    digest: String,
    /// Another configuration has replaced this one; Envoy keeps the context until the outbox is empty.
    is_leaving: bool,
}

impl Root {
    pub(crate) fn new(id: u32) -> Self {
        Self { id, shared: None, digest: String::new(), is_leaving: false }
    }

    /// Delivers events to the streams that still wait for them, and restores the focus.
    fn deliver<'e>(&self, shared: &Shared, events: impl IntoIterator<Item = (u32, Event<'e>)>) {
        let mut has_moved_focus = false;
        for (stream, event) in events {
            let Some(exchange) = shared.waiting(stream) else { continue };
            let stream = FocusedStream { shared, id: stream, exchange: &exchange };
            let effects = stream.step(event);
            if !effects.is_empty() && host::focus(stream.id) {
                has_moved_focus = true;
                carry_out(&stream, effects, Callback::Root);
            }
        }
        if has_moved_focus {
            host::focus(self.id);
        }
    }

    /// Sends the batches that are due.
    fn send(&self, shared: &Shared, sidecar: &Sidecar, now_ms: u64, occasion: Occasion) {
        let rejected = shared
            .with(|worker| std::mem::take(&mut worker.state.rejected_claims))
            .unwrap_or_default();
        if !rejected.is_empty() {
            self.fail_claims(shared, rejected);
        }
        while let Some((lane, batch)) =
            shared.with(|worker| worker.state.callouts.next_batch(now_ms, occasion)).flatten()
        {
            match host::post(sidecar, EXCHANGE_PATH, &batch.body()) {
                Some(token) => {
                    shared.with(|worker| {
                        worker.state.callouts.lane(lane).record_sent(token, batch, now_ms);
                    });
                }
                None => {
                    self.retry_settlements(shared, lane, batch.settlements, now_ms);
                    self.fail_claims(shared, batch.claims);
                }
            }
        }
    }

    fn retry_settlements(
        &self,
        shared: &Shared,
        lane: Lane,
        settlements: Vec<QueuedItem<SettlementOrigin>>,
        now_ms: u64,
    ) {
        shared.with(|worker| {
            let Worker { state, tally, .. } = worker;
            let count = |counter| tally.count(counter);
            retry(state.callouts.lane(lane), settlements, now_ms, count);
        });
    }

    fn fail_claims(&self, shared: &Shared, items: Vec<QueuedItem<ClaimOrigin>>) {
        if items.is_empty() {
            return;
        }
        shared.count(Counter::ClaimsFailed);
        let streams = shared.with(|worker| worker.state.fail_claims(items)).unwrap_or_default();
        self.deliver(shared, streams.into_iter().map(|stream| (stream, Event::NoVerdict)));
    }

    fn handle_exchange_reply(
        &self,
        shared: &Shared,
        lane: Lane,
        batch: Batch<ClaimOrigin, SettlementOrigin>,
        reply: Option<&[u8]>,
        now_ms: u64,
    ) {
        let reply = reply.and_then(|body| ExchangeReply::decode(body).ok());
        let Some(reply) = reply else {
            self.retry_settlements(shared, lane, batch.settlements, now_ms);
            return self.fail_claims(shared, batch.claims);
        };
        let held = shared.with(|worker| {
            let Worker { state, tally, .. } = worker;
            let (callouts, count) = (state.callouts.lane(lane), |counter| tally.count(counter));
            acknowledge(callouts, batch.settlements, reply.results, now_ms, count)
        });
        let held = held.into_iter().flatten();
        self.deliver(shared, held.map(|stream| (stream, Event::Settled)));
        self.handle_verdicts(shared, batch.claims, reply.verdicts, now_ms);
    }

    fn handle_verdicts(
        &self,
        shared: &Shared,
        claims: Vec<QueuedItem<ClaimOrigin>>,
        verdicts: Vec<Verdict>,
        now_ms: u64,
    ) {
        let Some(longest_ms) = claims.iter().map(|item| item.age_ms(now_ms)).max() else { return };
        // The sidecar is available again: opt-outs for which it gave no verdict are pending.
        let is_available = verdicts.iter().any(|verdict| verdict.decision != Decision::Unavailable);
        shared.with(|worker| {
            worker.metrics.record(Histogram::ClaimMs, longest_ms);
            let count = u64::try_from(claims.len()).unwrap_or(u64::MAX);
            worker.metrics.record(Histogram::ClaimBatch, count);
            if is_available {
                worker.state.callouts.shorten_pauses();
            }
        });
        let events = match_verdicts(claims, verdicts).map(|(origin, verdict)| {
            shared.with(|worker| {
                worker.state.recent.record_verdict(
                    origin.key.as_ref(),
                    origin.stream,
                    verdict.as_ref(),
                );
            });
            (origin.stream, verdict.map_or(Event::NoVerdict, Event::Verdict))
        });
        self.deliver(shared, events);
    }

    fn deliver_ticks(&self, shared: &Shared, now_ms: u64) {
        let streams = shared.with(|worker| {
            for _ in 0..worker.state.record_time(now_ms) {
                worker.count(Counter::SettlementDropped);
            }
            worker.state.streams.keys().copied().collect::<Vec<_>>()
        });
        let ticks = streams.into_iter().flatten().map(|id| (id, Event::Tick { now_ms }));
        self.deliver(shared, ticks);
    }

    /// Sends the report of refused requests that is due.
    fn send_report(&self, shared: &Shared, config: &Config, sidecar: &Sidecar, now_ms: u64) {
        let due = shared.with(|worker| worker.reports.next_report(&config.origins, now_ms));
        let Some((body, count)) = due.flatten() else { return };
        match host::post(sidecar, REFUSALS_PATH, &body) {
            Some(token) => {
                shared.with(|worker| worker.reports.record_sent(token, count));
            }
            None => {
                shared.with(|worker| {
                    worker.reports.record_failure(now_ms);
                    worker.count_reports(ReportResult::Lost, count);
                });
            }
        }
    }

    fn request_keys(&self, shared: &Shared, sidecar: &Sidecar, now_ms: u64) {
        let path = shared.with(|worker| worker.refresh.as_mut()?.due(now_ms)).flatten();
        let Some(path) = path else { return };
        let token = host::get(sidecar, &path);
        if let Some(token) = token {
            shared.with(|worker| worker.refresh.as_mut().map(|refresh| refresh.record_sent(token)));
        } else {
            self.handle_keys_reply(shared, None, now_ms);
        }
    }

    fn handle_keys_reply(&self, shared: &Shared, reply: Option<&[u8]>, now_ms: u64) {
        let result = shared.with(|worker| {
            let result = worker.refresh.as_mut()?.handle_reply(reply, now_ms);
            worker.count(Counter::Refresh(result.outcome()));
            Some(result)
        });
        match result.flatten() {
            Some(RefreshResult::Updated { config, generation }) => {
                host::info(&format!("twilio-edge keys {generation}: {}", account_summary(&config)));
                shared.with(|worker| worker.state.config = Rc::new(config));
                self.set_generation(shared, &generation);
            }
            Some(RefreshResult::Failed(reason)) => {
                let line =
                    format!("the key refresh failed, the last valid keys stay in use: {reason}");
                host::warn(&line);
            }
            Some(RefreshResult::Unchanged) | None => {}
        }
    }

    fn set_generation(&self, shared: &Shared, ring: &str) {
        let number = generation_number(&self.digest, ring);
        shared.with(|worker| worker.metrics.set(Gauge::Generation, number));
    }
}

impl Context for Root {
    fn on_http_call_response(&mut self, token: u32, headers: usize, body_bytes: usize, _: usize) {
        let Some(shared) = &self.shared else { return };
        let now_ms = host::now_ms();
        let Some(config) = shared.config() else { return };
        let Some(sidecar) = &config.sidecar else { return };
        if let Some((lane, batch)) =
            shared.with(|worker| worker.state.callouts.complete(token, now_ms)).flatten()
        {
            let reply = host::reply(headers, body_bytes, EXCHANGE_MEDIA_TYPE);
            // Claims that waited for this reply are sent first; the reply can be read while they are on their way.
            self.send(shared, sidecar, now_ms, Occasion::Change);
            self.handle_exchange_reply(shared, lane, batch, reply.as_deref(), now_ms);
        } else if shared.with(|worker| worker.reports.is_in_flight(token)) == Some(true) {
            let is_delivered = host::reply(headers, body_bytes, "application/json").is_some();
            shared.with(|worker| {
                let count = worker.reports.complete(is_delivered, now_ms);
                let result = if is_delivered { ReportResult::Sent } else { ReportResult::Lost };
                worker.count_reports(result, count);
            });
        } else if shared
            .with(|worker| worker.refresh.as_ref().is_some_and(|it| it.is_in_flight(token)))
            == Some(true)
        {
            let reply = host::reply(headers, body_bytes, "application/json");
            self.handle_keys_reply(shared, reply.as_deref(), now_ms);
        }
    }

    /// Called when all streams have ended. If Envoy shuts down, unsent settlements end with their leases. If Envoy only
    /// received another configuration, callouts would end with this context, so it asks Envoy to stay until they are answered.
    fn on_done(&mut self) -> bool {
        if let Some(shared) = &self.shared {
            let now_ms = host::now_ms();
            if let Some(config) = shared.config()
                && let Some(sidecar) = &config.sidecar
            {
                self.send(shared, sidecar, now_ms, Occasion::Tick);
            }
            shared.with(|worker| worker.report(now_ms));
            shared.report_suppressed();
            self.is_leaving = shared.has_open_settlements();
        }
        !self.is_leaving
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        let json = host::plugin_configuration();
        match Config::parse(&json, &|name| std::env::var(name).ok()) {
            Ok(config) => {
                self.digest = configuration_digest(&json);
                host::info(&start_line(&config, &self.digest));
                host::tick_every(tick_ms(&config));
                let shared = Shared::new(config);
                self.set_generation(&shared, "");
                self.shared = Some(shared);
                true
            }
            Err(problems) => {
                for problem in problems {
                    host::error(&format!("twilio-edge configuration: {problem}"));
                }
                false
            }
        }
    }

    fn on_queue_ready(&mut self, _: u32) {
        let Some(shared) = &self.shared else { return };
        let now_ms = host::now_ms();
        let config = shared.with(|worker| {
            worker.clear_wakeup();
            worker.state.callouts.record_time(now_ms);
            Rc::clone(&worker.state.config)
        });
        let Some(sidecar) = config.as_ref().and_then(|config| config.sidecar.as_ref()) else {
            return;
        };
        self.send(shared, sidecar, now_ms, Occasion::Change);
    }

    fn on_tick(&mut self) {
        let Some(shared) = &self.shared else { return };
        let now_ms = host::now_ms();
        self.deliver_ticks(shared, now_ms);
        let Some(config) = shared.config() else { return };
        if let Some(sidecar) = &config.sidecar {
            self.send(shared, sidecar, now_ms, Occasion::Tick);
            self.request_keys(shared, sidecar, now_ms);
            self.send_report(shared, &config, sidecar, now_ms);
        }
        shared.with(|worker| worker.report(now_ms));
        if self.is_leaving && !shared.has_open_settlements() {
            // Only once: the SDK panics at a second call.
            self.is_leaving = false;
            host::leave();
        }
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        // Not reached without a configuration: Envoy refuses the plugin.
        let shared = self.shared.clone()?;
        let exchange: Rc<RefCell<Exchange>> = Rc::new(RefCell::new(shared.begin(id)?));
        Some(Box::new(Stream::new(id, exchange, shared)))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}
