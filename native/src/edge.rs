//! One configuration of the filter: the state that the main thread, the workers and the ticker share.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use twilio_edge_filter::adapter::{
    MAX_SETTLEMENT_BYTES, SettlementOrigin, configuration_digest, start_line, tick_ms,
};
use twilio_edge_filter::callouts::{Lane, QueuedItem};
use twilio_edge_filter::config::Config;
use twilio_edge_filter::log_limit::LogLimit;
use twilio_edge_filter::metrics::{Counter, Tally};
use twilio_edge_filter::refused_requests::RefusedRequests;

use crate::envoy::{self, ConfigScheduler, EnvoyConfig, StreamScheduler};
use crate::main_thread::MainThread;
use crate::metrics::Metrics;
use crate::sync::lock;
use crate::thread_bound::ThreadBound;
use crate::ticker::Ticker;
use crate::worker::LocalWorker;

/// Name of the filter in the configuration of Envoy. The library has no other.
const FILTER_NAME: &[u8] = b"twilio_edge";

/// Events of `config_scheduled`.
pub(crate) const EVENT_TICK: u64 = 1;
/// An urgent settlement was posted.
pub(crate) const EVENT_POSTED: u64 = 2;

/// Settlement on its way from a worker to the main thread.
pub(crate) struct PostedSettlement {
    pub(crate) lane: Lane,
    pub(crate) item: QueuedItem<SettlementOrigin<StreamScheduler>>,
    pub(crate) is_urgent: bool,
}

/// Settlements that the main thread has not taken yet.
#[derive(Default)]
struct Inbox {
    settlements: Vec<PostedSettlement>,
    bytes: usize,
}

/// State of one worker that other threads use.
pub(crate) struct Slot {
    pub(crate) local: ThreadBound<std::rc::Rc<LocalWorker>>,
    tally: Mutex<Tally>,
    refusals: Mutex<LogLimit>,
    /// Number of streams that wait.
    pub(crate) waiting: AtomicUsize,
    /// A stream of the worker whose hook delivers ticks to all of them.
    pub(crate) tick_stream: Mutex<Option<StreamScheduler>>,
    /// A tick was sent to the worker, which has not handled it.
    pub(crate) is_tick_sent: AtomicBool,
}

/// One configuration of the filter.
pub(crate) struct Edge {
    /// The configuration as given.
    pub(crate) config: Arc<Config>,
    /// Digest of the configuration, which identifies it without showing it.
    pub(crate) digest: String,
    pub(crate) envoy: EnvoyConfig,
    pub(crate) metrics: Metrics,
    pub(crate) slots: Vec<Slot>,
    pub(crate) main: ThreadBound<MainThread>,
    pub(crate) reports: Mutex<RefusedRequests>,
    scheduler: ConfigScheduler,
    inbox: Mutex<Inbox>,
    is_post_announced: AtomicBool,
    /// The main thread has a tick to handle.
    is_tick_announced: AtomicBool,
    /// A worker received verdicts since the last tick: the sidecar is available.
    is_sidecar_available: AtomicBool,
    panics: AtomicU64,
    /// Configuration with the newest key ring, and the number of rings so far.
    with_key_ring: Mutex<Arc<Config>>,
    key_rings: AtomicU64,
    ticker: Mutex<Option<Ticker>>,
}

impl Edge {
    /// Loads a configuration; logs every problem and returns `None` if it is not valid. Only in `config_new`.
    pub(crate) fn load(envoy: EnvoyConfig, name: &[u8], json: &[u8]) -> Option<Arc<Self>> {
        if name != FILTER_NAME {
            let name = String::from_utf8_lossy(name);
            envoy::error(&format!(
                "twilio-edge configuration: filter_name is {name:?}, and must be \"twilio_edge\""
            ));
            return None;
        }
        let config = match Config::parse(json, &|name| std::env::var(name).ok()) {
            Ok(config) => Arc::new(config),
            Err(problems) => {
                for problem in problems {
                    envoy::error(&format!("twilio-edge configuration: {problem}"));
                }
                return None;
            }
        };
        let digest = configuration_digest(json);
        envoy::info(&start_line(&config, &digest));
        // One more: the main thread also has filters, if Envoy itself sends requests through this listener.
        let slots = (0..=envoy::concurrency()).map(|_| Slot::new()).collect();
        let edge = Arc::new(Self {
            reports: Mutex::new(RefusedRequests::new(&config)),
            with_key_ring: Mutex::new(Arc::clone(&config)),
            config,
            digest,
            envoy,
            metrics: Metrics::define(envoy),
            slots,
            main: ThreadBound::new(),
            scheduler: envoy.scheduler(),
            inbox: Mutex::default(),
            is_post_announced: AtomicBool::new(false),
            is_tick_announced: AtomicBool::new(false),
            is_sidecar_available: AtomicBool::new(false),
            panics: AtomicU64::new(0),
            key_rings: AtomicU64::new(0),
            ticker: Mutex::new(None),
        });
        // Also makes this thread the owner.
        if let Some(main) = edge.main.get_or_create(|| MainThread::new(&edge)) {
            main.set_generation(&edge, "");
        }
        if !envoy::is_validation_mode() {
            let (period_ms, shared) = (tick_ms(&edge.config), Arc::downgrade(&edge));
            let tick = move || shared.upgrade().map(|edge| edge.announce_tick()).is_some();
            *lock(&edge.ticker) = Some(Ticker::start(period_ms, tick)?);
        }
        Some(edge)
    }

