//! Open streams of a sidecar: their limits, their metrics, and a log line when one opens and when it ends.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::watch, time::Instant};

use super::{OpenError, StreamCaller};
use twilio_edge_domain::live_stream::StreamEnd;
use twilio_edge_platform::{clock::millis, config, metrics::Metrics};

/// Number of open streams, by caller and in all.
pub(super) struct OpenStreams {
    by_caller: Arc<Mutex<HashMap<String, usize>>>,
    count: watch::Sender<usize>,
    max: usize,
    max_per_key: usize,
    metrics: Arc<Metrics>,
}

/// Place of one open stream; dropping it closes the stream.
pub(super) struct Slot {
    by_caller: Arc<Mutex<HashMap<String, usize>>>,
    count: watch::Sender<usize>,
    metrics: Arc<Metrics>,
    caller: StreamCaller,
    opened: Instant,
    webhooks: u64,
    end: StreamEnd,
}

impl OpenStreams {
    pub(super) fn new(settings: &config::Stream, metrics: Arc<Metrics>) -> OpenStreams {
        OpenStreams {
            by_caller: Arc::default(),
            count: watch::Sender::default(),
            max: settings.max,
            max_per_key: settings.max_per_key,
            metrics,
        }
    }

    /// Admits one more stream of this caller, unless a limit is reached.
    pub(super) fn admit(
        &self,
        caller: StreamCaller,
        account_sid: Option<&str>,
    ) -> Result<Slot, OpenError> {
        {
            let mut by_caller = lock(&self.by_caller);
            if by_caller.values().sum::<usize>() >= self.max {
                return Err(OpenError::TooMany(self.max));
            }
            let of_caller = by_caller.entry(caller.actor.clone()).or_default();
            if *of_caller >= self.max_per_key {
                return Err(OpenError::TooManyOfCaller(self.max_per_key));
            }
            *of_caller = of_caller.saturating_add(1);
        }
        self.count.send_modify(|count| *count = count.saturating_add(1));
        self.metrics.streams.opened();
        tracing::info!(
            event = "stream.opened",
            actor = caller.actor,
            source = caller.source,
            account.sid = account_sid,
            "a caller opened a live stream"
        );
        Ok(Slot {
            by_caller: self.by_caller.clone(),
            count: self.count.clone(),
            metrics: self.metrics.clone(),
            caller,
            opened: Instant::now(),
            webhooks: 0,
            end: StreamEnd::Client,
        })
    }

    /// Waits until a stream is open.
    pub(super) async fn wait_for_any(&self) {
        let _ = self.count.subscribe().wait_for(|count| *count > 0).await;
    }

    pub(super) fn has_any(&self) -> bool {
        *self.count.borrow() > 0
    }
}

impl Slot {
    /// Counts a webhook that was sent.
    pub(super) fn sent(&mut self) {
        self.webhooks = self.webhooks.saturating_add(1);
        self.metrics.streams.sent();
    }

    /// Sets the reason of the end. Without a call, the client closed the connection.
    pub(super) fn ends(&mut self, end: StreamEnd) {
        self.end = end;
    }

    pub(super) fn opened(&self) -> Instant {
        self.opened
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut by_caller = lock(&self.by_caller);
        if let Some(of_caller) = by_caller.get_mut(&self.caller.actor) {
            *of_caller = of_caller.saturating_sub(1);
            if *of_caller == 0 {
                by_caller.remove(&self.caller.actor);
            }
        }
        drop(by_caller);
        self.count.send_modify(|count| *count = count.saturating_sub(1));
        self.metrics.streams.closed(self.end);
        tracing::info!(
            event = "stream.closed",
            actor = self.caller.actor,
            reason = self.end.as_str(),
            webhooks = self.webhooks,
            duration_ms = millis(self.opened.elapsed()),
            "a live stream ended"
        );
    }
}

fn lock(by_caller: &Mutex<HashMap<String, usize>>) -> MutexGuard<'_, HashMap<String, usize>> {
    by_caller.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn streams_are_limited_for_each_caller_and_in_all() {
        let settings = config::Stream { max: 3, max_per_key: 2, ..config::defaults().stream };
        let streams = OpenStreams::new(&settings, Arc::default());
        let admit = |actor: &str| {
            let caller = StreamCaller { actor: actor.into(), source: "test".into() };
            streams.admit(caller, None)
        };
        assert!(!streams.has_any());
        let one = admit("a").unwrap();
        let _two = admit("a").unwrap();
        assert_eq!(admit("a").err(), Some(OpenError::TooManyOfCaller(2)));
        let three = admit("b").unwrap();
        assert_eq!(admit("c").err(), Some(OpenError::TooMany(3)));
        drop(one);
        let _four = admit("a").unwrap();
        drop(three);
        assert!(streams.has_any());
        let names: Vec<String> = lock(&streams.by_caller).keys().cloned().collect();
        assert_eq!(names, ["a"], "callers without streams are forgotten");
    }
}
