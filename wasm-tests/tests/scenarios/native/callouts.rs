//! Callouts of the native build: a counterpart of `worker.rs` and `root.rs`.

use std::collections::BTreeMap;
use std::rc::Rc;

use anyhow::{Result, anyhow};
use twilio_edge_contract::{
    Claim, Decision, EXCHANGE_MEDIA_TYPE, EXCHANGE_PATH, ExchangeReply, REFUSALS_PATH,
    RefusedRequest, Settlement, SettlementAck, SettlementResult, Verdict,
};
use twilio_edge_filter::callouts::{Batch, Lane, Occasion, QueuedItem};
use twilio_edge_filter::exchange::Event;
use twilio_edge_filter::metrics::{Counter, ReportResult};
use twilio_edge_filter::recent_webhooks::{RepeatCheck, RepeatKey};
use twilio_edge_filter::refresh::RefreshResult;
use twilio_edge_wasm_tests::host::{BufferKind, MapKind};

use super::{Native, Root, done};

pub(super) struct ClaimOrigin {
    stream: u32,
    claim_id: String,
    key: Option<RepeatKey>,
}

pub(super) struct SettlementOrigin {
    claim_id: String,
    /// The stream that holds its response for the settlement.
    stream: Option<u32>,
}

impl Native {
    pub(super) fn claim(
        &mut self,
        root: u32,
        stream: u32,
        claim: &Claim,
        lane: Lane,
    ) -> Result<()> {
        let key = match self.root(root)?.recent.check(stream, claim) {
            RepeatCheck::New(key) => key,
            RepeatCheck::Repeat(verdict) => {
                self.count(Counter::RepeatAnswered)?;
                return self.apply(stream, Event::Verdict(*verdict));
            }
        };
        let origin = ClaimOrigin { stream, claim_id: claim.claim_id.clone(), key };
        let root = self.root(root)?;
        let callouts = root.callouts.lane(lane);
        let is_first = !callouts.is_in_flight();
        let posted = callouts.post_claim(QueuedItem::new(origin, claim.encode()));
        posted.map_err(|_| anyhow!("no room for a claim"))?;
        let queue = root.queue;
        if is_first { done(self.proxy.enqueue(queue, b".")) } else { Ok(()) }
    }

    pub(super) fn withdraw(&mut self, root: u32, stream: u32) -> Result<()> {
        self.root(root)?.callouts.drop_claims(|item| item.origin.stream == stream);
        Ok(())
    }

    pub(super) fn settle(
        &mut self,
        root: u32,
        stream: u32,
        settlement: &Settlement,
        urgent: bool,
    ) -> Result<()> {
        let (claim_id, stream_held) = (settlement.claim_id.clone(), urgent.then_some(stream));
        let origin = SettlementOrigin { claim_id, stream: stream_held };
        let root = self.root(root)?;
        root.recent.record_settlement(stream, settlement, urgent);
        let item = QueuedItem::new(origin, settlement.encode());
        let posted =
            root.callouts.lane(Lane::of_settlement(settlement)).post_settlement(item, urgent);
        posted.map_err(|_| anyhow!("no room for a settlement"))?;
        let queue = root.queue;
        if urgent { done(self.proxy.enqueue(queue, b".")) } else { Ok(()) }
    }

    pub(super) fn send(&mut self, root: u32, occasion: Occasion) -> Result<()> {
        let now_ms = self.proxy.wall_clock_ms();
        while let Some((lane, batch)) = self.root(root)?.callouts.next_batch(now_ms, occasion) {
            match self.call_sidecar(root, "POST", EXCHANGE_PATH, &batch.body())? {
                Some(token) => {
                    self.root(root)?.callouts.lane(lane).record_sent(token, batch, now_ms);
                }
                None => self.fail(root, lane, batch)?,
            }
        }
        Ok(())
    }

    /// Handles an exchange without a usable reply.
    fn fail(
        &mut self,
        root: u32,
        lane: Lane,
        batch: Batch<ClaimOrigin, SettlementOrigin>,
    ) -> Result<()> {
        self.retry_settlements(root, lane, batch.settlements)?;
        self.fail_claims(root, batch.claims)
    }

