//! The root context of one worker: reads the configuration, makes streams, and owns what streams share.
//!
//! Callouts are sent from here and nowhere else: the SDK gives a reply to the context that was active when
//! the call was dispatched, and drops it if that was a stream that has ended. A stream that wants to send
//! something posts a letter and rings the bell.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::ContextType;
use twilio_edge_contract::{
    CLAIMS_PATH, Claim, ClaimsReply, PROTOCOL_VERSION, SETTLEMENTS_PATH, Settlement,
    SettlementResult, SettlementsReply,
};

use crate::callouts::{Callouts, Letter, envelope};
use crate::config::{Config, Sidecar};
use crate::exchange::{Event, Exchange};
use crate::filter::{Stream, tell};
use crate::host::{self, Bell, Counters};
use crate::metrics::Counter;

/// Deadlines are looked at, and settlements sent, this often.
const TICK_MS: u64 = 20;
/// The same without a sidecar: there is only the wait for a body to look at.
const IDLE_TICK_MS: u64 = 500;
/// What may wait of each kind, per worker.
const MOST_CLAIM_BYTES: usize = 8 << 20;
const MOST_SETTLEMENT_BYTES: usize = 16 << 20;
/// After this long without a sidecar a settlement is given up. Its lease has ended long before; what is kept
/// for is the opt-out that may be in it.
const SETTLEMENT_LIFE_MS: u64 = 60 * 60 * 1000;
/// Warnings a worker may write per second; the rest is counted and told of in one line.
const WARNINGS_PER_SECOND: u32 = 20;

/// The root context.
pub(crate) struct Root {
    id: u32,
    shared: Option<Shared>,
}

/// Who waits for a settlement to be acknowledged.
struct Settling {
    claim_id: String,
    /// The stream whose response is held.
    stream: Option<u32>,
}

/// Who waits for a verdict.
struct Asking {
    stream: u32,
    claim_id: String,
}

/// What the streams of a worker share.
#[derive(Clone)]
pub(crate) struct Shared(Rc<RefCell<Worker>>);

struct Worker {
    id: u64,
    config: Rc<Config>,
    counters: Counters,
    bell: Option<Bell>,
    /// The bell has been rung and not been answered yet.
    rung: bool,
    /// Streams that wait for a verdict, an acknowledgement or a deadline.
    streams: HashMap<u32, Rc<RefCell<Exchange>>>,
    claims: Callouts<Asking>,
    /// Claims for which there was no room. Told so in a root callback, as any other failure is.
    unasked: Vec<Letter<Asking>>,
    settlements: Callouts<Settling>,
    warnings: Warnings,
}

#[derive(Default)]
struct Warnings {
    second: u64,
    written: u32,
    swallowed: u32,
}

impl Root {
    pub(crate) fn new(id: u32) -> Self {
        Self { id, shared: None }
    }

    /// Tells a stream what happened to it, if it still waits, and comes back.
    fn deliver(&self, shared: &Shared, stream: u32, event: Event<'_>) {
        let exchange = shared.with(|worker| worker.streams.get(&stream).cloned()).flatten();
        if let Some(exchange) = exchange
            && host::focus(stream)
        {
            tell(shared, stream, &exchange, event);
            host::focus(self.id);
        }
    }

    fn send_claims(&self, shared: &Shared, sidecar: &Sidecar) {
        let now_ms = host::now_ms();
        let unasked = shared.with(|worker| std::mem::take(&mut worker.unasked)).unwrap_or_default();
        if !unasked.is_empty() {
            self.claims_failed(shared, unasked);
        }
        while let Some(batch) = shared.with(|worker| worker.claims.next_batch(now_ms)).flatten() {
            let body = envelope("claims", &batch);
            match post(sidecar, CLAIMS_PATH, &body) {
                Some(token) => {
                    shared.with(|worker| worker.claims.sent(token, batch, now_ms));
                }
                None => self.claims_failed(shared, batch),
            }
        }
    }

    fn send_settlements(&self, shared: &Shared, sidecar: &Sidecar) {
        let now_ms = host::now_ms();
        while let Some(batch) =
            shared.with(|worker| worker.settlements.next_batch(now_ms)).flatten()
        {
            let body = envelope("settlements", &batch);
            shared.with(|worker| match post(sidecar, SETTLEMENTS_PATH, &body) {
                Some(token) => worker.settlements.sent(token, batch, now_ms),
                None => {
                    worker.counters.count(Counter::SettlementsFailed);
                    worker.settlements.retry(batch, now_ms);
                }
            });
        }
    }

    fn claims_failed(&self, shared: &Shared, letters: Vec<Letter<Asking>>) {
        shared.count(Counter::ClaimsFailed);
        for letter in letters {
            self.deliver(shared, letter.sender.stream, Event::NoVerdict);
        }
    }

