//! The ledger's events, written right behind the answers: a bounded queue and one writer that takes whatever waits as one
//! transaction. What happens when the queue is full, when the database is away, when it refuses a row and when
//! the process stops is decided here; what an event is, is not.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::mpsc::{self, error::TrySendError},
    task::JoinHandle,
};

use crate::{
    config,
    metrics::Metrics,
    store::{EventRow, StoreError, Stores},
};

/// Between two tries to reach a database that is away, at least and at most.
const RETRY: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(2)];

/// The way in.
#[derive(Clone)]
pub struct Events {
    queue: mpsc::Sender<EventRow>,
    stores: Stores,
    metrics: Arc<Metrics>,
}

/// The writer, to be waited for when everything else has stopped.
pub struct Writer(JoinHandle<()>);

impl Events {
    /// Starts the writer. It ends when every [`Events`] is dropped and everything queued is written.
    pub fn start(
        settings: &config::Events,
        stores: Stores,
        metrics: Arc<Metrics>,
    ) -> (Events, Writer) {
        let (queue, waiting) = mpsc::channel(settings.queue);
        let flush = Flush {
            batch: settings.batch,
            linger: Duration::from_millis(settings.linger_ms),
            stores: stores.clone(),
            metrics: metrics.clone(),
        };
        let writer = Writer(tokio::spawn(flush.run(waiting)));
        (Events { queue, stores, metrics }, writer)
    }

    /// Takes events. Returns at once while the queue has room; when it is full, the rest is written before the answer:
    /// the load then goes at the speed of the database instead of losing anything.
    pub async fn record(&self, events: Vec<EventRow>) -> Result<(), StoreError> {
        let mut rest = Vec::new();
        for event in events {
            match self.queue.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Full(event) | TrySendError::Closed(event)) => rest.push(event),
            }
        }
        self.metrics.queued(self.queue.max_capacity() - self.queue.capacity());
        if rest.is_empty() {
            return Ok(());
        }
        let count = rest.len();
        self.stores.keep_events(rest).await?;
        self.metrics.events_written(count);
        Ok(())
    }
}

impl Writer {
    /// Waits until everything queued is written; false when that took longer than `limit`.
    pub async fn finish(mut self, limit: Duration) -> bool {
        let finished = tokio::time::timeout(limit, &mut self.0).await.is_ok();
        self.0.abort();
        finished
    }
}

struct Flush {
    batch: usize,
    linger: Duration,
    stores: Stores,
    metrics: Arc<Metrics>,
}

impl Flush {
    async fn run(self, mut waiting: mpsc::Receiver<EventRow>) {
        let mut batch = Vec::new();
        while waiting.recv_many(&mut batch, self.batch).await > 0 {
            // Company for the first one, until the batch is full, the time is over or nobody is left to come.
            let company = async {
                while batch.len() < self.batch {
                    let Some(event) = waiting.recv().await else { break };
                    batch.push(event);
                }
            };
            let _ = tokio::time::timeout(self.linger, company).await;
            self.metrics.queued(waiting.len() + batch.len());
            self.write(std::mem::take(&mut batch)).await;
            self.metrics.queued(waiting.len());
        }
    }

    async fn write(&self, batch: Vec<EventRow>) {
        let count = batch.len();
        match self.keep(batch.clone()).await {
            Ok(()) => self.metrics.events_written(count),
            // One bad row must not hold up the others: each on its own.
            Err(_) => {
                for event in batch {
                    match self.keep(vec![event]).await {
                        Ok(()) => self.metrics.events_written(1),
                        Err(reason) => {
                            self.metrics.event_refused();
                            tracing::error!(%reason, "the database refused an event, which is lost");
                        }
                    }
                }
            }
        }
    }

    /// Tries until the database is there; the reason, if it refuses.
    async fn keep(&self, events: Vec<EventRow>) -> Result<(), StoreError> {
        let [mut pause, longest] = RETRY;
        loop {
            match self.stores.keep_events(events.clone()).await {
                Err(StoreError::Away(reason)) => {
                    tracing::warn!(%reason, count = events.len(), "events wait for the database");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(longest);
                }
                done => return done,
            }
        }
    }
}