    /// Ends the ticker. After it no thread of the module uses the configuration.
    pub(crate) fn stop_ticker(&self) {
        let ticker = lock(&self.ticker).take();
        drop(ticker);
    }

    /// Returns the slot of a worker. The last one is that of the main thread.
    pub(crate) fn slot(&self, worker: usize) -> Option<&Slot> {
        self.slots.get(worker).or(self.slots.last())
    }

    /// Posts a settlement to the main thread. Returns false if there is no room.
    pub(crate) fn post_settlement(&self, posted: PostedSettlement) -> bool {
        let is_urgent = posted.is_urgent;
        {
            let mut inbox = lock(&self.inbox);
            let bytes = inbox.bytes.saturating_add(posted.item.record.len());
            if bytes > MAX_SETTLEMENT_BYTES {
                return false;
            }
            inbox.bytes = bytes;
            inbox.settlements.push(posted);
        }
        if is_urgent && !self.is_post_announced.swap(true, Ordering::AcqRel) {
            self.scheduler.commit(EVENT_POSTED);
        }
        true
    }

    /// Takes the posted settlements.
    pub(crate) fn take_posted(&self) -> Vec<PostedSettlement> {
        self.is_post_announced.store(false, Ordering::Release);
        std::mem::take(&mut *lock(&self.inbox)).settlements
    }

    /// Returns the number of posted settlements that the main thread has not taken.
    pub(crate) fn posted(&self) -> usize {
        lock(&self.inbox).settlements.len()
    }

    /// Makes the main thread tick, unless it still has a tick to handle. Called by the ticker.
    pub(crate) fn announce_tick(&self) {
        if !self.is_tick_announced.swap(true, Ordering::AcqRel) {
            self.scheduler.commit(EVENT_TICK);
        }
    }

    /// Records that the main thread handles the tick.
    pub(crate) fn begin_tick(&self) {
        self.is_tick_announced.store(false, Ordering::Release);
    }

    pub(crate) fn record_sidecar_available(&self) {
        if !self.is_sidecar_available.load(Ordering::Relaxed) {
            self.is_sidecar_available.store(true, Ordering::Relaxed);
        }
    }

    pub(crate) fn take_sidecar_available(&self) -> bool {
        self.is_sidecar_available.swap(false, Ordering::Relaxed)
    }

    pub(crate) fn count_panic(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn take_panics(&self) -> u64 {
        self.panics.swap(0, Ordering::Relaxed)
    }

    /// Stores the configuration with a new key ring, for the workers.
    pub(crate) fn set_key_ring(&self, config: Config) {
        *lock(&self.with_key_ring) = Arc::new(config);
        self.key_rings.fetch_add(1, Ordering::Release);
    }

    /// Returns the configuration with the newest key ring and its number, if it is newer than ring number `have`.
    pub(crate) fn newer_key_ring(&self, have: u64) -> Option<(Arc<Config>, NonZeroU64)> {
        let number = self.key_rings.load(Ordering::Acquire);
        if number == have {
            return None;
        }
        Some((Arc::clone(&lock(&self.with_key_ring)), NonZeroU64::new(number)?))
    }
}

impl Slot {
    fn new() -> Self {
        Self {
            local: ThreadBound::new(),
            tally: Mutex::default(),
            refusals: Mutex::default(),
            waiting: AtomicUsize::new(0),
            tick_stream: Mutex::new(None),
            is_tick_sent: AtomicBool::new(false),
        }
    }

    pub(crate) fn count(&self, counter: Counter) {
        lock(&self.tally).count(counter);
    }

    pub(crate) fn tally(&self) -> MutexGuard<'_, Tally> {
        lock(&self.tally)
    }

    pub(crate) fn refusals(&self) -> MutexGuard<'_, LogLimit> {
        lock(&self.refusals)
    }
}