    fn claims_answered(&self, shared: &Shared, letters: Vec<Letter<Asking>>, reply: Option<&[u8]>) {
        let reply = reply
            .and_then(|json| serde_json::from_slice::<ClaimsReply>(json).ok())
            .filter(|reply| reply.v == PROTOCOL_VERSION);
        let Some(reply) = reply else { return self.claims_failed(shared, letters) };
        let mut verdicts: HashMap<_, _> =
            reply.verdicts.into_iter().map(|verdict| (verdict.claim_id.clone(), verdict)).collect();
        for Letter { sender, .. } in letters {
            let event = match verdicts.remove(&sender.claim_id) {
                Some(verdict) => Event::Verdict(verdict),
                None => Event::NoVerdict,
            };
            self.deliver(shared, sender.stream, event);
        }
    }

    fn settlements_answered(
        &self,
        shared: &Shared,
        letters: Vec<Letter<Settling>>,
        reply: Option<&[u8]>,
    ) {
        let results: HashMap<_, _> = reply
            .and_then(|json| serde_json::from_slice::<SettlementsReply>(json).ok())
            .filter(|reply| reply.v == PROTOCOL_VERSION)
            .map(|reply| reply.results)
            .unwrap_or_default()
            .into_iter()
            .filter(|settled| settled.result != SettlementResult::Unavailable)
            .map(|settled| (settled.claim_id, settled.result))
            .collect();
        let (done, again): (Vec<_>, Vec<_>) =
            letters.into_iter().partition(|letter| results.contains_key(&letter.sender.claim_id));
        let now_ms = host::now_ms();
        shared.with(|worker| {
            if again.is_empty() {
                worker.settlements.succeeded();
            } else {
                worker.counters.count(Counter::SettlementsFailed);
                worker.settlements.retry(again, now_ms);
            }
        });
        for stream in done.into_iter().filter_map(|letter| letter.sender.stream) {
            self.deliver(shared, stream, Event::Settled);
        }
    }

    fn meet_deadlines(&self, shared: &Shared) {
        let now_ms = host::now_ms();
        let (late, streams) = shared
            .with(|worker| {
                let timeout_ms = worker.config.sidecar.as_ref().map_or(0, |it| it.timeout_ms);
                let is_old = |posted_ms: u64, most_ms| now_ms.saturating_sub(posted_ms) >= most_ms;
                let expired =
                    worker.settlements.take(|it| is_old(it.posted_ms, SETTLEMENT_LIFE_MS));
                for _ in expired {
                    worker.counters.count(Counter::SettlementDropped);
                }
                let late = worker.claims.take(|letter| is_old(letter.posted_ms, timeout_ms));
                worker.warnings.tell_of_swallowed(now_ms);
                (late, worker.streams.keys().copied().collect::<Vec<_>>())
            })
            .unwrap_or_default();
        if !late.is_empty() {
            self.claims_failed(shared, late);
        }
        for stream in streams {
            self.deliver(shared, stream, Event::Tick);
        }
    }
}

impl Context for Root {
    fn on_http_call_response(&mut self, token: u32, headers: usize, body_bytes: usize, _: usize) {
        let Some(shared) = &self.shared else { return };
        let reply = host::reply(headers, body_bytes);
        let Some(sidecar) = shared.sidecar() else { return };
        if let Some(letters) = shared.with(|worker| worker.claims.landed(token)).flatten() {
            // Those who waited for this answer go first; it can be read while they are on their way.
            self.send_claims(shared, &sidecar);
            self.claims_answered(shared, letters, reply.as_deref());
        } else if let Some(letters) =
            shared.with(|worker| worker.settlements.landed(token)).flatten()
        {
            self.settlements_answered(shared, letters, reply.as_deref());
        }
    }

