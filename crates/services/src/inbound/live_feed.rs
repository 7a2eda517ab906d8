//! Live feed: the webhooks that any sidecar of the database records, as streams for callers. One poll of the ledger serves all streams
//! of a sidecar, and only while a stream is open. A stream holds a position and no queue: one that falls behind reads the ledger, so
//! it misses nothing. Recording a webhook does not wait for streams.

mod open_streams;
mod recent;
mod stream;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

pub use self::stream::{LiveStream, StreamItem};
use self::{open_streams::OpenStreams, recent::Recent};
use twilio_edge_domain::live_stream::{StreamFilter, StreamPosition, start};
use twilio_edge_domain::message::RecordedWebhook;
use twilio_edge_platform::{
    clock::{now_ms, ticks},
    config,
    metrics::Metrics,
};
use twilio_edge_store::{StoreError, message_history::MessageHistory};

/// Interval between two reads of the ledger.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Largest number of webhooks of one read.
const PAGE: usize = 100;

/// Webhook in its position.
#[derive(Debug, PartialEq, Eq)]
pub struct PositionedWebhook {
    /// Position in the order of recording.
    pub position: StreamPosition,
    /// The webhook.
    pub webhook: RecordedWebhook,
}

/// Webhooks after a position.
#[derive(Debug, Default, PartialEq, Eq)]
struct FeedPage {
    webhooks: Vec<Arc<PositionedWebhook>>,
    /// Position before which no webhook follows this page; `None` if more may follow.
    end: Option<i64>,
}

/// Reason why no stream was opened.
#[derive(Debug, PartialEq, Eq)]
pub enum OpenError {
    /// The caller has as many streams as one caller may have.
    TooManyOfCaller(usize),
    /// The sidecar has as many streams as it may have.
    TooMany(usize),
    /// The sidecar is stopping.
    Stopping,
    /// The ledger is unavailable.
    Store(StoreError),
}

/// Caller of a stream, for its limit and for the log.
#[derive(Debug, Clone)]
pub struct StreamCaller {
    /// Identity of the caller.
    pub actor: String,
    /// Address of the caller.
    pub source: String,
}

/// The feed of this sidecar. Copies share it.
#[derive(Clone)]
pub struct LiveFeed {
    shared: Arc<Shared>,
}

struct Shared {
    histories: MessageHistory,
    settings: config::Stream,
    recent: Mutex<Recent>,
    open: OpenStreams,
    /// Incremented when webhooks were read; closed streams when the sidecar stops.
    changed: watch::Sender<Signal>,
}

/// News for streams.
#[derive(Debug, Clone, Copy, Default)]
struct Signal {
    reads: u64,
    is_stopping: bool,
}

impl LiveFeed {
    /// Creates the feed; [`LiveFeed::run`] reads the ledger for it.
    pub fn new(
        histories: MessageHistory,
        settings: &config::Stream,
        metrics: Arc<Metrics>,
    ) -> LiveFeed {
        let open = OpenStreams::new(settings, metrics);
        LiveFeed {
            shared: Arc::new(Shared {
                histories,
                settings: settings.clone(),
                recent: Mutex::default(),
                open,
                changed: watch::Sender::default(),
            }),
        }
    }

    /// Opens a stream. `asked` is the position after which the caller wants to continue, with the time at which it was current.
    ///
    /// # Errors
    /// Returns the limit that the stream would exceed, or the failure of the ledger.
    pub async fn open(
        &self,
        caller: StreamCaller,
        filter: StreamFilter,
        asked: Option<(StreamPosition, i64)>,
    ) -> Result<LiveStream, OpenError> {
        let changed = self.shared.changed.subscribe();
        if changed.borrow().is_stopping {
            return Err(OpenError::Stopping);
        }
        let slot = self.shared.open.admit(caller, filter.account_sid.as_deref())?;
        let end = self.shared.histories.end_of_recording().await.map_err(OpenError::Store)?;
        let start = start(asked, end, now_ms());
        Ok(LiveStream::new(self.clone(), filter, start, end, changed, slot))
    }

    /// Ends all streams, and opens no further one.
    pub fn stop(&self) {
        self.shared.changed.send_modify(|signal| signal.is_stopping = true);
    }

    /// Reads the ledger while a stream is open, for ever.
    pub async fn run(self) {
        loop {
            self.shared.open.wait_for_any().await;
            let mut ticks = ticks(POLL_INTERVAL);
            while self.shared.open.has_any() {
                ticks.tick().await;
                if let Err(reason) = self.poll().await {
                    tracing::warn!(event = "stream.read_failed", %reason, "the sidecar could not read the ledger for live streams; it retries, and the streams miss nothing");
                }
            }
            *self.recent() = Recent::default();
        }
    }

    /// Reads the webhooks since the last poll.
    async fn poll(&self) -> Result<(), StoreError> {
        loop {
            let end = self.shared.histories.end_of_recording().await?;
            let Some(after) = self.recent().continue_at(end) else {
                // A stream may have read up to here before this task did.
                self.report();
                return Ok(());
            };
            if after >= StreamPosition::before(end) {
                return Ok(());
            }
            let page = self.read(&after, end).await?;
            let (is_complete, has_any) = (page.end.is_some(), !page.webhooks.is_empty());
            self.recent().add(page);
            if has_any {
                self.report();
            }
            if is_complete {
                return Ok(());
            }
        }
    }

    fn report(&self) {
        self.shared.changed.send_modify(|signal| signal.reads = signal.reads.wrapping_add(1));
    }

    /// Returns the webhooks after a position: from memory if it has them, else from the ledger.
    async fn after(&self, position: &StreamPosition) -> Result<FeedPage, StoreError> {
        let recent = self.recent().after(position, PAGE);
        match recent {
            Some(page) => Ok(page),
            None => {
                let end = self.shared.histories.end_of_recording().await?;
                self.read(position, end).await
            }
        }
    }

    async fn read(&self, after: &StreamPosition, end: i64) -> Result<FeedPage, StoreError> {
        let rows = self.shared.histories.recorded_after(after, end, PAGE).await?;
        let end = (rows.len() < PAGE).then_some(end);
        let positioned = |(position, webhook)| Arc::new(PositionedWebhook { position, webhook });
        Ok(FeedPage { webhooks: rows.into_iter().map(positioned).collect(), end })
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.shared.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
