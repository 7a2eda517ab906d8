//! Who waits for what becomes of a message: told by the sender of this sidecar as soon as it is written down, and looking
//! itself now and then, because another sidecar may have sent it. Decides when there is nothing to wait for; what an answer means
//! is known elsewhere.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use twilio_edge_platform::clock::now_ms;
use twilio_edge_store::{OutboundMessage, OutboundMessages, StoreError};

/// How often to look what another sidecar has done.
const LOOK: Duration = Duration::from_millis(500);

/// Those who wait, by the id of their message. As many as there are requests under way.
#[derive(Debug, Clone, Default)]
pub struct OutcomeWaiters(Arc<Mutex<HashMap<String, Waiting>>>);

/// How many wait for one message, and how they are told.
#[derive(Debug, Default)]
struct Waiting {
    told: Arc<Notify>,
    count: usize,
}

/// Somebody who waits; not any more when it is dropped.
struct Place<'a> {
    answers: &'a OutcomeWaiters,
    id: &'a str,
    told: Arc<Notify>,
}

impl OutcomeWaiters {
    /// Something of this message was written down.
    pub fn tell(&self, id: &str) {
        if let Some(waiting) = self.waiting().get(id) {
            waiting.told.notify_waiters();
        }
    }

    /// The message as it is once it has an end, or `patience` has: whichever is first. None if it is not there, or another
    /// account's.
    pub async fn of(
        &self,
        sends: &OutboundMessages,
        account_sid: &str,
        id: &str,
        patience: Duration,
    ) -> Result<Option<OutboundMessage>, StoreError> {
        let deadline = Instant::now() + patience;
        let place = self.place(id);
        loop {
            // Asked to be told before looking: what is written in between is not missed.
            let told = place.told.notified();
            let found = sends.fetch(id, Some(account_sid)).await?;
            let left = deadline.saturating_duration_since(Instant::now());
            let left_ms = i64::try_from(left.as_millis()).unwrap_or(i64::MAX);
            let is_soon =
                |send: &OutboundMessage| is_on_its_way(send, now_ms().saturating_add(left_ms));
            match found {
                Some(send) if is_soon(&send) && !left.is_zero() => {
                    let _ = tokio::time::timeout(LOOK.min(left), told).await;
                }
                found => return Ok(found),
            }
        }
    }

    fn place<'a>(&'a self, id: &'a str) -> Place<'a> {
        let mut waiting = self.waiting();
        let of_this = waiting.entry(id.to_owned()).or_default();
        of_this.count = of_this.count.saturating_add(1);
        Place { answers: self, id, told: of_this.told.clone() }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = self.answers.waiting();
        if let Some(of_this) = waiting.get_mut(self.id) {
            of_this.count = of_this.count.saturating_sub(1);
            if of_this.count == 0 {
                waiting.remove(self.id);
            }
        }
    }
}

/// Whether it may have an end before that time. What is tried again later, or is for later, has none; of what is unknown nobody
/// can say.
fn is_on_its_way(send: &OutboundMessage, until_ms: i64) -> bool {
    match send.state.as_str() {
        "attempting" => true,
        "queued" => send.due_at_ms <= until_ms,
        _ => false,
    }
}
