//! Delivery of webhooks to sinks: one delivery worker per sink claims lanes that are due, delivers each lane in order,
//! and stores the results. This module decides how many lanes run at a time and when to read the outbox. The domain
//! decides when to retry and when to pause a sink; the store decides which deliveries are due.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    sync::{Notify, watch},
    task::{JoinError, JoinSet},
};

use twilio_edge_connectors::sinks::{Sink, Sinks};
use twilio_edge_domain::{
    delivery::{CircuitBreaker, DeliveryOutcome, NextStep, RetryPolicy},
    event::Delivery,
};
use twilio_edge_platform::{
    metrics::Metrics,
    tasks::{Supervisor, Task, TaskHandle, catch_panic},
};
use twilio_edge_store::{AttemptResult, DeliveryRound, OrderedDeliveries, Outbox, StoreError};

/// Time that a lane is claimed for, in addition to the longest try. If its worker dies, another one delivers it
/// afterwards.
const HOLD: Duration = Duration::from_secs(40);

/// Interval between reads of the outbox, for deliveries that other sidecars recorded and for lanes whose pause is over.
const LOOK: Duration = Duration::from_millis(250);

/// Pause after the database was unavailable.
const AWAY: Duration = Duration::from_secs(1);

/// Delivery workers of a sidecar.
pub struct DeliveryWorkers {
    stop: watch::Sender<bool>,
    working: Vec<TaskHandle>,
}

/// Wakes the delivery workers after a delivery was recorded, so that it does not wait for the next read.
#[derive(Debug, Clone, Default)]
pub struct Wakeup(Arc<Notify>);

impl Wakeup {
    /// Reports that there is a delivery.
    pub fn wake(&self) {
        self.0.notify_waiters();
    }
}

impl DeliveryWorkers {
    /// Starts one worker for each sink; `name` identifies this sidecar among the others.
    pub fn start(
        sinks: &Sinks,
        outbox: &Outbox,
        wakeup: &Wakeup,
        metrics: &Arc<Metrics>,
        name: &str,
        tasks: &Supervisor,
    ) -> DeliveryWorkers {
        let (stop, stopping) = watch::channel(false);
        sinks.iter().for_each(|sink| metrics.sinks.begin(sink.name()));
        let names: Vec<String> = sinks.iter().map(|sink| sink.name().to_owned()).collect();
        let workers = names.into_iter().map(|sink| DeliveryWorker {
            sinks: sinks.clone(),
            sink,
            outbox: outbox.clone(),
            wakeup: wakeup.clone(),
            metrics: metrics.clone(),
            name: name.to_owned(),
            breaker: CircuitBreaker::new(),
            running: JoinSet::new(),
            unwritten: Vec::new(),
        });
        let start = |worker: DeliveryWorker| {
            tasks.spawn_owned(Task::DeliveryWorker, worker.work(stopping.clone()))
        };
        let working = workers.map(start).collect();
        DeliveryWorkers { stop, working }
    }

    /// Claims no new lanes and waits for those in progress. Returns false if that takes longer than `limit`.
    pub async fn finish(self, limit: Duration) -> bool {
        self.working.iter().for_each(TaskHandle::expect_end);
        let _ = self.stop.send(true);
        let deadline = tokio::time::Instant::now() + limit;
        let mut finished = true;
        for worker in self.working {
            let limit = deadline.saturating_duration_since(tokio::time::Instant::now());
            finished &= worker.finish(limit).await;
        }
        finished
    }
}

struct DeliveryWorker {
    sinks: Sinks,
    sink: String,
    outbox: Outbox,
    wakeup: Wakeup,
    metrics: Arc<Metrics>,
    name: String,
    breaker: CircuitBreaker,
    /// Lanes in progress.
    running: JoinSet<(DeliveryRound, Option<DeliveryOutcome>)>,
    /// Rounds that have ended, but whose results are not in the database yet.
    unwritten: Vec<DeliveryRound>,
}

impl DeliveryWorker {
    async fn work(mut self, mut stopping: watch::Receiver<bool>) {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let wakeup = self.wakeup.clone();
        loop {
            // The notification is requested before the outbox is read, so that no wakeup is lost in between.
            let woken = wakeup.0.notified();
            let stop = *stopping.borrow();
            let there = self.write().await && (stop || self.take().await);
            if stop && self.running.is_empty() && (self.unwritten.is_empty() || !there) {
                return;
            }
            if !there {
                tokio::time::sleep(AWAY).await;
                continue;
            }
            tokio::select! {
                Some(ended) = self.running.join_next() => self.came_back(ended),
                () = woken, if !stop => {}
                _ = look.tick(), if !stop => {}
                _ = stopping.changed(), if !stop => {}
            }
            while let Some(ended) = self.running.try_join_next() {
                self.came_back(ended);
            }
        }
    }

    /// Claims as many lanes as may run now. Returns false if the database is unavailable.
    async fn take(&mut self) -> bool {
        let Some(sink) = self.sinks.get(&self.sink) else { return true };
        let (concurrency, longest_try) = (sink.concurrency(), sink.longest_try());
        let now_ms = now_ms();
        let free = concurrency.saturating_sub(self.running.len());
        let admitted = self.breaker.permits(free, now_ms);
        if admitted == 0 {
            return true;
        }
        let until_ms = now_ms.saturating_add(millis(HOLD + longest_try));
        let taken = self.outbox.take(&self.sink, &self.name, admitted, now_ms, until_ms).await;
        let taken = match taken {
            Ok(taken) => taken,
            Err(reason) => {
                tracing::warn!(event = "deliveries.waiting", %reason, sink = %self.sink, "the worker could not claim due deliveries; they wait for the database");
                return false;
            }
        };
        for lane in taken {
            self.breaker.begin();
            let (sinks, sink) = (self.sinks.clone(), self.sink.clone());
            let metrics = self.metrics.clone();
            self.running.spawn(async move {
                match sinks.get(&sink) {
                    Some(sink) => bring(sink, lane, until_ms, &metrics).await,
                    // Cannot happen: the name comes from the same list.
                    None => (
                        DeliveryRound { lane: lane.lane, ended: Vec::new(), due_at_ms: until_ms },
                        None,
                    ),
                }
            });
        }
        true
    }