    fn on_done(&mut self) -> bool {
        if let Some(shared) = &self.shared
            && let Some(sidecar) = shared.sidecar()
        {
            // Best effort: Envoy is going away. What does not arrive ends with its lease.
            self.send_settlements(shared, &sidecar);
        }
        true
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        match Config::parse(&host::plugin_configuration(), &|name| std::env::var(name).ok()) {
            Ok(config) => {
                host::info(&start_line(&config));
                host::tick_every(if config.sidecar.is_some() { TICK_MS } else { IDLE_TICK_MS });
                self.shared = Some(Shared::new(config));
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
        let Some(sidecar) = shared.sidecar() else { return };
        shared.with(|worker| {
            worker.rung = false;
            worker.bell.as_ref().map(Bell::answer)
        });
        self.send_claims(shared, &sidecar);
        self.send_settlements(shared, &sidecar);
    }

    fn on_tick(&mut self) {
        let Some(shared) = &self.shared else { return };
        self.meet_deadlines(shared);
        let Some(sidecar) = shared.sidecar() else { return };
        self.send_claims(shared, &sidecar);
        self.send_settlements(shared, &sidecar);
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        // Without a configuration Envoy does not come this far: it refuses the plugin.
        let shared = self.shared.clone()?;
        let exchange =
            shared.with(|worker| Exchange::new(Rc::clone(&worker.config), worker.id, id))?;
        Some(Box::new(Stream::new(id, exchange, shared)))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

impl Shared {
    fn new(config: Config) -> Self {
        // Fresh from the host's random source: no two VMs make the same claim ids.
        let id = RandomState::new().build_hasher().finish();
        Self(Rc::new(RefCell::new(Worker {
            id,
            bell: config.sidecar.is_some().then(|| Bell::new(id)).flatten(),
            config: Rc::new(config),
            counters: Counters::define(),
            rung: false,
            streams: HashMap::new(),
            claims: Callouts::new(MOST_CLAIM_BYTES),
            unasked: Vec::new(),
            settlements: Callouts::new(MOST_SETTLEMENT_BYTES),
            warnings: Warnings::default(),
        })))
    }

    /// Callbacks do not nest, so the worker is always free; if the host ever broke that, doing nothing is
    /// better than a panic.
    fn with<R>(&self, work: impl FnOnce(&mut Worker) -> R) -> Option<R> {
        self.0.try_borrow_mut().ok().map(|mut worker| work(&mut worker))
    }

    fn sidecar(&self) -> Option<Sidecar> {
        self.with(|worker| worker.config.sidecar.clone()).flatten()
    }

    pub(crate) fn max_body_bytes(&self) -> usize {
        self.with(|worker| worker.config.max_body_bytes).unwrap_or_default()
    }

    /// Keeps a stream that waits, so that replies and ticks find it.
    pub(crate) fn remember(&self, stream: u32, exchange: &Rc<RefCell<Exchange>>) {
        self.with(|worker| worker.streams.insert(stream, Rc::clone(exchange)));
    }

    pub(crate) fn forget(&self, stream: u32) {
        self.with(|worker| worker.streams.remove(&stream));
    }

    pub(crate) fn ask(&self, stream: u32, claim: &Claim) {
        // Serializing strings cannot fail; were it to, the letter is late at the next tick.
        let json = serde_json::to_string(claim).unwrap_or_default();
        let sender = Asking { stream, claim_id: claim.claim_id.clone() };
        self.with(|worker| {
            let letter = Letter { sender, json, posted_ms: host::now_ms() };
            if let Err(refused) = worker.claims.post(letter) {
                worker.unasked.push(refused);
            }
            worker.ring();
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
            let letter = Letter { sender, json, posted_ms: host::now_ms() };
            if worker.settlements.post(letter).is_err() {
                worker.counters.count(Counter::SettlementDropped);
            }
            if urgent {
                worker.ring();
            }
        });
    }

    pub(crate) fn count(&self, counter: Counter) {
        self.with(|worker| worker.counters.count(counter));
    }

    pub(crate) fn warn(&self, line: &str) {
        self.with(|worker| worker.warnings.write(line, host::now_ms()));
    }
}

impl Worker {
    fn ring(&mut self) {
        if let Some(bell) = self.bell.as_ref().filter(|_| !self.rung) {
            bell.ring();
            self.rung = true;
        }
    }
}

impl Warnings {
    fn write(&mut self, line: &str, now_ms: u64) {
        self.tell_of_swallowed(now_ms);
        if self.written < WARNINGS_PER_SECOND {
            self.written += 1;
            host::warn(line);
        } else {
            self.swallowed += 1;
        }
    }

    /// Starts a new second, if it is one.
    fn tell_of_swallowed(&mut self, now_ms: u64) {
        let second = now_ms / 1000;
        if second == self.second {
            return;
        }
        self.second = second;
        self.written = 0;
        if self.swallowed > 0 {
            host::warn(&format!("{} more warnings of this kind were not written", self.swallowed));
            self.swallowed = 0;
        }
    }
}

fn post(sidecar: &Sidecar, path: &str, body: &str) -> Option<u32> {
    host::post(&sidecar.cluster, path, &sidecar.authorization, body, sidecar.timeout_ms)
}

fn start_line(config: &Config) -> String {
    let keys: usize = config.accounts.iter().map(|account| account.keys.len()).sum();
    format!(
        "twilio-edge {} ready: {} origins, {} accounts with {keys} keys, {} routes, {}",
        env!("CARGO_PKG_VERSION"),
        config.origins.len(),
        config.accounts.len(),
        config.routes.len(),
        match &config.sidecar {
            Some(sidecar) => format!("sidecar in cluster {}", sidecar.cluster),
            None => "no sidecar".to_owned(),
        }
    )
}
