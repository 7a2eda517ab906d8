//! One live stream: follows the feed from a position, with a filter, until it has to end.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};

use super::{LiveFeed, PositionedWebhook, Signal, open_streams::Slot};
use twilio_edge_domain::live_stream::{
    GapReason, StreamEnd, StreamFilter, StreamPosition, StreamStart,
};
use twilio_edge_platform::clock::now_ms;

/// Pause after a failed read of the ledger.
const RETRY: Duration = Duration::from_secs(1);

/// Stream of one caller. It reads as fast as its client does.
pub struct LiveStream {
    feed: LiveFeed,
    filter: StreamFilter,
    gap: Option<GapReason>,
    /// Position up to which webhooks were read.
    position: StreamPosition,
    /// Position from which another stream can continue: that of the last webhook of this stream, or the end of a complete read. It
    /// names no webhook of another account.
    reached: StreamPosition,
    pending: VecDeque<Arc<PositionedWebhook>>,
    /// End of the read that `pending` belongs to, if it was complete.
    complete_before: Option<i64>,
    changed: watch::Receiver<Signal>,
    heartbeat_at: Instant,
    /// Time at which the last item was returned.
    returned_at: Option<Instant>,
    has_ended: bool,
    slot: Slot,
}

/// Item of a stream.
#[derive(Debug, PartialEq, Eq)]
pub enum StreamItem {
    /// A webhook.
    Webhook(Arc<PositionedWebhook>),
    /// No webhook for a while. The stream has reached this position.
    Heartbeat(StreamPosition),
    /// The end. No item follows.
    End(StreamEnd),
}

impl LiveStream {
    pub(super) fn new(
        feed: LiveFeed,
        filter: StreamFilter,
        start: StreamStart,
        end: i64,
        changed: watch::Receiver<Signal>,
        slot: Slot,
    ) -> LiveStream {
        let (position, gap) = match start {
            StreamStart::After(position) => (position, None),
            StreamStart::Now => (StreamPosition::before(end), None),
            StreamStart::Gap(reason) => (StreamPosition::before(end), Some(reason)),
        };
        LiveStream {
            heartbeat_at: Instant::now() + feed.heartbeat(),
            feed,
            filter,
            gap,
            reached: position.clone(),
            position,
            pending: VecDeque::new(),
            complete_before: None,
            changed,
            returned_at: None,
            has_ended: false,
            slot,
        }
    }

    /// Returns the position from which another stream can continue.
    pub fn reached(&self) -> &StreamPosition {
        &self.reached
    }

    /// Returns why webhooks before this stream are missing, if the caller asked to continue.
    pub fn gap(&self) -> Option<GapReason> {
        self.gap
    }

    /// Ends the stream for a reason of the caller.
    pub fn end(&mut self, end: StreamEnd) -> StreamItem {
        self.has_ended = true;
        self.slot.ends(end);
        StreamItem::End(end)
    }

    /// Returns the next item, when there is one; `None` after the end.
    pub async fn next(&mut self) -> Option<StreamItem> {
        if self.has_ended {
            return None;
        }
        let now = Instant::now();
        let slow = Duration::from_millis(self.feed.shared.settings.slow_ms);
        let item = match self.returned_at {
            Some(returned) if now.saturating_duration_since(returned) > slow => {
                self.end(StreamEnd::Slow)
            }
            _ => self.wait().await,
        };
        self.returned_at = Some(Instant::now());
        Some(item)
    }

    async fn wait(&mut self) -> StreamItem {
        let max_age = Duration::from_secs(self.feed.shared.settings.max_age_s);
        let expires = self.slot.opened() + max_age;
        loop {
            if let Some(next) = self.pending.pop_front() {
                self.reached = next.position.clone();
                self.slot.sent();
                self.heartbeat_at = Instant::now() + self.feed.heartbeat();
                return StreamItem::Webhook(next);
            }
            if let Some(end) = self.complete_before.take() {
                self.reached = StreamPosition::before(end).max(self.reached.clone());
            }
            if self.changed.borrow_and_update().is_stopping {
                return self.end(StreamEnd::Shutdown);
            }
            let now = Instant::now();
            if now >= expires {
                return self.end(StreamEnd::Expired);
            }
            if now >= self.heartbeat_at {
                self.heartbeat_at = now + self.feed.heartbeat();
                return StreamItem::Heartbeat(self.reached.clone());
            }
            let pause = match self.read().await {
                // More may follow at once.
                Some(false) => continue,
                Some(true) if !self.pending.is_empty() => continue,
                Some(true) => self.heartbeat_at,
                None => (Instant::now() + RETRY).min(self.heartbeat_at),
            };
            tokio::select! {
                changed = self.changed.changed() => {
                    if changed.is_err() {
                        return self.end(StreamEnd::Shutdown);
                    }
                }
                () = tokio::time::sleep_until(pause.min(expires)) => {}
            }
        }
    }

    /// Reads the next webhooks. Returns whether the read was complete; `None` if the ledger is unavailable.
    async fn read(&mut self) -> Option<bool> {
        let page = match self.feed.after(&self.position).await {
            Ok(page) => page,
            Err(reason) => {
                tracing::warn!(event = "stream.read_failed", %reason, "the sidecar could not read the ledger for live streams; it retries, and the streams miss nothing");
                return None;
            }
        };
        let last = page.webhooks.last().map(|last| last.position.clone());
        if let Some(read) = page.end.map(StreamPosition::before).or(last) {
            self.position = read.max(self.position.clone());
        }
        self.complete_before = page.end;
        let now_ms = now_ms();
        let is_selected =
            |next: &Arc<PositionedWebhook>| self.filter.selects(&next.webhook, now_ms);
        self.pending = page.webhooks.into_iter().filter(is_selected).collect();
        Some(page.end.is_some())
    }
}

impl LiveFeed {
    fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.shared.settings.heartbeat_ms)
    }
}