    fn came_back(&mut self, ended: Result<(DeliveryRound, Option<DeliveryOutcome>), JoinError>) {
        let Ok((round, last)) = ended else {
            // The round panicked. Its lane becomes due again when its hold ends.
            self.breaker.cancel();
            return;
        };
        let was_open = self.breaker.probe_at_ms().is_some();
        match &last {
            Some(last) => self.breaker.end(last, now_ms()),
            None => self.breaker.cancel(),
        }
        let is_open = self.breaker.probe_at_ms().is_some();
        if let (false, true, Some(DeliveryOutcome::Failed { reason, .. })) =
            (was_open, is_open, &last)
        {
            tracing::warn!(event = "sink.away", sink = %self.sink, reason, "a sink did not answer; its deliveries wait");
        } else if was_open && !is_open {
            tracing::info!(event = "sink.back", sink = %self.sink, "a sink answered again");
        }
        self.metrics.sinks.is_open(&self.sink, is_open);
        self.unwritten.push(round);
    }

    /// Stores the results of ended rounds. Returns false if the database is unavailable.
    async fn write(&mut self) -> bool {
        if self.unwritten.is_empty() {
            return true;
        }
        match self.outbox.end(&self.sink, &self.name, &self.unwritten, now_ms()).await {
            Ok(()) => {
                self.unwritten.clear();
                true
            }
            Err(reason @ StoreError::Unavailable(_)) => {
                tracing::warn!(event = "deliveries.unwritten", %reason, sink = %self.sink, "the worker could not store the results of deliveries; it retries");
                false
            }
            Err(reason) => {
                // The lanes become due again when their hold ends; a second delivery is better than none.
                tracing::error!(event = "deliveries.refused", %reason, sink = %self.sink, "the database rejected the results of deliveries; the worker delivers them again");
                self.unwritten.clear();
                true
            }
        }
    }
}

/// Delivers one lane in order, up to its first failure. Returns the results, and the outcome of the last try if there
/// was one.
async fn bring(
    sink: &Sink,
    lane: OrderedDeliveries,
    until_ms: i64,
    metrics: &Metrics,
) -> (DeliveryRound, Option<DeliveryOutcome>) {
    let mut round = DeliveryRound { lane: lane.lane, ended: Vec::new(), due_at_ms: now_ms() };
    let mut last = None;
    // Another worker can claim the lane when the hold ends, so no try starts that could still be in progress then.
    let last_start_ms = until_ms.saturating_sub(millis(sink.longest_try()));
    for due in &lane.due {
        if !round.ended.is_empty() && now_ms() > last_start_ms {
            break;
        }
        let tried = match due.delivery() {
            Some(parcel) => deliver(sink, &parcel).await,
            None => DeliveryOutcome::Refused {
                reason: "its event is not in the ledger any more".into(),
            },
        };
        let tries = due.tries.saturating_add(1);
        let next = next(sink.patience(), &tried, tries, due.recorded_at_ms);
        metrics.sinks.tried(sink.name(), &next);
        let reason = match &tried {
            DeliveryOutcome::Delivered => None,
            DeliveryOutcome::Failed { reason, .. } | DeliveryOutcome::Refused { reason } => {
                Some(reason.clone())
            }
        };
        if next == NextStep::DeadLetter {
            tracing::error!(
                event = "delivery.given_up", sink = %sink.name(), delivery.id = %due.delivery_id, tries, reason,
                "a delivery became a dead letter; `twilio-edge deliveries retry` sends it again"
            );
        }
        let stays = matches!(next, NextStep::RetryAt(_));
        last = Some(tried);
        round.ended.push(AttemptResult {
            delivery_id: due.delivery_id.clone(),
            account_sid: due.account_sid.clone(),
            received_at_ms: due.received_at_ms,
            tries,
            next,
            reason,
        });
        if stays {
            break;
        }
    }
    (round, last)
}

/// Makes one try. A try that panicked counts as failed, so that its delivery becomes a dead letter and does not block its
/// lane for ever.
async fn deliver(sink: &Sink, delivery: &Delivery<'_>) -> DeliveryOutcome {
    let tried = catch_panic(sink.deliver(delivery)).await;
    tried.unwrap_or_else(|_| DeliveryOutcome::Failed {
        reason: "the delivery panicked; the log has a line `process.panicked`".into(),
        retry_after: None,
        is_outage: false,
    })
}

fn next(
    patience: &RetryPolicy,
    tried: &DeliveryOutcome,
    tries: i64,
    recorded_at_ms: i64,
) -> NextStep {
    let tries = u32::try_from(tries).unwrap_or(u32::MAX);
    // Without randomness the pauses are correct, but not spread.
    let dice = getrandom::u64().unwrap_or_default();
    patience.next(tried, tries, recorded_at_ms, now_ms(), dice)
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    millis(since)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