    fn retry_settlements(
        &mut self,
        root: u32,
        lane: Lane,
        items: Vec<QueuedItem<SettlementOrigin>>,
    ) -> Result<()> {
        if items.is_empty() {
            return Ok(());
        }
        self.count(Counter::SettlementsFailed)?;
        let now_ms = self.proxy.wall_clock_ms();
        self.root(root)?.callouts.lane(lane).retry(items, now_ms);
        Ok(())
    }

    pub(super) fn request_keys(&mut self, root: u32) -> Result<()> {
        let now_ms = self.proxy.wall_clock_ms();
        let Some(refresh) = &mut self.root(root)?.refresh else { return Ok(()) };
        let Some(path) = refresh.due(now_ms) else { return Ok(()) };
        match self.call_sidecar(root, "GET", &path, b"")? {
            Some(token) => {
                let refresh = self.root(root)?.refresh.as_mut();
                refresh.into_iter().for_each(|refresh| refresh.record_sent(token));
                Ok(())
            }
            None => self.handle_keys_reply(root, None),
        }
    }

    pub(super) fn report_refusal(&mut self, root: u32, mut request: RefusedRequest) -> Result<()> {
        if !self.root(root)?.reports.admits(&mut request) {
            return self.count(Counter::Report(ReportResult::Skipped));
        }
        let pairs = self.map(MapKind::RequestHeaders)?;
        let pairs = pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_slice()));
        let now_ms = self.proxy.wall_clock_ms();
        self.root(root)?.reports.post(request, pairs, now_ms);
        Ok(())
    }

    pub(super) fn send_report(&mut self, root: u32) -> Result<()> {
        let now_ms = self.proxy.wall_clock_ms();
        let config = Rc::clone(&self.root(root)?.config);
        if config.sidecar.is_none() {
            return Ok(());
        }
        let due = self.root(root)?.reports.next_report(&config.origins, now_ms);
        let Some((body, count)) = due else { return Ok(()) };
        if let Some(token) = self.call_sidecar(root, "POST", REFUSALS_PATH, &body)? {
            self.root(root)?.reports.record_sent(token, count);
            return Ok(());
        }
        self.root(root)?.reports.record_failure(now_ms);
        (0..count).try_for_each(|_| self.count(Counter::Report(ReportResult::Lost)))
    }

    fn call_sidecar(
        &mut self,
        root: u32,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> Result<Option<u32>> {
        let Root { number, config, .. } = self.root(root)?;
        let (number, config) = (*number, Rc::clone(config));
        let Some(sidecar) = &config.sidecar else { return Ok(None) };
        done(self.proxy.set_effective_context(number))?;
        let lines = [
            (":method", method),
            (":path", path),
            (":authority", &sidecar.cluster),
            ("authorization", &sidecar.authorization),
        ];
        let kind = (!body.is_empty()).then_some(("content-type", EXCHANGE_MEDIA_TYPE));
        let lines = lines.into_iter().chain(kind);
        let lines = lines.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
        Ok(self.proxy.call(&sidecar.cluster, lines.collect(), body, sidecar.timeout_ms).ok())
    }

    fn fail_claims(&mut self, root: u32, items: Vec<QueuedItem<ClaimOrigin>>) -> Result<()> {
        if items.is_empty() {
            return Ok(());
        }
        self.count(Counter::ClaimsFailed)?;
        for QueuedItem { origin, .. } in &items {
            self.root(root)?.recent.record_verdict(origin.key.as_ref(), origin.stream, None);
        }
        items.iter().try_for_each(|item| self.apply(item.origin.stream, Event::NoVerdict))
    }

    pub(super) fn handle_reply(
        &mut self,
        root: u32,
        token: u32,
        headers: usize,
        bytes: usize,
    ) -> Result<()> {
        let now_ms = self.proxy.wall_clock_ms();
        if let Some((lane, batch)) = self.root(root)?.callouts.complete(token, now_ms) {
            let reply = self.read_reply(headers, bytes, EXCHANGE_MEDIA_TYPE)?;
            self.send(root, Occasion::Change)?;
            let reply = reply.and_then(|body| ExchangeReply::decode(&body).ok());
            let Some(reply) = reply else { return self.fail(root, lane, batch) };
            self.handle_results(root, lane, batch.settlements, &reply.results)?;
            self.handle_verdicts(root, batch.claims, &reply.verdicts)
        } else if self.root(root)?.reports.is_in_flight(token) {
            let reply = self.read_reply(headers, bytes, "application/json")?;
            let count = self.root(root)?.reports.complete(reply.is_some(), now_ms);
            let result = if reply.is_some() { ReportResult::Sent } else { ReportResult::Lost };
            (0..count).try_for_each(|_| self.count(Counter::Report(result)))
        } else {
            let reply = self.read_reply(headers, bytes, "application/json")?;
            self.handle_keys_reply(root, reply.as_deref())
        }
    }

    /// Returns the body of a reply; `None` if it is not the sidecar's.
    fn read_reply(
        &mut self,
        headers: usize,
        bytes: usize,
        media_type: &str,
    ) -> Result<Option<Vec<u8>>> {
        if headers == 0 {
            return Ok(None);
        }
        let pairs = self.map(MapKind::CallResponseHeaders)?;
        let has = |name, value: &[u8]| pairs.iter().any(|(have, it)| have == name && it == value);
        let is_ours = has(":status", b"200") && has("content-type", media_type.as_bytes());
        let body = done(self.proxy.buffer(BufferKind::CallResponseBody, 0, bytes))?;
        Ok(is_ours.then_some(body))
    }

    fn handle_verdicts(
        &mut self,
        root: u32,
        claims: Vec<QueuedItem<ClaimOrigin>>,
        verdicts: &[Verdict],
    ) -> Result<()> {
        if claims.is_empty() {
            return Ok(());
        }
        if verdicts.iter().any(|verdict| verdict.decision != Decision::Unavailable) {
            self.root(root)?.callouts.shorten_pauses();
        }
        for item in claims {
            let ClaimOrigin { stream, claim_id, key } = item.origin;
            let verdict = verdicts.iter().find(|verdict| verdict.claim_id == claim_id);
            self.root(root)?.recent.record_verdict(key.as_ref(), stream, verdict);
            self.apply(stream, verdict.cloned().map_or(Event::NoVerdict, Event::Verdict))?;
        }
        Ok(())
    }

    fn handle_results(
        &mut self,
        root: u32,
        lane: Lane,
        settlements: Vec<QueuedItem<SettlementOrigin>>,
        results: &[SettlementAck],
    ) -> Result<()> {
        if settlements.is_empty() {
            return Ok(());
        }
        let results: BTreeMap<_, _> = results.iter().map(|it| (&it.claim_id, it.result)).collect();
        for item in &settlements {
            if let Some(result) = results.get(&item.origin.claim_id) {
                self.count(Counter::Settlement(*result))?;
            }
        }
        let is_recorded = |item: &QueuedItem<SettlementOrigin>| {
            let result = results.get(&item.origin.claim_id);
            result.is_some_and(|result| *result != SettlementResult::Unavailable)
        };
        let (recorded, retried): (Vec<_>, Vec<_>) = settlements.into_iter().partition(is_recorded);
        if retried.is_empty() {
            self.root(root)?.callouts.lane(lane).end_pauses();
        } else {
            self.retry_settlements(root, lane, retried)?;
        }
        let mut held = recorded.into_iter().filter_map(|item| item.origin.stream);
        held.try_for_each(|stream| self.apply(stream, Event::Settled))
    }

    fn handle_keys_reply(&mut self, root: u32, reply: Option<&[u8]>) -> Result<()> {
        let now_ms = self.proxy.wall_clock_ms();
        let root = self.root(root)?;
        let Some(refresh) = &mut root.refresh else { return Ok(()) };
        let result = refresh.handle_reply(reply, now_ms);
        let outcome = result.outcome();
        if let RefreshResult::Updated { config, .. } = result {
            root.config = Rc::new(config);
        }
        self.count(Counter::Refresh(outcome))
    }
}
