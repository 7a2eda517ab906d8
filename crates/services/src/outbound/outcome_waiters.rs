//! Lets requests wait for a message's outcome. The local dispatcher notifies waiters as soon as the outcome is stored;
//! a poll covers messages that another sidecar sends. Decides when waiting is pointless; the meaning of an outcome is
//! known elsewhere.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use twilio_edge_platform::clock::now_ms;
use twilio_edge_store::{OutboundMessage, OutboundMessages, StoreError};

/// Interval of the poll for outcomes that another sidecar stored.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Waiters by message id; at most one per request in progress.
#[derive(Debug, Clone, Default)]
pub struct OutcomeWaiters(Arc<Mutex<HashMap<String, Waiting>>>);

/// Waiters of one message: their number, and the notification that they share.
#[derive(Debug, Default)]
struct Waiting {
    notify: Arc<Notify>,
    count: usize,
}

/// Registration of one waiter; dropping it ends the registration.
struct Registration<'a> {
    waiters: &'a OutcomeWaiters,
    id: &'a str,
    notify: Arc<Notify>,
}

impl OutcomeWaiters {
    /// Notifies the waiters of this message that its outcome is stored.
    pub fn notify(&self, id: &str) {
        if let Some(waiting) = self.waiting().get(id) {
            waiting.notify.notify_waiters();
        }
    }

    /// Waits until the message has an outcome or `max_wait` has passed. Returns the message as it is then; `None` if
    /// this account has no such message.
    ///
    /// # Errors
    /// Returns an error if the database fails.
    pub async fn wait(
        &self,
        messages: &OutboundMessages,
        account_sid: &str,
        id: &str,
        max_wait: Duration,
    ) -> Result<Option<OutboundMessage>, StoreError> {
        let deadline = Instant::now() + max_wait;
        let registration = self.register(id);
        loop {
            // The notification is requested before the message is read, so that no outcome is missed in between.
            let notified = registration.notify.notified();
            let found = messages.fetch(id, Some(account_sid)).await?;
            let remaining = deadline.saturating_duration_since(Instant::now());
            let remaining_ms = i64::try_from(remaining.as_millis()).unwrap_or(i64::MAX);
            let may_end = |message: &OutboundMessage| {
                may_end_before(message, now_ms().saturating_add(remaining_ms))
            };
            match found {
                Some(message) if may_end(&message) && !remaining.is_zero() => {
                    let _ = tokio::time::timeout(POLL_INTERVAL.min(remaining), notified).await;
                }
                found => return Ok(found),
            }
        }
    }

    fn register<'a>(&'a self, id: &'a str) -> Registration<'a> {
        let mut waiting = self.waiting();
        let of_this = waiting.entry(id.to_owned()).or_default();
        of_this.count = of_this.count.saturating_add(1);
        Registration { waiters: self, id, notify: of_this.notify.clone() }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        let mut waiting = self.waiters.waiting();
        if let Some(of_this) = waiting.get_mut(self.id) {
            of_this.count = of_this.count.saturating_sub(1);
            if of_this.count == 0 {
                waiting.remove(self.id);
            }
        }
    }
}

/// Returns whether the message may get an outcome before this time. A message that is due later gets none; neither does
/// one whose outcome is unknown.
fn may_end_before(message: &OutboundMessage, until_ms: i64) -> bool {
    match message.state.as_str() {
        "attempting" => true,
        "queued" => message.due_at_ms <= until_ms,
        _ => false,
    }
}
